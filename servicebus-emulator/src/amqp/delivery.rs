//! What is done with a delivery of the client: sent to the bus, answered, or made part of a transaction.

use std::{sync::Arc, time::Instant};

use fe2o3_amqp_types::{
    messaging::{Accepted, DeliveryState},
    transaction::{Declared, TransactionalState},
};
use jiff::Timestamp;

use super::{
    address::Node,
    cbs,
    coordinator::{self, not_transactional},
    errors::{ARGUMENT_ERROR, DECODE_ERROR, MESSAGE_SIZE_EXCEEDED, NOT_IMPLEMENTED, Refusal},
    incoming_link::{Delivery, Target},
    management,
    management_message::Request,
    message_decoding::{BATCH_FORMAT, decode_batch, decode_message},
    settlement::{accepted, rejected},
    work::{Context, Done, LinkId},
};
use crate::{EntityPath, Message, Operation};

/// What a request weighs: the bus gives no more for one than that, in bytes.
const LARGEST_ANSWER: usize = 1 << 20;

/// Deals with a complete delivery; what has come of it follows as [`Done::Delivery`].
pub(crate) fn dispatch(link: LinkId, target: &Target, delivery: Delivery, context: &mut Context) {
    let done = if delivery.is_too_large {
        let limit = context.shared.bus.max_message_size();
        Err(Refusal::new(
            MESSAGE_SIZE_EXCEEDED,
            format!(
                "The received message (delivery-id:{}) exceeds the limit ({limit} bytes) currently allowed on the link.",
                delivery.id
            ),
        ))
    } else {
        match target {
            Target::Entity(to) => return send(link, to, delivery, context),
            Target::Requests(node) => request(link, node, &delivery, context),
            Target::Coordinator => return coordinate(link, &delivery, context),
        }
    };
    let transaction = match &delivery.state {
        Some(DeliveryState::TransactionalState(state)) => Some(state.txn_id.clone()),
        _ => None,
    };
    let state = match (done, transaction) {
        (Ok(()), None) => accepted(),
        (Ok(()), Some(txn_id)) => DeliveryState::TransactionalState(TransactionalState {
            txn_id,
            outcome: Some(Accepted {}.into()),
        }),
        (Err(refusal), transaction) => {
            // What is refused keeps the rest of its transaction from being committed.
            if let Some(txn_id) = transaction {
                let spoilt = Err(refusal.clone());
                // That it is spoilt is what is answered.
                let _ = context.transactions.enlist(&txn_id, spoilt, Instant::now());
            }
            rejected(refusal)
        }
    };
    finish(link, &delivery, state, context);
}

/// What has come of a delivery is known at once.
fn finish(link: LinkId, delivery: &Delivery, state: DeliveryState, context: &mut Context) {
    let done = Done::Delivery(link, delivery.id, (!delivery.settled).then_some(state));
    context.work.push(std::future::ready(done));
}

fn send(link: LinkId, to: &Arc<EntityPath>, delivery: Delivery, context: &mut Context) {
    let messages = messages(&delivery);
    if let Some(DeliveryState::TransactionalState(state)) = &delivery.state {
        let operation = messages.map(|messages| Operation::Send {
            to: (**to).clone(),
            messages,
        });
        let enlisted = context
            .transactions
            .enlist(&state.txn_id, operation, Instant::now());
        let state = match enlisted {
            Ok(()) => DeliveryState::TransactionalState(TransactionalState {
                txn_id: state.txn_id.clone(),
                outcome: Some(Accepted {}.into()),
            }),
            Err(refusal) => rejected(refusal),
        };
        return finish(link, &delivery, state, context);
    }
    match messages {
        Err(refusal) => finish(link, &delivery, rejected(refusal), context),
        Ok(messages) => {
            let bus = context.shared.bus.clone();
            let (id, settled) = (delivery.id, delivery.settled);
            let weight = delivery.payload.len();
            drop(delivery);
            // On its way now: in the order in which it came, and whatever becomes of the connection.
            let sent = bus.send(to, messages);
            context.work.push_weighing(weight, async move {
                let state = match sent.await {
                    Ok(()) => accepted(),
                    Err(error) => rejected(error.into()),
                };
                Done::Delivery(link, id, (!settled).then_some(state))
            });
        }
    }
}

