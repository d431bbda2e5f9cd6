//! A dead letter as the bus hands it to an operator's command: headers that anyone with Send rights may have written.

use std::time::{Duration, SystemTime};

use axum::http::{HeaderMap, HeaderName, HeaderValue};
use orderup::{
    dead_letter::{DeadLetter, Filter},
    redelivery::Audience,
};

/// The first line is `BrokerProperties`, each further one a header.
pub fn check(data: &[u8]) {
    let mut lines = data.split(|byte| *byte == b'\n');
    let mut headers = HeaderMap::new();
    if let Some(Ok(value)) = lines.next().map(HeaderValue::from_bytes) {
        headers.insert("brokerproperties", value);
    }
    for line in lines.take(20) {
        let Some(colon) = line.iter().position(|byte| *byte == b':') else {
            continue;
        };
        let name = HeaderName::from_bytes(&line[..colon]);
        if let (Ok(name), Ok(value)) = (name, HeaderValue::from_bytes(&line[colon + 1..])) {
            headers.insert(name, value);
        }
    }
    let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000);
    let Some(letter) = DeadLetter::read(Audience::Vendors, &headers, None) else {
        return;
    };
    let age = letter.age(now);
    assert_eq!(age.is_some(), letter.time().is_some());
    assert!(Filter::default().matches(&letter, now));
    let reason = Filter {
        reason: letter.reason(),
        vendor: letter.vendor(),
        ..Filter::default()
    };
    assert!(
        reason.matches(&letter, now),
        "it has its own reason and vendor"
    );
    let split = Duration::from_secs(3600);
    let older = Filter {
        older_than: Some(split),
        ..Filter::default()
    };
    let newer = Filter {
        newer_than: Some(split),
        ..Filter::default()
    };
    assert!(!(older.matches(&letter, now) && newer.matches(&letter, now)));
    let _ = (letter.failures(), letter.error(), letter.message_id());
}
