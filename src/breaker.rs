//! Leaves a provider or a vendor alone while it is down.
//!
//! In the memory of one instance, one for the email provider and one for each vendor. Closed, it lets every call
//! through. After a few failures in a row, or at once when the other side asks for time or refuses us, it opens: nothing
//! is called until a pause is over, and then one call, the probe, decides. A pause that did not help is followed by a
//! longer one, along `RETRY_SCHEDULE`. Pure: the time is an argument.

use std::time::Duration;

use tokio::time::Instant;

use crate::{attempt::Pause, retry_policy::RetryPolicy};

/// As many failures in a row are an outage. Fewer happen to a provider that is well.
const FAILURES: u32 = 5;

/// No pause is longer, however long the outage: it is what a recovery may go unnoticed, and trying once in
/// ten minutes costs nobody anything. A pause that the other side asks for may be longer.
const LONGEST_PAUSE: Duration = Duration::from_secs(10 * 60);

/// No pause is shorter, whatever is asked for: what waits goes over the bus meanwhile.
const SHORTEST_PAUSE: Duration = Duration::from_secs(1);

/// A probe that has not answered after this time never will: its call is gone. Longer than any call, ACS's with all its
/// questions and tokens included.
const PROBE_PATIENCE: Duration = Duration::from_secs(180);

#[derive(Debug, Clone)]
pub struct Breaker {
    pauses: Vec<Duration>,
    state: State,
    /// Rises with every change that makes the results of earlier calls void.
    era: u64,
}

/// What an admitted call is recorded with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ticket(u64);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Closed { failures: u32 },
    Open { until: Instant, rest: Rest },
    Probing { since: Instant, rest: Rest },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Rest {
    /// Which of the pauses comes next if this one does not help.
    next: usize,
    length: Duration,
    why: Pause,
}

/// Nothing may be called for `wait`; those who wait should come back spread over the time `spread` after it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Hold {
    pub wait: Duration,
    pub spread: Duration,
    pub why: Pause,
}

/// What a call told about the other side.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Signal {
    /// It works, whatever it thinks of this message.
    Alive,
    /// It is down, or seems to be.
    Failing { retry_after: Option<Duration> },
    /// It asks for time, and works.
    Throttling { retry_after: Option<Duration> },
    /// It takes nothing from us until a person mends it.
    Refusing,
    /// It says that it is gone.
    Gone,
}

/// What a call changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    Opened { pause: Duration },
    Closed,
}

impl Breaker {
    pub fn new(policy: &RetryPolicy) -> Self {
        let steps = policy.steps().iter();
        let pauses = steps.map(|step| (*step).min(LONGEST_PAUSE)).collect();
        Self {
            pauses,
            state: State::Closed { failures: 0 },
            era: 0,
        }
    }

    /// Whether a call may be made now; if so, its result has to be recorded.
    pub fn admit(&mut self, now: Instant) -> Result<Ticket, Hold> {
        let (wait, rest) = match self.state {
            State::Closed { .. } => return Ok(Ticket(self.era)),
            State::Open { until, rest } => (until.saturating_duration_since(now), rest),
            // Its answer is not known yet; those who wait for it need not wait for the next pause.
            State::Probing { since, rest } if now < since + PROBE_PATIENCE => {
                return Err(self.hold(SHORTEST_PAUSE, rest));
            }
            State::Probing { rest, .. } => (Duration::ZERO, rest),
        };
        if wait.is_zero() {
            self.era += 1;
            self.state = State::Probing { since: now, rest };
            return Ok(Ticket(self.era));
        }
        Err(self.hold(wait, rest))
    }

    /// However short the pause was, a backlog does not come back all at once.
    fn hold(&self, wait: Duration, rest: Rest) -> Hold {
        Hold {
            wait,
            spread: rest.length.clamp(self.pauses[0], LONGEST_PAUSE),
            why: rest.why,
        }
    }

    /// Takes back an admission whose call was not made.
    pub fn not_called(&mut self, now: Instant) {
        if let State::Probing { rest, .. } = self.state {
            self.state = State::Open { until: now, rest };
        }
    }

