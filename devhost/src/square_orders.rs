//! What the stand-in Square does with orders: makes, shows, cancels and pays them.

use std::sync::Arc;

use axum::{
    body::Bytes,
    extract::{Path, State},
    http::HeaderMap,
    response::{IntoResponse, Response},
};
use serde_json::json;

use crate::{
    square::read,
    square_error::SquareError,
    square_fields::Fields,
    square_order::{Order, OrderState},
    square_payment::{Payment, PaymentStatus},
    square_payments::find_payment,
    square_state::{Change, Done, Keyed, Square, State as Known, now},
};

/// Square's limit for the idempotency keys of orders.
const LONGEST_KEY: usize = 192;

pub(crate) async fn show(State(square): State<Arc<Square>>, Path(id): Path<String>) -> Response {
    let find = |known: &Known| Ok(json!({ "order": find_order(known, &id)? }));
    square.look(find).into_response()
}

pub(crate) fn find_order<'a>(known: &'a Known, id: &str) -> Result<&'a Order, SquareError> {
    known
        .orders
        .get(id)
        .ok_or_else(|| SquareError::not_found(format!("Order not found for id {id}")))
}

pub(crate) async fn create(
    State(square): State<Arc<Square>>,
    headers: HeaderMap,
    body: Bytes,
) -> Result<Response, SquareError> {
    let body = read(&headers, &body)?;
    let fields = Fields::of_body(&body, &["idempotency_key", "order"])?;
    let key = fields.required_text("idempotency_key", LONGEST_KEY)?;
    let order = fields.required("order", fields.get("order"))?;
    let keyed = Keyed {
        operation: "orders",
        subject: "",
        key: Some(key),
        body: &body,
    };
    let make = |known: &Known| {
        if known.controls.location_closed {
            return Err(
                SquareError::invalid("INVALID_LOCATION", "The location is inactive.")
                    .of_field("order.location_id"),
            );
        }
        let order = Order::parse(order, known.controls.price_change_percent, now())?;
        Ok(order_changed(order, Vec::new()))
    };
    Ok(square.run(&keyed, make).into_response())
}

fn order_changed(order: Order, payments: Vec<Payment>) -> Done {
    let body = json!({ "order": order });
    let change = Change {
        order: Some(order),
        payments,
        ..Change::default()
    };
    Done::ok(change, body)
}

/// All that an update can do here is to cancel.
pub(crate) async fn update(
    State(square): State<Arc<Square>>,
    Path(id): Path<String>,
    headers: HeaderMap,
    body: Bytes,
) -> Result<Response, SquareError> {
    let body = read(&headers, &body)?;
    let fields = Fields::of_body(&body, &["idempotency_key", "order"])?;
    let order = fields.required("order", fields.get("order"))?;
    let order = Fields::of(
        order,
        "order".to_owned(),
        &["location_id", "version", "state"],
    )?;
    order.location("location_id")?;
    let version = order.number("version")?;
    let version = order.required("version", version)?;
    if order.required_text("state", 9)? != "CANCELED" {
        return Err(SquareError::bad_request(
            "All that the stand-in can change is the state, to CANCELED.",
        )
        .of_field("order.state"));
    }
    let keyed = Keyed {
        operation: "orders/update",
        subject: &id,
        key: fields.text("idempotency_key", LONGEST_KEY)?,
        body: &body,
    };
    let make = |known: &Known| {
        let order = find_order(known, &id)?;
        check_open(order)?;
        check_version(order, version, "order.version")?;
        Ok(order_changed(
            order.changed(OrderState::Canceled, now()),
            Vec::new(),
        ))
    };
    Ok(square.run(&keyed, make).into_response())
}

pub(crate) fn check_open(order: &Order) -> Result<(), SquareError> {
    match order.state {
        OrderState::Open => Ok(()),
        OrderState::Completed => Err(SquareError::bad_request("The order is already paid.")),
        OrderState::Canceled => Err(SquareError::bad_request("The order is canceled.")),
    }
}

fn check_version(order: &Order, version: u64, field: &str) -> Result<(), SquareError> {
    if order.version == version {
        return Ok(());
    }
    let detail = format!(
        "The version of the order is {}, not {version}.",
        order.version
    );
    Err(SquareError::invalid("VERSION_MISMATCH", detail).of_field(field))
}

/// Takes the money of payments that were approved. What else is approved for the order is canceled.
pub(crate) async fn pay(
    State(square): State<Arc<Square>>,
    Path(id): Path<String>,
    headers: HeaderMap,
    body: Bytes,
) -> Result<Response, SquareError> {
    let body = read(&headers, &body)?;
    let fields = Fields::of_body(&body, &["idempotency_key", "payment_ids", "order_version"])?;
    let key = fields.required_text("idempotency_key", LONGEST_KEY)?;
    let version = fields.number("order_version")?;
    let ids = fields.list("payment_ids")?;
    let ids = fields.required("payment_ids", ids)?;
    let keyed = Keyed {
        operation: "orders/pay",
        subject: &id,
        key: Some(key),
        body: &body,
    };
    let make = |known: &Known| {
        let order = find_order(known, &id)?;
        check_open(order)?;
        if let Some(version) = version {
            check_version(order, version, "order_version")?;
        }
        let now = now();
        let mut sum = 0;
        let mut payments = Vec::new();
        for (index, payment) in ids.iter().enumerate() {
            let wrong = |error: SquareError| error.of_field(format!("payment_ids[{index}]"));
            let payment = payment.as_str().ok_or_else(|| {
                wrong(SquareError::invalid(
                    "EXPECTED_STRING",
                    "Expected a string value.",
                ))
            })?;
            let payment = find_payment(known, payment).map_err(wrong)?;
            let is_repeated = payments
                .iter()
                .any(|other: &Payment| other.id == payment.id);
            if payment.status != PaymentStatus::Approved
                || payment.order_id.as_ref() != Some(&id)
                || is_repeated
            {
                return Err(wrong(SquareError::bad_request(
                    "The payment is not an APPROVED one of this order.",
                )));
            }
            sum += payment.amount_money.amount;
            payments.push(payment.changed(PaymentStatus::Completed, now));
        }
        if sum != order.total_money.amount {
            return Err(SquareError::bad_request(format!(
                "The payments come to {sum}, and the order to {}.",
                order.total_money.amount
            )));
        }
        let left_over: Vec<Payment> = known
            .payments
            .values()
            .filter(|payment| {
                payment.status == PaymentStatus::Approved
                    && payment.order_id.as_ref() == Some(&id)
                    && payments.iter().all(|paid| paid.id != payment.id)
            })
            .map(|payment| payment.changed(PaymentStatus::Canceled, now))
            .collect();
        payments.extend(left_over);
        Ok(order_changed(
            order.changed(OrderState::Completed, now),
            payments,
        ))
    };
    Ok(square.run(&keyed, make).into_response())
}
