//! Requests to the nodes of the bus that answer them: `$cbs`, which takes tokens, and the `$management` of an entity.
//!
//! A request goes out on one link and its reply comes in on another, with the request's id as its correlation id. The two
//! kinds of node spell the status of a reply differently. One request at a time: the next begins when this one is answered.

use fe2o3_amqp::{Receiver, Sender, session::SessionHandle};
use fe2o3_amqp_types::{
    definitions::ErrorCondition,
    messaging::{AmqpValue, ApplicationProperties, Body, Message, MessageId, Outcome, Properties},
    primitives::{SimpleValue, Value},
};
use servicebus_emulator::Error;
use uuid::Uuid;

use crate::receiver::ReceiverError;

/// The two links to one node.
#[derive(Debug)]
pub(crate) struct Requests {
    sender: Sender,
    replies: Receiver,
    reply_to: String,
}

impl Requests {
    pub(crate) async fn attach(
        session: &mut SessionHandle<()>,
        node: &str,
    ) -> Result<Self, ReceiverError> {
        let reply_to = format!("{node}-{}", Uuid::new_v4());
        let sender = Sender::attach(session, format!("{reply_to}-requests"), node)
            .await
            .map_err(|error| ReceiverError::Refused(format!("{node}: {error}")))?;
        let replies = Receiver::builder()
            .name(reply_to.clone())
            .source(node)
            .target(reply_to.as_str())
            .attach(session)
            .await
            .map_err(|error| ReceiverError::Refused(format!("{node}: {error}")))?;
        Ok(Self {
            sender,
            replies,
            reply_to,
        })
    }

    /// Asks and waits for the reply; its body. Must not be given up half way: the links would be out of step.
    pub(crate) async fn ask(
        &mut self,
        properties: ApplicationProperties,
        body: Value,
    ) -> Result<Value, ReceiverError> {
        let id = MessageId::String(Uuid::new_v4().to_string());
        let request = Message::builder()
            .properties(
                Properties::builder()
                    .message_id(id.clone())
                    .reply_to(self.reply_to.as_str())
                    .build(),
            )
            .application_properties(properties)
            .body(AmqpValue(body))
            .build();
        let outcome = self.sender.send(request).await.map_err(lost)?;
        if !matches!(outcome, Outcome::Accepted(_)) {
            return Err(ReceiverError::Refused(format!("{outcome:?}")));
        }
        let reply = loop {
            let reply = self.replies.recv::<Body<Value>>().await.map_err(lost)?;
            self.replies.accept(&reply).await.map_err(lost)?;
            let reply = reply.into_message();
            let correlation_id = reply.properties.as_ref();
            if correlation_id.and_then(|known| known.correlation_id.as_ref()) == Some(&id) {
                break reply;
            }
        };
        let properties = reply.application_properties.unwrap_or_default();
        let either = |one: &str, other: &str| {
            properties
                .get(one)
                .or_else(|| properties.get(other))
                .cloned()
        };
        match either("statusCode", "status-code") {
            Some(SimpleValue::Int(200..=299)) => Ok(match reply.body {
                Body::Value(AmqpValue(body)) => body,
                Body::Data(_) | Body::Sequence(_) | Body::Empty => Value::Null,
            }),
            status => {
                let condition = either("errorCondition", "error-condition");
                if condition.is_some_and(|condition| text(&condition) == MESSAGE_LOCK_LOST) {
                    return Err(Error::MessageLockLost.into());
                }
                let description = either("statusDescription", "status-description");
                Err(ReceiverError::Refused(match description {
                    Some(description) => text(&description),
                    None => format!("status {status:?}"),
                }))
            }
        }
    }
}

/// The condition with which the bus says that a lock has expired.
const MESSAGE_LOCK_LOST: &str = "com.microsoft:message-lock-lost";

pub(crate) fn is_message_lock_lost(condition: &ErrorCondition) -> bool {
    matches!(condition, ErrorCondition::Custom(symbol) if symbol.0 == MESSAGE_LOCK_LOST)
}

pub(crate) fn lost(error: impl std::fmt::Display) -> ReceiverError {
    ReceiverError::Lost(error.to_string())
}

fn text(value: &SimpleValue) -> String {
    match value {
        SimpleValue::String(text) => text.clone(),
        SimpleValue::Symbol(symbol) => symbol.0.clone(),
        other => format!("{other:?}"),
    }
}
