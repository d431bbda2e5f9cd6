//! What the emulator's private parsers must keep to, whatever they are given: the targets of `fuzz/`.
//!
//! Only the feature `fuzzing` opens this module, and no build of the emulator has it. Each function takes any bytes, and
//! panics if what was promised does not hold. The types that it needs are nobody else's, and so it stands here.

use std::time::Duration;

use axum::http::{HeaderMap, HeaderName, HeaderValue};
use jiff::Timestamp;
use uuid::Uuid;

pub use crate::amqp::fuzzing::{
    frames as amqp_frames, messages as amqp_messages, values as amqp_values,
};
use crate::{
    EntityPath, Limits, Message, MessageState, ReceivedMessage, Topology, Value, atom_entries,
    atom_request, batch, broker_properties, custom_properties,
    description::{Counts, Described, Description, Listed},
    iso_8601,
    rest::SharedAccessPolicy,
    sas,
    sql::{Action, Predicate, SqlFilter},
    sql_parser::parse_filter,
};

/// A filter, and an action: what is parsed can be evaluated for any message, and the same text says the same again.
///
/// The first line is a filter, the rest an action.
pub fn sql(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else {
        return;
    };
    let (filter, action) = text.split_once('\n').unwrap_or((text, text));
    if let Ok(predicate) = parse_filter(filter) {
        check_filter(filter, &predicate);
    }
    let Ok(action) = Action::try_from(action.to_owned()) else {
        return;
    };
    let again = Action::try_from(String::from(action.clone()));
    assert_eq!(again.as_ref(), Ok(&action));
    for mut message in messages() {
        let body = message.body.clone();
        let scheduled = message.scheduled_enqueue_time;
        action.apply(&mut message);
        action.apply(&mut message);
        assert_eq!(message.body, body);
        assert_eq!(message.scheduled_enqueue_time, scheduled);
    }
}

fn check_filter(text: &str, predicate: &Predicate) {
    let stored = SqlFilter::try_from(text.to_owned()).expect("it has been parsed before");
    assert_eq!(stored.text(), text);
    assert_eq!(stored.predicate, *predicate);
    // Another id at each time may be like a pattern once, and not again.
    if text.to_ascii_lowercase().contains("newid") {
        for message in messages() {
            predicate.evaluate(&message);
        }
        return;
    }
    // Between parentheses it may be nested too deeply, or too long.
    let not = parse_filter(&format!("NOT ({text})")).ok();
    let or = parse_filter(&format!("({text}) OR ({text})")).ok();
    for message in messages() {
        let value = predicate.evaluate(&message);
        assert_eq!(value, predicate.evaluate(&message));
        if let Some(not) = &not {
            assert_eq!(not.evaluate(&message), value.map(|value| !value));
        }
        if let Some(or) = &or {
            assert_eq!(or.evaluate(&message), value);
        }
    }
}

/// Messages with every type of property.
fn messages() -> Vec<Message> {
    let properties = [
        ("audience", Value::String("vendors".to_owned())),
        ("generation", Value::Long(i64::MIN)),
        ("failures", Value::Int(-1)),
        ("price", Value::Double(-0.5)),
        ("nan", Value::Float(f32::NAN)),
        ("late", Value::Bool(true)),
        ("at", Value::Timestamp(Timestamp::UNIX_EPOCH)),
        ("big", Value::ULong(u64::MAX)),
        ("id", Value::Uuid(Uuid::from_u128(7))),
        ("nothing", Value::Null),
        ("bytes", Value::Binary(vec![0, 255].into())),
    ];
    let full = Message {
        label: Some("order.placed".to_owned()),
        message_id: Some("7:placed".to_owned()),
        correlation_id: Some("7".to_owned()),
        scheduled_enqueue_time: Some(Timestamp::UNIX_EPOCH),
        properties: properties
            .map(|(name, value)| (name.to_owned(), value))
            .into(),
        ..Message::default()
    };
    vec![Message::default(), full]
}

/// Headers and batches of the REST data plane: what is read of them is written so that it is read again. The last line is
/// an `Authorization`, which no key has signed.
///
/// The first line is `BrokerProperties`, then headers; a text that begins with `[` is a batch.
pub fn rest(data: &[u8]) {
    if let Ok(messages) = batch::read(data) {
        assert!(!messages.is_empty());
        messages.iter().for_each(check_sent);
    }
    let Ok(text) = std::str::from_utf8(data) else {
        return;
    };
    let mut lines = text.lines();
    let mut message = Message::default();
    if broker_properties::read_header(lines.next().unwrap_or_default(), &mut message).is_err() {
        message = Message::default();
    }
    let mut headers = HeaderMap::new();
    for line in lines {
        if let Some((name, value)) = line.split_once(':')
            && let Ok(name) = HeaderName::from_bytes(name.as_bytes())
            && let Ok(value) = HeaderValue::from_str(value)
        {
            headers.append(name, value);
        }
    }
    if let Ok(properties) = custom_properties::read(&headers) {
        message.properties = properties;
    }
    check_sent(&message);

    let last = text.lines().last().unwrap_or_default();
    if let Ok(path) = last.parse::<EntityPath>() {
        assert_eq!(path.to_string().parse(), Ok(path));
    }
    let policy = SharedAccessPolicy {
        name: "RootManageSharedAccessKey".to_owned(),
        key: Uuid::from_u128(0x1fb1_9f5c_2d5b_4c0f_8a3c_5c1d_6c7e_8f90).to_string(),
    };
    let path = sas::segments(last);
    assert!(sas::verify(Some(last), &path, &policy, Timestamp::UNIX_EPOCH).is_err());
    if let Some(audience) = sas::audience_path(last) {
        assert!(audience.iter().all(|segment| !segment.is_empty()));
    }
}

