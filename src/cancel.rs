//! Cancels an order because a person says so: `POST /api/orders/{orderId}/cancel`.
//!
//! Runs once per request. 202 means that the topic, or the outbox, has the cancellation. Where an order book is kept, the id is
//! enough: the order is in it, and it decides between whoever cancels and the till ([`crate::order_book::Decision`]). Cancelling
//! twice says the same thing twice, under the same id. Where none is kept, the caller sends the order's snapshot, so that
//! everyone who hears of the cancellation knows what it is about.
//!
//! Killed after the decision and before the answer, the order is cancelled, and those who have to know hear of it when the
//! caller, who saw no answer, asks again; `orderup audit` finds what nobody asked for again.

use std::time::Duration;

use axum::{
    Json,
    body::Body,
    extract::{Path, State, rejection::PathRejection},
    http::{HeaderMap, StatusCode},
    response::{IntoResponse, Response},
};
use serde_json::{Value, json};
use time::{OffsetDateTime, format_description::well_known::Rfc3339};
use tokio::time::{Instant, sleep};
use tracing::warn;
use uuid::Uuid;

use crate::{
    App,
    announce::announce,
    event::{self, Event, EventKind, LONGEST_REASON},
    fields::{FieldError, FieldErrors, Fields},
    order::{Order, OrderId, Payment},
    order_book::{
        self, BookError, CANCELLED, CONFIRMED, Cancelled, Confirmed, Decision, OrderBook,
    },
    order_status::may_be_on_its_way,
    problem::Problem,
    problem_type::ProblemType,
    request,
    till_facts::PAID,
};

/// How long a caller waits for an order that is on its way into the order book, and how often it is looked for.
const WAIT: Duration = Duration::from_secs(5);
const LOOK: Duration = Duration::from_millis(200);

/// When to come again for one that is still not there.
const TRY_AGAIN: Duration = Duration::from_secs(2);

pub async fn cancel(
    State(app): State<App>,
    order_id: Result<Path<Uuid>, PathRejection>,
    headers: HeaderMap,
    body: Body,
) -> Response {
    request::answer("cancel", &headers, async {
        let Ok(Path(order_id)) = order_id else {
            let detail = "The order id in the path is not a UUID.";
            return Err(Problem::new(ProblemType::OrderNotFound, detail));
        };
        let order_id = OrderId(order_id);
        request::record_order(order_id);
        let body = request::json(&headers, body).await?;
        let needs_order = !app.book().is_kept();
        let (reason, order) =
            read(&body, order_id, needs_order).map_err(Problem::invalid_fields)?;
        let event = match find(&app, order_id, order).await? {
            Known::InTheBook(placed) => decide(&app, &placed, &reason, true).await?,
            Known::Snapshot(snapshot) => decide(&app, &snapshot, &reason, false).await?,
            Known::Unasked(snapshot) => Cancelled::now(&reason, false).event(&snapshot),
        };
        announce(&app, &event, &headers).await?;
        app.cancelled_orders.note(&event);
        Ok(accepted(order_id))
    })
    .await
}

/// What is known of the order that is to be cancelled.
enum Known {
    InTheBook(Event),
    /// What the caller says of it.
    Snapshot(Event),
    /// The same, and there is no order book in which it could be decided.
    Unasked(Event),
}

/// Looks the order up, for a while if it was accepted only now.
async fn find(app: &App, order_id: OrderId, snapshot: Option<Order>) -> Result<Known, Problem> {
    // As it is said without an order book: nobody needs a token for it.
    let snapshot = snapshot.map(|order| Event {
        kind: EventKind::Placed,
        time: order.placed_at.unwrap_or_else(event::now),
        order: order.without_payment_token(),
    });
    let started = Instant::now();
    loop {
        match (app.book().placed(order_id).await, &snapshot) {
            (Ok(Some(placed)), _) => return Ok(Known::InTheBook(placed)),
            (Ok(None), Some(snapshot)) => return Ok(Known::Snapshot(snapshot.clone())),
            (Ok(None), None) => {}
            (Err(BookError::NotKept), Some(snapshot)) => {
                return Ok(Known::Unasked(snapshot.clone()));
            }
            // Without a till nobody is charged whom the order book would have to protect.
            (Err(error), Some(snapshot)) if app.till.is_none() => {
                warn!("cancelled without the order book: {error}");
                return Ok(Known::Unasked(snapshot.clone()));
            }
            (Err(error), _) => return Err(unavailable(&error)),
        }
        // An id that is made of an `Idempotency-Key` does not say when.
        let may_come = order_id.0.get_version_num() == 5
            || may_be_on_its_way(order_id, OffsetDateTime::now_utc());
        if !may_come {
            let detail = "There is no order of this id in the order book.";
            return Err(Problem::new(ProblemType::OrderNotFound, detail));
        }
        if started.elapsed() >= WAIT {
            let detail = "The order is not in the order book yet. If it was accepted, it will be within seconds: please \
                          send the same request again.";
            return Err(Problem::try_again(
                ProblemType::OrderNotInBookYet,
                detail,
                TRY_AGAIN,
                "not in the order book yet",
            ));
        }
        sleep(LOOK).await;
    }
}

fn unavailable(error: &BookError) -> Problem {
    let detail = "The order book does not answer just now. Please send the same request again.";
    Problem::try_again(
        ProblemType::OrderBookUnavailable,
        detail,
        TRY_AGAIN,
        error.to_string(),
    )
}

