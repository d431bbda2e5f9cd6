//! The second place for orders, while Service Bus does not take them.

use std::collections::BTreeSet;

use axum::http::StatusCode;
use serde_json::{Value, json};

use crate::{
    devhost::{DevHost, has},
    end_to_end::entity,
    handler::{Handler, JsonBody, json_of, order, order_placed},
    scripted_server::{Reply, ScriptedServer},
    service_bus::sas,
};

pub async fn empty_the_outbox(host: &DevHost) {
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

/// A process that dies between the topic's answer and the removal of the entry may publish it again, when the topic has
/// long forgotten its id: here it comes under another one.
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
    let kept: Value = serde_json::from_slice(&body).unwrap();
    let url = format!("http://127.0.0.1:{}/orders/messages", host.bus_port);
    let sent = host
        .http
        .post(&url)
        .header("Authorization", sas(&url))
        .header("Content-Type", "application/cloudevents+json")
        .header("BrokerProperties", r#"{"MessageId":"another"}"#)
        .body(kept["event"].to_string())
        .send();
    assert_eq!(sent.await.unwrap().status(), StatusCode::CREATED);
    host.wait_until_idle().await;
    let topic = host.get("/_dev/entities").await;
    assert_eq!(entity(&topic, "orders")["scheduled"], 0, "{topic}");
    assert_eq!(host.get("/_dev/emails").await.as_array().unwrap().len(), 1);
    let webhooks = host.get("/_dev/webhooks").await;
    assert_eq!(webhooks.as_array().unwrap().len(), 2);
    assert_eq!(host.repeated_webhooks().await, 0);
}

struct Storage {
    server: ScriptedServer,
    handler: Handler,
}

impl Storage {
    /// The handler with an order book in a container, which is played by the test.
    async fn start() -> Self {
        let server = ScriptedServer::start([Reply::status(500)]).await;
        let account = format!(
            "AccountName=contoso;AccountKey=aGlkZGVu;BlobEndpoint={}/contoso",
            server.url()
        );
        let settings = [
            ("ORDER_BOOK", "order-book"),
            ("AzureWebJobsStorage", &account),
        ];
        let handler = Handler::start_with(&settings).await;
        Self { server, handler }
    }

    async fn run(&self, replies: impl IntoIterator<Item = Reply>) -> Vec<String> {
        for reply in replies {
            self.server.reply_once(reply);
        }
        let response = self.handler.post("/outbox", &json!({})).await;
        assert_eq!(response.status(), StatusCode::OK);
        let asked = self.server.rest().into_iter();
        asked
            .map(|asked| format!("{} {}", asked.method, asked.path_and_query))
            .filter(|asked| !asked.contains("comp=list"))
            .collect()
    }
}

const ORDER: &str = "01935a1e-9c00-7000-8000-000000000001";

fn entry_path(order: u32, millis: u32, what: &str) -> String {
    format!("outbox/{millis:013}-01935a1e-9c00-7000-8000-{order:012}-{what}.json")
}

fn listed(paths: &[&String]) -> Reply {
    let blob = |path: &&String| {
        format!(
            "<Blob><Name>{path}</Name><Properties><Last-Modified>Wed, 25 Nov 2026 05:00:00 GMT</Last-Modified>\
             <Content-Length>1</Content-Length></Properties></Blob>"
        )
    };
    let blobs: String = paths.iter().map(blob).collect();
    Reply::text(
        200,
        &format!(
            r#"<?xml version="1.0" encoding="utf-8"?><EnumerationResults><Blobs>{blobs}</Blobs><NextMarker /></EnumerationResults>"#
        ),
    )
}

fn entry(order: u32) -> Reply {
    let mut event = order_placed();
    let order_id = format!("01935a1e-9c00-7000-8000-{order:012}");
    event["id"] = json!(format!("{order_id}:placed"));
    event["subject"] = json!(order_id);
    event["data"]["orderId"] = json!(order_id);
    let entry = json!({ "traceparent": null, "event": event });
    Reply::text(200, &entry.to_string())
}

fn no_blob() -> Reply {
    Reply::with_header(404, "x-ms-error-code", "BlobNotFound")
}

/// Without the right to remove it, it is published once all the same, and the next one goes out.
#[tokio::test]
async fn an_entry_that_can_t_be_removed_is_published_once_and_keeps_back_nobody_else() {
    let storage = Storage::start().await;
    let (first, second) = (entry_path(1, 1, "placed"), entry_path(1, 2, "cancelled"));
    let entries = [&first, &second];
    let denied = || Reply::with_header(403, "x-ms-error-code", "AuthorizationPermissionMismatch");
    let asked = storage
        .run([
            listed(&entries),
            entry(1),
            no_blob(),
            Reply::status(201),
            denied(),
        ])
        .await;
    let book = "/contoso/order-book";
    let published = format!("{book}/orders/{ORDER}/published-placed.json");
    let expected = [
        format!("GET {book}/{first}"),
        format!("GET {published}"),
        format!("PUT {published}"),
        format!("DELETE {book}/{first}"),
    ];
    assert_eq!(
        asked, expected,
        "what happened to the order after that waits"
    );
    assert_eq!(storage.handler.bus.rest().len(), 1);

    let fact = Reply::text(200, r#"{"at":"2026-11-25T05:00:00Z"}"#);
    let asked = storage
        .run([listed(&entries), entry(1), fact, denied()])
        .await;
    assert_eq!(asked.len(), 3, "{asked:?}");
    assert!(storage.handler.bus.rest().is_empty());
    // Another order's is not kept back.
    let other = entry_path(2, 3, "placed");
    let denied_again = [listed(&[&other]), entry(2), no_blob(), Reply::status(201)];
    storage.run(denied_again).await;
    assert_eq!(storage.handler.bus.rest().len(), 1);
}

/// It can be neither recorded nor removed: the next run does not publish it again, nor anything else.
#[tokio::test]
async fn an_outbox_that_is_read_only_is_not_published_over_and_over() {
    let storage = Storage::start().await;
    let (first, second) = (entry_path(1, 1, "placed"), entry_path(1, 2, "cancelled"));
    let denied = || Reply::with_header(403, "x-ms-error-code", "AuthorizationPermissionMismatch");
    for published in [1, 0] {
        let entries = listed(&[&first, &second]);
        let replies = [entries, entry(1), no_blob(), denied(), denied()];
        let asked = storage.run(replies).await;
        let is_second = |asked: &String| asked.contains(&second);
        assert!(!asked.iter().any(is_second), "{asked:?}");
        assert_eq!(storage.handler.bus.rest().len(), published);
    }
}

/// The bus takes the others.
#[tokio::test]
async fn an_entry_that_the_bus_refuses_keeps_back_its_own_order_only() {
    let host = DevHost::start().await;
    host.fault("bus", &json!({ "status": 503 })).await;
    for _ in 0..3 {
        host.post("/api/checkout", &order()).await;
    }
    host.no_fault("bus").await;
    host.fault("bus", &json!({ "status": 400, "times": 1 }))
        .await;
    empty_the_outbox(&host).await;
    host.wait_for("/_dev/emails", has(2)).await;
    let left = std::fs::read_dir(host.book().join("outbox")).unwrap();
    assert_eq!(left.count(), 1);
    empty_the_outbox(&host).await;
    host.wait_for("/_dev/emails", has(3)).await;
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
