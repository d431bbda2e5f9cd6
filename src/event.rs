//! What happened to an order: the message that the topic carries.
//!
//! The body is a CloudEvents 1.0 JSON object whose `data` is the order's snapshot, so that whoever gets it needs to
//! look nothing up. Checkout and cancel write it; the triggered functions read it back and check all of it.

use serde_json::{Value, json};
use thiserror::Error;
use time::{OffsetDateTime, format_description::well_known::Rfc3339};

use crate::{
    fields::{FieldError, FieldErrors, Fields, parse_time},
    json,
    order::{Order, OrderId},
};

/// The media type of the body (CloudEvents JSON format, section 3).
pub const CONTENT_TYPE: &str = "application/cloudevents+json";

/// The longest reason for a cancellation, in characters.
pub const LONGEST_REASON: usize = 500;

const SOURCE: &str = "/orderup";

#[derive(Debug, Clone, PartialEq)]
pub struct Event {
    pub kind: EventKind,
    pub time: OffsetDateTime,
    pub order: Order,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum EventKind {
    Placed,
    Cancelled { reason: String },
}

impl EventKind {
    /// The event's `type`, which is also the message's label.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Placed => "order.placed",
            Self::Cancelled { .. } => "order.cancelled",
        }
    }

    /// Rises with what happens to an order, so that whoever gets an older event after a newer one can drop it.
    pub fn version(&self) -> u32 {
        match self {
            Self::Placed => 1,
            Self::Cancelled { .. } => 2,
        }
    }
}

/// The time of something that happens now, in milliseconds: more digits only puzzle people and some readers.
pub fn now() -> OffsetDateTime {
    let now = OffsetDateTime::now_utc();
    now.replace_millisecond(now.millisecond())
        .expect("a time's own milliseconds are valid")
}

/// Why a message is not one of ours. No part of the body is repeated.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum EventError {
    #[error("the body is not JSON: {0}")]
    NotJson(String),
    #[error("the body is not a CloudEvents 1.0 object of a known type")]
    NotAnEvent,
    #[error("the order in it is not valid: {}", pointers(.0))]
    Order(Vec<FieldError>),
}

fn pointers(errors: &[FieldError]) -> String {
    let errors: Vec<_> = errors
        .iter()
        .map(|error| format!("{} {}", error.pointer, error.detail))
        .collect();
    errors.join(", ")
}

impl Event {
    /// `{orderId}:placed` or `{orderId}:cancelled`: the same whenever the same thing is said again.
    pub fn id(&self) -> String {
        let what = match self.kind {
            EventKind::Placed => "placed",
            EventKind::Cancelled { .. } => "cancelled",
        };
        format!("{}:{what}", self.order.order_id)
    }

    pub fn order_id(&self) -> OrderId {
        self.order.order_id
    }

    /// The body of the message.
    pub fn to_json(&self) -> String {
        let mut data = serde_json::to_value(&self.order).expect("an order is made of plain values");
        if let EventKind::Cancelled { reason } = &self.kind {
            data["cancellation"] = json!({ "reason": reason });
        }
        json!({
            "specversion": "1.0",
            "id": self.id(),
            "source": SOURCE,
            "type": self.kind.name(),
            "subject": self.order.order_id,
            "time": self.time.format(&Rfc3339).expect("times of our century have an RFC 3339 form"),
            "datacontenttype": "application/json",
            "data": data,
        })
        .to_string()
    }

    /// Reads the body of a message and checks everything that is used of it.
    pub fn from_json(body: &[u8]) -> Result<Self, EventError> {
        let body = json::parse(body).map_err(|error| EventError::NotJson(error.to_string()))?;
        let text = |name: &str| body.get(name).and_then(Value::as_str);
        if text("specversion") != Some("1.0") {
            return Err(EventError::NotAnEvent);
        }
        let time = text("time")
            .and_then(parse_time)
            .ok_or(EventError::NotAnEvent)?;
        let kind = match text("type") {
            Some("order.placed") => EventKind::Placed,
            Some("order.cancelled") => EventKind::Cancelled {
                reason: reason(&body)?,
            },
            _ => return Err(EventError::NotAnEvent),
        };
        let order =
            Order::from_snapshot(&body["data"], "/data", None).map_err(EventError::Order)?;
        Ok(Self { kind, time, order })
    }
}

