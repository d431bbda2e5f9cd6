//! The vendors and where their webhooks go: the file that `VENDORS_FILE` names, read once at start.
//!
//! All of it is checked then, so that a mistake stops the process with the place in the file, and not an order's
//! notification in the night. A secret is never part of an error. `PARKED_VENDORS` names those that are to be left
//! alone: an operator can set it without a new package.

use std::{collections::HashMap, fmt, sync::Arc};

use base64::{Engine, engine::general_purpose::STANDARD};
use reqwest::Url;
use secrecy::SecretSlice;
use serde::Deserialize;

use crate::{
    channel::Channel,
    config::{ConfigError, Settings},
    place_order::is_vendor_id,
    public_address::is_public,
    retry_policy::RetryPolicy,
};

const VARIABLE: &str = "VENDORS_FILE";
const PARKED: &str = "PARKED_VENDORS";
const EXPECTED: &str = "the path of a JSON array of vendors: \
    [{ \"id\", \"name\", \"url\", \"secrets\": [\"whsec_…\" or \"env:NAME\"], \"allowPrivate\": false }]";

/// All vendors, by id. Clones share them.
#[derive(Clone, Debug)]
pub struct Vendors(Arc<HashMap<String, Vendor>>);

pub struct Vendor {
    pub id: String,
    pub url: Url,
    /// Each of them signs every webhook, so that a vendor can change to a new one without missing any.
    pub secrets: Vec<SecretSlice<u8>>,
    /// Whether `url` may lead to a private or loopback address.
    pub allow_private: bool,
    /// An operator has said that its messages should wait.
    pub is_parked: bool,
    pub channel: Channel,
}

impl fmt::Debug for Vendor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Vendor")
            .field("id", &self.id)
            .finish_non_exhaustive()
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Entry {
    id: String,
    #[expect(dead_code, reason = "it is for people, and has to be there")]
    name: String,
    url: String,
    secrets: Vec<String>,
    #[serde(default)]
    allow_private: bool,
}

impl Vendors {
    /// Reads the file that `VENDORS_FILE` names, `vendors.json` where it names none, and `PARKED_VENDORS`, which is ids
    /// with commas between them.
    pub fn from_settings(settings: &Settings, policy: &RetryPolicy) -> Result<Self, ConfigError> {
        let path = settings
            .optional(VARIABLE)
            .unwrap_or_else(|| "vendors.json".to_owned());
        let text = std::fs::read_to_string(&path)
            .map_err(|error| invalid(format!("{} cannot be read: {error}", printed(&path))))?;
        let mut vendors = Self::parse(&text, settings, policy)
            .map_err(|problem| invalid(format!("in {}, {problem}", printed(&path))))?;
        let parked = settings.optional(PARKED).unwrap_or_default();
        for id in parked.split(',').map(str::trim).filter(|id| !id.is_empty()) {
            let vendor = vendors.get_mut(id).ok_or_else(|| {
                let problem = format!("`{}` is not in VENDORS_FILE", shown_id(id));
                ConfigError::invalid(PARKED, problem, "ids of vendors, as in bakery,florist")
            })?;
            if !vendor.is_parked {
                tracing::warn!(vendor = id, "the vendor {id} is parked: its messages wait");
            }
            vendor.is_parked = true;
        }
        Ok(Self(Arc::new(vendors)))
    }

    pub fn get(&self, id: &str) -> Option<&Vendor> {
        self.0.get(id)
    }

    pub(crate) fn parse(
        text: &str,
        settings: &Settings,
        policy: &RetryPolicy,
    ) -> Result<HashMap<String, Vendor>, String> {
        // Some editors put a byte order mark there.
        let text = text.trim_start_matches('\u{feff}');
        let entries: Vec<Entry> = serde_json::from_str(text).map_err(|error| {
            // The message of a type error quotes the value, which may be a secret.
            let (line, column) = (error.line(), error.column());
            match error.classify() {
                serde_json::error::Category::Data => {
                    format!("the entry that ends at line {line}, column {column} is not a vendor")
                }
                _ => format!("line {line}, column {column} is not JSON"),
            }
        })?;
        let mut vendors = HashMap::new();
        for (index, entry) in entries.into_iter().enumerate() {
            let vendor = entry
                .check(settings, policy)
                .map_err(|problem| format!("vendor {index} {problem}"))?;
            if let Some(earlier) = vendors.insert(vendor.id.clone(), vendor) {
                return Err(format!(
                    "vendor {index} has the id `{}` of an earlier one",
                    earlier.id
                ));
            }
        }
        Ok(vendors)
    }
}

