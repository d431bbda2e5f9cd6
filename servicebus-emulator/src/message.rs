//! A message as its sender gives it and as a receiver gets it, in Service Bus's words, and the limits that
//! every message must keep, whichever protocol brings it.

use std::{collections::BTreeMap, time::Duration};

use bytes::Bytes;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::EntityPath;

/// The largest message, body and header part together, in bytes: that of the Standard tier.
pub const MAX_MESSAGE_SIZE: usize = 262_144;
/// The largest header part (broker and application properties), in bytes.
const MAX_HEADER_SIZE: usize = 65_536;
/// The largest value of one application property, in bytes.
const MAX_PROPERTY_SIZE: usize = 32_768;
/// The longest message id, session id or partition key, in characters.
const MAX_ID_LENGTH: usize = 128;

/// What a sender gives the broker.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Message {
    pub body: Body,
    pub content_type: Option<String>,
    pub message_id: Option<String>,
    pub correlation_id: Option<String>,
    pub session_id: Option<String>,
    pub partition_key: Option<String>,
    /// `Label` in the older APIs and over REST, `Subject` in the newer ones.
    pub label: Option<String>,
    pub reply_to: Option<String>,
    pub reply_to_session_id: Option<String>,
    pub to: Option<String>,
    pub time_to_live: Option<Duration>,
    pub scheduled_enqueue_time: Option<Timestamp>,
    /// Application properties (also: user or custom properties).
    pub properties: BTreeMap<String, Value>,
}

/// What a message carries. Over REST it is always bytes; AMQP has other kinds, which only AMQP can show as they are.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum Body {
    Data(Bytes),
    /// An `amqp-value` or `amqp-sequence` body: its sections, encoded as they were sent.
    Encoded(Bytes),
}

impl Body {
    /// The data, or the encoded sections.
    pub fn bytes(&self) -> &Bytes {
        match self {
            Self::Data(bytes) | Self::Encoded(bytes) => bytes,
        }
    }
}

impl Default for Body {
    fn default() -> Self {
        Self::Data(Bytes::new())
    }
}

impl<T: Into<Bytes>> From<T> for Body {
    fn from(data: T) -> Self {
        Self::Data(data.into())
    }
}

impl Message {
    /// What the message counts against the limits and the entity's quota, in bytes.
    pub fn size(&self) -> usize {
        self.body.bytes().len() + self.header_size()
    }

    /// The size of everything but the body, in bytes: names and values of the properties.
    fn header_size(&self) -> usize {
        let texts = [
            &self.content_type,
            &self.message_id,
            &self.correlation_id,
            &self.session_id,
            &self.partition_key,
            &self.label,
            &self.reply_to,
            &self.reply_to_session_id,
            &self.to,
        ];
        let broker: usize = texts.into_iter().flatten().map(String::len).sum();
        let application: usize = self
            .properties
            .iter()
            .map(|(name, value)| name.len() + value.size())
            .sum();
        broker + application
    }

    /// Says what is wrong with the message whatever entity it is for, its size as a whole left aside.
    pub(crate) fn check(&self) -> Result<(), String> {
        let ids = [
            ("MessageId", &self.message_id),
            ("SessionId", &self.session_id),
            ("PartitionKey", &self.partition_key),
        ];
        for (name, id) in ids {
            if id
                .as_ref()
                .is_some_and(|id| id.chars().count() > MAX_ID_LENGTH)
            {
                return Err(format!("{name} is longer than {MAX_ID_LENGTH} characters"));
            }
        }
        if self.message_id.as_deref() == Some("") {
            return Err("MessageId is empty".to_owned());
        }
        if let (Some(session), Some(partition)) = (&self.session_id, &self.partition_key)
            && session != partition
        {
            return Err("SessionId and PartitionKey differ".to_owned());
        }
        if self.time_to_live == Some(Duration::ZERO) {
            return Err("TimeToLive is not greater than zero".to_owned());
        }
        if let Some((name, _)) = self
            .properties
            .iter()
            .find(|(_, value)| value.size() > MAX_PROPERTY_SIZE)
        {
            return Err(format!(
                "the property `{name}` is larger than {MAX_PROPERTY_SIZE} bytes"
            ));
        }
        if self.header_size() > MAX_HEADER_SIZE {
            return Err(format!(
                "the properties take more than {MAX_HEADER_SIZE} bytes"
            ));
        }
        Ok(())
    }
}

