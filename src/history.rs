//! What a message tells of its own past: how often it was tried, since when, and whether it was given up.
//!
//! Read from the application properties at each delivery. Every property may be missing or of another type, as an
//! operator's tool may have typed it: what cannot be read counts as not there. A message that an operator has re-sent from
//! a dead-letter queue starts afresh, whoever re-sent it and whatever the tool kept.

use std::time::Duration;

use serde_json::{Map, Value};
use time::OffsetDateTime;

use crate::{
    fields::parse_time,
    place_order::is_vendor_id,
    properties::{
        DEAD_LETTER_REASON, DEAD_LETTER_TIME, FAILURES, FIRST_SEEN, GENERATION, NATIVE_REASON,
        UNCONFIRMED_SINCE, VENDOR,
    },
    retry_policy::RetryPolicy,
};

/// A condemned copy that is on its way into the dead-letter queue gets there within a second or so. After this time
/// somebody has taken it out of there.
const CONDEMNED_FOR: time::Duration = time::Duration::minutes(5);

/// How long after its deadline a scheduled copy may arrive. The bus is late by seconds; what comes later has lain
/// somewhere, in a dead-letter queue or in front of an app that was stopped, and has not had its tries.
const LATEST_AFTER_DEADLINE: Duration = Duration::from_secs(60 * 60);

/// In the place of an id that can't be one: it is nobody's, and so the message reaches nobody instead of everybody.
const NO_VENDOR: &str = "?";

/// What a delivery is to do with its message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Standing {
    /// Try to deliver it.
    Live(History),
    /// It was given up a moment ago and is on its way into the dead-letter queue: fail it at once.
    Condemned,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct History {
    /// The only vendor it is for.
    pub vendor: Option<String>,
    pub generation: u32,
    pub failures: u32,
    pub first_seen: OffsetDateTime,
    /// When this copy came to its queue or subscription: the same at each of its deliveries.
    pub enqueued: OffsetDateTime,
    /// Since when an attempt may have reached the recipient without our knowing.
    pub unconfirmed_since: Option<OffsetDateTime>,
    /// An operator has re-sent it.
    pub is_replay: bool,
}

impl History {
    /// Of a message that nobody has tried yet.
    pub fn new(now: OffsetDateTime) -> Self {
        Self {
            vendor: None,
            generation: 0,
            failures: 0,
            first_seen: now,
            enqueued: now,
            unconfirmed_since: None,
            is_replay: false,
        }
    }
}

impl Standing {
    /// `enqueued` is what the host says of it.
    pub fn read(
        properties: &Map<String, Value>,
        enqueued: Option<OffsetDateTime>,
        policy: &RetryPolicy,
        now: OffsetDateTime,
    ) -> Self {
        let get = |name: &str| {
            properties
                .iter()
                .find(|(known, _)| known.eq_ignore_ascii_case(name))
                .map(|(_, value)| value)
        };
        let text = |name: &str| get(name).and_then(text).filter(|text| !text.is_empty());
        let time = |name: &str| text(name).and_then(|text| time_of(&text));
        let count = |name: &str| get(name).and_then(number).unwrap_or(0);

        let was_dead = text(NATIVE_REASON).is_some();
        let was_condemned = text(DEAD_LETTER_REASON).is_some();
        if was_condemned && !was_dead {
            // Whoever condemns says when; without a time it can only be taken at its word.
            let age = time(DEAD_LETTER_TIME).map(|at| (now - at).abs());
            if age.is_none_or(|age| age < CONDEMNED_FOR) {
                return Self::Condemned;
            }
        }
        let first_seen = time(FIRST_SEEN).filter(|at| *at <= now);
        let has_lain =
            first_seen.is_some_and(|at| now - at > policy.deadline() + LATEST_AFTER_DEADLINE);
        let is_replay = was_dead || was_condemned || has_lain;
        Self::Live(History {
            vendor: text(VENDOR).map(|vendor| {
                let vendor = vendor.trim();
                let is_id = is_vendor_id(vendor);
                if is_id { vendor } else { NO_VENDOR }.to_owned()
            }),
            generation: count(GENERATION),
            failures: if is_replay { 0 } else { count(FAILURES) },
            first_seen: first_seen.filter(|_| !is_replay).unwrap_or(now),
            enqueued: enqueued.filter(|at| *at <= now).unwrap_or(now),
            unconfirmed_since: time(UNCONFIRMED_SINCE).filter(|at| *at <= now),
            is_replay,
        })
    }
}

/// A value as text: `"a"` and `"\"a\""` both occur.
fn text(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => match serde_json::from_str(text) {
            Ok(Value::String(inner)) => Some(inner),
            Ok(_) | Err(_) => Some(text.clone()),
        },
        Value::Number(number) => Some(number.to_string()),
        Value::Null | Value::Bool(_) | Value::Array(_) | Value::Object(_) => None,
    }
}

/// A count, however it is typed: `3`, `3.0`, `"3"`.
fn number(value: &Value) -> Option<u32> {
    let text = text(value)?;
    let number: f64 = text.trim().parse().ok()?;
    let is_count = number.fract() == 0.0 && (0.0..=f64::from(u32::MAX)).contains(&number);
    // In range, as just checked.
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
    is_count.then_some(number as u32)
}

