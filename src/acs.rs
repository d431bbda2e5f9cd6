//! Azure Communication Services Email, by its REST API (2025-09-01).
//!
//! `POST {endpoint}/emails:send`, signed with the resource's access key or with a token of the identity. Success is
//! 202: ACS has taken the email. The email's key is the `Operation-Id`, by which ACS knows a repetition, and by which it
//! is asked whether it has taken an email of which nobody knows. Nothing polls the operation otherwise, as that is
//! limited nearly as strictly as sending is.

use std::{
    fmt,
    time::{Duration, SystemTime},
};

use base64::{Engine, prelude::BASE64_STANDARD};
use hmac::{Hmac, Mac};
use reqwest::{
    RequestBuilder, Url,
    header::{AUTHORIZATION, CONTENT_TYPE, HeaderMap, HeaderValue},
};
use secrecy::{ExposeSecret, SecretSlice};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use uuid::Uuid;

use crate::{
    config::{ConfigError, Settings},
    email::{Email, EmailError, Mailbox, Sender},
    http_client,
    identity::{ACS_EMAIL_SCOPE, ACS_EMAIL_SCOPE_US, Identity, IdentitySource},
    provider_http::{self, Answer},
};

const PROVIDER: &str = "ACS";
const API_VERSION: &str = "2025-09-01";

/// A client of one ACS resource.
#[derive(Clone)]
pub struct AcsClient {
    base: String,
    credential: Credential,
    sender: Sender,
    http: reqwest::Client,
    total: Duration,
}

#[derive(Clone)]
enum Credential {
    AccessKey(SecretSlice<u8>),
    Identity(Identity),
}

impl fmt::Debug for AcsClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AcsClient")
            .field("base", &self.base)
            .finish_non_exhaustive()
    }
}

impl AcsClient {
    /// Reads `ACS_CONNECTION_STRING`, or `ACS_ENDPOINT` for use with the identity of the app: `ACS__clientId`, or
    /// `AZURE_CLIENT_ID`, says which one. The connection string wins.
    pub(crate) fn from_settings(
        settings: &Settings,
        sender: Sender,
        http: &reqwest::Client,
        total: Duration,
    ) -> Result<Self, ConfigError> {
        const STRING: &str = "ACS_CONNECTION_STRING";
        let (base, credential) = match (
            settings.optional(STRING),
            settings.optional("ACS_ENDPOINT"),
        ) {
            (None, Some(endpoint)) => {
                let base = provider_http::base_url("ACS_ENDPOINT", &endpoint)?;
                let source = IdentitySource::read(settings, "ACS")?;
                let is_us = Url::parse(&base).is_ok_and(|url| {
                    url.host_str()
                        .is_some_and(|host| host.ends_with(".azure.us"))
                });
                let scope = if is_us {
                    ACS_EMAIL_SCOPE_US
                } else {
                    ACS_EMAIL_SCOPE
                };
                let identity = Identity::new(source, scope, http);
                (base, Credential::Identity(identity))
            }
            _ => {
                let text = settings.required(
                    STRING,
                    "endpoint=https://….communication.azure.com/;accesskey=…, or ACS_ENDPOINT set instead",
                )?;
                let (endpoint, key) = parse_connection_string(&text).map_err(|problem| {
                    ConfigError::invalid(
                        STRING,
                        problem,
                        "endpoint=https://….communication.azure.com/;accesskey=…",
                    )
                })?;
                (
                    provider_http::base_url(STRING, endpoint)?,
                    Credential::AccessKey(key.into()),
                )
            }
        };
        Ok(Self {
            base,
            credential,
            sender,
            http: http.clone(),
            total,
        })
    }

    /// As [`crate::email::EmailSender::send`]. An answer that was lost is asked for: that ACS knows the email settles it;
    /// that it does not, so soon, may only mean that it does not know it yet.
    pub(crate) async fn send(&self, email: &Email) -> Result<(), EmailError> {
        let body = serde_json::to_vec(&self.message(email)).expect("strings become JSON");
        let error = match self.post(email.key, &body).await {
            Ok(answer) => match answer.status {
                202 => return Ok(()),
                // What is wrong with the email, or a repetition of one that was taken and whose answer was lost
                // (Azure/azure-sdk-for-net#50889).
                400 | 409 if self.knows(email.key).await? => return Ok(()),
                _ => failure(&answer),
            },
            Err(error) => error,
        };
        match error {
            EmailError::Unanswered { .. } if self.knows(email.key).await? => Ok(()),
            error => Err(error),
        }
    }