fn messages(delivery: &Delivery) -> Result<Vec<Message>, Refusal> {
    let messages = match delivery.format {
        0 => decode_message(&delivery.payload).map(|message| vec![message]),
        BATCH_FORMAT => decode_batch(&delivery.payload),
        format => {
            return Err(Refusal::new(
                NOT_IMPLEMENTED,
                format!("the message format 0x{format:08x} is not supported"),
            ));
        }
    };
    messages.map_err(|error| Refusal::new(ARGUMENT_ERROR, error.to_string()))
}

/// Has a request answered. It is accepted as soon as it is understood; the answer says the rest.
fn request(
    link: LinkId,
    node: &Node,
    delivery: &Delivery,
    context: &mut Context,
) -> Result<(), Refusal> {
    let request = Request::decode(&delivery.payload)
        .map_err(|error| Refusal::new(DECODE_ERROR, error.to_string()))?;
    let node = node.clone();
    if let Some(DeliveryState::TransactionalState(state)) = &delivery.state {
        let Node::Management(Some(entity)) = &node else {
            return Err(not_transactional());
        };
        let now = Instant::now();
        for operation in management::operations(entity, &request)? {
            context
                .transactions
                .enlist(&state.txn_id, Ok(operation), now)?;
        }
        let payload = management::done().encode(&request);
        context.work.push(std::future::ready(Done::Answer {
            request: link,
            node,
            reply_to: request.reply_to,
            payload,
        }));
        return Ok(());
    }
    match &node {
        Node::Cbs => {
            let shared = Arc::clone(&context.shared);
            let authorization = &mut context.authorization;
            let response = cbs::answer(&request, authorization, &shared.policy, Timestamp::now());
            let payload = response.encode(&request);
            context.work.push(std::future::ready(Done::Answer {
                request: link,
                node,
                reply_to: request.reply_to,
                payload,
            }));
        }
        Node::Management(entity) => {
            let (bus, entity) = (context.shared.bus.clone(), entity.clone());
            context.work.push_weighing(LARGEST_ANSWER, async move {
                let response = management::answer(&bus, entity.as_ref(), &request).await;
                let payload = response.encode(&request);
                Done::Answer {
                    request: link,
                    node,
                    reply_to: request.reply_to,
                    payload,
                }
            });
        }
        Node::Entity(_) => {}
    }
    Ok(())
}

fn coordinate(link: LinkId, delivery: &Delivery, context: &mut Context) {
    let now = Instant::now();
    let request = match coordinator::Request::decode(&delivery.payload) {
        Ok(request) => request,
        Err(error) => {
            let refusal = Refusal::new(DECODE_ERROR, error.to_string());
            return finish(link, delivery, rejected(refusal), context);
        }
    };
    match request {
        coordinator::Request::Declare => {
            let state = match context.transactions.declare(link, now) {
                Ok(id) => DeliveryState::Declared(Declared { txn_id: id.into() }),
                Err(refusal) => rejected(refusal),
            };
            finish(link, delivery, state, context);
        }
        coordinator::Request::Discharge { id, fail } => {
            match context.transactions.discharge(&id, fail, now) {
                Err(refusal) => finish(link, delivery, rejected(refusal), context),
                Ok(operations) if operations.is_empty() => {
                    finish(link, delivery, accepted(), context);
                }
                Ok(operations) => {
                    let bus = context.shared.bus.clone();
                    let (id, settled) = (delivery.id, delivery.settled);
                    let carried_out = bus.transact(operations);
                    context.work.push(async move {
                        let state = match carried_out.await {
                            Ok(()) => accepted(),
                            Err(error) => rejected(error.into()),
                        };
                        Done::Delivery(link, id, (!settled).then_some(state))
                    });
                }
            }
        }
    }
}
