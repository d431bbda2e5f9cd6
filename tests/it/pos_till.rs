//! Orders at a till of the shop's own, from the message to the event that comes of it.

use std::sync::Arc;

use axum::http::StatusCode;
use serde_json::{Value, json};
use tokio::sync::Notify;

use crate::{
    handler::{Folder, Handler, JsonBody, order_placed},
    scripted_server::{Received, Reply, ScriptedServer},
};

const ORDER: &str = "01935a1e-9c00-7000-8000-000000000001";

struct Shop {
    handler: Handler,
    till: ScriptedServer,
    book: Folder,
}

async fn handler(till: &ScriptedServer, book: &Folder) -> Handler {
    Handler::start_with(&[
        ("ORDER_BOOK", book.0.to_str().unwrap()),
        ("TILL", "pos"),
        ("TILL_URL", &till.url()),
    ])
    .await
}

impl Shop {
    async fn start() -> Self {
        let till = ScriptedServer::start([accepted(3400)]).await;
        let book = Folder::new();
        let handler = handler(&till, &book).await;
        Self {
            handler,
            till,
            book,
        }
    }

    /// Delivers the order to the till, and answers what went to the topic.
    async fn deliver(&self) -> Vec<Received> {
        let event = order_placed().to_string();
        let response = self.handler.trigger("till", event.as_bytes()).await;
        assert_eq!(response.status(), StatusCode::OK);
        self.handler.bus.rest()
    }

    async fn cancel(&self) -> StatusCode {
        let body = json!({ "reason": "Changed my mind" });
        let path = format!("/api/orders/{ORDER}/cancel");
        self.handler.post(&path, &body).await.status()
    }

    async fn keep_placed(&self) {
        let event = order_placed().to_string();
        let response = self.handler.trigger("book", event.as_bytes()).await;
        assert_eq!(response.status(), StatusCode::OK);
    }
}

/// What the log says that the till took is not what the topic took.
#[tokio::test]
async fn the_time_of_the_till_ends_before_the_topic_gets_the_event() {
    let shop = Shop::start().await;
    let slow = Reply::with_header(503, "retry-after", "1");
    shop.handler.bus.reply_once(slow);
    assert_eq!(kinds(&shop.deliver().await).len(), 2);
    let lines = shop.handler.stop().await;
    let mut lines = lines.iter().map(|line| serde_json::from_str(line).unwrap());
    let line: Value = lines
        .find(|line: &Value| line["outcome"] == "delivered")
        .unwrap();
    let ms = |field: &str| line[field].as_u64().unwrap();
    assert!(ms("duration_ms") >= ms("provider_ms") + 1000, "{line}");
}

fn accepted_text(total: i64) -> String {
    json!({ "order_id": ORDER, "status": "accepted", "external_id": "T-1", "total": total })
        .to_string()
}

fn accepted(total: i64) -> Reply {
    // As for a repetition, and for whoever asks.
    Reply::text(200, &accepted_text(total))
}

fn cancelled() -> Reply {
    let body = json!({ "order_id": ORDER, "status": "cancelled", "external_id": "T-1" });
    Reply::text(200, &body.to_string())
}

fn problem(status: u16, name: &str, code: &str) -> Reply {
    let body = json!({ "type": format!("https://till.example/{name}"), "code": code });
    Reply::Answer {
        status,
        headers: vec![("content-type", "application/problem+json".to_owned())],
        body: body.to_string(),
    }
}

fn kinds(sent: &[Received]) -> Vec<Value> {
    sent.iter()
        .map(|sent| sent.json()["type"].clone())
        .collect()
}

#[tokio::test]
async fn an_order_that_the_till_takes_is_confirmed_under_the_same_id_however_often_it_comes() {
    let shop = Shop::start().await;
    let first = shop.deliver().await;
    let again = shop.deliver().await;
    assert_eq!(kinds(&first), ["order.confirmed"]);
    assert_eq!(first[0].body, again[0].body);
    assert_eq!(
        first[0].header("brokerproperties"),
        again[0].header("brokerproperties")
    );
    // The token is for the till, and for nobody who hears of it afterwards.
    assert!(!first[0].body.contains("cnon"));
    let asked = shop.till.rest();
    assert_eq!(asked.len(), 1, "it is asked once");
    assert_eq!(asked[0].json()["payment"]["token"], "cnon:card-nonce-ok");
    assert!(
        shop.book
            .0
            .join(format!("orders/{ORDER}/confirmed.json"))
            .exists()
    );
    // Whoever cancels comes too late, and is told so.
    shop.keep_placed().await;
    assert_eq!(shop.cancel().await, StatusCode::CONFLICT);
}

