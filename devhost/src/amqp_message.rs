//! A delivery as AMQP brings it, turned into the message that the bus itself would give.
//!
//! Annotations carry what the broker knows, the header counts the deliveries before this one, and the tag of the
//! delivery is the lock token with the bytes in the order of a .NET `Guid`. Times are whole milliseconds.

use std::time::Duration;

use fe2o3_amqp::Delivery;
use fe2o3_amqp_types::{
    messaging::{AmqpSequence, AmqpValue, Body as Sections, MessageId, annotations::OwnedKey},
    primitives::{SimpleValue, Symbol, Value as AmqpEncoded},
};
use jiff::Timestamp;
use servicebus_emulator::{Body, Message, MessageState, ReceivedMessage, Value};
use uuid::Uuid;

use crate::receiver::ReceiverError;

/// The received message; it has to have what every delivery of Service Bus has.
pub(crate) fn received_message(
    delivery: Delivery<Sections<AmqpEncoded>>,
) -> Result<ReceivedMessage, ReceiverError> {
    let lock_token = delivery
        .delivery_tag()
        .as_ref()
        .try_into()
        .map(Uuid::from_bytes_le)
        .map_err(|_| unreadable("the delivery's tag is not a lock token"))?;
    let message = delivery.into_message();
    let annotations = message.message_annotations.unwrap_or_default();
    let annotation = |name: &str| {
        annotations
            .0
            .get(&OwnedKey::Symbol(Symbol::from(name)))
            .cloned()
    };
    let time = |name: &str| match annotation(name) {
        Some(AmqpEncoded::Timestamp(time)) => timestamp(time.milliseconds()),
        _ => None,
    };
    let words = |name: &str| match annotation(name) {
        Some(AmqpEncoded::String(text)) => Some(text),
        Some(AmqpEncoded::Symbol(symbol)) => Some(symbol.0),
        _ => None,
    };
    let Some(AmqpEncoded::Long(sequence_number)) = annotation("x-opt-sequence-number") else {
        return Err(unreadable("x-opt-sequence-number is missing"));
    };
    let enqueued_sequence_number = match annotation("x-opt-enqueue-sequence-number") {
        Some(AmqpEncoded::Long(number)) => number,
        _ => 0,
    };
    let enqueued_time =
        time("x-opt-enqueued-time").ok_or_else(|| unreadable("x-opt-enqueued-time is missing"))?;
    let properties = message.properties.unwrap_or_default();
    let header = message.header.unwrap_or_default();
    let time_to_live = header
        .ttl
        .map(|milliseconds| Duration::from_millis(milliseconds.into()));
    let expires_at = match &properties.absolute_expiry_time {
        Some(time) => timestamp(time.milliseconds()),
        None => time_to_live.and_then(|left| enqueued_time.checked_add(left).ok()),
    };
    let own = message.application_properties.unwrap_or_default();
    Ok(ReceivedMessage {
        message: Message {
            body: body(message.body)?,
            content_type: properties.content_type.map(|symbol| symbol.0),
            message_id: properties.message_id.map(id),
            correlation_id: properties.correlation_id.map(id),
            session_id: properties.group_id,
            partition_key: words("x-opt-partition-key"),
            label: properties.subject,
            reply_to: properties.reply_to,
            reply_to_session_id: properties.reply_to_group_id,
            to: properties.to,
            time_to_live,
            scheduled_enqueue_time: time("x-opt-scheduled-enqueue-time"),
            properties: own
                .0
                .into_iter()
                .map(|(name, value)| Ok((name, property(value)?)))
                .collect::<Result<_, ReceiverError>>()?,
        },
        sequence_number,
        enqueued_sequence_number,
        enqueued_time,
        expires_at,
        delivery_count: header.delivery_count.saturating_add(1),
        lock_token: Some(lock_token),
        locked_until: time("x-opt-locked-until"),
        state: MessageState::Locked,
        dead_letter_source: words("x-opt-deadletter-source"),
    })
}

fn timestamp(milliseconds: i64) -> Option<Timestamp> {
    Timestamp::from_millisecond(milliseconds).ok()
}

fn unreadable(why: &str) -> ReceiverError {
    ReceiverError::Unreadable(why.to_owned())
}

fn encoded(value: &impl serde::Serialize) -> Result<Vec<u8>, ReceiverError> {
    serde_amqp::to_vec(value).map_err(|error| ReceiverError::Unreadable(error.to_string()))
}

/// Several sections of data are one body.
fn body(sections: Sections<AmqpEncoded>) -> Result<Body, ReceiverError> {
    Ok(match sections {
        Sections::Data(sections) => Body::Data(
            sections
                .into_iter()
                .flat_map(|section| section.0.into_vec())
                .collect::<Vec<u8>>()
                .into(),
        ),
        Sections::Value(AmqpValue(value)) => Body::Encoded(encoded(&AmqpValue(value))?.into()),
        Sections::Sequence(sections) => {
            let mut bytes = Vec::new();
            for AmqpSequence(list) in sections {
                bytes.extend(encoded(&AmqpSequence(list))?);
            }
            Body::Encoded(bytes.into())
        }
        Sections::Empty => Body::default(),
    })
}

fn id(id: MessageId) -> String {
    match id {
        MessageId::String(text) => text,
        MessageId::Ulong(number) => number.to_string(),
        MessageId::Uuid(uuid) => Uuid::from_bytes(uuid.into_inner()).to_string(),
        MessageId::Binary(bytes) => String::from_utf8_lossy(&bytes).into_owned(),
    }
}

fn property(value: SimpleValue) -> Result<Value, ReceiverError> {
    Ok(match value {
        SimpleValue::Null => Value::Null,
        SimpleValue::Bool(flag) => Value::Bool(flag),
        SimpleValue::Ubyte(number) => Value::Byte(number),
        SimpleValue::Ushort(number) => Value::UShort(number),
        SimpleValue::Uint(number) => Value::UInt(number),
        SimpleValue::Ulong(number) => Value::ULong(number),
        SimpleValue::Byte(number) => Value::SByte(number),
        SimpleValue::Short(number) => Value::Short(number),
        SimpleValue::Int(number) => Value::Int(number),
        SimpleValue::Long(number) => Value::Long(number),
        SimpleValue::Float(number) => Value::Float(number.0),
        SimpleValue::Double(number) => Value::Double(number.0),
        SimpleValue::Char(character) => Value::Char(character),
        SimpleValue::Timestamp(time) => Value::Timestamp(
            timestamp(time.milliseconds()).ok_or_else(|| unreadable("a time out of range"))?,
        ),
        SimpleValue::Uuid(uuid) => Value::Uuid(Uuid::from_bytes(uuid.into_inner())),
        SimpleValue::Binary(bytes) => Value::Binary(bytes.into_vec().into()),
        SimpleValue::String(text) => Value::String(text),
        SimpleValue::Symbol(symbol) => Value::Symbol(symbol.0),
        other @ (SimpleValue::Decimal32(_)
        | SimpleValue::Decimal64(_)
        | SimpleValue::Decimal128(_)
        | SimpleValue::Described(_)) => Value::Encoded(encoded(&other)?.into()),
    })
}
