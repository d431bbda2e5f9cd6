//! The copies in which a message goes on: one for later, or one that is condemned.
//!
//! A copy goes to the topic like everything else, for one audience (and one vendor), and so reaches nobody but whom the
//! original failed for. Its `MessageId` is made of the event, the audience and the generation: the same copy that is sent
//! again, after a lost answer or a crash, is dropped by the topic, and a copy never has the id of what it replaces, for
//! which the topic would drop it as well, and with it the notification. Pure.

use std::time::Duration;

use time::{OffsetDateTime, format_description::well_known::Rfc3339};
use uuid::Uuid;

use crate::{
    event::{self, Event},
    history::History,
    orders_topic::{Outgoing, PropertyValue},
    outcome::{Dead, Later, Outcome},
    properties::{
        AUDIENCE, DEAD_LETTER_DESCRIPTION, DEAD_LETTER_REASON, DEAD_LETTER_TIME, FAILURES,
        FIRST_SEEN, GENERATION, HELD_SECONDS, LAST_ERROR, REPEATS, UNCONFIRMED_SINCE, VENDOR,
    },
    trace::{Carried, SpanContext},
};

/// Names the space of ids for messages that are no events.
const UNREADABLE: Uuid = Uuid::from_u128(0x51f7_8c0e_3d0b_4a6a_9a55_6f0d_7b1c_e2d4);

/// The longest text that goes into a property. A message has 4 KB for all of its properties.
const LONGEST_TEXT: usize = 300;

/// Who hears of an event: each of them is one subscription, and one function.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Audience {
    Customers,
    Vendors,
    Till,
    Book,
}

impl Audience {
    pub const ALL: [Self; 4] = [Self::Customers, Self::Vendors, Self::Till, Self::Book];

    /// The value of the property `audience`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Customers => "customers",
            Self::Vendors => "vendors",
            Self::Till => "till",
            Self::Book => "book",
        }
    }

    /// Where its messages end when they die: in the dead-letter queue of what its function reads, and, of a subscription
    /// that forwards, of the subscription when it cannot.
    pub fn entities(self, topic: &str) -> Vec<String> {
        match self {
            Self::Customers => vec![
                "notifications".to_owned(),
                format!("{topic}/subscriptions/customers"),
            ],
            Self::Vendors | Self::Till | Self::Book => {
                vec![format!("{topic}/subscriptions/{}", self.name())]
            }
        }
    }
}

/// What is in a message.
#[derive(Debug, Clone, Copy)]
pub enum Content<'a> {
    Event(&'a Event),
    /// Nothing of ours. What the message is known by on the bus tells it from others of the same body.
    Unreadable {
        known_by: &'a str,
    },
}

/// What a copy is made of.
#[derive(Debug, Clone, Copy)]
pub struct Original<'a> {
    pub body: &'a str,
    pub content: Content<'a>,
    pub audience: Audience,
    pub history: &'a History,
    pub carried: Option<&'a Carried>,
    /// The delivery after which the copy is made, if it is recorded.
    pub attempt: Option<SpanContext>,
}

