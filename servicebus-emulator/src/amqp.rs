//! AMQP 1.0 as Service Bus speaks it.
//!
//! The bytes: `frame` takes frames off a connection and puts them on it, `message_decoding` and `message_encoding` turn
//! a transfer's payload into a message of the bus and back, `management_message` does so for requests to `$management`
//! and `$cbs`. Under them are `value_decoding` and `value_encoding`, for any AMQP value.
//!
//! The behaviour: `listener` accepts, `connection` is one connection, `channels` its sessions, each a `session` with its
//! links. An `incoming_link` is one on which the client sends, an `outgoing_link` one on which it receives.

mod address;
mod attach;
mod authorization;
mod cbs;
mod channels;
#[cfg(test)]
mod client_bytes_tests;
mod connection;
mod coordinator;
mod delivery;
mod dispositions;
mod errors;
mod fields;
mod frame;
#[cfg(feature = "fuzzing")]
pub(crate) mod fuzzing;
mod incoming_link;
mod listener;
mod management;
mod management_message;
mod management_messages;
mod management_rules;
mod management_sessions;
mod message_decoding;
mod message_encoding;
mod outgoing_link;
mod performative_decoding;
mod sasl;
mod session;
mod settlement;
mod transport;
mod value;
mod value_decoding;
mod value_encoding;
mod windows;
mod work;

pub use listener::{Limits, serve};
pub(crate) use message_decoding::plain;
