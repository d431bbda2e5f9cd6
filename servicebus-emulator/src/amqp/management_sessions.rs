//! Requests about sessions: renew the lock of one, its state, and which there are.

use bytes::Bytes;
use serde_amqp::{Value as Amqp, primitives::Array};

use super::{
    errors::Refusal,
    management::{count, done, no_content, required},
    management_message::{Request, Response},
    value,
};
use crate::{EntityPath, ServiceBus};

pub(crate) async fn renew(
    bus: &ServiceBus,
    entity: &EntityPath,
    request: &Request,
) -> Result<Response, Refusal> {
    let session = required(request, "session-id", value::text)?;
    let until = bus.renew_session_lock(entity, session).await?;
    let body = value::map([("expiration", value::timestamp(until))]);
    Ok(Response::ok(body))
}

pub(crate) async fn state(
    bus: &ServiceBus,
    entity: &EntityPath,
    request: &Request,
) -> Result<Response, Refusal> {
    let session = required(request, "session-id", value::text)?;
    let state = bus.session_state(entity, session).await?;
    let state = state.map_or(Amqp::Null, |state| value::binary(&state));
    Ok(Response::ok(value::map([("session-state", state)])))
}

pub(crate) async fn set_state(
    bus: &ServiceBus,
    entity: &EntityPath,
    request: &Request,
) -> Result<Response, Refusal> {
    let session = required(request, "session-id", value::text)?;
    // None, or null: the state is removed.
    let state = match request.argument("session-state") {
        None => None,
        Some(_) => Some(required(request, "session-state", value::bytes)?),
    };
    let state = state.map(Bytes::copy_from_slice);
    bus.set_session_state(entity, session, state).await?;
    Ok(done())
}

pub(crate) async fn list(
    bus: &ServiceBus,
    entity: &EntityPath,
    request: &Request,
) -> Result<Response, Refusal> {
    // A time beyond the calendar (DateTime.MaxValue) asks for those with messages only.
    let since = request.argument("last-updated-time").and_then(value::time);
    let skip = count(request, "skip")?;
    let most = count(request, "top")?;
    let sessions = bus.sessions(entity, since, skip, most).await?;
    if sessions.is_empty() {
        return Ok(no_content());
    }
    let next = i32::try_from(skip + sessions.len()).unwrap_or(i32::MAX);
    let sessions = sessions.into_iter().map(Amqp::String).collect();
    Ok(Response::ok(value::map([
        ("skip", Amqp::Int(next)),
        ("sessions-ids", Amqp::Array(Array(sessions))),
    ])))
}
