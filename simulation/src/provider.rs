//! The email provider and the vendors, as their documentation describes them: what they take, when they fail, and
//! whether they know a repetition.

use std::{collections::BTreeMap, time::Duration};

use fastrand::Rng;
use orderup::failure::{Class, Failure};

use crate::scenario::{Fault, Outage, Semantics};

/// How long Resend knows a key.
pub const KEYED_FOR: Duration = Duration::from_secs(24 * 60 * 60);

/// How a call ends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    Taken,
    /// It refuses this message for good: another body under a key that it knows.
    OtherBody,
    Failed(Class, Option<Duration>),
}

/// What a call did.
#[derive(Debug)]
pub struct Call {
    pub answer: Answer,
    /// The recipient got it, by this call.
    pub has_reached: bool,
}

/// Somebody outside.
#[derive(Debug)]
pub struct Provider {
    outages: Vec<Outage>,
    semantics: Semantics,
    /// By key: when it was last taken, and the body.
    taken: BTreeMap<String, (Duration, String)>,
}

impl Provider {
    pub fn new(outages: &[Outage], semantics: Semantics) -> Self {
        Self {
            outages: outages.to_vec(),
            semantics,
            taken: BTreeMap::new(),
        }
    }

    /// How long a call takes that begins now.
    pub fn latency(&self, now: Duration, rng: &mut Rng) -> Duration {
        match self.fault(now, rng) {
            Some(Fault::Slow) => Duration::from_secs(10),
            Some(Fault::AnswerLost | Fault::RequestLost) => Duration::from_secs(15),
            _ => Duration::from_millis(rng.u64(5..300)),
        }
    }

    /// The moment in which a call takes effect.
    pub fn call(&mut self, now: Duration, key: &str, body: &str, rng: &mut Rng) -> Call {
        let fault = self.fault(now, rng);
        let failed = |class, retry_after| Call {
            answer: Answer::Failed(class, retry_after),
            has_reached: false,
        };
        match fault {
            Some(Fault::Down) => return failed(Class::Transient, None),
            Some(Fault::Throttled) => {
                let retry_after = Duration::from_secs(rng.u64(1..120));
                return failed(Class::RateLimited, rng.bool().then_some(retry_after));
            }
            Some(Fault::Refusing) => return failed(Class::ChannelBroken, None),
            Some(Fault::Gone) => return failed(Class::Gone, None),
            Some(Fault::RequestLost) => return failed(Class::Ambiguous, None),
            Some(Fault::AnswerLost | Fault::Slow) | None => {}
        }
        let known = self.known(now, key);
        let has_reached = match (self.semantics, known) {
            (Semantics::Keyless, _) | (_, None) => true,
            (Semantics::Asked | Semantics::Keyed, Some(known)) if known != body => {
                return Call {
                    answer: Answer::OtherBody,
                    has_reached: false,
                };
            }
            (Semantics::Asked | Semantics::Keyed, Some(_)) => false,
        };
        if has_reached {
            self.taken.insert(key.to_owned(), (now, body.to_owned()));
        }
        Call {
            answer: match fault {
                Some(Fault::AnswerLost) => Answer::Failed(Class::Ambiguous, None),
                _ => Answer::Taken,
            },
            has_reached,
        }
    }

    /// Whether it has taken that; nothing where it cannot be asked now.
    pub fn ask(&self, now: Duration, key: &str, rng: &mut Rng) -> Option<bool> {
        match self.fault(now, rng) {
            None | Some(Fault::Slow) => Some(self.known(now, key).is_some()),
            Some(_) => None,
        }
    }

    /// Whether it has worked for so long, up to `now`, without any fault.
    pub fn has_worked_since(&self, since: Duration, now: Duration) -> bool {
        self.outages
            .iter()
            .all(|outage| outage.to <= since || outage.from >= now)
    }

    fn known(&self, now: Duration, key: &str) -> Option<&str> {
        self.taken
            .get(key)
            .filter(|(at, _)| self.semantics != Semantics::Keyed || now - *at < KEYED_FOR)
            .map(|(_, body)| body.as_str())
    }

    fn fault(&self, now: Duration, rng: &mut Rng) -> Option<Fault> {
        self.outages
            .iter()
            .find(|outage| (outage.from..outage.to).contains(&now) && rng.f64() < outage.share)
            .map(|outage| outage.fault)
    }
}

/// The failure as the handler's client would tell it.
pub fn failure(class: Class, retry_after: Option<Duration>, nothing_taken: bool) -> Failure {
    Failure {
        class,
        retry_after,
        answer: "simulated".to_owned(),
        nothing_taken,
    }
}
