//! One request to a provider over HTTP, and what its answer means.
//!
//! Shared by the email providers and the tills, which all have a JSON API. A request that could not be written differs
//! from one whose answer is unknown, as after the second the email may be on its way. An answer is read up to a cap, and
//! of its text only what looks like a code is kept.

use std::{
    fmt,
    time::{Duration, SystemTime},
};

use reqwest::{
    Method, RequestBuilder, Url,
    header::{AUTHORIZATION, CONTENT_TYPE, DATE, HeaderMap, HeaderValue, RETRY_AFTER},
};
use secrecy::SecretString;
use serde::Serialize;

use crate::{
    config::{ConfigError, Settings},
    email::EmailError,
    failure::Class,
    http_client,
    properties::TRACEPARENT,
    provider_call::{self, Call},
    retry,
};

/// The email providers' answers have a few hundred bytes. Anything longer is not theirs.
const MAX_ANSWER: usize = 64 * 1024;

/// What a provider answered.
pub(crate) struct Answer {
    pub(crate) provider: &'static str,
    pub(crate) status: u16,
    pub(crate) headers: HeaderMap,
    /// Its beginning, if it is too long; empty if the connection broke.
    pub(crate) body: Vec<u8>,
}

/// Why there is no answer.
pub(crate) enum NoAnswer {
    /// Nothing was sent.
    Unreachable(String),
    /// The request was written, and may have been taken.
    Unanswered(String),
}

/// Sends the request and reads the answer, both within `total`.
pub(crate) async fn ask(
    provider: &'static str,
    request: RequestBuilder,
    total: Duration,
) -> Result<Answer, EmailError> {
    exchange(provider, request, total, MAX_ANSWER, Tracing::Own)
        .await
        .map_err(|no_answer| match no_answer {
            NoAnswer::Unreachable(reason) => EmailError::Unreachable { provider, reason },
            NoAnswer::Unanswered(reason) => EmailError::Unanswered { provider, reason },
        })
}

/// Who hears of the order's trace.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Tracing {
    /// Nobody but us: what a provider's own traces say, we never see.
    Own,
    /// The other side as well, by a `traceparent` header: it belongs to the shop.
    Continued,
}

