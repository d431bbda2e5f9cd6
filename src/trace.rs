//! W3C trace context: which request an order came from, carried along on the bus.
//!
//! The Functions host does not reliably pass `traceparent`, so it travels as a message property
//! (<https://www.w3.org/TR/trace-context/>), and all that is sent about an order afterwards has the same trace id. It goes along
//! whether or not anything is exported ([`crate::telemetry`]). Pure, but for the random ids.

use std::fmt;

use axum::http::HeaderMap;
use uuid::Uuid;

use crate::{
    orders_topic::PropertyValue,
    properties::{DIAGNOSTIC_ID, TRACEPARENT, TRACESTATE},
};

/// What the standard asks of everyone to pass on. A longer one is left out, as it allows.
const LONGEST_STATE: usize = 512;

/// The bit of the flags that says that the trace is recorded.
const SAMPLED: u8 = 1;

/// Where one step stands in a trace. As text it is a `traceparent`: `00-{trace id}-{span id}-{flags}`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SpanContext {
    /// Not zero, like the span's.
    pub trace_id: u128,
    pub span_id: u64,
    flags: u8,
}

impl SpanContext {
    /// Reads a `traceparent`, also of a later version, of which only the parts that are known count.
    pub fn parse(text: &str) -> Option<Self> {
        let bytes = text.as_bytes();
        let is_lower_hex = |byte: &u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
        let field = |from: usize, to: usize| {
            let field = text.get(from..to)?;
            field
                .bytes()
                .all(|byte| is_lower_hex(&byte))
                .then_some(field)
        };
        let version = field(0, 2)?;
        let has_dashes = [2, 35, 52].iter().all(|at| bytes.get(*at) == Some(&b'-'));
        let has_end = match bytes.get(55) {
            None => true,
            Some(b'-') => version != "00",
            Some(_) => false,
        };
        if version == "ff" || !has_dashes || !has_end {
            return None;
        }
        let context = Self {
            trace_id: u128::from_str_radix(field(3, 35)?, 16).ok()?,
            span_id: u64::from_str_radix(field(36, 52)?, 16).ok()?,
            flags: u8::from_str_radix(field(53, 55)?, 16).ok()?,
        };
        (context.trace_id != 0 && context.span_id != 0).then_some(context)
    }

    /// What the caller of an HTTP function sent, if it is valid.
    pub fn of_request(headers: &HeaderMap) -> Option<Self> {
        Self::parse(headers.get(TRACEPARENT)?.to_str().ok()?)
    }

    /// The next step of that trace, or the first of a new one.
    pub fn next(before: Option<Self>) -> Self {
        // Some bits of a UUIDv4 say that it is one; those of the trace's are mixed with random ones of the other's, because
        // samplers everywhere take a trace id for a random number. A span's id is never zero with them.
        let (first, second) = Uuid::new_v4().as_u64_pair();
        let (mix, span_id) = Uuid::new_v4().as_u64_pair();
        match before {
            Some(before) => Self { span_id, ..before },
            None => Self {
                trace_id: u128::from(first ^ (mix >> 48)) << 64 | u128::from(second ^ (mix << 52)),
                span_id,
                flags: SAMPLED,
            },
        }
    }

    pub fn is_sampled(self) -> bool {
        self.flags & SAMPLED != 0
    }

    #[must_use]
    pub fn sampled(self, is_sampled: bool) -> Self {
        let flags = self.flags & !SAMPLED | u8::from(is_sampled);
        Self { flags, ..self }
    }

    /// 32 hexadecimal digits: the `operation_Id` of Application Insights.
    pub fn trace(self) -> impl fmt::Display {
        Hex::<32>(self.trace_id)
    }

    /// 16 hexadecimal digits.
    pub fn span(self) -> impl fmt::Display {
        Hex::<16>(self.span_id.into())
    }
}

struct Hex<const DIGITS: usize>(u128);

impl<const DIGITS: usize> fmt::Display for Hex<DIGITS> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:0DIGITS$x}", self.0)
    }
}

impl fmt::Display for SpanContext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            trace_id,
            span_id,
            flags,
        } = self;
        write!(f, "00-{trace_id:032x}-{span_id:016x}-{flags:02x}")
    }
}

/// What a message carries of its trace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Carried {
    /// Where its event was made: the parent of every delivery of it and of its copies.
    pub parent: SpanContext,
    /// The `tracestate` of whoever asked for it.
    pub state: Option<String>,
}

