//! `host.json`, with the overrides of `AzureFunctionsJobHost__…` settings, as the host reads it.
//!
//! The host flattens the file into keys like `customHandler:description:arguments:0`, compared without case, and
//! lays the settings over them. What devhost cannot do as Azure does is an error that names the property, not
//! something to find out after a deployment.

use std::{collections::BTreeMap, path::Path, time::Duration};

use serde_json::Value;
use thiserror::Error;

use crate::{settings::Settings, time_span};

const OVERRIDE_PREFIX: &str = "azurefunctionsjobhost__";

/// What devhost uses of `host.json`.
#[derive(Debug, Clone, PartialEq)]
pub struct HostJson {
    pub custom_handler: CustomHandler,
    /// `None` is without bound.
    pub function_timeout: Option<Duration>,
    /// Without slashes at its ends; empty where the routes have no prefix.
    pub route_prefix: String,
    pub service_bus: ServiceBusOptions,
}

/// `customHandler`.
#[derive(Debug, Clone, PartialEq)]
pub struct CustomHandler {
    pub default_executable_path: String,
    /// Whether an app setting, not `host.json`, names the executable.
    pub executable_is_overridden: bool,
    pub arguments: Vec<String>,
    pub default_worker_path: String,
    pub worker_arguments: Vec<String>,
    pub working_directory: String,
    pub worker_directory: String,
    /// Standard error is all errors (the default of custom handlers), or judged by keywords.
    pub std_error_is_errors_only: bool,
    pub http_mode: HttpMode,
    pub initialization_timeout: Duration,
    pub port: Option<u16>,
}

/// How the request of an HTTP trigger with an HTTP output reaches the handler.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HttpMode {
    /// `enableProxyingHttpRequest`, which wins over forwarding in hosts that know it.
    Proxying,
    /// `enableForwardingHttpRequest`.
    Forwarding,
    /// Neither: as the JSON envelope of all other triggers.
    Envelope,
}

/// `extensions.serviceBus`.
#[derive(Debug, Clone, PartialEq)]
pub struct ServiceBusOptions {
    pub max_concurrent_calls: usize,
    pub max_auto_lock_renewal_duration: Duration,
    pub prefetch_count: u32,
    pub auto_complete_messages: bool,
}

/// A `host.json` that cannot be used.
#[derive(Debug, Error, PartialEq, Eq)]
#[error("host.json: {0}")]
pub struct HostJsonError(String);

impl HostJson {
    pub fn read(app: &Path, settings: &Settings) -> Result<Self, HostJsonError> {
        let text = std::fs::read_to_string(app.join("host.json"))
            .map_err(|error| HostJsonError(error.to_string()))?;
        Self::parse(&text, settings)
    }

    /// `processors` of the defaults are this machine's.
    pub fn parse(text: &str, settings: &Settings) -> Result<Self, HostJsonError> {
        let root: Value = serde_json::from_str(text.trim_start_matches('\u{feff}'))
            .map_err(|error| HostJsonError(error.to_string()))?;
        if root["version"] != "2.0" {
            return Err(HostJsonError("`version` must be \"2.0\"".to_owned()));
        }
        let mut keys = Keys::default();
        keys.add("", &root);
        let own_executable = keys
            .get("customHandler:description:defaultExecutablePath")
            .map(str::to_owned);
        for (name, value) in settings.iter() {
            let lower = name.to_ascii_lowercase();
            if let Some(path) = lower.strip_prefix(OVERRIDE_PREFIX) {
                keys.override_with(&path.replace("__", ":"), value);
            }
        }
        keys.refuse("httpWorker", "is the old name; use `customHandler`")?;
        keys.refuse(
            "customHandler:http",
            "(routes without function.json) is not supported here",
        )?;
        keys.refuse("configurationProfile", "is not supported here")?;
        keys.refuse(
            "retry",
            "does nothing reliable with Service Bus triggers; remove it",
        )?;
        if keys.children("customHandler:description").next().is_none() {
            return Err(HostJsonError(
                "Missing worker Description. (`customHandler.description`)".to_owned(),
            ));
        }
        let executable = keys.text("customHandler:description:defaultExecutablePath");
        if executable.is_empty() {
            return Err(HostJsonError(
                "WorkerDescription DefaultExecutablePath cannot be empty \
                 (`customHandler.description.defaultExecutablePath`)"
                    .to_owned(),
            ));
        }
        let http_mode = if keys.flag("customHandler:enableProxyingHttpRequest", false)? {
            HttpMode::Proxying
        } else if keys.flag("customHandler:enableForwardingHttpRequest", false)? {
            HttpMode::Forwarding
        } else {
            HttpMode::Envelope
        };
        let processors = std::thread::available_parallelism().map_or(1, usize::from);
        Ok(Self {
            custom_handler: CustomHandler {
                executable_is_overridden: own_executable.as_deref() != Some(executable.as_str()),
                default_executable_path: executable,
                arguments: keys.list("customHandler:description:arguments"),
                default_worker_path: keys.text("customHandler:description:defaultWorkerPath"),
                worker_arguments: keys.list("customHandler:description:workerArguments"),
                working_directory: keys.text("customHandler:description:workingDirectory"),
                worker_directory: keys.text("customHandler:description:workerDirectory"),
                std_error_is_errors_only: keys
                    .flag("customHandler:description:useStdErrorStreamForErrorsOnly", true)?,
                http_mode,
                initialization_timeout: keys
                    .duration("customHandler:initializationTimeout")?
                    .unwrap_or(Duration::from_secs(30)),
                port: match keys.number("customHandler:port", 0)? {
                    0 => None,
                    port => Some(u16::try_from(port).map_err(|_| {
                        HostJsonError(format!(
                            "Unable to bind to port {port} specified in configuration (`customHandler.port`)"
                        ))
                    })?),
                },
            },
            function_timeout: match keys.get("functionTimeout") {
                Some("-1") => None,
                Some(_) => keys.duration("functionTimeout")?,
                None => Some(Duration::from_secs(30 * 60)),
            },
            route_prefix: keys
                .get("extensions:http:routePrefix")
                .unwrap_or("api")
                .trim_matches('/')
                .to_owned(),
            service_bus: ServiceBusOptions {
                max_concurrent_calls: match keys
                    .number("extensions:serviceBus:maxConcurrentCalls", 16 * processors as u64)?
                {
                    0 => {
                        return Err(HostJsonError(
                            "`extensions.serviceBus.maxConcurrentCalls` must be at least 1".to_owned(),
                        ));
                    }
                    calls => usize::try_from(calls).unwrap_or(usize::MAX),
                },
                max_auto_lock_renewal_duration: keys
                    .duration("extensions:serviceBus:maxAutoLockRenewalDuration")?
                    .unwrap_or(Duration::from_secs(5 * 60)),
                prefetch_count: u32::try_from(
                    keys.number("extensions:serviceBus:prefetchCount", 0)?,
                )
                .unwrap_or(u32::MAX),
                auto_complete_messages: keys
                    .flag("extensions:serviceBus:autoCompleteMessages", true)?,
            },
        })
    }
}

