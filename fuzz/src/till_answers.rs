//! What a till answers: Square, or one of the shop's own.
//!
//! Of what it says, only what can be nothing but a code is repeated, and a refusal is always told apart from a success.

use std::time::SystemTime;

use axum::http::{HeaderMap, HeaderValue, header::CONTENT_TYPE};
use orderup::{
    fuzzing,
    order::OrderId,
    pos::{Found, Submitted},
    till_error::TillError,
};
use uuid::uuid;

const ORDER: OrderId = OrderId(uuid!("0190a2b4-5f6e-7c3d-8a1b-2c3d4e5f6071"));

/// The first line is the status and the media type, the rest the body.
pub fn check(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let (head, _) = crate::first_line(&text);
    let (status, media_type) = head.split_once(' ').unwrap_or((head, ""));
    let status = status
        .parse()
        .ok()
        .filter(|status| (100..600).contains(status));
    let status = status.unwrap_or(200);
    let mut headers = HeaderMap::new();
    if let Ok(value) = HeaderValue::from_str(media_type) {
        headers.insert(CONTENT_TYPE, value);
    }
    let start = data.iter().position(|byte| *byte == b'\n');
    let body = start.map_or(&[][..], |start| &data[start + 1..]);
    let read = fuzzing::answer(
        status,
        headers,
        body.to_vec(),
        ORDER,
        SystemTime::UNIX_EPOCH,
    );

    for error in [
        read.square_order.as_ref().err(),
        read.square_payment.as_ref().err(),
        read.found.as_ref().err(),
        Some(&read.square_error),
        Some(&read.pos_error),
    ] {
        assert_plain(error);
    }
    if let Ok(order) = &read.square_order {
        assert!(!order.id.trim_matches('.').is_empty());
    }
    if let Ok(payment) = &read.square_payment {
        assert!(!payment.id.trim_matches('.').is_empty());
    }
    match &read.found {
        Ok(Found::Submitted(Submitted::Accepted { external_id, .. })) => {
            assert!(!external_id.is_empty() && !external_id.contains(['/', '?', '#', '%', ' ']));
            assert!(external_id != "." && external_id != "..");
        }
        Ok(Found::Declined { code } | Found::Rejected { code }) => assert_code(code),
        Ok(_) | Err(_) => {}
    }
}

/// It goes to the log and into a message's properties: no sentence, no address, no line break.
fn assert_plain(error: Option<&TillError>) {
    let Some(error) = error else {
        return;
    };
    let text = error.to_string();
    assert!(text.len() < 250 && text.is_ascii(), "{text}");
    assert!(!text.contains(['@', '\n', '\r', '"', '<']), "{text}");
}

fn assert_code(code: &str) {
    assert!(code.len() <= 64);
    assert!(!code.contains(['@', ' ', '\n', '"']), "{code}");
}