fn check_sent(message: &Message) {
    let _ = message.check();
    let size = message.size();
    assert!(size >= message.body.bytes().len());
    let received = received(message.clone());
    let header = broker_properties::write(&received);
    assert!(HeaderValue::from_str(&header).is_ok() && header.is_ascii());
    let mut again = Message::default();
    // The one value that is written in a form of its own: a life of less than a tick is none.
    if broker_properties::read_header(&header, &mut again).is_ok() {
        assert_eq!(again.message_id, message.message_id);
        assert_eq!(again.session_id, message.session_id);
        assert_eq!(again.label, message.label);
        assert_eq!(again.to, message.to);
    } else {
        assert!(
            message
                .time_to_live
                .is_some_and(|life| life < Duration::from_nanos(100))
        );
    }
    let write = |message: &Message| {
        let mut headers = HeaderMap::new();
        custom_properties::write(&message.properties, &mut headers);
        headers
    };
    let headers = write(message);
    again.properties = custom_properties::read(&headers).expect("what is written can be read");
    assert_eq!(write(&again), headers);
}

pub(crate) fn received(message: Message) -> ReceivedMessage {
    ReceivedMessage {
        message,
        sequence_number: 7,
        enqueued_sequence_number: 7,
        enqueued_time: Timestamp::UNIX_EPOCH,
        expires_at: None,
        delivery_count: 1,
        lock_token: None,
        locked_until: None,
        state: MessageState::Active,
        dead_letter_source: None,
    }
}

/// Requests of the management API: an entity that is taken is shown so that it is taken again, and the same.
pub fn atom(data: &[u8]) {
    let Ok(body) = std::str::from_utf8(data) else {
        return;
    };
    let read = |body: &str, is_subscription| {
        if is_subscription {
            atom_request::subscription(body, "orders", "vendors")
        } else {
            atom_request::queue_or_topic(body, "orders")
        }
    };
    for is_subscription in [false, true] {
        if let Ok(description) = read(body, is_subscription) {
            let shown = shown(description);
            let again = read(&shown, is_subscription).expect("what is shown can be read");
            // Times are shown to a tenth of a microsecond, and lines end as XML has it.
            let once_more = read(&self::shown(again.clone()), is_subscription);
            assert_eq!(once_more.expect("as before"), again);
        }
    }
    if let Ok(rule) = atom_request::rule(body, "vendors") {
        let shown = |rule| atom_entries::rule(&place(), "orders/Subscriptions/vendors", rule);
        let again = atom_request::rule(&shown(&rule), "vendors");
        let again = again.expect("what is shown can be read");
        let once_more = atom_request::rule(&shown(&again), "vendors").expect("as before");
        assert_eq!(once_more.filter.expression(), again.filter.expression());
        assert_eq!(once_more.action, again.action);
        for mut message in messages() {
            if rule.matches(&message) {
                rule.apply(&mut message);
            }
        }
    }
}

fn place() -> atom_entries::Place {
    atom_entries::Place {
        host: "localhost:5300".to_owned(),
        limits: Limits::default(),
    }
}

fn shown(description: Description) -> String {
    let at = Timestamp::UNIX_EPOCH;
    let described = Described {
        listed: Listed {
            description,
            created_at: at,
            updated_at: at,
            accessed_at: at,
        },
        counts: Counts::default(),
    };
    atom_entries::entity(&place(), &described)
}

/// A topology file: what is taken can be served, and its durations are written as they are read.
pub fn topology(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else {
        return;
    };
    // The longest that is read back: what is longer no entity takes.
    let longest = Duration::from_secs(7_000_000 * 86_400);
    if let Some(duration) = iso_8601::read(text).filter(|duration| *duration < longest) {
        let written = iso_8601::write(duration);
        let again = iso_8601::read(&written).expect("what is written can be read");
        assert_eq!(iso_8601::write(again), written);
        assert!(duration - again < Duration::from_nanos(100));
    }
    let Ok(topology) = Topology::parse(text, "servicebus.json") else {
        return;
    };
    for subscription in topology
        .topics
        .iter()
        .flat_map(|topic| &topic.subscriptions)
    {
        assert!(!subscription.rules.is_empty());
        for rule in &subscription.rules {
            for mut message in messages() {
                if rule.matches(&message) {
                    rule.apply(&mut message);
                }
            }
        }
    }
}
