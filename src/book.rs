//! Writes into the order book what happened to an order.
//!
//! Runs once per delivery of a message from the subscription `book` (see `book/function.json`). Facts are written once, so
//! that a repeated delivery changes nothing. An order book that does not take them is like any recipient that is down: the
//! message comes again. Where none is kept, the messages are completed.

use axum::{body::Bytes, extract::State, http::HeaderMap, response::Response};

use crate::{
    App,
    attempt::Attempt,
    delivery::{Told, caught},
    event::{Event, EventKind},
    failure::{Class, Failure},
    order_book::{BookError, CANCELLED, CONFIRMED, Cancelled, Confirmed, OrderBook},
    redelivery::Audience,
};

pub async fn book(State(app): State<App>, headers: HeaderMap, body: Bytes) -> Response {
    app.deliverer
        .deliver("book", Audience::Book, &headers, &body, async |delivery| {
            if !app.book().is_kept() {
                return Vec::new();
            }
            let attempt = async {
                match write(app.book(), &delivery.event).await {
                    Ok(()) => Attempt::Told,
                    Err(error) => Attempt::Failed(failure(&error)),
                }
            };
            vec![Told {
                vendor: None,
                attempt: caught(attempt).await,
            }]
        })
        .await
}

async fn write(book: &OrderBook, event: &Event) -> Result<(), BookError> {
    let order = event.order_id();
    match &event.kind {
        EventKind::Placed => book.keep_placed(event).await?,
        EventKind::Confirmed => {
            let confirmed = Confirmed { at: event.time };
            book.write(order, CONFIRMED, &confirmed).await?
        }
        EventKind::Cancelled(cancellation) => {
            let cancelled = Cancelled {
                at: event.time,
                reason: cancellation.reason.clone(),
                not_charged: cancellation.not_charged,
            };
            book.write(order, CANCELLED, &cancelled).await?
        }
    };
    Ok(())
}

/// What it means for whoever needs the order book and can wait for it.
pub fn failure(error: &BookError) -> Failure {
    Failure {
        // It says nothing of anybody else whom the message is about.
        class: Class::Deferred,
        retry_after: None,
        answer: format!("the order book: {error}"),
        nothing_taken: false,
    }
}
