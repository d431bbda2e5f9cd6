//! Tells the vendors of an order that there is one for them, or that it was cancelled.
//!
//! Runs once per delivery of a message from the subscription `vendors` (see `vendor-notify/function.json`). Each
//! vendor in the order gets one signed webhook with its own lines only, all of them at the same time. A vendor that
//! cannot be told now gets a copy of its own, which comes later and concerns no one else. A process that is killed
//! before the end tells those of them again whom the order book does not have as told, under the webhook ids that they know.
//!
//! They are told when the order is placed or when it is confirmed, as `VENDOR_NOTIFY_ON` says; of a cancellation only if they
//! may know of the order.

use std::{collections::BTreeMap, sync::Arc, time::Instant};

use axum::{body::Bytes, extract::State, http::HeaderMap, response::Response};
use futures_util::future::join_all;
use serde_json::json;
use time::{OffsetDateTime, format_description::well_known::Rfc3339};
use tracing::info;
use uuid::Uuid;

use crate::{
    App,
    attempt::{Attempt, Held},
    cancelled_orders::CancelledOrders,
    delivery::{Delivery, Told, caught},
    event::{Event, EventKind},
    failure::Failure,
    invocation::millis,
    order::{LineItem, Money},
    outcome::{Dead, Reason},
    redelivery::Audience,
    retry,
    told::{self, Notification},
    vendor_notify_on::VendorNotifyOn,
    vendors::Vendor,
    webhook::Webhook,
};

/// Names the space of webhook ids.
const WEBHOOKS: Uuid = Uuid::from_u128(0x2b6c_9d1e_47a3_4f58_8e21_0c94_d7b5_36fa);

pub async fn vendor_notify(State(app): State<App>, headers: HeaderMap, body: Bytes) -> Response {
    let tell_vendors = async |delivery: Arc<Delivery>| {
        if !app.vendor_notify_on.tells_of(&delivery.event.kind) {
            return Vec::new();
        }
        let tell = async |vendor_id: &str| Told {
            attempt: caught(tell(&app, &delivery, vendor_id)).await,
            vendor: Some(vendor_id.to_owned()),
        };
        let lines = lines_by_vendor(&delivery.event);
        match &delivery.history().vendor {
            Some(vendor_id) => vec![tell(vendor_id).await],
            None => join_all(lines.keys().map(|vendor_id| tell(vendor_id))).await,
        }
    };
    app.deliverer
        .deliver(
            "vendor-notify",
            Audience::Vendors,
            &headers,
            &body,
            tell_vendors,
        )
        .await
}

async fn tell(app: &App, delivery: &Delivery, vendor_id: &str) -> Attempt {
    let event = &delivery.event;
    let lines = lines_by_vendor(event);
    let (Some(lines), Some(vendor)) = (lines.get(vendor_id), app.vendors.get(vendor_id)) else {
        let place = if lines.contains_key(vendor_id) {
            "VENDORS_FILE"
        } else {
            "the order"
        };
        let description = format!("the vendor {vendor_id} is not in {place}");
        return Attempt::Impossible(Dead::new(Reason::UnknownVendor, description));
    };
    let notification = Notification::new(Audience::Vendors, Some(vendor_id), event);
    let is_overtaken = || {
        let is_overtaken = is_overtaken(&app.cancelled_orders, event, vendor_id);
        if is_overtaken {
            info!(
                vendor = vendor_id,
                "the order was cancelled meanwhile, of which the vendor {vendor_id} is told instead"
            );
        }
        is_overtaken
    };
    // It is cancelled before it was confirmed, and so they never heard of it.
    let never_heard = matches!(event.kind, EventKind::Cancelled(_))
        && app.vendor_notify_on == VendorNotifyOn::Confirmed
        && !told::may_know_of(app.book(), vendor_id, event).await;
    if vendor.is_parked {
        app.cancelled_orders.learn_from(app.book(), event).await;
    }
    if never_heard || vendor.is_parked && is_overtaken() {
        // The book may have it that they wait for it.
        if !never_heard || delivery.has_waited() {
            told::keep_superseded(app.book(), &notification, event).await;
        }
        return Attempt::Overtaken;
    }
    if vendor.is_parked {
        return Attempt::Held(Held::Parked);
    }
    let webhook = &webhook(event, vendor_id, lines);
    // A vendor knows a webhook by its id, so that nobody need ask whether an earlier one has come.
    told::once(app.book(), &notification, delivery, async |_| {
        app.cancelled_orders.learn_from(app.book(), event).await;
        vendor
            .channel
            .attempt(delivery.has_waited(), retry::chance(), || {
                (!is_overtaken()).then(|| deliver(app, vendor, webhook))
            })
            .await
    })
    .await
}

async fn deliver(app: &App, vendor: &Vendor, webhook: &Webhook) -> Result<(), Failure> {
    let started = Instant::now();
    let now = OffsetDateTime::now_utc();
    let answer = app.webhooks.deliver(vendor, webhook, now).await;
    answer.map_err(|error| error.failure())?;
    info!(
        vendor = vendor.id,
        webhook.id = webhook.id,
        duration_ms = millis(started),
        "told the vendor {}",
        vendor.id
    );
    Ok(())
}

