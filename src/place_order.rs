//! What a storefront sends: an order to be placed, checked at the edge.
//!
//! The same checks read a snapshot back, from a cancellation or from the bus, so that a function only ever
//! sees valid values. What they refuse is told field by field; unknown fields are accepted and ignored.

use std::str::FromStr;

use serde::Serialize;
use serde_json::Value;
use time::OffsetDateTime;
use uuid::Uuid;

use crate::{
    card_number,
    fields::{FieldError, FieldErrors, Fields, parse_time},
    order::{Currency, Customer, LineItem, Money, Order, OrderId, Payment},
};

/// More line items than a person buys at once; with the limit on the body it keeps an event below the broker's.
const MOST_LINE_ITEMS: usize = 500;

/// The largest integer that every JSON reader keeps exact (2^53 - 1), a vendor's JavaScript among them.
const LARGEST_AMOUNT: i64 = 9_007_199_254_740_991;

/// Names the space of the order ids that are made from an `Idempotency-Key`.
const KEYED_ORDERS: Uuid = Uuid::from_u128(0x6f1d_7a52_8f0e_4c7b_9d0a_52f1_7c3e_b846);

/// A valid order that has no id yet.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct PlaceOrder {
    customer: Customer,
    line_items: Vec<LineItem>,
    total: Money,
    payment: Option<Payment>,
    partner: Option<String>,
}

/// Whether the payment is part of what is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum PaymentField {
    Required,
    Optional,
}

impl PlaceOrder {
    /// Checks the body of a checkout.
    pub fn from_request(body: &Value) -> Result<Self, Vec<FieldError>> {
        let mut errors = FieldErrors::default();
        let order = Fields::of(body, "", &mut errors)
            .and_then(|fields| Self::read(&fields, PaymentField::Required, &mut errors));
        errors.finish(order)
    }

    /// The order under that id.
    pub fn place(self, order_id: OrderId, placed_at: Option<OffsetDateTime>) -> Order {
        Order {
            order_id,
            placed_at,
            customer: self.customer,
            line_items: self.line_items,
            total: self.total,
            payment: self.payment,
            partner: self.partner,
        }
    }

    /// The id of this order under that `Idempotency-Key`: the same for the same order, another one for another.
    pub fn keyed_id(&self, key: &str) -> OrderId {
        // The fields are written in one order and unknown ones are gone: this text is canonical.
        let order = serde_json::to_string(self).expect("an order is made of plain values");
        let name = format!("{key}\n{order}");
        OrderId(Uuid::new_v5(&KEYED_ORDERS, name.as_bytes()))
    }

    fn read(fields: &Fields<'_>, payment: PaymentField, errors: &mut FieldErrors) -> Option<Self> {
        let customer = fields
            .object("customer", errors)
            .and_then(|customer| read_customer(&customer, errors));
        let line_items = read_line_items(fields, errors);
        let total = line_items
            .as_deref()
            .and_then(|items| total(items, &fields.pointer("lineItems"), errors));
        let payment = match payment {
            PaymentField::Optional if fields.optional("payment").is_none() => Some(None),
            PaymentField::Required | PaymentField::Optional => fields
                .object("payment", errors)
                .and_then(|payment| read_payment(&payment, errors))
                .map(Some),
        };
        let partner = fields
            .optional_text("partner", 100, errors)
            .and_then(|partner| no_card_number(partner, "partner", fields, errors));
        Some(Self {
            customer: customer?,
            line_items: line_items?,
            total: total?,
            payment: payment?,
            partner,
        })
    }
}

impl Order {
    /// Checks a snapshot that a caller or the bus gives back. `pointer` is the place where it stands.
    ///
    /// Its id may be left out where it is known from elsewhere, and its total is calculated again.
    pub fn from_snapshot(
        value: &Value,
        pointer: &str,
        known_id: Option<OrderId>,
    ) -> Result<Self, Vec<FieldError>> {
        let mut errors = FieldErrors::default();
        let order = Fields::of(value, pointer, &mut errors).and_then(|fields| {
            let order = PlaceOrder::read(&fields, PaymentField::Optional, &mut errors);
            let order_id = read_order_id(&fields, known_id, &mut errors);
            let placed_at = read_placed_at(&fields, &mut errors);
            Some(order?.place(order_id?, placed_at))
        });
        errors.finish(order)
    }
}