impl Carried {
    /// The application properties, under the names of the standard and of the Azure SDKs.
    pub fn properties(&self) -> impl Iterator<Item = (String, PropertyValue)> {
        let parent = self.parent.to_string();
        let pairs = [
            (TRACEPARENT, Some(parent.clone())),
            (DIAGNOSTIC_ID, Some(parent)),
            (TRACESTATE, self.state.clone()),
        ];
        pairs
            .into_iter()
            .filter_map(|(name, value)| Some((name.to_owned(), PropertyValue::Text(value?))))
    }
}

/// The `tracestate` of a request. It means nothing without a valid `traceparent`.
pub fn state_of_request(headers: &HeaderMap) -> Option<String> {
    let values = headers.get_all(TRACESTATE).iter();
    let values: Option<Vec<_>> = values.map(|value| value.to_str().ok()).collect();
    state(&values?.join(","))
}

/// The list, if it is one that a message can carry: two characters that the standard allows do not survive a header.
pub fn state(text: &str) -> Option<String> {
    let text = text.trim();
    let is_plain = text
        .bytes()
        .all(|byte| matches!(byte, b' '..=b'~') && !matches!(byte, b'"' | b'\\'));
    let mut entries = text.split(',').map(str::trim);
    let has_keys = entries.all(|entry| {
        entry
            .split_once('=')
            .is_some_and(|(key, _)| !key.is_empty())
    });
    (is_plain && has_keys && text.len() <= LONGEST_STATE).then(|| text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    const CALLER: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00";

    #[test]
    fn a_callers_trace_goes_on_with_a_new_span() {
        let caller = SpanContext::parse(CALLER).unwrap();
        assert_eq!(caller.to_string(), CALLER);
        assert_eq!(
            caller.trace().to_string(),
            "0af7651916cd43dd8448eb211c80319c"
        );
        assert_eq!(caller.span().to_string(), "b7ad6b7169203331");
        let next = SpanContext::next(Some(caller)).to_string();
        assert!(next.starts_with("00-0af7651916cd43dd8448eb211c80319c-"));
        assert!(next.ends_with("-00"));
        assert_ne!(next, CALLER);
    }

    #[test]
    fn what_is_no_trace_context_is_none() {
        for text in [
            "",
            "00-00000000000000000000000000000000-b7ad6b7169203331-01",
            "00-0af7651916cd43dd8448eb211c80319c-0000000000000000-01",
            "00-0AF7651916CD43DD8448EB211C80319C-b7ad6b7169203331-01",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01\r\nx: y",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-x",
            "ff-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-+1",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331",
            "00-0af7651916cd43dd8448eb211c8031é-b7ad6b7169203331-01",
        ] {
            assert_eq!(SpanContext::parse(text), None, "{text}");
        }
        let later =
            "cc-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-what the future brings";
        assert!(SpanContext::parse(later).unwrap().is_sampled());
    }

    #[test]
    fn without_one_a_trace_begins_whose_id_is_random_in_every_bit() {
        let (mut all, mut any) = (u128::MAX, 0);
        for _ in 0..200 {
            let next = SpanContext::next(None);
            assert!(next.is_sampled() && next.span_id != 0);
            assert_eq!(SpanContext::parse(&next.to_string()), Some(next));
            (all, any) = (all & next.trace_id, any | next.trace_id);
        }
        assert_eq!((all, any), (0, u128::MAX));
    }

    #[test]
    fn a_state_that_a_property_cannot_hold_is_left_out() {
        assert_eq!(
            state(" rojo=00f067aa,congo=t61rc ").as_deref(),
            Some("rojo=00f067aa,congo=t61rc")
        );
        for text in ["", "rojo", "=1", "a=\"", "a=\\", "a=é", "a=1,,b=2"] {
            assert_eq!(state(text), None, "{text}");
        }
        assert_eq!(state(&format!("a={}", "1".repeat(LONGEST_STATE))), None);
        let mut headers = HeaderMap::new();
        assert_eq!(state_of_request(&headers), None);
        for value in ["a=1", "b=2"] {
            headers.append(TRACESTATE, value.parse().unwrap());
        }
        assert_eq!(state_of_request(&headers).as_deref(), Some("a=1,b=2"));
    }
}
