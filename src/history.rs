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
    outcome::LAST_FAILURE,
    place_order::is_vendor_id,
    properties::{
        self, AUDIENCE, DEAD_LETTER_REASON, DEAD_LETTER_TIME, FAILURES, FIRST_SEEN, GENERATION,
        HELD_SECONDS, LAST_ERROR, NATIVE_REASON, UNCONFIRMED_SINCE, VENDOR,
    },
    retry_policy::{GRACE, RetryPolicy},
};

/// A condemned copy is on the bus within minutes of its condemnation ([`crate::patience`]), by the clocks of the bus and of an
/// instance. One that came later was taken out of the dead-letter queue.
const CONDEMNED_FOR: time::Duration = time::Duration::minutes(10);

/// How long after its deadline a live message may come: its grace, and the longest wait that anybody may ask for. What
/// comes later has lain somewhere, in a dead-letter queue or in front of an app that was stopped, and has not had its
/// tries.
const LATEST_AFTER_DEADLINE: Duration = GRACE.saturating_mul(3);

/// In the place of an id that can't be one: it is nobody's, and so the message reaches nobody instead of everybody.
const NO_VENDOR: &str = "?";

/// What a delivery is to do with its message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Standing {
    /// Try to deliver it.
    Live(History),
    /// It was given up, and is on its way into the dead-letter queue: fail it at once.
    Condemned,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct History {
    /// Whom it says that it is for.
    pub audience: Option<String>,
    /// The only vendor it is for.
    pub vendor: Option<String>,
    pub generation: u32,
    pub failures: u32,
    pub first_seen: OffsetDateTime,
    /// For how long it only waited, for its turn or for an operator.
    pub held: Duration,
    /// Since when an attempt may have reached the recipient without our knowing.
    pub unconfirmed_since: Option<OffsetDateTime>,
    /// Class and answer of the last attempt that was made.
    pub last_failure: Option<String>,
    /// An operator has re-sent it.
    pub is_replay: bool,
}

impl History {
    /// Of a message that nobody has tried yet.
    pub fn new(now: OffsetDateTime) -> Self {
        Self {
            audience: None,
            vendor: None,
            generation: 0,
            failures: 0,
            first_seen: now,
            held: Duration::ZERO,
            unconfirmed_since: None,
            last_failure: None,
            is_replay: false,
        }
    }

    /// When it has been tried for long enough.
    pub fn deadline(&self, policy: &RetryPolicy) -> OffsetDateTime {
        self.first_seen + policy.deadline() + self.held
    }
}

impl Standing {
    /// `enqueued` is when it came to its queue or subscription, which the host says. It is the same at each delivery.
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
        let text = |name: &str| {
            get(name)
                .and_then(properties::text)
                .filter(|text| !text.is_empty())
        };
        let time = |name: &str| {
            text(name)
                .and_then(|text| time_of(&text))
                .filter(|at| *at <= now)
        };
        let count = |name: &str| get(name).and_then(properties::count);

        let was_dead = text(NATIVE_REASON).is_some();
        let was_condemned = text(DEAD_LETTER_REASON).is_some();
        if was_condemned && !was_dead {
            // Whoever condemns says when; without a time it can only be taken at its word.
            let condemned = text(DEAD_LETTER_TIME).and_then(|text| time_of(&text));
            let age = condemned.map(|at| enqueued.unwrap_or(now) - at);
            if age.is_none_or(|age| age < CONDEMNED_FOR) {
                return Self::Condemned;
            }
        }
        let mut history = History {
            audience: text(AUDIENCE),
            vendor: get(VENDOR).map(vendor),
            generation: generation(count(GENERATION), was_dead || was_condemned, enqueued),
            failures: count(FAILURES).unwrap_or(0),
            first_seen: time(FIRST_SEEN).unwrap_or(now),
            held: Duration::from_secs(count(HELD_SECONDS).unwrap_or(0).into()),
            // What cannot be read is a doubt all the same.
            unconfirmed_since: text(UNCONFIRMED_SINCE)
                .map(|text| time_of(&text).map_or(now, |at| at.min(now))),
            last_failure: text(LAST_ERROR).and_then(|text| last_failure(&text)),
            is_replay: was_dead || was_condemned,
        };
        let has_lain = now - history.deadline(policy) > LATEST_AFTER_DEADLINE;
        if history.is_replay || has_lain {
            history.failures = 0;
            history.first_seen = now;
            history.held = Duration::ZERO;
            history.last_failure = None;
        }
        Self::Live(history)
    }
}

