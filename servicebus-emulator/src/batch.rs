//! A batch: several messages in one request, `application/vnd.microsoft.servicebus.json`.
//!
//! The body is an array of `{ "Body", "BrokerProperties", "UserProperties" }`; headers say nothing about the messages.
//! Unlike headers, user properties keep the case of their names and have JSON's types. One bad element refuses the whole.
//! Facts: <https://learn.microsoft.com/rest/api/servicebus/send-message-batch>.

use std::collections::BTreeMap;

use serde_json::{Map, Value as Json};

use crate::{Message, Value, broker_properties, rest_error::RestError};

pub(crate) const MEDIA_TYPE: &str = "application/vnd.microsoft.servicebus.json";

pub(crate) fn read(body: &[u8]) -> Result<Vec<Message>, RestError> {
    let elements: Vec<Json> = serde_json::from_slice(body)
        .map_err(|_| RestError::bad_request("The batch is invalid: it is not a JSON array."))?;
    if elements.is_empty() {
        return Err(RestError::bad_request("The batch is invalid: it is empty."));
    }
    elements
        .iter()
        .enumerate()
        .map(|(index, element)| match element {
            Json::Object(element) => message(index, element),
            _ => Err(invalid(index, "it is not an object")),
        })
        .collect()
}

fn message(index: usize, element: &Map<String, Json>) -> Result<Message, RestError> {
    let part = |name: &str| match element.get(name) {
        None | Some(Json::Null) => Ok(None),
        Some(Json::Object(part)) => Ok(Some(part)),
        Some(_) => Err(invalid(index, &format!("its {name} is not an object"))),
    };
    let Some(Json::String(body)) = element.get("Body") else {
        return Err(invalid(index, "its Body is not a string"));
    };
    let mut message = Message {
        body: body.clone().into(),
        ..Message::default()
    };
    if let Some(properties) = part("BrokerProperties")? {
        broker_properties::read(properties, &mut message)?;
    }
    if let Some(properties) = part("UserProperties")? {
        message.properties = user_properties(index, properties)?;
    }
    Ok(message)
}

fn user_properties(
    index: usize,
    properties: &Map<String, Json>,
) -> Result<BTreeMap<String, Value>, RestError> {
    properties
        .iter()
        .map(|(name, value)| {
            let value = match value {
                Json::String(text) => Some(Value::String(text.clone())),
                Json::Bool(value) => Some(Value::Bool(*value)),
                Json::Number(number) => number
                    .as_i64()
                    .map(Value::Long)
                    .or_else(|| number.as_f64().map(Value::Double)),
                Json::Null | Json::Array(_) | Json::Object(_) => None,
            };
            match value {
                Some(value) => Ok((name.clone(), value)),
                None => Err(invalid(
                    index,
                    &format!("its user property {name} is not a string, number or boolean"),
                )),
            }
        })
        .collect()
}

fn invalid(index: usize, reason: &str) -> RestError {
    RestError::bad_request(format!(
        "Message {index} of the batch is invalid: {reason}."
    ))
}
