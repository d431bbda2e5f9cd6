//! The REST data plane of Service Bus: the `HttpClient` behind the Service Bus crate.
//!
//! The crate builds a request; this sends it to the configured namespace with our authorisation, in the form that the
//! service documents, over pooled connections, again after a passing failure, and within a fixed time. An answer of
//! 201 means that the broker has stored the message; everything else is a [`PublishError`].
//!
//! Every attempt is byte for byte the same message with the same `MessageId`, so a topic that detects duplicates
//! takes it once, however often it was sent.

use std::fmt;
use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use bytes::Bytes;
use legacy_azure_core::error::{Error, ErrorKind};
use legacy_azure_core::headers::Headers;
use legacy_azure_core::{
    Body, BytesStream, CollectedResponse, HttpClient, Method, Request, Response, StatusCode,
};
use reqwest::Url;
use reqwest::header::{AUTHORIZATION, HeaderMap, HeaderName, HeaderValue, RETRY_AFTER};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc2822;
use tokio::time::Instant;

use crate::connection::{Credential, TopicSettings};
use crate::http_client::{self, read_at_most, reason};
use crate::identity::{Identity, SERVICE_BUS_SCOPE};
use crate::publish_error::PublishError;
use crate::retry;
use crate::sas::SasTokens;

/// The longest pause between two attempts, however often it failed.
pub(crate) const LONGEST_BACKOFF: Duration = Duration::from_secs(5);

/// An error of the service is a line or two of XML.
pub(crate) const LONGEST_ERROR: usize = 16 * 1024;

/// How long the sending of one message may take.
#[derive(Debug, Clone, Copy)]
pub struct SendLimits {
    /// One attempt, from the connection to the end of the answer.
    pub attempt: Duration,
    /// All attempts with the pauses between them and the wait for a token. None outlasts it.
    pub total: Duration,
    /// The pause after the first failure; it doubles with each further one.
    pub first_backoff: Duration,
}

impl Default for SendLimits {
    /// The service answers a send in some ten milliseconds: 10 s of silence are a lost connection. 24 s are two such
    /// silences with a short attempt after them, and a storefront gets its honest 503 before it gives up itself.
    fn default() -> Self {
        Self {
            attempt: Duration::from_secs(10),
            total: Duration::from_secs(24),
            first_backoff: Duration::from_millis(200),
        }
    }
}

/// Who we are to the service.
#[derive(Debug)]
pub enum Authorization {
    Sas(SasTokens),
    Entra(Identity),
}

impl Authorization {
    /// For that entity of the namespace and what is below it. No I/O.
    pub fn new(settings: &TopicSettings, entity: &str, client: &reqwest::Client) -> Self {
        match &settings.credential {
            Credential::SharedAccessKey(key) => Self::Sas(SasTokens::new(
                key.clone(),
                format!("{}{entity}", settings.base_url),
            )),
            Credential::Identity(source) => {
                Self::Entra(Identity::new(source.clone(), SERVICE_BUS_SCOPE, client))
            }
        }
    }

    pub(crate) async fn header(&self) -> Result<HeaderValue, PublishError> {
        match self {
            Self::Sas(tokens) => Ok(tokens.authorization(SystemTime::now())),
            Self::Entra(identity) => {
                let token = identity.bearer().await?;
                http_client::bearer(&token)
                    .ok_or_else(|| PublishError::Unsendable("the token is not text".to_owned()))
            }
        }
    }

    /// The service does not take this one any more: the next is a new one.
    pub(crate) fn forget(&self, rejected: &HeaderValue) {
        match self {
            Self::Sas(tokens) => tokens.forget(rejected),
            Self::Entra(identity) => {
                if let Some(token) = rejected
                    .to_str()
                    .ok()
                    .and_then(|t| t.strip_prefix("Bearer "))
                {
                    identity.forget(token);
                }
            }
        }
    }
}

/// The client that the Service Bus crate is given. It sends messages and does nothing else.
pub struct DataPlane {
    base_url: Url,
    authorization: Authorization,
    client: reqwest::Client,
    limits: SendLimits,
}

/// A request of the crate, ready for the wire except for its authorisation.
struct Message {
    url: Url,
    headers: HeaderMap,
    body: Bytes,
}

