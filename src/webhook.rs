//! Sends a vendor's webhook: Standard Webhooks 1.0.0, signed with HMAC-SHA256 (`v1`).
//!
//! The vendor took it, or it did not: anything but a 2xx is an error and worth another attempt, also 410, by which it says
//! that this endpoint is gone. Redirects are not followed, and the address is checked.

use std::{fmt, sync::Arc, time::Duration};

use base64::{Engine, engine::general_purpose::STANDARD};
use hmac::{Hmac, Mac};
use reqwest::{Client, ClientBuilder, StatusCode, header, redirect};
use secrecy::{ExposeSecret, SecretSlice};
use sha2::Sha256;
use thiserror::Error;
use time::OffsetDateTime;

use crate::{
    failure::{Class, Failure},
    properties::TRACEPARENT,
    provider_call::{self, Call},
    public_address::{NoPublicAddress, PublicResolver},
    retry,
    vendors::{Vendor, provider},
};

/// The time a vendor has for its answer. The standard recommends 15 to 30 seconds; an answer that takes longer
/// would hold the message, and with it a place among the concurrent calls.
pub const TIMEOUT: Duration = Duration::from_secs(15);

/// What is read of an answer's body, so that the connection can be used again. Its content means nothing to us.
const LONGEST_ANSWER: usize = 4096;

/// One webhook to one vendor, the same at each attempt.
#[derive(Clone)]
pub struct Webhook {
    /// The receiver's idempotency key. It has no `.`, which separates the signed parts.
    pub id: String,
    pub body: String,
}

impl fmt::Debug for Webhook {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Webhook")
            .field("id", &self.id)
            .finish_non_exhaustive()
    }
}

/// Why an attempt failed. All of these can end by themselves: a vendor's faulty release answers 404 as well.
#[derive(Debug, Error)]
pub enum WebhookError {
    #[error("the vendor answered {status}")]
    Answered {
        status: StatusCode,
        /// How long the vendor asks to be left alone.
        retry_after: Option<Duration>,
    },
    #[error("the vendor did not answer within {} s", .0.as_secs())]
    TimedOut(Duration),
    #[error("the vendor's name leads to no public address")]
    NotPublic,
    #[error("the vendor could not be reached: {0}")]
    Unreachable(String),
}

impl WebhookError {
    /// The same in the words of all senders. A vendor that may have taken it knows it again by its id, so nothing here
    /// is ambiguous.
    pub fn failure(&self) -> Failure {
        let (class, retry_after) = match self {
            Self::Answered {
                status: StatusCode::GONE,
                ..
            } => (Class::Gone, None),
            Self::Answered {
                status: StatusCode::TOO_MANY_REQUESTS,
                retry_after,
            } => (Class::RateLimited, *retry_after),
            Self::Answered { retry_after, .. } => (Class::Transient, *retry_after),
            Self::TimedOut(_) | Self::NotPublic | Self::Unreachable(_) => (Class::Transient, None),
        };
        Failure {
            class,
            retry_after,
            answer: self.to_string(),
            nothing_taken: false,
        }
    }
}

/// Delivers webhooks over pooled connections; clones share them.
#[derive(Clone)]
pub struct WebhookClient {
    public: Client,
    /// For vendors that say `"allowPrivate": true`.
    private: Client,
    timeout: Duration,
}

impl WebhookClient {
    pub fn new(timeout: Duration) -> Self {
        let builder = || {
            Client::builder()
                .user_agent(concat!("orderup/", env!("CARGO_PKG_VERSION")))
                .timeout(timeout)
                .redirect(redirect::Policy::none())
                // A proxy would resolve the name itself, and so evade the check of the address.
                .no_proxy()
        };
        let build = |builder: ClientBuilder| {
            // What could fail here is a TLS back end that is not there, and ours is compiled in.
            builder.build().expect("the TLS back end is compiled in")
        };
        Self {
            public: build(builder().dns_resolver(Arc::new(PublicResolver))),
            private: build(builder()),
            timeout,
        }
    }

    /// Makes one attempt. `now` is the time of the attempt, which is signed.
    pub async fn deliver(
        &self,
        vendor: &Vendor,
        webhook: &Webhook,
        now: OffsetDateTime,
    ) -> Result<(), WebhookError> {
        let client = if vendor.allow_private {
            &self.private
        } else {
            &self.public
        };
        let timestamp = now.unix_timestamp();
        let call = Call::begin(|| provider(&vendor.id), "POST", vendor.url.host_str());
        let mut request = client
            .post(vendor.url.clone())
            .header(header::CONTENT_TYPE, "application/json")
            .header("webhook-id", &webhook.id)
            .header("webhook-timestamp", timestamp)
            .header(
                "webhook-signature",
                signatures(&vendor.secrets, &webhook.id, timestamp, &webhook.body),
            )
            .body(webhook.body.clone());
        if let Some(context) = call.context() {
            // A vendor who is asked about a webhook can name its trace, in which there is nothing but random numbers.
            request = request.header(TRACEPARENT, context.to_string());
        }
        let response = match request.send().await {
            Ok(response) => response,
            Err(error) => {
                let error = self.failure(&error);
                call.end(error.failure().class.name(), None);
                return Err(error);
            }
        };
        let status = response.status();
        let retry_after = response
            .headers()
            .get(header::RETRY_AFTER)
            .and_then(|value| value.to_str().ok())
            .and_then(|value| retry::retry_after(value, now.into()));
        drain(response).await;
        let result = if status.is_success() {
            Ok(())
        } else {
            Err(WebhookError::Answered {
                status,
                retry_after,
            })
        };
        let class = result
            .as_ref()
            .err()
            .map(|error| error.failure().class.name());
        call.end(class.unwrap_or(provider_call::OK), Some(status.as_u16()));
        result
    }

