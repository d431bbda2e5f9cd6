//! How long to wait before the same request is sent again.
//!
//! Pure but for [`chance`]: the random number and the time are arguments. Used inside one call, where the waits are
//! short; what waits longer waits on the bus ([`crate::retry_policy`]).

use std::time::{Duration, SystemTime};

/// The wait before retry `retry` (0 is the first): it doubles up to `longest`, and `random`, from 0 to 1, takes away
/// up to a half, so that what failed together does not come back together.
pub fn backoff(first: Duration, longest: Duration, retry: u32, random: f64) -> Duration {
    let full = first
        .saturating_mul(2_u32.saturating_pow(retry))
        .min(longest);
    full.mul_f64(1.0 - random.clamp(0.0, 1.0) / 2.0)
}

/// A random number from 0 to 1.
pub fn chance() -> f64 {
    f64::from(uuid::Uuid::new_v4().as_fields().0) / f64::from(u32::MAX)
}

/// No wait that somebody else asks for is longer: a slip in a header must not put an order off until next year.
const LONGEST_RETRY_AFTER: Duration = Duration::from_secs(60 * 60);

/// The value of a `Retry-After` header, in seconds or as a date (RFC 9110 §10.2.3), an hour at most; a date in the
/// past is zero.
pub fn retry_after(value: &str, now: SystemTime) -> Option<Duration> {
    let value = value.trim();
    let wait = match value.parse::<u64>() {
        Ok(seconds) => Duration::from_secs(seconds),
        Err(_) => until(httpdate::parse_http_date(value).ok()?, now),
    };
    Some(wait.min(LONGEST_RETRY_AFTER))
}

/// How long it is until then, an hour at most; zero for the past.
pub fn until(time: SystemTime, now: SystemTime) -> Duration {
    let wait = time.duration_since(now).unwrap_or_default();
    wait.min(LONGEST_RETRY_AFTER)
}

#[cfg(test)]
mod tests {
    use super::*;

    const FIRST: Duration = Duration::from_millis(200);
    const LONGEST: Duration = Duration::from_secs(5);

    #[test]
    fn a_wait_doubles_until_it_is_the_longest() {
        let waits = [0, 1, 2, 4, 5, 40, u32::MAX]
            .map(|retry| backoff(FIRST, LONGEST, retry, 0.0).as_millis());
        assert_eq!(waits, [200, 400, 800, 3200, 5000, 5000, 5000]);
    }

    #[test]
    fn chance_takes_away_up_to_a_half() {
        assert_eq!(backoff(FIRST, LONGEST, 0, 0.5).as_millis(), 150);
        assert_eq!(backoff(FIRST, LONGEST, 0, 1.0).as_millis(), 100);
    }

    #[test]
    fn chance_is_between_zero_and_one() {
        assert!(
            (0..1000)
                .map(|_| chance())
                .all(|c| (0.0..=1.0).contains(&c))
        );
    }

    #[test]
    fn retry_after_is_read_in_both_forms() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(784_111_777);
        assert_eq!(retry_after(" 120 ", now), Some(Duration::from_secs(120)));
        assert_eq!(
            retry_after("Sun, 06 Nov 1994 08:49:47 GMT", now),
            Some(Duration::from_secs(10))
        );
        assert_eq!(
            retry_after("Sun, 06 Nov 1994 08:00:00 GMT", now),
            Some(Duration::ZERO)
        );
        assert_eq!(retry_after("soon", now), None);
        for far in [
            "31536000",
            "18446744073709551615",
            "Fri, 31 Dec 9999 23:59:59 GMT",
        ] {
            assert_eq!(retry_after(far, now), Some(LONGEST_RETRY_AFTER), "{far}");
        }
        assert_eq!(retry_after("-1", now), None);
    }
}