impl DataPlane {
    /// `base_url` has the path `/`. No I/O.
    pub fn new(
        base_url: Url,
        authorization: Authorization,
        client: &reqwest::Client,
        limits: SendLimits,
    ) -> Self {
        Self {
            base_url,
            authorization,
            client: client.clone(),
            limits,
        }
    }

    /// Sends until the broker has the message, it is refused, or the time is over.
    ///
    /// Killed while it waits for a token or between attempts, the process leaves the topic as the last attempt left it;
    /// killed while it waits for an answer, it leaves a message that the broker has or has not. Either way nobody
    /// was told that it has, and whoever sends it again does so with the same `MessageId`.
    async fn send(&self, request: &Request) -> Result<(), PublishError> {
        let message = self.message(request)?;
        let deadline = Instant::now() + self.limits.total;
        let mut retries = 0;
        let mut renewed = false;
        let mut unanswered = false;
        loop {
            let authorization = tokio::time::timeout_at(deadline, self.authorization.header())
                .await
                .unwrap_or_else(|_| {
                    Err(PublishError::Unreachable {
                        reason: "no token in time".to_owned(),
                    })
                })
                .map_err(|error| in_doubt(error, unanswered))?;
            let timeout = deadline
                .saturating_duration_since(Instant::now())
                .min(self.limits.attempt);
            let error = match self.attempt(&message, &authorization, timeout).await {
                Ok(()) => return Ok(()),
                Err(error) => error,
            };
            if matches!(error, PublishError::Rejected { status: 401, .. }) && !renewed {
                renewed = true;
                self.authorization.forget(&authorization);
                continue;
            }
            if !error.is_transient() {
                return Err(error);
            }

            unanswered |= matches!(error, PublishError::Unanswered { .. });
            let pause = retry::backoff(
                self.limits.first_backoff,
                LONGEST_BACKOFF,
                retries,
                retry::chance(),
            )
            .max(error.retry_after().unwrap_or_default());
            // A last attempt without the time for an answer would turn a plain no into a doubt.
            let least = self.limits.attempt / 4;
            if pause + least > deadline.saturating_duration_since(Instant::now()) {
                return Err(in_doubt(error, unanswered));
            }
            retries += 1;
            tracing::warn!(retry = retries, %error, "the message is sent again");
            tokio::time::sleep(pause).await;
        }
    }

    async fn attempt(
        &self,
        message: &Message,
        authorization: &HeaderValue,
        timeout: Duration,
    ) -> Result<(), PublishError> {
        let answer = self
            .client
            .post(message.url.clone())
            .headers(message.headers.clone())
            .header(AUTHORIZATION, authorization)
            .timeout(timeout)
            .body(message.body.clone())
            .send()
            .await;
        let mut response = match answer {
            Ok(response) => response,
            Err(error) if error.is_builder() => {
                return Err(PublishError::Unsendable(reason(&error)));
            }
            Err(error) if error.is_connect() => {
                return Err(PublishError::Unreachable {
                    reason: reason(&error),
                });
            }
            Err(error) => {
                return Err(PublishError::Unanswered {
                    reason: reason(&error),
                });
            }
        };

        let status = response.status().as_u16();
        let retry_after = response
            .headers()
            .get(RETRY_AFTER)
            .and_then(|value| value.to_str().ok())
            .and_then(|value| retry::retry_after(value, SystemTime::now()));
        // Reading to the end gives the connection back to the pool. The status alone is the answer.
        let body = read_at_most(&mut response, LONGEST_ERROR)
            .await
            .unwrap_or_default();
        if status == 201 {
            return Ok(());
        }
        let text = String::from_utf8_lossy(&body);
        let secret = authorization.to_str().unwrap_or_default();
        Err(PublishError::answered(status, &text, secret, retry_after))
    }

