//! The stand-in for the email provider: the Email REST API of Azure Communication Services.
//!
//! It checks what the service checks: the signature, the API version, the body, and that an `Operation-Id` comes
//! back with the same body only. What it accepts is written down before the answer, and "delivered" at once:
//! it can be read at `/_dev/emails`.

use std::{sync::Arc, time::SystemTime};

use axum::{
    Router,
    extract::{Path, Request, State},
    http::{HeaderValue, StatusCode, header, request::Parts},
    response::{IntoResponse, Response},
    routing::{get, post},
};
use base64::{Engine, engine::general_purpose::STANDARD};
use bytes::Bytes;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::json;
use sha2::{Digest, Sha256};
use uuid::Uuid;

use crate::{
    acs_email::Email,
    acs_signature::{SignedRequest, verify},
    journal::{Entry, Journal},
};

/// The stand-in's access key, in base64 as in a connection string. It guards nothing but the signing code.
pub const ACCESS_KEY: &str = "ZGV2aG9zdCBzdGFuZC1pbiwgbm90IGEgc2VjcmV0ISE=";

/// The versions of the API that are generally available.
const VERSIONS: [&str; 2] = ["2023-03-31", "2025-09-01"];
/// The service's limit for a request.
const MOST_BYTES: usize = 10 * 1024 * 1024;
/// How long the service asks to wait before the state is asked for, in seconds.
const POLL_AFTER: u64 = 5;

/// An email as `/_dev/emails` shows it. Only addresses are kept of its people.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AcceptedEmail {
    pub to: Vec<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub cc: Vec<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub bcc: Vec<String>,
    pub from: String,
    pub subject: String,
    pub text: Option<String>,
    pub html: Option<String>,
    pub reply_to: Vec<String>,
    pub operation_id: Uuid,
    pub received_at: Timestamp,
    /// The hash by which a retry with another body is told from one with the same.
    pub body_sha256: String,
}

impl Entry for AcceptedEmail {
    fn key(&self) -> Option<(String, String)> {
        Some((self.operation_id.to_string(), self.body_sha256.clone()))
    }
}

/// The emails so far.
pub type Emails = Journal<AcceptedEmail>;

pub fn router(emails: Arc<Emails>) -> Router {
    Router::new()
        .route("/emails:send", post(send))
        .route("/emails/operations/{id}", get(operation))
        .with_state(emails)
}

/// An error as the service tells it.
#[derive(Debug)]
pub struct Refusal {
    pub status: StatusCode,
    pub code: String,
    pub message: String,
}

impl Refusal {
    fn new(status: StatusCode, code: &str, message: impl Into<String>) -> Self {
        Self {
            status,
            code: code.to_owned(),
            message: message.into(),
        }
    }

    fn bad_request(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "BadRequest", message)
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let body = json!({
            "error": {
                "code": self.code, "message": self.message, "target": null, "details": [], "innererror": null,
            },
        });
        let mut response = json_answer(self.status, &body);
        if let Ok(code) = HeaderValue::try_from(self.code) {
            response.headers_mut().insert("x-ms-error-code", code);
        }
        response
    }
}

fn json_answer(status: StatusCode, body: &serde_json::Value) -> Response {
    (
        status,
        [(header::CONTENT_TYPE, "application/json; charset=utf-8")],
        body.to_string(),
    )
        .into_response()
}

async fn send(State(emails): State<Arc<Emails>>, request: Request) -> Result<Response, Refusal> {
    let (parts, body) = read(request).await?;
    accept(&emails, &parts, &body)
}

async fn operation(
    State(emails): State<Arc<Emails>>,
    Path(id): Path<String>,
    request: Request,
) -> Result<Response, Refusal> {
    read(request).await?;
    let known = Uuid::parse_str(&id).is_ok_and(|id| {
        emails
            .accept(|known| (None, known.contains_key(&id.to_string())))
            .unwrap_or(false)
    });
    if !known {
        return Err(Refusal::new(
            StatusCode::NOT_FOUND,
            "NotFound",
            "The operation does not exist.",
        ));
    }
    let body = json!({ "id": id, "status": "Succeeded", "error": null });
    Ok(json_answer(StatusCode::OK, &body))
}