/// A time of ours, or as the host writes a date: without a zone, which then is UTC.
pub(crate) fn time_of(text: &str) -> Option<OffsetDateTime> {
    let text = text.trim();
    parse_time(text).or_else(|| parse_time(&format!("{text}Z")))
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use time::macros::datetime;

    use super::*;
    use crate::retry_policy::tests::policy;

    const NOW: OffsetDateTime = datetime!(2026-11-25 12:00 UTC);

    fn read(properties: Value) -> Standing {
        let Value::Object(properties) = properties else {
            panic!("an object");
        };
        Standing::read(&properties, None, &policy(), NOW)
    }

    fn live(properties: Value) -> History {
        match read(properties) {
            Standing::Live(history) => history,
            Standing::Condemned => panic!("condemned"),
        }
    }

    #[test]
    fn a_first_copy_has_no_past() {
        assert_eq!(
            live(json!({ "audience": "vendors", "generation": 0 })),
            History::new(NOW)
        );
        assert_eq!(live(json!({})), History::new(NOW));
    }

    #[test]
    fn a_copy_is_read_whatever_the_types_of_its_properties() {
        let expected = History {
            vendor: Some("bakery".to_owned()),
            generation: 7,
            failures: 3,
            first_seen: datetime!(2026-11-24 12:00 UTC),
            enqueued: NOW,
            unconfirmed_since: Some(datetime!(2026-11-24 13:00 UTC)),
            is_replay: false,
        };
        for (generation, failures) in [
            (json!(7), json!(3)),
            (json!("7"), json!("3")),
            (json!(7.0), json!(" 3 ")),
            (json!("\"7\""), json!("3.0")),
        ] {
            let history = live(json!({
                "vendor": "bakery", "generation": generation, "failures": failures,
                "first-seen": "2026-11-24T12:00:00Z", "unconfirmed-since": "2026-11-24T13:00:00",
            }));
            assert_eq!(history, expected);
        }
        let history = live(json!({
            "Vendor": "\"bakery\"", "Generation": 7, "FAILURES": 3,
            "First-Seen": "2026-11-24T13:00:00+01:00", "unconfirmed-since": "2026-11-24T13:00:00Z",
        }));
        assert_eq!(history, expected);
    }

    #[test]
    fn what_cannot_be_read_counts_as_not_there() {
        for odd in [
            json!("many"),
            json!(-1),
            json!(1.5),
            json!([1]),
            json!(null),
            json!("1e300"),
        ] {
            let history = live(json!({
                "generation": odd, "failures": odd, "first-seen": odd,
                "unconfirmed-since": odd,
            }));
            assert_eq!(history, History::new(NOW), "{odd}");
        }
        // A time to come would put the deadline off.
        let history = live(json!({ "first-seen": "2036-11-24T12:00:00Z" }));
        assert_eq!(history, History::new(NOW));
    }

    #[test]
    fn a_vendor_that_cannot_be_one_is_nobody_and_not_everybody() {
        for vendor in ["ada@example.net", "the bakery", "a\nb"] {
            let history = live(json!({ "vendor": vendor }));
            assert_eq!(history.vendor.as_deref(), Some("?"), "{vendor}");
        }
        assert_eq!(
            live(json!({ "vendor": " bakery " })).vendor.as_deref(),
            Some("bakery")
        );
        assert_eq!(live(json!({ "vendor": "" })).vendor, None);
    }

    #[test]
    fn what_was_just_given_up_is_condemned() {
        let reason = "EmailRefused";
        for time in [
            "2026-11-25T11:59:59Z",
            "2026-11-25T11:55:01Z",
            "2026-11-25T12:00:30Z",
        ] {
            let properties = json!({ "dead-letter-reason": reason, "dead-letter-time": time });
            assert_eq!(read(properties), Standing::Condemned, "{time}");
        }
        assert_eq!(
            read(json!({ "dead-letter-reason": reason })),
            Standing::Condemned
        );
        assert_ne!(
            read(json!({ "dead-letter-reason": "" })),
            Standing::Condemned
        );
    }

    #[test]
    fn an_operators_replay_starts_afresh_but_for_its_generation() {
        let dead = json!({
            "audience": "vendors", "vendor": "bakery", "generation": 9, "failures": 30,
            "first-seen": "2026-11-22T12:00:00Z", "last-error": "transient: answered 503",
            "unconfirmed-since": "2026-11-22T12:00:00Z",
            "dead-letter-reason": "DeadlineExceeded", "dead-letter-time": "2026-11-25T11:59:00Z",
        });
        let with = |name: &str, value: Option<&str>| {
            let mut properties = dead.clone();
            match value {
                Some(value) => properties[name] = json!(value),
                None => {
                    properties.as_object_mut().unwrap().remove(name);
                }
            }
            properties
        };
        // With Service Bus's own reason, at any time; without it, when the condemnation is old; and when a tool has
        // taken both reasons out, by the age.
        let mut bare = with("dead-letter-reason", None);
        bare["first-seen"] = json!("2026-11-22T10:59:00Z");
        for properties in [
            with("DeadLetterReason", Some("MaxDeliveryCountExceeded")),
            with("dead-letter-time", Some("2026-11-25T11:54:00Z")),
            bare,
        ] {
            let history = live(properties);
            assert!(history.is_replay);
            assert_eq!((history.failures, history.generation), (0, 9));
            assert_eq!(history.first_seen, NOW);
            assert_eq!(history.vendor.as_deref(), Some("bakery"));
            assert!(history.unconfirmed_since.is_some(), "that may still be so");
        }
    }

    #[test]
    fn a_copy_that_the_bus_brings_just_after_its_deadline_is_no_replay() {
        let history = live(json!({ "failures": 30, "first-seen": "2026-11-22T11:50:00Z" }));
        assert!(!history.is_replay);
        assert_eq!(history.failures, 30);
    }
}
