//! What becomes of a message for one recipient: delivered, later or dead.
//!
//! [`decide`] is the one place where that is decided, from what the attempt came to, the message's history and the
//! time. It is pure. [`crate::redelivery`] turns it into messages, and [`crate::delivery`] into the answer to the host.

use std::time::Duration;

use time::OffsetDateTime;

use crate::{
    channel::Held,
    durations,
    failure::{Class, Failure},
    history::History,
    retry_policy::RetryPolicy,
};

/// What an attempt to tell one recipient came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Attempt {
    /// The recipient was told, or need not be told any more.
    Told,
    /// No call was made.
    Held(Held),
    Failed(Failure),
    /// There is nobody who could be told.
    Impossible(Dead),
}

/// What becomes of the message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    Delivered,
    Later(Later),
    Dead(Dead),
}

/// The message comes again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Later {
    pub due: OffsetDateTime,
    /// Failed attempts so far, this one included.
    pub failures: u32,
    pub unconfirmed_since: Option<OffsetDateTime>,
    /// Class and answer, for `last-error` and the log.
    pub error: String,
    /// Whether an attempt was made.
    pub was_tried: bool,
}

/// The message is given up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Dead {
    pub reason: Reason,
    pub description: String,
}

/// Why a message is given up: a closed list, which operators filter by. The names are in the style of Service Bus's own,
/// and are explained in `docs/DEAD-LETTERS.md`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reason {
    /// The body is not an event of ours.
    Unreadable,
    /// The email provider will never take this email.
    EmailRefused,
    /// The vendor is not in `VENDORS_FILE`, or not in the order.
    UnknownVendor,
    /// `RETRY_DEADLINE` has passed without success.
    DeadlineExceeded,
    /// A fault in the handler.
    HandlerFault,
}

impl Reason {
    pub fn name(self) -> &'static str {
        match self {
            Self::Unreadable => "Unreadable",
            Self::EmailRefused => "EmailRefused",
            Self::UnknownVendor => "UnknownVendor",
            Self::DeadlineExceeded => "DeadlineExceeded",
            Self::HandlerFault => "HandlerFault",
        }
    }
}

/// A parked vendor's messages look this often whether it is still parked.
const PARKED: Duration = Duration::from_secs(10 * 60);

/// The longest that a message waits for its turn at once. The limit may have been raised meanwhile, and
/// a scheduled message cannot be called back.
const LONGEST_TURN: Duration = Duration::from_secs(60 * 60);

/// What becomes of a message with that history whose attempt came to this at `now`; `random`, from 0 to 1, spreads
/// what would come back together.
pub fn decide(
    attempt: Attempt,
    history: &History,
    policy: &RetryPolicy,
    now: OffsetDateTime,
    random: f64,
) -> Outcome {
    let random = random.clamp(0.0, 1.0);
    match attempt {
        Attempt::Told => Outcome::Delivered,
        Attempt::Impossible(dead) => Outcome::Dead(dead),
        Attempt::Held(held) => self::held(held, history, policy, now, random),
        Attempt::Failed(failure) => failed(failure, history, policy, now, random),
    }
}

fn held(
    held: Held,
    history: &History,
    policy: &RetryPolicy,
    now: OffsetDateTime,
    random: f64,
) -> Outcome {
    let (wait, why) = match held {
        Held::Paused { wait, spread } => {
            let why = "paused: not tried while others fail";
            if let Some(dead) = past_deadline(history, policy, now, why) {
                return Outcome::Dead(dead);
            }
            let wait = wait + spread.mul_f64(random);
            (
                wait.min(until_deadline(history, policy, now).max(wait_at_least(wait))),
                why,
            )
        }
        // Whoever only waits for a turn, or for the operator, can still succeed: no deadline ends that.
        Held::Paced { wait } if wait > LONGEST_TURN => (
            LONGEST_TURN.mul_f64(1.0 + random / 4.0),
            "paced: waits its turn under EMAIL_RATE_LIMIT",
        ),
        Held::Paced { wait } => (wait, "paced: waits its turn under EMAIL_RATE_LIMIT"),
        Held::Parked => (
            PARKED.mul_f64(1.0 + random),
            "parked: the vendor is in PARKED_VENDORS",
        ),
    };
    Outcome::Later(Later {
        due: now + wait,
        failures: history.failures,
        unconfirmed_since: history.unconfirmed_since,
        error: why.to_owned(),
        was_tried: false,
    })
}

