//! The way out: every message of the handler goes to one topic, and from there to whoever is meant.
//!
//! [`OrdersTopic::publish`] answers once the broker has stored the message, and not before. This is the only file
//! that knows the Service Bus crate, and it lets nothing reach the crate that the crate would panic over, send as
//! something else, or overwrite a header with.

use std::borrow::Cow;
use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;
use std::time::Instant;

use azure_messaging_servicebus::service_bus::{
    SendMessageOptions, SettableBrokerProperties, TopicClient, TopicSender,
};
use time::{OffsetDateTime, UtcOffset};

use crate::connection::TopicSettings;
use crate::data_plane::{Authorization, DataPlane, SendLimits};
use crate::metrics::{self, Figure};

pub use crate::publish_error::PublishError;

/// Service Bus's limit for `MessageId`, in characters.
const LONGEST_MESSAGE_ID: usize = 128;

/// For `BrokerProperties` and all properties together. The service's web server takes about 16 KB of headers, of
/// which an Entra token may be more than half (Azure/azure-service-bus#746).
const LONGEST_HEADERS: usize = 6 * 1024;

/// The crate insists on a key and signs with it; [`DataPlane`] throws the signature away.
const NO_KEY: &str = "none";

/// The crate wants the first label of a host name; [`DataPlane`] replaces the host.
const NO_NAMESPACE: &str = "namespace";

/// One message for the topic.
#[derive(Clone)]
pub struct Outgoing {
    /// Deterministic, 1 to 128 characters: it is how the topic knows a message that it already has.
    pub message_id: String,
    /// The event's type; a receiver sees it as the subject.
    pub label: String,
    /// The order's id.
    pub correlation_id: String,
    pub content_type: Cow<'static, str>,
    pub body: String,
    /// Not before this time, which is rounded up to a second; at once without it.
    pub scheduled_enqueue_time: Option<OffsetDateTime>,
    /// Application properties. A name is lower-case ASCII letters, digits, `-` and `_`, begins with a letter, and is no
    /// header that HTTP already knows.
    pub properties: Vec<(String, PropertyValue)>,
}

impl Outgoing {
    /// What [`OrdersTopic::publish`] would say before it sends anything.
    ///
    /// # Errors
    /// [`PublishError::Unsendable`]
    pub fn check(&self) -> Result<(), PublishError> {
        options(self).map_err(PublishError::Unsendable).map(|_| ())
    }
}

/// Body and properties stay out of what is printed: they hold personal data.
impl fmt::Debug for Outgoing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Outgoing")
            .field("message_id", &self.message_id)
            .field("label", &self.label)
            .field("scheduled_enqueue_time", &self.scheduled_enqueue_time)
            .finish_non_exhaustive()
    }
}

/// The value of an application property, with the type that a receiver sees.
///
/// Over REST the service infers the type from the header's form: text is what stands in double quotes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PropertyValue {
    /// Printable ASCII without `"` and `\`. Other text is refused, not escaped, because the service is not known to
    /// give an escaped character back (Azure/azure-sdk-for-node#1422); it belongs into the body. Text
    /// that reads as an HTTP date is refused too: it would arrive as a date.
    Text(String),
    Integer(i64),
}

/// The topic `orders`. Clones share one client, one pool of connections and one token.
#[derive(Clone)]
pub struct OrdersTopic {
    sender: Arc<TopicSender>,
    name: Arc<str>,
    host: Arc<str>,
}

impl OrdersTopic {
    /// No I/O: the first connection is made by the first message.
    pub fn new(settings: &TopicSettings, client: &reqwest::Client) -> Self {
        Self::with_limits(settings, client, SendLimits::default())
    }

    /// The same with other times.
    pub fn with_limits(
        settings: &TopicSettings,
        client: &reqwest::Client,
        limits: SendLimits,
    ) -> Self {
        let authorization = Authorization::new(settings, &settings.topic, client);
        let data_plane = DataPlane::new(settings.base_url.clone(), authorization, client, limits);
        let topic = TopicClient::new(
            Arc::new(data_plane),
            NO_NAMESPACE,
            settings.topic.clone(),
            NO_KEY,
            NO_KEY,
        )
        .expect("version 0.21.0 of the crate only stores what it is given");
        Self {
            sender: Arc::new(topic.topic_sender()),
            name: settings.topic.as_str().into(),
            host: settings.base_url.host_str().unwrap_or_default().into(),
        }
    }

    /// As `ORDERS_TOPIC` has it.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Of the namespace.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// Answers once the broker has the message. It may have it after an error too: [`PublishError::Unanswered`].
    ///
    /// Takes at most [`SendLimits::total`]. Dropping the future, or the end of the process, at any time leaves the
    /// message stored or not stored, never half of it; publishing it again with the same `message_id` is safe within
    /// the topic's duplicate detection window.
    ///
    /// # Errors
    /// See [`PublishError`].
    pub async fn publish(&self, message: &Outgoing) -> Result<(), PublishError> {
        let options = options(message).map_err(PublishError::Unsendable)?;
        let started = Instant::now();
        let sent = self.sender.send_message(&message.body, Some(options)).await;
        let sent = sent.map_err(|error| match error.into_downcast::<PublishError>() {
            Ok(error) => error,
            // Not sent: the crate failed before it asked its client.
            Err(error) => PublishError::Unsendable(error.to_string()),
        });
        let result = sent.as_ref().map_or_else(PublishError::name, |()| "ok");
        metrics::observe(
            Figure::BusSendDuration,
            started.elapsed(),
            &[("result", result)],
        );
        sent
    }
}