/// The path, unless it is the file's content, a secret of it or a URL, which somebody has set instead of it.
fn printed(path: &str) -> String {
    if path.len() > 260
        || path.contains(['{', '[', '"', '\n'])
        || path.contains("whsec_")
        || path.contains("://")
    {
        return "what it says, which is not a path,".to_owned();
    }
    format!("`{path}`")
}

/// The id, unless it is none: whatever it is then, a secret for one, must not be printed.
fn shown_id(id: &str) -> &str {
    if is_vendor_id(id) && !id.starts_with("whsec") {
        id
    } else {
        "…"
    }
}

fn invalid(problem: String) -> ConfigError {
    ConfigError::invalid(VARIABLE, problem, EXPECTED)
}

impl Entry {
    fn check(self, settings: &Settings, policy: &RetryPolicy) -> Result<Vendor, String> {
        if !is_vendor_id(&self.id) {
            return Err(
                "has an `id` that is not 1 to 64 letters, digits, `.`, `_` and `-`".to_owned(),
            );
        }
        let url = check_url(&self.url, self.allow_private)
            .map_err(|problem| format!("(`{}`) has a `url` that {problem}", self.id))?;
        if self.secrets.is_empty() {
            return Err(format!("(`{}`) has no `secrets`", self.id));
        }
        let secrets: Result<_, _> = self
            .secrets
            .iter()
            .map(|secret| read_secret(secret, settings))
            .collect();
        let secrets =
            secrets.map_err(|problem| format!("(`{}`) has a secret that {problem}", self.id))?;
        Ok(Vendor {
            channel: Channel::new(
                &format!("the vendor {}", self.id),
                &provider(&self.id),
                policy,
                None,
            ),
            id: self.id,
            url,
            secrets,
            allow_private: self.allow_private,
            is_parked: false,
        })
    }
}

/// As figures and spans name a vendor among the providers.
pub fn provider(vendor_id: &str) -> String {
    format!("vendor:{vendor_id}")
}

fn check_url(url: &str, allow_private: bool) -> Result<Url, &'static str> {
    let url = Url::parse(url).map_err(|_| "is not a URL")?;
    match url.scheme() {
        "https" => {}
        "http" if allow_private => {}
        _ => return Err("does not begin with https:// (http:// needs \"allowPrivate\": true)"),
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err("holds a user name or password");
    }
    // An address that stands in the URL itself never gets to a resolver.
    let literal = url
        .host_str()
        .and_then(|host| host.trim_matches(['[', ']']).parse().ok());
    if !allow_private && literal.is_some_and(|address| !is_public(address)) {
        return Err("is a private address, which needs \"allowPrivate\": true");
    }
    Ok(url)
}

/// `whsec_` and 24 to 64 bytes in base64, as Standard Webhooks says, or the name of the setting that holds it.
fn read_secret(text: &str, settings: &Settings) -> Result<SecretSlice<u8>, String> {
    let text = match text.strip_prefix("env:") {
        Some(variable) if !is_variable(variable) => {
            return Err("has something else than the name of a setting after `env:`".to_owned());
        }
        Some(variable) => settings
            .optional(variable)
            .ok_or_else(|| format!("names the setting {variable}, which is missing"))?,
        None => text.to_owned(),
    };
    text.strip_prefix("whsec_")
        .and_then(|encoded| STANDARD.decode(encoded).ok())
        .filter(|bytes| (24..=64).contains(&bytes.len()))
        .map(SecretSlice::from)
        .ok_or_else(|| "is not `whsec_` and 24 to 64 bytes in base64".to_owned())
}

/// A secret in the place of a name must not be printed as one.
fn is_variable(text: &str) -> bool {
    !text.starts_with("whsec_")
        && text.len() <= 100
        && text.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
        && text
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
}

#[cfg(test)]
mod tests {
    use secrecy::ExposeSecret;

    use super::*;
    use crate::retry_policy::tests::policy;

    const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";

    fn parse(text: &str) -> Result<HashMap<String, Vendor>, String> {
        let settings = Settings::from_pairs([("BAKERY_SECRET", SECRET)]);
        Vendors::parse(text, &settings, &policy())
    }