fn failed(
    failure: Failure,
    history: &History,
    policy: &RetryPolicy,
    now: OffsetDateTime,
    random: f64,
) -> Outcome {
    let failures = match failure.class {
        Class::Refused => {
            return Outcome::Dead(Dead {
                reason: Reason::EmailRefused,
                description: failure.answer,
            });
        }
        Class::RateLimited => history.failures,
        Class::Transient | Class::Ambiguous | Class::ChannelBroken | Class::Gone => {
            history.failures.saturating_add(1)
        }
    };
    let unconfirmed_since = match failure.class {
        Class::Ambiguous => history.unconfirmed_since.or(Some(now)),
        _ if failure.nothing_taken => None,
        _ => history.unconfirmed_since,
    };
    let error = failure.to_string();
    if let Some(dead) = past_deadline(history, policy, now, &error) {
        return Outcome::Dead(dead);
    }
    let wait = policy.wait(history.failures, failure.retry_after, random);
    Outcome::Later(Later {
        due: now + wait.min(until_deadline(history, policy, now).max(wait_at_least(wait))),
        failures,
        unconfirmed_since,
        error,
        was_tried: true,
    })
}

/// A wait that is cut off by the deadline still is one.
fn wait_at_least(wait: Duration) -> Duration {
    wait.min(Duration::from_secs(1))
}

fn until_deadline(history: &History, policy: &RetryPolicy, now: OffsetDateTime) -> Duration {
    let deadline = history.first_seen + policy.deadline();
    Duration::try_from(deadline - now).unwrap_or_default()
}

fn past_deadline(
    history: &History,
    policy: &RetryPolicy,
    now: OffsetDateTime,
    last: &str,
) -> Option<Dead> {
    let passed = until_deadline(history, policy, now).is_zero();
    passed.then(|| Dead {
        reason: Reason::DeadlineExceeded,
        description: format!(
            "not delivered within {}, after {} failed attempts; {last}",
            durations::written(policy.deadline()),
            history.failures
        ),
    })
}

#[cfg(test)]
mod tests {
    use time::macros::datetime;

    use super::*;
    use crate::{failure::tests::failure, retry_policy::tests::policy};

    const NOW: OffsetDateTime = datetime!(2026-11-25 12:00 UTC);

