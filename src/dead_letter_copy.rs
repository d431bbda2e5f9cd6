//! The copy of a dead letter that is sent again.
//!
//! It is marked as a replay as Service Bus marks dead letters, by `DeadLetterReason`: the handler then counts it as new,
//! asks whoever can be asked whether it is there already, and names its copies anew. What other messages and receivers
//! know it by stays: order, vendor, generation and trace. All else is left out.
//!
//! Its `MessageId` is made of queue, sequence number and id of the dead letter, and of nothing else. If the process
//! ends after the broker took the copy and before the dead letter was removed, the next run within ten minutes sends
//! the same id, and the topic's duplicate detection drops the second copy. A copy that dies in its turn has another
//! sequence number, and so a new id: it can be replayed at once.

use time::{OffsetDateTime, format_description::well_known::Rfc3339};
use uuid::Uuid;

use crate::{
    dead_letter::DeadLetter,
    event,
    orders_topic::{Outgoing, PropertyValue},
    place_order::is_vendor_id,
    properties, trace,
};

/// Namespace of the ids of copies; drawn at random.
const REPLAYS: Uuid = Uuid::from_u128(0x5b1c_2f0e_9a43_4d7e_8f65_21c7_d0e9_4ab6);

/// [`properties::NATIVE_REASON`] as a property of ours can be called.
const IS_REPLAY: &str = "deadletterreason";

/// Longer ones than ours would only take room from what has to be sent.
const LONGEST_KEPT: usize = 128;

/// The service takes an array of messages under this media type, wherever each of them may lead.
const BATCH: &str = "application/vnd.microsoft.servicebus.json";

/// Why no copy can be made: the dead letter stays.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NotReplayable {
    #[error("not text")]
    NotText,
    #[error("too large")]
    TooLarge,
    #[error("its media type is that of a batch of messages")]
    Batch,
    /// Without the property it would reach all vendors of the order instead of none.
    #[error("its property `vendor` is no vendor's id")]
    NoVendor,
}

/// The message for the topic; `entity` is the queue or subscription that the dead letter is of.
///
/// # Errors
/// If its body is not what the topic could get from us.
pub fn copy(dead_letter: &DeadLetter, entity: &str) -> Result<Outgoing, NotReplayable> {
    let body = dead_letter.body.as_deref().ok_or(NotReplayable::TooLarge)?;
    let body = std::str::from_utf8(body).map_err(|_| NotReplayable::NotText)?;
    if dead_letter.content_type.as_deref().is_some_and(is_batch) {
        return Err(NotReplayable::Batch);
    }
    let text = |name: &str, value: String| (name.to_owned(), PropertyValue::Text(value));
    let reason = dead_letter.reason().and_then(sendable);
    let mut kept = vec![
        text(properties::AUDIENCE, dead_letter.audience.name().to_owned()),
        text(IS_REPLAY, reason.unwrap_or_else(|| "unknown".to_owned())),
    ];
    let generation = dead_letter.property(properties::GENERATION);
    kept.extend(generation.and_then(properties::count).map(|generation| {
        let generation = PropertyValue::Integer(generation.into());
        (properties::GENERATION.to_owned(), generation)
    }));
    if dead_letter.property(properties::VENDOR).is_some() {
        let vendor = dead_letter.vendor().filter(|vendor| is_vendor_id(vendor));
        let vendor = vendor.ok_or(NotReplayable::NoVendor)?;
        kept.push(text(properties::VENDOR, vendor));
    }
    for name in [
        properties::UNCONFIRMED_SINCE,
        properties::TRACEPARENT,
        properties::DIAGNOSTIC_ID,
        properties::REPEATS,
    ] {
        let value = dead_letter.text(name).and_then(sendable);
        kept.extend(value.map(|value| text(name, value)));
    }
    // It may be longer than anything else that is kept.
    let state = dead_letter.text(properties::TRACESTATE);
    let state = state.and_then(|state| trace::state(&state));
    kept.extend(state.map(|state| text(properties::TRACESTATE, state)));
    Ok(Outgoing {
        message_id: copy_id(dead_letter, entity),
        label: dead_letter.label().to_owned(),
        correlation_id: dead_letter.correlation_id().to_owned(),
        content_type: match &dead_letter.content_type {
            Some(content_type) => content_type.clone().into(),
            None => event::CONTENT_TYPE.into(),
        },
        body: body.to_owned(),
        scheduled_enqueue_time: None,
        properties: kept,
    })
}

