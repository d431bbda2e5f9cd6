//! How often the email provider may be called: `EMAIL_RATE_LIMIT`.
//!
//! In the memory of one instance. In no period of a window are there more calls than the limit says, whatever the
//! order in which messages come. Who finds no room is given a time in the line, one after the other, so that a backlog
//! drains at the provider's pace: it waits as a scheduled message on the bus, and not in a circle of
//! refusals. Pure: the time is an argument.

use std::{collections::VecDeque, time::Duration};

use tokio::time::Instant;

use crate::{
    config::{ConfigError, Settings},
    durations,
};

const VARIABLE: &str = "EMAIL_RATE_LIMIT";

/// The longest that a message waits for its turn at once, and so the longest that a place in the line is kept. The limit may
/// have been raised meanwhile, and a scheduled message cannot be called back.
pub const LONGEST_TURN: Duration = Duration::from_secs(60 * 60);

/// A turn that comes as soon as this is waited for in the call: the way over the bus takes about as long.
pub const SHORT_TURN: Duration = Duration::from_secs(2);

/// Each call within the longest window is remembered.
const LARGEST_COUNT: u32 = 100_000;

/// So many calls in any period of that length.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Window {
    count: usize,
    length: Duration,
}

/// The limit of one provider, and the calls that count against it.
#[derive(Debug, Clone)]
pub struct RateLimit {
    windows: Vec<Window>,
    /// When calls were made.
    calls: VecDeque<Instant>,
    /// When calls were made or are promised to be, in ascending order.
    line: VecDeque<Instant>,
}

impl RateLimit {
    /// Reads `EMAIL_RATE_LIMIT`, as in `30/m,100/h` or `none`; `default` is the provider's.
    ///
    /// # Errors
    /// If the setting is neither.
    pub fn from_settings(settings: &Settings, default: &str) -> Result<Self, ConfigError> {
        let text = settings.optional(VARIABLE);
        let text = text.as_deref().unwrap_or(default);
        Self::parse(text).ok_or_else(|| {
            ConfigError::invalid(
                VARIABLE,
                "a part of it is not a number of emails and a time",
                "numbers of emails in a second, minute, hour or day, as in 30/m,100/h, or `none`; 100000 at most",
            )
        })
    }

    fn parse(text: &str) -> Option<Self> {
        let windows: Option<Vec<_>> = match text {
            "none" => Some(Vec::new()),
            _ => text
                .split(',')
                .map(|part| {
                    let (count, unit) = part.trim().split_once('/')?;
                    let count = durations::plain_number(count)
                        .filter(|count| (1..=LARGEST_COUNT).contains(count))?;
                    Some(Window {
                        count: usize::try_from(count).ok()?,
                        length: durations::parse_unit(unit)?,
                    })
                })
                .collect(),
        };
        Some(Self {
            windows: windows?,
            calls: VecDeque::new(),
            line: VecDeque::new(),
        })
    }

    /// Lets a call be made now, or says how long to wait for a place in the line.
    ///
    /// Who has waited comes back with `has_waited`, and then needs only room. Who has not does not overtake the others.
    pub fn admit(&mut self, now: Instant, has_waited: bool) -> Result<(), Duration> {
        if self.windows.is_empty() {
            return Ok(());
        }
        let in_line = self.next(&self.line, now);
        let room = self.next(&self.calls, now);
        let is_turn = has_waited || in_line <= now;
        if is_turn && room <= now {
            self.push(now, has_waited);
            return Ok(());
        }
        if has_waited && room - now <= SHORT_TURN {
            // It is early, and has its place already.
            return Err(room - now);
        }
        // The line may know less than the calls: what came from another instance has no place in it.
        let at = in_line.max(room);
        // Who is sent away for longer comes back before, and would leave its place empty.
        if at - now <= LONGEST_TURN {
            self.line.push_back(at);
            self.trim();
        }
        Err(at - now)
    }

    /// The first time from `now` on at which one more call fits behind these.
    fn next(&self, earlier: &VecDeque<Instant>, now: Instant) -> Instant {
        let after_last = earlier.back().copied().unwrap_or(now).max(now);
        self.windows
            .iter()
            .filter_map(|window| {
                let first = earlier.len().checked_sub(window.count)?;
                Some(earlier[first] + window.length)
            })
            .fold(after_last, Instant::max)
    }

    fn push(&mut self, now: Instant, has_waited: bool) {
        self.calls.push_back(now);
        if !has_waited {
            self.line.push_back(now);
        }
        self.trim();
    }

