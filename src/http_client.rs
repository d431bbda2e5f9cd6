//! The one HTTP client for the bus, the email providers and Entra, and its way into `azure_identity`. Webhooks have their
//! own.
//!
//! [`outgoing`] is called once, at start, and its clones share one pool of connections; it makes no connection
//! itself. [`EntraTransport`] lets the credentials of `azure_identity`, which would otherwise bring a second
//! HTTP client into the binary, send through the same pool.

use std::error::Error;
use std::fmt;
use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use azure_core::error::ErrorKind;
use azure_core::http::headers::{HeaderName, HeaderValue, Headers};
use azure_core::http::{AsyncRawResponse, Body, Request};
use reqwest::{header, redirect};
use secrecy::{ExposeSecret, SecretString};
use thiserror::Error;

use crate::config::{ConfigError, Settings};
use crate::retry;

/// Azure's front ends and the providers answer a SYN within a round trip; 3 s is one lost SYN and its repetition.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);

/// No call may hang for ever, even where its author forgot a timeout. Each request sets a shorter one of its own.
const LONGEST_REQUEST: Duration = Duration::from_secs(30);

/// Below the four minutes after which Azure's load balancers forget an idle connection without a word.
const IDLE_CONNECTION: Duration = Duration::from_secs(90);

/// One request for a token; `azure_identity` repeats it. A first token takes an identity endpoint some seconds now and then.
const TOKEN_REQUEST_TIMEOUT: Duration = Duration::from_secs(6);

/// A token and what comes with it take some kilobytes.
const LONGEST_TOKEN_ANSWER: usize = 64 * 1024;

/// A client with pooled keep-alive connections, the Mozilla roots compiled in, and no redirects, because what is
/// posted to one address is not meant for another.
///
/// HTTPS goes through `HTTPS_PROXY`, except to what `NO_PROXY` lists, for networks without another way out. Plain HTTP
/// never does: it is the identity endpoint and the local stack, which no proxy can reach and none should see.
///
/// # Errors
/// If `HTTPS_PROXY` is not a URL.
pub fn outgoing(settings: &Settings) -> Result<reqwest::Client, ConfigError> {
    let mut builder = reqwest::Client::builder()
        .user_agent(concat!("orderup/", env!("CARGO_PKG_VERSION")))
        .connect_timeout(CONNECT_TIMEOUT)
        .timeout(LONGEST_REQUEST)
        .pool_idle_timeout(IDLE_CONNECTION)
        .redirect(redirect::Policy::none())
        .no_proxy();
    // By convention each of them is read in either case.
    let either = |upper: &str| {
        settings
            .optional(upper)
            .or_else(|| settings.optional(&upper.to_ascii_lowercase()))
    };
    if let Some(url) = either("HTTPS_PROXY") {
        let invalid = || {
            let expected = "an http:// or https:// URL, as in http://proxy.example:3128";
            ConfigError::invalid("HTTPS_PROXY", "that is no URL of a proxy", expected)
        };
        // Others are taken without a word, and then go nowhere or past the proxy.
        if url
            .split_once("://")
            .is_some_and(|(scheme, _)| !matches!(scheme, "http" | "https"))
        {
            return Err(invalid());
        }
        let proxy = reqwest::Proxy::https(url).map_err(|_| invalid())?;
        let except = either("NO_PROXY").and_then(|list| reqwest::NoProxy::from_string(&list));
        builder = builder.proxy(proxy.no_proxy(except));
    }
    Ok(builder
        .build()
        .expect("nothing in these constants can be refused"))
}

/// What went wrong, with its causes and without the URL, whose query may hold what no log should.
pub fn reason(error: &(dyn Error + 'static)) -> String {
    let mut text = match error.downcast_ref::<reqwest::Error>() {
        Some(error) if error.is_timeout() => "timed out".to_owned(),
        Some(error) if error.is_connect() => "no connection".to_owned(),
        Some(error) if error.is_builder() => "not a valid request".to_owned(),
        Some(_) => "the connection broke".to_owned(),
        None => error.to_string(),
    };
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}

/// The value of `Authorization` for a token, marked as sensitive; nothing if no header can hold it.
pub fn bearer(token: &SecretString) -> Option<header::HeaderValue> {
    let mut value =
        header::HeaderValue::from_str(&format!("Bearer {}", token.expose_secret())).ok()?;
    value.set_sensitive(true);
    Some(value)
}

/// The body, or its first `limit` bytes: whoever answers must not be able to fill our memory.
///
/// # Errors
/// If the connection breaks or the request's time is over before the end of the body.
pub async fn read_at_most(
    response: &mut reqwest::Response,
    limit: usize,
) -> Result<Vec<u8>, reqwest::Error> {
    let mut body = Vec::new();
    while body.len() < limit
        && let Some(chunk) = response.chunk().await?
    {
        let wanted = chunk.len().min(limit - body.len());
        body.extend_from_slice(&chunk[..wanted]);
    }
    Ok(body)
}

/// The outgoing client as `azure_identity` takes it.
pub struct EntraTransport(reqwest::Client);

impl EntraTransport {
    pub fn new(client: &reqwest::Client) -> Self {
        Self(client.clone())
    }
}

impl fmt::Debug for EntraTransport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EntraTransport").finish_non_exhaustive()
    }
}

