//! The order, as checkout accepted it and as every event carries it.
//!
//! These types hold valid values only: [`crate::place_order`] makes them from a request, and a snapshot from
//! the bus is checked again when it is read. Nothing here does I/O.

use std::fmt;

use serde::Serialize;
use time::OffsetDateTime;
use uuid::Uuid;

/// An order's id: UUIDv7, or UUIDv5 of an `Idempotency-Key` and the order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(transparent)]
pub struct OrderId(pub Uuid);

impl fmt::Display for OrderId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The snapshot that an event carries.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Order {
    pub order_id: OrderId,
    /// When checkout accepted it. A caller's snapshot, sent with a cancellation, may not know it.
    #[serde(
        serialize_with = "time::serde::rfc3339::option::serialize",
        skip_serializing_if = "Option::is_none"
    )]
    pub placed_at: Option<OffsetDateTime>,
    pub customer: Customer,
    pub line_items: Vec<LineItem>,
    pub total: Money,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub payment: Option<Payment>,
    /// The brand through which the order was placed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub partner: Option<String>,
}

impl Order {
    /// The same for everybody but the till, who has no use for the payment token. That the shop has the money already is
    /// no token, and stays.
    pub fn without_payment_token(&self) -> Self {
        Self {
            payment: self.payment.clone().filter(Payment::is_external),
            ..self.clone()
        }
    }
}

#[derive(Clone, PartialEq, Serialize)]
pub struct Customer {
    pub name: String,
    pub email: String,
    /// A BCP 47 tag such as `en-AU`; without one the customer is written to in English.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub locale: Option<String>,
}

/// Who the customer is stays out of everything that is printed.
impl fmt::Debug for Customer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Customer")
            .field("locale", &self.locale)
            .finish_non_exhaustive()
    }
}

#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct LineItem {
    pub vendor_id: String,
    pub sku: String,
    pub name: String,
    pub quantity: u32,
    pub unit_price: Money,
}

/// An opaque payment token, for the till. It is never printed.
#[derive(Clone, PartialEq, Serialize)]
pub struct Payment {
    pub source: String,
}

impl Payment {
    /// The shop has the money already, and the till only records it.
    pub fn is_external(&self) -> bool {
        self.source == "EXTERNAL"
    }
}

impl fmt::Debug for Payment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Payment").finish_non_exhaustive()
    }
}

/// An amount in the currency's minor unit: 1250 AUD is twelve dollars fifty.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Money {
    pub amount: i64,
    pub currency: Currency,
}

/// An ISO 4217 code that is in use.
pub type Currency = iso_currency::Currency;