    /// What an admitted call came to. Calls that were in flight when it opened change nothing.
    pub fn record(&mut self, now: Instant, ticket: Ticket, signal: Signal) -> Option<Change> {
        if ticket != Ticket(self.era) {
            return None;
        }
        let (failures, next) = match self.state {
            State::Closed { failures } => (failures, 0),
            State::Probing { rest, .. } => (FAILURES, rest.next),
            State::Open { .. } => return None,
        };
        let (length, why) = match signal {
            Signal::Alive => {
                let was = std::mem::replace(&mut self.state, State::Closed { failures: 0 });
                return matches!(was, State::Probing { .. }).then_some(Change::Closed);
            }
            Signal::Failing { .. } if failures + 1 < FAILURES => {
                self.state = State::Closed {
                    failures: failures + 1,
                };
                return None;
            }
            Signal::Failing { retry_after } => {
                let asked = retry_after.unwrap_or_default();
                (self.pause(next).max(asked), Pause::Failing)
            }
            Signal::Throttling { retry_after } => {
                (retry_after.unwrap_or(self.pause(next)), Pause::Throttling)
            }
            Signal::Refusing => (self.pause(next), Pause::Refusing),
            Signal::Gone => (self.pause(next), Pause::Gone),
        };
        let length = length.max(SHORTEST_PAUSE);
        let before = match self.state {
            State::Probing { rest, .. } => Some(rest.why),
            State::Closed { .. } | State::Open { .. } => None,
        };
        // A provider that only asks for time is not getting worse.
        let next = next + usize::from(why != Pause::Throttling);
        self.era += 1;
        self.state = State::Open {
            until: now + length,
            rest: Rest { next, length, why },
        };
        // A probe that failed opens nothing that was not open, unless a person is needed now who was not before.
        let needs_a_person = matches!(why, Pause::Refusing | Pause::Gone) && before != Some(why);
        (before.is_none() || needs_a_person).then_some(Change::Opened { pause: length })
    }