/// The flat form of the configuration: lower-case paths with `:` between their parts.
#[derive(Debug, Default)]
struct Keys(BTreeMap<String, String>);

impl Keys {
    fn add(&mut self, path: &str, value: &Value) {
        let child = |key: &str| {
            let key = key.to_ascii_lowercase();
            if path.is_empty() {
                key
            } else {
                format!("{path}:{key}")
            }
        };
        match value {
            Value::Object(object) => {
                for (key, value) in object {
                    self.add(&child(key), value);
                }
            }
            Value::Array(items) => {
                for (index, value) in items.iter().enumerate() {
                    self.add(&child(&index.to_string()), value);
                }
            }
            Value::String(text) => {
                self.0.insert(path.to_owned(), text.clone());
            }
            Value::Null => {}
            Value::Bool(_) | Value::Number(_) => {
                self.0.insert(path.to_owned(), value.to_string());
            }
        }
    }

    /// Lists may be given as one JSON array, which the host takes for `arguments`.
    fn override_with(&mut self, path: &str, value: &str) {
        if let Ok(Value::Array(items)) = serde_json::from_str(value) {
            let below = format!("{path}:");
            self.0.retain(|key, _| !key.starts_with(&below));
            self.add(path, &Value::Array(items));
        } else {
            self.0.insert(path.to_owned(), value.to_owned());
        }
    }

    fn get(&self, path: &str) -> Option<&str> {
        self.0.get(&path.to_ascii_lowercase()).map(String::as_str)
    }

    fn text(&self, path: &str) -> String {
        self.get(path).unwrap_or_default().to_owned()
    }

    fn children(&self, path: &str) -> impl Iterator<Item = (&str, &str)> {
        let below = format!("{}:", path.to_ascii_lowercase());
        self.0
            .iter()
            .filter(move |(key, _)| key.starts_with(&below))
            .map(|(key, value)| (key.as_str(), value.as_str()))
    }

    fn list(&self, path: &str) -> Vec<String> {
        let mut items: Vec<(usize, String)> = self
            .children(path)
            .filter_map(|(key, value)| {
                Some((key.rsplit(':').next()?.parse().ok()?, value.to_owned()))
            })
            .collect();
        items.sort_by_key(|(index, _)| *index);
        items.into_iter().map(|(_, item)| item).collect()
    }

    fn flag(&self, path: &str, default: bool) -> Result<bool, HostJsonError> {
        match self.get(path).map(str::to_ascii_lowercase).as_deref() {
            None | Some("") => Ok(default),
            Some("true") => Ok(true),
            Some("false") => Ok(false),
            Some(_) => Err(invalid(path, "true or false")),
        }
    }

    fn number(&self, path: &str, default: u64) -> Result<u64, HostJsonError> {
        match self.get(path) {
            None | Some("") => Ok(default),
            Some(text) => text.parse().map_err(|_| invalid(path, "a whole number")),
        }
    }

    fn duration(&self, path: &str) -> Result<Option<Duration>, HostJsonError> {
        self.get(path)
            .map(|text| time_span::parse(text).ok_or_else(|| invalid(path, "a time like 00:05:00")))
            .transpose()
    }

    fn refuse(&self, path: &str, why: &str) -> Result<(), HostJsonError> {
        if self.get(path).is_some() || self.children(path).next().is_some() {
            return Err(HostJsonError(format!("`{}` {why}", path.replace(':', "."))));
        }
        Ok(())
    }
}

fn invalid(path: &str, expected: &str) -> HostJsonError {
    HostJsonError(format!("`{}` must be {expected}", path.replace(':', ".")))
}