impl fmt::Debug for OrdersTopic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OrdersTopic").finish_non_exhaustive()
    }
}

/// The message as the crate takes it, or what is wrong with it.
fn options(message: &Outgoing) -> Result<SendMessageOptions, String> {
    let characters = message.message_id.chars().count();
    if characters == 0 || characters > LONGEST_MESSAGE_ID {
        return Err(format!(
            "MessageId has {characters} characters, not 1 to {LONGEST_MESSAGE_ID}"
        ));
    }
    for (name, value) in [
        ("MessageId", &message.message_id),
        ("Label", &message.label),
        ("CorrelationId", &message.correlation_id),
    ] {
        if value.chars().any(char::is_control) {
            return Err(format!("{name} has a control character"));
        }
    }
    let mut length = message.message_id.len() + message.label.len() + message.correlation_id.len();
    let mut properties = HashMap::new();
    for (name, value) in &message.properties {
        check_name(name)?;
        let value = match value {
            PropertyValue::Text(text) => quoted(name, text)?,
            PropertyValue::Integer(integer) => integer.to_string(),
        };
        length += name.len() + value.len();
        if properties.insert(name.clone(), value).is_some() {
            return Err(format!("the property {name} is there twice"));
        }
    }
    if length > LONGEST_HEADERS {
        return Err(format!(
            "ids and properties have {length} bytes, more than {LONGEST_HEADERS}"
        ));
    }
    Ok(SendMessageOptions {
        content_type: Some(message.content_type.clone().into_owned()),
        broker_properties: Some(SettableBrokerProperties {
            message_id: Some(message.message_id.clone()),
            label: Some(message.label.clone()),
            correlation_id: Some(message.correlation_id.clone()),
            scheduled_enqueue_time_utc: message.scheduled_enqueue_time.map(in_utc).transpose()?,
            ..SettableBrokerProperties::default()
        }),
        custom_properties: (!properties.is_empty()).then_some(properties),
    })
}

/// The crate panics over a year below 1900 and an offset with seconds, and cuts off a fraction of a second.
fn in_utc(time: OffsetDateTime) -> Result<OffsetDateTime, String> {
    time.checked_to_offset(UtcOffset::UTC)
        .and_then(|time| match time.nanosecond() {
            0 => Some(time),
            nanosecond => time.checked_add(time::Duration::nanoseconds(
                1_000_000_000 - i64::from(nanosecond),
            )),
        })
        .filter(|time| (1970..=9999).contains(&time.year()))
        .ok_or_else(|| "the scheduled time is not between 1970 and 9999".to_owned())
}

/// A property travels as a header of its name. The crate lower-cases it, panics if that is not possible, and lets
/// it overwrite a header of the request; the service drops the names of HTTP's own headers.
fn check_name(name: &str) -> Result<(), String> {
    let is_name = name.starts_with(|c: char| c.is_ascii_lowercase())
        && name
            .bytes()
            .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'-' | b'_'));
    if !is_name {
        return Err(format!("{name:?} is not the name of a property"));
    }
    let is_header = name
        .split('-')
        .next()
        .is_some_and(|family| HEADER_FAMILIES.contains(&family) && name.contains('-'))
        || HEADERS.contains(&name);
    if is_header {
        return Err(format!("{name} is a header of HTTP, not a property"));
    }
    Ok(())
}

/// As in `content-type`.
const HEADER_FAMILIES: [&str; 6] = ["accept", "content", "if", "max", "proxy", "x"];

/// The request headers of HTTP, those of .NET's and Windows' restricted lists, and the crate's own.
const HEADERS: [&str; 30] = [
    "accept",
    "allow",
    "authorization",
    "brokerproperties",
    "cache-control",
    "connection",
    "cookie",
    "cookie2",
    "date",
    "etag",
    "expect",
    "expires",
    "forwarded",
    "from",
    "host",
    "keep-alive",
    "last-modified",
    "location",
    "origin",
    "pragma",
    "range",
    "referer",
    "te",
    "trailer",
    "transfer-encoding",
    "translate",
    "upgrade",
    "user-agent",
    "via",
    "warning",
];

fn quoted(name: &str, text: &str) -> Result<String, String> {
    let is_plain = text
        .bytes()
        .all(|b| matches!(b, b' '..=b'~') && !matches!(b, b'"' | b'\\'));
    if !is_plain {
        return Err(format!(
            "the property {name} has a character that does not survive a header"
        ));
    }
    if httpdate::parse_http_date(text).is_ok() {
        return Err(format!("the property {name} would arrive as a date"));
    }
    Ok(format!("\"{text}\""))
}

