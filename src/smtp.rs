//! Any provider that speaks SMTP, through `lettre`.
//!
//! Success is the server's 250 after the message. SMTP knows no repetition: an email whose 250 was lost may arrive
//! twice, under the same `Message-ID`, by which many mail systems collapse the pair. Connections are kept here and not
//! by lettre's pool, which takes a connection back when a send is cancelled in the middle of a message: the
//! next email would read the answers to the last one. A timeout here closes its connection.

use std::{
    error::Error as _,
    fmt,
    str::FromStr,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use lettre::{
    Address, Message,
    message::{
        MultiPart,
        header::{HeaderName, HeaderValue},
    },
    transport::smtp::{
        Error, SMTP_PORT, SUBMISSION_PORT, SUBMISSIONS_PORT,
        authentication::{Credentials, DEFAULT_MECHANISMS},
        client::{AsyncSmtpConnection, TlsParameters},
        commands::{Data, Mail, Rcpt},
        extension::{ClientId, Extension, MailParameter},
    },
};
use percent_encoding::percent_decode_str;
use reqwest::Url;
use tokio::time::timeout;

use crate::{
    config::{ConfigError, Settings},
    email::{Email, EmailError, Mailbox, Sender, Timeouts},
};

const PROVIDER: &str = "SMTP server";

/// Enough for what one instance sends at once.
const MOST_IDLE: usize = 4;

/// Below the four minutes after which Azure's load balancers forget an idle connection without a word;
/// using one that is gone costs a whole timeout.
const LONGEST_IDLE: Duration = Duration::from_secs(60);

/// A client of one SMTP server.
#[derive(Clone)]
pub struct SmtpClient {
    server: Arc<Server>,
    sender: Sender,
    timeouts: Timeouts,
    idle: Arc<Mutex<Vec<Idle>>>,
}

struct Idle {
    connection: AsyncSmtpConnection,
    since: Instant,
}

/// What `SMTP_URL` says.
struct Server {
    host: String,
    port: u16,
    encryption: Encryption,
    credentials: Option<Credentials>,
    /// The name in EHLO, if the URL has one.
    hello_name: Option<String>,
}

enum Encryption {
    None,
    /// `STARTTLS` if the server offers it.
    Opportunistic(TlsParameters),
    /// `STARTTLS`, or no email.
    Required(TlsParameters),
    /// TLS from the first byte.
    Wrapper(TlsParameters),
}

/// How far a conversation has come, which tells what a broken one means.
#[derive(Clone, Copy)]
enum Phase {
    Connecting,
    /// `MAIL FROM`: the server judges us.
    Sender,
    /// `RCPT TO` and `DATA`: the server judges this email.
    Recipient,
    /// The message is being written: the server may take it.
    Message,
}

impl fmt::Debug for SmtpClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SmtpClient")
            .field("host", &self.server.host)
            .field("port", &self.server.port)
            .finish_non_exhaustive()
    }
}

impl SmtpClient {
    /// Reads `SMTP_URL`, in lettre's form: `smtps://user:password@host:port`, or `smtp://…` with `?tls=required`,
    /// `?tls=opportunistic` or neither. User and password are percent-encoded; a path is the name in EHLO.
    pub(crate) fn from_settings(
        settings: &Settings,
        sender: Sender,
        timeouts: Timeouts,
    ) -> Result<Self, ConfigError> {
        const EXPECTED: &str =
            "smtps://user:password@host:port, or smtp://… with ?tls=required or ?tls=opportunistic";
        let server = settings
            .required("SMTP_URL", EXPECTED)?
            .parse()
            .map_err(|problem: &str| ConfigError::invalid("SMTP_URL", problem, EXPECTED))?;
        Ok(Self {
            server: Arc::new(server),
            sender,
            timeouts,
            idle: Arc::default(),
        })
    }

    /// The server's name.
    pub(crate) fn host(&self) -> &str {
        &self.server.host
    }

