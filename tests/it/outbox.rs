//! The second place for orders, while Service Bus does not take them.

use std::collections::BTreeSet;

use axum::http::StatusCode;
use serde_json::{Value, json};

use crate::{
    devhost::{DevHost, has},
    handler::{JsonBody, json_of, order},
};

async fn empty_the_outbox(host: &DevHost) {
    let run = host.http.post(host.url("/_dev/timers/outbox"));
    let response = run.send().await.unwrap();
    assert!(
        response.status().is_success(),
        "{:?}",
        response.text().await
    );
}

#[tokio::test]
async fn orders_are_taken_while_the_bus_is_down_and_published_once_when_it_is_back() {
    let host = DevHost::start().await;
    host.fault("bus", &json!({ "status": 503 })).await;
    let mut placed = BTreeSet::new();
    for _ in 0..20 {
        let response = host.post("/api/checkout", &order()).await;
        assert_eq!(response.status(), StatusCode::ACCEPTED);
        let answer = json_of(response).await;
        placed.insert(answer["orderId"].as_str().unwrap().to_owned());
    }
    let (first, second) = {
        let mut placed = placed.iter();
        (placed.next().unwrap(), placed.next().unwrap())
    };
    // It can be looked up and cancelled all the same.
    host.wait_for_status(first, "placed").await;
    let reason = json!({ "reason": "Changed my mind" });
    let cancelled = host
        .post(&format!("/api/orders/{second}/cancel"), &reason)
        .await;
    assert_eq!(cancelled.status(), StatusCode::ACCEPTED);
    assert_eq!(host.get("/_dev/emails").await, json!([]));

    // A run that finds the bus down leaves everything as it is.
    empty_the_outbox(&host).await;
    host.no_fault("bus").await;
    empty_the_outbox(&host).await;
    host.wait_until_idle().await;
    let emails = host.get("/_dev/emails").await;
    for order_id in &placed {
        let emails = emails.as_array().unwrap().iter();
        let own: Vec<&str> = emails
            .filter(|email| email["text"].as_str().unwrap().contains(order_id))
            .map(|email| email["subject"].as_str().unwrap())
            .collect();
        if order_id == second {
            assert!(own.last().unwrap().contains("cancelled"), "{own:?}");
        } else {
            assert_eq!(own.len(), 1, "{own:?}");
        }
    }
    let (code, printed) = host.audit("none").await;
    assert_eq!(code, Some(0), "{printed}");
    let left = std::fs::read_dir(host.book().join("outbox"));
    assert_eq!(left.map_or(0, Iterator::count), 0);
}

/// A process that dies between the topic's answer and the removal of the entry publishes it again.
#[tokio::test]
async fn an_entry_that_was_published_before_a_kill_is_told_once() {
    let host = DevHost::start().await;
    host.fault("bus", &json!({ "status": 503 })).await;
    host.post("/api/checkout", &order()).await;
    let outbox = host.book().join("outbox");
    let entry = std::fs::read_dir(&outbox).unwrap().next().unwrap().unwrap();
    let body = std::fs::read(entry.path()).unwrap();
    host.no_fault("bus").await;
    empty_the_outbox(&host).await;
    host.wait_until_idle().await;
    // As it is after the kill.
    std::fs::write(entry.path(), body).unwrap();
    empty_the_outbox(&host).await;
    host.wait_until_idle().await;
    assert_eq!(host.get("/_dev/emails").await.as_array().unwrap().len(), 1);
    let webhooks = host.get("/_dev/webhooks").await;
    assert_eq!(webhooks.as_array().unwrap().len(), 2);
    assert_eq!(host.repeated_webhooks().await, 0);
}

#[tokio::test]
async fn what_can_t_be_published_is_set_aside_and_the_rest_goes_on() {
    let host = DevHost::start().await;
    host.fault("bus", &json!({ "status": 503 })).await;
    host.post("/api/checkout", &order()).await;
    std::fs::write(
        host.book().join("outbox/0000000000001-spoilt.json"),
        "{\"event\":7",
    )
    .unwrap();
    host.no_fault("bus").await;
    empty_the_outbox(&host).await;
    host.wait_for("/_dev/emails", has(1)).await;
    assert!(
        host.book()
            .join("unsendable/0000000000001-spoilt.json")
            .exists()
    );
    let (code, printed) = host.audit("none").await;
    assert_eq!(code, Some(1), "{printed}");
}

/// With neither place the answer is an honest no.
#[tokio::test]
async fn an_order_that_nobody_takes_is_refused() {
    let host = DevHost::start().await;
    host.fault("bus", &json!({ "status": 503 })).await;
    std::fs::create_dir_all(host.book()).unwrap();
    std::fs::write(host.book().join("outbox"), "in the way").unwrap();
    let response = host.post("/api/checkout", &order()).await;
    assert_eq!(response.status(), StatusCode::SERVICE_UNAVAILABLE);
    assert!(response.headers().contains_key("retry-after"));
    let problem: Value = json_of(response).await;
    assert!(!problem.to_string().contains("Ada"));
}

/// The outbox's order is the same order: its key still makes one of two requests.
#[tokio::test]
async fn the_same_request_before_and_after_the_outage_is_one_order() {
    let host = DevHost::start().await;
    let place = async || {
        let request = host.http.post(host.url("/api/checkout"));
        let request = request.header("Idempotency-Key", "order-7");
        let response = request.json_body(&order()).send().await.unwrap();
        assert_eq!(response.status(), StatusCode::ACCEPTED);
        json_of(response).await["orderId"].clone()
    };
    host.fault("bus", &json!({ "status": 503 })).await;
    let before = place().await;
    host.no_fault("bus").await;
    empty_the_outbox(&host).await;
    let after = place().await;
    assert_eq!(before, after);
    host.wait_until_idle().await;
    assert_eq!(host.get("/_dev/emails").await.as_array().unwrap().len(), 1);
}
