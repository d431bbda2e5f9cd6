//! The Functions host's side of a trigger: reads its envelope.
//!
//! The host posts `{"Data": {binding: value}, "Metadata": {…}}` to `/{function}`. With `"dataType": "binary"` the
//! value is the body in base64; hosts and settings that send text escape it twice, which is read as well. Any part of
//! `Metadata` may be missing or have another type.

use std::time::Instant;

use axum::http::HeaderMap;
use base64::{Engine, engine::general_purpose::STANDARD};
use serde_json::{Map, Value};
use time::OffsetDateTime;

use crate::{
    history,
    properties::{DIAGNOSTIC_ID, REPEATS, TRACEPARENT, TRACESTATE, count, text},
    trace::{self, Carried, SpanContext},
};

/// The name that every trigger has in its `function.json`.
const BINDING: &str = "message";

/// One delivery of one message.
#[derive(Debug, Clone, PartialEq)]
pub struct Invocation {
    /// The message's body.
    pub body: Vec<u8>,
    /// For the log, where the host told it.
    pub message_id: Option<String>,
    /// Unique in its queue or subscription, where the host told it.
    pub sequence_number: Option<String>,
    /// How often the message has been delivered, this time included; where the host told it.
    pub delivery_count: Option<u32>,
    /// When it came to the queue or subscription.
    pub enqueued: Option<OffsetDateTime>,
    /// The application properties.
    pub properties: Map<String, Value>,
    /// Of its properties, if it is valid.
    pub carried: Option<Carried>,
    /// The delivery of which it is a copy, where that was recorded.
    pub repeats: Option<SpanContext>,
}

/// The host's id of this invocation, which joins our log lines to its own.
pub fn id(headers: &HeaderMap) -> Option<&str> {
    headers
        .get("x-azure-functions-invocationid")
        .and_then(|value| value.to_str().ok())
}

/// The time since then, in whole milliseconds.
pub fn millis(started: Instant) -> u64 {
    u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX)
}

impl Invocation {
    /// Reads the envelope; `None` when there is no message in it.
    pub fn from_json(envelope: &[u8]) -> Option<Self> {
        let envelope: Value = serde_json::from_slice(envelope).ok()?;
        let data = envelope.get("Data")?.as_object()?;
        // A host that names the binding in another way still sends exactly one.
        let value = data.get(BINDING).or_else(|| {
            let mut values = data.values();
            values.next().filter(|_| values.next().is_none())
        })?;
        let empty = Map::new();
        let metadata = envelope
            .get("Metadata")
            .and_then(Value::as_object)
            .unwrap_or(&empty);
        let properties = metadata
            .get("ApplicationProperties")
            .or_else(|| metadata.get("UserProperties"))
            .and_then(object)
            .unwrap_or_default();
        let property = |name| properties.get(name).and_then(text);
        let parent = [TRACEPARENT, DIAGNOSTIC_ID, "Diagnostic-Id"]
            .into_iter()
            .find_map(property)
            .and_then(|text| SpanContext::parse(&text));
        let carried = parent.map(|parent| Carried {
            parent,
            state: property(TRACESTATE).and_then(|text| trace::state(&text)),
        });
        let repeats = property(REPEATS).and_then(|text| SpanContext::parse(&text));
        let enqueued = ["EnqueuedTime", "EnqueuedTimeUtc"]
            .into_iter()
            .find_map(|name| metadata.get(name))
            .and_then(text);
        Some(Self {
            body: bytes(value)?,
            message_id: metadata
                .get("MessageId")
                .and_then(text)
                .filter(|id| is_plain(id)),
            sequence_number: metadata.get("SequenceNumber").and_then(text),
            delivery_count: metadata.get("DeliveryCount").and_then(count),
            enqueued: enqueued.and_then(|time| history::time_of(&time)),
            properties,
            carried,
            repeats,
        })
    }
}

/// An object, which some hosts send as its text.
fn object(value: &Value) -> Option<Map<String, Value>> {
    match value {
        Value::Object(object) => Some(object.clone()),
        Value::String(text) => serde_json::from_str(text).ok(),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::Array(_) => None,
    }
}

/// The message's body out of a binding's value.
fn bytes(value: &Value) -> Option<Vec<u8>> {
    let value = match value {
        Value::String(value) => value,
        Value::Object(_) | Value::Array(_) => return Some(value.to_string().into_bytes()),
        Value::Null | Value::Bool(_) | Value::Number(_) => return None,
    };
    if let Ok(bytes) = STANDARD.decode(value) {
        return Some(bytes);
    }
    match serde_json::from_str(value) {
        Ok(Value::String(text)) => Some(text.into_bytes()),
        Ok(_) | Err(_) => Some(value.clone().into_bytes()),
    }
}

