//! Tells the customer that their order was placed or cancelled.
//!
//! Runs once per delivery of a message from the queue `notifications` (see `notify/function.json`), to which the
//! subscription `customers` forwards. An email that the provider does not take now comes again as a scheduled copy. A
//! process that is killed after the provider took the email sends it again when the message comes back: with the same key,
//! by which a provider that knows keys drops the duplicate; ACS is asked first.

use axum::{body::Bytes, extract::State, http::HeaderMap, response::Response};
use time::{Duration, OffsetDateTime};
use tracing::info;

use crate::{
    App,
    delivery::{Delivery, Told},
    email::Email,
    event::{Event, EventKind},
    history::History,
    order_email,
    outcome::Attempt,
    redelivery::Audience,
    retry,
};

/// An email that was held up for longer says so.
const LATE: Duration = Duration::hours(1);

pub async fn notify(State(app): State<App>, headers: HeaderMap, body: Bytes) -> Response {
    app.deliverer
        .deliver(
            "notify",
            Audience::Customers,
            &headers,
            &body,
            async |delivery| {
                vec![Told {
                    vendor: None,
                    attempt: tell(&app, &delivery).await,
                }]
            },
        )
        .await
}

async fn tell(app: &App, delivery: &Delivery) -> Attempt {
    let order_id = delivery.event.order_id();
    match delivery.event.kind {
        EventKind::Cancelled { .. } => app.cancelled_orders.note(order_id),
        EventKind::Placed if app.cancelled_orders.contains(order_id) => {
            info!("the order was cancelled meanwhile, of which the customer is told instead");
            return Attempt::Told;
        }
        EventKind::Placed => {}
    }
    let event = &delivery.event;
    let is_late = is_late(delivery.history(), event.time);
    let (now, otherwise) = (email(event, is_late), email(event, !is_late));
    app.email_channel
        .attempt(delivery.has_waited(), retry::chance(), || {
            app.emails
                .attempt(&now, &otherwise, delivery.may_be_there())
        })
        .await
}

/// Whether an email about an event of that time says that it is late. All deliveries of a copy say the same, so that
/// what is sent again after a crash is the same to the byte.
pub fn is_late(history: &History, event_time: OffsetDateTime) -> bool {
    history.enqueued - event_time > LATE
}

fn email(event: &Event, is_late: bool) -> Email {
    match &event.kind {
        EventKind::Placed => order_email::placed(&event.order, event.time, is_late),
        EventKind::Cancelled { reason } => {
            order_email::cancelled(&event.order, Some(reason), event.time, is_late)
        }
    }
}