    pub(crate) async fn send(&self, email: &Email) -> Result<(), EmailError> {
        let message = self.message(email)?;
        let total = self.timeouts.total;
        let mut phase = Phase::Connecting;
        // lettre's own timeout bounds the TCP connect only (lettre/lettre#1027).
        match timeout(total, self.converse(&message, &mut phase)).await {
            Ok(Ok(connection)) => {
                self.keep(connection);
                Ok(())
            }
            Ok(Err(error)) => Err(error),
            Err(_) => Err(broken(phase, format!("no answer within {total:?}"))),
        }
    }

    /// Gives the message to the server. A connection that saw an error is closed.
    async fn converse(
        &self,
        message: &Message,
        phase: &mut Phase,
    ) -> Result<AsyncSmtpConnection, EmailError> {
        let envelope = message.envelope();
        let mut connection = match self.kept().await {
            Some(connection) => connection,
            None => self
                .connect()
                .await
                .map_err(|error| failure(Phase::Connecting, &error))?,
        };

        let mut options = Vec::new();
        if !envelope.to().iter().all(|to| to.to_string().is_ascii()) {
            if !connection
                .server_info()
                .supports_feature(Extension::SmtpUtfEight)
            {
                return Err(refused(
                    "the address is not ASCII and SMTPUTF8 is not offered",
                ));
            }
            options.push(MailParameter::SmtpUtfEight);
        }
        *phase = Phase::Sender;
        connection
            .command(Mail::new(envelope.from().cloned(), options))
            .await
            .map_err(|error| failure(*phase, &error))?;
        *phase = Phase::Recipient;
        for to in envelope.to() {
            connection
                .command(Rcpt::new(to.clone(), Vec::new()))
                .await
                .map_err(|error| failure(*phase, &error))?;
        }
        connection
            .command(Data)
            .await
            .map_err(|error| failure(*phase, &error))?;
        *phase = Phase::Message;
        connection
            .message(&message.formatted())
            .await
            .map_err(|error| failure(*phase, &error))?;
        Ok(connection)
    }

    async fn connect(&self) -> Result<AsyncSmtpConnection, Error> {
        let server = &*self.server;
        let name = server
            .hello_name
            .clone()
            .unwrap_or_else(|| self.sender.from.domain().to_owned());
        let hello = ClientId::Domain(name);
        let wrapper = match &server.encryption {
            Encryption::Wrapper(tls) => Some(tls.clone()),
            Encryption::None | Encryption::Opportunistic(_) | Encryption::Required(_) => None,
        };
        let mut connection = AsyncSmtpConnection::connect_tokio1(
            (server.host.as_str(), server.port),
            Some(self.timeouts.connect),
            &hello,
            wrapper,
            None,
        )
        .await?;
        match &server.encryption {
            Encryption::Required(tls) => connection.starttls(tls.clone(), &hello).await?,
            Encryption::Opportunistic(tls) if connection.can_starttls() => {
                connection.starttls(tls.clone(), &hello).await?;
            }
            Encryption::Opportunistic(_) | Encryption::None | Encryption::Wrapper(_) => {}
        }
        if let Some(credentials) = &server.credentials {
            connection.auth(DEFAULT_MECHANISMS, credentials).await?;
        }
        Ok(connection)
    }

    /// A kept connection on which the server still answers.
    async fn kept(&self) -> Option<AsyncSmtpConnection> {
        loop {
            let mut idle = self.idle().pop()?;
            if idle.since.elapsed() < LONGEST_IDLE && idle.connection.test_connected().await {
                return Some(idle.connection);
            }
        }
    }

    fn keep(&self, connection: AsyncSmtpConnection) {
        let mut idle = self.idle();
        idle.retain(|idle| idle.since.elapsed() < LONGEST_IDLE);
        if idle.len() < MOST_IDLE {
            idle.push(Idle {
                connection,
                since: Instant::now(),
            });
        }
    }

