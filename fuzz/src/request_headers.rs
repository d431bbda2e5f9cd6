//! The headers of a request that mean something to checkout: `Idempotency-Key`, `traceparent` and `tracestate`.

use axum::http::{HeaderMap, HeaderValue};
use orderup::{
    fuzzing,
    trace::{self, SpanContext},
};

/// The first line is a `traceparent`, each further one an `Idempotency-Key`.
pub fn check(data: &[u8]) {
    let mut lines = data.split(|byte| *byte == b'\n');
    if let Some(Ok(traceparent)) = lines.next().map(std::str::from_utf8) {
        check_trace(traceparent);
    }
    let mut headers = HeaderMap::new();
    for value in lines
        .take(3)
        .filter_map(|line| HeaderValue::from_bytes(line).ok())
    {
        headers.append("idempotency-key", value);
    }
    let given = headers.len();
    match fuzzing::idempotency_key(&headers) {
        Ok(Some(key)) => {
            assert_eq!(given, 1);
            assert!((1..=255).contains(&key.len()));
            assert!(
                key.bytes()
                    .all(|byte| matches!(byte, b' '..=b'~') && byte != b'"')
            );
            // The key is the same whether it is quoted or not.
            let quoted = HeaderValue::from_str(&format!("\"{key}\"")).expect("it is printable");
            headers.insert("idempotency-key", quoted);
            assert_eq!(fuzzing::idempotency_key(&headers), Ok(Some(key)));
        }
        Ok(None) => assert!(given <= 1),
        Err(status) => assert!(given > 0 && status == 400),
    }
}

fn check_trace(text: &str) {
    let parsed = SpanContext::parse(text);
    let next = SpanContext::next(parsed);
    assert_eq!(SpanContext::parse(&next.to_string()), Some(next));
    assert!(next.trace_id != 0 && next.span_id != 0);
    if let Some(parsed) = parsed {
        let trace = parsed.trace().to_string();
        assert!(trace.len() == 32 && text.contains(&trace));
        assert_eq!(next.trace_id, parsed.trace_id, "it is the caller's trace");
        assert_ne!(next.span_id, parsed.span_id, "and a hop of ours");
        assert_eq!(next.is_sampled(), parsed.is_sampled());
    }
    if let Some(state) = trace::state(text) {
        assert!(state.len() <= 512);
        assert!(
            state
                .bytes()
                .all(|byte| matches!(byte, b' '..=b'~') && byte != b'"')
        );
        assert_eq!(trace::state(&state).as_ref(), Some(&state));
    }
}
