//! What is sent to a customer, by whichever provider the settings name.
//!
//! A provider is a concrete client behind [`EmailSender`]; each speaks its provider's own protocol in its own file
//! and tells its failures apart in [`EmailError`]. The key of an email is the same at each attempt, and so
//! is everything else in it. Whether and when there is another attempt, the caller decides.

use std::{fmt, str::FromStr, time::Duration};

use thiserror::Error;
use time::OffsetDateTime;
use uuid::Uuid;

use crate::{
    acs::AcsClient,
    config::{ConfigError, Settings},
    failure::{Class, Failure},
    provider_call::{self, Call},
    resend::ResendClient,
    sendgrid::SendGridClient,
    smtp::SmtpClient,
};

/// A name and an address, both without control characters. Neither is ever printed.
#[derive(Clone, PartialEq, Eq)]
pub struct Mailbox {
    pub name: Option<String>,
    pub address: String,
}

impl Mailbox {
    /// What follows the `@`.
    pub fn domain(&self) -> &str {
        self.address
            .rsplit_once('@')
            .map_or("", |(_, domain)| domain)
    }
}

/// Reads `a@example.net` or `Name <a@example.net>`, the name quoted where it holds `,` or `@`.
impl FromStr for Mailbox {
    type Err = MailboxError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let parsed: lettre::message::Mailbox = text.parse().map_err(|_| MailboxError)?;
        let name = parsed.name.map(|name| name.trim().to_owned());
        if text.contains(char::is_control) {
            return Err(MailboxError);
        }
        Ok(Self {
            name: name.filter(|name| !name.is_empty()),
            address: parsed.email.to_string(),
        })
    }
}

impl fmt::Debug for Mailbox {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Mailbox").finish_non_exhaustive()
    }
}

/// The text is not one mailbox. What it was is not told, as it may be personal.
#[derive(Debug, Error)]
#[error("it is not an email address")]
pub struct MailboxError;

/// One email to one customer.
#[derive(Clone, PartialEq)]
pub struct Email {
    pub to: Mailbox,
    pub subject: String,
    pub text: String,
    pub html: String,
    /// When the event happened that it tells of, and its date for the recipient: the same at each attempt.
    pub date: OffsetDateTime,
    /// UUIDv5 of order id, event type and recipient: the provider's idempotency handle, never of the attempt.
    pub key: Uuid,
    /// For people who trace a message at the provider.
    pub order_id: String,
    /// The event's type, as in `order.placed`.
    pub event_type: String,
}

/// Subject and bodies name the customer, hence they stay out of what is printed.
impl fmt::Debug for Email {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Email")
            .field("key", &self.key)
            .field("order_id", &self.order_id)
            .field("event_type", &self.event_type)
            .finish_non_exhaustive()
    }
}

/// Whom the emails are from: `EMAIL_FROM` and `EMAIL_REPLY_TO`.
#[derive(Debug, Clone)]
pub struct Sender {
    pub from: Mailbox,
    pub reply_to: Option<Mailbox>,
}

impl Sender {
    fn from_settings(settings: &Settings) -> Result<Self, ConfigError> {
        const EXPECTED: &str =
            "an email address, as in orders@example.com or Example Orders <orders@example.com>";
        let mailbox = |variable: &str, text: &str| {
            text.parse().map_err(|error: MailboxError| {
                ConfigError::invalid(variable, error.to_string(), EXPECTED)
            })
        };
        Ok(Self {
            from: mailbox("EMAIL_FROM", &settings.required("EMAIL_FROM", EXPECTED)?)?,
            reply_to: settings
                .optional("EMAIL_REPLY_TO")
                .map(|text| mailbox("EMAIL_REPLY_TO", &text))
                .transpose()?,
        })
    }
}

/// How long a provider may take.
#[derive(Debug, Clone, Copy)]
pub struct Timeouts {
    /// Until the TCP connection to an SMTP server stands. For the others it is the HTTP client's.
    pub connect: Duration,
    /// For one attempt in all, name resolution and answer included.
    pub total: Duration,
}

impl Timeouts {
    /// A server that is up accepts in well under a second, and in three if two SYNs are lost. More than that
    /// is an outage, and waiting for its end only holds the message's lock.
    pub const CONNECT: Duration = Duration::from_secs(5);
    /// Providers accept within a few seconds at worst. It is far below the five minutes for which the host
    /// lets a function run, as an email may be tried more than once in that time.
    pub const TOTAL: Duration = Duration::from_secs(15);
}