#[tokio::test]
async fn a_till_that_says_no_cancels_the_order() {
    for (reply, reason) in [
        (
            problem(402, "payment-declined", "CARD_DECLINED"),
            "payment_declined",
        ),
        (
            problem(422, "order-rejected", "SOLD_OUT"),
            "rejected_by_vendor",
        ),
    ] {
        let shop = Shop::start().await;
        shop.till.reply_once(reply);
        shop.till.reply_once(Reply::status(404));
        let sent = shop.deliver().await;
        assert_eq!(kinds(&sent), ["order.cancelled"]);
        assert_eq!(
            sent[0].json()["data"]["cancellation"],
            json!({ "reason": reason, "charged": false })
        );
        // It stays so.
        shop.till.reply_once(Reply::status(404));
        assert_eq!(shop.deliver().await[0].body, sent[0].body);
        let asked = shop.till.rest().into_iter().map(|asked| asked.method);
        assert_eq!(asked.collect::<Vec<_>>(), ["POST", "GET", "GET"]);
        shop.keep_placed().await;
        assert_eq!(shop.cancel().await, StatusCode::ACCEPTED);
    }
}

#[tokio::test]
async fn an_answer_that_was_lost_is_asked_for() {
    let shop = Shop::start().await;
    shop.till.reply_once(Reply::status(502));
    let sent = shop.deliver().await;
    assert_eq!(kinds(&sent), ["order.placed"], "it comes again");
    assert!(sent[0].headers.contains_key("unconfirmed-since"));
    let key = shop.till.rest()[0].header("idempotency-key").to_owned();

    // It has never heard of it: then it gets it under the same key.
    shop.till.reply_once(Reply::status(404));
    assert_eq!(kinds(&shop.deliver().await), ["order.confirmed"]);
    let asked = shop.till.rest();
    assert_eq!(asked[0].method, "GET");
    assert_eq!(asked[1].header("idempotency-key"), key);
}

#[tokio::test]
async fn a_till_that_takes_its_time_is_asked_again() {
    let shop = Shop::start().await;
    let pending = json!({ "order_id": ORDER, "status": "pending", "external_id": "T-1" });
    for _ in 0..2 {
        shop.till.reply_once(Reply::text(202, &pending.to_string()));
        assert_eq!(kinds(&shop.deliver().await), ["order.placed"]);
    }
    assert_eq!(kinds(&shop.deliver().await), ["order.confirmed"]);
    let asked = shop.till.rest().into_iter().map(|asked| asked.method);
    assert_eq!(asked.collect::<Vec<_>>(), ["POST", "GET", "GET"]);
}

#[tokio::test]
async fn an_order_at_another_total_is_taken_back() {
    let shop = Shop::start().await;
    shop.till.reply_once(accepted(3740));
    shop.till.reply_once(Reply::status(204));
    shop.till.reply_once(cancelled());
    let sent = shop.deliver().await;
    assert_eq!(kinds(&sent), ["order.cancelled"]);
    let cancellation = &sent[0].json()["data"]["cancellation"];
    assert_eq!(*cancellation, json!({ "reason": "rejected_by_vendor" }));
    let asked = shop.till.rest();
    assert_eq!(asked[1].path_and_query, "/orders/T-1/cancel");
}

#[tokio::test]
async fn an_order_that_was_cancelled_before_never_reaches_the_till() {
    let shop = Shop::start().await;
    shop.keep_placed().await;
    assert_eq!(shop.cancel().await, StatusCode::ACCEPTED);
    let cancelled = shop.handler.bus.rest();
    let again = shop.deliver().await;
    assert_eq!(kinds(&again), ["order.cancelled"]);
    assert_eq!(cancelled[0].body, again[0].body, "it is the same event");
    assert!(shop.till.rest().is_empty());
}

/// An order that the till will not take as it is written is a person's, and is not cancelled.
#[tokio::test]
async fn an_order_that_is_refused_for_another_reason_is_a_dead_letter() {
    let shop = Shop::start().await;
    shop.till.reply_once(problem(422, "invalid", "UNKNOWN_SKU"));
    shop.till.reply_once(Reply::status(404));
    let sent = shop.deliver().await;
    assert_eq!(kinds(&sent), ["order.placed"]);
    assert_eq!(sent[0].header("dead-letter-reason"), "\"TillRefused\"");
    assert!(
        sent[0]
            .header("dead-letter-description")
            .contains("UNKNOWN_SKU")
    );
    // Nothing was taken, and so a person may try it again, or cancel it; and then it stays so.
    shop.till.reply_once(Reply::status(404));
    shop.till.reply_once(problem(422, "invalid", "UNKNOWN_SKU"));
    shop.till.reply_once(Reply::status(404));
    shop.deliver().await;
    shop.keep_placed().await;
    assert_eq!(shop.cancel().await, StatusCode::ACCEPTED);
    shop.handler.bus.rest();
    shop.till.rest();
    shop.till.reply_once(Reply::status(404));
    assert_eq!(kinds(&shop.deliver().await), ["order.cancelled"]);
    let asked = shop.till.rest().into_iter().map(|asked| asked.method);
    assert_eq!(asked.collect::<Vec<_>>(), ["GET"], "it is not submitted");
}

