//! App settings: what the handler finds in its environment, and where each value came from.
//!
//! As under `func start`, the process environment wins over `local.settings.json`; where that file does not exist,
//! `local.settings.json.example` takes its place. A value of the environment, and one of the file that differs from
//! the example's, was chosen by the user, and then no stand-in takes its place; see [`Settings::is_users_own`].

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    path::Path,
};

use serde_json::Value;
use thiserror::Error;

const FILE: &str = "local.settings.json";
const EXAMPLE: &str = "local.settings.json.example";

/// The app settings, by name. Names have the case that the environment gives them.
#[derive(Debug, Clone, Default)]
pub struct Settings {
    values: BTreeMap<String, String>,
    /// The names of the values that the user chose.
    own: BTreeSet<String>,
    removed: Vec<String>,
    source: &'static str,
}

/// A settings file that cannot be used.
#[derive(Debug, Error)]
#[error("{file}: {reason}")]
pub struct SettingsError {
    file: &'static str,
    reason: String,
}

impl Settings {
    /// Reads the files in the app's folder under the process environment.
    pub fn load(
        app: &Path,
        environment: impl IntoIterator<Item = (String, String)>,
    ) -> Result<Self, SettingsError> {
        let own = read(app, FILE)?;
        let example = read(app, EXAMPLE)?.unwrap_or_default();
        let (mut values, source) = match own {
            Some(values) => (values, FILE),
            None if example.is_empty() => (BTreeMap::new(), "the environment"),
            None => (example.clone(), EXAMPLE),
        };
        let mut own: BTreeSet<String> = values
            .iter()
            .filter(|(name, value)| example.get(*name) != Some(value))
            .map(|(name, _)| name.clone())
            .collect();
        for (name, value) in environment {
            own.insert(name.clone());
            values.insert(name, value);
        }
        Ok(Self {
            values,
            own,
            removed: Vec::new(),
            source,
        })
    }

    /// The file the settings come from.
    pub fn source(&self) -> &'static str {
        self.source
    }

    pub fn get(&self, name: &str) -> Option<&str> {
        self.values.get(name).map(String::as_str)
    }

    /// Whether the user chose this: it is not empty, and comes from the environment, or from the file with another
    /// value than in the example.
    pub fn is_users_own(&self, name: &str) -> bool {
        self.own.contains(name) && self.get(name).is_some_and(|value| !value.is_empty())
    }

    pub fn set(&mut self, name: &str, value: impl Into<String>) {
        self.values.insert(name.to_owned(), value.into());
    }

    /// Takes every setting whose name begins so out of the handler's environment.
    pub fn remove_starting_with(&mut self, prefix: &str) {
        let removed: Vec<String> = self
            .values
            .keys()
            .filter(|name| name.starts_with(prefix))
            .cloned()
            .collect();
        for name in &removed {
            self.values.remove(name);
        }
        self.removed.extend(removed);
    }

    /// All settings by name.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.values
            .iter()
            .map(|(name, value)| (name.as_str(), value.as_str()))
    }

    /// Names that the handler must not inherit from devhost's own environment.
    pub fn removed(&self) -> &[String] {
        &self.removed
    }

    /// The text with each `%Name%` replaced by that setting; the error is the first name that is not set.
    /// A lone percent sign stays.
    pub fn resolve(&self, text: &str) -> Result<String, String> {
        expand(text, |name| {
            self.get(name).map(str::to_owned).ok_or(name.to_owned())
        })
    }
}

/// Replaces each `%Name%` by what `value_of` gives for it.
pub fn expand<E>(text: &str, value_of: impl Fn(&str) -> Result<String, E>) -> Result<String, E> {
    let mut expanded = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('%') {
        let Some((name, after)) = after.split_once('%') else {
            break;
        };
        expanded.push_str(before);
        expanded.push_str(&value_of(name)?);
        rest = after;
    }
    expanded.push_str(rest);
    Ok(expanded)
}

fn read(app: &Path, file: &'static str) -> Result<Option<BTreeMap<String, String>>, SettingsError> {
    let invalid = |reason: String| SettingsError { file, reason };
    let text = match std::fs::read_to_string(app.join(file)) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(invalid(error.to_string())),
    };
    let root: Value = serde_json::from_str(text.trim_start_matches('\u{feff}'))
        .map_err(|error| invalid(error.to_string()))?;
    if root["IsEncrypted"] == Value::Bool(true) {
        return Err(invalid(
            "`IsEncrypted` is true; decrypt it with `func settings decrypt`".to_owned(),
        ));
    }
    let values = match &root["Values"] {
        Value::Null => return Ok(Some(BTreeMap::new())),
        Value::Object(values) => values,
        _ => return Err(invalid("`Values` is not an object".to_owned())),
    };
    values
        .iter()
        .filter(|(_, value)| !value.is_null())
        .map(|(name, value)| {
            let value = match value {
                Value::String(text) => text.clone(),
                Value::Bool(_) | Value::Number(_) => value.to_string(),
                _ => return Err(invalid(format!("`Values.{name}` is not a string"))),
            };
            Ok((name.clone(), value))
        })
        .collect::<Result<_, _>>()
        .map(Some)
}