impl Default for Timeouts {
    fn default() -> Self {
        Self {
            connect: Self::CONNECT,
            total: Self::TOTAL,
        }
    }
}

/// The provider that `EMAIL_PROVIDER` names.
#[derive(Debug, Clone)]
pub enum EmailSender {
    Acs(AcsClient),
    SendGrid(SendGridClient),
    Resend(ResendClient),
    Smtp(SmtpClient),
}

impl EmailSender {
    /// Reads the settings of the provider that `EMAIL_PROVIDER` names, and no other's. It connects to nothing.
    pub fn from_settings(settings: &Settings, http: &reqwest::Client) -> Result<Self, ConfigError> {
        Self::with_timeouts(settings, http, Timeouts::default())
    }

    /// As [`Self::from_settings`], with other timeouts.
    pub fn with_timeouts(
        settings: &Settings,
        http: &reqwest::Client,
        timeouts: Timeouts,
    ) -> Result<Self, ConfigError> {
        const EXPECTED: &str = "acs, sendgrid, resend or smtp";
        let provider = settings.required("EMAIL_PROVIDER", EXPECTED)?;
        let sender = Sender::from_settings(settings)?;
        let total = timeouts.total;
        match provider.to_ascii_lowercase().as_str() {
            "acs" => AcsClient::from_settings(settings, sender, http, total).map(Self::Acs),
            "sendgrid" => {
                SendGridClient::from_settings(settings, sender, http, total).map(Self::SendGrid)
            }
            "resend" => {
                ResendClient::from_settings(settings, sender, http, total).map(Self::Resend)
            }
            "smtp" => SmtpClient::from_settings(settings, sender, timeouts).map(Self::Smtp),
            _ => Err(ConfigError::invalid(
                "EMAIL_PROVIDER",
                "it names no provider that is known",
                EXPECTED,
            )),
        }
    }

    /// As `EMAIL_PROVIDER` has it.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Acs(_) => "acs",
            Self::SendGrid(_) => "sendgrid",
            Self::Resend(_) => "resend",
            Self::Smtp(_) => "smtp",
        }
    }

    /// Hands the email to the provider. `Ok` means that the provider has taken it, not that it has arrived.
    pub async fn send(&self, email: &Email) -> Result<(), EmailError> {
        match self {
            Self::Acs(client) => client.send(email).await,
            Self::SendGrid(client) => client.send(email).await,
            Self::Resend(client) => client.send(email).await,
            Self::Smtp(client) => {
                let call = Call::begin(|| self.name(), "send", Some(client.host()));
                let sent = client.send(email).await;
                let result = sent
                    .as_ref()
                    .err()
                    .map(|error| error.failure(false).class.name());
                call.end(result.unwrap_or(provider_call::OK), None);
                sent
            }
        }
    }

    /// The same, with what went wrong in the words of all senders.
    ///
    /// `may_be_there` says that it may have been taken at an earlier attempt: ACS is asked then before it gets it again,
    /// Resend knows it by its key, and with the others it may arrive twice. `otherwise` is the email as it may have been
    /// written at an earlier attempt: who knows that one under the key takes no other, and answers for it as it did then.
    pub async fn attempt(
        &self,
        email: &Email,
        otherwise: impl FnOnce() -> Email,
        may_be_there: bool,
    ) -> Result<(), Failure> {
        if let Self::Acs(client) = self
            && may_be_there
        {
            match client.has_taken(email.key).await {
                Ok(true) => return Ok(()),
                Ok(false) => {}
                // Nobody knows as yet.
                Err(error) => return Err(error.failure(false)),
            }
        }
        let mut sent = self.send(email).await;
        if let Err(EmailError::KnownOtherwise { .. }) = sent {
            sent = self.send(&otherwise()).await;
        }
        // Who was asked first, and had nothing, has nothing of any earlier attempt.
        let was_asked = may_be_there && matches!(self, Self::Acs(_));
        sent.map_err(|error| error.failure(was_asked))
    }

    /// The limit on which the provider's documentation lets a new account begin: 30 emails a minute and 100 an hour at
    /// ACS (service limits, "Email", custom domains), 2 requests a second at Resend (API reference, "Rate limit").
    pub fn default_rate_limit(&self) -> &'static str {
        match self {
            Self::Acs(_) => "30/m,100/h",
            Self::Resend(_) => "2/s",
            Self::SendGrid(_) | Self::Smtp(_) => "none",
        }
    }
}

