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
    email::{Email, EmailSender},
    event::{Event, EventKind},
    history::History,
    order_email,
    outcome::Attempt,
    redelivery::Audience,
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
    let email = email(&delivery.event, is_late(delivery, &app.emails));
    app.email_channel
        .attempt(delivery.has_waited(), || {
            app.emails.attempt(&email, delivery.may_be_there())
        })
        .await
}

fn is_late(delivery: &Delivery, emails: &EmailSender) -> bool {
    told_at(delivery.history(), emails.keeps_bodies()) - delivery.event.time > LATE
}

/// The time as of which the email is written. All deliveries of a copy have the same, and so the same email.
fn told_at(history: &History, keeps_bodies: bool) -> OffsetDateTime {
    history
        .unconfirmed_since
        .filter(|_| keeps_bodies)
        .unwrap_or(history.enqueued)
}

fn email(event: &Event, is_late: bool) -> Email {
    match &event.kind {
        EventKind::Placed => order_email::placed(&event.order, event.time, is_late),
        EventKind::Cancelled { reason } => {
            order_email::cancelled(&event.order, Some(reason), event.time, is_late)
        }
    }
}

#[cfg(test)]
mod tests {
    use time::macros::datetime;

    use super::*;

    #[test]
    fn what_may_be_known_under_its_key_is_written_as_it_was() {
        let now = datetime!(2026-11-25 12:00 UTC);
        let since = datetime!(2026-11-25 08:00 UTC);
        let history = History {
            unconfirmed_since: Some(since),
            ..History::new(now)
        };
        assert_eq!(told_at(&history, true), since);
        assert_eq!(told_at(&history, false), now);
        assert_eq!(told_at(&History::new(now), true), now);
    }
}
