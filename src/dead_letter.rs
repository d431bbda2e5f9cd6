//! One dead letter: what an operator sees of it, and whether a filter means it.
//!
//! Pure: it is read from the headers of an answer of Service Bus, and the time is an argument. Anyone with Send rights
//! may have written it, so every property may be missing, or of another type than ours.

use std::{
    collections::BTreeMap,
    time::{Duration, SystemTime},
};

use reqwest::header::HeaderMap;
use serde_json::{Map, Value};
use time::{OffsetDateTime, format_description::well_known::Rfc3339};

use crate::{properties, redelivery::Audience};

/// Which dead letters are meant; what is not set means all.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Filter {
    /// Says which queues are looked at; [`Filter::matches`] is about what is in them.
    pub audience: Option<Audience>,
    pub reason: Option<String>,
    pub vendor: Option<String>,
    pub older_than: Option<Duration>,
    pub newer_than: Option<Duration>,
}

impl Filter {
    pub fn matches(&self, dead_letter: &DeadLetter, now: SystemTime) -> bool {
        let age = dead_letter.age(now);
        let is = |wanted: &Option<String>, same: &dyn Fn(&str) -> bool| {
            wanted.as_deref().is_none_or(same)
        };
        is(&self.reason, &|wanted| {
            let reason = dead_letter.reason();
            reason.is_some_and(|reason| reason.eq_ignore_ascii_case(wanted))
        }) && is(&self.vendor, &|wanted| {
            dead_letter.vendor().as_deref() == Some(wanted)
        }) && self
            .older_than
            .is_none_or(|limit| age.is_some_and(|age| age > limit))
            && self
                .newer_than
                .is_none_or(|limit| age.is_some_and(|age| age < limit))
    }
}

/// What a receiver gets of a message in a dead-letter queue.
#[derive(Clone)]
pub struct DeadLetter {
    pub audience: Audience,
    pub sequence_number: i64,
    /// As the service has them, those included that are of no use here.
    pub broker_properties: Map<String, Value>,
    pub content_type: Option<String>,
    /// Application properties by lower-case name.
    pub properties: BTreeMap<String, Value>,
    /// Nothing if it is longer than what the topic would take.
    pub body: Option<Vec<u8>>,
}

impl DeadLetter {
    /// From the headers of an answer; nothing if they lack what Service Bus gives every message.
    pub fn read(audience: Audience, headers: &HeaderMap, body: Option<Vec<u8>>) -> Option<Self> {
        let broker_properties: Map<String, Value> =
            serde_json::from_slice(headers.get("brokerproperties")?.as_bytes()).ok()?;
        // Filled as in `OrderBook::names`.
        let mut properties = BTreeMap::new();
        let given = headers
            .iter()
            .filter(|(name, _)| !NOT_PROPERTIES.contains(&name.as_str()));
        properties.extend(given.map(|(name, value)| {
            let text = String::from_utf8_lossy(value.as_bytes());
            (name.as_str().to_owned(), property(text.trim()))
        }));
        Some(Self {
            audience,
            sequence_number: whole_number(broker_properties.get("SequenceNumber")?)?,
            content_type: headers
                .get("content-type")
                .and_then(|value| value.to_str().ok())
                .map(str::to_owned),
            broker_properties,
            properties,
            body,
        })
    }

    pub fn message_id(&self) -> &str {
        self.broker_text("MessageId")
    }

    pub fn label(&self) -> &str {
        self.broker_text("Label")
    }

    /// The order's id, unless somebody else sent it.
    pub fn correlation_id(&self) -> &str {
        self.broker_text("CorrelationId")
    }

    pub fn vendor(&self) -> Option<String> {
        self.text(properties::VENDOR)
    }

    /// Ours if the handler gave it up, or else the broker's.
    pub fn reason(&self) -> Option<String> {
        self.text(properties::DEAD_LETTER_REASON)
            .or_else(|| self.text(properties::NATIVE_REASON))
    }

    /// What is known of the last failure, in words.
    pub fn error(&self) -> Option<String> {
        [
            properties::LAST_ERROR,
            properties::DEAD_LETTER_DESCRIPTION,
            properties::NATIVE_DESCRIPTION,
        ]
        .into_iter()
        .find_map(|name| self.text(name))
    }

    pub fn failures(&self) -> Option<i64> {
        self.property(properties::FAILURES).and_then(whole_number)
    }

