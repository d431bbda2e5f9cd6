//! The body of `POST /api/checkout`, on its way through the request to the event on the bus.
//!
//! What is refused is refused with at least one place that is wrong, and nothing of what was sent is repeated. What is taken
//! comes back whole from the bus, and fits into a message.

use axum::{
    body::Body,
    http::{HeaderMap, HeaderValue, header::CONTENT_TYPE},
};
use orderup::{
    announce,
    event::{Event, EventKind},
    fields::FieldError,
    order::OrderId,
    place_order::PlaceOrder,
    request,
    trace::{Carried, SpanContext},
};
use time::{OffsetDateTime, macros::datetime};
use tokio::runtime::{Builder, Runtime};
use uuid::Uuid;

pub(crate) const NOW: OffsetDateTime = datetime!(2026-11-25 15:45:30.123 UTC);

thread_local! {
    static RUNTIME: Runtime = Builder::new_current_thread()
        .enable_time()
        .build()
        .expect("a runtime of one thread can be built");
}

pub fn check(data: &[u8]) {
    let mut headers = HeaderMap::new();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    let body = Body::from(data.to_vec());
    let json = RUNTIME.with(|runtime| runtime.block_on(request::json(&headers, body)));
    let Ok(json) = json else {
        return;
    };
    let order = match PlaceOrder::from_request(&json) {
        Ok(order) => order,
        Err(errors) => return assert_told(&errors),
    };

    let id = order.keyed_id("key");
    assert_eq!(id, order.clone().keyed_id("key"));
    assert_ne!(id, order.keyed_id("another key"));
    let order = order.place(OrderId(Uuid::from_u128(7)), Some(NOW));
    let event = Event {
        kind: EventKind::Placed,
        time: NOW,
        order,
    };
    // It is the same order again that the storefront sent, if it sends back what it was told.
    let again = serde_json::to_value(&event.order).expect("an order is made of plain values");
    assert_eq!(
        PlaceOrder::from_request(&again)
            .expect("an order that was taken is taken again")
            .keyed_id("key"),
        id
    );
    crate::event::check_event(&event);
    let parent = SpanContext::parse("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01");
    let carried = Carried {
        parent: parent.expect("it is the standard's own example"),
        state: Some("rojo=00f067aa0ba902b7".to_owned()),
    };
    let message = announce::message(&event, Some(&carried));
    message
        .check()
        .expect("the bus takes whatever checkout takes");
}

/// At least one error, each with a JSON Pointer (RFC 6901) and a sentence.
pub(crate) fn assert_told(errors: &[FieldError]) {
    assert!(!errors.is_empty(), "refused without a reason");
    for FieldError { pointer, detail } in errors {
        assert!(
            pointer.is_empty() || pointer.starts_with('/'),
            "{pointer:?}"
        );
        let mut escapes = pointer.split('~').skip(1);
        assert!(
            escapes.all(|rest| rest.starts_with(['0', '1'])),
            "{pointer:?}"
        );
        assert!(!detail.is_empty() && detail.len() < 200, "{detail:?}");
    }
}
