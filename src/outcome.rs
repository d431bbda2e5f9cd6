//! What becomes of a message for one recipient: delivered, later or dead.
//!
//! [`decide`] is the one place where that is decided, from what the attempt came to, the message's history and the
//! time. It is pure. [`crate::redelivery`] turns it into messages, and [`crate::delivery`] into the answer to the host.

use std::time::Duration;

use time::OffsetDateTime;

use crate::{
    attempt::{Attempt, Held, Pause},
    durations,
    failure::{Class, Failure},
    history::History,
    rate_limit::LONGEST_TURN,
    retry_policy::{GRACE, RetryPolicy},
};

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
    pub held: Duration,
    pub unconfirmed_since: Option<OffsetDateTime>,
    /// Class and answer, for `last-error` and the log.
    pub error: String,
    /// Whether an attempt was made.
    pub was_tried: bool,
}

impl Later {
    /// The class of the failure, or by what it was held back, without what the other side answered.
    pub fn class(&self) -> &str {
        self.error.split(':').next().unwrap_or_default()
    }
}

/// The message is given up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Dead {
    pub reason: Reason,
    pub description: String,
    /// These two as of now, as for one that comes later.
    pub failures: u32,
    pub unconfirmed_since: Option<OffsetDateTime>,
}

impl Dead {
    /// Of a message of which no attempt was made.
    pub fn new(reason: Reason, description: String) -> Self {
        Self {
            reason,
            description,
            failures: 0,
            unconfirmed_since: None,
        }
    }
}

/// Why a message is given up: a closed list, which operators filter by. The names are in the style of Service Bus's own,
/// and are explained in `docs/DEAD-LETTERS.md`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reason {
    /// The body is not an event of ours.
    Unreadable,
    /// The email provider will never take this email.
    EmailRefused,
    /// The email provider has an email under the same key whose text is none that we would write now.
    EmailKnown,
    /// The vendor is not in `VENDORS_FILE`, or not in the order.
    UnknownVendor,
    /// The till will never take this order as it is written; the order is not cancelled.
    TillRefused,
    /// The payment token was good only for a while, or for one attempt, and it was our delay that used that up; the order is
    /// not cancelled.
    PaymentLapsed,
    /// The order was cancelled after it had gone to the till.
    CancelledTooLate,
    /// Its property `audience` names another one than that of the queue or subscription that it came to.
    WrongAudience,
    /// `RETRY_DEADLINE` has passed without success.
    DeadlineExceeded,
}

impl Reason {
    pub fn name(self) -> &'static str {
        match self {
            Self::Unreadable => "Unreadable",
            Self::EmailRefused => "EmailRefused",
            Self::EmailKnown => "EmailKnown",
            Self::UnknownVendor => "UnknownVendor",
            Self::TillRefused => "TillRefused",
            Self::PaymentLapsed => "PaymentLapsed",
            Self::CancelledTooLate => "CancelledTooLate",
            Self::WrongAudience => "WrongAudience",
            Self::DeadlineExceeded => "DeadlineExceeded",
        }
    }
}

/// A parked vendor's messages look this often whether it is still parked.
const PARKED: Duration = Duration::from_secs(10 * 60);

/// Before the last failure, in the `last-error` of a message that was only held back since.
pub const LAST_FAILURE: &str = "; the last failure: ";

/// Nothing comes back sooner over the bus.
const SHORTEST_WAIT: Duration = Duration::from_secs(1);

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
        Attempt::Told | Attempt::Overtaken => Outcome::Delivered,
        Attempt::Impossible(dead) => Outcome::Dead(dead),
        Attempt::Held(held) => held_back(held, history, policy, now, random),
        Attempt::Failed(failure) => failed(&failure, history, policy, now, random),
    }
}

/// Nobody was called, which is no reason to give up: only one that others have kept waiting beyond its grace is dead.
fn held_back(
    held: Held,
    history: &History,
    policy: &RetryPolicy,
    now: OffsetDateTime,
    random: f64,
) -> Outcome {
    let (wait, counts, why) = match held {
        Held::Paused { why, wait, spread } => {
            let (counts, why) = match why {
                Pause::Failing => (true, "paused: not tried while others fail"),
                Pause::Refusing => (true, "paused: not tried while nothing is taken from us"),
                Pause::Throttling => (false, "paused: not tried while others are too many"),
                Pause::Gone => (
                    false,
                    "gone: not tried while the vendor says that it is gone",
                ),
            };
            (wait + spread.mul_f64(random), counts, why)
        }
        Held::Paced { wait } => {
            let wait = match wait {
                // They would come back together.
                wait if wait > LONGEST_TURN => LONGEST_TURN.mul_f64(1.0 + random / 4.0),
                wait => wait,
            };
            (wait, false, "paced: waits its turn under EMAIL_RATE_LIMIT")
        }
        Held::Parked => {
            let why = "parked: the vendor is in PARKED_VENDORS";
            (PARKED.mul_f64(1.0 + random), false, why)
        }
    };
    let error = match &history.last_failure {
        Some(failure) => format!("{why}{LAST_FAILURE}{failure}"),
        None => why.to_owned(),
    };
    if counts && now >= history.deadline(policy) + GRACE {
        return Outcome::Dead(Dead {
            reason: Reason::DeadlineExceeded,
            description: given_up(&error, history.failures, policy),
            failures: history.failures,
            unconfirmed_since: history.unconfirmed_since,
        });
    }
    let wait = wait.max(SHORTEST_WAIT);
    Outcome::Later(Later {
        due: now + wait,
        failures: history.failures,
        held: if counts {
            history.held
        } else {
            history.held + wait
        },
        unconfirmed_since: history.unconfirmed_since,
        error,
        was_tried: false,
    })
}