    /// When it was given up; the broker only knows when it first got it.
    pub fn time(&self) -> Option<SystemTime> {
        self.property(properties::DEAD_LETTER_TIME)
            .or_else(|| self.broker_properties.get("EnqueuedTimeUtc"))
            .and_then(Value::as_str)
            .and_then(time)
    }

    pub fn age(&self, now: SystemTime) -> Option<Duration> {
        // A clock that is ahead of ours makes it new, not unknown.
        Some(now.duration_since(self.time()?).unwrap_or_default())
    }

    fn broker_text(&self, name: &str) -> &str {
        let value = self.broker_properties.get(name).and_then(Value::as_str);
        value.unwrap_or_default()
    }

    pub(crate) fn property(&self, name: &str) -> Option<&Value> {
        self.properties.get(&name.to_ascii_lowercase())
    }

    /// A property as text, whatever its type; nothing if it is empty.
    pub(crate) fn text(&self, name: &str) -> Option<String> {
        let text = match self.property(name)? {
            Value::String(text) => text.clone(),
            other => other.to_string(),
        };
        (!text.is_empty()).then_some(text)
    }
}

/// Headers of an answer that are HTTP's or the service's own.
const NOT_PROPERTIES: [&str; 12] = [
    "brokerproperties",
    "cache-control",
    "connection",
    "content-length",
    "content-type",
    "date",
    "expires",
    "keep-alive",
    "location",
    "server",
    "strict-transport-security",
    "transfer-encoding",
];

/// A value with the type that its form stands for: text is in quotes, numbers and `true` are bare.
fn property(text: &str) -> Value {
    let quoted = text
        .strip_prefix('"')
        .and_then(|rest| rest.strip_suffix('"'));
    match quoted {
        Some(inner) => Value::String(inner.to_owned()),
        None => serde_json::from_str(text)
            .ok()
            .filter(|value: &Value| value.is_number() || value.is_boolean())
            .unwrap_or_else(|| Value::String(text.to_owned())),
    }
}

/// A whole number, also where a tool made text or a float of it.
pub(crate) fn whole_number(value: &Value) -> Option<i64> {
    match value {
        Value::Number(number) => number.as_i64().or_else(|| {
            let float = number.as_f64()?;
            // Beyond 2^53 a float does not know which whole number it is.
            (float.fract() == 0.0 && float.abs() < 9.0e15).then_some(float as i64)
        }),
        Value::String(text) => text.trim().parse().ok(),
        _ => None,
    }
}

