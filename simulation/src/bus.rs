//! The bus's core in virtual time, with the outages of its REST data plane.

use std::rc::Rc;

use base64::{Engine, engine::general_purpose::STANDARD};
use fastrand::Rng;
use orderup::{
    orders_topic::{Outgoing, PropertyValue, PublishError},
    redelivery::Audience,
};
use servicebus_emulator::{EntityPath, Message, Namespace, ReceivedMessage, Topology, Value};
use tokio::{sync::Notify, time::timeout_at};
use uuid::Uuid;

use crate::{
    clock::{Clock, timestamp},
    world::World,
};

/// Who is told of what happened. Till and order book keep what they know in the book, of which there is none here.
pub const AUDIENCES: [Audience; 2] = [Audience::Customers, Audience::Vendors];

pub struct Bus {
    pub namespace: Namespace,
    pub topic: EntityPath,
    /// Something may be ready that was not.
    pub changed: Rc<Notify>,
}

impl Bus {
    /// The topology that the product ships, without the subscriptions of which nobody is told.
    pub fn new(rng: &mut Rng) -> Self {
        let mut topology: serde_json::Value =
            serde_json::from_str(include_str!("../../servicebus.json")).expect("it is JSON");
        topology
            .pointer_mut("/UserConfig/Namespaces/0/Topics/0/Subscriptions")
            .and_then(serde_json::Value::as_array_mut)
            .expect("the topic has subscriptions")
            .retain(|subscription| {
                AUDIENCES
                    .map(Audience::name)
                    .iter()
                    .any(|name| subscription["Name"] == *name)
            });
        let topology = Topology::parse(&topology.to_string(), "servicebus.json")
            .expect("it is checked elsewhere");
        let mut ids = rng.fork();
        let namespace = Namespace::new(&topology, move || Uuid::from_u128(ids.u128(..)))
            .expect("it is checked elsewhere");
        Self {
            namespace,
            topic: path("orders"),
            changed: Rc::default(),
        }
    }

    pub fn entity(audience: Audience) -> EntityPath {
        match audience {
            Audience::Customers => path("notifications"),
            Audience::Vendors | Audience::Till | Audience::Book => {
                path(&format!("orders/Subscriptions/{}", audience.name()))
            }
        }
    }
}

pub fn path(text: &str) -> EntityPath {
    text.parse().expect("the path of an entity")
}

/// Lets time pass on the bus, for ever.
pub async fn run(world: Rc<World>) {
    let changed = Rc::clone(&world.bus.borrow().changed);
    loop {
        let next = {
            let mut bus = world.bus.borrow_mut();
            bus.namespace.advance(world.clock.timestamp());
            bus.namespace.next_due()
        };
        let notified = changed.notified();
        match next {
            Some(due) => {
                if timeout_at(world.clock.instant(due), notified)
                    .await
                    .is_err()
                {
                    let now = world.clock.timestamp().max(due);
                    world.bus.borrow_mut().namespace.advance(now);
                    changed.notify_waiters();
                }
            }
            None => notified.await,
        }
    }
}

/// One send over REST. It may be taken and not answered.
pub async fn publish(world: &World, copy: &Outgoing) -> Result<(), PublishError> {
    world.pause(2, 20).await;
    if world.bus_is_down() {
        return Err(PublishError::Busy {
            status: 503,
            detail: "simulated".to_owned(),
            retry_after: None,
        });
    }
    send(world, message(copy, world.clock));
    world.pause(2, 20).await;
    if world.chance() < world.scenario.lost_answers {
        return Err(PublishError::Unanswered {
            reason: "simulated".to_owned(),
        });
    }
    Ok(())
}

/// The moment in which the topic has the message.
pub fn send(world: &World, message: Message) {
    let mut bus = world.bus.borrow_mut();
    let topic = bus.topic.clone();
    bus.namespace
        .send(world.clock.timestamp(), &topic, message)
        .expect("the topic takes it");
    bus.changed.notify_waiters();
}

/// As the REST data plane would read it.
pub fn message(copy: &Outgoing, clock: Clock) -> Message {
    let due = copy.scheduled_enqueue_time.map(|due| {
        // Dates in headers have whole seconds; the handler rounds up.
        let due = timestamp(due);
        let second = due.as_second() + i64::from(due.subsec_nanosecond() > 0);
        jiff::Timestamp::from_second(second).expect("a time of our century")
    });
    Message {
        body: copy.body.clone().into(),
        content_type: Some(copy.content_type.to_string()),
        message_id: Some(copy.message_id.clone()),
        correlation_id: Some(copy.correlation_id.clone()),
        label: Some(copy.label.clone()),
        scheduled_enqueue_time: due.filter(|due| *due > clock.timestamp()),
        properties: copy
            .properties
            .iter()
            .map(|(name, value)| {
                let value = match value {
                    PropertyValue::Text(text) => Value::String(text.clone()),
                    PropertyValue::Integer(integer) => Value::Long(*integer),
                };
                (name.clone(), value)
            })
            .collect(),
        ..Message::default()
    }
}

/// What the host posts to a function.
pub fn envelope(received: &ReceivedMessage) -> Vec<u8> {
    let message = &received.message;
    let properties: serde_json::Map<String, serde_json::Value> = message
        .properties
        .iter()
        .map(|(name, value)| (name.clone(), json_of(value)))
        .collect();
    // The host's times have whole seconds.
    let enqueued = received.enqueued_time.strftime("%Y-%m-%dT%H:%M:%S+00:00");
    serde_json::json!({
        "Data": { "message": STANDARD.encode(message.body.bytes()) },
        "Metadata": {
            "MessageId": message.message_id,
            "SequenceNumber": received.sequence_number.to_string(),
            "DeliveryCount": received.delivery_count.to_string(),
            "EnqueuedTime": enqueued.to_string(),
            "ApplicationProperties": properties,
        }
    })
    .to_string()
    .into_bytes()
}

pub fn json_of(value: &Value) -> serde_json::Value {
    match value {
        Value::String(text) => text.as_str().into(),
        Value::Bool(flag) => (*flag).into(),
        Value::Long(number) => (*number).into(),
        Value::Double(number) => (*number).into(),
        Value::Timestamp(time) => time.to_string().into(),
        other => unreachable!("nobody sends {other:?} over REST"),
    }
}

/// A property of a message of ours.
pub fn text_property<'a>(copy: &'a Outgoing, wanted: &str) -> Option<&'a str> {
    copy.properties
        .iter()
        .find_map(|(name, value)| match value {
            PropertyValue::Text(text) if name == wanted => Some(text.as_str()),
            PropertyValue::Text(_) | PropertyValue::Integer(_) => None,
        })
}