/// The value of an application property. REST knows the first five types; the others come over AMQP, and keep their type.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum Value {
    String(String),
    Bool(bool),
    Long(i64),
    Double(f64),
    Timestamp(Timestamp),
    Null,
    Byte(u8),
    SByte(i8),
    Short(i16),
    UShort(u16),
    Int(i32),
    UInt(u32),
    ULong(u64),
    Float(f32),
    Char(char),
    Uuid(Uuid),
    Binary(Bytes),
    Symbol(String),
    /// Any other AMQP value (a decimal, a described one), encoded as it was sent.
    Encoded(Bytes),
}

impl Value {
    fn size(&self) -> usize {
        match self {
            Self::String(text) | Self::Symbol(text) => text.len(),
            Self::Binary(bytes) | Self::Encoded(bytes) => bytes.len(),
            Self::Null => 0,
            Self::Bool(_) | Self::Byte(_) | Self::SByte(_) => 1,
            Self::Short(_) | Self::UShort(_) => 2,
            Self::Int(_) | Self::UInt(_) | Self::Float(_) | Self::Char(_) => 4,
            Self::Long(_) | Self::ULong(_) | Self::Double(_) | Self::Timestamp(_) => 8,
            Self::Uuid(_) => 16,
        }
    }
}

/// What a receiver gets.
#[derive(Debug, Clone, PartialEq)]
pub struct ReceivedMessage {
    pub message: Message,
    pub sequence_number: i64,
    pub enqueued_sequence_number: i64,
    pub enqueued_time: Timestamp,
    /// When the message expires, if it does.
    pub expires_at: Option<Timestamp>,
    /// How often it has been delivered, this delivery included.
    pub delivery_count: u32,
    /// Both are there under a lock (`PeekLock`), and neither after `ReceiveAndDelete` or browsing.
    pub lock_token: Option<Uuid>,
    pub locked_until: Option<Timestamp>,
    pub state: MessageState,
    /// The entity in which a message was dead-lettered whose dead-letter queue forwarded it; in the dead-letter
    /// queue itself there is none.
    pub dead_letter_source: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum MessageState {
    Active,
    Locked,
    Scheduled,
    /// Set aside by its receiver: it is received again by its sequence number only.
    Deferred,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReceiveMode {
    PeekLock,
    ReceiveAndDelete,
}

/// Application properties that a receiver sets on a message it gives back.
pub type Changes = BTreeMap<String, Value>;

/// What a receiver does with a message under its lock.
#[derive(Debug, Clone, PartialEq)]
pub enum Settlement {
    /// It has been dealt with: it is removed.
    Complete,
    /// It is available again at its old place, as if it had never been delivered.
    Release,
    /// It is available again at its old place, or dead-lettered when it has been delivered as often as it may.
    Abandon { changes: Changes },
    /// It is set aside.
    Defer { changes: Changes },
    DeadLetter {
        reason: Option<String>,
        description: Option<String>,
        changes: Changes,
    },
}

/// One part of a transaction.
#[derive(Debug, Clone, PartialEq)]
pub enum Operation {
    Send {
        to: EntityPath,
        messages: Vec<Message>,
    },
    Settle {
        from: EntityPath,
        lock_token: Uuid,
        settlement: Settlement,
    },
}

/// A session that a receiver has locked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AcceptedSession {
    pub session_id: String,
    /// What its holder shows to receive from it.
    pub token: Uuid,
    pub locked_until: Timestamp,
}
