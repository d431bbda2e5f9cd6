//! The main job through everything there is: an order in, an email and signed webhooks out.

use axum::http::StatusCode;
use serde_json::{Value, json};

use crate::{
    devhost::{DevHost, has},
    handler::{JsonBody, json_of, order},
    service_bus::sas,
};

pub async fn place(host: &DevHost) -> String {
    let response = host.post("/api/checkout", &order()).await;
    assert_eq!(response.status(), StatusCode::ACCEPTED);
    json_of(response).await["orderId"]
        .as_str()
        .unwrap()
        .to_owned()
}

pub fn entity<'a>(entities: &'a Value, name: &str) -> &'a Value {
    let entities = entities.as_array().unwrap();
    let found = entities
        .iter()
        .find(|entity| entity["name"].as_str().unwrap().eq_ignore_ascii_case(name));
    found.unwrap_or_else(|| panic!("no {name} in {entities:?}"))
}

#[tokio::test]
async fn an_order_becomes_an_email_and_a_webhook_for_each_vendor() {
    order_to_email(DevHost::start().await).await;
}

#[tokio::test]
async fn it_does_so_over_amqp_too() {
    order_to_email(DevHost::start_over_amqp().await).await;
}

async fn order_to_email(host: DevHost) {
    let order_id = place(&host).await;

    let emails = host.wait_for("/_dev/emails", has(1)).await;
    assert!(
        emails[0].to_string().contains("ada@example.net"),
        "{emails}"
    );
    assert!(
        emails[0]["text"].as_str().unwrap().contains(&order_id),
        "{emails}"
    );
    assert!(
        emails[0]["text"].as_str().unwrap().contains("$34.00"),
        "{emails}"
    );
    let webhooks = host.wait_for("/_dev/webhooks", has(2)).await;
    for webhook in webhooks.as_array().unwrap() {
        assert_eq!(webhook["verified"], true, "{webhook}");
        assert_eq!(webhook["body"]["data"]["orderId"], order_id);
        assert_eq!(webhook["body"]["data"]["vendorId"], webhook["vendor"]);
    }
    host.wait_until_idle().await;
    let entities = host.get("/_dev/entities").await;
    for name in [
        "orders",
        "orders/Subscriptions/customers",
        "orders/Subscriptions/vendors",
        "notifications",
    ] {
        assert_eq!(entity(&entities, name)["deadLetter"], 0, "{name}");
    }
}

#[tokio::test]
async fn a_cancellation_reaches_the_same_people() {
    let host = DevHost::start().await;
    let order_id = "01935a1e-9c00-7000-8000-000000000001";
    let body = json!({ "reason": "Ordered twice", "order": order() });

    let response = host
        .post(&format!("/api/orders/{order_id}/cancel"), &body)
        .await;

    assert_eq!(response.status(), StatusCode::ACCEPTED);
    let emails = host.wait_for("/_dev/emails", has(1)).await;
    assert!(
        emails[0]["text"]
            .as_str()
            .unwrap()
            .contains("Ordered twice"),
        "{emails}"
    );
    let webhooks = host.wait_for("/_dev/webhooks", has(2)).await;
    for webhook in webhooks.as_array().unwrap() {
        assert_eq!(webhook["verified"], true);
        assert_eq!(webhook["body"]["type"], "order.cancelled");
    }
}

#[tokio::test]
async fn the_same_checkout_sent_twice_is_one_order() {
    let host = DevHost::start().await;
    let post = async || {
        let request = host.http.post(host.url("/api/checkout"));
        let request = request
            .header("Idempotency-Key", "8e03978e")
            .json_body(&order());
        json_of(request.send().await.unwrap()).await
    };
    assert_eq!(post().await, post().await);
    host.wait_for("/_dev/emails", has(1)).await;
    host.wait_until_idle().await;
    assert!(has(1)(&host.get("/_dev/emails").await));
    assert!(has(2)(&host.get("/_dev/webhooks").await));
}