fn reason(body: &Value) -> Result<String, EventError> {
    let mut errors = FieldErrors::default();
    let reason = Fields::of(&body["data"], "/data", &mut errors)
        .and_then(|data| data.object("cancellation", &mut errors))
        .and_then(|cancellation| cancellation.text("reason", LONGEST_REASON, &mut errors));
    errors.finish(reason).map_err(EventError::Order)
}

#[cfg(test)]
pub(crate) mod tests {
    use uuid::Uuid;

    use super::*;
    use crate::place_order::PlaceOrder;

    /// An order of two vendors, placed on 22 November 2026.
    pub(crate) fn order_placed() -> Event {
        let body = json!({
            "customer": { "name": "Ada Lovelace", "email": "ada@example.net", "locale": "en-AU" },
            "lineItems": [
                { "vendorId": "bakery", "sku": "PANCAKE-12", "name": "Pancake stack", "quantity": 2,
                  "unitPrice": { "amount": 1250, "currency": "AUD" } },
                { "vendorId": "florist", "sku": "TULIP-7", "name": "Seven tulips", "quantity": 1,
                  "unitPrice": { "amount": 900, "currency": "AUD" } }
            ],
            "payment": { "source": "cnon:card-nonce-ok" },
            "partner": "brand-7"
        });
        let time = OffsetDateTime::from_unix_timestamp(1_795_376_400).unwrap();
        let order_id = OrderId(Uuid::from_u128(0x0193_5a1e_9c00_7000_8000_0000_0000_0001));
        Event {
            kind: EventKind::Placed,
            time,
            order: PlaceOrder::from_request(&body)
                .unwrap()
                .place(order_id, Some(time)),
        }
    }

    pub(crate) fn order_cancelled() -> Event {
        Event {
            kind: EventKind::Cancelled {
                reason: "Ordered twice".to_owned(),
            },
            ..order_placed()
        }
    }

    #[test]
    fn an_event_is_read_back_as_it_was_written() {
        for event in [order_placed(), order_cancelled()] {
            assert_eq!(Event::from_json(event.to_json().as_bytes()), Ok(event));
        }
    }

    #[test]
    fn the_body_is_a_cloud_event() {
        let body: Value = serde_json::from_str(&order_cancelled().to_json()).unwrap();
        assert_eq!(body["specversion"], "1.0");
        assert_eq!(body["id"], "01935a1e-9c00-7000-8000-000000000001:cancelled");
        assert_eq!(body["type"], "order.cancelled");
        assert_eq!(body["subject"], "01935a1e-9c00-7000-8000-000000000001");
        assert_eq!(body["time"], "2026-11-22T19:40:00Z");
        assert_eq!(body["data"]["total"]["amount"], 3400);
        assert_eq!(body["data"]["cancellation"]["reason"], "Ordered twice");
    }

    #[test]
    fn what_is_not_ours_is_told_apart_without_repeating_it() {
        let read = |body: &str| Event::from_json(body.as_bytes()).unwrap_err();
        assert!(matches!(
            read("hello ada@example.net"),
            EventError::NotJson(_)
        ));
        assert_eq!(read(r#"{"orderId":"1"}"#), EventError::NotAnEvent);
        let mut body: Value = serde_json::from_str(&order_placed().to_json()).unwrap();
        body["data"]["customer"]["email"] = json!("ada");
        let error = read(&body.to_string());
        assert_eq!(
            error.to_string(),
            "the order in it is not valid: /data/customer/email should be an email address"
        );
        for time in ["9999-12-31T23:59:59-23:59", "1960-01-01T00:00:00Z", "today"] {
            let mut body: Value = serde_json::from_str(&order_placed().to_json()).unwrap();
            body["time"] = json!(time);
            assert_eq!(read(&body.to_string()), EventError::NotAnEvent, "{time}");
        }
        body["type"] = json!("order.eaten");
        assert_eq!(read(&body.to_string()), EventError::NotAnEvent);
    }
}
