//! W3C trace context: which request an order came from, carried along on the bus.
//!
//! The Functions host does not reliably pass `traceparent`, so it travels as a message property
//! (<https://www.w3.org/TR/trace-context/>).

use std::fmt;

use uuid::Uuid;

/// Where one hop stands in a trace: `00-{trace id}-{parent id}-{flags}`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TraceParent(String);

impl TraceParent {
    /// The next hop of the caller's trace, or the first of a new one where the caller sent none that is valid.
    pub fn next(incoming: Option<&str>) -> Self {
        // The last 64 bits of a UUIDv4 hold only random ones but for the variant, so they are never all zero.
        let (_, span) = Uuid::new_v4().as_u64_pair();
        match incoming.and_then(parts) {
            Some((trace, flags)) => Self(format!("00-{trace}-{span:016x}-{flags}")),
            None => Self(format!("00-{}-{span:016x}-01", Uuid::new_v4().simple())),
        }
    }
}

impl fmt::Display for TraceParent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The trace id of a valid `traceparent`.
pub fn trace_id(traceparent: &str) -> Option<&str> {
    parts(traceparent).map(|(trace, _)| trace)
}

fn parts(traceparent: &str) -> Option<(&str, &str)> {
    let is_hex = |text: &str, length| {
        text.len() == length
            && text
                .bytes()
                .all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
    };
    let not_zero = |text: &str| text.bytes().any(|byte| byte != b'0');
    let fields: Vec<&str> = traceparent.split('-').collect();
    match fields[..] {
        ["00", trace, span, flags]
            if is_hex(trace, 32)
                && not_zero(trace)
                && is_hex(span, 16)
                && not_zero(span)
                && is_hex(flags, 2) =>
        {
            Some((trace, flags))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CALLER: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00";

    #[test]
    fn a_callers_trace_goes_on_with_a_new_span() {
        let next = TraceParent::next(Some(CALLER)).to_string();
        assert!(next.starts_with("00-0af7651916cd43dd8448eb211c80319c-"));
        assert!(next.ends_with("-00"));
        assert_ne!(next, CALLER);
    }

    #[test]
    fn without_a_valid_one_a_trace_begins() {
        for incoming in [
            None,
            Some(""),
            Some("00-00000000000000000000000000000000-b7ad6b7169203331-01"),
            Some("00-0AF7651916CD43DD8448EB211C80319C-b7ad6b7169203331-01"),
            Some("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01\r\nx: y"),
        ] {
            let next = TraceParent::next(incoming).to_string();
            assert!(trace_id(&next).is_some(), "{next}");
            assert!(!next.contains("0af7651916cd43dd"), "{next}");
        }
    }
}