    fn idle(&self) -> std::sync::MutexGuard<'_, Vec<Idle>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The email in MIME, the same bytes each time.
    fn message(&self, email: &Email) -> Result<Message, EmailError> {
        let from = lettre_mailbox(&self.sender.from)
            .ok_or_else(|| refused("the sender's address is not one of SMTP"))?;
        let to = lettre_mailbox(&email.to)
            .ok_or_else(|| refused("the recipient's address is not one of SMTP"))?;
        let raw = |name: &'static str, value: &str| {
            HeaderValue::new(HeaderName::new_from_ascii_str(name), value.to_owned())
        };
        let id = format!("<{}@{}>", email.key, self.sender.from.domain());
        let mut builder = Message::builder()
            .from(from)
            .to(to)
            .subject(&email.subject)
            .date(email.date.into())
            .message_id(Some(id))
            .raw_header(raw("Auto-Submitted", "auto-generated"))
            .raw_header(raw("X-Order-Id", &email.order_id));
        if let Some(reply_to) = self.sender.reply_to.as_ref().and_then(lettre_mailbox) {
            builder = builder.reply_to(reply_to);
        }
        let parts = MultiPart::alternative()
            // Random otherwise, and so different at each attempt.
            .boundary(email.key.simple().to_string())
            .singlepart(lettre::message::SinglePart::plain(email.text.clone()))
            .singlepart(lettre::message::SinglePart::html(email.html.clone()));
        builder
            .multipart(parts)
            .map_err(|_| refused("no message can be made of it"))
    }
}

fn lettre_mailbox(mailbox: &Mailbox) -> Option<lettre::message::Mailbox> {
    let address: Address = mailbox.address.parse().ok()?;
    // lettre panics at a control character in a name, and nothing is lost without such a name.
    let name = mailbox.name.clone();
    let name = name.filter(|name| !name.contains(char::is_control));
    Some(lettre::message::Mailbox::new(name, address))
}

fn refused(answer: &str) -> EmailError {
    EmailError::Refused {
        provider: PROVIDER,
        answer: answer.to_owned(),
    }
}

/// The conversation ended without an answer.
fn broken(phase: Phase, reason: String) -> EmailError {
    let provider = PROVIDER;
    match phase {
        Phase::Connecting | Phase::Sender | Phase::Recipient => {
            EmailError::Unreachable { provider, reason }
        }
        Phase::Message => EmailError::Unanswered { provider, reason },
    }
}

fn failure(phase: Phase, error: &Error) -> EmailError {
    let provider = PROVIDER;
    if error.is_client() {
        // The server lacks what the settings demand: STARTTLS, or a login that lettre knows.
        return EmailError::Unauthorized {
            provider,
            answer: "it does not offer the encryption or the login that SMTP_URL asks for"
                .to_owned(),
        };
    }
    let Some(code) = error.status() else {
        let reason = if error.is_tls() {
            "no TLS connection"
        } else if error.is_response() {
            "the connection ended or the answer is not SMTP"
        } else {
            "the connection failed"
        };
        return broken(phase, reason.to_owned());
    };
    let answer = match enhanced_status(error) {
        Some(enhanced) => format!("{code} {enhanced}"),
        None => code.to_string(),
    };
    // Servers put off their judgement of us until there is a recipient: a refusal for policy or security (RFC 3463, x.7)
    // need not be about this email, and trouble of the system (x.3, x.4) or of the connection (421) never is.
    let about_recipient = matches!(phase, Phase::Recipient | Phase::Message);
    let detail = enhanced_status(error).unwrap_or_default();
    let detail = detail.split_once('.').map_or("", |(_, detail)| detail);
    let about_server =
        detail.starts_with("3.") || detail.starts_with("4.") || u16::from(code) == 421;
    let may_be_about_us = error.is_permanent() && detail.starts_with("7.");
    if about_recipient && (error.is_transient() && !about_server || may_be_about_us) {
        return EmailError::Deferred { provider, answer };
    }
    if error.is_transient() {
        return EmailError::Busy {
            provider,
            answer,
            retry_after: None,
        };
    }
    // RFC 4954: authentication required, too weak, failed, or only with encryption.
    let login = matches!(u16::from(code), 530 | 534 | 535 | 538);
    match phase {
        Phase::Recipient | Phase::Message if !login => EmailError::Refused { provider, answer },
        Phase::Connecting | Phase::Sender | Phase::Recipient | Phase::Message => {
            EmailError::Unauthorized { provider, answer }
        }
    }
}

