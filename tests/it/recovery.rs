//! Outages and their end, dead letters and their replay, through everything there is: the copies go through the real
//! rules and the real duplicate detection.

use axum::http::StatusCode;
use reqwest::Method;
use serde_json::{Value, json};

use crate::{
    devhost::{DevHost, has},
    end_to_end::{entity, place},
    handler::order,
    service_bus::sas,
};

/// Copies come after a second, in place of half a minute.
const SOON: [(&str, &str); 1] = [("RETRY_SCHEDULE", "1s")];

/// Trap 1, to the end: a copy with the id of its original would be dropped here, and nobody told. Trap 3, to the end: a
/// copy for the customer that reached the vendors as well would be a second delivery there.
#[tokio::test]
async fn while_the_provider_is_down_emails_wait_and_then_arrive_once() {
    let host = DevHost::start_with(&SOON).await;
    host.fault("email", &json!({ "status": 503 })).await;
    for _ in 0..8 {
        place(&host).await;
    }
    host.wait_for("/_dev/webhooks", has(16)).await;
    // They wait as copies on the topic, but for the one that finds out how things are.
    host.wait_for("/_dev/entities", |entities| {
        entity(entities, "orders")["scheduled"].as_u64().unwrap() >= 7
    })
    .await;
    assert!(has(0)(&host.get("/_dev/emails").await));

    host.no_fault("email").await;

    host.wait_for("/_dev/emails", has(8)).await;
    host.wait_until_idle().await;
    assert!(has(8)(&host.get("/_dev/emails").await));
    assert!(has(16)(&host.get("/_dev/webhooks").await));
    assert_eq!(host.repeated_webhooks().await, 0);
    assert_no_dead_letters(&host).await;
}

#[tokio::test]
async fn a_vendor_that_is_down_hears_of_it_later_and_nobody_else_twice() {
    let host = DevHost::start_with(&SOON).await;
    host.fault("vendors/florist", &json!({ "drop": "before" }))
        .await;
    place(&host).await;
    host.wait_for("/_dev/entities", |entities| {
        entity(entities, "orders")["scheduled"] == 1
    })
    .await;
    assert!(has(1)(&host.get("/_dev/webhooks").await));

    host.no_fault("vendors/florist").await;

    let webhooks = host.wait_for("/_dev/webhooks", has(2)).await;
    host.wait_until_idle().await;
    assert_eq!(webhooks[1]["vendor"], "florist");
    assert_eq!(host.repeated_webhooks().await, 0);
    assert!(has(1)(&host.get("/_dev/emails").await));
    assert_no_dead_letters(&host).await;
}

#[tokio::test]
async fn a_cancellation_overtakes_what_is_held_up() {
    let host = DevHost::start_with(&SOON).await;
    host.fault("vendors/florist", &json!({ "status": 500 }))
        .await;
    let order_id = place(&host).await;
    host.wait_for("/_dev/entities", |entities| {
        entity(entities, "orders")["scheduled"] == 1
    })
    .await;
    let body = json!({ "reason": "Ordered twice", "order": order() });
    let response = host
        .post(&format!("/api/orders/{order_id}/cancel"), &body)
        .await;
    assert_eq!(response.status(), StatusCode::ACCEPTED);
    host.no_fault("vendors/florist").await;
    host.wait_for("/_dev/webhooks", has(3)).await;
    host.wait_until_idle().await;
    let webhooks = host.get("/_dev/webhooks").await;
    let told: Vec<_> = webhooks
        .as_array()
        .unwrap()
        .iter()
        .filter(|webhook| webhook["vendor"] == "florist")
        .map(|webhook| webhook["type"].as_str().unwrap().to_owned())
        .collect();
    assert_eq!(
        told,
        ["order.cancelled"],
        "one notification, and a true one"
    );
}

/// As the portal's Service Bus Explorer does it: a copy to the same entity, with everything that the message carries.
#[tokio::test]
async fn a_dead_email_says_why_and_is_replayed_to_the_customer_alone() {
    let host = DevHost::start_with(&SOON).await;
    host.fault("email", &json!({ "status": 422 })).await;
    place(&host).await;
    let dead = dead_letter(&host, "notifications").await;
    assert_eq!(dead["deadLetterReason"], "MaxDeliveryCountExceeded");
    assert_eq!(dead["properties"]["dead-letter-reason"], "EmailRefused");
    let description = dead["properties"]["dead-letter-description"]
        .as_str()
        .unwrap();
    assert!(
        description.starts_with("ACS refused the email: 422"),
        "{description}"
    );
    assert_eq!(dead["deliveryCount"], 10);

    host.no_fault("email").await;
    resend(
        &host,
        "notifications",
        &dead,
        dead["messageId"].as_str().unwrap(),
    )
    .await;

    host.wait_for("/_dev/emails", has(1)).await;
    host.wait_until_idle().await;
    assert_eq!(host.repeated_webhooks().await, 0);
    // The original stays, and can be re-sent again; the provider knows the email.
    resend(&host, "notifications", &dead, "another-id").await;
    host.wait_until_idle().await;
    assert!(has(1)(&host.get("/_dev/emails").await));
}