    fn failure(&self, error: &reqwest::Error) -> WebhookError {
        let mut causes = Vec::new();
        let mut cause = std::error::Error::source(error);
        while let Some(error) = cause {
            if error.is::<NoPublicAddress>() {
                return WebhookError::NotPublic;
            }
            causes.push(error.to_string());
            cause = match error.downcast_ref::<std::io::Error>() {
                // An io::Error hides the error that it wraps from `source`.
                Some(error) => error
                    .get_ref()
                    .map(|inner| inner as &(dyn std::error::Error + 'static)),
                None => error.source(),
            };
        }
        if error.is_timeout() {
            WebhookError::TimedOut(self.timeout)
        } else {
            // The innermost cause says what happened; those around it repeat the URL.
            WebhookError::Unreachable(causes.pop().unwrap_or_else(|| "no connection".to_owned()))
        }
    }
}

async fn drain(mut response: reqwest::Response) {
    let mut read = 0;
    while let Ok(Some(chunk)) = response.chunk().await {
        read += chunk.len();
        if read > LONGEST_ANSWER {
            break;
        }
    }
}

/// The `webhook-signature` header: one `v1` signature for each secret.
fn signatures(secrets: &[SecretSlice<u8>], id: &str, timestamp: i64, body: &str) -> String {
    let signatures: Vec<String> = secrets
        .iter()
        .map(|secret| {
            let mut mac = Hmac::<Sha256>::new_from_slice(secret.expose_secret())
                .expect("HMAC takes keys of any length");
            mac.update(format!("{id}.{timestamp}.{body}").as_bytes());
            format!("v1,{}", STANDARD.encode(mac.finalize().into_bytes()))
        })
        .collect();
    signatures.join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{channel::Channel, retry_policy::tests::policy};

    fn secret(text: &str) -> SecretSlice<u8> {
        STANDARD.decode(text).unwrap().into()
    }

    #[test]
    fn the_signature_is_the_standards_own_example() {
        let secrets = [secret("C2FVsBQIhrscChlQIMV+b5sSYspob7oD")];
        let body = r#"{"email":"test@example.com","username":"test_user"}"#;
        assert_eq!(
            signatures(
                &secrets,
                "msg_27UH4WbU6Z5A5EzD8u03UvzRbpk",
                1_649_367_553,
                body
            ),
            "v1,tZ1I4/hDygAJgO5TYxiSd6Sd0kDW6hPenDe+bTa3Kkw="
        );
    }

    #[tokio::test]
    async fn a_vendor_that_says_nothing_has_its_time_and_no_more() {
        assert_eq!(TIMEOUT, Duration::from_secs(15));
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let vendor = Vendor {
            id: "bakery".to_owned(),
            url: format!("http://{}/", listener.local_addr().unwrap())
                .parse()
                .unwrap(),
            secrets: vec![secret("C2FVsBQIhrscChlQIMV+b5sSYspob7oD")],
            allow_private: true,
            is_parked: false,
            channel: Channel::new("the vendor bakery", "vendor:bakery", &policy(), None),
        };
        let webhook = Webhook {
            id: "msg_1".to_owned(),
            body: "{}".to_owned(),
        };
        let client = WebhookClient::new(Duration::from_millis(100));
        let error = client
            .deliver(&vendor, &webhook, OffsetDateTime::now_utc())
            .await
            .unwrap_err();
        assert!(matches!(error, WebhookError::TimedOut(_)), "{error}");
    }

    #[test]
    fn only_a_rate_limit_and_gone_are_more_than_a_failure() {
        let class = |status: u16| {
            let status = StatusCode::from_u16(status).unwrap();
            WebhookError::Answered {
                status,
                retry_after: None,
            }
            .failure()
            .class
        };
        for status in [301, 400, 401, 403, 404, 422, 500, 502, 503] {
            assert_eq!(class(status), Class::Transient, "{status}");
        }
        assert_eq!(class(429), Class::RateLimited);
        assert_eq!(class(410), Class::Gone);
    }

    #[test]
    fn every_secret_signs_so_that_either_verifies() {
        let (old, new) = (
            "MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw",
            "C2FVsBQIhrscChlQIMV+b5sSYspob7oD",
        );
        let now = OffsetDateTime::now_utc().unix_timestamp();
        let signature = signatures(&[secret(new), secret(old)], "msg_1", now, "{}");
        let mut headers = axum::http::HeaderMap::new();
        headers.insert("webhook-id", "msg_1".parse().unwrap());
        headers.insert("webhook-timestamp", now.into());
        headers.insert("webhook-signature", signature.parse().unwrap());
        for secret in [old, new] {
            let verifier = standardwebhooks::Webhook::new(secret).unwrap();
            verifier.verify(b"{}", &headers).unwrap();
        }
        let other = standardwebhooks::Webhook::new("bm90IG9uZSBvZiB0aGVpciBzZWNyZXRz").unwrap();
        other.verify(b"{}", &headers).unwrap_err();
    }
}