/// Decides that the order is cancelled, unless it has gone to the till. The cancellation that counts is the first one, with
/// its reason.
async fn decide(app: &App, placed: &Event, reason: &str, is_known: bool) -> Result<Event, Problem> {
    let (book, order_id) = (app.book(), placed.order_id());
    let is_external = placed
        .order
        .payment
        .as_ref()
        .is_some_and(Payment::is_external);
    // Only the till takes money, and it does so only if it decides first.
    let not_charged = app.till.is_some() && is_known && !is_external;
    let ours = Decision::Cancel(Cancelled::now(reason, not_charged));
    let decided = decided(book, order_id, &ours).await;
    match decided.map_err(|error| unavailable(&error))? {
        Decision::Cancel(cancelled) => Ok(cancelled.event(placed)),
        Decision::Charge { at } => Err(too_late(book, order_id, at).await),
    }
}

/// The decision that counts, whose cancellation is a fact.
pub(crate) async fn decided(
    book: &OrderBook,
    order_id: OrderId,
    ours: &Decision,
) -> Result<Decision, BookError> {
    let mut round = None;
    loop {
        let names = book.names(order_id).await?;
        if let Some(paid) = [CONFIRMED, PAID]
            .into_iter()
            .find(|name| names.contains(*name))
            && let Some(Confirmed { at }) = book.read(order_id, paid).await?
        {
            return Ok(Decision::Charge { at });
        }
        let current = order_book::round(|name| names.contains(name));
        let name = order_book::decision(current);
        match book.settle(order_id, &name, ours.clone()).await? {
            Decision::Cancel(cancelled) => {
                let cancelled = book.settle(order_id, CANCELLED, cancelled).await?;
                return Ok(Decision::Cancel(cancelled));
            }
            // It may have come to nothing while we asked.
            Decision::Charge { .. } if round != Some(current) => round = Some(current),
            charge @ Decision::Charge { .. } => return Ok(charge),
        }
    }
}

/// 409, which says why.
async fn too_late(book: &OrderBook, order_id: OrderId, charged_at: OffsetDateTime) -> Problem {
    let written = |time: OffsetDateTime| {
        time.format(&Rfc3339)
            .expect("times of our century have an RFC 3339 form")
    };
    let detail = match book.read::<Confirmed>(order_id, CONFIRMED).await {
        Ok(Some(confirmed)) => format!(
            "The order was confirmed at {} and can't be cancelled here any more. Cancel and refund it at the till.",
            written(confirmed.at)
        ),
        Ok(None) | Err(_) => format!(
            "The order went to the till at {}, which may be taking the payment just now: it can't be cancelled here any \
             more. Once it is confirmed, cancel and refund it at the till; if the till declines, it is cancelled by itself; \
             if its message is a dead letter of the till, replay that.",
            written(charged_at)
        ),
    };
    Problem::new(ProblemType::TooLateToCancel, detail)
}

fn accepted(order_id: OrderId) -> impl IntoResponse {
    let body: Json<Value> = Json(json!({
        "orderId": order_id,
        "status": "accepted",
        "links": { "self": format!("/api/orders/{order_id}") },
    }));
    (StatusCode::ACCEPTED, body)
}

/// The reason, and the order's snapshot where it is sent. `needs_order` says that there is nowhere else to look.
fn read(
    body: &Value,
    order_id: OrderId,
    needs_order: bool,
) -> Result<(String, Option<Order>), Vec<FieldError>> {
    let mut errors = FieldErrors::default();
    let fields = Fields::of(body, "", &mut errors);
    let reason = fields
        .as_ref()
        .and_then(|fields| fields.text("reason", LONGEST_REASON, &mut errors));
    let order = fields.as_ref().and_then(|fields| {
        if needs_order {
            fields.required("order", &mut errors)
        } else {
            fields.optional("order")
        }
    });
    let order = order.and_then(|order| {
        Order::from_snapshot(order, "/order", Some(order_id))
            .map_err(|found| errors.extend(found))
            .ok()
    });
    errors.finish(reason.map(|reason| (reason, order)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_wrong_with_the_reason_and_the_order_is_told_at_once() {
        let body = json!({
            "reason": 7,
            "order": {
                "customer": { "name": "Ada", "email": "ada" },
                "lineItems": [{ "vendorId": "bakery", "sku": "1", "name": "x", "quantity": 1,
                                "unitPrice": { "amount": 1, "currency": "AUD" } }]
            }
        });
        let order_id = OrderId(Uuid::from_u128(7));
        let pointers = |body: &Value| -> Vec<String> {
            let errors = read(body, order_id, true).unwrap_err();
            errors.into_iter().map(|error| error.pointer).collect()
        };
        assert_eq!(pointers(&body), ["/reason", "/order/customer/email"]);
        assert_eq!(pointers(&json!({})), ["/reason", "/order"]);
        assert_eq!(pointers(&json!("x")), [""]);
    }

    #[test]
    fn with_an_order_book_the_id_is_enough() {
        let order_id = OrderId(Uuid::from_u128(7));
        let (reason, order) = read(&json!({ "reason": "Sold out" }), order_id, false).unwrap();
        assert_eq!((reason.as_str(), order), ("Sold out", None));
        let errors = read(
            &json!({ "reason": "Sold out", "order": 7 }),
            order_id,
            false,
        );
        assert_eq!(errors.unwrap_err()[0].pointer, "/order");
    }
}