/// Two are at it at once: one is told that the till has refused the order, which is cancelled then; the other's call is taken.
#[tokio::test]
async fn an_order_that_the_till_takes_after_it_was_cancelled_is_taken_back() {
    let shop = Shop::start().await;
    let release = Arc::new(Notify::new());
    let held = Reply::Held(release.clone(), 200, accepted_text(3400));
    shop.till.reply_once(held);
    let meanwhile = async {
        shop.till.next().await;
        shop.till.reply_once(Reply::status(404));
        shop.till
            .reply_once(problem(422, "order-rejected", "SOLD_OUT"));
        shop.till.reply_once(Reply::status(404));
        let other = handler(&shop.till, &shop.book).await;
        let event = order_placed().to_string();
        let response = other.trigger("till", event.as_bytes()).await;
        assert_eq!(response.status(), StatusCode::OK);
        assert_eq!(kinds(&other.bus.rest()), ["order.cancelled"]);
        shop.till.reply_once(Reply::status(204));
        release.notify_one();
    };
    let (sent, ()) = tokio::join!(shop.deliver(), meanwhile);
    assert_eq!(kinds(&sent), ["order.cancelled"]);
    let asked = shop.till.rest();
    assert_eq!(asked.last().unwrap().path_and_query, "/orders/T-1/cancel");
    // Also where it is killed before: the till is asked.
    shop.till.reply_once(accepted(3400));
    shop.till.reply_once(Reply::status(204));
    assert_eq!(kinds(&shop.deliver().await), ["order.cancelled"]);
    let asked = shop.till.rest();
    assert_eq!(asked.last().unwrap().path_and_query, "/orders/T-1/cancel");
}

/// One was told that the till had nothing, and the order was cancelled; the other wrote that it was paid all the same.
#[tokio::test]
async fn what_is_paid_and_cancelled_at_once_is_a_persons_and_not_confirmed() {
    let shop = Shop::start().await;
    let at = "2026-11-25T05:00:00Z";
    let facts = [
        ("decision.json", json!({ "decision": "charge", "at": at })),
        ("till/abandoned-1.json", json!({ "at": at })),
        ("till/released-1.json", json!({ "at": at })),
        (
            "decision-2.json",
            json!({ "decision": "cancel", "at": at, "reason": "Changed my mind" }),
        ),
        ("till/paid.json", json!({ "at": at })),
    ];
    for (name, fact) in facts {
        let path = shop.book.0.join(format!("orders/{ORDER}/{name}"));
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, fact.to_string()).unwrap();
    }
    let sent = shop.deliver().await;
    assert_eq!(sent[0].header("dead-letter-reason"), "\"CancelledTooLate\"");
    let sent = hears_of_a_cancellation(&shop, "till").await;
    assert_eq!(sent[0].header("dead-letter-reason"), "\"CancelledTooLate\"");
}

/// The decision came first, and whether the till has heard of it a 404 alone does not say.
#[tokio::test]
async fn an_order_that_is_cancelled_elsewhere_after_the_decision_is_not_submitted_any_more() {
    let shop = Shop::start().await;
    shop.till.reply_once(Reply::status(502));
    assert_eq!(kinds(&shop.deliver().await), ["order.placed"]);
    hears_of_a_cancellation(&shop, "book").await;
    shop.till.rest();
    shop.till.reply_once(Reply::status(404));
    let sent = shop.deliver().await;
    assert_eq!(sent[0].header("dead-letter-reason"), "\"CancelledTooLate\"");
    let asked = shop.till.rest().into_iter().map(|asked| asked.method);
    assert_eq!(asked.collect::<Vec<_>>(), ["GET"]);
}

/// Killed after it was abandoned, and before it was released.
#[tokio::test]
async fn what_was_begun_to_be_given_up_is_tried_once_more() {
    let shop = Shop::start().await;
    shop.till.reply_once(problem(422, "invalid", "UNKNOWN_SKU"));
    shop.till.reply_once(Reply::status(502));
    assert_eq!(kinds(&shop.deliver().await), ["order.placed"]);
    assert!(
        shop.book
            .0
            .join(format!("orders/{ORDER}/till/abandoned-1.json"))
            .exists()
    );
    shop.till.reply_once(Reply::status(404));
    assert_eq!(kinds(&shop.deliver().await), ["order.placed"]);
    shop.till.reply_once(Reply::status(404));
    assert_eq!(kinds(&shop.deliver().await), ["order.confirmed"]);
}