/// A dead letter of a subscription can only be re-sent to its topic, with a new id.
#[tokio::test]
async fn a_vendors_dead_letter_that_is_replayed_reaches_only_that_vendor() {
    let host = DevHost::start_with(&[("RETRY_SCHEDULE", "1s"), ("RETRY_DEADLINE", "2s")]).await;
    host.fault("vendors/florist", &json!({ "status": 500 }))
        .await;
    place(&host).await;
    let vendors = "orders/Subscriptions/vendors";
    let dead = dead_letter(&host, vendors).await;
    assert_eq!(dead["properties"]["dead-letter-reason"], "DeadlineExceeded");
    assert_eq!(dead["properties"]["vendor"], "florist");
    host.no_fault("vendors/florist").await;

    resend(&host, "orders", &dead, "re-sent-1").await;

    host.wait_for("/_dev/webhooks", has(2)).await;
    host.wait_until_idle().await;
    assert_eq!(host.repeated_webhooks().await, 0);
    assert!(has(1)(&host.get("/_dev/emails").await));
}

/// Without a new id the topic drops it within ten minutes, as Azure does: the runbook says so.
#[tokio::test]
async fn within_ten_minutes_the_topic_drops_what_has_the_same_id() {
    let host = DevHost::start_with(&SOON).await;
    let mut unknown = order();
    unknown["lineItems"][0]["vendorId"] = json!("butcher");
    let response = host.post("/api/checkout", &unknown).await;
    assert_eq!(response.status(), StatusCode::ACCEPTED);
    let vendors = "orders/Subscriptions/vendors";
    let dead = dead_letter(&host, vendors).await;
    assert_eq!(dead["properties"]["dead-letter-reason"], "UnknownVendor");
    let count = async || entity(&host.get("/_dev/entities").await, vendors)["deadLetter"].as_u64();

    resend(&host, "orders", &dead, dead["messageId"].as_str().unwrap()).await;
    host.wait_until_idle().await;
    assert_eq!(count().await, Some(1), "dropped");

    resend(&host, "orders", &dead, "a-new-id").await;
    host.wait_for("/_dev/entities", |entities| {
        entity(entities, vendors)["deadLetter"] == 2
    })
    .await;
    host.wait_until_idle().await;
    assert_eq!(
        count().await,
        Some(2),
        "it was tried again, and has died again"
    );
    assert!(has(1)(&host.get("/_dev/emails").await));
}

pub async fn dead_letter(host: &DevHost, entity_path: &str) -> Value {
    host.wait_for("/_dev/entities", |entities| {
        entity(entities, entity_path)["deadLetter"] == 1
    })
    .await;
    let dead = host
        .get(&format!(
            "/_dev/entities/{entity_path}/messages?state=deadLetter"
        ))
        .await;
    dead[0].clone()
}

async fn assert_no_dead_letters(host: &DevHost) {
    let entities = host.get("/_dev/entities").await;
    for entity in entities.as_array().unwrap() {
        assert_eq!(entity["deadLetter"], 0, "{entity}");
    }
}

/// Sends a copy over REST with the properties that the dead letter has, Service Bus's own among them.
pub async fn resend(host: &DevHost, entity_path: &str, dead: &Value, message_id: &str) {
    let url = format!("http://127.0.0.1:{}/{entity_path}/messages", host.bus_port);
    let broker = json!({ "MessageId": message_id, "Label": dead["label"], "CorrelationId": dead["correlationId"] });
    let body = match &dead["body"] {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    let mut request = host
        .http
        .request(Method::POST, &url)
        .header("Authorization", sas(&url))
        .header("Content-Type", "application/cloudevents+json")
        .header("BrokerProperties", broker.to_string())
        .body(body);
    for (name, value) in dead["properties"].as_object().unwrap() {
        request = request.header(name, value.to_string());
    }
    let response = request.send().await.unwrap();
    let status = response.status();
    assert_eq!(
        status,
        StatusCode::CREATED,
        "{}",
        response.text().await.unwrap()
    );
}
