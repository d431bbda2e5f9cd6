//! The headers of a request that mean something to checkout: `Idempotency-Key` and `traceparent`.

use axum::http::{HeaderMap, HeaderValue};
use orderup::{
    fuzzing,
    trace::{self, TraceParent},
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
    let next = TraceParent::next(Some(text)).to_string();
    let next_id = trace::trace_id(&next).expect("what we send on is valid");
    assert_eq!(next.len(), 55);
    if let Some(id) = trace::trace_id(text) {
        assert_eq!(text.len(), 55);
        assert!(id.len() == 32 && id.bytes().any(|byte| byte != b'0'));
        assert_eq!(id, next_id, "it is the caller's trace");
        assert_ne!(next, text, "and a hop of ours");
    } else {
        assert!(!text.contains(next_id), "nothing of an invalid one is used");
    }
}