    /// As [`Self::has_taken`], after something was sent: when ACS cannot be asked, it may be there.
    async fn knows(&self, key: Uuid) -> Result<bool, EmailError> {
        self.has_taken(key).await.map_err(|error| match error {
            EmailError::Refused { .. } => error,
            error => EmailError::Unanswered {
                provider: PROVIDER,
                reason: format!("asked whether it has the email: {error}"),
            },
        })
    }

    async fn post(&self, key: Uuid, body: &[u8]) -> Result<Answer, EmailError> {
        let url = self.url("/emails:send");
        let request = || {
            self.http
                .post(url.clone())
                .header(CONTENT_TYPE, "application/json")
                .header("Operation-Id", key.to_string())
                .body(body.to_vec())
        };
        self.ask_again_after_401(request, "POST", &url, body).await
    }

    /// Whether ACS has taken the email with that key.
    ///
    /// # Errors
    /// If it cannot be asked, or has taken the email and could not hand it on.
    pub(crate) async fn has_taken(&self, key: Uuid) -> Result<bool, EmailError> {
        let url = self.url(&format!("/emails/operations/{key}"));
        let request = || self.http.get(url.clone());
        let answer = self.ask_again_after_401(request, "GET", &url, b"").await?;
        match answer.status {
            200 => match operation_status(&answer).as_deref() {
                Some("NotStarted" | "Running" | "Succeeded") => Ok(true),
                // Under this key it never will be sent.
                Some(status @ ("Failed" | "Canceled")) => Err(EmailError::Refused {
                    provider: PROVIDER,
                    answer: format!("the operation is {status}"),
                }),
                _ => Err(unclear(&answer)),
            },
            404 => Ok(false),
            // Something else is wrong than with the email.
            400 | 413 | 422 => Err(unclear(&answer)),
            _ => Err(failure(&answer)),
        }
    }

    /// ACS now and then takes the date of a correct clock for a drift (firezone/firezone#12835): a fresh signature, or
    /// token, settles that, and a second 401 is about us.
    async fn ask_again_after_401(
        &self,
        request: impl Fn() -> RequestBuilder,
        method: &str,
        url: &Url,
        body: &[u8],
    ) -> Result<Answer, EmailError> {
        let answer = self.ask(request(), method, url, body).await?;
        if answer.status == 401 {
            return self.ask(request(), method, url, body).await;
        }
        Ok(answer)
    }

    /// Sends the request, which says `method`, `url` and `body`, with a fresh authorisation.
    async fn ask(
        &self,
        request: RequestBuilder,
        method: &str,
        url: &Url,
        body: &[u8],
    ) -> Result<Answer, EmailError> {
        // One per attempt, so that Azure's logs tell them apart.
        let request = request.header("x-ms-client-request-id", Uuid::new_v4().to_string());
        match &self.credential {
            Credential::AccessKey(key) => {
                let headers = signed_headers(url, key, method, body, SystemTime::now());
                provider_http::ask(PROVIDER, request.headers(headers), self.total).await
            }
            Credential::Identity(identity) => {
                let no_token = |reason: String| EmailError::Unreachable {
                    provider: PROVIDER,
                    reason,
                };
                let token = identity
                    .bearer()
                    .await
                    .map_err(|error| no_token(error.to_string()))?;
                let bearer = http_client::bearer(&token)
                    .ok_or_else(|| no_token("the token fits in no header".to_owned()))?;
                let request = request.header(AUTHORIZATION, bearer);
                let answer = provider_http::ask(PROVIDER, request, self.total).await?;
                if answer.status == 401 {
                    identity.forget(token.expose_secret());
                }
                Ok(answer)
            }
        }
    }

    fn url(&self, path: &str) -> Url {
        let url = format!("{}{path}?api-version={API_VERSION}", self.base);
        Url::parse(&url)
            .expect("the base was read as a URL, and nothing of the rest is from outside")
    }