#[cfg(test)]
mod tests {
    use time::macros::datetime;

    use super::*;

    fn message() -> Outgoing {
        Outgoing {
            message_id: "o-1:placed".to_owned(),
            label: "order.placed".to_owned(),
            correlation_id: "o-1".to_owned(),
            content_type: "application/cloudevents+json".into(),
            body: "{}".to_owned(),
            scheduled_enqueue_time: None,
            properties: vec![],
        }
    }

    fn with_property(name: &str, value: PropertyValue) -> Result<SendMessageOptions, String> {
        options(&Outgoing {
            properties: vec![(name.to_owned(), value)],
            ..message()
        })
    }

    fn text(text: &str) -> PropertyValue {
        PropertyValue::Text(text.to_owned())
    }

    #[test]
    fn text_is_quoted_and_a_number_is_not() {
        let options = options(&Outgoing {
            properties: vec![
                ("audience".to_owned(), text("vendors")),
                ("generation".to_owned(), PropertyValue::Integer(-3)),
                ("first-seen".to_owned(), text("2026-11-22T10:00:00Z")),
            ],
            ..message()
        })
        .unwrap();
        let properties = options.custom_properties.unwrap();
        assert_eq!(properties["audience"], "\"vendors\"");
        assert_eq!(properties["generation"], "-3");
        assert_eq!(properties["first-seen"], "\"2026-11-22T10:00:00Z\"");
    }

    #[test]
    fn text_that_would_arrive_as_something_else_is_refused() {
        for value in [
            "say \"hi\"",
            "back\\slash",
            "Zürich",
            "台北",
            "line\nbreak",
            "tab\t",
            "\u{7f}",
            "Sun, 06 Nov 1994 08:49:37 GMT",
        ] {
            let error = with_property("city", text(value)).unwrap_err();
            assert!(error.contains("city") && !error.contains(value), "{error}");
        }
        assert!(with_property("empty", text("")).is_ok());
    }

    #[test]
    fn a_name_that_the_crate_panics_over_or_a_header_has_is_refused() {
        for name in [
            "",
            "注文",
            "größe",
            "OrderId",
            "order id",
            "order:id",
            "order.id",
            "1st",
            "-x",
            "_x",
            "a\r\nb",
            "authorization",
            "brokerproperties",
            "content-type",
            "content-length",
            "host",
            "connection",
            "expect",
            "user-agent",
            "x-ms-retrypolicy",
            "transfer-encoding",
            "proxy-authorization",
            "if-match",
        ] {
            assert!(with_property(name, text("v")).is_err(), "{name}");
        }
        for name in [
            "audience",
            "first-seen",
            "last-error",
            "dead-letter-reason",
            "traceparent",
            "diagnostic-id",
            "vendor_2",
        ] {
            assert!(with_property(name, text("v")).is_ok(), "{name}");
        }
    }

    #[test]
    fn a_property_is_there_once() {
        let twice = Outgoing {
            properties: vec![
                ("vendor".to_owned(), text("a")),
                ("vendor".to_owned(), text("b")),
            ],
            ..message()
        };
        assert!(options(&twice).unwrap_err().contains("twice"));
    }

    #[test]
    fn ids_have_their_limits() {
        for id in ["", &"x".repeat(129), "a\nb"] {
            let message = Outgoing {
                message_id: id.to_owned(),
                ..message()
            };
            assert!(options(&message).unwrap_err().contains("MessageId"));
        }
        let longest = Outgoing {
            message_id: "é".repeat(128),
            ..message()
        };
        assert!(options(&longest).is_ok());
    }

    #[test]
    fn headers_stay_below_what_the_service_takes() {
        let error = with_property("last-error", text(&"x".repeat(7000))).unwrap_err();
        assert!(error.contains("more than 6144"), "{error}");
    }

    #[test]
    fn a_scheduled_time_is_in_utc_and_in_a_year_that_the_crate_can_write() {
        let scheduled = |time| {
            options(&Outgoing {
                scheduled_enqueue_time: Some(time),
                ..message()
            })
            .map(|options| {
                options
                    .broker_properties
                    .unwrap()
                    .scheduled_enqueue_time_utc
                    .unwrap()
            })
        };
        let time = scheduled(datetime!(2026-12-24 19:00:05 +02:00:30)).unwrap();
        assert_eq!(time.offset(), UtcOffset::UTC);
        assert_eq!(time, datetime!(2026-12-24 16:59:35 UTC));
        let time = scheduled(datetime!(2026-12-24 16:59:35.001 UTC)).unwrap();
        assert_eq!(time, datetime!(2026-12-24 16:59:36 UTC));
        assert!(scheduled(datetime!(1899-01-01 0:00 UTC)).is_err());
        assert!(scheduled(datetime!(9999-12-31 23:59 -12)).is_err());
    }

    #[test]
    fn the_body_is_not_printed() {
        let message = Outgoing {
            body: "ada@example.net".to_owned(),
            ..message()
        };
        assert!(!format!("{message:?}").contains("ada"));
    }
}
