//! Entities, messages and times for the tests of this crate.

use std::time::Duration;

use jiff::Timestamp;
use uuid::Uuid;

use crate::{
    EntityPath, Message, Topology,
    attributes::Attributes,
    broker::Ids,
    rule::Rule,
    topology::{Queue, Subscription, Topic},
};

/// Locks last 30 s, 10 deliveries, no time to live, no duplicate detection, no forwarding.
pub(crate) fn queue(name: &str) -> Queue {
    Queue {
        name: name.to_owned(),
        lock_duration: Duration::from_secs(30),
        max_delivery_count: 10,
        default_message_time_to_live: None,
        dead_lettering_on_message_expiration: false,
        duplicate_detection: None,
        forward_to: None,
        forward_dead_lettered_messages_to: None,
        requires_session: false,
        attributes: Attributes::default(),
    }
}

pub(crate) fn forwarding(name: &str, to: &str) -> Queue {
    Queue {
        forward_to: Some(to.to_owned()),
        ..queue(name)
    }
}

/// It takes every message.
pub(crate) fn subscription(queue: Queue) -> Subscription {
    Subscription {
        queue,
        rules: vec![Rule::default_rule()],
    }
}

pub(crate) fn topic(name: &str, subscriptions: Vec<Subscription>) -> Topic {
    Topic {
        name: name.to_owned(),
        default_message_time_to_live: None,
        duplicate_detection: None,
        attributes: Attributes::default(),
        subscriptions,
    }
}

pub(crate) fn queues(queues: impl Into<Vec<Queue>>) -> Topology {
    Topology {
        queues: queues.into(),
        topics: Vec::new(),
    }
}

pub(crate) fn path(path: &str) -> EntityPath {
    path.parse().expect("the path of an entity")
}

pub(crate) fn message(id: &str) -> Message {
    Message {
        message_id: Some(id.to_owned()),
        ..Message::default()
    }
}

/// That many seconds after the start of the test's time.
pub(crate) fn at(seconds: i64) -> Timestamp {
    Timestamp::from_second(1_800_000_000 + seconds).expect("a time in range")
}

/// 1, 2, 3, …
pub(crate) fn counted_ids() -> Ids {
    let mut last = 0;
    Box::new(move || {
        last += 1;
        Uuid::from_u128(last)
    })
}
