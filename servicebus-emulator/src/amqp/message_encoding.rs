//! A message of the bus, as the payload of a transfer.
//!
//! Runs once for every message that goes to a client over a link or in a management response. The sections and
//! annotations are those that the clients of Service Bus read.
//!
//! Delivery counts: of a received message the header says how often it was delivered *before*, as AMQP has it, and
//! .NET adds one; of a peeked message it says how often it was delivered, and .NET adds nothing. Python, Node and Java
//! show the number of the header. .NET cannot do without the number, so it is there when it is 0 too.
//! Facts: `AmqpMessageConverter.cs` of Azure.Messaging.ServiceBus, `serviceBusMessage.ts` of @azure/service-bus,
//! `ServiceBusMessageSerializer.java`, `_common/message.py` of azure-servicebus.

use bytes::{BufMut, Bytes, BytesMut};
use jiff::Timestamp;
use uuid::Uuid;

use crate::{Body, Message, MessageState, ReceivedMessage};

use super::{
    value::{self, put_property},
    value_encoding::{
        put_binary, put_bool, put_descriptor, put_int, put_list, put_long, put_map, put_null,
        put_string, put_symbol, put_timestamp, put_uint, put_value,
    },
};

/// What the sections take besides the body, roughly.
const USUAL_OVERHEAD: usize = 512;

/// A message that its receiver gets, under a lock or for good.
pub(crate) fn encode_message(received: &ReceivedMessage) -> Bytes {
    encode(received, received.delivery_count.saturating_sub(1))
}

/// A message that someone looks at.
pub(crate) fn encode_peeked(peeked: &ReceivedMessage) -> Bytes {
    encode(peeked, peeked.delivery_count)
}

fn encode(received: &ReceivedMessage, delivery_count: u32) -> Bytes {
    let message = &received.message;
    let mut out = BytesMut::with_capacity(message.body.bytes().len() + USUAL_OVERHEAD);
    put_header(&mut out, message, delivery_count);
    if let Some(lock_token) = received.lock_token {
        put_lock_token(&mut out, lock_token);
    }
    put_annotations(&mut out, received);
    put_properties(&mut out, received);
    if !message.properties.is_empty() {
        put_descriptor(&mut out, 0x74);
        put_map(&mut out, |out| {
            for (name, value) in &message.properties {
                put_string(out, name);
                put_property(out, value);
            }
            message.properties.len() * 2
        });
    }
    match &message.body {
        Body::Data(bytes) => {
            put_descriptor(&mut out, 0x75);
            put_binary(&mut out, bytes);
        }
        Body::Encoded(sections) => out.put_slice(sections),
    }
    out.freeze()
}

fn put_header(out: &mut BytesMut, message: &Message, delivery_count: u32) {
    put_descriptor(out, 0x70);
    put_list(out, |out| {
        // durable
        put_bool(out, true);
        // priority
        put_null(out);
        match message.time_to_live {
            // A longer life than the header has room for is in the properties.
            Some(time) => put_uint(out, u32::try_from(time.as_millis()).unwrap_or(u32::MAX)),
            None => put_null(out),
        }
        // first-acquirer
        put_null(out);
        put_uint(out, delivery_count);
        5
    });
}

/// Some clients look for the lock token here, and at the delivery's tag only where it is not.
fn put_lock_token(out: &mut BytesMut, lock_token: Uuid) {
    put_descriptor(out, 0x71);
    put_map(out, |out| {
        put_symbol(out, "x-opt-lock-token");
        put_value(out, &value::uuid(lock_token));
        2
    });
}

fn put_annotations(out: &mut BytesMut, received: &ReceivedMessage) {
    let message = &received.message;
    put_descriptor(out, 0x72);
    put_map(out, |out| {
        put_symbol(out, "x-opt-sequence-number");
        put_long(out, received.sequence_number);
        put_symbol(out, "x-opt-enqueue-sequence-number");
        put_long(out, received.enqueued_sequence_number);
        put_symbol(out, "x-opt-enqueued-time");
        put_time(out, received.enqueued_time);
        put_symbol(out, "x-opt-message-state");
        put_int(
            out,
            match received.state {
                // A message under a lock is active to its receiver.
                MessageState::Active | MessageState::Locked => 0,
                MessageState::Deferred => 1,
                MessageState::Scheduled => 2,
            },
        );
        let mut entries = 4;
        let times = [
            ("x-opt-locked-until", received.locked_until),
            (
                "x-opt-scheduled-enqueue-time",
                message.scheduled_enqueue_time,
            ),
        ];
        for (name, time) in times {
            if let Some(time) = time {
                put_symbol(out, name);
                put_time(out, time);
                entries += 1;
            }
        }
        let texts = [
            ("x-opt-partition-key", &message.partition_key),
            ("x-opt-deadletter-source", &received.dead_letter_source),
        ];
        for (name, text) in texts {
            if let Some(text) = text {
                put_symbol(out, name);
                put_string(out, text);
                entries += 1;
            }
        }
        entries * 2
    });
}

fn put_properties(out: &mut BytesMut, received: &ReceivedMessage) {
    let message = &received.message;
    put_descriptor(out, 0x73);
    put_list(out, |out| {
        put_text(out, message.message_id.as_deref());
        // user-id
        put_null(out);
        put_text(out, message.to.as_deref());
        put_text(out, message.label.as_deref());
        put_text(out, message.reply_to.as_deref());
        put_text(out, message.correlation_id.as_deref());
        match &message.content_type {
            Some(content_type) => put_symbol(out, content_type),
            None => put_null(out),
        }
        // content-encoding
        put_null(out);
        // .NET takes the time between the two for the time to live.
        match received.expires_at {
            Some(expires_at) => {
                put_time(out, expires_at);
                put_time(out, received.enqueued_time);
            }
            None => {
                put_null(out);
                put_null(out);
            }
        }
        put_text(out, message.session_id.as_deref());
        // group-sequence
        put_null(out);
        put_text(out, message.reply_to_session_id.as_deref());
        13
    });
}

fn put_text(out: &mut BytesMut, text: Option<&str>) {
    match text {
        Some(text) => put_string(out, text),
        None => put_null(out),
    }
}

fn put_time(out: &mut BytesMut, time: Timestamp) {
    put_timestamp(out, time.as_millisecond());
}