/// The status of RFC 3463 with which the text of an answer may begin, as in `5.1.1`.
fn enhanced_status(error: &Error) -> Option<String> {
    let text = error.source()?.to_string();
    let first = text.split_whitespace().next()?;
    let mut parts = 0;
    let numbers = first.split('.').all(|part| {
        parts += 1;
        (1..=3).contains(&part.len()) && part.bytes().all(|digit| digit.is_ascii_digit())
    });
    (numbers && parts == 3).then(|| first.to_owned())
}

impl FromStr for Server {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let url = Url::parse(text).map_err(|_| "it is not a URL")?;
        let host = url
            .host_str()
            .map(|host| {
                host.trim_start_matches('[')
                    .trim_end_matches(']')
                    .to_owned()
            })
            .filter(|host| !host.is_empty())
            .ok_or("it has no host")?;
        let mut tls = None;
        for (name, value) in url.query_pairs() {
            match &*name {
                "tls" => tls = Some(value.into_owned()),
                _ => return Err("it has a parameter that is not tls"),
            }
        }
        let parameters =
            || TlsParameters::new(host.clone()).map_err(|_| "TLS can't be used with its host");
        let (encryption, port) = match (url.scheme(), tls.as_deref()) {
            ("smtp", None) => (Encryption::None, SMTP_PORT),
            ("smtp", Some("opportunistic")) => {
                (Encryption::Opportunistic(parameters()?), SUBMISSION_PORT)
            }
            ("smtp", Some("required")) => (Encryption::Required(parameters()?), SUBMISSION_PORT),
            ("smtps", _) => (Encryption::Wrapper(parameters()?), SUBMISSIONS_PORT),
            ("smtp", Some(_)) => return Err("its tls is neither required nor opportunistic"),
            _ => return Err("its scheme is neither smtp nor smtps"),
        };
        let decoded = |text: &str| {
            percent_decode_str(text)
                .decode_utf8()
                .map(|text| text.into_owned())
                .map_err(|_| "its user or password is not UTF-8")
        };
        let credentials = match (url.username(), url.password()) {
            ("", None) => None,
            (_, None) => return Err("it has a user and no password"),
            (user, Some(password)) => Some(Credentials::new(decoded(user)?, decoded(password)?)),
        };
        let encrypted = match encryption {
            Encryption::Required(_) | Encryption::Wrapper(_) => true,
            Encryption::None | Encryption::Opportunistic(_) => false,
        };
        let local = matches!(host.as_str(), "localhost" | "127.0.0.1" | "::1");
        if credentials.is_some() && !encrypted && !local {
            return Err("its password could go over the network in clear");
        }
        let hello_name = url.path().trim_matches('/');
        Ok(Self {
            port: url.port().unwrap_or(port),
            encryption,
            credentials,
            hello_name: (!hello_name.is_empty()).then(|| hello_name.to_owned()),
            host,
        })
    }
}

#[cfg(test)]
mod tests {
    use time::OffsetDateTime;
    use uuid::Uuid;

    use super::*;

    fn client() -> SmtpClient {
        SmtpClient {
            server: Arc::new("smtp://127.0.0.1".parse().unwrap()),
            sender: Sender {
                from: "Contoso Orders <orders@contoso.example>".parse().unwrap(),
                reply_to: Some("help@contoso.example".parse().unwrap()),
            },
            timeouts: Timeouts::default(),
            idle: Arc::default(),
        }
    }

