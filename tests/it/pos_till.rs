//! Orders at a till of the shop's own, from the message to the event that comes of it.

use axum::http::StatusCode;
use serde_json::{Value, json};

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

fn accepted(total: i64) -> Reply {
    let body =
        json!({ "order_id": ORDER, "status": "accepted", "external_id": "T-1", "total": total });
    // As for a repetition, and for whoever asks.
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
        let sent = shop.deliver().await;
        assert_eq!(kinds(&sent), ["order.cancelled"]);
        assert_eq!(
            sent[0].json()["data"]["cancellation"],
            json!({ "reason": reason, "charged": false })
        );
        // It stays so.
        assert_eq!(shop.deliver().await[0].body, sent[0].body);
        assert_eq!(shop.till.rest().len(), 1);
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
    shop.deliver().await;
    shop.keep_placed().await;
    assert_eq!(shop.cancel().await, StatusCode::ACCEPTED);
    shop.handler.bus.rest();
    shop.till.rest();
    assert_eq!(kinds(&shop.deliver().await), ["order.cancelled"]);
    assert!(shop.till.rest().is_empty());
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

/// A message of somebody's own, about an order that has gone to the till.
#[tokio::test]
async fn a_cancellation_from_elsewhere_that_comes_too_late_is_a_persons() {
    let shop = Shop::start().await;
    shop.deliver().await;
    let mut cancelled = order_placed();
    cancelled["type"] = json!("order.cancelled");
    cancelled["id"] = json!(format!("{ORDER}:cancelled"));
    cancelled["data"]["cancellation"] = json!({ "reason": "By hand" });
    let response = shop
        .handler
        .trigger("till", cancelled.to_string().as_bytes())
        .await;
    assert_eq!(response.status(), StatusCode::OK);
    let sent = shop.handler.bus.rest();
    assert_eq!(sent[0].header("dead-letter-reason"), "\"CancelledTooLate\"");
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
