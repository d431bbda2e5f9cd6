//! The JSON that a trigger other than HTTP is sent as: `{"Data": …, "Metadata": …}`.
//!
//! The encoding is the host's, with all its oddities: text is JSON inside a JSON string, numbers arrive as strings,
//! times lose their fraction and some their zone, and the properties of a JSON body overwrite the broker's in
//! `Metadata`. Pure: what depends on the moment comes as arguments.

use base64::{Engine, engine::general_purpose::STANDARD};
use jiff::Timestamp;
use serde_json::{Map, Value, json};
use servicebus_emulator::{ReceivedMessage, Value as Property};
use uuid::Uuid;

use crate::{
    function_json::{DataType, ServiceBusTrigger, TimerTrigger},
    timer::ScheduleStatus,
};

/// A value as the host holds it before it is encoded.
#[derive(Debug, Clone, PartialEq)]
pub enum BindingValue {
    Bytes(Vec<u8>),
    DateTime(Timestamp),
    DateTimeOffset(Timestamp),
    /// Anything else: text, numbers, flags, lists, objects.
    Json(Value),
}

impl BindingValue {
    /// The value on the wire.
    pub fn encode(&self) -> Value {
        match self {
            Self::Bytes(bytes) => STANDARD.encode(bytes).into(),
            Self::DateTime(time) => time.strftime("%Y-%m-%dT%H:%M:%S").to_string().into(),
            Self::DateTimeOffset(time) => {
                time.strftime("%Y-%m-%dT%H:%M:%S+00:00").to_string().into()
            }
            Self::Json(object @ Value::Object(_)) => object.clone(),
            Self::Json(other) => other.to_string().into(),
        }
    }
}

impl<T: Into<Value>> From<T> for BindingValue {
    fn from(value: T) -> Self {
        Self::Json(value.into())
    }
}

/// What becomes `Metadata`: a dictionary whose keys are compared without case and keep their first spelling.
#[derive(Debug, Clone, Default)]
pub struct BindingData(Vec<(String, BindingValue)>);

impl BindingData {
    pub fn set(&mut self, key: &str, value: impl Into<BindingValue>) {
        let value = value.into();
        match self
            .0
            .iter_mut()
            .find(|(known, _)| known.eq_ignore_ascii_case(key))
        {
            Some((_, known)) => *known = value,
            None => self.0.push((key.to_owned(), value)),
        }
    }

    fn set_some(&mut self, key: &str, value: Option<&str>) {
        if let Some(value) = value {
            self.set(key, value);
        }
    }

    /// Lays the top-level properties of a body that is a JSON object over what is there, as the host does for
    /// text triggers (`Utility.ApplyBindingData`). Lists and nulls are left out, scalars become text.
    pub fn merge_body(&mut self, body: &str) {
        let Ok(Value::Object(object)) = serde_json::from_str(body) else {
            return;
        };
        for (key, value) in object {
            match value {
                Value::Null | Value::Array(_) => {}
                Value::Bool(true) => self.set(&key, "True"),
                Value::Bool(false) => self.set(&key, "False"),
                Value::Number(number) => self.set(&key, number.to_string()),
                Value::String(_) | Value::Object(_) => self.set(&key, value),
            }
        }
    }

    /// `Metadata`: without nulls, and without keys that end in `trigger`.
    pub fn encode(&self) -> Value {
        self.0
            .iter()
            .filter(|(key, value)| {
                !key.to_ascii_lowercase().ends_with("trigger")
                    && *value != BindingValue::Json(Value::Null)
            })
            .map(|(key, value)| (key.clone(), value.encode()))
            .collect::<Map<_, _>>()
            .into()
    }

    /// `sys`, which every invocation has.
    pub fn set_sys(&mut self, function: &str, now: Timestamp) {
        self.set(
            "sys",
            json!({
                "MethodName": function,
                "UtcNow": now.strftime("%Y-%m-%dT%H:%M:%S%.7fZ").to_string(),
                "RandGuid": Uuid::new_v4(),
            }),
        );
    }
}

/// The request body for one message of a Service Bus trigger.
pub fn service_bus_envelope(
    function: &str,
    trigger: &ServiceBusTrigger,
    message: &ReceivedMessage,
    now: Timestamp,
) -> Value {
    let mut metadata = broker_properties(message);
    metadata.set_sys(function, now);
    let data = match trigger.data_type {
        DataType::Binary => BindingValue::Bytes(message.message.body.data().to_vec()),
        DataType::String => {
            let body = message.message.body.data();
            let text = String::from_utf8_lossy(&body);
            metadata.merge_body(&text);
            text.as_ref().into()
        }
    };
    json!({ "Data": { &trigger.name: data.encode() }, "Metadata": metadata.encode() })
}

/// The request body for a run by hand (`POST /admin/functions/{name}`): a message with only a body.
pub fn manual_envelope(
    function: &str,
    trigger: &ServiceBusTrigger,
    input: &str,
    now: Timestamp,
) -> Value {
    let mut metadata = BindingData::default();
    for key in LIVE_OBJECTS {
        metadata.set(key, json!({}));
    }
    metadata.set("DeliveryCount", 0);
    metadata.set("LockToken", Uuid::nil().to_string());
    metadata.set("SequenceNumber", 0);
    metadata.set("ApplicationProperties", json!({}));
    metadata.set("UserProperties", json!({}));
    metadata.set_sys(function, now);
    let data = match trigger.data_type {
        DataType::Binary => BindingValue::Bytes(input.as_bytes().to_vec()),
        DataType::String => {
            metadata.merge_body(input);
            input.into()
        }
    };
    metadata.set(&trigger.name, input);
    json!({ "Data": { &trigger.name: data.encode() }, "Metadata": metadata.encode() })
}