/// RFC 3339, as we write it, or an HTTP date, as the service does.
fn time(text: &str) -> Option<SystemTime> {
    match OffsetDateTime::parse(text, &Rfc3339) {
        Ok(time) => Some(time.into()),
        Err(_) => httpdate::parse_http_date(text).ok(),
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use reqwest::header::{HeaderName, HeaderValue};

    use super::*;

    pub(crate) const BROKER: &str = r#"{"SequenceNumber":17,"MessageId":"o-1:placed","Label":"order.placed","CorrelationId":"o-1",
        "EnqueuedTimeUtc":"Sun, 22 Nov 2026 10:00:00 GMT","DeliveryCount":10}"#;

    pub(crate) fn dead_letter(
        broker: &str,
        headers: &[(&'static str, &str)],
        body: &[u8],
    ) -> DeadLetter {
        let mut map = HeaderMap::new();
        map.insert(
            "brokerproperties",
            HeaderValue::from_str(&broker.replace('\n', " ")).unwrap(),
        );
        for (name, value) in headers {
            map.insert(
                HeaderName::from_static(name),
                HeaderValue::from_bytes(value.as_bytes()).unwrap(),
            );
        }
        DeadLetter::read(Audience::Vendors, &map, Some(body.to_vec())).unwrap()
    }

    pub(crate) fn with(headers: &[(&'static str, &str)]) -> DeadLetter {
        dead_letter(BROKER, headers, b"{}")
    }

    fn at(text: &str) -> SystemTime {
        OffsetDateTime::parse(text, &Rfc3339).unwrap().into()
    }

    #[test]
    fn headers_become_properties_of_their_type() {
        let dead_letter = with(&[
            ("date", "Sun, 22 Nov 2026 10:00:00 GMT"),
            ("content-type", "application/json"),
            ("deadletterreason", "\"MaxDeliveryCountExceeded\""),
            ("failures", "3"),
            ("vip", "true"),
            ("odd", "null"),
            ("city", "\"Zürich \"x\"\""),
        ]);
        assert_eq!(dead_letter.sequence_number, 17);
        assert_eq!(
            dead_letter.content_type.as_deref(),
            Some("application/json")
        );
        let properties: Vec<String> = dead_letter
            .properties
            .iter()
            .map(|(name, value)| format!("{name}={value}"))
            .collect();
        assert_eq!(
            properties,
            [
                r#"city="Zürich \"x\"""#,
                r#"deadletterreason="MaxDeliveryCountExceeded""#,
                "failures=3",
                r#"odd="null""#,
                "vip=true"
            ]
        );
    }

    #[test]
    fn an_answer_without_a_sequence_number_is_no_message() {
        for broker in ["{}", "[]", "", r#"{"SequenceNumber":"x"}"#] {
            let mut headers = HeaderMap::new();
            headers.insert("brokerproperties", HeaderValue::from_str(broker).unwrap());
            assert!(DeadLetter::read(Audience::Vendors, &headers, None).is_none());
        }
        assert!(DeadLetter::read(Audience::Vendors, &HeaderMap::new(), None).is_none());
    }

    #[test]
    fn our_own_reason_and_time_go_before_the_brokers() {
        let now = at("2026-11-22T12:00:00Z");
        let native = with(&[("deadletterreason", "\"MaxDeliveryCountExceeded\"")]);
        assert_eq!(native.reason().as_deref(), Some("MaxDeliveryCountExceeded"));
        assert_eq!(native.age(now), Some(Duration::from_secs(7200)));
        let ours = with(&[
            ("deadletterreason", "\"MaxDeliveryCountExceeded\""),
            ("dead-letter-reason", "\"rejected\""),
            ("dead-letter-time", "\"2026-11-22T12:30:00+01:00\""),
        ]);
        assert_eq!(ours.reason().as_deref(), Some("rejected"));
        assert_eq!(ours.age(now), Some(Duration::from_secs(1800)));
        assert_eq!(ours.age(at("2026-11-22T11:00:00Z")), Some(Duration::ZERO));
    }

    #[test]
    fn a_filter_means_what_has_all_that_it_names() {
        let now = at("2026-11-22T12:00:00Z");
        let dead_letter = with(&[
            ("deadletterreason", "\"Rejected\""),
            ("vendor", "\"bakery\""),
        ]);
        let hours = |hours: u64| Some(Duration::from_secs(hours * 3600));
        let all = Filter::default();
        for (filter, matches) in [
            (all.clone(), true),
            (
                Filter {
                    reason: Some("rejected".to_owned()),
                    ..all.clone()
                },
                true,
            ),
            (
                Filter {
                    reason: Some("reject".to_owned()),
                    ..all.clone()
                },
                false,
            ),
            (
                Filter {
                    vendor: Some("bakery".to_owned()),
                    ..all.clone()
                },
                true,
            ),
            (
                Filter {
                    vendor: Some("Bakery".to_owned()),
                    ..all.clone()
                },
                false,
            ),
            (
                Filter {
                    older_than: hours(1),
                    ..all.clone()
                },
                true,
            ),
            (
                Filter {
                    older_than: hours(2),
                    ..all.clone()
                },
                false,
            ),
            (
                Filter {
                    newer_than: hours(3),
                    ..all.clone()
                },
                true,
            ),
            (
                Filter {
                    newer_than: hours(2),
                    ..all.clone()
                },
                false,
            ),
            (
                Filter {
                    reason: Some("rejected".to_owned()),
                    older_than: hours(9),
                    ..all.clone()
                },
                false,
            ),
        ] {
            assert_eq!(filter.matches(&dead_letter, now), matches, "{filter:?}");
        }
        // A first copy is for all vendors, and nothing is known about the time of this one.
        let bare = super::tests::dead_letter(r#"{"SequenceNumber":1}"#, &[], b"");
        for filter in [
            Filter {
                vendor: Some("bakery".to_owned()),
                ..all.clone()
            },
            Filter {
                reason: Some("rejected".to_owned()),
                ..all.clone()
            },
            Filter {
                older_than: hours(0),
                ..all.clone()
            },
            Filter {
                newer_than: hours(99),
                ..all.clone()
            },
        ] {
            assert!(!filter.matches(&bare, now), "{filter:?}");
        }
    }
}