    fn bakery(url: &str, secrets: &str, rest: &str) -> String {
        format!(
            r#"[{{"id":"bakery","name":"The Bakery","url":"{url}","secrets":{secrets}{rest}}}]"#
        )
    }

    #[test]
    fn a_vendor_may_have_several_secrets_and_keep_them_in_settings() {
        let text = bakery(
            "https://bakery.example/hook",
            &format!(r#"["{SECRET}","env:BAKERY_SECRET"]"#),
            "",
        );
        let vendors = parse(&text).unwrap();
        let vendor = vendors.get("bakery").unwrap();
        assert_eq!(vendor.secrets.len(), 2);
        assert_eq!(
            vendor.secrets[0].expose_secret(),
            vendor.secrets[1].expose_secret()
        );
        assert!(!vendor.allow_private);
        assert!(!vendors.contains_key("florist"));
    }

    #[test]
    fn an_operator_parks_whom_the_file_knows() {
        let file = concat!(env!("CARGO_MANIFEST_DIR"), "/vendors.json");
        let read = |parked| {
            let settings = Settings::from_pairs([(VARIABLE, file), (PARKED, parked)]);
            Vendors::from_settings(&settings, &policy())
        };
        let vendors = read(" bakery ").unwrap();
        assert!(vendors.get("bakery").unwrap().is_parked);
        assert!(!vendors.get("florist").unwrap().is_parked);
        assert!(!read("").unwrap().get("bakery").unwrap().is_parked);
        assert!(
            read("bakery,,florist,")
                .unwrap()
                .get("florist")
                .unwrap()
                .is_parked
        );
        for (parked, shown) in [("bakery,baker", "`baker`"), ("hunter 2", "`…`")] {
            let error = read(parked).unwrap_err().to_string();
            assert!(error.contains(PARKED) && error.contains(shown), "{error}");
        }
    }

    #[test]
    fn private_addresses_need_a_word_in_the_entry() {
        let secrets = format!(r#"["{SECRET}"]"#);
        for url in [
            "http://bakery.example/",
            "https://127.0.0.1/",
            "https://[::1]/",
            "https://169.254.169.254/metadata",
            "https://2130706433/",
            "https://0x7f.1/",
        ] {
            assert!(parse(&bakery(url, &secrets, "")).is_err(), "{url}");
            assert!(
                parse(&bakery(url, &secrets, r#","allowPrivate":true"#)).is_ok(),
                "{url}"
            );
        }
    }

    #[test]
    fn each_mistake_is_told_with_its_place_and_without_the_secret() {
        let secrets = format!(r#"["{SECRET}"]"#);
        let url = "https://bakery.example/";
        for (text, problem) in [
            ("[".to_owned(), "line 1, column 1 is not JSON"),
            ("{}".to_owned(), "is not a vendor"),
            (
                bakery(url, "[]", ""),
                "vendor 0 (`bakery`) has no `secrets`",
            ),
            (
                bakery(url, r#"["hunter2"]"#, ""),
                "is not `whsec_` and 24 to 64 bytes",
            ),
            (
                bakery(url, r#"["whsec_aHVudGVyMg=="]"#, ""),
                "is not `whsec_` and 24 to 64 bytes",
            ),
            (
                bakery(url, r#"["env:whsec_aHVudGVyMg"]"#, ""),
                "something else than the name of a setting",
            ),
            (
                bakery(url, r#"["env:NO_SUCH"]"#, ""),
                "names the setting NO_SUCH",
            ),
            (bakery(url, "7", ""), "is not a vendor"),
            (
                bakery(url, &secrets, r#","allowprivate":true"#),
                "is not a vendor",
            ),
            (
                bakery("ftp://x/", &secrets, ""),
                "does not begin with https://",
            ),
            (
                bakery("https://me:hunter2@x/", &secrets, ""),
                "holds a user name",
            ),
            (bakery("x", &secrets, ""), "is not a URL"),
        ] {
            let error = parse(&text).unwrap_err();
            assert!(error.contains(problem), "{error}");
            assert!(
                !error.contains("hunter2") && !error.contains("aHVudGVyMg"),
                "{error}"
            );
        }
        let one = bakery(url, &secrets, "");
        let twice = format!("[{},{}]", &one[1..one.len() - 1], &one[1..one.len() - 1]);
        assert!(parse(&twice).unwrap_err().contains("of an earlier one"));
    }
}
