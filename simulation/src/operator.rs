//! Operators who re-send dead letters, each with a tool of their own.

use std::rc::Rc;

use orderup::{
    dead_letter::DeadLetter,
    dead_letter_copy::copy,
    properties::{AUDIENCE, VENDOR},
    redelivery::Audience,
};
use serde_json::json;
use servicebus_emulator::{EntityPath, Message, MessageState, ReceivedMessage, Value};

use crate::{
    bus::{self, AUDIENCES, Bus},
    ledger::Notification,
    scenario::VENDORS,
    world::World,
};

/// How a tool re-sends. All but one remove the original afterwards.
#[derive(Debug, Clone, Copy)]
enum Tool {
    /// The portal: a copy to the same entity, everything kept. For a subscription, that is its topic.
    Portal,
    /// Without Service Bus's own properties, and with a new id.
    Stripping,
    /// Every property as text, and with a new id.
    Typing,
    /// Only whom it is for, and with a new id.
    Bare,
    /// Our own command.
    Ours,
    /// Our own command, killed before it has removed the original.
    OursKilled,
}

const TOOLS: [Tool; 6] = [
    Tool::Portal,
    Tool::Stripping,
    Tool::Typing,
    Tool::Bare,
    Tool::Ours,
    Tool::OursKilled,
];

/// Re-sends some of the dead letters.
pub fn replay(world: &Rc<World>) {
    for audience in AUDIENCES {
        for dead in dead_letters(world, audience) {
            if world.chance() < 0.5 {
                let tool = TOOLS[world.random(|rng| rng.usize(0..TOOLS.len()))];
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
    let body = dead.message.body.bytes();
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
        Audience::Till | Audience::Book => Vec::new(),
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
    // The original may have been re-sent before, or be on its way already.
    for notification in notifications(audience, dead) {
        ledger.excuse(&notification);
        ledger.split(&notification);
    }
    drop(ledger);
    let entity = Bus::entity(audience);
    let mut message = Message {
        scheduled_enqueue_time: None,
        time_to_live: None,
        ..dead.message.clone()
    };
    let new_id = world.random(|rng| format!("tool-{:032x}", rng.u128(..)));
    let mut keep = |names: &[&str]| {
        message
            .properties
            .retain(|name, _| names.contains(&name.as_str()))
    };
    match tool {
        Tool::Portal if audience == Audience::Customers => {
            let mut bus = world.bus.borrow_mut();
            let now = world.clock.timestamp();
            let sent = bus.namespace.send(now, &entity, message);
            sent.expect("the queue takes it");
            bus.changed.notify_waiters();
            drop(bus);
            remove(world, &entity.dead_letter(), dead.sequence_number);
            return;
        }
        // The topic would drop an id that it has just seen, as the runbook says.
        Tool::Portal => message.message_id = Some(new_id),
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
        Tool::Bare => {
            keep(&[AUDIENCE, VENDOR]);
            message.message_id = Some(new_id);
        }
        Tool::Ours | Tool::OursKilled => {
            let copy = copy(&as_received_over_rest(audience, dead), entity.entity());
            message = bus::message(&copy.expect("it can be sent"), world.clock);
        }
    }
    bus::send(world, message);
    if !matches!(tool, Tool::OursKilled) {
        remove(world, &entity.dead_letter(), dead.sequence_number);
    }
}

fn as_received_over_rest(audience: Audience, dead: &ReceivedMessage) -> DeadLetter {
    let message = &dead.message;
    let broker_properties = json!({
        "MessageId": message.message_id, "SequenceNumber": dead.sequence_number,
        "Label": message.label, "CorrelationId": message.correlation_id,
    });
    let serde_json::Value::Object(broker_properties) = broker_properties else {
        unreachable!("it is an object");
    };
    let properties = message.properties.iter();
    DeadLetter {
        audience,
        sequence_number: dead.sequence_number,
        broker_properties,
        content_type: message.content_type.clone(),
        properties: properties
            .map(|(name, value)| (name.to_ascii_lowercase(), bus::json_of(value)))
            .collect(),
        body: Some(message.body.bytes().to_vec()),
    }
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
