//! How long somebody else asks us to wait: `Retry-After`, in seconds or as a date, and its likes.
//!
//! Nobody can make us wait for more than an hour, and nobody for less than nothing.

use std::time::{Duration, SystemTime};

use axum::http::{HeaderMap, HeaderValue};
use orderup::{fuzzing, order::OrderId, retry};
use uuid::Uuid;

const HOUR: Duration = Duration::from_secs(3600);

/// The first line is `Retry-After`, the second the answer's `Date`, the third one of the resets.
pub fn check(data: &[u8]) {
    // Any time of this century.
    let seconds = data
        .iter()
        .take(4)
        .fold(0_u64, |seconds, byte| seconds << 8 | u64::from(*byte));
    let now = SystemTime::UNIX_EPOCH + Duration::from_secs(seconds);
    let mut headers = HeaderMap::new();
    let mut lines = data.split(|byte| *byte == b'\n');
    for name in ["retry-after", "date", "x-ratelimit-reset"] {
        if let Some(Ok(value)) = lines.next().map(HeaderValue::from_bytes) {
            headers.insert(name, value.clone());
            headers.insert("ratelimit-reset", value);
        }
    }
    let text = headers
        .get("retry-after")
        .and_then(|value| value.to_str().ok());
    if let Some(text) = text {
        let wait = retry::retry_after(text, now);
        assert!(wait.is_none_or(|wait| wait <= HOUR));
        if let Ok(seconds) = text.trim().parse::<u64>() {
            assert_eq!(wait, Some(Duration::from_secs(seconds.min(3600))));
            let later = retry::retry_after(text, now + HOUR);
            assert_eq!(later, wait, "seconds do not depend on the clock");
        } else if wait.is_some() {
            let later = retry::retry_after(text, now + HOUR);
            assert!(later <= wait, "a date comes nearer");
        }
    }
    let read = fuzzing::answer(503, headers, Vec::new(), OrderId(Uuid::from_u128(7)), now);
    for wait in read.waits.into_iter().flatten() {
        assert!(wait <= HOUR);
    }
}