fn read_order_id(
    fields: &Fields<'_>,
    known: Option<OrderId>,
    errors: &mut FieldErrors,
) -> Option<OrderId> {
    if known.is_some() && fields.optional("orderId").is_none() {
        return known;
    }
    let text = fields.text("orderId", 36, errors)?;
    let read = Uuid::from_str(&text).ok().map(OrderId);
    match (read, known) {
        (None, _) => errors.add(fields.pointer("orderId"), "should be a UUID"),
        (Some(read), Some(known)) if read != known => {
            errors.add(
                fields.pointer("orderId"),
                "should be the id that the path names",
            );
        }
        (Some(_), _) => return read,
    }
    None
}

fn read_placed_at(fields: &Fields<'_>, errors: &mut FieldErrors) -> Option<OffsetDateTime> {
    let text = fields.optional_text("placedAt", 40, errors)?;
    let read = parse_time(&text);
    if read.is_none() {
        errors.add(fields.pointer("placedAt"), "should be an RFC 3339 time");
    }
    read
}

fn read_customer(fields: &Fields<'_>, errors: &mut FieldErrors) -> Option<Customer> {
    let name = fields.text("name", 200, errors);
    let email = fields.text("email", 254, errors).and_then(|email| {
        let address = lettre::Address::from_str(&email);
        // `ada@localhost` is an address by the standard, and in a shop a slip of the pen.
        // A quoted local part is one as well, and few servers take it.
        let valid = address.is_ok_and(|address| {
            address.domain().contains('.') && !address.user().starts_with('"')
        });
        if !valid {
            errors.add(fields.pointer("email"), "should be an email address");
        }
        valid.then_some(email)
    });
    // Anything will do: a locale that we cannot read must not cost the shop an order.
    let locale = fields.text_if_any("locale", 35);
    Some(Customer {
        name: name?,
        email: email?,
        locale,
    })
}

fn read_payment(fields: &Fields<'_>, errors: &mut FieldErrors) -> Option<Payment> {
    let source = fields.text("source", 4096, errors)?;
    no_card_number(source, "source", fields, errors).map(|source| Payment { source })
}

/// The text, unless it holds a card number, which belongs to the payment provider and to nobody else.
fn no_card_number(
    text: String,
    name: &str,
    fields: &Fields<'_>,
    errors: &mut FieldErrors,
) -> Option<String> {
    if card_number::is_in(&text) {
        errors.add(fields.pointer(name), "should not be a card number");
        return None;
    }
    Some(text)
}

fn read_line_items(fields: &Fields<'_>, errors: &mut FieldErrors) -> Option<Vec<LineItem>> {
    let pointer = fields.pointer("lineItems");
    let Some(items) = fields.required("lineItems", errors)?.as_array() else {
        errors.add(pointer, "should be an array");
        return None;
    };
    if items.is_empty() || items.len() > MOST_LINE_ITEMS {
        let detail = format!("should have 1 to {MOST_LINE_ITEMS} line items");
        errors.add(pointer, detail);
        return None;
    }
    let read: Vec<Option<LineItem>> = items
        .iter()
        .enumerate()
        .map(|(index, item)| {
            let fields = Fields::of(item, &format!("{pointer}/{index}"), errors)?;
            read_line_item(&fields, errors)
        })
        .collect();
    read.into_iter().collect()
}

fn read_line_item(fields: &Fields<'_>, errors: &mut FieldErrors) -> Option<LineItem> {
    let vendor_id = fields.text("vendorId", 64, errors).and_then(|id| {
        let valid = is_vendor_id(&id);
        if !valid {
            let detail = "should be made of letters, digits, `_`, `-` and, not at its ends, `.`";
            errors.add(fields.pointer("vendorId"), detail);
        }
        let id = valid.then_some(id)?;
        no_card_number(id, "vendorId", fields, errors)
    });
    let sku = fields.text("sku", 100, errors);
    let name = fields.text("name", 300, errors);
    let quantity = fields
        .integer("quantity", 1..=1_000_000, errors)
        .and_then(|quantity| u32::try_from(quantity).ok());
    let unit_price = fields
        .object("unitPrice", errors)
        .and_then(|price| read_money(&price, errors));
    Some(LineItem {
        vendor_id: vendor_id?,
        sku: sku?,
        name: name?,
        quantity: quantity?,
        unit_price: unit_price?,
    })
}