impl Original<'_> {
    /// The copy in which the message goes on after that outcome, if it does.
    pub fn copy_for(
        &self,
        vendor: Option<&str>,
        outcome: &Outcome,
        now: OffsetDateTime,
    ) -> Option<Outgoing> {
        match outcome {
            Outcome::Delivered => None,
            Outcome::Later(later) => Some(self.later(vendor, later)),
            Outcome::Dead(dead) => Some(self.condemned(vendor, dead, now)),
        }
    }

    /// The copy that comes later, for that vendor where the audience is one of vendors.
    pub fn later(&self, vendor: Option<&str>, later: &Later) -> Outgoing {
        let mut copy = self.copy(vendor);
        copy.scheduled_enqueue_time = Some(later.due);
        let mut add = |name: &str, value| copy.properties.push((name.to_owned(), value));
        add(FAILURES, PropertyValue::Integer(later.failures.into()));
        add(FIRST_SEEN, time(self.history.first_seen));
        add(LAST_ERROR, text(&later.error));
        if !later.held.is_zero() {
            add(HELD_SECONDS, seconds(later.held));
        }
        if let Some(since) = later.unconfirmed_since {
            add(UNCONFIRMED_SINCE, time(since));
        }
        copy
    }

    /// The copy that ends in the dead-letter queue, where these properties say why: whoever gets it fails it at once.
    pub fn condemned(&self, vendor: Option<&str>, dead: &Dead, now: OffsetDateTime) -> Outgoing {
        let mut copy = self.copy(vendor);
        let history = self.history;
        let mut add = |name: &str, value| copy.properties.push((name.to_owned(), value));
        add(DEAD_LETTER_REASON, text(dead.reason.name()));
        add(DEAD_LETTER_DESCRIPTION, text(&dead.description));
        add(DEAD_LETTER_TIME, time(now));
        let failures = dead.failures.max(history.failures);
        add(FAILURES, PropertyValue::Integer(failures.into()));
        add(FIRST_SEEN, time(history.first_seen));
        if !history.held.is_zero() {
            add(HELD_SECONDS, seconds(history.held));
        }
        if let Some(since) = dead.unconfirmed_since.or(history.unconfirmed_since) {
            add(UNCONFIRMED_SINCE, time(since));
        }
        copy
    }

    fn copy(&self, vendor: Option<&str>) -> Outgoing {
        let generation = self.history.generation.saturating_add(1);
        let (root, label, correlation_id) = match self.content {
            Content::Event(event) => (event.id(), event.kind.name(), event.order_id().to_string()),
            // Its own id may be that of an event, whose copies must not be taken for this one's.
            Content::Unreadable { known_by } => {
                let name = format!("{known_by}\n{}", self.body);
                let id = Uuid::new_v5(&UNREADABLE, name.as_bytes());
                (format!("unreadable:{id}"), "unreadable", String::new())
            }
        };
        let audience = self.audience.name();
        let message_id = match vendor {
            Some(vendor) => format!("{root}:{audience}:{vendor}:{generation}"),
            None => format!("{root}:{audience}:{generation}"),
        };
        let mut properties = vec![
            (AUDIENCE.to_owned(), text(audience)),
            (
                GENERATION.to_owned(),
                PropertyValue::Integer(generation.into()),
            ),
        ];
        if let Some(vendor) = vendor {
            properties.push((VENDOR.to_owned(), text(vendor)));
        }
        properties.extend(self.carried.into_iter().flat_map(Carried::properties));
        if let Some(attempt) = self.attempt {
            properties.push((REPEATS.to_owned(), PropertyValue::Text(attempt.to_string())));
        }
        Outgoing {
            message_id,
            label: label.to_owned(),
            correlation_id,
            content_type: event::CONTENT_TYPE.into(),
            body: self.body.to_owned(),
            scheduled_enqueue_time: None,
            properties,
        }
    }
}

fn time(time: OffsetDateTime) -> PropertyValue {
    let time = time
        .format(&Rfc3339)
        .expect("times of our century have an RFC 3339 form");
    PropertyValue::Text(time)
}

fn seconds(duration: Duration) -> PropertyValue {
    PropertyValue::Integer(i64::try_from(duration.as_secs()).unwrap_or(i64::MAX))
}

/// The text as a property can carry it.
fn text(text: &str) -> PropertyValue {
    let plain = text.chars().map(|character| match character {
        '"' => '\'',
        '\\' => '/',
        ' '..='~' => character,
        _ => ' ',
    });
    PropertyValue::Text(plain.take(LONGEST_TEXT).collect())
}

#[cfg(test)]
mod tests {
    use time::macros::datetime;

    use super::*;
    use crate::{
        event::tests::{order_cancelled, order_placed},
        outcome::Reason,
    };

    const NOW: OffsetDateTime = datetime!(2026-11-25 12:00 UTC);

    fn history() -> History {
        History {
            generation: 4,
            failures: 2,
            first_seen: NOW - Duration::from_secs(3600),
            ..History::new(NOW)
        }
    }

    fn later() -> Later {
        Later {
            due: NOW + Duration::from_secs(300),
            failures: 3,
            held: Duration::from_secs(90),
            unconfirmed_since: Some(NOW),
            error: "transient: said \"no\\\"\n".to_owned(),
            was_tried: true,
        }
    }

