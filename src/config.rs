//! Where settings come from: the environment, to which the Functions host passes the app settings.
//!
//! [`Settings`] is read once, at start. Each concern reads its own variables with it, in its own file, and an
//! error names the variable and what it should have been, never the value, which may be a secret.

use secrecy::SecretString;
use thiserror::Error;

/// A setting that is missing or not usable.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum ConfigError {
    #[error("the setting {variable} is missing: it should be {expected}")]
    Missing { variable: String, expected: String },
    #[error("the setting {variable} is not usable: {problem}; it should be {expected}")]
    Invalid {
        variable: String,
        problem: String,
        expected: String,
    },
}

impl ConfigError {
    pub fn invalid(
        variable: &str,
        problem: impl Into<String>,
        expected: impl Into<String>,
    ) -> Self {
        Self::Invalid {
            variable: variable.to_owned(),
            problem: problem.into(),
            expected: expected.into(),
        }
    }
}

/// The variables as they are at start. An empty one counts as absent, because an app setting in Azure
/// is often emptied instead of removed.
pub struct Settings {
    read: Box<Read>,
}

type Read = dyn Fn(&str) -> Option<String>;

impl Settings {
    /// The settings of this process.
    pub fn from_env() -> Self {
        Self {
            read: Box::new(|variable| std::env::var(variable).ok()),
        }
    }

    /// These settings and no others.
    pub fn from_pairs<const N: usize>(pairs: [(&str, &str); N]) -> Self {
        let pairs = pairs.map(|(variable, value)| (variable.to_owned(), value.to_owned()));
        Self {
            read: Box::new(move |wanted| {
                pairs
                    .iter()
                    .find(|(variable, _)| variable == wanted)
                    .map(|(_, value)| value.clone())
            }),
        }
    }

    pub fn optional(&self, variable: &str) -> Option<String> {
        (self.read)(variable)
            .map(|value| value.trim().to_owned())
            .filter(|value| !value.is_empty())
    }

    /// The value, or an error that tells what it should be, as in "an email address".
    pub fn required(&self, variable: &str, expected: &str) -> Result<String, ConfigError> {
        self.optional(variable).ok_or_else(|| ConfigError::Missing {
            variable: variable.to_owned(),
            expected: expected.to_owned(),
        })
    }

    pub fn secret(&self, variable: &str, expected: &str) -> Result<SecretString, ConfigError> {
        self.required(variable, expected).map(SecretString::from)
    }
}