/// Why an email was not taken. No text of the provider is in it, because that may quote the recipient:
/// only statuses, and codes that can't be an address.
#[derive(Debug, Error)]
pub enum EmailError {
    /// Nothing was sent: no connection could be made.
    #[error("could not reach {provider}: {reason}")]
    Unreachable {
        provider: &'static str,
        reason: String,
    },
    /// The request was written and no answer came that settles it: the provider may have taken it. A 5xx other than
    /// 503 is none, as the server that gives it may stand before the one that took the email.
    #[error("{provider} did not say whether it took it: {reason}")]
    Unanswered {
        provider: &'static str,
        reason: String,
    },
    /// The provider is overloaded or down: 3xx, 408, 425, 503, SMTP 4xx. It did not take the email.
    #[error("{provider} could not take it now: {answer}{}", asks_to_wait(*.retry_after))]
    Busy {
        provider: &'static str,
        answer: String,
        /// How long the provider asks to be left alone.
        retry_after: Option<Duration>,
    },
    /// The provider does not take this email now, which says nothing of others: SMTP 4xx about the recipient or the text,
    /// 409 about an attempt with the same key that is still being worked on.
    #[error("{provider} does not take this email now: {answer}")]
    Deferred {
        provider: &'static str,
        answer: String,
    },
    /// The provider took no more for now: 429, or a quota.
    #[error("{provider} limits the rate: {answer}{}", asks_to_wait(*.retry_after))]
    RateLimited {
        provider: &'static str,
        answer: String,
        retry_after: Option<Duration>,
    },
    /// The provider refuses us, not this email: 401, 403, 404, SMTP 530 and 535.
    #[error("{provider} does not accept our credentials, our account or our request: {answer}")]
    Unauthorized {
        provider: &'static str,
        answer: String,
    },
    /// The provider knows another email under this one's key.
    #[error("{provider} knows another email under the same key: {answer}")]
    KnownOtherwise {
        provider: &'static str,
        answer: String,
    },
    /// The provider refuses this email and will always do so.
    #[error("{provider} refused the email: {answer}")]
    Refused {
        provider: &'static str,
        answer: String,
    },
}

fn asks_to_wait(retry_after: Option<Duration>) -> String {
    match retry_after {
        Some(wait) => format!(", and asks to be left alone for {} s", wait.as_secs()),
        None => String::new(),
    }
}

