//! A transfer's payload, as messages of the bus.
//!
//! Runs once for every message that a client sends or schedules. What the bus has a place for is kept; delivery
//! annotations, the footer and unknown message annotations are the sender's own business and are dropped, as are
//! `durable`, `priority`, `user-id`, `content-encoding` and `group-sequence`. An error means that the payload is no
//! message, and the delivery is rejected; limits and contradictions are the broker's to check.

use std::time::Duration;

use bytes::Bytes;
use jiff::Timestamp;
use serde_amqp::Value as Amqp;

use crate::{Body, Message};

use super::{
    fields::Fields,
    value,
    value_decoding::{DecodeError, Reader},
};

/// The message-format of a transfer whose payload is a batch.
pub(crate) const BATCH_FORMAT: u32 = 0x8001_3700;

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum MessageError {
    #[error("the message cannot be read: {0}")]
    Encoding(#[from] DecodeError),
    #[error("a message has no section with the descriptor 0x{0:x}")]
    Section(u64),
    #[error("the body is of more than one kind")]
    MixedBody,
    #[error("x-opt-scheduled-enqueue-time is not a time from year 1 to 9999")]
    ScheduledEnqueueTime,
}

/// One message. A body of one data section is its bytes; every other body is kept as it was sent.
pub(crate) fn decode_message(payload: &[u8]) -> Result<Message, MessageError> {
    let mut reader = Reader::new(payload);
    let mut message = Message::default();
    let mut data: Vec<&[u8]> = Vec::new();
    let mut others = false;
    let mut encoded: Vec<u8> = Vec::new();
    let mut header = Header::default();
    let mut properties = Properties::default();
    while !reader.is_empty() {
        let section = reader.rest();
        match reader.descriptor()? {
            0x70 => header = read_header(reader.fields()?)?,
            0x71 | 0x78 => drop(reader.encoded()?),
            0x72 => read_annotations(&mut reader, &mut message)?,
            0x73 => properties = read_properties(reader.fields()?, &mut message)?,
            0x74 => read_application_properties(&mut reader, &mut message)?,
            code @ 0x75..=0x77 => {
                if code == 0x75 {
                    data.push(binary(&mut reader)?);
                } else {
                    others = true;
                    reader.encoded()?;
                }
                let length = section.len() - reader.rest().len();
                encoded.extend_from_slice(&section[..length]);
            }
            code => return Err(MessageError::Section(code)),
        }
    }
    message.time_to_live = time_to_live(&header, &properties);
    message.body = match (&data[..], others) {
        ([data], false) => Body::Data(Bytes::copy_from_slice(data)),
        // Where there is no section at all, there is none for the receiver either.
        ([], _) | (_, false) => Body::Encoded(Bytes::from(encoded)),
        (_, true) => return Err(MessageError::MixedBody),
    };
    Ok(message)
}

/// The bytes of a body that is kept as it was sent, for a receiver that knows nothing else: those of all its data sections,
/// or of a text or binary value. `None` where it has none.
pub(crate) fn plain(encoded: &[u8]) -> Option<Bytes> {
    let mut reader = Reader::new(encoded);
    let mut plain = Vec::new();
    while !reader.is_empty() {
        match reader.descriptor().ok()? {
            0x75 => plain.extend_from_slice(binary(&mut reader).ok()?),
            0x77 => match reader.value().ok()? {
                Amqp::String(text) => return Some(text.into()),
                Amqp::Binary(bytes) => return Some(bytes.into_vec().into()),
                _ => return None,
            },
            _ => return None,
        }
    }
    Some(plain.into())
}

/// The messages of a batch: each data section holds one, encoded. What the outer message says besides is what the
/// client took from the first of them.
pub(crate) fn decode_batch(payload: &[u8]) -> Result<Vec<Message>, MessageError> {
    let mut reader = Reader::new(payload);
    let mut messages = Vec::new();
    while !reader.is_empty() {
        match reader.descriptor()? {
            0x75 => messages.push(decode_message(binary(&mut reader)?)?),
            0x70..=0x74 | 0x78 => drop(reader.encoded()?),
            code => return Err(MessageError::Section(code)),
        }
    }
    Ok(messages)
}

/// The content of a data section.
fn binary<'a>(reader: &mut Reader<'a>) -> Result<&'a [u8], DecodeError> {
    let encoded = reader.encoded()?;
    match encoded {
        [code @ (0xa0 | 0xb0), sized @ ..] => Reader::new(sized).sized(*code == 0xa0),
        _ => Err(DecodeError::Type("data")),
    }
}

