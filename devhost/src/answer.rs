//! What the host makes of the handler's answer to an invocation.
//!
//! Pure. Only a 2xx with a JSON object succeeds; everything else fails the invocation and its body is thrown away.
//! An empty body or `null` is worse than a failure: the host never learns that the invocation ended.

use axum::http::StatusCode;
use serde_json::{Map, Value};

/// The outcome of one answer.
#[derive(Debug, Clone, PartialEq)]
pub enum Answer {
    Result(HandlerResult),
    /// The invocation fails, with the host's words.
    Failed(String),
    /// The invocation would never end; what the handler answered.
    Hang(String),
}

/// `{"Outputs": …, "Logs": …, "ReturnValue": …}`; each may be missing.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct HandlerResult {
    pub outputs: Option<Map<String, Value>>,
    pub logs: Vec<String>,
    pub return_value: Value,
}

/// Reads the answer as `DefaultHttpWorkerService` does.
pub fn interpret(status: StatusCode, content_type: Option<&str>, body: &[u8]) -> Answer {
    let reason = status.canonical_reason().unwrap_or_default();
    if status.is_redirection() {
        return Answer::Failed(format!(
            "the handler answered {} ({reason}); the host would follow the redirect, devhost does not",
            status.as_u16()
        ));
    }
    if !status.is_success() {
        return Answer::Failed(format!(
            "System.Net.Http.HttpRequestException: Response status code does not indicate success: {} ({reason}).",
            status.as_u16()
        ));
    }
    if body.is_empty() {
        return Answer::Hang(format!("{} with an empty body", status.as_u16()));
    }
    let invalid = |why: String| {
        Answer::Failed(format!(
            "System.InvalidOperationException: Invalid HttpResponseMessage:\nStatusCode: {}, ReasonPhrase: '{reason}', \
             Content-Type: {}, Body: {}\n{why}",
            status.as_u16(),
            content_type.unwrap_or("none"),
            excerpt(body),
        ))
    };
    if !is_json(content_type) {
        return invalid(format!(
            "UnsupportedMediaTypeException: No MediaTypeFormatter is available to read an object of type \
             'HttpScriptInvocationResult' from content with media type '{}'. Answer with Content-Type: application/json.",
            content_type.unwrap_or("application/octet-stream")
        ));
    }
    if body.trim_ascii().is_empty() {
        return Answer::Hang(format!(
            "{} with a body of only white space",
            status.as_u16()
        ));
    }
    match serde_json::from_slice(body) {
        Ok(Value::Null) => Answer::Hang(format!("{} with the JSON body `null`", status.as_u16())),
        Ok(Value::Object(object)) => match HandlerResult::read(object) {
            Ok(result) => Answer::Result(result),
            Err(why) => invalid(why),
        },
        Ok(_) => invalid("The JSON value is not an object.".to_owned()),
        Err(error) => invalid(format!("The body is not JSON: {error}")),
    }
}

impl HandlerResult {
    fn read(object: Map<String, Value>) -> Result<Self, String> {
        let mut result = Self::default();
        for (name, value) in object {
            match (name.to_ascii_lowercase().as_str(), value) {
                ("outputs", Value::Null) => {}
                ("outputs", Value::Object(outputs)) => result.outputs = Some(outputs),
                ("outputs", _) => return Err("`Outputs` is not an object.".to_owned()),
                ("logs", Value::Null) => {}
                ("logs", Value::Array(lines)) => {
                    result.logs = lines
                        .into_iter()
                        .map(|line| match line {
                            Value::String(text) => Ok(text),
                            Value::Null => Ok(String::new()),
                            Value::Bool(_) | Value::Number(_) => Ok(line.to_string()),
                            Value::Array(_) | Value::Object(_) => {
                                Err("`Logs` holds something that is not text.".to_owned())
                            }
                        })
                        .collect::<Result<_, _>>()?;
                }
                ("logs", _) => return Err("`Logs` is not a list.".to_owned()),
                ("returnvalue", value) => result.return_value = value,
                _ => {}
            }
        }
        // Without a `$return` binding the properties of an object in ReturnValue count as outputs.
        if let Value::Object(returned) = &result.return_value {
            let outputs = result.outputs.get_or_insert_default();
            for (name, value) in returned {
                outputs.entry(name.clone()).or_insert_with(|| value.clone());
            }
        }
        Ok(result)
    }
}

fn is_json(content_type: Option<&str>) -> bool {
    let media_type = content_type
        .and_then(|text| text.split(';').next())
        .unwrap_or_default()
        .trim();
    ["application/json", "text/json"]
        .iter()
        .any(|json| media_type.eq_ignore_ascii_case(json))
}

/// The beginning of the body, enough to recognise it by.
fn excerpt(body: &[u8]) -> String {
    String::from_utf8_lossy(&body[..body.len().min(200)]).into_owned()
}
