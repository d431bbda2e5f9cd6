//! Times as people write them in settings and arguments: `30s`, `5m`, `72h`, `14d`.

use std::time::Duration;

/// A whole number and its unit: `s`, `m`, `h` or `d`.
pub fn parse(text: &str) -> Option<Duration> {
    let text = text.trim();
    let (number, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    let number: u32 = plain_number(number)?;
    Some(parse_unit(unit)? * number)
}

/// One second, minute, hour or day.
pub fn parse_unit(unit: &str) -> Option<Duration> {
    let seconds = match unit {
        "s" => 1,
        "m" => 60,
        "h" => 60 * 60,
        "d" => 24 * 60 * 60,
        _ => return None,
    };
    Some(Duration::from_secs(seconds))
}

/// Digits only: Rust would take `+5` as well.
pub fn plain_number(text: &str) -> Option<u32> {
    let is_plain = text.bytes().all(|byte| byte.is_ascii_digit());
    is_plain.then(|| text.parse().ok()).flatten()
}

/// In the largest unit that leaves no fraction of a second out: `90s`, `2m`, `72h`.
pub fn written(duration: Duration) -> String {
    let seconds = duration.as_secs();
    for (unit, name) in [(60 * 60, 'h'), (60, 'm')] {
        if seconds >= unit && seconds.is_multiple_of(unit) {
            return format!("{}{name}", seconds / unit);
        }
    }
    format!("{seconds}s")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_and_a_unit_are_a_duration() {
        for (text, seconds) in [
            ("30s", 30),
            ("1m", 60),
            (" 72h ", 259_200),
            ("14d", 1_209_600),
        ] {
            assert_eq!(parse(text), Some(Duration::from_secs(seconds)), "{text}");
        }
        for text in [
            "",
            "s",
            "30",
            "1.5h",
            "-1s",
            "+1s",
            "1 s",
            "1w",
            "99999999999s",
            "1ß",
        ] {
            assert_eq!(parse(text), None, "{text}");
        }
    }

    #[test]
    fn a_duration_is_written_in_the_largest_unit_that_fits() {
        let written = |seconds| written(Duration::from_secs(seconds));
        assert_eq!(written(0), "0s");
        assert_eq!(written(90), "90s");
        assert_eq!(written(120), "2m");
        assert_eq!(written(259_200), "72h");
    }
}