#[derive(Default)]
struct Header {
    /// In milliseconds.
    time_to_live: Option<u32>,
}

/// Times in milliseconds since 1970.
#[derive(Default)]
struct Properties {
    absolute_expiry_time: Option<i64>,
    creation_time: Option<i64>,
}

fn read_header(mut fields: Fields<'_>) -> Result<Header, DecodeError> {
    let _durable = fields.value()?;
    let _priority = fields.value()?;
    Ok(Header {
        time_to_live: fields.number("ttl")?,
    })
}

fn read_properties(
    mut fields: Fields<'_>,
    message: &mut Message,
) -> Result<Properties, DecodeError> {
    message.message_id = value::id(fields.value()?)?;
    let _user_id = fields.value()?;
    message.to = fields.text("to")?;
    message.label = fields.text("subject")?;
    message.reply_to = fields.text("reply-to")?;
    message.correlation_id = value::id(fields.value()?)?;
    message.content_type = fields.text("content-type")?;
    let _content_encoding = fields.value()?;
    let properties = Properties {
        absolute_expiry_time: milliseconds(fields.value()?, "absolute-expiry-time")?,
        creation_time: milliseconds(fields.value()?, "creation-time")?,
    };
    message.session_id = fields.text("group-id")?;
    let _group_sequence = fields.value()?;
    message.reply_to_session_id = fields.text("reply-to-group-id")?;
    Ok(properties)
}

fn milliseconds(value: Amqp, name: &'static str) -> Result<Option<i64>, DecodeError> {
    match value {
        Amqp::Null => Ok(None),
        Amqp::Timestamp(time) => Ok(Some(time.milliseconds())),
        _ => Err(DecodeError::Type(name)),
    }
}

/// The header has room for 49 days. Of a longer life clients send the most that the header takes, and the true length
/// as the time between creation and expiry.
fn time_to_live(header: &Header, properties: &Properties) -> Option<Duration> {
    let milliseconds = u64::from(header.time_to_live?);
    let life = properties
        .absolute_expiry_time
        .zip(properties.creation_time)
        .and_then(|(expiry, creation)| expiry.checked_sub(creation)?.try_into().ok());
    Some(Duration::from_millis(match life {
        Some(life) if milliseconds == u64::from(u32::MAX) => milliseconds.max(life),
        _ => milliseconds,
    }))
}

fn read_annotations(reader: &mut Reader<'_>, message: &mut Message) -> Result<(), MessageError> {
    let (mut entries, count) = reader.map()?;
    for _ in 0..count / 2 {
        let key = entries.value()?;
        let annotation = entries.encoded()?;
        let annotation = || Reader::new(annotation).value();
        match value::text(&key) {
            Some("x-opt-scheduled-enqueue-time") => {
                message.scheduled_enqueue_time = match annotation()? {
                    Amqp::Null => None,
                    time => Some(scheduled_enqueue_time(&time)?),
                };
            }
            Some("x-opt-partition-key") => {
                message.partition_key = match annotation()? {
                    Amqp::Null => None,
                    key => Some(
                        value::text(&key)
                            .ok_or(DecodeError::Type("x-opt-partition-key"))?
                            .to_owned(),
                    ),
                };
            }
            _ => {}
        }
    }
    Ok(())
}

fn scheduled_enqueue_time(time: &Amqp) -> Result<Timestamp, MessageError> {
    value::time(time).ok_or(MessageError::ScheduledEnqueueTime)
}

fn read_application_properties(
    reader: &mut Reader<'_>,
    message: &mut Message,
) -> Result<(), DecodeError> {
    let (mut entries, count) = reader.map()?;
    for _ in 0..count / 2 {
        let key = entries.value()?;
        let name = value::text(&key).ok_or(DecodeError::Type("the name of a property"))?;
        let property = value::property(entries.encoded()?)?;
        message.properties.insert(name.to_owned(), property);
    }
    Ok(())
}

#[cfg(test)]
#[path = "message_tests.rs"]
mod tests;
