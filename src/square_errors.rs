//! What an answer of Square's API that is no success means.
//!
//! Square tells it by the `category` and the `code` of its errors. The status alone says too little: a card is declined with
//! 402 or with 400. The `detail` is a sentence, may quote anything, and is not even read. Categories and
//! codes that nobody has documented do occur; for these, and for answers that are not Square's JSON, the status decides.

use std::time::{Duration, SystemTime};

use serde::Deserialize;

use crate::{
    failure::Class,
    provider_http::Answer,
    till_error::{TillError, TillFailure},
};

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct SquareError {
    category: String,
    pub(crate) code: String,
    field: Option<String>,
}

/// What one error means. They are in the order of what they leave open: of several errors the last decides.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Meaning {
    ByStatus,
    Refused,
    Declined,
    InvalidState,
    NotFound,
    Outdated,
    KeyReused,
    Unauthorized,
    Deferred,
    RateLimited,
    Unanswered,
}

fn meaning(error: &SquareError) -> Meaning {
    // These say the same in whichever category they come.
    match error.code.as_str() {
        "TEMPORARY_ERROR" | "CONFLICT" => return Meaning::Deferred,
        "RATE_LIMITED" => return Meaning::RateLimited,
        // Nothing at this location can be paid, or nothing of what we send is understood: about us.
        "CARD_PROCESSING_NOT_ENABLED"
        | "INVALID_LOCATION"
        | "INVALID_SQUARE_VERSION_FORMAT"
        | "API_VERSION_INCOMPATIBLE" => return Meaning::Unauthorized,
        // The token is worth nothing (any more). The customer can only pay with another.
        "CARD_TOKEN_USED" | "CARD_TOKEN_EXPIRED" | "SOURCE_USED" | "SOURCE_EXPIRED" => {
            return Meaning::Declined;
        }
        _ => {}
    }
    match error.category.as_str() {
        "PAYMENT_METHOD_ERROR" => Meaning::Declined,
        "RATE_LIMIT_ERROR" => Meaning::RateLimited,
        "API_ERROR" => Meaning::Unanswered,
        "AUTHENTICATION_ERROR" | "MERCHANT_SUBSCRIPTION_ERROR" => Meaning::Unauthorized,
        "INVALID_REQUEST_ERROR" => invalid_request(&error.code, error.field.as_deref()),
        _ => Meaning::ByStatus,
    }
}

fn invalid_request(code: &str, field: Option<&str>) -> Meaning {
    match (code, field) {
        ("REQUEST_TIMEOUT", _) => Meaning::Unanswered,
        ("IDEMPOTENCY_KEY_REUSED", _) => Meaning::KeyReused,
        ("VERSION_MISMATCH", _) => Meaning::Outdated,
        // The order was made at another location, before the setting was changed: it concerns no other order.
        ("LOCATION_MISMATCH", _) => Meaning::Refused,
        // What the customer's browser gave us is no token, or none that Square knows.
        (_, Some("source_id")) => Meaning::Declined,
        // The location comes from our settings. It may be closed.
        (_, Some("location_id" | "order.location_id")) => Meaning::Unauthorized,
        ("NOT_FOUND", _) => Meaning::NotFound,
        // Square's code for a payment or an order that is completed or cancelled already.
        ("BAD_REQUEST", _) => Meaning::InvalidState,
        _ => Meaning::Refused,
    }
}

/// The errors in a body; none if it is not Square's.
pub(crate) fn errors(body: &[u8]) -> Vec<SquareError> {
    #[derive(Deserialize)]
    struct Body {
        errors: Vec<SquareError>,
    }
    serde_json::from_slice(body)
        .map(|body: Body| body.errors)
        .unwrap_or_default()
}

/// The error that an answer stands for which is no success.
pub(crate) fn error(answer: &Answer) -> TillError {
    let errors = errors(&answer.body);
    // Of equals the first.
    let decisive = errors.iter().rev().max_by_key(|error| meaning(error));
    let retry_after = retry_after(answer);
    let Some(decisive) = decisive else {
        return TillFailure::of_status(answer, None, retry_after).into();
    };
    let till = answer.provider;
    let code = Some(decisive.code.as_str());
    let told = answer.told(code);
    let class = match meaning(decisive) {
        Meaning::Declined => return TillError::declined(till, code),
        Meaning::InvalidState => {
            return TillFailure::InvalidState { till, answer: told }.into();
        }
        Meaning::NotFound => return TillFailure::NotFound { till, answer: told }.into(),
        Meaning::Outdated => return TillFailure::Outdated { till, answer: told }.into(),
        Meaning::ByStatus => answer.class(),
        Meaning::Refused => Class::Refused,
        Meaning::KeyReused => Class::KnownOtherwise,
        Meaning::Unauthorized => Class::ChannelBroken,
        Meaning::Deferred => Class::Deferred,
        Meaning::RateLimited => Class::RateLimited,
        Meaning::Unanswered => Class::Ambiguous,
    };
    TillFailure::of_class(answer, class, code, retry_after).into()
}