    fn email() -> Email {
        Email {
            to: "Ada Lovelace <ada@example.net>".parse().unwrap(),
            subject: "Your order 1001".to_owned(),
            text: "Grüße".to_owned(),
            html: "<p>Grüße</p>".to_owned(),
            date: OffsetDateTime::from_unix_timestamp(1_795_376_623).unwrap(),
            key: Uuid::from_u128(0x8540_c0de_899f_5cce_acb5_3ec4_93af_3800),
            order_id: "ORD-1001".to_owned(),
            event_type: "order.placed".to_owned(),
        }
    }

    fn formatted(email: &Email) -> String {
        String::from_utf8(client().message(email).unwrap().formatted()).unwrap()
    }

    #[test]
    fn the_headers_tell_what_it_is_and_the_bytes_never_change() {
        let message = formatted(&email());
        for header in [
            "From: \"Contoso Orders\" <orders@contoso.example>\r\n",
            "To: \"Ada Lovelace\" <ada@example.net>\r\n",
            "Reply-To: help@contoso.example\r\n",
            "Subject: Your order 1001\r\n",
            "Date: Sun, 22 Nov 2026 19:43:43 +0000\r\n",
            "Message-ID: <8540c0de-899f-5cce-acb5-3ec493af3800@contoso.example>\r\n",
            "Auto-Submitted: auto-generated\r\n",
            "X-Order-Id: ORD-1001\r\n",
            "Content-Type: multipart/alternative;",
            "Content-Type: text/plain; charset=utf-8\r\n",
            "Content-Type: text/html; charset=utf-8\r\n",
        ] {
            assert!(message.contains(header), "{header}: {message}");
        }
        assert!(message.is_ascii());
        assert_eq!(message, formatted(&email()));
    }

    #[test]
    fn a_hostile_name_or_subject_adds_no_header() {
        let mut hostile = email();
        hostile.to.name = Some("Ada\r\nBcc: eve@example.net\r\n\r\n<script>".to_owned());
        hostile.subject = "Order\r\nBcc: eve@example.net".to_owned();
        let message = formatted(&hostile);
        let (head, _) = message.split_once("\r\n\r\n").unwrap();
        assert!(!head.lines().any(|line| line.starts_with("Bcc")), "{head}");
    }

    #[test]
    fn a_name_of_any_length_keeps_to_the_line_limit() {
        let mut long = email();
        long.to.name = Some("Å".repeat(5_000));
        let message = formatted(&long);
        assert!(message.lines().all(|line| line.len() <= 998));
    }

    #[test]
    fn the_url_is_read_as_lettre_documents_it() {
        let read = |text: &str| text.parse::<Server>();
        let server = read("smtps://user%40x:p%3Ass@mail.example").unwrap();
        assert_eq!((server.host.as_str(), server.port), ("mail.example", 465));
        assert!(matches!(server.encryption, Encryption::Wrapper(_)));
        assert!(
            server.credentials == Some(Credentials::new("user@x".to_owned(), "p:ss".to_owned()))
        );

        let server = read("smtp://mail.example/shop.example?tls=required").unwrap();
        assert_eq!(server.port, 587);
        assert!(matches!(server.encryption, Encryption::Required(_)));
        assert_eq!(server.hello_name.as_deref(), Some("shop.example"));

        let server = read("smtp://mail.example:2525?tls=opportunistic").unwrap();
        assert_eq!(server.port, 2525);
        assert!(matches!(server.encryption, Encryption::Opportunistic(_)));

        let server = read("smtp://[::1]").unwrap();
        assert_eq!((server.host.as_str(), server.port), ("::1", 25));
        assert!(matches!(server.encryption, Encryption::None));

        for wrong in [
            "mail.example",
            "smtp:",
            "http://mail.example",
            "smtp://mail.example?tls=maybe",
            "smtp://mail.example?starttls=true",
            "smtp://user@mail.example",
        ] {
            assert!(read(wrong).is_err(), "{wrong}");
        }
    }
}