    fn pause(&self, index: usize) -> Duration {
        self.pauses[index.min(self.pauses.len() - 1)]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{config::Settings, retry_policy::tests::policy};

    const DOWN: Signal = Signal::Failing { retry_after: None };

    fn seconds(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    /// A call that ends at once.
    fn call(breaker: &mut Breaker, now: Instant, signal: Signal) -> Option<Change> {
        let ticket = breaker.admit(now).unwrap();
        breaker.record(now, ticket, signal)
    }

    fn opened(pause: u64) -> Option<Change> {
        let pause = seconds(pause);
        Some(Change::Opened { pause })
    }

    /// A breaker that opened at this time, for 30 seconds.
    fn open() -> (Breaker, Instant) {
        let mut breaker = Breaker::new(&policy());
        let now = Instant::now();
        for _ in 1..FAILURES {
            assert_eq!(call(&mut breaker, now, DOWN), None);
        }
        assert_eq!(call(&mut breaker, now, DOWN), opened(30));
        (breaker, now)
    }

    #[test]
    fn only_failures_in_a_row_open_it() {
        let mut breaker = Breaker::new(&policy());
        let now = Instant::now();
        for _ in 0..10 {
            for _ in 1..FAILURES {
                assert_eq!(call(&mut breaker, now, DOWN), None);
            }
            assert_eq!(call(&mut breaker, now, Signal::Alive), None);
        }
        assert!(breaker.admit(now).is_ok());
    }

    #[test]
    fn while_it_is_open_nothing_is_called_and_then_one_probe() {
        let (mut breaker, now) = open();
        let hold = Hold {
            wait: seconds(20),
            spread: seconds(30),
            why: Pause::Failing,
        };
        assert_eq!(breaker.admit(now + seconds(10)), Err(hold));

        let later = now + seconds(30);
        let probe = breaker.admit(later).unwrap();
        assert!(breaker.admit(later).is_err(), "one probe at a time");
        let closed = breaker.record(later, probe, Signal::Alive);
        assert_eq!(closed, Some(Change::Closed));
        assert!(breaker.admit(later).is_ok());
        assert!(breaker.admit(later).is_ok());
    }

    #[test]
    fn what_was_in_flight_when_it_opened_says_nothing_of_the_time_after() {
        let mut breaker = Breaker::new(&policy());
        let now = Instant::now();
        let in_flight = breaker.admit(now).unwrap();
        assert_eq!(call(&mut breaker, now, Signal::Refusing), opened(30));
        assert_eq!(breaker.record(now, in_flight, Signal::Alive), None);
        assert!(breaker.admit(now).is_err());
        let probe = breaker.admit(now + seconds(30)).unwrap();
        assert_eq!(breaker.record(now, in_flight, DOWN), None);
        assert_eq!(breaker.record(now, in_flight, Signal::Alive), None);
        assert!(
            breaker.admit(now + seconds(30)).is_err(),
            "the probe decides"
        );
        assert!(breaker.record(now, probe, Signal::Alive).is_some());
        assert_eq!(breaker.record(now, in_flight, DOWN), None);
    }

    #[test]
    fn a_probe_that_fails_makes_the_next_pause_longer_up_to_ten_minutes() {
        let (mut breaker, mut now) = open();
        now += seconds(30);
        for pause in [60, 120, 300, 600, 600, 600] {
            assert_eq!(call(&mut breaker, now, DOWN), None, "it was open before");
            let hold = breaker.admit(now).unwrap_err();
            assert_eq!(hold.wait, seconds(pause));
            now += hold.wait;
        }
        // An hour that the other side asks for is more than the ten minutes.
        let retry_after = Some(seconds(3600));
        call(&mut breaker, now, Signal::Failing { retry_after });
        let hold = breaker.admit(now).unwrap_err();
        assert_eq!((hold.wait, hold.spread), (seconds(3600), LONGEST_PAUSE));
    }

    #[test]
    fn an_outage_that_comes_to_need_a_person_says_so() {
        let (mut breaker, mut now) = open();
        for (signal, change) in [
            (DOWN, None),
            (Signal::Refusing, opened(120)),
            (Signal::Refusing, None),
            (DOWN, None),
        ] {
            now += seconds(3600);
            assert_eq!(call(&mut breaker, now, signal), change);
        }
    }

    #[test]
    fn a_probe_that_never_answers_is_followed_by_another() {
        let (mut breaker, now) = open();
        let probed = now + seconds(30);
        assert!(breaker.admit(probed).is_ok());
        assert!(breaker.admit(probed + seconds(179)).is_err());
        assert!(breaker.admit(probed + seconds(180)).is_ok());
    }

    #[test]
    fn a_probe_that_was_not_sent_leaves_the_turn_to_another() {
        let (mut breaker, now) = open();
        let probed = now + seconds(30);
        assert!(breaker.admit(probed).is_ok());
        breaker.not_called(probed);
        assert!(breaker.admit(probed).is_ok());
    }

    #[test]
    fn a_rate_limit_opens_it_at_once_and_does_not_get_worse_by_itself() {
        let now = Instant::now();
        let mut breaker = Breaker::new(&policy());
        let retry_after = Some(seconds(7));
        assert_eq!(
            call(&mut breaker, now, Signal::Throttling { retry_after }),
            opened(7)
        );
        let hold = breaker.admit(now).unwrap_err();
        assert_eq!((hold.wait, hold.spread), (seconds(7), seconds(30)));
        let now = now + seconds(7);
        call(&mut breaker, now, Signal::Throttling { retry_after: None });
        assert_eq!(breaker.admit(now).unwrap_err().wait, seconds(30));
        // A time that is over already is no reason to go in circles.
        let now = now + seconds(30);
        let retry_after = Some(Duration::ZERO);
        call(&mut breaker, now, Signal::Throttling { retry_after });
        assert_eq!(breaker.admit(now).unwrap_err().wait, seconds(1));
    }

    #[test]
    fn a_schedule_that_repeats_a_wait_goes_on_after_it() {
        let settings = [("RETRY_SCHEDULE", "30s,30s,5m")];
        let policy = RetryPolicy::from_settings(&Settings::from_pairs(settings)).unwrap();
        let pauses: Vec<_> = Breaker::new(&policy).pauses;
        assert_eq!(pauses, [seconds(30), seconds(30), seconds(300)]);
    }

    #[test]
    fn a_refusal_of_us_opens_it_at_once_and_gone_is_told_apart() {
        let now = Instant::now();
        for (signal, why) in [
            (Signal::Refusing, Pause::Refusing),
            (Signal::Gone, Pause::Gone),
        ] {
            let mut breaker = Breaker::new(&policy());
            assert_eq!(call(&mut breaker, now, signal), opened(30));
            assert_eq!(breaker.admit(now).unwrap_err().why, why);
        }
    }
}
