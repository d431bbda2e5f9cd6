//! Cancels an order because a person says so: `POST /api/orders/{orderId}/cancel`.
//!
//! Runs once per request. 202 means that the broker has the cancellation. The caller sends the order's snapshot, so
//! that everyone who hears of the cancellation knows what it is about. Cancelling twice says the same thing twice: the
//! topic drops the second within its window, and later the recipients know it by its key.

use axum::{
    Json,
    body::Body,
    extract::{Path, State, rejection::PathRejection},
    http::{HeaderMap, StatusCode},
    response::{IntoResponse, Response},
};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::{
    App,
    announce::announce,
    event::{self, Cancellation, Event, EventKind, LONGEST_REASON},
    fields::{FieldError, FieldErrors, Fields},
    order::{Order, OrderId},
    problem::Problem,
    request,
};

pub async fn cancel(
    State(app): State<App>,
    order_id: Result<Path<Uuid>, PathRejection>,
    headers: HeaderMap,
    body: Body,
) -> Response {
    request::answer("cancel", &headers, async {
        let Ok(Path(order_id)) = order_id else {
            let detail = "The order id in the path is not a UUID.";
            return Err(Problem::new(StatusCode::NOT_FOUND, detail));
        };
        let order_id = OrderId(order_id);
        request::record_order(order_id);
        let body = request::json(&headers, body).await?;
        let (reason, mut order) = read(&body, order_id).map_err(Problem::invalid_fields)?;
        // Who cancels needs no token, and those who hear of it have no use for one.
        order.payment = None;
        let event = Event {
            kind: EventKind::Cancelled(Cancellation {
                reason,
                not_charged: false,
            }),
            time: event::now(),
            order,
        };
        announce(&app.deliverer.topic, &event, &headers).await?;
        app.cancelled_orders.note(&event);
        Ok(accepted(order_id))
    })
    .await
}

fn accepted(order_id: OrderId) -> impl IntoResponse {
    let body: Json<Value> = Json(json!({
        "orderId": order_id,
        "status": "accepted",
        "links": { "self": format!("/api/orders/{order_id}") },
    }));
    (StatusCode::ACCEPTED, body)
}

fn read(body: &Value, order_id: OrderId) -> Result<(String, Order), Vec<FieldError>> {
    let mut errors = FieldErrors::default();
    let fields = Fields::of(body, "", &mut errors);
    let reason = fields
        .as_ref()
        .and_then(|fields| fields.text("reason", LONGEST_REASON, &mut errors));
    let order = fields
        .as_ref()
        .and_then(|fields| fields.required("order", &mut errors))
        .and_then(|order| {
            Order::from_snapshot(order, "/order", Some(order_id))
                .map_err(|found| errors.extend(found))
                .ok()
        });
    errors.finish(reason.zip(order))
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
            let errors = read(body, order_id).unwrap_err();
            errors.into_iter().map(|error| error.pointer).collect()
        };
        assert_eq!(pointers(&body), ["/reason", "/order/customer/email"]);
        assert_eq!(pointers(&json!({})), ["/reason", "/order"]);
        assert_eq!(pointers(&json!("x")), [""]);
    }
}
