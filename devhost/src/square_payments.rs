//! What the stand-in Square does with payments: makes, shows and cancels them.

use std::sync::Arc;

use axum::{
    body::Bytes,
    extract::{Path, State},
    http::{HeaderMap, StatusCode},
    response::{IntoResponse, Response},
};
use serde_json::json;

use crate::{
    square::read,
    square_error::SquareError,
    square_fields::Fields,
    square_order::{Order, OrderState},
    square_orders::{check_open, find_order},
    square_payment::{Card, LONGEST_KEY, Payment, PaymentRequest, PaymentStatus},
    square_state::{Answer, Change, Done, Keyed, Square, State as Known, now},
};

/// How often a card that fails for the moment does so under each key.
const FAILURES_FOR_NOW: u32 = 2;

pub(crate) async fn show(State(square): State<Arc<Square>>, Path(id): Path<String>) -> Response {
    let find = |known: &Known| Ok(json!({ "payment": find_payment(known, &id)?.shown() }));
    square.look(find).into_response()
}

pub(crate) fn find_payment<'a>(known: &'a Known, id: &str) -> Result<&'a Payment, SquareError> {
    known
        .payments
        .get(id)
        .ok_or_else(|| SquareError::not_found(format!("Could not find payment with id: {id}")))
}

pub(crate) async fn create(
    State(square): State<Arc<Square>>,
    headers: HeaderMap,
    body: Bytes,
) -> Result<Response, SquareError> {
    let body = read(&headers, &body)?;
    let request = PaymentRequest::parse(&body, now())?;
    let keyed = Keyed {
        operation: "payments",
        subject: "",
        key: Some(request.idempotency_key),
        body: &body,
    };
    Ok(square
        .run(&keyed, |known| charge(known, &request))
        .into_response())
}

fn charge(known: &Known, request: &PaymentRequest<'_>) -> Result<Done, SquareError> {
    let order = request
        .order_id
        .map(|id| find_order(known, id).map_err(|error| error.of_field("order_id")))
        .transpose()?;
    if let Some(order) = order {
        check_open(order)?;
        if order.total_money.currency != request.amount_money.currency {
            let detail = "The currency is not that of the order.";
            return Err(
                SquareError::invalid("CURRENCY_MISMATCH", detail).of_field("amount_money.currency")
            );
        }
    }
    let status = match request.card() {
        Card::Worthless(error) if error.status == StatusCode::NOT_FOUND => return Err(error),
        Card::Worthless(error) => {
            return Ok(Done {
                change: Change::default(),
                answer: Answer::from(&error),
                is_final: true,
            });
        }
        Card::Declined(error) => {
            let payment = request.payment(PaymentStatus::Failed);
            let mut answer = Answer::from(&error);
            answer.body["payment"] = payment.shown();
            return Ok(Done {
                answer,
                ..paid(order, payment)
            });
        }
        Card::Temporary if fails_for_now(known, request.idempotency_key) => {
            let error = SquareError::payment_method(StatusCode::BAD_REQUEST, "TEMPORARY_ERROR");
            return Ok(Done {
                change: Change {
                    failed_for_now: Some(request.idempotency_key.to_owned()),
                    ..Change::default()
                },
                answer: Answer::from(&error),
                is_final: false,
            });
        }
        Card::Accepted | Card::Temporary if request.autocomplete => PaymentStatus::Completed,
        Card::Accepted | Card::Temporary => PaymentStatus::Approved,
    };
    Ok(paid(order, request.payment(status)))
}

fn fails_for_now(known: &Known, key: &str) -> bool {
    known
        .failed_for_now
        .get(key)
        .is_none_or(|failures| *failures < FAILURES_FOR_NOW)
}

/// The order's version goes up with each payment, so that nobody relies on the one from its creation.
fn paid(order: Option<&Order>, payment: Payment) -> Done {
    let order = order.map(|order| {
        let pays_it =
            payment.status == PaymentStatus::Completed && payment.amount_money == order.total_money;
        let state = if pays_it {
            OrderState::Completed
        } else {
            order.state
        };
        order.changed(state, payment.created_at)
    });
    let body = json!({ "payment": payment.shown() });
    let change = Change {
        order,
        payments: vec![payment],
        ..Change::default()
    };
    Done::ok(change, body)
}

pub(crate) async fn cancel(
    State(square): State<Arc<Square>>,
    Path(id): Path<String>,
    headers: HeaderMap,
    body: Bytes,
) -> Result<Response, SquareError> {
    let body = read(&headers, &body)?;
    Fields::of_body(&body, &["version_token"])?;
    let keyed = Keyed {
        operation: "payments/cancel",
        subject: &id,
        key: None,
        body: &body,
    };
    let make = |known: &Known| {
        let payment = find_payment(known, &id)?;
        if payment.status != PaymentStatus::Approved {
            return Err(cannot_cancel(payment));
        }
        let payment = payment.changed(PaymentStatus::Canceled, now());
        let body = json!({ "payment": payment.shown() });
        let payments = vec![payment];
        let change = Change {
            payments,
            ..Change::default()
        };
        Ok(Done::ok(change, body))
    };
    Ok(square.run(&keyed, make).into_response())
}

fn cannot_cancel(payment: &Payment) -> SquareError {
    let status = json!(payment.status);
    SquareError::bad_request(format!("The payment is {status} and cannot be canceled."))
}

/// The way out of a lost answer: whatever was made under the key holds no money afterwards.
pub(crate) async fn cancel_by_key(
    State(square): State<Arc<Square>>,
    headers: HeaderMap,
    body: Bytes,
) -> Result<Response, SquareError> {
    let body = read(&headers, &body)?;
    let fields = Fields::of_body(&body, &["idempotency_key"])?;
    let payment_key = fields.required_text("idempotency_key", LONGEST_KEY)?;
    let keyed = Keyed {
        operation: "payments/cancel-by-key",
        subject: "",
        key: None,
        body: &body,
    };
    let make = |known: &Known| {
        let made = known
            .payments
            .values()
            .find(|payment| payment.idempotency_key == payment_key);
        let payments = match made {
            Some(payment) if payment.status == PaymentStatus::Completed => {
                return Err(cannot_cancel(payment));
            }
            Some(payment) if payment.status == PaymentStatus::Approved => {
                vec![payment.changed(PaymentStatus::Canceled, now())]
            }
            _ => Vec::new(),
        };
        let change = Change {
            payments,
            ..Change::default()
        };
        Ok(Done::ok(change, json!({})))
    };
    Ok(square.run(&keyed, make).into_response())
}
