//! Settings that people write: durations, the schedule of retries, rate limits, mailboxes.

use std::time::Duration;

use orderup::{
    config::Settings, durations, email::Mailbox, rate_limit::RateLimit, retry_policy::RetryPolicy,
};
use tokio::time::Instant;

const LONGEST: Duration = Duration::from_secs(14 * 24 * 60 * 60);

/// The lines: a duration, `RETRY_SCHEDULE`, `RETRY_DEADLINE`, `EMAIL_RATE_LIMIT`, a mailbox.
pub fn check(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else {
        return;
    };
    let mut lines = text.split('\n');
    let mut line = || lines.next().unwrap_or_default();
    // Nothing that a person sets is longer; an hour is the largest unit that is written.
    let readable = Duration::from_secs(60 * 60) * u32::MAX;
    if let Some(duration) = durations::parse(line()).filter(|time| *time <= readable) {
        let written = durations::written(duration);
        assert_eq!(durations::parse(&written), Some(duration), "{written}");
    }
    let (schedule, deadline, rate, mailbox) = (line(), line(), line(), line());
    let settings = Settings::from_pairs([
        ("RETRY_SCHEDULE", schedule),
        ("RETRY_DEADLINE", deadline),
        ("EMAIL_RATE_LIMIT", rate),
    ]);
    if let Ok(policy) = RetryPolicy::from_settings(&settings) {
        let valid = |time: Duration| !time.is_zero() && time <= LONGEST;
        assert!(!policy.steps().is_empty() && policy.steps().iter().copied().all(valid));
        assert!(valid(policy.deadline()));
        for failures in [0, 1, 7, u32::MAX] {
            let shortest = policy.wait(failures, None, 0.0);
            let longest = policy.wait(failures, Some(LONGEST), 1.0);
            assert!(valid(shortest) && shortest <= longest && longest <= LONGEST * 2);
        }
    }
    if let Ok(limit) = RateLimit::from_settings(&settings, "none") {
        check_limit(limit, rate);
    }
    if let Ok(read) = mailbox.parse::<Mailbox>() {
        let breaks = |text: &str| text.chars().any(char::is_control);
        assert!(!breaks(&read.address) && !read.name.as_deref().is_some_and(breaks));
        assert!(read.address.contains('@') && !read.domain().is_empty());
        let printed = format!("{read:?}");
        assert!(!printed.contains(&read.address), "{printed}");
    }
}

/// However often it is asked at one moment, no more calls are let through than the smallest window has.
fn check_limit(mut limit: RateLimit, text: &str) {
    let text = text.trim();
    let counts = text.split(',').filter_map(|window| {
        let (count, _) = window.trim().split_once('/')?;
        count.parse::<usize>().ok()
    });
    let smallest = counts.min().unwrap_or(usize::MAX);
    let now = Instant::now();
    let admitted = (0..40).filter(|_| limit.admit(now, false).is_ok()).count();
    assert_eq!(admitted, smallest.min(40), "{text}");
}