/// The generation that a copy goes on from.
///
/// Copies are named by it, and the topic drops a name that it has seen in the last minutes. What an operator re-sends, or a
/// tool that lost the property, must not come to the names of its earlier life: its copies are counted from the second at
/// which it was enqueued, which no earlier life has reached and which is the same at each delivery.
fn generation(known: Option<u32>, is_replay: bool, enqueued: Option<OffsetDateTime>) -> u32 {
    let second = enqueued.and_then(|at| u32::try_from(at.unix_timestamp()).ok());
    match known {
        Some(known) if !is_replay => known,
        known => known.unwrap_or(0).max(second.unwrap_or(0)),
    }
}

/// What `last-error` says of the last attempt; nothing if the message was only held back.
fn last_failure(last_error: &str) -> Option<String> {
    const HELD: [&str; 4] = ["paused: ", "paced: ", "parked: ", "gone: not tried"];
    match last_error.split_once(LAST_FAILURE) {
        Some((_, failure)) => Some(failure.to_owned()),
        None if HELD.iter().any(|held| last_error.starts_with(held)) => None,
        None => Some(last_error.to_owned()),
    }
}

/// A copy that names a vendor is for nobody else, also if the name is spoilt.
fn vendor(value: &Value) -> String {
    let text = properties::text(value).unwrap_or_default();
    let vendor = text.trim();
    let is_id = is_vendor_id(vendor);
    if is_id { vendor } else { NO_VENDOR }.to_owned()
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
    const SECOND: u32 = 1_795_608_000;

    fn read_at(enqueued: OffsetDateTime, properties: Value) -> Standing {
        let Value::Object(properties) = properties else {
            panic!("an object");
        };
        Standing::read(&properties, Some(enqueued), &policy(), NOW)
    }

    fn read(properties: Value) -> Standing {
        read_at(NOW, properties)
    }

    fn live(properties: Value) -> History {
        match read(properties) {
            Standing::Live(history) => history,
            Standing::Condemned => panic!("condemned"),
        }
    }

    #[test]
    fn a_first_copy_has_no_past() {
        let properties = json!({ "generation": 0 });
        assert_eq!(live(properties), History::new(NOW));
        let bare = Standing::read(&Map::new(), None, &policy(), NOW);
        assert_eq!(bare, Standing::Live(History::new(NOW)));
    }

    #[test]
    fn a_copy_is_read_whatever_the_types_of_its_properties() {
        let expected = History {
            audience: None,
            vendor: Some("bakery".to_owned()),
            generation: 7,
            failures: 3,
            first_seen: datetime!(2026-11-24 12:00 UTC),
            held: Duration::from_secs(90),
            unconfirmed_since: Some(datetime!(2026-11-24 13:00 UTC)),
            last_failure: None,
            is_replay: false,
        };
        for (generation, failures) in [
            (json!(7), json!(3)),
            (json!("7"), json!("3")),
            (json!(7.0), json!(" 3 ")),
            (json!("\"7\""), json!("3.0")),
        ] {
            let history = live(json!({
                "vendor": "bakery", "generation": generation, "failures": failures, "held-seconds": 90,
                "first-seen": "2026-11-24T12:00:00Z", "unconfirmed-since": "2026-11-24T13:00:00",
            }));
            assert_eq!(history, expected);
        }
        let history = live(json!({
            "Vendor": "\"bakery\"", "Generation": 7, "FAILURES": 3, "Held-Seconds": "90",
            "First-Seen": "2026-11-24T13:00:00+01:00", "unconfirmed-since": "2026-11-24T13:00:00Z",
        }));
        assert_eq!(history, expected);
    }

    #[test]
    fn a_generation_that_is_a_time_is_read_after_2038_too() {
        let history = live(json!({ "generation": 3_689_064_031_u32 }));
        assert_eq!(history.generation, 3_689_064_031);
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
            json!(u32::MAX),
        ] {
            let history = live(json!({
                "generation": odd, "failures": odd, "first-seen": odd, "held-seconds": odd,
            }));
            let expected = History {
                generation: SECOND,
                ..History::new(NOW)
            };
            assert_eq!(history, expected, "{odd}");
        }
        // A time to come would put the deadline off.
        let history = live(json!({ "generation": 0, "first-seen": "2036-11-24T12:00:00Z" }));
        assert_eq!(history, History::new(NOW));
    }

    #[test]
    fn a_doubt_that_cannot_be_read_is_one() {
        for odd in ["soon", "2036-11-24T12:00:00Z"] {
            let history = live(json!({ "generation": 1, "unconfirmed-since": odd }));
            assert_eq!(history.unconfirmed_since, Some(NOW), "{odd}");
        }
    }

    #[test]
    fn the_last_failure_is_known_through_all_that_it_waited() {
        for (last_error, failure) in [
            ("transient: 503", Some("transient: 503")),
            (
                "gone: the vendor answered 410",
                Some("gone: the vendor answered 410"),
            ),
            ("paused: not tried while others fail", None),
            (
                "gone: not tried while the vendor says that it is gone",
                None,
            ),
            (
                "paced: waits its turn; the last failure: transient: 503",
                Some("transient: 503"),
            ),
        ] {
            let history = live(json!({ "last-error": last_error }));
            assert_eq!(history.last_failure.as_deref(), failure);
        }
    }

    #[test]
    fn a_vendor_that_cannot_be_one_is_nobody_and_not_everybody() {
        for vendor in [
            json!("ada@example.net"),
            json!("the bakery"),
            json!("a\nb"),
            json!(""),
            json!(" "),
            json!(null),
            json!(true),
            json!([]),
        ] {
            let history = live(json!({ "vendor": vendor }));
            assert_eq!(history.vendor.as_deref(), Some("?"), "{vendor}");
        }
        let history = live(json!({ "vendor": " bakery " }));
        assert_eq!(history.vendor.as_deref(), Some("bakery"));
    }

    #[test]
    fn what_was_given_up_is_condemned_however_long_it_waits_in_the_queue() {
        for (condemned, enqueued) in [
            ("2026-11-25T11:59:59Z", NOW),
            ("2026-11-25T12:00:30Z", NOW),
            ("2026-11-25T08:00:00Z", datetime!(2026-11-25 08:00:02 UTC)),
        ] {
            let properties =
                json!({ "dead-letter-reason": "EmailRefused", "dead-letter-time": condemned });
            assert_eq!(
                read_at(enqueued, properties),
                Standing::Condemned,
                "{condemned}"
            );
        }
        let reason = |reason: &str| read(json!({ "dead-letter-reason": reason }));
        assert_eq!(reason("EmailRefused"), Standing::Condemned);
        assert_ne!(reason(""), Standing::Condemned);
    }

    #[test]
    fn an_operators_replay_starts_afresh() {
        let dead = json!({
            "audience": "vendors", "vendor": "bakery", "generation": 9, "failures": 30, "held-seconds": 60,
            "first-seen": "2026-11-22T12:00:00Z", "last-error": "transient: answered 503",
            "unconfirmed-since": "2026-11-22T12:00:00Z",
            "dead-letter-reason": "DeadlineExceeded", "dead-letter-time": "2026-11-25T11:59:00Z",
        });
        let with = |name: &str, value: &str| {
            let mut properties = dead.clone();
            properties[name] = json!(value);
            properties
        };
        // With Service Bus's own reason, at any time; without it, when the condemnation is old.
        for properties in [
            with("DeadLetterReason", "MaxDeliveryCountExceeded"),
            with("deadletterreason", "MaxDeliveryCountExceeded"),
            with("dead-letter-time", "2026-11-25T11:49:00Z"),
        ] {
            let history = live(properties);
            assert!(history.is_replay);
            assert_eq!((history.failures, history.held), (0, Duration::ZERO));
            assert_eq!(history.first_seen, NOW);
            assert_eq!(
                history.generation, SECOND,
                "its copies have names of their own"
            );
            assert_eq!(history.vendor.as_deref(), Some("bakery"));
            assert!(history.unconfirmed_since.is_some(), "that may still be so");
        }
    }

    #[test]
    fn what_has_lain_somewhere_has_all_of_its_tries_before_it() {
        let aged = |first_seen: &str| {
            live(
                json!({ "generation": 9, "failures": 30, "held-seconds": 3600, "first-seen": first_seen }),
            )
        };
        // Its deadline is 73 hours after it was first seen.
        let in_time = aged("2026-11-22T08:01:00Z");
        assert_eq!(in_time.failures, 30);
        let too_late = aged("2026-11-22T07:59:00Z");
        assert_eq!((too_late.failures, too_late.first_seen), (0, NOW));
        assert!(!too_late.is_replay);
        assert_eq!(too_late.generation, 9);
    }
}