    fn message<'a>(&'a self, email: &'a Email) -> Message<'a> {
        Message {
            headers: MessageHeaders {
                order_id: &email.order_id,
            },
            sender_address: &self.sender.from.address,
            content: Content {
                subject: &email.subject,
                plain_text: &email.text,
                html: &email.html,
            },
            recipients: Recipients {
                to: [Address::of(&email.to)],
            },
            reply_to: self.sender.reply_to.iter().map(Address::of).collect(),
            user_engagement_tracking_disabled: true,
        }
    }
}

/// The three headers of ACS's HMAC authentication, as signed at `now`.
///
/// See "HMAC header" under Authentication in the REST reference of Azure Communication Services.
fn signed_headers(
    url: &Url,
    key: &SecretSlice<u8>,
    method: &str,
    body: &[u8],
    now: SystemTime,
) -> HeaderMap {
    let date = httpdate::fmt_http_date(now);
    let hash = BASE64_STANDARD.encode(Sha256::digest(body));
    let host = match (url.host_str().unwrap_or_default(), url.port()) {
        (host, Some(port)) => format!("{host}:{port}"),
        (host, None) => host.to_owned(),
    };
    let path = match url.query() {
        Some(query) => format!("{}?{query}", url.path()),
        None => url.path().to_owned(),
    };
    let mut mac = Hmac::<Sha256>::new_from_slice(key.expose_secret())
        .expect("HMAC takes a key of any length");
    mac.update(format!("{method}\n{path}\n{date};{host};{hash}").as_bytes());
    let signature = BASE64_STANDARD.encode(mac.finalize().into_bytes());

    let value = |text: String| HeaderValue::try_from(text).expect("base64 and dates are ASCII");
    let mut authorization = value(format!(
        "HMAC-SHA256 SignedHeaders=x-ms-date;host;x-ms-content-sha256&Signature={signature}"
    ));
    authorization.set_sensitive(true);
    let mut headers = HeaderMap::new();
    headers.insert("x-ms-date", value(date));
    headers.insert("x-ms-content-sha256", value(hash));
    headers.insert(AUTHORIZATION, authorization);
    headers
}

/// Endpoint and key of `endpoint=…;accesskey=…`, in any order and case of the names.
pub(crate) fn parse_connection_string(text: &str) -> Result<(&str, Vec<u8>), &'static str> {
    let value = |wanted: &str| {
        text.split(';')
            .filter_map(|part| part.split_once('='))
            .find(|(name, _)| name.trim().eq_ignore_ascii_case(wanted))
            .map(|(_, value)| value.trim())
            .filter(|value| !value.is_empty())
    };
    let endpoint = value("endpoint").ok_or("it has no endpoint")?;
    let key = value("accesskey").ok_or("it has no accesskey")?;
    let key = BASE64_STANDARD
        .decode(key)
        .map_err(|_| "its accesskey is not base64")?;
    Ok((endpoint, key))
}

fn failure(answer: &Answer) -> EmailError {
    let retry_after = answer.retry_after(SystemTime::now());
    answer.error(error_code(answer).as_deref(), retry_after)
}

/// The answer is none to the question whether it has an email.
fn unclear(answer: &Answer) -> EmailError {
    EmailError::Busy {
        provider: PROVIDER,
        answer: format!("{} to the question whether it has the email", answer.status),
        retry_after: None,
    }
}

/// `status` of an operation, as in `Running`.
fn operation_status(answer: &Answer) -> Option<String> {
    #[derive(Deserialize)]
    struct Operation {
        status: String,
    }
    serde_json::from_slice(&answer.body)
        .map(|operation: Operation| operation.status)
        .ok()
}

/// `error.code` of the body, or the header that repeats it.
fn error_code(answer: &Answer) -> Option<String> {
    #[derive(Deserialize)]
    struct Body {
        error: Error,
    }
    #[derive(Deserialize)]
    struct Error {
        code: String,
    }
    serde_json::from_slice(&answer.body)
        .map(|body: Body| body.error.code)
        .ok()
        .or_else(|| {
            let code = answer.headers.get("x-ms-error-code")?;
            code.to_str().ok().map(ToOwned::to_owned)
        })
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Message<'a> {
    headers: MessageHeaders<'a>,
    sender_address: &'a str,
    content: Content<'a>,
    recipients: Recipients<'a>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    reply_to: Vec<Address<'a>>,
    user_engagement_tracking_disabled: bool,
}