#[tokio::test]
async fn nothing_accepted_is_lost_by_kill_9_right_after_the_answer() {
    let host = DevHost::start().await;
    // Both functions are in the middle of their work when everything is killed.
    host.fault("email", &json!({ "hang": true })).await;
    host.fault("vendors", &json!({ "hang": true })).await;
    place(&host).await;
    host.wait_for("/_dev/entities", |entities| {
        entity(entities, "notifications")["locked"] == 1
            && entity(entities, "orders/Subscriptions/vendors")["locked"] == 1
    })
    .await;

    let host = host.kill_and_restart().await;

    host.wait_for("/_dev/emails", has(1)).await;
    let webhooks = host.wait_for("/_dev/webhooks", has(2)).await;
    assert!(
        webhooks
            .as_array()
            .unwrap()
            .iter()
            .all(|webhook| webhook["verified"] == true)
    );
    host.wait_until_idle().await;
    assert!(has(1)(&host.get("/_dev/emails").await));
    assert!(has(2)(&host.get("/_dev/webhooks").await));
}

#[tokio::test]
async fn orders_survive_kill_9_at_any_moment() {
    let mut host = DevHost::start().await;
    for _ in 0..5 {
        for _ in 0..4 {
            place(&host).await;
        }
        host = host.kill_and_restart().await;
    }
    // A delivery may be repeated; its receiver knows it by the email's key or the webhook's id, and counts it once.
    host.wait_for("/_dev/emails", has(20)).await;
    host.wait_for("/_dev/webhooks", has(40)).await;
    host.wait_until_idle().await;
    assert!(has(20)(&host.get("/_dev/emails").await));
    assert!(has(40)(&host.get("/_dev/webhooks").await));
}

#[tokio::test]
async fn an_email_whose_answer_was_lost_is_not_sent_twice() {
    let host = DevHost::start().await;
    host.fault("email", &json!({ "drop": "after", "times": 1 }))
        .await;
    place(&host).await;
    host.wait_for("/_dev/emails", has(1)).await;
    host.wait_until_idle().await;
    assert!(has(1)(&host.get("/_dev/emails").await));
    assert_eq!(
        entity(&host.get("/_dev/entities").await, "notifications")["deadLetter"],
        0
    );
}

#[tokio::test]
async fn a_send_whose_answer_was_lost_leaves_one_order() {
    let host = DevHost::start().await;
    host.fault("bus", &json!({ "drop": "after", "times": 1 }))
        .await;
    place(&host).await;
    host.wait_for("/_dev/emails", has(1)).await;
    host.wait_until_idle().await;
    assert!(has(1)(&host.get("/_dev/emails").await));
    assert!(has(2)(&host.get("/_dev/webhooks").await));
}

#[tokio::test]
async fn while_the_bus_is_down_and_there_is_no_outbox_checkout_says_so() {
    let host = DevHost::start_with(&[("ORDER_BOOK", "none")]).await;
    host.fault("bus", &json!({ "status": 503, "retryAfter": 60 }))
        .await;
    let response = host.post("/api/checkout", &order()).await;
    assert_eq!(response.status(), StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(response.headers()["retry-after"], "60");
    host.no_fault("bus").await;
    place(&host).await;
    host.wait_for("/_dev/emails", has(1)).await;
}

#[tokio::test]
async fn a_message_that_is_not_ours_is_dead_lettered_and_the_next_order_goes_through() {
    let host = DevHost::start().await;
    let url = format!("http://127.0.0.1:{}/orders/messages", host.bus_port);
    let request = host
        .http
        .post(&url)
        .header("Authorization", sas(&url))
        .body("hello");
    assert_eq!(request.send().await.unwrap().status(), StatusCode::CREATED);

    host.wait_for("/_dev/entities", |entities| {
        entity(entities, "notifications")["deadLetter"] == 1
            && entity(entities, "orders/Subscriptions/vendors")["deadLetter"] == 1
    })
    .await;
    let dead = host
        .get("/_dev/entities/notifications/messages?state=deadLetter")
        .await;
    assert_eq!(dead[0]["deadLetterReason"], "MaxDeliveryCountExceeded");
    assert_eq!(dead[0]["properties"]["dead-letter-reason"], "Unreadable");

    place(&host).await;
    host.wait_for("/_dev/emails", has(1)).await;
    host.wait_for("/_dev/webhooks", has(2)).await;
}