/// See above: the same dead letter always gives the same id.
fn copy_id(dead_letter: &DeadLetter, entity: &str) -> String {
    let entity = entity.to_ascii_lowercase();
    let name = format!(
        "{entity}\n{}\n{}",
        dead_letter.sequence_number,
        dead_letter.message_id()
    );
    format!("replay:{}", Uuid::new_v5(&REPLAYS, name.as_bytes()))
}

/// The text if it survives a header; a date as we write it, for the service would make its own type of it.
fn sendable(text: String) -> Option<String> {
    if let Ok(date) = httpdate::parse_http_date(&text) {
        return OffsetDateTime::from(date).format(&Rfc3339).ok();
    }
    let is_plain = text
        .bytes()
        .all(|byte| matches!(byte, b' '..=b'~') && !matches!(byte, b'"' | b'\\'));
    (is_plain && text.len() <= LONGEST_KEPT).then_some(text)
}

fn is_batch(content_type: &str) -> bool {
    let media_type = content_type.split(';').next().unwrap_or_default();
    media_type.trim().eq_ignore_ascii_case(BATCH)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dead_letter::tests::{BROKER, dead_letter, with};

    const ENTITY: &str = "orders/subscriptions/vendors";

    fn kept(headers: &[(&'static str, &str)]) -> Vec<(String, PropertyValue)> {
        copy(&with(headers), ENTITY).unwrap().properties
    }

    fn text(name: &str, value: &str) -> (String, PropertyValue) {
        (name.to_owned(), PropertyValue::Text(value.to_owned()))
    }

    #[test]
    fn a_copy_is_the_same_message_for_the_same_audience() {
        let body = r#"{"name":"Zoë"}"#;
        let headers = [
            ("content-type", "application/cloudevents+json"),
            ("vendor", "\"bakery\""),
            ("audience", "\"customers\""),
        ];
        let copy = copy(&dead_letter(BROKER, &headers, body.as_bytes()), ENTITY).unwrap();
        assert_eq!(copy.body, body);
        assert_eq!(copy.content_type, "application/cloudevents+json");
        assert_eq!(copy.label, "order.placed");
        assert_eq!(copy.correlation_id, "o-1");
        assert_eq!(copy.scheduled_enqueue_time, None);
        assert_eq!(
            copy.properties,
            [
                text("audience", "vendors"),
                text("deadletterreason", "unknown"),
                text("vendor", "bakery"),
            ]
        );
    }

    #[test]
    fn a_copy_keeps_what_others_know_it_by_and_its_reason_as_a_mark() {
        let properties = kept(&[
            ("failures", "9"),
            ("held-seconds", "9"),
            ("first-seen", "\"2026-11-22T10:00:00Z\""),
            ("last-error", "\"503\""),
            ("dead-letter-reason", "\"EmailRefused\""),
            ("dead-letter-description", "\"x\""),
            ("dead-letter-time", "\"2026-11-22T10:00:00Z\""),
            ("deadletterreason", "\"MaxDeliveryCountExceeded\""),
            ("deadlettererrordescription", "\"x\""),
            ("strangers", "\"x\""),
            ("generation", "4"),
            ("unconfirmed-since", "\"2026-11-22T10:00:00Z\""),
            (
                "traceparent",
                "\"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01\"",
            ),
            ("diagnostic-id", "\"|a.b.\""),
            ("tracestate", "\"congo=t61rc\""),
            (
                "repeats",
                "\"00-0af7651916cd43dd8448eb211c80319c-00f067aa0ba902b7-01\"",
            ),
        ]);
        let names: Vec<&str> = properties.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(
            names,
            [
                "audience",
                "deadletterreason",
                "generation",
                "unconfirmed-since",
                "traceparent",
                "diagnostic-id",
                "repeats",
                "tracestate"
            ]
        );
        assert_eq!(properties[1], text("deadletterreason", "EmailRefused"));
        assert_eq!(properties[2].1, PropertyValue::Integer(4));
    }

    #[test]
    fn a_generation_is_read_whatever_its_type_and_never_made_up() {
        for (value, generation) in [
            ("3", Some(3)),
            ("\"3\"", Some(3)),
            ("\" 3 \"", Some(3)),
            ("3.0", Some(3)),
            ("3.5", None),
            ("\"three\"", None),
            ("true", None),
            ("-2", None),
            ("1e300", None),
        ] {
            let kept = kept(&[("generation", value)]);
            let kept = kept.iter().find(|(name, _)| name == "generation");
            let expected = generation.map(PropertyValue::Integer);
            assert_eq!(kept.map(|(_, value)| value), expected.as_ref(), "{value}");
        }
    }

    #[test]
    fn what_would_not_survive_a_header_is_left_out() {
        let long = format!("\"{}\"", "x".repeat(129));
        for value in ["\"Zürich\"", "\"a\"b\"", "\"a\\b\"", "\"\"", long.as_str()] {
            assert_eq!(kept(&[("traceparent", value)]).len(), 2, "{value}");
        }
        for vendor in ["\"\"", "\"a b\"", "\"a/b\"", long.as_str()] {
            let refused = copy(&with(&[("vendor", vendor)]), ENTITY).unwrap_err();
            assert_eq!(refused, NotReplayable::NoVendor, "{vendor}");
        }
        // A tool may have given it the type of a date; a number is a vendor's id as good as any.
        assert_eq!(
            kept(&[("unconfirmed-since", "\"Sun, 22 Nov 2026 10:00:00 GMT\"")])[2],
            text("unconfirmed-since", "2026-11-22T10:00:00Z")
        );
        assert_eq!(kept(&[("vendor", "7")])[2], text("vendor", "7"));
    }

    #[test]
    fn the_id_of_a_copy_is_that_of_its_dead_letter() {
        let id = |entity: &str, broker: &str| {
            let copy = copy(&dead_letter(broker, &[], b"{}"), entity).unwrap();
            copy.message_id
        };
        // Written down, because the next version must find the same.
        assert_eq!(
            id(ENTITY, BROKER),
            "replay:640ecabe-8b03-526a-8332-54d9fb0243a8"
        );
        assert_eq!(
            id("Orders/Subscriptions/Vendors", BROKER),
            id(ENTITY, BROKER)
        );
        assert_ne!(id("notifications", BROKER), id(ENTITY, BROKER));
        assert_ne!(id(ENTITY, &BROKER.replace("17", "18")), id(ENTITY, BROKER));
        assert_ne!(
            id(ENTITY, &BROKER.replace("o-1:", "o-2:")),
            id(ENTITY, BROKER)
        );
    }

    #[test]
    fn what_can_not_be_sent_as_it_is_is_not_sent() {
        let refused = |headers: &[(&'static str, &str)], body: &[u8]| {
            copy(&dead_letter(BROKER, headers, body), ENTITY).map(|_| ())
        };
        assert_eq!(refused(&[], &[0xff, 0x00]), Err(NotReplayable::NotText));
        let batch = [(
            "content-type",
            "Application/Vnd.Microsoft.ServiceBus.JSON; x=1",
        )];
        assert_eq!(refused(&batch, b"[]"), Err(NotReplayable::Batch));
        let mut large = with(&[]);
        large.body = None;
        assert_eq!(copy(&large, ENTITY).unwrap_err(), NotReplayable::TooLarge);
        let bare = copy(&dead_letter(r#"{"SequenceNumber":1}"#, &[], b""), ENTITY).unwrap();
        assert_eq!(bare.content_type, event::CONTENT_TYPE);
    }
}
