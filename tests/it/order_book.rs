//! What the order book does for notifications, and what happens when it is ill.

use std::sync::Arc;

use axum::http::StatusCode;
use serde_json::{Value, json};
use time::OffsetDateTime;
use tokio::sync::Notify;

use crate::{
    copies::{Copy, at},
    devhost::{DevHost, has},
    handler::{Folder, Handler, json_of, order, order_placed},
    scripted_server::{Reply, ScriptedServer},
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

/// The book was away when it was asked, and there when the outcome was kept.
#[tokio::test]
async fn what_was_sent_while_the_book_was_away_is_not_sent_again() {
    let (book, elsewhere) = (Folder::new(), Folder::new());
    let handler = start(&book.0).await;
    let aside = elsewhere.0.join("book");
    std::fs::rename(&book.0, &aside).unwrap();
    let release = Arc::new(Notify::new());
    let held = Reply::Held(release.clone(), 202, String::new());
    handler.provider.reply_once(held);
    let event = order_placed().to_string();
    let comes_back = async {
        handler.provider.next().await;
        std::fs::rename(&aside, &book.0).unwrap();
        release.notify_one();
    };
    let (response, ()) = tokio::join!(handler.trigger("notify", event.as_bytes()), comes_back);
    assert_eq!(response.status(), StatusCode::OK);
    let response = handler.trigger("notify", event.as_bytes()).await;
    assert_eq!(response.status(), StatusCode::OK);
    assert!(handler.provider.rest().is_empty());
}

/// It takes nothing, and what it has is read all the same.
#[tokio::test]
async fn what_a_read_only_book_has_as_sent_is_not_sent_again() {
    let storage = ScriptedServer::start([Reply::status(500)]).await;
    let account = format!(
        "AccountName=contoso;AccountKey=aGlkZGVu;BlobEndpoint={}/contoso",
        storage.url()
    );
    let settings = [
        ("ORDER_BOOK", "order-book"),
        ("AzureWebJobsStorage", &account),
    ];
    let handler = Handler::start_with(&settings).await;
    for time in 1..=5 {
        // After the third it is not written to for a while.
        if time <= 3 {
            let code = "AuthorizationPermissionMismatch";
            storage.reply_once(Reply::with_header(403, "x-ms-error-code", code));
        }
        storage.reply_once(Reply::text(200, r#"{"at":"2026-11-25T05:00:00Z"}"#));
        deliver(&handler, "notify", &order_placed()).await;
        let asked = storage.rest();
        assert_eq!(asked.last().unwrap().method, "GET", "{asked:?}");
    }
    assert!(handler.provider.rest().is_empty());
}

fn is_there(book: &Folder, fact: &str) -> bool {
    book.0.join(format!("orders/{ORDER}/{fact}")).exists()
}

fn cancelled() -> Value {
    let mut event = order_placed();
    event["type"] = json!("order.cancelled");
    event["id"] = json!(format!("{ORDER}:cancelled"));
    event["data"]["cancellation"] = json!({ "reason": "Ordered twice" });
    event
}

async fn deliver(handler: &Handler, function: &str, event: &Value) {
    let body = event.to_string();
    let response = handler.trigger(function, body.as_bytes()).await;
    assert_eq!(response.status(), StatusCode::OK);
}

/// It went through the outbox, and the cancellation did not; both within a second.
#[tokio::test]
async fn nobody_hears_that_an_order_was_placed_which_the_book_has_as_cancelled() {
    let book = Folder::new();
    let handler = start(&book.0).await;
    deliver(&handler, "book", &cancelled()).await;
    let mut event = order_placed();
    event["time"] = json!(at(OffsetDateTime::now_utc()));
    for function in ["notify", "vendor-notify"] {
        deliver(&handler, function, &event).await;
    }
    assert!(handler.provider.rest().is_empty());
    assert!(handler.bakery.rest().is_empty());
    assert!(is_there(&book, "told/customers/placed/superseded.json"));
    assert!(is_there(
        &book,
        "told/vendors/bakery/placed/superseded.json"
    ));
}

/// Whoever waits for it in the book waits no more.
#[tokio::test]
async fn what_a_parked_vendor_need_not_be_told_any_more_is_over() {
    let book = Folder::new();
    let settings = [
        ("ORDER_BOOK", book.0.to_str().unwrap()),
        ("PARKED_VENDORS", "bakery"),
    ];
    let handler = Handler::start_with(&settings).await;
    let placed = order_placed().to_string();
    let response = handler.trigger("vendor-notify", placed.as_bytes()).await;
    assert_eq!(response.status(), StatusCode::OK);
    let copy = Copy::next(&handler).await;
    let waits = "told/vendors/bakery/placed/later-0000000000.json";
    assert!(is_there(&book, waits));
    deliver(&handler, "book", &cancelled()).await;
    let copied = serde_json::from_str(&copy.body).unwrap();
    let properties = copy.properties();
    let response = handler.trigger_copy("vendor-notify", &copied, &properties);
    assert_eq!(response.await.status(), StatusCode::OK);
    assert!(is_there(
        &book,
        "told/vendors/bakery/placed/superseded.json"
    ));
    assert!(handler.bakery.rest().is_empty());
}

/// Nor is anybody said to have been forgotten.
#[tokio::test]
async fn what_a_parked_vendor_never_had_to_be_told_is_over_as_well() {
    let book = Folder::new();
    let settings = [
        ("ORDER_BOOK", book.0.to_str().unwrap()),
        ("PARKED_VENDORS", "bakery"),
    ];
    let handler = Handler::start_with(&settings).await;
    deliver(&handler, "book", &cancelled()).await;
    deliver(&handler, "vendor-notify", &order_placed()).await;
    assert!(is_there(
        &book,
        "told/vendors/bakery/placed/superseded.json"
    ));
}

/// Where vendors hear of orders that are confirmed, one that is cancelled before is none of theirs, if that is certain.
#[tokio::test]
async fn a_vendor_that_may_know_of_an_order_hears_of_its_cancellation() {
    for (facts, hears) in [
        // Placed before there was a book.
        (&[][..], true),
        (&["placed.json"], false),
        (&["placed.json", "confirmed.json"], true),
        (
            &["placed.json", "told/vendors/bakery/placed/intent.json"],
            true,
        ),
    ] {
        let book = Folder::new();
        for fact in facts {
            let fact = book.0.join(format!("orders/{ORDER}/{fact}"));
            std::fs::create_dir_all(fact.parent().unwrap()).unwrap();
            std::fs::write(fact, "{}").unwrap();
        }
        let handler = Handler::start_with(&[
            ("ORDER_BOOK", book.0.to_str().unwrap()),
            ("TILL", "pos"),
            ("TILL_URL", "http://127.0.0.1:1"),
        ])
        .await;
        deliver(&handler, "vendor-notify", &cancelled()).await;
        assert_eq!(!handler.bakery.rest().is_empty(), hears, "{facts:?}");
    }
}
