//! Errors as Square tells them: a category to act by, a code, words, and the field that is wrong.

use axum::http::StatusCode;
use serde_json::{Value, json};

/// One error, with the HTTP status that goes with it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SquareError {
    pub status: StatusCode,
    pub category: &'static str,
    pub code: &'static str,
    pub detail: String,
    /// The path of the field in the body.
    pub field: Option<String>,
}

impl SquareError {
    fn new(
        status: StatusCode,
        category: &'static str,
        code: &'static str,
        detail: impl Into<String>,
    ) -> Self {
        Self {
            status,
            category,
            code,
            detail: detail.into(),
            field: None,
        }
    }

    /// The request itself is wrong.
    pub fn invalid(code: &'static str, detail: impl Into<String>) -> Self {
        Self::new(
            StatusCode::BAD_REQUEST,
            "INVALID_REQUEST_ERROR",
            code,
            detail,
        )
    }

    /// What was asked for cannot be done in the state that things are in.
    pub fn bad_request(detail: impl Into<String>) -> Self {
        Self::invalid("BAD_REQUEST", detail)
    }

    pub fn not_found(detail: impl Into<String>) -> Self {
        Self::new(
            StatusCode::NOT_FOUND,
            "INVALID_REQUEST_ERROR",
            "NOT_FOUND",
            detail,
        )
    }

    pub fn unauthorized(detail: impl Into<String>) -> Self {
        Self::new(
            StatusCode::UNAUTHORIZED,
            "AUTHENTICATION_ERROR",
            "UNAUTHORIZED",
            detail,
        )
    }

    /// The card was not taken. Most come as a 400, one as a 402.
    pub fn payment_method(status: StatusCode, code: &'static str) -> Self {
        let detail = format!("Authorization error: '{code}'");
        Self::new(status, "PAYMENT_METHOD_ERROR", code, detail)
    }

    /// Square's own fault.
    pub fn api(detail: impl Into<String>) -> Self {
        let status = StatusCode::INTERNAL_SERVER_ERROR;
        Self::new(status, "API_ERROR", "INTERNAL_SERVER_ERROR", detail)
    }

    /// What Square would write with this status, whatever it was asked.
    pub fn of_status(status: StatusCode, detail: &str) -> Self {
        let (category, code) = match status.as_u16() {
            401 => ("AUTHENTICATION_ERROR", "UNAUTHORIZED"),
            403 => ("AUTHENTICATION_ERROR", "FORBIDDEN"),
            404 => ("INVALID_REQUEST_ERROR", "NOT_FOUND"),
            408 => ("INVALID_REQUEST_ERROR", "REQUEST_TIMEOUT"),
            409 => ("INVALID_REQUEST_ERROR", "CONFLICT"),
            429 => ("RATE_LIMIT_ERROR", "RATE_LIMITED"),
            502 => ("API_ERROR", "BAD_GATEWAY"),
            503 => ("API_ERROR", "SERVICE_UNAVAILABLE"),
            504 => ("API_ERROR", "GATEWAY_TIMEOUT"),
            500.. => ("API_ERROR", "INTERNAL_SERVER_ERROR"),
            _ => ("INVALID_REQUEST_ERROR", "BAD_REQUEST"),
        };
        Self::new(status, category, code, detail)
    }

    #[must_use]
    pub fn of_field(mut self, field: impl Into<String>) -> Self {
        self.field = Some(field.into());
        self
    }

    /// `{"errors": […]}`
    pub fn body(&self) -> Value {
        let mut error =
            json!({ "category": self.category, "code": self.code, "detail": self.detail });
        if let Some(field) = &self.field {
            error["field"] = field.as_str().into();
        }
        json!({ "errors": [error] })
    }
}
