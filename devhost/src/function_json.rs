//! The functions of an app: one folder each, with a `function.json`.
//!
//! Read once at the start. Triggers are `serviceBusTrigger`, `timerTrigger` and `httpTrigger`, and the only output is `http`;
//! anything else, and anything that Azure would find fault with, is an error that names the file and the property.

use std::path::Path;

use axum::http::Method;
use serde_json::Value;
use servicebus_emulator::EntityPath;
use thiserror::Error;

use crate::{ncrontab::Schedule, route::Template, settings::Settings};

/// The connection that devhost's own bus stands in for.
pub const CONNECTION: &str = "ServiceBusConnection";

/// A function of the app.
#[derive(Debug, Clone)]
pub struct Function {
    /// The name of its folder, in the folder's case.
    pub name: String,
    pub trigger: Trigger,
    /// Neither its trigger nor its route is served.
    pub disabled: bool,
    /// `function.json` as it is, for `/admin/functions`.
    pub config: Value,
}

#[derive(Debug, Clone)]
pub enum Trigger {
    ServiceBus(ServiceBusTrigger),
    Timer(TimerTrigger),
    Http(HttpTrigger),
}

#[derive(Debug, Clone)]
pub struct ServiceBusTrigger {
    /// The key of the message in `Data`.
    pub name: String,
    pub entity: EntityPath,
    pub data_type: DataType,
}

/// How the body of a message is given to the handler.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DataType {
    /// As text, and a JSON object's properties are merged into `Metadata`; the default.
    String,
    /// As base64, and nothing is merged.
    Binary,
}

#[derive(Debug, Clone)]
pub struct HttpTrigger {
    /// The key of the request in `Data`.
    pub name: String,
    /// The name of the `http` output: `$return`, or its key in `Outputs`.
    pub output: String,
    /// `None` takes every method.
    pub methods: Option<Vec<Method>>,
    pub route: Template,
}

#[derive(Debug, Clone)]
pub struct TimerTrigger {
    /// The key of the timer in `Data`.
    pub name: String,
    pub schedule: Schedule,
    /// Invoke it at the start as well.
    pub run_on_startup: bool,
    /// Make up for what came due while devhost was not running.
    pub use_monitor: bool,
}

/// A `function.json` that cannot be used.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum FunctionJsonError {
    #[error("the app's folder cannot be read: {0}")]
    App(String),
    #[error("{function}/function.json: {reason}")]
    Function { function: String, reason: String },
}

impl Function {
    /// All functions of the app, by name.
    pub fn read_all(app: &Path, settings: &Settings) -> Result<Vec<Self>, FunctionJsonError> {
        let unreadable = |error: std::io::Error| FunctionJsonError::App(error.to_string());
        let mut functions = Vec::new();
        for entry in std::fs::read_dir(app).map_err(unreadable)? {
            let path = entry.map_err(unreadable)?.path();
            let file = path.join("function.json");
            if !file.is_file() {
                continue;
            }
            let name = path
                .file_name()
                .unwrap_or_default()
                .to_string_lossy()
                .into_owned();
            let function = std::fs::read_to_string(file)
                .map_err(|error| error.to_string())
                .and_then(|text| Self::parse(&name, &text, settings))
                .map_err(|reason| FunctionJsonError::Function {
                    function: name,
                    reason,
                })?;
            functions.push(function);
        }
        functions.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(functions)
    }