/// Whoever gives out tokens wants to be left alone for so long, five minutes at most with us (`src/kept_token.rs`).
#[derive(Debug, Error)]
#[error("answered {1}, and asks to wait {wait} s", wait = .0.as_secs())]
pub struct AskedToWait(pub Duration, u16);

/// The answer without the two things we sent that nobody else may know: an endpoint may repeat them, and its words are logged.
fn without_our_secrets(body: &[u8], request: &Request, form: &[u8]) -> Vec<u8> {
    let header = request
        .headers()
        .iter()
        .find(|(name, _)| name.as_str() == "x-identity-header")
        .map(|(_, value)| value.as_str().to_owned());
    let assertion = form_urlencoded::parse(form)
        .find(|(name, _)| name == "client_assertion")
        .map(|(_, value)| value.trim().to_owned());
    let mut text = String::from_utf8_lossy(body).into_owned();
    for secret in header.into_iter().chain(assertion) {
        if !secret.is_empty() {
            text = text.replace(&secret, "[removed]");
        }
    }
    text.into_bytes()
}

#[async_trait]
impl azure_core::http::HttpClient for EntraTransport {
    async fn execute_request(&self, request: &Request) -> azure_core::Result<AsyncRawResponse> {
        let Body::Bytes(body) = request.body() else {
            return Err(azure_core::Error::with_message(
                ErrorKind::Other,
                "a request for a token has no streamed body",
            ));
        };
        let method = reqwest::Method::from_bytes(request.method().as_str().as_bytes())
            .map_err(|error| azure_core::Error::new(ErrorKind::DataConversion, error))?;
        let mut outgoing = self
            .0
            .request(method, request.url().clone())
            .timeout(TOKEN_REQUEST_TIMEOUT)
            .body(body.clone());
        for (name, value) in request.headers().iter() {
            outgoing = outgoing.header(name.as_str(), value.as_str());
        }

        // The credential sends again after these two kinds of error, and after no other.
        let failed = |error: reqwest::Error| {
            let kind = if error.is_connect() {
                ErrorKind::Connection
            } else {
                ErrorKind::Io
            };
            azure_core::Error::with_message(kind, reason(&error))
        };
        let mut response = outgoing.send().await.map_err(failed)?;
        let mut headers = Headers::new();
        for (name, value) in response.headers() {
            if let Ok(value) = value.to_str() {
                headers.insert(
                    HeaderName::from(name.as_str().to_owned()),
                    HeaderValue::from(value.to_owned()),
                );
            }
        }
        let status = response.status().as_u16();
        // The credential would sleep for as long as that, with everybody waiting for it.
        if matches!(status, 429 | 503)
            && let Some(wait) = response
                .headers()
                .get(header::RETRY_AFTER)
                .and_then(|value| value.to_str().ok())
                .and_then(|value| retry::retry_after(value, SystemTime::now()))
        {
            let asked = AskedToWait(wait, status);
            return Err(azure_core::Error::new(ErrorKind::Other, asked));
        }
        let status = status.into();
        let mut answer = read_at_most(&mut response, LONGEST_TOKEN_ANSWER)
            .await
            .map_err(failed)?;
        if !response.status().is_success() {
            answer = without_our_secrets(&answer, request, body);
        }
        Ok(AsyncRawResponse::from_bytes(status, headers, answer))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_proxy_that_is_not_a_url_is_told_without_its_value() {
        for variable in ["HTTPS_PROXY", "https_proxy"] {
            let settings = Settings::from_pairs([(variable, "http://user:hidden@:x")]);
            let error = outgoing(&settings).unwrap_err().to_string();
            assert!(error.contains("HTTPS_PROXY"), "{error}");
            assert!(!error.contains("hidden"), "{error}");
        }
    }
}
