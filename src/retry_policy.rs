//! When a failed message is tried again and when it is given up: `RETRY_SCHEDULE` and `RETRY_DEADLINE`.
//!
//! Read once, at start. Pure: the number of failures and the random number are arguments.

use std::time::Duration;

use crate::{
    config::{ConfigError, Settings},
    durations,
};

const SCHEDULE: &str = "RETRY_SCHEDULE";
const DEADLINE: &str = "RETRY_DEADLINE";

/// Service Bus expires a message of ours after 14 days, and a schedule can't be longer than what it is part of.
const LONGEST: Duration = Duration::from_secs(14 * 24 * 60 * 60);

/// How much longer a message may live whose recipient is left alone at its deadline: its last try comes when others find
/// out that the recipient works again.
pub const GRACE: Duration = Duration::from_secs(60 * 60);

/// What is added to a wait at most, as a part of it: what failed together does not come back together. It never makes a
/// wait shorter, for somebody may have asked for it.
const JITTER: f64 = 0.25;

/// The waits between attempts, and when they end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RetryPolicy {
    /// At least one; the last repeats.
    schedule: Vec<Duration>,
    deadline: Duration,
}

impl Default for RetryPolicy {
    /// What counts where nothing is set.
    fn default() -> Self {
        let minutes = |minutes: u64| Duration::from_secs(minutes * 60);
        let mut schedule = vec![Duration::from_secs(30)];
        schedule.extend([1, 2, 5, 10, 20, 30, 60].map(minutes));
        Self {
            schedule,
            deadline: minutes(72 * 60),
        }
    }
}

impl RetryPolicy {
    /// Reads `RETRY_SCHEDULE` (default `30s,1m,2m,5m,10m,20m,30m,60m`) and `RETRY_DEADLINE` (default `72h`).
    ///
    /// # Errors
    /// The first of the two that is not usable.
    pub fn from_settings(settings: &Settings) -> Result<Self, ConfigError> {
        let mut policy = Self::default();
        if let Some(text) = settings.optional(SCHEDULE) {
            let steps = text.split(',').map(usable);
            policy.schedule = steps.collect::<Option<_>>().ok_or_else(|| {
                ConfigError::invalid(
                    SCHEDULE,
                    "a part of it is not a time between 1s and 14d",
                    "times between two attempts, as in 30s,1m,2m,5m,10m,20m,30m,60m; the last one repeats",
                )
            })?;
        }
        if let Some(text) = settings.optional(DEADLINE) {
            policy.deadline = usable(&text).ok_or_else(|| {
                ConfigError::invalid(
                    DEADLINE,
                    "it is not a time between 1s and 14d",
                    "how long a message is tried, as in 72h; 14d at most",
                )
            })?;
        }
        Ok(policy)
    }

    /// How long a message is tried, from when its audience (or vendor) first got it.
    pub fn deadline(&self) -> Duration {
        self.deadline
    }

    /// All waits, before any jitter.
    pub fn steps(&self) -> &[Duration] {
        &self.schedule
    }

    /// The wait after failure number `failures` (0 is the first), before any jitter.
    fn step(&self, failures: u32) -> Duration {
        let last = self.schedule.len() - 1;
        let index = usize::try_from(failures).unwrap_or(last).min(last);
        self.schedule[index]
    }

    /// The wait before the next attempt. `asked` is how long the other side asks to be left alone, which counts when
    /// it is longer; `random`, from 0 to 1, adds up to a quarter.
    pub fn wait(&self, failures: u32, asked: Option<Duration>, random: f64) -> Duration {
        let wait = self.step(failures).max(asked.unwrap_or_default());
        wait.mul_f64(1.0 + JITTER * random.clamp(0.0, 1.0))
    }
}

fn usable(text: &str) -> Option<Duration> {
    durations::parse(text).filter(|time| !time.is_zero() && *time <= LONGEST)
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) fn policy() -> RetryPolicy {
        RetryPolicy::from_settings(&Settings::from_pairs([])).unwrap()
    }

    fn minutes(minutes: u64) -> Duration {
        Duration::from_secs(60 * minutes)
    }

    #[test]
    fn waits_follow_the_schedule_and_the_last_repeats() {
        let policy = policy();
        let waits: Vec<_> = (0..10)
            .map(|failures| policy.wait(failures, None, 0.0))
            .collect();
        let expected = [0, 1, 2, 5, 10, 20, 30, 60, 60, 60].map(minutes);
        assert_eq!(waits[0], Duration::from_secs(30));
        assert_eq!(waits[1..], expected[1..]);
        assert_eq!(policy.wait(u32::MAX, None, 0.0), minutes(60));
        assert_eq!(policy.deadline(), minutes(72 * 60));
    }

    #[test]
    fn jitter_only_adds_and_a_longer_wait_that_was_asked_for_wins() {
        let policy = policy();
        assert_eq!(
            policy.wait(3, None, 1.0),
            minutes(5) + Duration::from_secs(75)
        );
        assert_eq!(policy.wait(0, Some(minutes(4)), 0.0), minutes(4));
        assert_eq!(policy.wait(0, Some(minutes(4)), 1.0), minutes(5));
        assert_eq!(policy.wait(3, Some(minutes(4)), 0.0), minutes(5));
    }

    #[test]
    fn settings_that_are_no_times_are_named() {
        for (variable, value) in [
            (SCHEDULE, "soon"),
            (SCHEDULE, "30s,,1m"),
            (SCHEDULE, "0s"),
            (SCHEDULE, "15d"),
            (DEADLINE, "15d"),
            (DEADLINE, "0h"),
            (DEADLINE, "forever"),
        ] {
            let settings = Settings::from_pairs([(variable, value)]);
            let error = RetryPolicy::from_settings(&settings)
                .unwrap_err()
                .to_string();
            assert!(error.contains(variable), "{error}");
        }
        let settings = Settings::from_pairs([(SCHEDULE, " 1s , 2s "), (DEADLINE, "14d")]);
        let policy = RetryPolicy::from_settings(&settings).unwrap();
        assert_eq!(policy.wait(7, None, 0.0), Duration::from_secs(2));
    }
}
