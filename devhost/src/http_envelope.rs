//! An HTTP trigger whose request is sent as the JSON envelope, because `host.json` neither proxies nor forwards.
//!
//! The request becomes an object in `Data`, and the answer is read from the `http` output. Pure.

use axum::http::{HeaderMap, Method, Uri, header};
use base64::{Engine, engine::general_purpose::STANDARD};
use bytes::Bytes;
use jiff::Timestamp;
use serde_json::{Map, Value, json};

use crate::{
    answer::HandlerResult,
    envelope::{BindingData, BindingValue},
    route::Parameters,
};

/// A request as the front door has read it.
#[derive(Debug, Clone)]
pub struct IncomingRequest {
    pub method: Method,
    /// Path and query.
    pub uri: Uri,
    pub headers: HeaderMap,
    pub parameters: Parameters,
    pub body: Bytes,
}

impl IncomingRequest {
    /// Whether the client told the body's length; a chunked body counts as none in some of the host's modes.
    pub fn has_length(&self) -> bool {
        self.headers.contains_key(header::CONTENT_LENGTH)
    }
}

/// The request body for the handler; `name` is the trigger's.
pub fn http_envelope(
    function: &str,
    name: &str,
    request: &IncomingRequest,
    now: Timestamp,
) -> Value {
    let host = request
        .headers
        .get(header::HOST)
        .and_then(|host| host.to_str().ok())
        .unwrap_or("localhost");
    let headers = headers_json(&request.headers);
    let query = query_json(request.uri.query().unwrap_or_default());
    let parameters: Map<String, Value> = request
        .parameters
        .iter()
        .map(|(name, value)| (name.clone(), value.as_str().into()))
        .collect();
    let mut data = json!({
        "Url": format!("http://{host}{}", request.uri),
        "Method": request.method.as_str(),
        "Query": query,
        "Headers": headers,
        "Params": parameters,
        "Identities": [],
    });
    let mut metadata = BindingData::default();
    metadata.set("Headers", headers);
    metadata.set("Query", query);
    for (name, value) in &request.parameters {
        metadata.set(name, value.as_str());
    }
    metadata.set_sys(function, now);
    if request.has_length() && !request.body.is_empty() {
        if is_binary(&request.headers) {
            data["Body"] = STANDARD.encode(&request.body).into();
        } else {
            let text = String::from_utf8_lossy(&request.body);
            metadata.merge_body(&text);
            data["Body"] = text.as_ref().into();
        }
    }
    json!({ "Data": { name: BindingValue::Json(data).encode() }, "Metadata": metadata.encode() })
}

/// What the caller gets.
#[derive(Debug, Clone, PartialEq)]
pub struct HttpOutput {
    pub status: u16,
    pub headers: Vec<(String, String)>,
    pub body: String,
}

/// Reads the `http` output of a result; `output` is its name in function.json.
pub fn http_output(result: &HandlerResult, output: &str) -> Result<HttpOutput, String> {
    let value = if output == "$return" {
        &result.return_value
    } else {
        match &result.outputs {
            None => return Ok(HttpOutput::empty("")),
            Some(outputs) => match outputs.get(output) {
                None | Some(Value::Null) => return Ok(HttpOutput::empty("{}")),
                Some(value) => value,
            },
        }
    };
    let parsed;
    let object = match value {
        Value::Object(object) => object,
        Value::Null => return Ok(HttpOutput::empty("")),
        Value::String(text) => {
            parsed = serde_json::from_str::<Map<String, Value>>(text)
                .map_err(|_| not_an_output(value))?;
            &parsed
        }
        Value::Bool(_) | Value::Number(_) | Value::Array(_) => return Err(not_an_output(value)),
    };
    let member = |name: &str| {
        object
            .iter()
            .find(|(key, value)| key.eq_ignore_ascii_case(name) && !value.is_null())
            .map(|(_, value)| value)
    };
    let status = match member("statusCode").or_else(|| member("status")) {
        None => 200,
        Some(status) => plain_text(status)
            .parse()
            .ok()
            .filter(|status| (100..1000).contains(status))
            .ok_or_else(|| format!("the statusCode {status} is not one"))?,
    };
    let headers = match member("headers") {
        Some(Value::Object(headers)) => headers
            .iter()
            .map(|(name, value)| (name.clone(), plain_text(value)))
            .collect(),
        _ => Vec::new(),
    };
    let body = match member("body") {
        None => String::new(),
        Some(body @ (Value::Object(_) | Value::Array(_))) => format!("{body:#}"),
        Some(body) => plain_text(body),
    };
    Ok(HttpOutput {
        status,
        headers,
        body,
    })
}

impl HttpOutput {
    fn empty(body: &str) -> Self {
        Self {
            status: 200,
            headers: Vec::new(),
            body: body.to_owned(),
        }
    }
}

fn not_an_output(value: &Value) -> String {
    format!(
        "System.InvalidOperationException: Failed while trying to Deserialize to httpOutputBindingResponse: {value}"
    )
}

fn plain_text(value: &Value) -> String {
    value
        .as_str()
        .map_or_else(|| value.to_string(), str::to_owned)
}

fn is_binary(headers: &HeaderMap) -> bool {
    headers
        .get(header::CONTENT_TYPE)
        .and_then(|value| value.to_str().ok())
        .is_some_and(|value| {
            value.starts_with("application/octet-stream") || value.starts_with("multipart/")
        })
}

/// Names as clients write them by custom: `Content-Type`, not `content-type`.
fn headers_json(headers: &HeaderMap) -> Value {
    let mut object = Map::new();
    for name in headers.keys() {
        let values = headers
            .get_all(name)
            .iter()
            .map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned())
            .collect::<Vec<_>>();
        object.insert(canonical(name.as_str()), values.into());
    }
    object.into()
}

fn canonical(name: &str) -> String {
    let words = name.split('-').map(|word| {
        let mut letters = word.chars();
        let first = letters.next().map(|first| first.to_ascii_uppercase());
        first.into_iter().chain(letters).collect::<String>()
    });
    words.collect::<Vec<_>>().join("-")
}

/// Repeated names are joined with commas.
fn query_json(query: &str) -> Value {
    let mut object = Map::<String, Value>::new();
    for (name, value) in form_urlencoded::parse(query.as_bytes()) {
        let joined = match object.get(name.as_ref()).and_then(Value::as_str) {
            Some(before) => format!("{before},{value}"),
            None => value.into_owned(),
        };
        object.insert(name.into_owned(), joined.into());
    }
    object.into()
}
