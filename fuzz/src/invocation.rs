//! The envelope in which the Functions host hands over a message, and the history that the message tells of itself.
//!
//! Whatever its properties say: nothing that could be personal is logged as an id, no time lies ahead, and the copy in which
//! it goes on can be sent, and says of itself what it was given.

use std::time::Duration;

use orderup::{
    attempt::Attempt,
    event::Event,
    failure::{Class, Failure},
    history::{History, Standing},
    invocation::Invocation,
    orders_topic::{Outgoing, PropertyValue},
    outcome::{self, Outcome},
    redelivery::{Audience, Content, Original},
    retry_policy::RetryPolicy,
    trace::{self, SpanContext},
};
use serde_json::{Map, Value};

use crate::place_order::NOW;

/// What the bus says a message's place is, if nobody knows better.
const KNOWN_BY: &str = "7";

pub fn check(data: &[u8]) {
    let Some(invocation) = Invocation::from_json(data) else {
        return;
    };
    if let Some(id) = &invocation.message_id {
        assert!((1..=128).contains(&id.len()) && !id.contains(['@', ' ', '"']));
    }
    if let Some(carried) = &invocation.carried {
        let parent = carried.parent.to_string();
        assert_eq!(SpanContext::parse(&parent), Some(carried.parent));
        let state = carried.state.as_deref();
        assert!(state.is_none_or(|state| trace::state(state).as_deref() == Some(state)));
    }
    let policy = RetryPolicy::default();
    let standing = Standing::read(&invocation.properties, invocation.enqueued, &policy, NOW);
    let Standing::Live(history) = standing else {
        return;
    };
    assert!(history.first_seen <= NOW);
    assert!(history.unconfirmed_since.is_none_or(|at| at <= NOW));
    let Ok(body) = String::from_utf8(invocation.body) else {
        return;
    };
    let event = Event::from_json(body.as_bytes()).ok();
    let original = Original {
        body: &body,
        content: event
            .as_ref()
            .map_or(Content::Unreadable { known_by: KNOWN_BY }, Content::Event),
        audience: Audience::Vendors,
        history: &history,
        carried: invocation.carried.as_ref(),
        attempt: invocation.repeats,
    };
    for class in [Class::Transient, Class::RateLimited, Class::Ambiguous] {
        let failure = Failure {
            class,
            retry_after: Some(Duration::from_secs(3600)),
            answer: "503 \"Service\\Unavailable\"\r\n".to_owned(),
            nothing_taken: false,
        };
        let outcome = outcome::decide(Attempt::Failed(failure), &history, &policy, NOW, 0.5);
        let copy = original.copy_for(Some("bakery"), &outcome, NOW);
        let copy = copy.expect("what has failed goes on");
        copy.check().expect("every copy can be sent");
        let standing = read_back(&copy, &policy);
        match (&outcome, standing) {
            (Outcome::Later(later), Standing::Live(read)) => {
                assert!(later.due > NOW);
                // Nothing has so many; the second of the delivery takes its place.
                if history.generation < u32::MAX - 1 {
                    assert_eq!(read.generation, history.generation + 1);
                }
                assert_eq!(read.audience.as_deref(), Some("vendors"));
                assert_eq!(read.vendor.as_deref(), Some("bakery"));
                assert_kept(&read, &history, later.failures, later.held);
            }
            (Outcome::Dead(_), Standing::Condemned) => {}
            (outcome, standing) => panic!("{outcome:?} became {standing:?}"),
        }
    }
}

/// The copy as the next delivery sees it, at once.
fn read_back(copy: &Outgoing, policy: &RetryPolicy) -> Standing {
    let properties: Map<String, Value> = copy
        .properties
        .iter()
        .map(|(name, value)| {
            let value = match value {
                PropertyValue::Text(text) => Value::from(text.as_str()),
                PropertyValue::Integer(integer) => Value::from(*integer),
            };
            (name.clone(), value)
        })
        .collect();
    Standing::read(&properties, Some(NOW), policy, NOW)
}

fn assert_kept(read: &History, history: &History, failures: u32, held: Duration) {
    assert!(!read.is_replay);
    // What has lain for long after its deadline starts afresh, and may do so twice.
    if read.first_seen != NOW {
        assert_eq!(read.first_seen, history.first_seen);
        assert_eq!(read.failures, countable(failures.into()));
        assert_eq!(read.held.as_secs(), u64::from(countable(held.as_secs())));
    }
}

/// A number that is too large counts as not there.
fn countable(number: u64) -> u32 {
    u32::try_from(number)
        .ok()
        .filter(|number| *number < u32::MAX)
        .unwrap_or(0)
}