/// As a figure or a span names a provider.
fn key(provider: &'static str) -> &'static str {
    match provider {
        "ACS" => "acs",
        "Resend" => "resend",
        "SendGrid" => "sendgrid",
        "Square" => "square",
        "the till" => "pos",
        other => other,
    }
}

/// As [`ask`], for any kind of provider. Of the body no more than `longest` bytes are read.
pub(crate) async fn exchange(
    provider: &'static str,
    request: RequestBuilder,
    total: Duration,
    longest: usize,
    tracing: Tracing,
) -> Result<Answer, NoAnswer> {
    let (client, request) = request.timeout(total).build_split();
    let mut request =
        request.map_err(|error| NoAnswer::Unreachable(http_client::reason(&error)))?;
    let call = Call::begin(
        || key(provider),
        request.method().as_str(),
        request.url().host_str(),
    );
    let is_question = request.method() == Method::GET;
    if tracing == Tracing::Continued
        && let Some(context) = call.context()
    {
        let context = HeaderValue::try_from(context.to_string());
        let context = context.expect("it is made of digits and dashes");
        request.headers_mut().insert(TRACEPARENT, context);
    }
    let mut response = match client.execute(request).await {
        Ok(response) => response,
        Err(error) => {
            let reason = http_client::reason(&error);
            let (class, no_answer) = if error.is_connect() || error.is_builder() {
                (Class::Transient, NoAnswer::Unreachable(reason))
            } else {
                (Class::Ambiguous, NoAnswer::Unanswered(reason))
            };
            call.end(class.name(), None);
            return Err(no_answer);
        }
    };
    let answer = Answer {
        provider,
        status: response.status().as_u16(),
        headers: response.headers().clone(),
        // The status decides; a body that breaks off changes nothing about it.
        body: http_client::read_at_most(&mut response, longest)
            .await
            .unwrap_or_default(),
    };
    let result = match answer.status {
        200..300 => provider_call::OK,
        // Whether something is there is what was asked.
        404 if is_question => provider_call::OK,
        _ => answer.class().name(),
    };
    call.end(result, Some(answer.status));
    Ok(answer)
}

impl Answer {
    /// The error that the status stands for, whatever the provider; `code` is the provider's own, if it gave one, and
    /// `retry_after` what it asks for.
    ///
    /// It is for statuses that do not mean success.
    pub(crate) fn error(&self, code: Option<&str>, retry_after: Option<Duration>) -> EmailError {
        let provider = self.provider;
        let answer = self.told(code);
        match self.class() {
            Class::ChannelBroken => EmailError::Unauthorized { provider, answer },
            Class::RateLimited => EmailError::RateLimited {
                provider,
                answer,
                retry_after,
            },
            Class::Deferred => EmailError::Deferred { provider, answer },
            Class::Transient => EmailError::Busy {
                provider,
                answer,
                retry_after,
            },
            Class::Refused => EmailError::Refused { provider, answer },
            _ => EmailError::Unanswered {
                provider,
                reason: format!("the status was {answer}"),
            },
        }
    }

    /// The class of a status that does not mean success, whatever the provider.
    pub(crate) fn class(&self) -> Class {
        match self.status {
            // The address of the API never changes with the request: that it is not there, or takes no such request, is
            // about us, as at ACS when the sender's domain is not linked (404).
            401 | 403..=406 | 410 | 415 | 451 => Class::ChannelBroken,
            429 => Class::RateLimited,
            // An attempt with the same key is still being worked on.
            409 => Class::Deferred,
            // A redirect comes from something in between, such as a maintenance page.
            300..400 | 408 | 425 | 503 => Class::Transient,
            400..500 => Class::Refused,
            // An error after which it may have been taken all the same, or a success that is not the provider's own:
            // whoever sent it may have passed the request on.
            _ => Class::Ambiguous,
        }
    }

    /// The status, and the provider's code if it can be nothing but a code.
    pub(crate) fn told(&self, code: Option<&str>) -> String {
        match code.and_then(plain_code) {
            Some(code) => format!("{} {code}", self.status),
            None => self.status.to_string(),
        }
    }

    /// `Retry-After` in both of its forms (RFC 9110, 10.2.3).
    pub(crate) fn retry_after(&self, now: SystemTime) -> Option<Duration> {
        retry::retry_after(self.header(RETRY_AFTER.as_str())?, self.date(now))
    }

    /// A header that holds seconds since 1970, as SendGrid's `X-RateLimit-Reset`.
    pub(crate) fn reset_at(&self, header: &str, now: SystemTime) -> Option<Duration> {
        let reset = self.header(header)?.trim().parse().ok()?;
        let at = SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs(reset))?;
        Some(retry::until(at, self.date(now)))
    }

    /// A header that holds seconds from now on, as Resend's `ratelimit-reset`.
    pub(crate) fn reset_in(&self, header: &str) -> Option<Duration> {
        let seconds: u64 = self.header(header)?.trim().parse().ok()?;
        retry::retry_after(&seconds.to_string(), SystemTime::UNIX_EPOCH)
    }

    /// When it was given by the answer's own `Date`, so that our clock does not matter.
    fn date(&self, now: SystemTime) -> SystemTime {
        self.header(DATE.as_str())
            .and_then(|text| httpdate::parse_http_date(text).ok())
            .unwrap_or(now)
    }

    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }
}

/// The text, if it is a code and can be nothing else: no address and no sentence fits.
pub(crate) fn plain_code(text: &str) -> Option<&str> {
    let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-');
    (!text.is_empty() && text.len() <= 64 && text.chars().all(fits)).then_some(text)
}

