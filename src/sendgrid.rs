//! Twilio SendGrid, by its v3 Mail Send API.
//!
//! Success is 202 (200 in the sandbox mode of an account). SendGrid knows no idempotency key: an email whose answer
//! was lost may arrive twice when it is sent again. Our key travels in `custom_args`, by which SendGrid's
//! events show such a pair.

use std::time::{Duration, SystemTime};

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::{
    config::{ConfigError, Settings},
    email::{Email, EmailError, Mailbox, Sender},
    provider_http::{Answer, KeyedApi, KeyedApiNames},
};

const PROVIDER: &str = "SendGrid";

const API: KeyedApiNames = KeyedApiNames {
    provider: PROVIDER,
    key: "SENDGRID_API_KEY",
    expected: "an API key of SendGrid, as in SG.…",
    base: "SENDGRID_BASE_URL",
    default_base: "https://api.sendgrid.com",
    path: "/v3/mail/send",
};

/// A client of one SendGrid account.
#[derive(Debug, Clone)]
pub struct SendGridClient {
    api: KeyedApi,
    sender: Sender,
}

impl SendGridClient {
    /// Reads `SENDGRID_API_KEY` and `SENDGRID_BASE_URL`, which for accounts in the EU is `https://api.eu.sendgrid.com`.
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
        let answer = self.api.ask(self.api.post(&self.message(email))).await?;
        match answer.status {
            200 | 202 => Ok(()),
            _ => {
                let now = SystemTime::now();
                let retry_after = answer
                    .retry_after(now)
                    .or_else(|| answer.reset_at("x-ratelimit-reset", now));
                Err(answer.error(wrong_field(&answer).as_deref(), retry_after))
            }
        }
    }

    fn message<'a>(&'a self, email: &'a Email) -> Message<'a> {
        Message {
            from: Address::of(&self.sender.from),
            reply_to: self.sender.reply_to.as_ref().map(Address::of),
            subject: &email.subject,
            personalizations: [Personalization {
                to: [Address::of(&email.to)],
                custom_args: CustomArgs {
                    order_id: &email.order_id,
                    message_key: email.key,
                },
            }],
            categories: [&email.event_type],
            // SendGrid demands that the plain text comes first.
            content: [
                Content {
                    kind: "text/plain",
                    value: &email.text,
                },
                Content {
                    kind: "text/html",
                    value: &email.html,
                },
            ],
        }
    }
}

/// The field that SendGrid complains about, as in `personalizations.0.to.0.email`: it has no error codes.
fn wrong_field(answer: &Answer) -> Option<String> {
    #[derive(Deserialize)]
    struct Body {
        errors: Vec<Error>,
    }
    #[derive(Deserialize)]
    struct Error {
        field: Option<String>,
    }
    let body: Body = serde_json::from_slice(&answer.body).ok()?;
    body.errors.into_iter().find_map(|error| error.field)
}

#[derive(Serialize)]
struct Message<'a> {
    from: Address<'a>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reply_to: Option<Address<'a>>,
    subject: &'a str,
    personalizations: [Personalization<'a>; 1],
    categories: [&'a str; 1],
    content: [Content<'a>; 2],
}

#[derive(Serialize)]
struct Personalization<'a> {
    to: [Address<'a>; 1],
    // Here and not at the top, where SendGrid's own OpenAPI document takes a string only.
    custom_args: CustomArgs<'a>,
}

#[derive(Serialize)]
struct CustomArgs<'a> {
    order_id: &'a str,
    message_key: Uuid,
}

#[derive(Serialize)]
struct Content<'a> {
    #[serde(rename = "type")]
    kind: &'static str,
    value: &'a str,
}

#[derive(Serialize)]
struct Address<'a> {
    email: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<&'a str>,
}

impl<'a> Address<'a> {
    fn of(mailbox: &'a Mailbox) -> Self {
        Self {
            email: &mailbox.address,
            name: mailbox.name.as_deref(),
        }
    }
}
