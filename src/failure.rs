//! Why an attempt to tell somebody failed, in the classes that decide what happens next.
//!
//! Each client says in its own words what went wrong, and puts that into one of these classes; from there on nobody asks
//! which provider it was. The texts are for logs and for the property `last-error`: no personal data, no secrets.

use std::{fmt, time::Duration};

/// A failed attempt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    pub class: Class,
    /// How long the other side asks to be left alone, an hour at most.
    pub retry_after: Option<Duration>,
    /// What happened, in a few words.
    pub answer: String,
    /// The other side was asked about all earlier attempts, and has taken none of them.
    pub nothing_taken: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Class {
    /// It was not taken, and can be later: no connection, 408, 425, 503, SMTP 4xx; from a vendor anything but a 2xx.
    Transient,
    /// It was not taken, because too much was sent (429, a quota).
    RateLimited,
    /// Nobody knows whether it was taken: no answer after the request was written, or an error of a server
    /// behind a gateway.
    Ambiguous,
    /// This message was not taken, and can be later; of others it says nothing: SMTP 4xx about a recipient, 409 about an
    /// attempt that is still being worked on.
    Deferred,
    /// Nothing is taken from us: 401, 403, SMTP 535. A person has to mend it.
    ChannelBroken,
    /// The vendor's endpoint is gone (410). A person has to ask the vendor.
    Gone,
    /// This message will never be taken.
    Refused,
    /// The provider has another email under this one's key.
    KnownOtherwise,
    /// The function panicked over it. Another version of it may not.
    HandlerFault,
}

impl Class {
    /// As in the property `last-error` and in the log.
    pub fn name(self) -> &'static str {
        match self {
            Self::Transient => "transient",
            Self::RateLimited => "rate-limited",
            Self::Ambiguous => "ambiguous",
            Self::Deferred => "deferred",
            Self::ChannelBroken => "channel-broken",
            Self::Gone => "gone",
            Self::Refused => "refused",
            Self::KnownOtherwise => "known-otherwise",
            Self::HandlerFault => "handler-fault",
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.class.name(), self.answer)
    }
}

impl Failure {
    /// A panic of ours. What it said may be anything, and is not repeated.
    pub fn handler_fault() -> Self {
        Self {
            class: Class::HandlerFault,
            retry_after: None,
            answer: "the function panicked".to_owned(),
            nothing_taken: false,
        }
    }
}

/// The pauses before the second and the third try within one invocation: enough for a restart or a lost connection.
const QUICK_PAUSES: [Duration; 2] = [Duration::from_secs(1), Duration::from_secs(3)];

/// All tries within one invocation begin within this time: each of them holds a place among the concurrent calls.
const QUICK_TIME: Duration = Duration::from_secs(8);

impl Failure {
    /// The pause after which the same invocation tries once more; `tries` have failed in it, in `elapsed`.
    ///
    /// Only after a clear no that says nothing of a longer wait. What may have been taken is not repeated in a hurry: the
    /// answer to it may still come to light.
    pub fn quick_retry(&self, tries: usize, elapsed: Duration, random: f64) -> Option<Duration> {
        let pause = QUICK_PAUSES.get(tries.checked_sub(1)?)?;
        let pause = pause.mul_f64(1.0 + random.clamp(0.0, 1.0) / 4.0);
        let is_soon =
            elapsed + pause < QUICK_TIME && self.retry_after.is_none_or(|wait| wait <= pause);
        (self.class == Class::Transient && is_soon).then_some(pause)
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) fn failure(class: Class) -> Failure {
        Failure {
            class,
            retry_after: None,
            answer: "503".to_owned(),
            nothing_taken: false,
        }
    }

    #[test]
    fn a_clear_no_is_tried_twice_more_within_ten_seconds() {
        let no = failure(Class::Transient);
        assert_eq!(
            no.quick_retry(1, Duration::ZERO, 0.0),
            Some(QUICK_PAUSES[0])
        );
        assert_eq!(
            no.quick_retry(2, Duration::from_secs(1), 1.0),
            Some(Duration::from_millis(3750))
        );
        assert_eq!(no.quick_retry(3, Duration::from_secs(4), 0.0), None);
        assert_eq!(no.quick_retry(1, Duration::from_secs(7), 0.0), None);
        assert!(QUICK_TIME + QUICK_PAUSES[0] < Duration::from_secs(10));
    }

    #[test]
    fn whoever_asks_for_time_or_may_have_taken_it_is_left_alone() {
        for class in [
            Class::RateLimited,
            Class::Ambiguous,
            Class::Deferred,
            Class::ChannelBroken,
            Class::Gone,
            Class::Refused,
            Class::KnownOtherwise,
            Class::HandlerFault,
        ] {
            assert_eq!(failure(class).quick_retry(1, Duration::ZERO, 0.0), None);
        }
        let wait = Failure {
            retry_after: Some(Duration::from_secs(2)),
            ..failure(Class::Transient)
        };
        assert_eq!(wait.quick_retry(1, Duration::ZERO, 0.0), None);
        assert!(wait.quick_retry(2, Duration::ZERO, 0.0).is_some());
    }
}