    fn message(&self, request: &Request) -> Result<Message, PublishError> {
        let unsendable = |problem: &str| PublishError::Unsendable(problem.to_owned());
        if *request.method() != Method::Post {
            return Err(unsendable("only sends are supported"));
        }
        let Body::Bytes(body) = request.body() else {
            return Err(unsendable("a message is not streamed"));
        };
        let mut url = self.base_url.clone();
        url.set_path(request.url().path());
        let mut headers = HeaderMap::new();
        for (name, value) in request.headers().iter() {
            let value = match name.as_str() {
                // The crate's own signature, with a key that does not exist, for a host that is not ours.
                "authorization" => continue,
                "brokerproperties" => HeaderValue::try_from(broker_properties(value.as_str())?),
                _ => HeaderValue::try_from(value.as_str()),
            }
            .map_err(|_| unsendable("a header's value has a control character"))?;
            let name = HeaderName::try_from(name.as_str())
                .map_err(|_| unsendable("a header's name is not a token"))?;
            headers.insert(name, value);
        }
        Ok(Message {
            url,
            headers,
            body: body.clone(),
        })
    }
}

/// The crate's `BrokerProperties` as the service documents them: the crate writes the date with `+0000`, which is not
/// an RFC 2616 date, and text as it is, which is not ASCII.
fn broker_properties(json: &str) -> Result<String, PublishError> {
    let unsendable = |_| PublishError::Unsendable("BrokerProperties are not readable".to_owned());
    let mut properties: serde_json::Map<String, serde_json::Value> =
        serde_json::from_str(json).map_err(unsendable)?;
    if let Some(serde_json::Value::String(date)) = properties.get_mut("ScheduledEnqueueTimeUtc") {
        let time = OffsetDateTime::parse(date, &Rfc2822).map_err(|_| {
            PublishError::Unsendable("ScheduledEnqueueTimeUtc is not a date".to_owned())
        })?;
        *date = httpdate::fmt_http_date(time.into());
    }
    let json = serde_json::to_string(&properties).map_err(unsendable)?;
    let mut ascii = String::with_capacity(json.len());
    for character in json.chars() {
        if matches!(character, ' '..='~') {
            ascii.push(character);
        } else {
            // JSON escapes are UTF-16 (RFC 8259 §7); everything outside ASCII is inside a string.
            for unit in character.encode_utf16(&mut [0; 2]) {
                ascii.push_str(&format!("\\u{unit:04x}"));
            }
        }
    }
    Ok(ascii)
}

/// That nothing was sent is not true of the message if an earlier attempt was not answered.
fn in_doubt(error: PublishError, unanswered: bool) -> PublishError {
    match error {
        PublishError::Unreachable { .. } | PublishError::NoToken(_) if unanswered => {
            PublishError::Unanswered {
                reason: error.to_string(),
            }
        }
        error => error,
    }
}

#[async_trait]
impl HttpClient for DataPlane {
    /// # Errors
    /// Always a [`PublishError`] inside.
    async fn execute_request(&self, request: &Request) -> legacy_azure_core::Result<Response> {
        self.send(request)
            .await
            .map_err(|error| Error::new(ErrorKind::Other, error))?;
        Ok(Response::new(
            StatusCode::Created,
            Headers::new(),
            Box::pin(BytesStream::new_empty()),
        ))
    }

    /// The crate's default drops the service's words; here they are in the [`PublishError`].
    async fn execute_request_check_status(
        &self,
        request: &Request,
    ) -> legacy_azure_core::Result<CollectedResponse> {
        CollectedResponse::from_response(self.execute_request(request).await?).await
    }
}

impl fmt::Debug for DataPlane {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DataPlane")
            .field("base_url", &self.base_url.as_str())
            .field("authorization", &self.authorization)
            .field("limits", &self.limits)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_scheduled_time_becomes_an_http_date_and_text_becomes_ascii() {
        let repaired = broker_properties(
            r#"{"Label":"créé 🎉","MessageId":"m-1","ScheduledEnqueueTimeUtc":"Thu, 24 Dec 2026 19:00:05 +0200"}"#,
        );
        assert_eq!(
            repaired.unwrap(),
            r#"{"Label":"cr\u00e9\u00e9 \ud83c\udf89","MessageId":"m-1","ScheduledEnqueueTimeUtc":"Thu, 24 Dec 2026 17:00:05 GMT"}"#
        );
    }

    #[test]
    fn a_date_that_can_not_be_read_is_not_sent() {
        let error = broker_properties(r#"{"ScheduledEnqueueTimeUtc":"tomorrow"}"#).unwrap_err();
        assert!(matches!(error, PublishError::Unsendable(_)), "{error}");
    }
}