impl EmailError {
    /// The same in the words of all senders. `is_clear` says that the provider's answers settle what became of earlier
    /// attempts.
    fn failure(&self, is_clear: bool) -> Failure {
        let (class, retry_after) = match self {
            Self::Unreachable { .. } => (Class::Transient, None),
            Self::Busy { retry_after, .. } => (Class::Transient, *retry_after),
            Self::Unanswered { .. } => (Class::Ambiguous, None),
            Self::RateLimited { retry_after, .. } => (Class::RateLimited, *retry_after),
            Self::Deferred { .. } => (Class::Deferred, None),
            Self::Unauthorized { .. } => (Class::ChannelBroken, None),
            Self::KnownOtherwise { .. } => (Class::KnownOtherwise, None),
            Self::Refused { .. } => (Class::Refused, None),
        };
        Failure {
            class,
            retry_after,
            answer: self.to_string(),
            nothing_taken: is_clear && class != Class::Ambiguous,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mailbox_is_read_with_and_without_a_name() {
        let plain: Mailbox = "orders@contoso.example".parse().unwrap();
        assert_eq!(plain.name, None);
        assert_eq!(plain.domain(), "contoso.example");

        let named: Mailbox = "Contoso Orders <orders@contoso.example>".parse().unwrap();
        assert_eq!(named.name.as_deref(), Some("Contoso Orders"));
        assert_eq!(named.address, "orders@contoso.example");

        let quoted: Mailbox = r#""Contoso, Orders" <orders@contoso.example>"#.parse().unwrap();
        assert_eq!(quoted.name.as_deref(), Some("Contoso, Orders"));
    }

    #[test]
    fn what_is_no_mailbox_is_refused_without_being_quoted() {
        for text in [
            "",
            "ada",
            "ada@",
            "@example.net",
            "Ada <ada@example.net> x",
            "ada@example.net, eve@example.net",
            "Ada\r\nBcc: <eve@example.net>",
            "\"A\u{7}da\" <ada@example.net>",
        ] {
            let error = text.parse::<Mailbox>().unwrap_err();
            assert_eq!(error.to_string(), "it is not an email address", "{text:?}");
        }
    }

    #[test]
    fn settings_that_are_missing_or_wrong_are_named() {
        let problem = |settings: Settings| {
            EmailSender::from_settings(&settings, &reqwest::Client::new())
                .err()
                .map(|error| error.to_string())
                .unwrap_or_default()
        };
        let from = ("EMAIL_FROM", "orders@contoso.example");

        let error = problem(Settings::from_pairs([from]));
        assert!(error.contains("EMAIL_PROVIDER is missing"), "{error}");
        let error = problem(Settings::from_pairs([("EMAIL_PROVIDER", "pigeon"), from]));
        assert!(error.contains("EMAIL_PROVIDER is not usable"), "{error}");
        let error = problem(Settings::from_pairs([("EMAIL_PROVIDER", "resend")]));
        assert!(error.contains("EMAIL_FROM is missing"), "{error}");
        let error = problem(Settings::from_pairs([
            ("EMAIL_PROVIDER", "resend"),
            ("EMAIL_FROM", "the shop"),
        ]));
        assert!(error.contains("EMAIL_FROM is not usable"), "{error}");
        let error = problem(Settings::from_pairs([
            ("EMAIL_PROVIDER", "resend"),
            from,
            ("EMAIL_REPLY_TO", "help desk"),
        ]));
        assert!(error.contains("EMAIL_REPLY_TO is not usable"), "{error}");

        for (provider, missing) in [
            ("acs", "ACS_CONNECTION_STRING"),
            ("sendgrid", "SENDGRID_API_KEY"),
            ("resend", "RESEND_API_KEY"),
            ("smtp", "SMTP_URL"),
        ] {
            let error = problem(Settings::from_pairs([("EMAIL_PROVIDER", provider), from]));
            assert!(error.contains(&format!("{missing} is missing")), "{error}");
        }

        for (provider, key, value, wrong) in [
            (
                "sendgrid",
                "SENDGRID_BASE_URL",
                "http://mail.example",
                "SENDGRID_BASE_URL",
            ),
            (
                "sendgrid",
                "SENDGRID_BASE_URL",
                "mail.example",
                "SENDGRID_BASE_URL",
            ),
            (
                "resend",
                "RESEND_BASE_URL",
                "https://u:p@mail.example",
                "RESEND_BASE_URL",
            ),
            (
                "resend",
                "RESEND_BASE_URL",
                "https://mail.example?x=1",
                "RESEND_BASE_URL",
            ),
            ("resend", "RESEND_API_KEY", "two\nlines", "RESEND_API_KEY"),
            (
                "acs",
                "ACS_CONNECTION_STRING",
                "endpoint=https://a.example",
                "ACS_CONNECTION_STRING",
            ),
            (
                "acs",
                "ACS_CONNECTION_STRING",
                "accesskey=a2V5",
                "ACS_CONNECTION_STRING",
            ),
            (
                "acs",
                "ACS_CONNECTION_STRING",
                "endpoint=https://a.example;accesskey=%%%",
                "ACS_CONNECTION_STRING",
            ),
            ("acs", "ACS_ENDPOINT", "http://acs.example", "ACS_ENDPOINT"),
            ("smtp", "SMTP_URL", "https://mail.example", "SMTP_URL"),
            (
                "smtp",
                "SMTP_URL",
                "smtp://mail.example?tls=maybe",
                "SMTP_URL",
            ),
            ("smtp", "SMTP_URL", "smtp://user@mail.example", "SMTP_URL"),
        ] {
            let mut pairs = [
                ("EMAIL_PROVIDER", provider),
                from,
                ("SENDGRID_API_KEY", "SG.key"),
                ("RESEND_API_KEY", "re_key"),
                (key, value),
            ];
            // The first of a name counts.
            pairs.reverse();
            let error = problem(Settings::from_pairs(pairs));
            assert!(
                error.contains(&format!("{wrong} is not usable")),
                "{key}={value}: {error}"
            );
            assert!(!error.contains(value), "{error}");
        }
    }

    #[test]
    fn nothing_personal_is_printed() {
        let email = Email {
            to: "Ada Lovelace <ada@example.net>".parse().unwrap(),
            subject: "Ada's order".to_owned(),
            text: "Hello Ada".to_owned(),
            html: "<p>Hello Ada</p>".to_owned(),
            date: OffsetDateTime::UNIX_EPOCH,
            key: Uuid::nil(),
            order_id: "ORD-1001".to_owned(),
            event_type: "order.placed".to_owned(),
        };
        let printed = format!("{email:?} {:?}", email.to);
        assert!(!printed.to_lowercase().contains("ada"), "{printed}");
        assert!(printed.contains("ORD-1001"));
    }
}