/// On two instances at once: one key, one result.
#[tokio::test]
async fn two_deliveries_at_once_are_one_order() {
    let shop = Shop::start().await;
    let other = handler(&shop.till, &shop.book).await;
    let event = order_placed().to_string();
    let (one, two) = tokio::join!(
        shop.handler.trigger("till", event.as_bytes()),
        other.trigger("till", event.as_bytes())
    );
    assert_eq!(
        (one.status(), two.status()),
        (StatusCode::OK, StatusCode::OK)
    );
    let (one, two) = (shop.handler.bus.rest(), other.bus.rest());
    assert_eq!(kinds(&one), kinds(&two));
    assert_eq!(one[0].body, two[0].body);
    let keys = shop
        .till
        .rest()
        .into_iter()
        .filter(|asked| asked.method == "POST");
    let mut keys: Vec<_> = keys
        .map(|asked| asked.header("idempotency-key").to_owned())
        .collect();
    keys.dedup();
    assert_eq!(keys.len(), 1);
}

async fn hears_of_a_cancellation(shop: &Shop, function: &str) -> Vec<Received> {
    let mut cancelled = order_placed();
    cancelled["type"] = json!("order.cancelled");
    cancelled["id"] = json!(format!("{ORDER}:cancelled"));
    cancelled["data"]["cancellation"] = json!({ "reason": "By hand" });
    let body = cancelled.to_string();
    let response = shop.handler.trigger(function, body.as_bytes()).await;
    assert_eq!(response.status(), StatusCode::OK);
    shop.handler.bus.rest()
}

/// A message of somebody's own, about an order that has gone to the till; whether or not the book has heard of it before.
#[tokio::test]
async fn a_cancellation_from_elsewhere_that_comes_too_late_is_a_persons() {
    for functions in [&["till"][..], &["book", "till"]] {
        let shop = Shop::start().await;
        shop.deliver().await;
        let mut sent = Vec::new();
        for function in functions {
            sent = hears_of_a_cancellation(&shop, function).await;
        }
        assert_eq!(sent[0].header("dead-letter-reason"), "\"CancelledTooLate\"");
    }
}

#[tokio::test]
async fn a_cancellation_from_elsewhere_that_comes_before_the_order_keeps_it_from_the_till() {
    let shop = Shop::start().await;
    assert!(hears_of_a_cancellation(&shop, "book").await.is_empty());
    assert_eq!(kinds(&shop.deliver().await), ["order.cancelled"]);
    assert!(hears_of_a_cancellation(&shop, "till").await.is_empty());
    assert!(shop.till.rest().is_empty());
}

/// Killed after the till has cancelled what was at another total: it is asked, and says so.
#[tokio::test]
async fn a_kill_while_an_order_is_taken_back_cancels_it_once() {
    let mut shop = Shop::start().await;
    shop.till.reply_once(accepted(3740));
    shop.till.reply_once(Reply::Hang);
    let envelope = json!({ "Data": { "message": order_placed().to_string() }, "Metadata": {} });
    let request = shop.handler.http.post(shop.handler.url("/till"));
    let lost = tokio::spawn(request.json_body(&envelope).send());
    while shop.till.next().await.path_and_query != "/orders/T-1/cancel" {}
    shop.handler.kill().await;
    lost.await.unwrap().expect_err("nobody answers any more");

    shop.handler = handler(&shop.till, &shop.book).await;
    shop.till.reply_once(cancelled());
    shop.till.reply_once(cancelled());
    let sent = shop.deliver().await;
    assert_eq!(kinds(&sent), ["order.cancelled"]);
    // It may have charged before.
    let cancellation = &sent[0].json()["data"]["cancellation"];
    assert_eq!(*cancellation, json!({ "reason": "rejected_by_vendor" }));
}

/// A till is nothing without the book in which its steps are kept.
#[tokio::test]
async fn without_a_till_the_message_is_completed() {
    let handler = Handler::start().await;
    let request = handler.http.post(handler.url("/till"));
    let envelope = json!({ "Data": { "message": order_placed().to_string() }, "Metadata": {} });
    let response = request.json_body(&envelope).send().await.unwrap();
    assert_eq!(response.status(), StatusCode::OK);
    assert!(handler.bus.rest().is_empty());
    let lines = handler.stop().await;
    let said = lines
        .iter()
        .filter(|line| line.contains("no till is configured"));
    assert_eq!(said.count(), 1, "{lines:#?}");
}
