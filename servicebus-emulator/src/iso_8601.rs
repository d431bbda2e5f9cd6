//! Durations as Service Bus writes them, in the file and in the management API: `PT1M`, `P14D`, `P1DT2H3.5S`.
//!
//! As in .NET, a year is 365 days and a month 30, and what is written has no unit larger than a day.

use std::time::Duration;

use jiff::Span;

/// .NET's `TimeSpan.MaxValue`, which stands for "never".
pub(crate) const NEVER: &str = "P10675199DT2H48M5.4775807S";

/// Whether that is "never": clients round the seconds of [`NEVER`], each in its own way.
pub(crate) fn is_never(text: &str) -> bool {
    text.starts_with("P10675199D")
}

pub(crate) fn read(text: &str) -> Option<Duration> {
    // jiff also reads its own friendlier format, which Azure does not.
    if !text.starts_with('P') {
        return None;
    }
    let span: Span = text.parse().ok()?;
    let days = i64::from(span.get_years()) * 365
        + i64::from(span.get_months()) * 30
        + i64::from(span.get_weeks()) * 7
        + i64::from(span.get_days());
    let seconds = days * 86_400
        + i64::from(span.get_hours()) * 3_600
        + span.get_minutes() * 60
        + span.get_seconds();
    // A great number of seconds comes as milliseconds, and so on: more nanoseconds than 64 bits can count.
    let nanoseconds = i128::from(span.get_milliseconds()) * 1_000_000
        + i128::from(span.get_microseconds()) * 1_000
        + i128::from(span.get_nanoseconds());
    let nanoseconds = u128::try_from(i128::from(seconds) * 1_000_000_000 + nanoseconds).ok()?;
    let whole = u64::try_from(nanoseconds / 1_000_000_000).ok()?;
    let rest = u32::try_from(nanoseconds % 1_000_000_000).ok()?;
    Some(Duration::new(whole, rest))
}

/// To a tenth of a microsecond, which is as fine as .NET has it.
pub(crate) fn write(duration: Duration) -> String {
    let seconds = duration.as_secs();
    let ticks = duration.subsec_nanos() / 100;
    let (days, hours, minutes, seconds) = (
        seconds / 86_400,
        seconds / 3_600 % 24,
        seconds / 60 % 60,
        seconds % 60,
    );
    let part = |number: u64, unit: &str| match number {
        0 => String::new(),
        number => format!("{number}{unit}"),
    };
    let fraction = format!(".{ticks:07}");
    let fraction = fraction.trim_end_matches(['0', '.']);
    let seconds = match (seconds, fraction) {
        (0, "") => String::new(),
        (seconds, fraction) => format!("{seconds}{fraction}S"),
    };
    let time = part(hours, "H") + &part(minutes, "M") + &seconds;
    match (days, time.as_str()) {
        (0, "") => "PT0S".to_owned(),
        (days, "") => format!("P{days}D"),
        (days, time) => format!("P{}T{time}", part(days, "D")),
    }
}

/// [`NEVER`] where there is none.
pub(crate) fn write_or_never(duration: Option<Duration>) -> String {
    duration.map_or_else(|| NEVER.to_owned(), write)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_duration_is_written_in_days_and_below_and_read_back() {
        for (seconds, text) in [
            (0.0, "PT0S"),
            (5.0, "PT5S"),
            (60.0, "PT1M"),
            (3_600.0, "PT1H"),
            (86_400.0, "P1D"),
            (1_209_600.0, "P14D"),
            (93_784.0, "P1DT2H3M4S"),
            (0.5, "PT0.5S"),
            (86_460.25, "P1DT1M0.25S"),
        ] {
            let duration = Duration::from_secs_f64(seconds);
            assert_eq!(write(duration), text);
            assert_eq!(read(text), Some(duration), "{text}");
        }
        assert_eq!(write(Duration::from_nanos(123_456_789)), "PT0.1234567S");
        assert_eq!(write_or_never(None), NEVER);
    }

    #[test]
    fn never_is_recognised_however_a_client_has_rounded_it() {
        for text in [
            NEVER,
            "P10675199DT2H48M5.477581S",
            "P10675199DT2H48M5.47758S",
        ] {
            assert!(is_never(text), "{text}");
        }
        assert!(!is_never("P1067519D"));
    }

    #[test]
    fn what_azure_does_not_write_is_not_read() {
        for text in ["", "1 hour", "PT", "P", "-PT1M", "PT-1M", "00:01:00"] {
            assert_eq!(read(text), None, "{text}");
        }
    }

    #[test]
    fn seconds_beyond_every_calendar_are_counted_all_the_same() {
        let seconds = Duration::from_secs(1_294_342_647_758);
        assert_eq!(read("PT1294342647758S"), Some(seconds));
    }
}
