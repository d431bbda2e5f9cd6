//! The body of a message on the bus, which anyone with Send rights may have written.
//!
//! What is read is written again as it was read, and becomes an email of one line of subject and with nothing in its HTML
//! that the order could have put there.

use orderup::{
    event::{Event, EventError, EventKind},
    order_email,
};

use crate::place_order::assert_told;

pub fn check(data: &[u8]) {
    match Event::from_json(data) {
        Ok(event) => check_event(&event),
        Err(EventError::Order(errors)) => assert_told(&errors),
        Err(EventError::NotJson(reason)) => assert!(!reason.is_empty()),
        Err(EventError::NotAnEvent) => {}
    }
}

pub(crate) fn check_event(event: &Event) {
    let json = event.to_json();
    let again = Event::from_json(json.as_bytes()).expect("what we write we can read");
    assert_eq!(again, *event);
    assert_eq!(again.to_json(), json);
    assert_eq!(again.id(), event.id());

    let order = &event.order;
    for is_late in [false, true] {
        let email = match &event.kind {
            EventKind::Placed => order_email::placed(order, event.time, is_late),
            EventKind::Confirmed => order_email::confirmed(order, event.time, is_late),
            EventKind::Cancelled(cancellation) => {
                order_email::cancelled(order, cancellation, event.time, is_late)
            }
        };
        let breaks = |text: &str| text.chars().any(char::is_control);
        assert!(!breaks(&email.subject), "{:?}", email.subject);
        assert!(!email.to.name.as_deref().is_some_and(breaks));
        // Whatever the case and the script of its domain: a mailbox is where it was.
        let (user, _) = order.customer.email.rsplit_once('@').unwrap_or_default();
        assert!(email.to.address.starts_with(user) && !email.to.domain().is_empty());
        assert!(!email.html.contains("<script"), "an order wrote HTML");
    }

    // For everybody but the till there is no token that could be charged.
    let public = order.without_payment_token();
    assert!(
        public
            .payment
            .is_none_or(|payment| payment.source == "EXTERNAL")
    );
}