fn failed(
    failure: &Failure,
    history: &History,
    policy: &RetryPolicy,
    now: OffsetDateTime,
    random: f64,
) -> Outcome {
    let unconfirmed_since = match failure.class {
        Class::Ambiguous => history.unconfirmed_since.or(Some(now)),
        _ if failure.nothing_taken => None,
        _ => history.unconfirmed_since,
    };
    let failures = |counts: bool| history.failures.saturating_add(u32::from(counts));
    let dead = |reason, description, counts| {
        Outcome::Dead(Dead {
            reason,
            description,
            failures: failures(counts),
            unconfirmed_since,
        })
    };
    let deadline = history.deadline(policy);
    // Until when one more failure is followed by another try, and whether it counts.
    let (until, counts) = match failure.class {
        Class::Refused => return dead(Reason::EmailRefused, failure.answer.clone(), true),
        Class::KnownOtherwise => return dead(Reason::EmailKnown, failure.answer.clone(), true),
        Class::RateLimited => (Some(deadline + GRACE), false),
        Class::Gone => (None, true),
        Class::Transient
        | Class::Ambiguous
        | Class::Deferred
        | Class::ChannelBroken
        | Class::HandlerFault => (Some(deadline), true),
    };
    let error = failure.to_string();
    if until.is_some_and(|until| now >= until) {
        let description = given_up(&error, failures(counts), policy);
        return dead(Reason::DeadlineExceeded, description, counts);
    }
    let asked = failure.retry_after.unwrap_or_default();
    // The last try is at the deadline, but not before anybody who asked for more time wants it.
    let until_deadline = Duration::try_from(deadline - now).unwrap_or_default();
    let wait = policy.wait(history.failures, failure.retry_after, random);
    let wait = match until {
        Some(_) if !until_deadline.is_zero() => wait.min(until_deadline).max(asked),
        Some(_) => wait,
        // As often as those who are held back meanwhile.
        None => wait.min(PARKED),
    };
    let wait = wait.max(SHORTEST_WAIT);
    Outcome::Later(Later {
        due: now + wait,
        failures: failures(counts),
        held: match until {
            Some(_) => history.held,
            None => history.held + wait,
        },
        unconfirmed_since,
        error,
        was_tried: true,
    })
}