#[derive(Serialize)]
struct MessageHeaders<'a> {
    #[serde(rename = "x-order-id")]
    order_id: &'a str,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Content<'a> {
    subject: &'a str,
    plain_text: &'a str,
    html: &'a str,
}

#[derive(Serialize)]
struct Recipients<'a> {
    to: [Address<'a>; 1],
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Address<'a> {
    address: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    display_name: Option<&'a str>,
}

impl<'a> Address<'a> {
    fn of(mailbox: &'a Mailbox) -> Self {
        Self {
            address: &mailbox.address,
            display_name: mailbox.name.as_deref(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What the JavaScript SDK sent at 19:43:43, with the key below.
    const CAPTURED: &str = include_str!("../tests/golden/acs-email-send.js-sdk-1.1.0.hmac.http");

    /// And what it asked a second later.
    const ASKED: &str =
        include_str!("../tests/golden/acs-email-get-operation.js-sdk-1.1.0.hmac.http");

    #[test]
    fn the_signature_is_the_one_that_the_sdk_makes() {
        for captured in [CAPTURED, ASKED] {
            assert_signed_as(captured);
        }
    }

    fn assert_signed_as(captured: &str) {
        let (head, body) = captured.split_once("\r\n\r\n").unwrap();
        let mut request_line = head.split(' ');
        let method = request_line.next().unwrap();
        let path = request_line.next().unwrap();
        let date = head
            .lines()
            .find_map(|line| line.strip_prefix("x-ms-date: "))
            .unwrap();
        let headers = signed_headers(
            &Url::parse(&format!("http://127.0.0.1:18101{path}")).unwrap(),
            &b"0123456789abcdef0123456789abcdef".to_vec().into(),
            method,
            body.as_bytes(),
            httpdate::parse_http_date(date).unwrap(),
        );
        for name in ["x-ms-date", "x-ms-content-sha256", "authorization"] {
            let ours = headers[name].to_str().unwrap();
            assert!(
                captured
                    .lines()
                    .filter_map(|line| line.split_once(": "))
                    .any(|(of, theirs)| of.eq_ignore_ascii_case(name) && theirs == ours),
                "{name}: {ours}"
            );
        }
        assert!(!format!("{headers:?}").contains("Signature"));
    }

    #[test]
    fn the_port_is_signed_only_where_it_is_unusual() {
        let signature = |url: &str| {
            let url = Url::parse(url).unwrap();
            let key = b"key".to_vec().into();
            signed_headers(&url, &key, "POST", b"{}", SystemTime::UNIX_EPOCH)[AUTHORIZATION].clone()
        };
        let plain = signature("https://a.example/emails:send?api-version=2025-09-01");
        assert_eq!(
            plain,
            signature("https://a.example:443/emails:send?api-version=2025-09-01")
        );
        assert_ne!(
            plain,
            signature("https://a.example:8443/emails:send?api-version=2025-09-01")
        );
    }

    #[test]
    fn a_connection_string_is_read_in_any_order() {
        let (endpoint, key) =
            parse_connection_string("AccessKey=a2V5Zg==; Endpoint=https://a.example/;").unwrap();
        assert_eq!(endpoint, "https://a.example/");
        assert_eq!(key, b"keyf");
    }

    #[test]
    fn the_code_of_an_error_is_found_in_body_or_header() {
        let answer = |body: &str, header: Option<&'static str>| Answer {
            provider: PROVIDER,
            status: 400,
            headers: header
                .map(|code| {
                    (
                        "x-ms-error-code".parse().unwrap(),
                        HeaderValue::from_static(code),
                    )
                })
                .into_iter()
                .collect(),
            body: body.as_bytes().to_vec(),
        };
        let body = r#"{"error":{"code":"BadRequest","message":"for ada@example.net"}}"#;
        assert_eq!(
            error_code(&answer(body, None)).as_deref(),
            Some("BadRequest")
        );
        assert_eq!(
            error_code(&answer("<html>", Some("Denied"))).as_deref(),
            Some("Denied")
        );
        assert_eq!(error_code(&answer("", None)), None);
    }
}
