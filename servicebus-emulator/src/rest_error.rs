//! The errors of the REST data plane, as Service Bus writes them.
//!
//! Every refused request ends here: a status and a sentence, in
//! `<Error><Code>404</Code><Detail>… TrackingId:…, SystemTracker:…, Timestamp:…</Detail></Error>`.

use axum::{
    http::{StatusCode, header::CONTENT_TYPE},
    response::{IntoResponse, Response},
};
use jiff::Timestamp;
use uuid::Uuid;

use crate::{Error, sas::Unauthorized};

#[derive(Debug)]
pub(crate) struct RestError {
    pub(crate) status: StatusCode,
    detail: String,
}

impl RestError {
    pub(crate) fn new(status: StatusCode, detail: impl Into<String>) -> Self {
        Self {
            status,
            detail: detail.into(),
        }
    }

    pub(crate) fn bad_request(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, detail)
    }

    /// 404, although the reference pages list 410 for the entity operations: the answers that users of the service
    /// quote say 404 (Azure/azure-service-bus#451, among others). 410 is left for entities that once existed.
    pub(crate) fn entity_not_found(entity: &str) -> Self {
        Self::new(
            StatusCode::NOT_FOUND,
            format!(
                "The messaging entity '{entity}' could not be found. To know more visit \
                 https://aka.ms/sbResourceMgrExceptions."
            ),
        )
    }

    /// As the management API says it: clients look for the sub-code in the text.
    pub(crate) fn with_sub_code(self) -> Self {
        let detail = format!("SubCode={}00. {}", self.status.as_u16(), self.detail);
        Self { detail, ..self }
    }

    /// The answer; `system_tracker` is `{host}:{entity}`.
    pub(crate) fn into_response(self, system_tracker: &str, now: Timestamp) -> Response {
        let body = format!(
            "<Error><Code>{}</Code><Detail>{}</Detail></Error>",
            self.status.as_u16(),
            escape(&format!(
                "{} TrackingId:{}_G0, SystemTracker:{system_tracker}, Timestamp:{}",
                self.detail,
                Uuid::new_v4(),
                now.strftime("%Y-%m-%dT%H:%M:%S")
            ))
        );
        let content_type = [(CONTENT_TYPE, "application/xml; charset=utf-8")];
        (self.status, content_type, body).into_response()
    }
}

impl From<Unauthorized> for RestError {
    fn from(error: Unauthorized) -> Self {
        Self::new(StatusCode::UNAUTHORIZED, error.to_string())
    }
}

impl From<Error> for RestError {
    fn from(error: Error) -> Self {
        let status = match &error {
            Error::EntityNotFound(entity) => return Self::entity_not_found(entity),
            Error::NotSupported(_) | Error::InvalidMessage(_) => StatusCode::BAD_REQUEST,
            Error::MessageLockLost | Error::SessionLockLost | Error::MessageNotFound(_) => {
                StatusCode::NOT_FOUND
            }
            Error::SessionCannotBeLocked(_) => StatusCode::CONFLICT,
            // The reference has no 413: 403 is "quota exceeded or message too large".
            Error::MessageTooLarge { .. } | Error::QuotaExceeded(_) | Error::EntityDisabled(_) => {
                StatusCode::FORBIDDEN
            }
            Error::EntityExists(_) => StatusCode::CONFLICT,
            Error::Closed => StatusCode::SERVICE_UNAVAILABLE,
            Error::Store(_) => StatusCode::INTERNAL_SERVER_ERROR,
        };
        Self::new(status, sentence(&error.to_string()))
    }
}

fn sentence(text: &str) -> String {
    let mut characters = text.chars();
    match characters.next() {
        Some(first) => format!("{}{}.", first.to_uppercase(), characters.as_str()),
        None => String::new(),
    }
}

pub(crate) fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            // A reader of XML would take it for part of a line's end.
            '\r' => escaped.push_str("&#13;"),
            // XML 1.0 has no way to write the others.
            '\0'..='\u{8}' | '\u{b}' | '\u{c}' | '\u{e}'..='\u{1f}' => escaped.push('\u{fffd}'),
            _ => escaped.push(character),
        }
    }
    escaped
}
