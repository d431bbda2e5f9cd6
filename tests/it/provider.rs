//! What the tests of the email providers share: an email to Ada, senders, and how errors are told apart.

use std::time::Duration;

use orderup::{
    config::Settings,
    email::{Email, EmailError, EmailSender, Timeouts},
    http_client,
};
use time::OffsetDateTime;
use tokio::net::TcpListener;
use uuid::Uuid;

/// A port on this machine on which nobody listens.
pub(crate) async fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    listener.local_addr().unwrap().port()
}

/// A sender with these settings and the timeouts of production.
pub(crate) fn sender<const N: usize>(settings: [(&str, &str); N]) -> EmailSender {
    sender_within(settings, Timeouts::default())
}

/// A sender that gives up early, for servers that never answer.
pub(crate) fn impatient_sender<const N: usize>(settings: [(&str, &str); N]) -> EmailSender {
    sender_within(
        settings,
        Timeouts {
            total: Duration::from_secs(1),
            ..Timeouts::default()
        },
    )
}

fn sender_within<const N: usize>(settings: [(&str, &str); N], timeouts: Timeouts) -> EmailSender {
    let settings = Settings::from_pairs(settings);
    let http = http_client::outgoing(&settings).unwrap();
    EmailSender::with_timeouts(&settings, &http, timeouts).unwrap()
}

/// The email of the captured requests.
pub(crate) fn ada_email() -> Email {
    Email {
        to: "Ada Lovelace <ada@example.net>".parse().unwrap(),
        subject: "Order ORD-1001 confirmed".to_owned(),
        text: "Your order is confirmed.".to_owned(),
        html: "<p>Your order is <b>confirmed</b>.</p>".to_owned(),
        date: OffsetDateTime::from_unix_timestamp(1_795_376_623).unwrap(),
        key: Uuid::parse_str("8540c0de-899f-5cce-acb5-3ec493af3800").unwrap(),
        order_id: "ORD-1001".to_owned(),
        event_type: "order-confirmation".to_owned(),
    }
}

/// The class of the error, after a check that it tells nothing about Ada.
pub(crate) fn class(error: &EmailError) -> &'static str {
    let printed = format!("{error} {error:?}").to_lowercase();
    for personal in ["ada", "lovelace", "example.net", "secret"] {
        assert!(!printed.contains(personal), "{printed}");
    }
    match error {
        EmailError::Unreachable { .. } => "unreachable",
        EmailError::Unanswered { .. } => "unanswered",
        EmailError::Busy { .. } => "busy",
        EmailError::RateLimited { .. } => "rate-limited",
        EmailError::Unauthorized { .. } => "unauthorized",
        EmailError::Deferred { .. } => "deferred",
        EmailError::KnownOtherwise { .. } => "known otherwise",
        EmailError::Refused { .. } => "refused",
    }
}
