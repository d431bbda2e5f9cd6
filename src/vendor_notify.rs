//! Tells the vendors of an order that it was placed or cancelled.
//!
//! Runs once per delivery of a message from the subscription `vendors` (see `vendor-notify/function.json`). Each
//! vendor in the order gets one signed webhook with its own lines only, all of them at the same time. A vendor that
//! could not be told makes the message come again; the others then get a webhook with the id that they know.

use std::{collections::BTreeMap, time::Instant};

use axum::{body::Bytes, extract::State, http::HeaderMap, response::Response};
use futures_util::future::join_all;
use serde_json::json;
use time::{OffsetDateTime, format_description::well_known::Rfc3339};
use tracing::{info, warn};
use uuid::Uuid;

use crate::{
    event::{Event, EventKind},
    invocation::{self, millis},
    order::{LineItem, Money},
    outcome::Outcome,
    vendors::Vendors,
    webhook::{Answer, Webhook, WebhookClient},
};

/// Names the space of webhook ids.
const WEBHOOKS: Uuid = Uuid::from_u128(0x2b6c_9d1e_47a3_4f58_8e21_0c94_d7b5_36fa);

pub async fn vendor_notify(
    State(vendors): State<Vendors>,
    State(webhooks): State<WebhookClient>,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    invocation::deliver("vendor-notify", &headers, &body, |event| async move {
        let deliveries = lines_by_vendor(&event)
            .into_iter()
            .map(|(vendor_id, lines)| {
                tell(
                    &vendors,
                    &webhooks,
                    vendor_id,
                    webhook(&event, vendor_id, &lines),
                )
            });
        Outcome::of_all(join_all(deliveries).await)
    })
    .await
}

async fn tell(
    vendors: &Vendors,
    webhooks: &WebhookClient,
    vendor_id: &str,
    webhook: Webhook,
) -> Outcome {
    let Some(vendor) = vendors.get(vendor_id) else {
        return Outcome::Dead(format!("the vendor {vendor_id} is not in VENDORS_FILE"));
    };
    let started = Instant::now();
    let answer = webhooks
        .deliver(vendor, &webhook, OffsetDateTime::now_utc())
        .await;
    let duration_ms = millis(started);
    match answer {
        Ok(Answer::Accepted) => {
            info!(
                vendor = vendor_id,
                webhook.id = webhook.id,
                duration_ms,
                "told the vendor {vendor_id}"
            );
            Outcome::Delivered
        }
        Ok(Answer::Gone) => {
            warn!(
                vendor = vendor_id,
                webhook.id = webhook.id,
                duration_ms,
                "the vendor {vendor_id} answered 410: its endpoint is gone"
            );
            Outcome::Delivered
        }
        Err(error) => Outcome::Later(format!("the vendor {vendor_id} {error}")),
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
    if let EventKind::Cancelled { reason } = &event.kind {
        data["reason"] = json!(reason);
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
