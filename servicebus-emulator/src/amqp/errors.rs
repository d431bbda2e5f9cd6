//! Why something is refused, in the words of Service Bus over AMQP.
//!
//! A [`Refusal`] is made of an error of the bus or where a client asks for what there is not. It goes out as the error of a
//! rejected delivery, of a detach, an end or a close, or as the status of an answer of `$management`; the SDKs decide by
//! its condition which exception they raise and whether they try again.

use fe2o3_amqp_types::definitions::{Error as AmqpError, ErrorCondition};
use serde_amqp::primitives::Symbol;

use super::{frame::FrameError, management_message::Response};
use crate::{Error, sas::Unauthorized};

pub(crate) const ARGUMENT_ERROR: &str = "com.microsoft:argument-error";
pub(crate) const CONNECTION_FORCED: &str = "amqp:connection:forced";
pub(crate) const DECODE_ERROR: &str = "amqp:decode-error";
pub(crate) const ENTITY_DISABLED: &str = "com.microsoft:entity-disabled";
pub(crate) const ENTITY_EXISTS: &str = "com.microsoft:entity-already-exists";
pub(crate) const ERRANT_LINK: &str = "amqp:session:errant-link";
pub(crate) const FRAMING_ERROR: &str = "amqp:connection:framing-error";
pub(crate) const HANDLE_IN_USE: &str = "amqp:session:handle-in-use";
pub(crate) const INTERNAL_ERROR: &str = "amqp:internal-error";
pub(crate) const INVALID_FIELD: &str = "amqp:invalid-field";
pub(crate) const MESSAGE_LOCK_LOST: &str = "com.microsoft:message-lock-lost";
pub(crate) const MESSAGE_NOT_FOUND: &str = "com.microsoft:message-not-found";
pub(crate) const MESSAGE_SIZE_EXCEEDED: &str = "amqp:link:message-size-exceeded";
pub(crate) const NOT_ALLOWED: &str = "amqp:not-allowed";
pub(crate) const NOT_FOUND: &str = "amqp:not-found";
pub(crate) const NOT_IMPLEMENTED: &str = "amqp:not-implemented";
pub(crate) const RESOURCE_LIMIT_EXCEEDED: &str = "amqp:resource-limit-exceeded";
pub(crate) const SESSION_CANNOT_BE_LOCKED: &str = "com.microsoft:session-cannot-be-locked";
pub(crate) const SESSION_LOCK_LOST: &str = "com.microsoft:session-lock-lost";
pub(crate) const TIMEOUT: &str = "com.microsoft:timeout";
pub(crate) const TRANSACTION_TIMEOUT: &str = "amqp:transaction:timeout";
pub(crate) const TRANSFER_LIMIT_EXCEEDED: &str = "amqp:link:transfer-limit-exceeded";
pub(crate) const UNATTACHED_HANDLE: &str = "amqp:session:unattached-handle";
pub(crate) const UNAUTHORIZED: &str = "amqp:unauthorized-access";
pub(crate) const UNKNOWN_TRANSACTION: &str = "amqp:transaction:unknown-id";
pub(crate) const WINDOW_VIOLATION: &str = "amqp:session:window-violation";

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Refusal {
    pub(crate) condition: &'static str,
    pub(crate) description: String,
}

impl Refusal {
    pub(crate) fn new(condition: &'static str, description: impl Into<String>) -> Self {
        Self {
            condition,
            description: description.into(),
        }
    }

    /// The status that goes with the condition, as the .NET client has it.
    fn status(&self) -> u16 {
        match self.condition {
            UNAUTHORIZED => 401,
            MESSAGE_SIZE_EXCEEDED | RESOURCE_LIMIT_EXCEEDED => 403,
            MESSAGE_NOT_FOUND | NOT_FOUND => 404,
            TIMEOUT => 408,
            ENTITY_EXISTS => 409,
            MESSAGE_LOCK_LOST | SESSION_CANNOT_BE_LOCKED | SESSION_LOCK_LOST => 410,
            INTERNAL_ERROR => 500,
            NOT_IMPLEMENTED => 501,
            CONNECTION_FORCED => 503,
            _ => 400,
        }
    }
}

impl From<Refusal> for AmqpError {
    fn from(refusal: Refusal) -> Self {
        Self {
            condition: ErrorCondition::Custom(Symbol::from(refusal.condition)),
            description: Some(refusal.description),
            // The Python client takes the list of an error to have all three.
            info: Some(Box::default()),
        }
    }
}

impl From<Refusal> for Response {
    fn from(refusal: Refusal) -> Self {
        Self::refusal(refusal.status(), refusal.condition, refusal.description)
    }
}

impl From<Error> for Refusal {
    fn from(error: Error) -> Self {
        let condition = match &error {
            Error::EntityNotFound(_) => NOT_FOUND,
            Error::NotSupported(_) => NOT_ALLOWED,
            Error::MessageLockLost => MESSAGE_LOCK_LOST,
            Error::SessionLockLost => SESSION_LOCK_LOST,
            Error::SessionCannotBeLocked(_) => SESSION_CANNOT_BE_LOCKED,
            Error::MessageNotFound(_) => MESSAGE_NOT_FOUND,
            Error::InvalidMessage(_) => ARGUMENT_ERROR,
            Error::MessageTooLarge { .. } => MESSAGE_SIZE_EXCEEDED,
            Error::QuotaExceeded(_) => RESOURCE_LIMIT_EXCEEDED,
            Error::EntityDisabled(_) => ENTITY_DISABLED,
            Error::EntityExists(_) => ENTITY_EXISTS,
            Error::Closed => CONNECTION_FORCED,
            Error::Store(_) => INTERNAL_ERROR,
        };
        Self::new(condition, error.to_string())
    }
}

impl From<FrameError> for Refusal {
    fn from(error: FrameError) -> Self {
        let condition = if error.is_framing() {
            FRAMING_ERROR
        } else {
            DECODE_ERROR
        };
        Self::new(condition, error.to_string())
    }
}

impl From<Unauthorized> for Refusal {
    fn from(reason: Unauthorized) -> Self {
        Self::new(UNAUTHORIZED, reason.to_string())
    }
}
