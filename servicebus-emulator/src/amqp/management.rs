//! `$management`: what a client asks for, rather than sends or receives.
//!
//! Every entity has such a node. A request names its operation; what is not known is refused and never answered as if it had
//! been done. Facts: <https://learn.microsoft.com/azure/service-bus-messaging/service-bus-amqp-request-response>.

use serde_amqp::Value as Amqp;

use super::{
    coordinator::not_transactional,
    errors::{ARGUMENT_ERROR, NOT_IMPLEMENTED, Refusal},
    management_message::{Request, Response},
    management_messages, management_rules, management_sessions, value,
};
use crate::{EntityPath, Operation, ServiceBus};

const UPDATE_DISPOSITION: &str = "com.microsoft:update-disposition";

/// The answer to a request; without an entity it is to the namespace.
pub(crate) async fn answer(
    bus: &ServiceBus,
    entity: Option<&EntityPath>,
    request: &Request,
) -> Response {
    let Some(entity) = entity else {
        return unknown(request).into();
    };
    let answer = match request.operation.as_str() {
        "com.microsoft:peek-message" => management_messages::peek(bus, entity, request).await,
        "com.microsoft:schedule-message" => {
            management_messages::schedule(bus, entity, request).await
        }
        "com.microsoft:cancel-scheduled-message" => {
            management_messages::cancel(bus, entity, request).await
        }
        "com.microsoft:receive-by-sequence-number" => {
            management_messages::receive(bus, entity, request).await
        }
        UPDATE_DISPOSITION => management_messages::settle(bus, entity, request).await,
        "com.microsoft:renew-lock" => management_messages::renew(bus, entity, request).await,
        "com.microsoft:renew-session-lock" => {
            management_sessions::renew(bus, entity, request).await
        }
        "com.microsoft:get-session-state" => management_sessions::state(bus, entity, request).await,
        "com.microsoft:set-session-state" => {
            management_sessions::set_state(bus, entity, request).await
        }
        "com.microsoft:get-message-sessions" => {
            management_sessions::list(bus, entity, request).await
        }
        "com.microsoft:add-rule" => management_rules::add(bus, entity, request).await,
        "com.microsoft:remove-rule" => management_rules::remove(bus, entity, request).await,
        "com.microsoft:enumerate-rules" => management_rules::list(bus, entity, request).await,
        _ => Err(unknown(request)),
    };
    answer.unwrap_or_else(Into::into)
}

/// What a request in a transaction asks for: settling is all that can be part of one.
pub(crate) fn operations(
    entity: &EntityPath,
    request: &Request,
) -> Result<Vec<Operation>, Refusal> {
    if request.operation != UPDATE_DISPOSITION {
        return Err(not_transactional());
    }
    let (tokens, settlement) = management_messages::settlement(request)?;
    let settle = |lock_token| Operation::Settle {
        from: entity.clone(),
        lock_token,
        settlement: settlement.clone(),
    };
    Ok(tokens.into_iter().map(settle).collect())
}

fn unknown(request: &Request) -> Refusal {
    let operation = &request.operation;
    Refusal::new(
        NOT_IMPLEMENTED,
        format!("the operation `{operation}` is not supported here"),
    )
}

/// There is nothing to answer with.
pub(crate) fn no_content() -> Response {
    Response {
        status: 204,
        description: "No Content".to_owned(),
        condition: None,
        body: Amqp::Null,
    }
}

/// Done, and nothing more to say.
pub(crate) fn done() -> Response {
    Response::ok(Amqp::Map(Default::default()))
}

/// An entry of the request's body that has to be there, as what it has to be.
pub(crate) fn required<'a, T>(
    request: &'a Request,
    name: &str,
    read: impl FnOnce(&'a Amqp) -> Option<T>,
) -> Result<T, Refusal> {
    request
        .argument(name)
        .and_then(read)
        .ok_or_else(|| argument(format!("`{name}` is missing or has the wrong type")))
}

/// The elements of a list that has to be there.
pub(crate) fn required_list<T>(
    request: &Request,
    name: &str,
    read: impl Fn(&Amqp) -> Option<T>,
) -> Result<Vec<T>, Refusal> {
    required(request, name, |list| {
        value::elements(list)?.iter().map(read).collect()
    })
}

/// A count that has to be there.
pub(crate) fn count(request: &Request, name: &str) -> Result<usize, Refusal> {
    required(request, name, |number| {
        usize::try_from(value::long(number)?).ok()
    })
}

pub(crate) fn argument(reason: impl Into<String>) -> Refusal {
    Refusal::new(ARGUMENT_ERROR, reason)
}