/// Whether the id can be one of ours or of a tool. Whoever may send can write anything into it, an address for one,
/// and it goes to the log.
fn is_plain(id: &str) -> bool {
    (1..=128).contains(&id.len())
        && id
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b":._-".contains(&byte))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn read(envelope: &Value) -> Invocation {
        Invocation::from_json(envelope.to_string().as_bytes()).unwrap()
    }

    #[test]
    fn a_binary_body_is_base64() {
        let invocation = read(&json!({
            "Data": { "message": "AP8QgA==" },
            "Metadata": {
                "MessageId": "\"m-1\"", "DeliveryCount": "3", "SequenceNumber": "42",
                "EnqueuedTimeUtc": "2026-11-25T12:00:31", "EnqueuedTime": "2026-11-25T12:00:30+00:00",
                "MessageReceiver": {}, "Client": { "IsClosed": false }, "RetryContext": null,
                "ApplicationProperties": {
                    "traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01", "attempt": 3,
                    "tracestate": "congo=t61rc", "repeats": "00-0af7651916cd43dd8448eb211c80319c-00f067aa0ba902b7-01"
                }
            }
        }));
        assert_eq!(invocation.body, [0x00, 0xff, 0x10, 0x80]);
        assert_eq!(invocation.message_id.as_deref(), Some("m-1"));
        assert_eq!(invocation.delivery_count, Some(3));
        let carried = invocation.carried.unwrap();
        assert_eq!(
            carried.parent.to_string(),
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
        );
        assert_eq!(carried.state.as_deref(), Some("congo=t61rc"));
        let repeats = invocation.repeats.unwrap();
        assert_eq!(repeats.span().to_string(), "00f067aa0ba902b7");
        assert_eq!(invocation.properties["attempt"], 3);
        assert_eq!(
            invocation.enqueued,
            Some(time::macros::datetime!(2026-11-25 12:00:30 UTC))
        );
    }

    #[test]
    fn text_is_read_however_often_it_was_escaped() {
        for value in [
            json!("\"{\\\"id\\\":1}\""),
            json!("{\"id\":1}"),
            json!({ "id": 1 }),
            json!("eyJpZCI6MX0="),
        ] {
            assert_eq!(
                read(&json!({ "Data": { "message": value } })).body,
                b"{\"id\":1}"
            );
        }
        assert_eq!(read(&json!({ "Data": { "message": "\"\"" } })).body, b"");
    }

    #[test]
    fn metadata_may_be_missing_or_have_other_types() {
        let bare = read(&json!({ "Data": { "other": "e30=" } }));
        assert_eq!(bare.body, b"{}");
        assert_eq!(bare.message_id, None);

        let odd = read(&json!({
            "Data": { "message": "e30=" },
            "Metadata": {
                "MessageId": 7, "DeliveryCount": 2, "EnqueuedTimeUtc": "2026-11-25T12:00:31",
                "ApplicationProperties": "{\"generation\":2}"
            }
        }));
        assert_eq!(odd.properties["generation"], 2);
        assert!(odd.enqueued.is_some());
        assert_eq!(odd.message_id.as_deref(), Some("7"));
        assert_eq!(odd.delivery_count, Some(2));

        let hostile = read(&json!({
            "Data": { "message": "e30=" },
            "Metadata": {
                "MessageId": {}, "DeliveryCount": "-1", "EnqueuedTime": "soon", "ApplicationProperties": { "traceparent": "x" }
            }
        }));
        assert_eq!(hostile.message_id, None);
        let personal = read(&json!({
            "Data": { "message": "e30=" }, "Metadata": { "MessageId": "ada@example.net" }
        }));
        assert_eq!(personal.message_id, None);
        assert_eq!(hostile.delivery_count, None);
        assert_eq!(hostile.carried, None);
        assert_eq!(hostile.enqueued, None);
    }

    #[test]
    fn an_envelope_without_a_message_is_not_read() {
        for envelope in [
            "",
            "null",
            "[]",
            "{}",
            r#"{"Data":{}}"#,
            r#"{"Data":{"a":"e30=","b":"e30="}}"#,
            r#"{"Data":{"message":null}}"#,
            r#"{"Data":{"message":7}}"#,
        ] {
            assert_eq!(
                Invocation::from_json(envelope.as_bytes()),
                None,
                "{envelope}"
            );
        }
    }
}