    /// Forgets what no window needs any more.
    fn trim(&mut self) {
        let most = self.windows.iter().map(|window| window.count).max();
        for times in [&mut self.calls, &mut self.line] {
            while times.len() > most.unwrap_or(0) {
                times.pop_front();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seconds(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn the_setting_is_read_or_told() {
        let read = |text: &str| {
            RateLimit::from_settings(&Settings::from_pairs([(VARIABLE, text)]), "none")
        };
        let limit = read("30/m, 100/h").unwrap();
        assert_eq!(limit.windows.len(), 2);
        assert_eq!(limit.windows[1].count, 100);
        assert_eq!(limit.windows[1].length, seconds(3600));
        assert!(read("none").unwrap().windows.is_empty());
        for text in [
            "30",
            "30/w",
            "0/m",
            "/m",
            "30/m,",
            "100001/s",
            "+1/s",
            "-1/s",
            "unlimited",
        ] {
            let error = read(text).unwrap_err().to_string();
            assert!(error.contains(VARIABLE), "{text}: {error}");
        }
    }

    #[test]
    fn no_window_ever_holds_more_calls_than_its_limit() {
        let mut limit = RateLimit::parse("3/s,10/m").unwrap();
        let start = Instant::now();
        let mut waiting: Vec<Instant> = Vec::new();
        let mut calls: Vec<Instant> = Vec::new();
        // Two messages come in each second for a minute, and whoever waits comes back when it was told to.
        for tick in 0..6000 {
            let now = start + Duration::from_millis(100 * tick);
            let (due, later) = waiting.iter().partition(|at| **at <= now);
            waiting = later;
            let due: Vec<Instant> = due;
            let fresh = if tick < 600 && tick % 5 == 0 { 1 } else { 0 };
            for has_waited in due.iter().map(|_| true).chain((0..fresh).map(|_| false)) {
                match limit.admit(now, has_waited) {
                    Ok(()) => calls.push(now),
                    Err(wait) => waiting.push(now + wait),
                }
            }
        }
        for (count, length) in [(3, seconds(1)), (10, seconds(60))] {
            for window in calls.windows(count + 1) {
                assert!(window[count] - window[0] >= length, "{count} in {length:?}");
            }
        }
        // All of the 120 went out, at the pace of the tighter limit: ten minutes have room for 100.
        assert_eq!(calls.len() + waiting.len(), 120);
        assert!(calls.len() >= 95, "{} of 100", calls.len());
    }

    /// Two thousand messages at once, brought back by a bus that is late and knows whole seconds only.
    #[test]
    fn a_backlog_drains_at_the_pace_of_the_limit_and_leaves_nothing_behind() {
        for (limit, ideal) in [("30/m,100/h", seconds(19 * 3600)), ("2/s", seconds(1000))] {
            let mut limit = RateLimit::parse(limit).unwrap();
            let start = Instant::now();
            let mut waiting: std::collections::BTreeSet<(Duration, u32, bool)> =
                (0..2000).map(|n| (Duration::ZERO, n, false)).collect();
            let mut last = Duration::ZERO;
            while let Some((at, n, has_waited)) = waiting.pop_first() {
                last = at;
                if let Err(wait) = limit.admit(start + at, has_waited) {
                    let due = at + wait.min(LONGEST_TURN + Duration::from_millis(u64::from(n)));
                    let due = if wait > SHORT_TURN {
                        Duration::from_secs(due.as_secs() + 1)
                            + Duration::from_millis(u64::from(n % 400))
                    } else {
                        due
                    };
                    waiting.insert((due, n, true));
                }
            }
            assert!(last < ideal.mul_f64(1.15), "{last:?} for {ideal:?}");
            let next = limit.admit(start + last, false).err().unwrap_or_default();
            assert!(next <= LONGEST_TURN, "the next waits {next:?}");
        }
    }

    #[test]
    fn who_waits_is_given_one_time_after_the_other() {
        let mut limit = RateLimit::parse("2/m").unwrap();
        let now = Instant::now();
        let waits: Vec<_> = (0..6)
            .map(|_| limit.admit(now, false).err().unwrap_or_default().as_secs())
            .collect();
        assert_eq!(waits, [0, 0, 60, 60, 120, 120]);
    }

    #[test]
    fn a_new_message_does_not_overtake_those_who_wait() {
        let mut limit = RateLimit::parse("1/m").unwrap();
        let now = Instant::now();
        assert_eq!(limit.admit(now, false), Ok(()));
        assert_eq!(limit.admit(now, false), Err(seconds(60)));
        let later = now + seconds(60);
        // There is room, but it is promised.
        assert_eq!(limit.admit(later, false), Err(seconds(60)));
        assert_eq!(limit.admit(later, true), Ok(()));
    }

    #[test]
    fn who_waited_elsewhere_needs_room_too() {
        let mut limit = RateLimit::parse("1/m").unwrap();
        let now = Instant::now();
        assert_eq!(limit.admit(now, true), Ok(()));
        assert_eq!(limit.admit(now, true), Err(seconds(60)));
        assert_eq!(limit.admit(now, true), Err(seconds(120)));
    }

    #[test]
    fn without_a_limit_nobody_waits() {
        let mut limit = RateLimit::parse("none").unwrap();
        let now = Instant::now();
        assert!((0..1000).all(|_| limit.admit(now, false).is_ok()));
    }
}
