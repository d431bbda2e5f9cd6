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
    /// The till has the order and its payment.
    Confirmed,
    Cancelled(Cancellation),
}

/// Why an order was cancelled.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cancellation {
    /// What a person wrote, or [`PAYMENT_DECLINED`] or [`REJECTED_BY_VENDOR`].
    pub reason: String,
    /// It is known that the till has not charged the customer, and will not.
    pub not_charged: bool,
}

/// The reason of a cancellation when the till declined the payment.
pub const PAYMENT_DECLINED: &str = "payment_declined";

/// The reason of a cancellation when the till does not take the order.
pub const REJECTED_BY_VENDOR: &str = "rejected_by_vendor";

impl EventKind {
    /// The event's `type`, which is also the message's label.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Placed => "order.placed",
            Self::Confirmed => "order.confirmed",
            Self::Cancelled(_) => "order.cancelled",
        }
    }

    /// Rises with what happens to an order, so that whoever gets an older event after a newer one can drop it.
    pub fn version(&self) -> u32 {
        match self {
            Self::Placed => 1,
            Self::Confirmed => 2,
            Self::Cancelled(_) => 3,
        }
    }

    /// What happened, as it stands in the event's id.
    pub fn what(&self) -> &'static str {
        match self {
            Self::Placed => "placed",
            Self::Confirmed => "confirmed",
            Self::Cancelled(_) => "cancelled",
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
    /// `{orderId}:placed`, `:confirmed` or `:cancelled`: the same whenever the same thing is said again.
    pub fn id(&self) -> String {
        format!("{}:{}", self.order.order_id, self.kind.what())
    }

    pub fn order_id(&self) -> OrderId {
        self.order.order_id
    }

    /// The body of the message.
    pub fn to_json(&self) -> String {
        let mut data = serde_json::to_value(&self.order).expect("an order is made of plain values");
        if let EventKind::Cancelled(cancellation) = &self.kind {
            data["cancellation"] = json!({ "reason": cancellation.reason });
            if cancellation.not_charged {
                data["cancellation"]["charged"] = json!(false);
            }
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
            Some("order.confirmed") => EventKind::Confirmed,
            Some("order.cancelled") => EventKind::Cancelled(cancellation(&body)?),
            _ => return Err(EventError::NotAnEvent),
        };
        let order =
            Order::from_snapshot(&body["data"], "/data", None).map_err(EventError::Order)?;
        Ok(Self { kind, time, order })
    }
}

fn cancellation(body: &Value) -> Result<Cancellation, EventError> {
    let mut errors = FieldErrors::default();
    let cancellation = Fields::of(&body["data"], "/data", &mut errors)
        .and_then(|data| data.object("cancellation", &mut errors))
        .and_then(|cancellation| {
            Some(Cancellation {
                reason: cancellation.text("reason", LONGEST_REASON, &mut errors)?,
                // Whoever does not say it, or says it in another way, has not said that nothing was charged.
                not_charged: cancellation.optional("charged") == Some(&Value::Bool(false)),
            })
        });
    errors.finish(cancellation).map_err(EventError::Order)
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
            kind: EventKind::Cancelled(Cancellation {
                reason: "Ordered twice".to_owned(),
                not_charged: false,
            }),
            ..order_placed()
        }
    }

    pub(crate) fn order_confirmed() -> Event {
        Event {
            kind: EventKind::Confirmed,
            ..order_placed()
        }
    }

    pub(crate) fn order_declined() -> Event {
        Event {
            kind: EventKind::Cancelled(Cancellation {
                reason: PAYMENT_DECLINED.to_owned(),
                not_charged: true,
            }),
            ..order_placed()
        }
    }

    #[test]
    fn an_event_is_read_back_as_it_was_written() {
        for event in [
            order_placed(),
            order_confirmed(),
            order_cancelled(),
            order_declined(),
        ] {
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
        assert_eq!(
            body["data"]["cancellation"],
            json!({ "reason": "Ordered twice" })
        );
        let body: Value = serde_json::from_str(&order_declined().to_json()).unwrap();
        assert_eq!(
            body["data"]["cancellation"],
            json!({ "reason": "payment_declined", "charged": false })
        );
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