/// The request body for one invocation of a timer. Where the host keeps no status there is none.
pub fn timer_envelope(
    function: &str,
    trigger: &TimerTrigger,
    status: Option<&ScheduleStatus>,
    is_past_due: bool,
    now: Timestamp,
) -> Value {
    let time = |time: Timestamp| time.strftime("%Y-%m-%dT%H:%M:%S%.f+00:00").to_string();
    let status = status.map(|status| {
        json!({
            // Before the first time it is the beginning of .NET's time.
            "Last": status.last.map_or_else(|| "0001-01-01T00:00:00+00:00".to_owned(), time),
            "Next": time(status.next),
            "LastUpdated": time(status.last_updated),
        })
    });
    let timer = BindingValue::Json(json!({
        "Schedule": { "AdjustForDST": trigger.schedule.adjusts_for_dst() },
        "ScheduleStatus": status,
        "IsPastDue": is_past_due,
    }));
    let mut metadata = BindingData::default();
    metadata.set_sys(function, now);
    json!({ "Data": { &trigger.name: timer.encode() }, "Metadata": metadata.encode() })
}

/// Objects of the extension that only .NET could use; they arrive as empty or odd objects.
const LIVE_OBJECTS: [&str; 5] = [
    "MessageReceiver",
    "MessageSession",
    "MessageActions",
    "SessionActions",
    "ReceiveActions",
];

fn broker_properties(received: &ReceivedMessage) -> BindingData {
    let message = &received.message;
    let mut metadata = BindingData::default();
    for key in LIVE_OBJECTS {
        metadata.set(key, json!({}));
    }
    metadata.set(
        "Client",
        json!({
            "FullyQualifiedNamespace": "localhost",
            "IsClosed": false,
            "TransportType": 0,
            "Identifier": "localhost-7e0d3e0a-52c4-4b6e-8a43-5f8ad8a0a7d1",
        }),
    );
    // A message without a time to live expires at the end of time: .NET's is a day later than jiff's.
    let expires_at = received.expires_at.unwrap_or(Timestamp::MAX);
    metadata.set("DeliveryCount", received.delivery_count);
    metadata.set_some("DeadLetterSource", received.dead_letter_source.as_deref());
    metadata.set_some(
        "LockToken",
        received
            .lock_token
            .map(|token| token.to_string())
            .as_deref(),
    );
    metadata.set("ExpiresAtUtc", BindingValue::DateTime(expires_at));
    metadata.set("ExpiresAt", BindingValue::DateTimeOffset(expires_at));
    metadata.set(
        "EnqueuedTimeUtc",
        BindingValue::DateTime(received.enqueued_time),
    );
    metadata.set(
        "EnqueuedTime",
        BindingValue::DateTimeOffset(received.enqueued_time),
    );
    metadata.set_some("MessageId", message.message_id.as_deref());
    metadata.set_some("ContentType", message.content_type.as_deref());
    metadata.set_some("ReplyTo", message.reply_to.as_deref());
    metadata.set("SequenceNumber", received.sequence_number);
    metadata.set_some("To", message.to.as_deref());
    metadata.set_some("Subject", message.label.as_deref());
    metadata.set_some("Label", message.label.as_deref());
    metadata.set_some("CorrelationId", message.correlation_id.as_deref());
    let properties: Map<String, Value> = message
        .properties
        .iter()
        .map(|(key, value)| (key.clone(), property_json(value)))
        .collect();
    metadata.set("ApplicationProperties", properties.clone());
    metadata.set("UserProperties", properties);
    metadata.set_some("SessionId", message.session_id.as_deref());
    metadata.set_some("ReplyToSessionId", message.reply_to_session_id.as_deref());
    metadata.set_some("PartitionKey", message.partition_key.as_deref());
    metadata
}

/// An application property as plain JSON.
pub fn property_json(property: &Property) -> Value {
    match property {
        Property::String(text) => text.as_str().into(),
        Property::Bool(flag) => (*flag).into(),
        Property::Long(number) => (*number).into(),
        Property::Double(number) => (*number).into(),
        Property::Timestamp(time) => time.to_string().into(),
        Property::Null => Value::Null,
        Property::Byte(number) => (*number).into(),
        Property::SByte(number) => (*number).into(),
        Property::Short(number) => (*number).into(),
        Property::UShort(number) => (*number).into(),
        Property::Int(number) => (*number).into(),
        Property::UInt(number) => (*number).into(),
        Property::ULong(number) => (*number).into(),
        Property::Float(number) => (*number).into(),
        Property::Char(character) => character.to_string().into(),
        Property::Uuid(uuid) => uuid.to_string().into(),
        Property::Symbol(symbol) => symbol.as_str().into(),
        Property::Binary(bytes) | Property::Encoded(bytes) => STANDARD.encode(bytes).into(),
    }
}