/// What an operator has to know comes first: a table may cut off the rest.
fn given_up(last: &str, failures: u32, policy: &RetryPolicy) -> String {
    let deadline = durations::written(policy.deadline());
    format!("{last}; given up after {deadline}, failed attempts: {failures}")
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
            Class::Deferred,
            Class::ChannelBroken,
            Class::Gone,
            Class::HandlerFault,
        ] {
            let first = later(failed(class), &history(0, seconds(0)), 0.0);
            assert_eq!(first.due, NOW + seconds(30));
            assert_eq!(first.failures, 1);
            assert!(first.was_tried);
            assert_eq!(first.error, format!("{}: 503", class.name()));
            let fifth = later(failed(class), &history(4, seconds(0)), 1.0);
            // One that is gone is asked as often as those that are held back.
            let due = if class == Class::Gone { 600 } else { 750 };
            assert_eq!(fifth.due, NOW + seconds(due));
            assert_eq!(fifth.failures, 5);
        }
    }

    fn asks_for(class: Class, wait: u64) -> Attempt {
        Attempt::Failed(Failure {
            retry_after: Some(seconds(wait)),
            ..failure(class)
        })
    }

    #[test]
    fn a_rate_limit_waits_as_it_is_asked_to_and_does_not_count() {
        let limited = later(
            asks_for(Class::RateLimited, 600),
            &history(2, seconds(0)),
            0.0,
        );
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

    fn dead(attempt: Attempt, history: &History) -> Dead {
        match decide(attempt, history, &policy(), NOW, 0.0) {
            Outcome::Dead(dead) => dead,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn what_is_refused_is_dead_at_once() {
        let fresh = history(0, seconds(0));
        assert_eq!(
            dead(failed(Class::Refused), &fresh).reason,
            Reason::EmailRefused
        );
        assert_eq!(
            dead(failed(Class::KnownOtherwise), &fresh).reason,
            Reason::EmailKnown
        );
    }

    #[test]
    fn the_last_try_is_at_the_deadline_and_then_it_is_dead() {
        let deadline = policy().deadline();
        let almost = history(99, deadline - seconds(600));
        assert_eq!(
            later(failed(Class::Transient), &almost, 1.0).due,
            NOW + seconds(600)
        );
        // Nobody is called before the time that they asked for.
        let asked = later(asks_for(Class::Transient, 3600), &almost, 0.0);
        assert_eq!(asked.due, NOW + seconds(3600));
        let just = history(99, deadline - Duration::from_millis(1));
        assert_eq!(
            later(failed(Class::Transient), &just, 1.0).due,
            NOW + seconds(1)
        );

        let over = history(99, deadline);
        for class in [
            Class::Transient,
            Class::Ambiguous,
            Class::Deferred,
            Class::HandlerFault,
        ] {
            let dead = dead(failed(class), &over);
            assert_eq!(dead.reason, Reason::DeadlineExceeded);
            assert_eq!(dead.failures, 100);
            let expected = format!(
                "{}: 503; given up after 72h, failed attempts: 100",
                class.name()
            );
            assert_eq!(dead.description, expected);
        }
    }

    #[test]
    fn who_was_not_tried_at_the_deadline_has_an_hour_of_grace() {
        let paused = || {
            Attempt::Held(Held::Paused {
                why: Pause::Failing,
                wait: seconds(600),
                spread: seconds(600),
            })
        };
        let deadline = policy().deadline();
        let over = history(99, deadline + seconds(3599));
        assert_eq!(later(paused(), &over, 0.0).due, NOW + seconds(600));
        assert_eq!(later(failed(Class::RateLimited), &over, 0.0).failures, 99);
        let long_over = history(99, deadline + seconds(3600));
        assert_eq!(dead(paused(), &long_over).reason, Reason::DeadlineExceeded);
        assert_eq!(
            dead(failed(Class::RateLimited), &long_over).reason,
            Reason::DeadlineExceeded
        );
    }

    #[test]
    fn who_is_held_comes_back_spread_out_and_has_not_failed() {
        let paused = |wait, spread| {
            Attempt::Held(Held::Paused {
                why: Pause::Failing,
                wait: seconds(wait),
                spread: seconds(spread),
            })
        };
        for (random, due) in [(0.0, 20), (0.5, 50), (1.0, 80)] {
            let held = later(paused(20, 60), &history(3, seconds(0)), random);
            assert_eq!((held.due, held.failures), (NOW + seconds(due), 3));
            assert_eq!(held.held, Duration::ZERO);
            assert!(!held.was_tried);
        }
        let at_once = later(paused(0, 0), &history(3, seconds(0)), 0.0);
        assert_eq!(at_once.due, NOW + seconds(1));
    }

    #[test]
    fn the_last_failure_is_not_forgotten_while_it_is_held() {
        let failed_before = History {
            last_failure: Some("transient: 503".to_owned()),
            ..history(3, seconds(0))
        };
        let held = later(Attempt::Held(Held::Parked), &failed_before, 0.0);
        assert!(held.error.starts_with("parked: "), "{}", held.error);
        assert!(
            held.error.ends_with("; the last failure: transient: 503"),
            "{}",
            held.error
        );
    }

    #[test]
    fn the_doubt_of_the_last_try_stays_with_the_dead_letter() {
        let over = history(9, policy().deadline());
        assert_eq!(
            dead(failed(Class::Ambiguous), &over).unconfirmed_since,
            Some(NOW)
        );
        assert_eq!(
            dead(failed(Class::Transient), &over).unconfirmed_since,
            None
        );
    }

    #[test]
    fn waiting_for_a_turn_or_for_a_person_has_no_deadline_and_costs_none() {
        let old = history(0, policy().deadline() * 2);
        let gone = Held::Paused {
            why: Pause::Gone,
            wait: seconds(5),
            spread: seconds(0),
        };
        for (held, random, wait) in [
            (Held::Paced { wait: seconds(90) }, 1.0, seconds(90)),
            (
                Held::Paced {
                    wait: seconds(90_000),
                },
                0.0,
                LONGEST_TURN,
            ),
            (Held::Parked, 0.0, PARKED),
            (gone, 1.0, seconds(5)),
        ] {
            let later = later(Attempt::Held(held), &old, random);
            assert_eq!((later.due, later.held), (NOW + wait, wait));
        }
        let gone = later(failed(Class::Gone), &old, 0.0);
        assert_eq!(gone.held, seconds(30));

        // What it has waited so puts the deadline off.
        let waited = History {
            held: policy().deadline(),
            ..history(0, policy().deadline() + seconds(60))
        };
        assert_eq!(
            later(failed(Class::Transient), &waited, 0.0).due,
            NOW + seconds(30)
        );
    }
}