/// Reads the request whole, and checks what every operation needs.
async fn read(request: Request) -> Result<(Parts, Bytes), Refusal> {
    let (parts, body) = request.into_parts();
    let body = axum::body::to_bytes(body, MOST_BYTES).await.map_err(|_| {
        Refusal::new(
            StatusCode::PAYLOAD_TOO_LARGE,
            "RequestTooLarge",
            "The request is larger than 10 MB.",
        )
    })?;
    let signed = SignedRequest {
        method: &parts.method,
        path_and_query: parts.uri.path_and_query().map_or("/", |path| path.as_str()),
        headers: &parts.headers,
        body: &body,
    };
    // The constant is base64; an empty key would only make every signature wrong.
    let key = STANDARD.decode(ACCESS_KEY).unwrap_or_default();
    verify(signed, &key, SystemTime::now()).map_err(|why| {
        Refusal::new(
            StatusCode::UNAUTHORIZED,
            "Denied",
            format!("Denied by the resource provider: {why}."),
        )
    })?;
    let version = form_urlencoded::parse(parts.uri.query().unwrap_or_default().as_bytes())
        .find(|(name, _)| name == "api-version")
        .map(|(_, version)| version.into_owned())
        .ok_or_else(|| Refusal::bad_request("The query parameter api-version is missing."))?;
    if !VERSIONS.contains(&version.as_str()) {
        let versions = VERSIONS.join(", ");
        return Err(Refusal::bad_request(format!(
            "The api-version is none of {versions}."
        )));
    }
    Ok((parts, body))
}

fn accept(emails: &Emails, parts: &Parts, body: &[u8]) -> Result<Response, Refusal> {
    let is_json = parts
        .headers
        .get(header::CONTENT_TYPE)
        .and_then(|value| value.to_str().ok())
        .is_some_and(|value| value.starts_with("application/json"));
    if !is_json {
        return Err(Refusal::new(
            StatusCode::UNSUPPORTED_MEDIA_TYPE,
            "UnsupportedMediaType",
            "The Content-Type must be application/json.",
        ));
    }
    let operation_id = match parts.headers.get("operation-id") {
        None => Uuid::new_v4(),
        Some(id) => id
            .to_str()
            .ok()
            .and_then(|id| Uuid::parse_str(id).ok())
            .ok_or_else(|| Refusal::bad_request("The Operation-Id is not a UUID."))?,
    };
    let email = Email::parse(body).map_err(Refusal::bad_request)?;
    let body_sha256 = STANDARD.encode(Sha256::digest(body));
    let now = Timestamp::now();
    let taken = emails
        .accept(|known| match known.get(&operation_id.to_string()) {
            Some(known) => (None, *known == body_sha256),
            None => (Some(email.accepted(operation_id, now, body_sha256)), true),
        })
        .map_err(|why| {
            Refusal::new(
                StatusCode::INTERNAL_SERVER_ERROR,
                "InternalServerError",
                format!("The email could not be kept: {why}"),
            )
        })?;
    if !taken {
        return Err(Refusal::bad_request(
            "The Operation-Id has been used with another request.",
        ));
    }
    let host = parts
        .headers
        .get(header::HOST)
        .and_then(|host| host.to_str().ok())
        .unwrap_or_default();
    let query = parts.uri.query().unwrap_or_default();
    let mut response = json_answer(
        StatusCode::ACCEPTED,
        &json!({ "id": operation_id, "status": "Running", "error": null }),
    );
    let location = format!("http://{host}/emails/operations/{operation_id}?{query}");
    if let Ok(location) = HeaderValue::try_from(location) {
        response
            .headers_mut()
            .insert("operation-location", location);
    }
    response
        .headers_mut()
        .insert(header::RETRY_AFTER, HeaderValue::from(POLL_AFTER));
    Ok(response)
}
