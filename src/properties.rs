//! The names of the application properties that our messages carry.
//!
//! All are lower-case, because over REST a property travels as a header and the Service Bus crate lower-cases its name.
//! Who reads them must expect any of them to be missing, or of another type: an operator's tool may have typed them.

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

/// Service Bus's own property of a dead letter. A message that has it was re-sent from a dead-letter queue.
pub const NATIVE_REASON: &str = "DeadLetterReason";
pub const NATIVE_DESCRIPTION: &str = "DeadLetterErrorDescription";
