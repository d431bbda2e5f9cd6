//! The error answers of the HTTP API: `application/problem+json` (RFC 9457).
//!
//! A problem says what the caller can do about it, and its `type` leads to a page that says more. Nothing that the caller
//! sent is repeated.

use std::time::Duration;

use axum::{
    http::{HeaderValue, header},
    response::{IntoResponse, Response},
};
use serde::Serialize;

use crate::{fields::FieldError, problem_type::ProblemType};

#[derive(Debug)]
pub struct Problem {
    kind: ProblemType,
    detail: String,
    errors: Vec<FieldError>,
    retry_after: Option<Duration>,
    cause: Option<String>,
}

impl Problem {
    pub fn new(kind: ProblemType, detail: impl Into<String>) -> Self {
        Self {
            kind,
            detail: detail.into(),
            errors: Vec::new(),
            retry_after: None,
            cause: None,
        }
    }

    /// 422, with every field that is wrong.
    pub fn invalid_fields(errors: Vec<FieldError>) -> Self {
        Self {
            errors,
            ..Self::new(
                ProblemType::InvalidFields,
                "Some fields are not valid; see `errors`.",
            )
        }
    }

    /// One of the 503: the caller should try the same request again, not before `retry_after`. The cause is for our log.
    pub fn try_again(
        kind: ProblemType,
        detail: impl Into<String>,
        retry_after: Duration,
        cause: impl Into<String>,
    ) -> Self {
        Self {
            retry_after: Some(retry_after),
            cause: Some(cause.into()),
            ..Self::new(kind, detail)
        }
    }

    /// 500, after a panic.
    pub fn bug() -> Self {
        Self {
            cause: Some("the function panicked".to_owned()),
            ..Self::new(
                ProblemType::InternalError,
                "Something is wrong on our side. Please send the same request again.",
            )
        }
    }

    /// What went wrong on our side, if anything did.
    pub fn take_cause(&mut self) -> Option<String> {
        self.cause.take()
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        #[derive(Serialize)]
        struct Body<'a> {
            r#type: &'a str,
            title: &'a str,
            status: u16,
            detail: &'a str,
            #[serde(skip_serializing_if = "<[_]>::is_empty")]
            errors: &'a [FieldError],
        }

        let body = Body {
            r#type: &self.kind.uri(),
            title: self.kind.title(),
            status: self.kind.status().as_u16(),
            detail: &self.detail,
            errors: &self.errors,
        };
        let body = serde_json::to_string(&body).expect("a problem is made of plain values");
        let mut response = (
            self.kind.status(),
            [(header::CONTENT_TYPE, "application/problem+json")],
            body,
        )
            .into_response();
        if let Some(retry_after) = self.retry_after {
            // Rounded up: half a second must not become "at once".
            let seconds = retry_after.as_millis().div_ceil(1000);
            response.headers_mut().insert(
                header::RETRY_AFTER,
                HeaderValue::from_str(&seconds.to_string()).expect("digits are a header value"),
            );
        }
        response
    }
}
