//! The stand-in for the till: the part of Square's API by which orders are made and paid.
//!
//! It checks what Square checks: the token, the version of the API, the body, that a key comes back with the same
//! body only, and that a change fits the state that things are in. The cards are those of Square's sandbox. What it
//! does is written down before the answer; it can be read at `/_dev/till`.

use std::sync::Arc;

use axum::{
    Router,
    extract::{Request, State},
    http::{HeaderMap, StatusCode, header},
    middleware::{Next, from_fn},
    response::{IntoResponse, Response},
    routing::{any, get, post},
};
use serde_json::{Value, json};

use crate::{
    square_error::SquareError,
    square_orders, square_payments,
    square_state::{Answer, Square},
};

/// The stand-in's token. It guards nothing but the code that sends it.
pub const ACCESS_TOKEN: &str = "devhost-stand-in-not-a-secret";
/// The only location that the stand-in has.
pub const LOCATION_ID: &str = "LDEVHOST";

pub fn router(square: Arc<Square>) -> Router {
    Router::new()
        .route("/v2/orders", post(square_orders::create))
        .route(
            "/v2/orders/{id}",
            get(square_orders::show).put(square_orders::update),
        )
        .route("/v2/orders/{id}/pay", post(square_orders::pay))
        .route("/v2/payments", post(square_payments::create))
        .route("/v2/payments/cancel", post(square_payments::cancel_by_key))
        .route("/v2/payments/{id}", get(square_payments::show))
        .route("/v2/payments/{id}/cancel", post(square_payments::cancel))
        .route("/v2/{*rest}", any(nothing))
        .layer(from_fn(authorised))
        .with_state(square)
}

/// Middleware that counts every request to the till, also those that a fault strikes.
pub async fn counted(State(square): State<Arc<Square>>, request: Request, next: Next) -> Response {
    if request.uri().path().starts_with("/v2/") {
        square.count_call();
    }
    next.run(request).await
}

impl IntoResponse for Answer {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.status).unwrap_or_default();
        let content_type = [(header::CONTENT_TYPE, "application/json")];
        (status, content_type, self.body.to_string()).into_response()
    }
}

impl IntoResponse for SquareError {
    fn into_response(self) -> Response {
        Answer::from(&self).into_response()
    }
}

async fn authorised(request: Request, next: Next) -> Response {
    match check_headers(request.headers()) {
        Ok(()) => next.run(request).await,
        Err(error) => error.into_response(),
    }
}

fn check_headers(headers: &HeaderMap) -> Result<(), SquareError> {
    let header = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    let token = header("authorization").and_then(|value| value.strip_prefix("Bearer "));
    if token != Some(ACCESS_TOKEN) {
        return Err(SquareError::unauthorized(
            "This request could not be authorized.",
        ));
    }
    let is_date = |text: &str| text.len() == 10 && text.parse::<jiff::civil::Date>().is_ok();
    if !header("square-version").is_some_and(is_date) {
        return Err(SquareError::bad_request(
            "The header Square-Version must be a date like 2026-09-16.",
        ));
    }
    Ok(())
}

/// The body as JSON; a request without one has an empty object.
pub(crate) fn read(headers: &HeaderMap, body: &[u8]) -> Result<Value, SquareError> {
    if body.is_empty() {
        return Ok(json!({}));
    }
    let is_json = headers
        .get(header::CONTENT_TYPE)
        .and_then(|value| value.to_str().ok())
        .is_some_and(|value| value.starts_with("application/json"));
    if !is_json {
        return Err(SquareError::invalid(
            "INVALID_CONTENT_TYPE",
            "The Content-Type must be application/json.",
        ));
    }
    serde_json::from_slice(body).map_err(|error| {
        SquareError::invalid(
            "EXPECTED_JSON_BODY",
            format!("The body is not JSON: {error}."),
        )
    })
}

async fn nothing() -> Response {
    SquareError::not_found("Resource not found.").into_response()
}
