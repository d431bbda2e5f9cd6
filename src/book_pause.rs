//! Leaves an order book alone that does not answer, so that it does not add seconds to every notification.
//!
//! In the memory of one instance, for one order book. After a few failures in a row nothing is asked of it, but for one
//! call every few seconds, the probe; the first call that works ends the pause. Pure: the time is an argument.

use std::time::Duration;

use tokio::time::Instant;

/// As many failures in a row are an outage.
const FAILURES: u32 = 3;

/// What lies between two probes, and so what a recovery may go unnoticed.
const PROBE_EVERY: Duration = Duration::from_secs(10);

#[derive(Debug, Default)]
pub struct BookPause {
    failures: u32,
    /// There is one while it lasts. A probe whose caller went away is followed by the next one all the same.
    next_probe: Option<Instant>,
}

/// What a call changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    Begun,
    Ended,
}

impl BookPause {
    /// Whether the book may be asked at `now`; if so, the result has to be recorded.
    pub fn admits(&mut self, now: Instant) -> bool {
        match self.next_probe {
            Some(next) if now < next => return false,
            Some(_) => self.next_probe = Some(now + PROBE_EVERY),
            None => {}
        }
        true
    }

    /// What a call came to. That of a call which was under way when the pause began counts as well: an answer
    /// shows that the book works.
    pub fn record(&mut self, now: Instant, has_worked: bool) -> Option<Change> {
        if has_worked {
            self.failures = 0;
            return self.next_probe.take().map(|_| Change::Ended);
        }
        self.failures = self.failures.saturating_add(1);
        if self.failures < FAILURES || self.next_probe.is_some() {
            return None;
        }
        self.next_probe = Some(now + PROBE_EVERY);
        Some(Change::Begun)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const JUST_BEFORE: Duration = Duration::from_millis(9_999);

    fn paused_at(now: Instant) -> BookPause {
        let mut pause = BookPause::default();
        for expected in [None, None, Some(Change::Begun)] {
            assert!(pause.admits(now));
            assert_eq!(pause.record(now, false), expected);
        }
        pause
    }

    #[test]
    fn three_failures_in_a_row_are_needed() {
        let now = Instant::now();
        let mut pause = BookPause::default();
        for has_worked in [false, false, true, false, false, true] {
            assert!(pause.admits(now));
            assert_eq!(pause.record(now, has_worked), None);
        }
    }

    #[test]
    fn one_call_in_ten_seconds_probes() {
        let now = Instant::now();
        let mut pause = paused_at(now);
        assert!(!pause.admits(now + JUST_BEFORE));
        let later = now + PROBE_EVERY;
        assert!(pause.admits(later));
        assert!(!pause.admits(later));
        assert_eq!(pause.record(later, false), None);
        assert!(!pause.admits(later + JUST_BEFORE));
        assert!(pause.admits(later + PROBE_EVERY));
    }

    #[test]
    fn a_call_that_works_ends_it() {
        let now = Instant::now();
        let mut pause = paused_at(now);
        let later = now + PROBE_EVERY;
        assert!(pause.admits(later));
        assert_eq!(pause.record(later, true), Some(Change::Ended));
        assert!(pause.admits(later) && pause.admits(later));
        assert_eq!(pause.record(later, false), None);
    }

    #[test]
    fn a_probe_that_is_never_heard_of_again_is_followed_by_another() {
        let now = Instant::now();
        let mut pause = paused_at(now);
        assert!(pause.admits(now + PROBE_EVERY));
        assert!(pause.admits(now + 2 * PROBE_EVERY));
    }
}
