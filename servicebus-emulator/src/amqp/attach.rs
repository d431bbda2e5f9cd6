//! What a link is attached to, and whether it may be.
//!
//! Asked for every attach. A refusal is answered with an attach that has no source or target, and a detach that says why:
//! so the specification wants it, and the SDKs raise the error of the detach.

use std::{sync::Arc, time::Duration};

use fe2o3_amqp_types::{
    definitions::{Fields, Role, SenderSettleMode},
    messaging::{Source as AmqpSource, TargetArchetype},
    performatives::Attach,
};
use futures_util::{FutureExt, future::BoxFuture};
use jiff::Timestamp;
use serde_amqp::{Value as Amqp, primitives::Symbol};

use super::{
    address::{self, Address, Node},
    coordinator,
    errors::{INVALID_FIELD, NOT_FOUND, NOT_IMPLEMENTED, Refusal, TIMEOUT, UNAUTHORIZED},
    incoming_link::Target,
    outgoing_link::Source,
    value,
    work::Context,
};
use crate::{EntityPath, ReceiveMode, ServiceBus};

pub(crate) const SESSION_FILTER: &str = "com.microsoft:session-filter";
pub(crate) const LOCKED_UNTIL: &str = "com.microsoft:locked-until-utc";
const TIMEOUT_PROPERTY: &str = "com.microsoft:timeout";
const TRANSFER_DESTINATION: &str = "com.microsoft:transfer-destination-address";

/// How long a receiver waits for the next session that does not say so.
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(60);
/// How long one waits at most, whatever it says.
const LONGEST_TIMEOUT: Duration = Duration::from_secs(300);

/// What a link is attached to: as the client's end is that of a sender or a receiver.
pub(crate) enum Admitted {
    Incoming(Target),
    Outgoing(Source),
}

pub(crate) type Admission = BoxFuture<'static, Result<Admitted, Refusal>>;

/// Who is admitted or not when the future is ready.
pub(crate) fn admission(attach: &Attach, context: &Context) -> Result<Admission, Refusal> {
    let bus = context.shared.bus.clone();
    match attach.role {
        Role::Sender => {
            let target = attach.target.as_deref().ok_or_else(|| missing("target"))?;
            incoming(target, attach.properties.as_ref(), context, bus)
        }
        Role::Receiver => {
            let source = attach.source.as_deref().ok_or_else(|| missing("source"))?;
            outgoing(source, attach, context, bus)
        }
    }
}

fn incoming(
    target: &TargetArchetype,
    properties: Option<&Fields>,
    context: &Context,
    bus: ServiceBus,
) -> Result<Admission, Refusal> {
    let target = match target {
        TargetArchetype::Target(target) => target,
        // The .NET client opens it before it puts its first token. All that is done in a transaction comes over links
        // that need one.
        TargetArchetype::Coordinator(_) => {
            return Ok(now(Admitted::Incoming(Target::Coordinator)));
        }
    };
    if property(properties, TRANSFER_DESTINATION).is_some() {
        return Err(coordinator::no_transfers());
    }
    let address = admitted(target.address.as_deref(), context)?;
    Ok(match address.node {
        Node::Entity(to) => async move {
            bus.check_sender(&to).await?;
            Ok(Admitted::Incoming(Target::Entity(Arc::new(to))))
        }
        .boxed(),
        node => requests(node, bus, |node| Admitted::Incoming(Target::Requests(node))),
    })
}

fn outgoing(
    source: &AmqpSource,
    attach: &Attach,
    context: &Context,
    bus: ServiceBus,
) -> Result<Admission, Refusal> {
    let address = admitted(source.address.as_deref(), context)?;
    let from = match address.node {
        Node::Entity(from) => from,
        node => {
            let reply_to = reply_to(attach);
            return Ok(requests(node, bus, move |node| {
                Admitted::Outgoing(Source::Answers { node, reply_to })
            }));
        }
    };
    let mode = match attach.snd_settle_mode {
        SenderSettleMode::Settled => ReceiveMode::ReceiveAndDelete,
        SenderSettleMode::Unsettled | SenderSettleMode::Mixed => ReceiveMode::PeekLock,
    };
    let filter = source.filter.as_ref();
    let Some(filter) = filter.and_then(|filters| filters.get(&Symbol::from(SESSION_FILTER))) else {
        return Ok(async move {
            bus.check_receiver(&from).await?;
            Ok(Admitted::Outgoing(Source::Entity {
                from: Arc::new(from),
                mode,
                session: None,
            }))
        }
        .boxed());
    };
    let session_id = session_id(filter)?;
    let wait = property(attach.properties.as_ref(), TIMEOUT_PROPERTY)
        .and_then(value::milliseconds)
        .unwrap_or(DEFAULT_TIMEOUT)
        .min(LONGEST_TIMEOUT);
    Ok(in_session(bus, from, mode, session_id, wait).boxed())
}

