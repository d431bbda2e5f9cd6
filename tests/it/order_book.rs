//! What the order book does for notifications, and what happens when it is ill.

use axum::http::StatusCode;
use serde_json::{Value, json};

use crate::{
    devhost::{DevHost, has},
    handler::{Folder, Handler, json_of, order, order_placed},
    scripted_server::Reply,
};

const ORDER: &str = "01935a1e-9c00-7000-8000-000000000001";

async fn start(book: &std::path::Path) -> Handler {
    Handler::start_with(&[("ORDER_BOOK", book.to_str().unwrap())]).await
}

/// The same message, as it comes when the topic no longer knows that it has had it.
#[tokio::test]
async fn what_is_recorded_as_sent_is_not_sent_again() {
    let book = Folder::new();
    let handler = start(&book.0).await;
    let event = order_placed().to_string();
    for _ in 0..2 {
        for function in ["notify", "vendor-notify"] {
            let response = handler.trigger(function, event.as_bytes()).await;
            assert_eq!(response.status(), StatusCode::OK);
        }
    }
    assert_eq!(handler.provider.rest().len(), 1);
    assert_eq!(handler.bakery.rest().len(), 1);
    assert_eq!(handler.florist.rest().len(), 1);
    // Another instance knows it as well.
    let other = start(&book.0).await;
    let response = other.trigger("notify", event.as_bytes()).await;
    assert_eq!(response.status(), StatusCode::OK);
    assert!(other.provider.rest().is_empty());
    let sent = book.0.join(format!(
        "orders/{ORDER}/told/vendors/bakery/placed/sent.json"
    ));
    assert!(sent.exists());
}

/// Killed after the call, and before the outcome is recorded: the next process asks ACS before it sends again.
#[tokio::test]
async fn an_intent_without_an_outcome_is_a_doubt() {
    let book = Folder::new();
    let mut killed = start(&book.0).await;
    killed.provider.reply_once(Reply::Hang);
    let event = order_placed();
    let lost = {
        let request = killed.http.post(killed.url("/notify"));
        let envelope = json!({ "Data": { "message": event.to_string() }, "Metadata": {} });
        tokio::spawn(request.body(envelope.to_string()).send())
    };
    killed.provider.next().await;
    killed.kill().await;
    lost.await.unwrap().expect_err("nobody answers any more");

    let next = start(&book.0).await;
    // It has the email.
    next.provider
        .reply_once(Reply::text(200, r#"{"id":"1","status":"Succeeded"}"#));
    let response = next.trigger("notify", event.to_string().as_bytes()).await;
    assert_eq!(response.status(), StatusCode::OK);
    let asked = next.provider.rest();
    assert_eq!(asked.len(), 1, "{asked:?}");
    assert_eq!(asked[0].method, "GET");
}

/// The book says what waits and why, and no more than that.
#[tokio::test]
async fn what_waits_is_in_the_book() {
    let book = Folder::new();
    let handler = start(&book.0).await;
    handler
        .bakery
        .reply_once(Reply::with_header(429, "retry-after", "90"));
    let event = order_placed().to_string();
    let response = handler.trigger("vendor-notify", event.as_bytes()).await;
    assert_eq!(response.status(), StatusCode::OK);
    let folder = format!("orders/{ORDER}/told/vendors/bakery/placed");
    let later = book.0.join(&folder).join("later-0000000000.json");
    let later: Value = serde_json::from_slice(&std::fs::read(later).unwrap()).unwrap();
    assert_eq!(later["error"], "rate-limited");
    assert!(later["due"].as_str().unwrap() > later["at"].as_str().unwrap());
    assert!(!book.0.join(&folder).join("sent.json").exists());
}

/// Gone, full, read-only: what stands for all of them here is a file in the place of the folder.
#[tokio::test]
async fn an_order_book_that_is_gone_keeps_nobody_from_being_told() {
    let host = DevHost::with_till(&[("RETRY_SCHEDULE", "1s")]).await;
    let book = host.book();
    let aside = book.with_extension("aside");
    std::fs::rename(&book, &aside).unwrap();
    std::fs::write(&book, "in the way").unwrap();
    let response = host.post("/api/checkout", &order()).await;
    assert_eq!(response.status(), StatusCode::ACCEPTED);
    let order_id = json_of(response).await["orderId"]
        .as_str()
        .unwrap()
        .to_owned();
    host.wait_for("/_dev/emails", has(1)).await;
    let path = format!("/api/orders/{order_id}");
    let status = host.http.get(host.url(&path)).send().await.unwrap();
    assert_eq!(status.status(), StatusCode::SERVICE_UNAVAILABLE);
    // No money is taken without it.
    assert_eq!(host.get("/_dev/till").await["payments"], json!([]));

    std::fs::remove_file(&book).unwrap();
    std::fs::rename(&aside, &book).unwrap();
    host.wait_for_status(&order_id, "confirmed").await;
    host.wait_until_idle().await;
    let (_, payments) = host.at_the_till(&order_id).await;
    assert_eq!(payments.len(), 1);
}

/// One spoilt object is that order's, and a person's.
#[tokio::test]
async fn an_object_that_is_spoilt_stops_its_order_at_the_till_and_no_other() {
    let host = DevHost::with_till(&[("RETRY_SCHEDULE", "1s")]).await;
    host.fault("till/payments", &json!({ "status": 503 })).await;
    let response = host.post("/api/checkout", &order()).await;
    let order_id = json_of(response).await["orderId"]
        .as_str()
        .unwrap()
        .to_owned();
    let path = format!("/api/orders/{order_id}");
    host.wait_for(&path, |order| {
        order["waiting"][0]["failures"].as_u64() > Some(0)
    })
    .await;
    let object = host
        .book()
        .join(format!("orders/{order_id}/till/order.json"));
    let whole = std::fs::read(&object).unwrap();
    std::fs::write(&object, "{\"at\":").unwrap();
    host.no_fault("till/payments").await;
    let response = host.post("/api/checkout", &order()).await;
    let other = json_of(response).await["orderId"]
        .as_str()
        .unwrap()
        .to_owned();
    host.wait_for_status(&other, "confirmed").await;
    assert_eq!(host.get(&path).await["status"], "placed");
    assert_eq!(host.at_the_till(&order_id).await.1, Vec::<Value>::new());
    let (code, printed) = host.audit("square").await;
    assert_eq!(code, Some(1), "{printed}");
    assert!(printed.contains("till/order.json"), "{printed}");

    std::fs::write(&object, whole).unwrap();
    host.wait_for_status(&order_id, "confirmed").await;
    assert_eq!(host.at_the_till(&order_id).await.1.len(), 1);
}
