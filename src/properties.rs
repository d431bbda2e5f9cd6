//! The application properties that our messages carry: their names, and how to read a value whatever its type.
//!
//! All names are lower-case, because over REST a property travels as a header and the Service Bus crate lower-cases its
//! name. Who reads them must expect any of them to be missing, or of another type: an operator's tool may have typed them.

use serde_json::Value;

/// `customers` or `vendors`: set by the rule of the subscription, or by whoever sends a copy for one of them.
pub const AUDIENCE: &str = "audience";
/// The id of the only vendor that a copy is for.
pub const VENDOR: &str = "vendor";
/// 0 for the first copy, one more for each scheduled one. It is part of a copy's `MessageId` and never goes back.
pub const GENERATION: &str = "generation";
/// Failed attempts so far; being rate-limited is none.
pub const FAILURES: &str = "failures";
/// When this audience (or vendor) first got it, RFC 3339.
pub const FIRST_SEEN: &str = "first-seen";
/// When an attempt ended of which nobody knows whether it reached the recipient, the first of them; RFC 3339.
pub const UNCONFIRMED_SINCE: &str = "unconfirmed-since";
/// Seconds for which it only waited, for its turn or for an operator: they do not count towards the deadline.
pub const HELD_SECONDS: &str = "held-seconds";
/// Class and answer of the last failure.
pub const LAST_ERROR: &str = "last-error";
/// Why it was given up, from a closed list; only condemned copies and the dead letters that they become have it.
pub const DEAD_LETTER_REASON: &str = "dead-letter-reason";
/// The same in words.
pub const DEAD_LETTER_DESCRIPTION: &str = "dead-letter-description";
/// When it was given up, RFC 3339.
pub const DEAD_LETTER_TIME: &str = "dead-letter-time";
/// W3C trace context, under its own name and under the one that the Azure SDKs look for.
pub const TRACEPARENT: &str = "traceparent";
pub const DIAGNOSTIC_ID: &str = "diagnostic-id";
/// What the tracing systems of whoever ordered have added to it.
pub const TRACESTATE: &str = "tracestate";
/// The `traceparent` of the delivery that a copy repeats, where that one was recorded: the link between the two.
pub const REPEATS: &str = "repeats";

/// Service Bus's own property of a dead letter. A message that has it was re-sent from a dead-letter queue.
pub const NATIVE_REASON: &str = "DeadLetterReason";
pub const NATIVE_DESCRIPTION: &str = "DeadLetterErrorDescription";

/// A value as text: `"a"` and `"\"a\""` both occur, as the host escapes some twice.
pub fn text(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => match serde_json::from_str(text) {
            Ok(Value::String(inner)) => Some(inner),
            Ok(_) | Err(_) => Some(text.clone()),
        },
        Value::Number(number) => Some(number.to_string()),
        Value::Null | Value::Bool(_) | Value::Array(_) | Value::Object(_) => None,
    }
}

/// A count, however it is typed: `3`, `3.0`, `"3"`. Below the largest number, so that one can be added to it, and not far
/// below: a generation is a time in seconds since 1970, which from 2038 on takes all 32 bits.
pub fn count(value: &Value) -> Option<u32> {
    let number: f64 = text(value)?.trim().parse().ok()?;
    let is_count = number.fract() == 0.0 && (0.0..=f64::from(u32::MAX - 1)).contains(&number);
    // In range, as just checked.
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
    is_count.then_some(number as u32)
}