async fn in_session(
    bus: ServiceBus,
    from: EntityPath,
    mode: ReceiveMode,
    session_id: Option<String>,
    wait: Duration,
) -> Result<Admitted, Refusal> {
    let accepted = bus
        .accept_session(&from, session_id.as_deref(), wait)
        .await?;
    let session = accepted.ok_or_else(|| {
        Refusal::new(
            TIMEOUT,
            format!("`{from}` had no session with messages that is free within {wait:?}"),
        )
    })?;
    Ok(Admitted::Outgoing(Source::Entity {
        from: Arc::new(from),
        mode,
        session: Some(session),
    }))
}

/// A node that takes requests, or gives the answers to them.
fn requests(
    node: Node,
    bus: ServiceBus,
    admitted: impl FnOnce(Node) -> Admitted + Send + 'static,
) -> Admission {
    match &node {
        Node::Management(Some(entity)) => {
            let entity = entity.clone();
            async move {
                bus.check_entity(&entity).await?;
                Ok(admitted(node))
            }
            .boxed()
        }
        _ => now(admitted(node)),
    }
}

fn now(admitted: Admitted) -> Admission {
    std::future::ready(Ok(admitted)).boxed()
}

/// The node at that address, if the client may use it.
fn admitted(address: Option<&str>, context: &Context) -> Result<Address, Refusal> {
    let written = address.ok_or_else(|| {
        Refusal::new(
            NOT_IMPLEMENTED,
            "a link without an address is not supported",
        )
    })?;
    let address = address::parse(written).ok_or_else(|| {
        Refusal::new(
            NOT_FOUND,
            format!("the messaging entity `{written}` could not be found"),
        )
    })?;
    let now = Timestamp::now();
    let allowed = match &address.node {
        Node::Cbs => true,
        Node::Management(None) => context.authorization.is_any(now),
        Node::Management(Some(_)) | Node::Entity(_) => {
            context.authorization.covers(&address.path, now)
        }
    };
    if allowed {
        Ok(address)
    } else {
        Err(unauthorized(written))
    }
}

/// Under which address the client looks for answers: that of its target, or where it gives none, as the JavaScript client
/// does for `$cbs`, the name of the link.
fn reply_to(attach: &Attach) -> String {
    match attach.target.as_deref() {
        Some(TargetArchetype::Target(target)) => target.address.clone(),
        _ => None,
    }
    .unwrap_or_else(|| attach.name.clone())
}

/// The session that a filter names, plain or described; nothing is the next one.
fn session_id(filter: &Amqp) -> Result<Option<String>, Refusal> {
    match filter {
        Amqp::Null => Ok(None),
        Amqp::Described(described) => session_id(&described.value),
        filter => match value::text(filter) {
            Some(id) => Ok(Some(id.to_owned())),
            None => Err(Refusal::new(
                INVALID_FIELD,
                format!("{SESSION_FILTER} is neither a string nor null"),
            )),
        },
    }
}

fn property<'a>(properties: Option<&'a Fields>, name: &str) -> Option<&'a Amqp> {
    properties?.get(&Symbol::from(name))
}

fn missing(what: &str) -> Refusal {
    Refusal::new(INVALID_FIELD, format!("the attach has no {what}"))
}

fn unauthorized(what: &str) -> Refusal {
    Refusal::new(
        UNAUTHORIZED,
        format!("Unauthorized access: put a token to $cbs that covers `{what}`"),
    )
}
