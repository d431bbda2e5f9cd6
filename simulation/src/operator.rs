//! Operators who re-send dead letters, each with a tool of their own.

use std::rc::Rc;

use orderup::{
    properties::{AUDIENCE, GENERATION, UNCONFIRMED_SINCE, VENDOR},
    redelivery::Audience,
};
use servicebus_emulator::{EntityPath, Message, MessageState, ReceivedMessage, Value};

use crate::{
    bus::{self, Bus},
    ledger::Notification,
    scenario::VENDORS,
    world::World,
};

/// How a tool re-sends.
#[derive(Debug, Clone, Copy)]
enum Tool {
    /// The portal: a copy to the same entity, everything kept. For a subscription, that is its topic.
    Portal,
    /// Without Service Bus's own properties, and with a new id.
    Stripping,
    /// Every property as text, and with a new id.
    Typing,
    /// Our own command: what it keeps, and the dead letter is removed.
    Ours,
}

/// Re-sends some of the dead letters.
pub fn replay(world: &Rc<World>) {
    for audience in [Audience::Customers, Audience::Vendors] {
        for dead in dead_letters(world, audience) {
            if world.chance() < 0.5 {
                let tools = [Tool::Portal, Tool::Stripping, Tool::Typing, Tool::Ours];
                let tool = tools[world.random(|rng| rng.usize(0..tools.len()))];
                resend(world, audience, &dead, tool);
            }
        }
    }
}

pub fn dead_letters(world: &World, audience: Audience) -> Vec<ReceivedMessage> {
    let queue = Bus::entity(audience).dead_letter();
    let bus = world.bus.borrow();
    bus.namespace
        .browse(&queue, MessageState::Active)
        .expect("the queue exists")
}

/// Whom a dead letter is for.
pub fn notifications(audience: Audience, dead: &ReceivedMessage) -> Vec<Notification> {
    let body = &dead.message.body;
    let event = orderup::event::Event::from_json(body).expect("an event of ours");
    let only = match dead.message.properties.get(VENDOR) {
        Some(Value::String(vendor)) => Some(vendor.as_str()),
        _ => None,
    };
    let recipients: Vec<&str> = match audience {
        Audience::Customers => vec!["customer"],
        Audience::Vendors => VENDORS
            .into_iter()
            .filter(|vendor| only.is_none_or(|only| only == *vendor))
            .filter(|vendor| {
                event
                    .order
                    .line_items
                    .iter()
                    .any(|line| line.vendor_id == **vendor)
            })
            .collect(),
    };
    recipients
        .into_iter()
        .map(|recipient| Notification {
            event_id: event.id(),
            recipient: recipient.to_owned(),
        })
        .collect()
}

fn resend(world: &Rc<World>, audience: Audience, dead: &ReceivedMessage, tool: Tool) {
    let mut ledger = world.ledger.borrow_mut();
    ledger.totals.replays += 1;
    // The original may be re-sent again, or be on its way already.
    for notification in notifications(audience, dead) {
        ledger.excuse(&notification);
    }
    drop(ledger);
    let mut message = Message {
        scheduled_enqueue_time: None,
        time_to_live: None,
        ..dead.message.clone()
    };
    let new_id = world.random(|rng| format!("tool-{:032x}", rng.u128(..)));
    match tool {
        Tool::Portal if audience == Audience::Customers => {
            let queue = Bus::entity(audience);
            let mut bus = world.bus.borrow_mut();
            let now = world.clock.timestamp();
            bus.namespace
                .send(now, &queue, message)
                .expect("the queue takes it");
            bus.changed.notify_waiters();
            return;
        }
        Tool::Portal => {}
        Tool::Stripping => {
            message.message_id = Some(new_id);
            message
                .properties
                .retain(|name, _| name.chars().all(|c| !c.is_ascii_uppercase()));
        }
        Tool::Typing => {
            message.message_id = Some(new_id);
            for value in message.properties.values_mut() {
                if let Value::Long(number) = value {
                    *value = Value::String(number.to_string());
                }
            }
        }
        Tool::Ours => {
            message.message_id = Some(new_id);
            message.properties.retain(|name, _| {
                [AUDIENCE, VENDOR, GENERATION, UNCONFIRMED_SINCE].contains(&name.as_str())
            });
            remove(
                world,
                &Bus::entity(audience).dead_letter(),
                dead.sequence_number,
            );
        }
    }
    bus::send(world, message);
}

/// Completes the dead letter, and gives the others back.
fn remove(world: &World, queue: &EntityPath, sequence_number: i64) {
    let now = world.clock.timestamp();
    let mut bus = world.bus.borrow_mut();
    let mut others = Vec::new();
    while let Some(received) = bus.namespace.receive(now, queue).expect("the queue exists") {
        let lock_token = received.lock_token.expect("it is locked");
        if received.sequence_number == sequence_number {
            bus.namespace
                .complete(now, queue, lock_token)
                .expect("it is ours");
            break;
        }
        others.push(lock_token);
    }
    for lock_token in others {
        bus.namespace
            .abandon(now, queue, lock_token)
            .expect("it is ours");
    }
}
