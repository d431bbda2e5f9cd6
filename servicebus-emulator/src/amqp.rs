//! AMQP 1.0 as Service Bus speaks it.
//!
//! The bytes: `frame` takes frames off a connection and puts them on it, `message_decoding` and `message_encoding` turn
//! a transfer's payload into a message of the bus and back, `management_message` does so for requests to `$management`
//! and `$cbs`. Under them are `value_decoding` and `value_encoding`, for any AMQP value.

mod frame;
mod performative_decoding;
mod value_decoding;