    /// Reads one `function.json`; the error says which property is wrong, and how.
    pub fn parse(name: &str, text: &str, settings: &Settings) -> Result<Self, String> {
        if !is_function_name(name) {
            return Err(format!(
                "'{name}' is not a valid function name: a letter, then up to 127 letters, digits, `_` or `-`"
            ));
        }
        let config: Value = serde_json::from_str(text.trim_start_matches('\u{feff}'))
            .map_err(|error| error.to_string())?;
        for property in ["scriptFile", "entryPoint", "retry"] {
            if !config[property].is_null() && config[property] != "" {
                return Err(format!("`{property}` is not supported here"));
            }
        }
        let bindings = config["bindings"]
            .as_array()
            .filter(|bindings| !bindings.is_empty())
            .ok_or("`bindings` must be a list with at least the trigger")?;
        let (mut trigger, mut output) = (None, None);
        for (index, binding) in bindings.iter().enumerate() {
            let at = |reason: String| format!("`bindings[{index}]`: {reason}");
            let kind = text_of(binding, "type").map_err(at)?;
            let direction = text_of(binding, "direction").map_err(at)?;
            let slot = match (kind.to_ascii_lowercase().as_str(), direction.as_str()) {
                ("servicebustrigger", "in") => {
                    let read = ServiceBusTrigger::parse(binding, settings).map_err(at)?;
                    trigger.replace(Trigger::ServiceBus(read)).is_none()
                }
                ("timertrigger", "in") => {
                    let read = TimerTrigger::parse(binding, settings).map_err(at)?;
                    trigger.replace(Trigger::Timer(read)).is_none()
                }
                ("httptrigger", "in") => {
                    let read = HttpTrigger::parse(name, binding).map_err(at)?;
                    trigger.replace(Trigger::Http(read)).is_none()
                }
                ("http", "out") => output
                    .replace(text_of(binding, "name").map_err(at)?)
                    .is_none(),
                ("servicebustrigger" | "timertrigger" | "httptrigger" | "http", _) => {
                    return Err(at(format!(
                        "`direction` cannot be `{direction}` for `{kind}`"
                    )));
                }
                _ => return Err(at(format!("the `type` `{kind}` is not supported here"))),
            };
            if !slot {
                return Err(at(format!("a second binding of the type `{kind}`")));
            }
        }
        let trigger = match (trigger, output) {
            (None, _) => return Err("`bindings` has no trigger".to_owned()),
            (Some(Trigger::Http(trigger)), Some(output)) => {
                Trigger::Http(HttpTrigger { output, ..trigger })
            }
            (Some(Trigger::Http(_)), None) => {
                return Err("`bindings` has an httpTrigger but no `http` output".to_owned());
            }
            (Some(Trigger::ServiceBus(_) | Trigger::Timer(_)), Some(_)) => {
                return Err("`bindings`: an `http` output needs an httpTrigger".to_owned());
            }
            (Some(trigger @ (Trigger::ServiceBus(_) | Trigger::Timer(_))), None) => trigger,
        };
        Ok(Self {
            name: name.to_owned(),
            trigger,
            disabled: is_disabled(name, &config["disabled"], settings)?,
            config,
        })
    }
}

impl ServiceBusTrigger {
    fn parse(binding: &Value, settings: &Settings) -> Result<Self, String> {
        if binding["isSessionsEnabled"] == Value::Bool(true) {
            return Err("`isSessionsEnabled` is not supported here".to_owned());
        }
        for property in ["autoComplete", "autoCompleteMessages"] {
            if binding[property] == Value::Bool(false) {
                return Err(format!(
                    "`{property}` must be true: a custom handler cannot settle a message itself"
                ));
            }
        }
        if !matches!(
            binding["cardinality"].as_str().unwrap_or("one"),
            "one" | "One"
        ) {
            return Err("`cardinality` can only be `one` here".to_owned());
        }
        let setting = |property: &str| -> Result<Option<String>, String> {
            match &binding[property] {
                Value::Null => Ok(None),
                Value::String(text) => settings
                    .resolve(text)
                    .map(Some)
                    // The words of the host's INameResolver.
                    .map_err(|name| {
                        format!("`{property}`: '%{name}%' does not resolve to a value.")
                    }),
                _ => Err(format!("`{property}` must be a string")),
            }
        };
        let path = match (
            setting("queueName")?,
            setting("topicName")?,
            setting("subscriptionName")?,
        ) {
            (Some(queue), None, None) => queue,
            (None, Some(topic), Some(subscription)) => {
                format!("{topic}/Subscriptions/{subscription}")
            }
            _ => {
                return Err(
                    "give either `queueName`, or `topicName` and `subscriptionName`".to_owned(),
                );
            }
        };
        let entity = path
            .parse()
            .map_err(|error| format!("`queueName`, `topicName` or `subscriptionName`: {error}"))?;
        let connection = binding["connection"]
            .as_str()
            .filter(|name| !name.is_empty())
            .unwrap_or("AzureWebJobsServiceBus");
        if connection != CONNECTION {
            let missing = settings.get(connection).is_none()
                && settings
                    .get(&format!("{connection}__fullyQualifiedNamespace"))
                    .is_none();
            return Err(if missing {
                format!(
                    "`connection`: Service Bus account connection string '{connection}' does not exist. \
                     Make sure that it is a defined App Setting."
                )
            } else {
                format!(
                    "`connection`: devhost's bus stands in for `{CONNECTION}` only, not for `{connection}`"
                )
            });
        }
        let data_type = match binding["dataType"]
            .as_str()
            .map(str::to_ascii_lowercase)
            .as_deref()
        {
            None | Some("string") => DataType::String,
            Some("binary") => DataType::Binary,
            Some(other) => return Err(format!("`dataType` cannot be `{other}` here")),
        };
        Ok(Self {
            name: text_of(binding, "name")?,
            entity,
            data_type,
        })
    }
}