    fn seconds(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    fn history(failures: u32, age: Duration) -> History {
        History {
            failures,
            first_seen: NOW - age,
            ..History::new(NOW)
        }
    }

    fn later(attempt: Attempt, history: &History, random: f64) -> Later {
        match decide(attempt, history, &policy(), NOW, random) {
            Outcome::Later(later) => later,
            other => panic!("{other:?}"),
        }
    }

    fn failed(class: Class) -> Attempt {
        Attempt::Failed(failure(class))
    }

    #[test]
    fn whoever_was_told_is_done() {
        let outcome = decide(Attempt::Told, &history(9, seconds(99)), &policy(), NOW, 0.5);
        assert_eq!(outcome, Outcome::Delivered);
    }

    #[test]
    fn a_failure_waits_along_the_schedule_and_counts() {
        for class in [
            Class::Transient,
            Class::Ambiguous,
            Class::ChannelBroken,
            Class::Gone,
        ] {
            let first = later(failed(class), &history(0, seconds(0)), 0.0);
            assert_eq!(first.due, NOW + seconds(30));
            assert_eq!(first.failures, 1);
            assert!(first.was_tried);
            assert_eq!(first.error, format!("{}: 503", class.name()));
            let fifth = later(failed(class), &history(4, seconds(0)), 1.0);
            assert_eq!(fifth.due, NOW + seconds(750));
            assert_eq!(fifth.failures, 5);
        }
    }

    #[test]
    fn a_rate_limit_waits_as_it_is_asked_to_and_does_not_count() {
        let limited = Attempt::Failed(Failure {
            retry_after: Some(seconds(600)),
            ..failure(Class::RateLimited)
        });
        let limited = later(limited, &history(2, seconds(0)), 0.0);
        assert_eq!((limited.due, limited.failures), (NOW + seconds(600), 2));
    }

    #[test]
    fn doubt_stays_until_somebody_knows() {
        let mut doubtful = history(1, seconds(60));
        let first = later(failed(Class::Ambiguous), &doubtful, 0.0);
        assert_eq!(first.unconfirmed_since, Some(NOW));
        let since = NOW - seconds(30);
        doubtful.unconfirmed_since = Some(since);
        for class in [Class::Ambiguous, Class::Transient, Class::RateLimited] {
            assert_eq!(
                later(failed(class), &doubtful, 0.0).unconfirmed_since,
                Some(since)
            );
        }
        let held = Attempt::Held(Held::Parked);
        assert_eq!(later(held, &doubtful, 0.0).unconfirmed_since, Some(since));
        let asked = Attempt::Failed(Failure {
            nothing_taken: true,
            ..failure(Class::Transient)
        });
        assert_eq!(later(asked, &doubtful, 0.0).unconfirmed_since, None);
    }

    #[test]
    fn what_is_refused_is_dead_at_once() {
        let outcome = decide(
            failed(Class::Refused),
            &history(0, seconds(0)),
            &policy(),
            NOW,
            0.0,
        );
        let Outcome::Dead(dead) = outcome else {
            panic!("{outcome:?}");
        };
        assert_eq!(dead.reason, Reason::EmailRefused);
    }

    #[test]
    fn the_last_attempt_is_at_the_deadline_and_then_it_is_dead() {
        let deadline = policy().deadline();
        let almost = later(
            failed(Class::Transient),
            &history(99, deadline - seconds(600)),
            1.0,
        );
        assert_eq!(almost.due, NOW + seconds(600));
        let just = later(
            failed(Class::Transient),
            &history(99, deadline - Duration::from_millis(1)),
            1.0,
        );
        assert_eq!(just.due, NOW + seconds(1));
        for attempt in [
            failed(Class::Transient),
            failed(Class::RateLimited),
            Attempt::Held(Held::Paused {
                wait: seconds(30),
                spread: seconds(30),
            }),
        ] {
            let outcome = decide(attempt, &history(99, deadline), &policy(), NOW, 0.0);
            let Outcome::Dead(dead) = outcome else {
                panic!("{outcome:?}");
            };
            assert_eq!(dead.reason, Reason::DeadlineExceeded);
            assert!(dead.description.contains("72h"), "{}", dead.description);
        }
    }

    #[test]
    fn who_is_held_comes_back_spread_out_and_has_not_failed() {
        let paused = || {
            Attempt::Held(Held::Paused {
                wait: seconds(20),
                spread: seconds(60),
            })
        };
        for (random, due) in [(0.0, 20), (0.5, 50), (1.0, 80)] {
            let held = later(paused(), &history(3, seconds(0)), random);
            assert_eq!((held.due, held.failures), (NOW + seconds(due), 3));
            assert!(!held.was_tried);
        }
    }

    #[test]
    fn waiting_for_a_turn_or_for_the_operator_has_no_deadline() {
        let old = history(0, policy().deadline() * 2);
        let turn = Attempt::Held(Held::Paced { wait: seconds(90) });
        assert_eq!(later(turn, &old, 1.0).due, NOW + seconds(90));
        let far = Attempt::Held(Held::Paced {
            wait: seconds(90_000),
        });
        assert_eq!(later(far, &old, 0.0).due, NOW + LONGEST_TURN);
        let parked = Attempt::Held(Held::Parked);
        assert_eq!(later(parked, &old, 0.0).due, NOW + PARKED);
    }
}
