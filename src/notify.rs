//! Tells the customer that their order was placed or cancelled.
//!
//! Runs once per delivery of a message from the queue `notifications` (see `notify/function.json`), to which the
//! subscription `customers` forwards. A process that is killed after the provider took the email sends it again when
//! the message comes back: with the same key, by which a provider that knows keys drops the duplicate.

use axum::{body::Bytes, extract::State, http::HeaderMap, response::Response};

use tracing::error;

use crate::{
    email::{Email, EmailError, EmailSender},
    event::{Event, EventKind},
    invocation, order_email,
    outcome::Outcome,
};

pub async fn notify(
    State(emails): State<EmailSender>,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    invocation::deliver("notify", &headers, &body, |event| async move {
        match emails.send(&email(&event)).await {
            Ok(()) => Outcome::Delivered,
            Err(error @ EmailError::Unauthorized { .. }) => {
                // Ours to mend, and no email goes out before it is.
                error!("no email goes out: {error}");
                Outcome::Later(error.to_string())
            }
            Err(error) if error.is_transient() => Outcome::Later(error.to_string()),
            Err(error) => Outcome::Dead(error.to_string()),
        }
    })
    .await
}

fn email(event: &Event) -> Email {
    match &event.kind {
        EventKind::Placed => order_email::placed(&event.order, event.time),
        EventKind::Cancelled { reason } => {
            order_email::cancelled(&event.order, Some(reason), event.time)
        }
    }
}
