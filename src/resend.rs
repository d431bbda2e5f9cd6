//! Resend, by its REST API.
//!
//! Success is 200. The email's key is the `Idempotency-Key`, which Resend keeps for 24 hours: within them a
//! repetition with the same body is answered as the first was and sends nothing.

use std::time::{Duration, SystemTime};

use serde::{Deserialize, Serialize};

use crate::{
    config::{ConfigError, Settings},
    email::{Email, EmailError, Mailbox, Sender},
    provider_http::{Answer, KeyedApi, KeyedApiNames},
};

const PROVIDER: &str = "Resend";

const API: KeyedApiNames = KeyedApiNames {
    provider: PROVIDER,
    key: "RESEND_API_KEY",
    expected: "an API key of Resend, as in re_…",
    base: "RESEND_BASE_URL",
    default_base: "https://api.resend.com",
    path: "/emails",
};

/// A quota is used up for a day or a month; asking more often than this changes nothing about it.
const QUOTA_PAUSE: Duration = Duration::from_secs(60 * 60);

/// A client of one Resend account.
#[derive(Debug, Clone)]
pub struct ResendClient {
    api: KeyedApi,
    sender: Sender,
}

impl ResendClient {
    /// Reads `RESEND_API_KEY` and `RESEND_BASE_URL`.
    pub(crate) fn from_settings(
        settings: &Settings,
        sender: Sender,
        http: &reqwest::Client,
        total: Duration,
    ) -> Result<Self, ConfigError> {
        let api = KeyedApi::from_settings(settings, &API, http, total)?;
        Ok(Self { api, sender })
    }

    pub(crate) async fn send(&self, email: &Email) -> Result<(), EmailError> {
        let request = self
            .api
            .post(&self.message(email))
            .header("Idempotency-Key", email.key.to_string());
        let answer = self.api.ask(request).await?;
        match (answer.status, error_name(&answer).as_deref()) {
            (200, _) => Ok(()),
            // The other names of 409 say that an attempt with this key is still being worked on.
            (409, Some(name @ "invalid_idempotent_request")) => Err(EmailError::KnownOtherwise {
                provider: PROVIDER,
                answer: format!("409 {name}"),
            }),
            (_, name) => {
                let retry_after = match name {
                    Some("daily_quota_exceeded" | "monthly_quota_exceeded") => Some(QUOTA_PAUSE),
                    _ => answer
                        .retry_after(SystemTime::now())
                        .or_else(|| answer.reset_in("ratelimit-reset")),
                };
                Err(answer.error(name, retry_after))
            }
        }
    }

    fn message<'a>(&'a self, email: &'a Email) -> Message<'a> {
        Message {
            from: written(&self.sender.from),
            to: [&email.to.address],
            reply_to: self.sender.reply_to.as_ref().map(written),
            subject: &email.subject,
            text: &email.text,
            html: &email.html,
            headers: Headers {
                order_id: &email.order_id,
            },
            tags: [Tag {
                name: "order_id",
                value: &email.order_id,
            }],
        }
    }
}

/// `Name <address>`, the name quoted where it has to be.
fn written(mailbox: &Mailbox) -> String {
    match (&mailbox.name, mailbox.address.parse()) {
        (Some(name), Ok(address)) => {
            lettre::message::Mailbox::new(Some(name.clone()), address).to_string()
        }
        _ => mailbox.address.clone(),
    }
}

/// The `name` of an error, as in `rate_limit_exceeded`.
fn error_name(answer: &Answer) -> Option<String> {
    #[derive(Deserialize)]
    struct Body {
        name: String,
    }
    serde_json::from_slice(&answer.body)
        .map(|body: Body| body.name)
        .ok()
}

#[derive(Serialize)]
struct Message<'a> {
    from: String,
    to: [&'a str; 1],
    #[serde(skip_serializing_if = "Option::is_none")]
    reply_to: Option<String>,
    subject: &'a str,
    text: &'a str,
    html: &'a str,
    headers: Headers<'a>,
    tags: [Tag<'a>; 1],
}

#[derive(Serialize)]
struct Headers<'a> {
    #[serde(rename = "X-Order-Id")]
    order_id: &'a str,
}

#[derive(Serialize)]
struct Tag<'a> {
    name: &'static str,
    value: &'a str,
}