/// Reads a provider's base URL, without the slash at its end.
///
/// Unencrypted is allowed to this machine only: the key and the customer's data go there.
pub(crate) fn base_url(variable: &str, text: &str) -> Result<String, ConfigError> {
    const EXPECTED: &str = "an https:// URL (http:// only to this machine), without query";
    let invalid = |problem: &str| ConfigError::invalid(variable, problem, EXPECTED);
    let url = Url::parse(text).map_err(|_| invalid("it is not a URL"))?;
    let local = matches!(url.host_str(), Some("localhost" | "127.0.0.1" | "[::1]"));
    match url.scheme() {
        "https" => {}
        "http" if local => {}
        "http" => return Err(invalid("it is not encrypted")),
        _ => return Err(invalid("its scheme is unknown")),
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err(invalid("it holds credentials"));
    }
    if url.query().is_some() || url.fragment().is_some() {
        return Err(invalid("it has a query or a fragment"));
    }
    Ok(url.as_str().trim_end_matches('/').to_owned())
}

/// The value of `Authorization` for the secret in `variable`.
pub(crate) fn bearer(
    variable: &str,
    secret: &SecretString,
    expected: &str,
) -> Result<HeaderValue, ConfigError> {
    http_client::bearer(secret).ok_or_else(|| {
        let problem = "it holds characters that no header may hold";
        ConfigError::invalid(variable, problem, expected)
    })
}

/// The API of a provider that takes an API key as a bearer token.
#[derive(Clone)]
pub(crate) struct KeyedApi {
    provider: &'static str,
    url: String,
    bearer: HeaderValue,
    http: reqwest::Client,
    total: Duration,
}

/// Where the API is and which settings say so.
pub(crate) struct KeyedApiNames {
    pub(crate) provider: &'static str,
    /// The setting with the API key, and what it should be.
    pub(crate) key: &'static str,
    pub(crate) expected: &'static str,
    /// The setting with the base URL, and the provider's own.
    pub(crate) base: &'static str,
    pub(crate) default_base: &'static str,
    pub(crate) path: &'static str,
}

impl KeyedApi {
    pub(crate) fn from_settings(
        settings: &Settings,
        names: &KeyedApiNames,
        http: &reqwest::Client,
        total: Duration,
    ) -> Result<Self, ConfigError> {
        let key = settings.secret(names.key, names.expected)?;
        let bearer = bearer(names.key, &key, names.expected)?;
        let base = settings.optional(names.base);
        let base = base_url(names.base, base.as_deref().unwrap_or(names.default_base))?;
        Ok(Self {
            provider: names.provider,
            url: format!("{base}{}", names.path),
            bearer,
            http: http.clone(),
            total,
        })
    }

    /// A request with the JSON body and our key, which may get further headers.
    pub(crate) fn post(&self, body: &impl Serialize) -> RequestBuilder {
        let body = serde_json::to_vec(body).expect("strings become JSON");
        self.http
            .post(&self.url)
            .header(AUTHORIZATION, self.bearer.clone())
            .header(CONTENT_TYPE, "application/json")
            .body(body)
    }

    pub(crate) async fn ask(&self, request: RequestBuilder) -> Result<Answer, EmailError> {
        ask(self.provider, request, self.total).await
    }
}

