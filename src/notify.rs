//! Tells the customer that their order was placed, confirmed or cancelled.
//!
//! Runs once per delivery of a message from the queue `notifications` (see `notify/function.json`), to which the
//! subscription `customers` forwards. An email that the provider does not take now comes again as a scheduled copy. What the
//! order book has as sent is not sent again ([`crate::told`]). A process that is killed after the provider took the email,
//! and before the book knows, sends it again when the message comes back: with the same key, by which a provider that knows
//! keys drops the duplicate; ACS is asked first.

use axum::{body::Bytes, extract::State, http::HeaderMap, response::Response};
use time::{Duration, OffsetDateTime};
use tracing::info;

use crate::{
    App,
    attempt::Attempt,
    cancelled_orders::CancelledOrders,
    delivery::{Delivery, Told, caught},
    email::Email,
    event::{Event, EventKind},
    order_email,
    redelivery::Audience,
    retry,
    told::{self, Notification},
};

/// An email that was held up for longer says so.
const LATE: Duration = Duration::hours(1);

pub async fn notify(State(app): State<App>, headers: HeaderMap, body: Bytes) -> Response {
    let tell_customer = async |delivery: std::sync::Arc<Delivery>| {
        vec![Told {
            vendor: None,
            attempt: caught(tell(&app, &delivery)).await,
        }]
    };
    app.deliverer
        .deliver(
            "notify",
            Audience::Customers,
            &headers,
            &body,
            tell_customer,
        )
        .await
}

async fn tell(app: &App, delivery: &Delivery) -> Attempt {
    let event = &delivery.event;
    let now = OffsetDateTime::now_utc();
    let is_late = is_late(event.time, now);
    let written = &email(event, is_late);
    let notification = Notification::new(Audience::Customers, None, event);
    told::once(app.book(), &notification, delivery, async |may_be_there| {
        app.cancelled_orders.learn_from(app.book(), event).await;
        app.email_channel
            .attempt(delivery.has_waited(), retry::chance(), || {
                if is_overtaken(&app.cancelled_orders, event) {
                    info!(
                        "the order was cancelled meanwhile, of which the customer is told instead"
                    );
                    return None;
                }
                let otherwise = move || email(event, !is_late);
                Some(delivery.timed(app.emails.attempt(written, otherwise, may_be_there)))
            })
            .await
    })
    .await
}

/// Whether the customer is told by a cancellation that this instance knows; it gets to know this one.
pub fn is_overtaken(cancelled: &CancelledOrders, event: &Event) -> bool {
    match event.kind {
        EventKind::Placed | EventKind::Confirmed => {
            cancelled.tells(event.order_id(), &event.order.customer.email)
        }
        EventKind::Cancelled(_) => {
            cancelled.note(event);
            false
        }
    }
}

/// Whether an email about something that happened at that time says that it is late. Repeated attempts may differ in
/// this and in nothing else: a provider that knows the other email under the key is asked for that one.
pub fn is_late(event_time: OffsetDateTime, now: OffsetDateTime) -> bool {
    now - event_time > LATE
}

fn email(event: &Event, is_late: bool) -> Email {
    match &event.kind {
        EventKind::Placed => order_email::placed(&event.order, event.time, is_late),
        EventKind::Confirmed => order_email::confirmed(&event.order, event.time, is_late),
        EventKind::Cancelled(cancellation) => {
            order_email::cancelled(&event.order, cancellation, event.time, is_late)
        }
    }
}