impl TimerTrigger {
    fn parse(binding: &Value, settings: &Settings) -> Result<Self, String> {
        let schedule = settings
            .resolve(&text_of(binding, "schedule")?)
            .map_err(|name| format!("`schedule`: '%{name}%' does not resolve to a value."))?;
        let flag = |property: &str, default: bool| match &binding[property] {
            Value::Null => Ok(default),
            Value::Bool(flag) => Ok(*flag),
            _ => Err(format!("`{property}` must be true or false")),
        };
        Ok(Self {
            name: text_of(binding, "name")?,
            schedule: Schedule::parse(&schedule).map_err(|why| format!("`schedule`: {why}"))?,
            run_on_startup: flag("runOnStartup", false)?,
            use_monitor: flag("useMonitor", true)?,
        })
    }
}

impl HttpTrigger {
    fn parse(function: &str, binding: &Value) -> Result<Self, String> {
        let methods = match &binding["methods"] {
            Value::Null => None,
            Value::Array(methods) => Some(
                methods
                    .iter()
                    .map(|method| {
                        method
                            .as_str()
                            .and_then(|method| method.to_ascii_uppercase().parse().ok())
                            .ok_or_else(|| format!("`methods`: {method} is not an HTTP method"))
                    })
                    .collect::<Result<Vec<Method>, _>>()?,
            )
            .filter(|methods| !methods.is_empty()),
            _ => return Err("`methods` must be a list".to_owned()),
        };
        let route = match &binding["route"] {
            Value::Null => function,
            Value::String(route) => route,
            _ => return Err("`route` must be a string".to_owned()),
        };
        let route = Template::parse(route).map_err(|error| format!("`route`: {error}"))?;
        let first = route.text().split('/').next().unwrap_or_default();
        if ["admin", "runtime"]
            .iter()
            .any(|word| first.eq_ignore_ascii_case(word))
        {
            return Err(
                "`route`: The specified route conflicts with one or more built in routes."
                    .to_owned(),
            );
        }
        let auth_level = binding["authLevel"]
            .as_str()
            .unwrap_or("function")
            .to_ascii_lowercase();
        if !matches!(
            auth_level.as_str(),
            "anonymous" | "function" | "admin" | "system" | "user"
        ) {
            return Err(format!("`authLevel` cannot be `{auth_level}`"));
        }
        Ok(Self {
            name: text_of(binding, "name")?,
            output: String::new(),
            methods,
            route,
        })
    }
}

fn text_of(binding: &Value, property: &str) -> Result<String, String> {
    binding[property]
        .as_str()
        .filter(|text| !text.is_empty())
        .map(str::to_owned)
        .ok_or_else(|| format!("`{property}` is missing or not a string"))
}

/// `disabled` is a flag or names a setting; `AzureWebJobs.{name}.Disabled` is a setting by itself.
fn is_disabled(name: &str, disabled: &Value, settings: &Settings) -> Result<bool, String> {
    let is_on = |setting: &str| {
        settings
            .get(setting)
            .is_some_and(|value| value == "1" || value.eq_ignore_ascii_case("true"))
    };
    let in_file = match disabled {
        Value::Null => false,
        Value::Bool(disabled) => *disabled,
        Value::String(setting) => is_on(setting.trim_matches('%')),
        _ => return Err("`disabled` must be true, false or the name of a setting".to_owned()),
    };
    Ok(in_file || is_on(&format!("AzureWebJobs.{name}.Disabled")))
}

/// `^[a-z][a-z0-9_\-]{0,127}$` without case, and not `host`: the rule of the host's Utility.cs.
fn is_function_name(name: &str) -> bool {
    name.len() <= 128
        && name.starts_with(|first: char| first.is_ascii_alphabetic())
        && name
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-'))
        && !name.eq_ignore_ascii_case("host")
}