impl fmt::Debug for KeyedApi {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KeyedApi")
            .field("url", &self.url)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(status: u16, headers: &[(&'static str, &str)]) -> Answer {
        Answer {
            provider: "test",
            status,
            headers: headers
                .iter()
                .map(|(name, value)| {
                    (
                        reqwest::header::HeaderName::from_static(name),
                        HeaderValue::from_str(value).unwrap(),
                    )
                })
                .collect(),
            body: Vec::new(),
        }
    }

    fn asked_to_wait(headers: &[(&'static str, &str)]) -> Option<Duration> {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_795_376_623);
        let answer = answer(429, headers);
        answer
            .retry_after(now)
            .or_else(|| answer.reset_at("x-ratelimit-reset", now))
            .or_else(|| answer.reset_in("ratelimit-reset"))
    }

    #[test]
    fn a_provider_says_how_long_to_wait_in_one_of_four_ways() {
        let thirty = Some(Duration::from_secs(30));
        assert_eq!(asked_to_wait(&[("retry-after", "30")]), thirty);
        assert_eq!(
            asked_to_wait(&[
                ("retry-after", "Sun, 22 Nov 2026 19:44:13 GMT"),
                ("date", "Sun, 22 Nov 2026 19:43:43 GMT"),
            ]),
            thirty
        );
        assert_eq!(
            asked_to_wait(&[("x-ratelimit-reset", "1795376653")]),
            thirty
        );
        assert_eq!(
            asked_to_wait(&[("x-ratelimit-reset", "5")]),
            Some(Duration::ZERO)
        );
        assert_eq!(asked_to_wait(&[("ratelimit-reset", "30")]), thirty);
        assert_eq!(
            asked_to_wait(&[("ratelimit-reset", "18446744073709551615")]),
            Some(Duration::from_secs(3600))
        );
        assert_eq!(asked_to_wait(&[("retry-after", "soon")]), None);
        assert_eq!(asked_to_wait(&[("ratelimit-reset", "-1")]), None);
        assert_eq!(asked_to_wait(&[]), None);
    }

    #[test]
    fn every_status_has_one_meaning() {
        let class = |status| match answer(status, &[]).error(None, None) {
            EmailError::Unreachable { .. } => "unreachable",
            EmailError::Unanswered { .. } => "unanswered",
            EmailError::Busy { .. } => "busy",
            EmailError::RateLimited { .. } => "rate-limited",
            EmailError::Unauthorized { .. } => "unauthorized",
            EmailError::Deferred { .. } => "deferred",
            EmailError::KnownOtherwise { .. } => "known otherwise",
            EmailError::Refused { .. } => "refused",
        };
        for status in [302, 307, 408, 425, 503] {
            assert_eq!(class(status), "busy", "{status}");
        }
        assert_eq!(class(409), "deferred");
        assert_eq!(class(429), "rate-limited");
        for status in [400, 402, 413, 422, 431] {
            assert_eq!(class(status), "refused", "{status}");
        }
        for status in [401, 403, 404, 405, 406, 410, 415, 451] {
            assert_eq!(class(status), "unauthorized", "{status}");
        }
        for status in [200, 204, 500, 502, 504, 599] {
            assert_eq!(class(status), "unanswered", "{status}");
        }
    }

    #[test]
    fn only_codes_are_kept_of_what_a_provider_says() {
        let kept = |code: &str| answer(400, &[]).error(Some(code), None).to_string();
        assert_eq!(
            kept("EmailDroppedAllRecipientsSuppressed"),
            "test refused the email: 400 EmailDroppedAllRecipientsSuppressed"
        );
        for personal in [
            "ada@example.net",
            "Ada Lovelace",
            "",
            "a\r\nb",
            &"a".repeat(65),
        ] {
            assert_eq!(kept(personal), "test refused the email: 400");
        }
    }

    #[test]
    fn a_base_url_is_encrypted_or_local() {
        let read = |text| base_url("X", text).ok();
        assert_eq!(
            read("https://a.example/"),
            Some("https://a.example".to_owned())
        );
        assert_eq!(
            read("https://a.example/mail/"),
            Some("https://a.example/mail".to_owned())
        );
        assert_eq!(
            read("http://127.0.0.1:7/"),
            Some("http://127.0.0.1:7".to_owned())
        );
        assert_eq!(read("http://[::1]:7"), Some("http://[::1]:7".to_owned()));
        assert_eq!(read("http://127.0.0.1.example"), None);
        assert_eq!(read("ftp://a.example"), None);
    }
}