/// Whether the text can be a vendor's id: it becomes part of message ids, properties and paths.
pub fn is_vendor_id(text: &str) -> bool {
    (1..=64).contains(&text.len())
        && !text.starts_with('.')
        && !text.ends_with('.')
        && text
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte))
}

fn read_money(fields: &Fields<'_>, errors: &mut FieldErrors) -> Option<Money> {
    let amount = fields.integer("amount", 0..=LARGEST_AMOUNT, errors);
    let currency = fields.text("currency", 3, errors).and_then(|code| {
        // Two codes of the standard stand for no currency and for tests.
        let currency = Currency::from_code(&code)
            .filter(|currency| !matches!(currency, Currency::XXX | Currency::XTS));
        if currency.is_none() {
            errors.add(
                fields.pointer("currency"),
                "should be an ISO 4217 code such as AUD",
            );
        }
        currency
    });
    Some(Money {
        amount: amount?,
        currency: currency?,
    })
}

/// The sum of the line items, which must have one currency.
fn total(items: &[LineItem], pointer: &str, errors: &mut FieldErrors) -> Option<Money> {
    let currency = items.first()?.unit_price.currency;
    let mut mixed = false;
    for (index, item) in items.iter().enumerate() {
        if item.unit_price.currency != currency {
            let detail = format!("should be {}, as in the first line item", currency.code());
            errors.add(format!("{pointer}/{index}/unitPrice/currency"), detail);
            mixed = true;
        }
    }
    if mixed {
        return None;
    }
    let amount = items
        .iter()
        .try_fold(0_i64, |sum, item| {
            sum.checked_add(
                item.unit_price
                    .amount
                    .checked_mul(i64::from(item.quantity))?,
            )
        })
        .filter(|sum| *sum <= LARGEST_AMOUNT);
    if amount.is_none() {
        let detail = format!("should add up to at most {LARGEST_AMOUNT}");
        errors.add(pointer, detail);
    }
    Some(Money {
        amount: amount?,
        currency,
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn body() -> Value {
        json!({
            "customer": { "name": "Ada Lovelace", "email": "ada@example.net", "locale": "en-AU" },
            "lineItems": [{
                "vendorId": "bakery", "sku": "PANCAKE-12", "name": "Pancake stack", "quantity": 2,
                "unitPrice": { "amount": 1250, "currency": "AUD" }
            }],
            "payment": { "source": "cnon:card-nonce-ok" },
            "partner": "brand-7"
        })
    }

    fn pointers(body: &Value) -> Vec<String> {
        let errors = PlaceOrder::from_request(body).unwrap_err();
        errors.into_iter().map(|error| error.pointer).collect()
    }

    #[test]
    fn a_valid_order_is_taken_and_its_total_is_the_sum_of_its_lines() {
        let order = PlaceOrder::from_request(&body()).unwrap();
        assert_eq!(order.total.amount, 2500);
        assert_eq!(order.total.currency, Currency::AUD);
    }

    #[test]
    fn unknown_fields_are_ignored_and_do_not_change_the_keyed_id() {
        let mut other = body();
        other["gift"] = json!({ "wrapping": true });
        let id = |body: &Value| PlaceOrder::from_request(body).unwrap().keyed_id("key-1");
        assert_eq!(id(&body()), id(&other));

        other["lineItems"][0]["quantity"] = json!(3);
        assert_ne!(id(&body()), id(&other));
        let order = PlaceOrder::from_request(&body()).unwrap();
        assert_ne!(order.keyed_id("key-1"), order.keyed_id("key-2"));
    }

    #[test]
    fn all_wrong_fields_are_told_at_once() {
        let mut body = body();
        body["customer"] = json!({ "name": "Ada\nLovelace", "email": "not an address" });
        body["lineItems"] = json!([
            { "vendorId": "a b", "sku": "", "name": "x", "quantity": 0, "unitPrice": { "amount": -1, "currency": "ZZZ" } },
            { "vendorId": "bakery", "sku": "1", "name": "x", "quantity": 1.5, "unitPrice": 3 },
            7
        ]);
        body["payment"] = json!({ "source": "4111 1111 1111 1111" });
        body["partner"] = json!(7);
        assert_eq!(
            pointers(&body),
            [
                "/customer/name",
                "/customer/email",
                "/lineItems/0/vendorId",
                "/lineItems/0/sku",
                "/lineItems/0/quantity",
                "/lineItems/0/unitPrice/amount",
                "/lineItems/0/unitPrice/currency",
                "/lineItems/1/quantity",
                "/lineItems/1/unitPrice",
                "/lineItems/2",
                "/payment/source",
                "/partner",
            ]
        );
        assert_eq!(
            pointers(&json!({})),
            ["/customer", "/lineItems", "/payment"]
        );
        assert_eq!(pointers(&json!([])), [""]);
    }

    #[test]
    fn addresses_that_no_mail_reaches_are_refused() {
        for email in [
            "\"a b\"@example.net",
            "ada",
            "ada@",
            "@example.net",
            "ada@localhost",
            "a b@example.net",
            "ada@example..net",
            "Ada <ada@example.net>",
        ] {
            let mut body = body();
            body["customer"]["email"] = json!(email);
            assert_eq!(pointers(&body), ["/customer/email"], "{email}");
        }
    }

    #[test]
    fn a_locale_never_costs_an_order() {
        for locale in [
            json!(""),
            json!(7),
            json!("x".repeat(100)),
            json!("de\n"),
            json!(null),
        ] {
            let mut body = body();
            body["customer"]["locale"] = locale;
            let order = PlaceOrder::from_request(&body).unwrap();
            assert_eq!(order.customer.locale, None);
        }
    }

    #[test]
    fn card_numbers_are_refused_wherever_ids_go() {
        for pointer in ["/lineItems/0/vendorId", "/payment/source", "/partner"] {
            let mut body = body();
            *body.pointer_mut(pointer).unwrap() = json!("4111111111111111");
            assert_eq!(pointers(&body), [pointer]);
        }
    }

    #[test]
    fn currencies_must_be_known_and_the_same_throughout() {
        let mut body = body();
        let mut second = body["lineItems"][0].clone();
        second["unitPrice"]["currency"] = json!("EUR");
        body["lineItems"].as_array_mut().unwrap().push(second);
        assert_eq!(pointers(&body), ["/lineItems/1/unitPrice/currency"]);
    }

    #[test]
    fn a_total_that_overflows_is_refused() {
        let mut body = body();
        body["lineItems"][0]["unitPrice"]["amount"] = json!(LARGEST_AMOUNT);
        assert_eq!(pointers(&body), ["/lineItems"]);
        body["lineItems"][0]["quantity"] = json!(1);
        assert!(PlaceOrder::from_request(&body).is_ok());
        body["lineItems"][0]["quantity"] = json!(1_000_000);
        assert_eq!(pointers(&body), ["/lineItems"]);
    }

    #[test]
    fn five_hundred_line_items_are_taken_and_one_more_is_not() {
        let mut body = body();
        let item = body["lineItems"][0].clone();
        body["lineItems"] = Value::Array(vec![item.clone(); 500]);
        assert!(PlaceOrder::from_request(&body).is_ok());
        body["lineItems"].as_array_mut().unwrap().push(item);
        assert_eq!(pointers(&body), ["/lineItems"]);
    }

    #[test]
    fn a_snapshot_is_read_back_as_it_was_written() {
        let order_id = OrderId(Uuid::from_u128(7));
        let placed_at = OffsetDateTime::from_unix_timestamp(1_795_000_000).unwrap();
        let order = PlaceOrder::from_request(&body())
            .unwrap()
            .place(order_id, Some(placed_at));
        let written = serde_json::to_value(&order).unwrap();
        assert_eq!(
            Order::from_snapshot(&written, "/data", None).unwrap(),
            order
        );
    }

    #[test]
    fn a_snapshot_for_another_order_is_refused() {
        let mut snapshot = body();
        let known = Some(OrderId(Uuid::from_u128(7)));
        assert!(Order::from_snapshot(&snapshot, "/order", known).is_ok());
        snapshot["orderId"] = json!(Uuid::from_u128(8).to_string());
        let errors = Order::from_snapshot(&snapshot, "/order", known).unwrap_err();
        assert_eq!(errors[0].pointer, "/order/orderId");
        let errors = Order::from_snapshot(&body(), "/data", None).unwrap_err();
        assert_eq!(errors[0].pointer, "/data/orderId");
    }
}
