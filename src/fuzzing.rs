//! The private parsers of outside data, for the targets in `fuzz/` and for nobody else.
//!
//! Only the feature `fuzzing` opens this module, and no build of the product has it. Each function is one parser as the
//! handler calls it, without any check of its own.

use std::time::{Duration, SystemTime};

use axum::{http::HeaderMap, response::IntoResponse};
use secrecy::ExposeSecret;

use crate::{
    acs, checkout,
    config::Settings,
    order::OrderId,
    pos::{self, Found},
    provider_http::Answer,
    retry_policy::RetryPolicy,
    square::{self, SquareOrder, SquarePayment},
    square_errors,
    till_error::TillError,
    vendors::Vendors,
};

/// The `Idempotency-Key` of a checkout; an error is the status of the refusal.
pub fn idempotency_key(headers: &HeaderMap) -> Result<Option<String>, u16> {
    checkout::idempotency_key(headers).map_err(|problem| problem.into_response().status().as_u16())
}

/// Endpoint and key of `ACS_CONNECTION_STRING`.
pub fn acs_connection_string(text: &str) -> Result<(&str, Vec<u8>), &'static str> {
    acs::parse_connection_string(text)
}

/// What is used of an entry of `VENDORS_FILE`.
#[derive(Debug)]
pub struct ReadVendor {
    pub id: String,
    pub url: String,
    /// The lengths of its secrets, in bytes.
    pub secrets: Vec<usize>,
    pub allow_private: bool,
    /// As it would be logged.
    pub printed: String,
}

/// The vendors of a `VENDORS_FILE` with that content.
pub fn vendors(text: &str, settings: &Settings) -> Result<Vec<ReadVendor>, String> {
    let vendors = Vendors::parse(text, settings, &RetryPolicy::default())?;
    let read = vendors.into_values().map(|vendor| ReadVendor {
        printed: format!("{vendor:?}"),
        secrets: vendor
            .secrets
            .iter()
            .map(|secret| secret.expose_secret().len())
            .collect(),
        id: vendor.id,
        url: vendor.url.into(),
        allow_private: vendor.allow_private,
    });
    Ok(read.collect())
}

/// What an answer to a till's or an email provider's client says, in each of the ways in which one is read.
pub struct ReadAnswer {
    pub square_order: Result<SquareOrder, TillError>,
    pub square_payment: Result<SquarePayment, TillError>,
    pub square_error: TillError,
    pub found: Result<Found, TillError>,
    pub pos_error: TillError,
    /// How long to wait: by `Retry-After`, `X-RateLimit-Reset` and `ratelimit-reset`.
    pub waits: [Option<Duration>; 3],
}

/// Reads an answer with that status, headers and body, which came at `now`.
pub fn answer(
    status: u16,
    headers: HeaderMap,
    body: Vec<u8>,
    order: OrderId,
    now: SystemTime,
) -> ReadAnswer {
    let answer = Answer {
        provider: "till",
        status,
        headers,
        body,
    };
    ReadAnswer {
        square_order: square::read_order(&answer),
        square_payment: square::read_payment(&answer),
        square_error: square_errors::error(&answer),
        found: pos::read(&answer, order),
        pos_error: pos::refusal(&answer),
        waits: [
            answer.retry_after(now),
            answer.reset_at("x-ratelimit-reset", now),
            answer.reset_in("ratelimit-reset"),
        ],
    }
}
