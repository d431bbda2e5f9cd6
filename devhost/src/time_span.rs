//! .NET's `TimeSpan` as text: `[d.]hh:mm[:ss[.fffffff]]`, or whole days.

use std::time::Duration;

/// Reads a time span; `None` when it is negative or not one.
pub fn parse(text: &str) -> Option<Duration> {
    if let Ok(days) = text.parse::<u64>() {
        return days.checked_mul(86_400).map(Duration::from_secs);
    }
    let mut parts = text.split(':');
    let first = parts.next()?;
    let (days, hours): (u64, &str) = match first.split_once('.') {
        Some((days, hours)) => (days.parse().ok()?, hours),
        None => (0, first),
    };
    let hours: u64 = hours.parse().ok().filter(|hours| *hours < 24)?;
    let minutes: u64 = parts.next()?.parse().ok().filter(|minutes| *minutes < 60)?;
    let seconds: f64 = match parts.next() {
        Some(seconds) if seconds.starts_with(|first: char| first.is_ascii_digit()) => {
            seconds.parse().ok().filter(|seconds| *seconds < 60.0)?
        }
        Some(_) => return None,
        None => 0.0,
    };
    if parts.next().is_some() {
        return None;
    }
    let whole = days
        .checked_mul(86_400)?
        .checked_add(hours * 3_600 + minutes * 60)?;
    Duration::from_secs(whole).checked_add(Duration::try_from_secs_f64(seconds).ok()?)
}

/// Writes whole seconds the way the host does: `00:05:00`.
pub fn format(span: Duration) -> String {
    let seconds = span.as_secs();
    let (days, rest) = (seconds / 86_400, seconds % 86_400);
    let clock = format!("{:02}:{:02}:{:02}", rest / 3_600, rest / 60 % 60, rest % 60);
    if days == 0 {
        clock
    } else {
        format!("{days}.{clock}")
    }
}