/// How long Square asks to be left alone: `Retry-After`, else `X-RateLimit-Reset` in seconds since 1970.
fn retry_after(answer: &Answer) -> Option<Duration> {
    let now = SystemTime::now();
    answer
        .retry_after(now)
        .or_else(|| answer.reset_at("x-ratelimit-reset", now))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(category: &str, code: &str, field: Option<&str>) -> SquareError {
        SquareError {
            category: category.to_owned(),
            code: code.to_owned(),
            field: field.map(str::to_owned),
        }
    }

    #[test]
    fn an_error_means_what_its_category_and_code_say() {
        use Meaning::*;
        const INVALID: &str = "INVALID_REQUEST_ERROR";
        const METHOD: &str = "PAYMENT_METHOD_ERROR";
        const NONE: Option<&str> = None;
        for (category, code, field, expected) in [
            (METHOD, "GENERIC_DECLINE", NONE, Declined),
            (METHOD, "CVV_FAILURE", NONE, Declined),
            (METHOD, "INSUFFICIENT_FUNDS", NONE, Declined),
            (METHOD, "ISSUER_INSTALLMENT_ERROR", NONE, Declined),
            (METHOD, "NEVER_HEARD_OF", NONE, Declined),
            (METHOD, "TEMPORARY_ERROR", NONE, Deferred),
            (METHOD, "INVALID_LOCATION", NONE, Unauthorized),
            (INVALID, "CARD_TOKEN_USED", NONE, Declined),
            (INVALID, "CARD_TOKEN_EXPIRED", NONE, Declined),
            (INVALID, "SOURCE_USED", NONE, Declined),
            (INVALID, "SOURCE_EXPIRED", NONE, Declined),
            (INVALID, "NOT_FOUND", Some("source_id"), Declined),
            (INVALID, "INVALID_CARD_DATA", Some("source_id"), Declined),
            (INVALID, "NOT_FOUND", NONE, NotFound),
            (INVALID, "REQUEST_TIMEOUT", NONE, Unanswered),
            (INVALID, "CONFLICT", NONE, Deferred),
            (INVALID, "IDEMPOTENCY_KEY_REUSED", NONE, KeyReused),
            (INVALID, "VERSION_MISMATCH", Some("order.version"), Outdated),
            (INVALID, "BAD_REQUEST", NONE, InvalidState),
            (INVALID, "INVALID_VALUE", Some("location_id"), Unauthorized),
            (INVALID, "LOCATION_MISMATCH", Some("location_id"), Refused),
            (INVALID, "VALUE_TOO_LONG", Some("reference_id"), Refused),
            (INVALID, "NEVER_HEARD_OF", NONE, Refused),
            ("RATE_LIMIT_ERROR", "RATE_LIMITED", NONE, RateLimited),
            ("API_ERROR", "INTERNAL_SERVER_ERROR", NONE, Unanswered),
            ("API_ERROR", "SERVICE_UNAVAILABLE", NONE, Unanswered),
            ("AUTHENTICATION_ERROR", "UNAUTHORIZED", NONE, Unauthorized),
            ("AUTHENTICATION_ERROR", "NEVER_HEARD_OF", NONE, Unauthorized),
            ("NEVER_HEARD_OF", "NEVER_HEARD_OF", NONE, ByStatus),
            ("", "", NONE, ByStatus),
        ] {
            let error = said(category, code, field);
            assert_eq!(meaning(&error), expected, "{error:?}");
        }
    }

    #[test]
    fn of_several_errors_the_one_decides_that_leaves_most_open() {
        let answer = |body: &str| Answer {
            provider: "Square",
            status: 400,
            headers: reqwest::header::HeaderMap::new(),
            body: body.as_bytes().to_vec(),
        };
        let declined_or_not = answer(
            r#"{"errors":[{"category":"PAYMENT_METHOD_ERROR","code":"CVV_FAILURE"},
                          {"category":"API_ERROR","code":"GATEWAY_TIMEOUT"}]}"#,
        );
        assert!(matches!(
            error(&declined_or_not),
            TillError::Failed(TillFailure::Unanswered { .. })
        ));
        let twice = answer(
            r#"{"errors":[{"category":"PAYMENT_METHOD_ERROR","code":"CVV_FAILURE"},
                          {"category":"PAYMENT_METHOD_ERROR","code":"GENERIC_DECLINE"}]}"#,
        );
        assert_eq!(
            error(&twice),
            TillError::declined("Square", Some("CVV_FAILURE"))
        );
    }

    #[test]
    fn what_is_not_squares_has_no_errors() {
        for body in [
            "",
            "<html>",
            "{}",
            "[]",
            r#"{"errors":null}"#,
            r#"{"errors":"none"}"#,
            r#"{"errors":[{"code":7}]}"#,
            r#"{"error":{"code":"CARD_DECLINED"}}"#,
        ] {
            assert!(errors(body.as_bytes()).is_empty(), "{body}");
        }
    }
}
