//! Requests about messages: peek, schedule, cancel, receive by number, settle, renew a lock.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde_amqp::{Value as Amqp, primitives::Array};
use uuid::Uuid;

use super::{
    errors::Refusal,
    management::{argument, count, done, no_content, required, required_list},
    management_message::{Request, Response},
    message_decoding::decode_message,
    message_encoding::{encode_message, encode_peeked},
    value,
};
use crate::{Changes, EntityPath, Message, ReceiveMode, ServiceBus, Settlement};

pub(crate) async fn peek(
    bus: &ServiceBus,
    entity: &EntityPath,
    request: &Request,
) -> Result<Response, Refusal> {
    let from = required(request, "from-sequence-number", value::long)?;
    let most = count(request, "message-count")?;
    let session = request.argument("session-id").and_then(value::text);
    let peeked = bus.peek_batch(entity, from, most, session).await?;
    if peeked.is_empty() {
        return Ok(no_content());
    }
    let messages = peeked
        .iter()
        .map(|peeked| value::map([("message", value::binary(&encode_peeked(peeked)))]));
    let messages = Amqp::List(messages.collect());
    Ok(Response::ok(value::map([("messages", messages)])))
}

pub(crate) async fn schedule(
    bus: &ServiceBus,
    entity: &EntityPath,
    request: &Request,
) -> Result<Response, Refusal> {
    let messages = required(request, "messages", value::elements)?;
    let messages = messages
        .iter()
        .map(scheduled)
        .collect::<Result<Vec<_>, _>>()?;
    let numbers = bus.schedule(entity, messages).await?;
    let numbers = numbers.into_iter().map(Amqp::Long).collect();
    let numbers = Amqp::Array(Array(numbers));
    Ok(Response::ok(value::map([("sequence-numbers", numbers)])))
}

/// One entry of the messages to schedule. What it says besides the message is in the message too.
fn scheduled(entry: &Amqp) -> Result<Message, Refusal> {
    let encoded = value::get(entry, "message")
        .and_then(value::bytes)
        .ok_or_else(|| argument("an entry of `messages` has no `message`"))?;
    let message = decode_message(encoded).map_err(|error| argument(error.to_string()))?;
    if message.scheduled_enqueue_time.is_none() {
        return Err(argument(
            "a message to be scheduled has no x-opt-scheduled-enqueue-time",
        ));
    }
    Ok(message)
}

pub(crate) async fn cancel(
    bus: &ServiceBus,
    entity: &EntityPath,
    request: &Request,
) -> Result<Response, Refusal> {
    let numbers = required_list(request, "sequence-numbers", value::long)?;
    bus.cancel_scheduled(entity, numbers).await?;
    Ok(done())
}

pub(crate) async fn receive(
    bus: &ServiceBus,
    entity: &EntityPath,
    request: &Request,
) -> Result<Response, Refusal> {
    let numbers = required_list(request, "sequence-numbers", value::long)?;
    let mode = match required(request, "receiver-settle-mode", value::long)? {
        0 => ReceiveMode::ReceiveAndDelete,
        1 => ReceiveMode::PeekLock,
        other => return Err(argument(format!("`receiver-settle-mode` is {other}"))),
    };
    let session = request.argument("session-id").and_then(value::text);
    let received = bus.receive_deferred(entity, mode, session, numbers).await?;
    let messages = received.iter().map(|received| {
        let message = value::binary(&encode_message(received));
        match received.lock_token {
            Some(token) => value::map([("lock-token", value::uuid(token)), ("message", message)]),
            None => value::map([("message", message)]),
        }
    });
    let messages = Amqp::List(messages.collect());
    Ok(Response::ok(value::map([("messages", messages)])))
}

pub(crate) async fn settle(
    bus: &ServiceBus,
    entity: &EntityPath,
    request: &Request,
) -> Result<Response, Refusal> {
    let (tokens, settlement) = settlement(request)?;
    for token in tokens {
        bus.settle(entity, token, settlement.clone()).await?;
    }
    Ok(done())
}

/// What a request to settle asks for, and for which messages.
pub(crate) fn settlement(request: &Request) -> Result<(Vec<Uuid>, Settlement), Refusal> {
    let tokens = required_list(request, "lock-tokens", value::token)?;
    let status = required(request, "disposition-status", value::text)?;
    let changes: Changes = match request.argument("properties-to-modify") {
        Some(changes) => value::properties(changes).into_iter().collect(),
        None => BTreeMap::new(),
    };
    let text = |name| {
        let text = request.argument(name).and_then(value::text)?;
        Some(text.to_owned())
    };
    let settlement = match status {
        "completed" => Settlement::Complete,
        "abandoned" => Settlement::Abandon { changes },
        "defered" => Settlement::Defer { changes },
        "suspended" => Settlement::DeadLetter {
            reason: text("deadletter-reason"),
            description: text("deadletter-description"),
            changes,
        },
        other => return Err(argument(format!("`disposition-status` is `{other}`"))),
    };
    Ok((tokens, settlement))
}

pub(crate) async fn renew(
    bus: &ServiceBus,
    entity: &EntityPath,
    request: &Request,
) -> Result<Response, Refusal> {
    let tokens = required_list(request, "lock-tokens", value::token)?;
    let mut until: Vec<Timestamp> = Vec::new();
    for token in tokens {
        until.push(bus.renew_lock(entity, token).await?);
    }
    let expirations = until.into_iter().map(value::timestamp).collect();
    let expirations = Amqp::Array(Array(expirations));
    Ok(Response::ok(value::map([("expirations", expirations)])))
}