    fn original<'a>(event: &'a Event, body: &'a str, history: &'a History) -> Original<'a> {
        Original {
            body,
            content: Content::Event(event),
            audience: Audience::Vendors,
            history,
            carried: None,
            attempt: None,
        }
    }

    fn property<'a>(copy: &'a Outgoing, name: &str) -> Option<&'a PropertyValue> {
        copy.properties
            .iter()
            .find(|(known, _)| known == name)
            .map(|(_, value)| value)
    }

    #[test]
    fn a_copy_says_whom_it_is_for_and_what_came_before() {
        let (event, history) = (order_placed(), history());
        let body = event.to_json();
        let context = |text| SpanContext::parse(text).unwrap();
        let carried = Carried {
            parent: context("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"),
            state: Some("congo=t61rc".to_owned()),
        };
        let original = Original {
            carried: Some(&carried),
            attempt: Some(context(
                "00-0af7651916cd43dd8448eb211c80319c-00f067aa0ba902b7-01",
            )),
            ..original(&event, &body, &history)
        };
        let copy = original.later(Some("bakery"), &later());
        let id = "01935a1e-9c00-7000-8000-000000000001";
        assert_eq!(copy.message_id, format!("{id}:placed:vendors:bakery:5"));
        assert_eq!(copy.label, "order.placed");
        assert_eq!(copy.correlation_id, id);
        assert_eq!(copy.body, body);
        assert_eq!(
            copy.scheduled_enqueue_time,
            Some(NOW + Duration::from_secs(300))
        );
        for (name, value) in [
            ("audience", text("vendors")),
            ("vendor", text("bakery")),
            ("generation", PropertyValue::Integer(5)),
            ("failures", PropertyValue::Integer(3)),
            ("held-seconds", PropertyValue::Integer(90)),
            ("first-seen", text("2026-11-25T11:00:00Z")),
            ("unconfirmed-since", text("2026-11-25T12:00:00Z")),
            ("last-error", text("transient: said 'no/' ")),
            (
                "traceparent",
                text("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"),
            ),
            ("tracestate", text("congo=t61rc")),
            (
                "repeats",
                text("00-0af7651916cd43dd8448eb211c80319c-00f067aa0ba902b7-01"),
            ),
        ] {
            assert_eq!(property(&copy, name), Some(&value), "{name}");
        }
        assert_eq!(property(&copy, "dead-letter-reason"), None);
    }

    #[test]
    fn a_condemned_copy_says_why_and_comes_at_once() {
        let (event, history) = (order_cancelled(), history());
        let original = Original {
            audience: Audience::Customers,
            ..original(&event, "{}", &history)
        };
        let dead = Dead {
            reason: Reason::EmailRefused,
            description: "é".repeat(1000),
            failures: 3,
            unconfirmed_since: None,
        };
        let copy = original.condemned(None, &dead, NOW);
        assert!(copy.message_id.ends_with(":cancelled:customers:5"));
        assert_eq!(copy.scheduled_enqueue_time, None);
        assert_eq!(
            property(&copy, "dead-letter-reason"),
            Some(&text("EmailRefused"))
        );
        assert_eq!(
            property(&copy, "dead-letter-time"),
            Some(&text("2026-11-25T12:00:00Z"))
        );
        let Some(PropertyValue::Text(description)) = property(&copy, "dead-letter-description")
        else {
            panic!("{copy:?}");
        };
        assert_eq!(description.len(), LONGEST_TEXT);
        assert_eq!(property(&copy, "vendor"), None);
    }

    #[test]
    fn no_two_copies_share_an_id() {
        let history = history();
        let (placed, cancelled) = (order_placed(), order_cancelled());
        let mut ids = Vec::new();
        for event in [&placed, &cancelled] {
            for audience in [Audience::Customers, Audience::Vendors] {
                for generation in [0, 1] {
                    let history = History {
                        generation,
                        ..history.clone()
                    };
                    let original = Original {
                        audience,
                        ..original(event, "{}", &history)
                    };
                    for vendor in [None, Some("bakery"), Some("florist")] {
                        ids.push(original.later(vendor, &later()).message_id);
                    }
                }
            }
        }
        let unreadable = |body, known_by| {
            let history = History::new(NOW);
            let original = Original {
                content: Content::Unreadable { known_by },
                ..original(&placed, body, &history)
            };
            original.later(None, &later()).message_id
        };
        ids.extend([
            unreadable("x", "1"),
            unreadable("y", "1"),
            unreadable("x", "2"),
        ]);
        assert_eq!(unreadable("x", "1"), unreadable("x", "1"));
        let count = ids.len();
        ids.sort();
        ids.dedup();
        assert_eq!(ids.len(), count);
        assert!(
            ids.iter()
                .all(|id| *id != placed.id() && *id != cancelled.id())
        );
    }

    #[test]
    fn the_longest_id_fits() {
        let (event, history) = (
            order_cancelled(),
            History {
                generation: 99_999,
                ..history()
            },
        );
        let vendor = "v".repeat(64);
        let copy = original(&event, "{}", &history).later(Some(&vendor), &later());
        assert!(copy.message_id.len() <= 128, "{}", copy.message_id.len());
    }
}