/// Whether the vendor is told by a cancellation that this instance knows; it gets to know this one.
pub fn is_overtaken(cancelled: &CancelledOrders, event: &Event, vendor_id: &str) -> bool {
    match event.kind {
        EventKind::Placed | EventKind::Confirmed => cancelled.tells(event.order_id(), vendor_id),
        EventKind::Cancelled(_) => {
            cancelled.note(event);
            false
        }
    }
}

/// The lines of each vendor, in the order's own sequence.
fn lines_by_vendor(event: &Event) -> BTreeMap<&str, Vec<&LineItem>> {
    let mut vendors: BTreeMap<&str, Vec<&LineItem>> = BTreeMap::new();
    for line in &event.order.line_items {
        vendors.entry(&line.vendor_id).or_default().push(line);
    }
    vendors
}

/// What the vendor is told: its own lines and their sum. Who the customer is and how they pay is not for it.
///
/// The same event gives the same webhook, to the byte.
fn webhook(event: &Event, vendor_id: &str, lines: &[&LineItem]) -> Webhook {
    let order = &event.order;
    let total = Money {
        // The order's total holds all lines and did not overflow, so neither does this part of it.
        amount: lines
            .iter()
            .map(|line| line.unit_price.amount * i64::from(line.quantity))
            .sum(),
        currency: order.total.currency,
    };
    let lines: Vec<_> = lines
        .iter()
        .map(|line| {
            json!({ "sku": line.sku, "name": line.name, "quantity": line.quantity, "unitPrice": line.unit_price })
        })
        .collect();
    let mut data = json!({
        "orderId": order.order_id,
        "version": event.kind.version(),
        "vendorId": vendor_id,
        "lineItems": lines,
        "total": total,
    });
    if let Some(placed_at) = order.placed_at {
        data["placedAt"] = json!(rfc3339(placed_at));
    }
    if let Some(partner) = &order.partner {
        data["partner"] = json!(partner);
    }
    if let EventKind::Cancelled(cancellation) = &event.kind {
        data["reason"] = json!(cancellation.reason);
    }
    let id = Uuid::new_v5(&WEBHOOKS, format!("{}:{vendor_id}", event.id()).as_bytes());
    let body = json!({ "type": event.kind.name(), "timestamp": rfc3339(event.time), "data": data });
    Webhook {
        id: format!("msg_{}", id.simple()),
        body: body.to_string(),
    }
}

fn rfc3339(time: OffsetDateTime) -> String {
    time.format(&Rfc3339)
        .expect("times of our century have an RFC 3339 form")
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;
    use crate::event::tests::{order_cancelled, order_placed};

    fn webhook_to(event: &Event, vendor_id: &str) -> (Webhook, Value) {
        let webhook = webhook(event, vendor_id, &lines_by_vendor(event)[vendor_id]);
        let body = serde_json::from_str(&webhook.body).unwrap();
        (webhook, body)
    }

    #[test]
    fn a_vendor_gets_its_own_lines_and_nothing_about_the_customer() {
        let (webhook, body) = webhook_to(&order_placed(), "bakery");
        assert_eq!(
            body,
            json!({
                "type": "order.placed",
                "timestamp": "2026-11-22T19:40:00Z",
                "data": {
                    "orderId": "01935a1e-9c00-7000-8000-000000000001",
                    "version": 1,
                    "placedAt": "2026-11-22T19:40:00Z",
                    "vendorId": "bakery",
                    "partner": "brand-7",
                    "lineItems": [{
                        "sku": "PANCAKE-12", "name": "Pancake stack", "quantity": 2,
                        "unitPrice": { "amount": 1250, "currency": "AUD" }
                    }],
                    "total": { "amount": 2500, "currency": "AUD" }
                }
            })
        );
        for personal in ["Ada", "ada@example.net", "cnon", "Seven tulips"] {
            assert!(!webhook.body.contains(personal), "{personal}");
        }
    }

    #[test]
    fn a_cancellation_says_why() {
        let (_, body) = webhook_to(&order_cancelled(), "florist");
        assert_eq!(body["type"], "order.cancelled");
        assert_eq!(body["data"]["version"], 3);
        assert_eq!(body["data"]["reason"], "Ordered twice");
        assert_eq!(body["data"]["total"]["amount"], 900);
    }

    #[test]
    fn ids_are_stable_and_differ_by_event_and_vendor() {
        let id = |event: &Event, vendor| webhook_to(event, vendor).0.id;
        let ids = [
            id(&order_placed(), "bakery"),
            id(&order_placed(), "florist"),
            id(&order_cancelled(), "bakery"),
        ];
        assert_eq!(id(&order_placed(), "bakery"), ids[0]);
        assert!(ids[0] != ids[1] && ids[0] != ids[2] && ids[1] != ids[2]);
        assert!(ids.iter().all(|id| !id.contains('.')), "{ids:?}");
    }
}
