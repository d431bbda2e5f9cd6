//! Orders, payments and their ends at the till: the real handler, the stand-in Square, the order book in a folder.
//!
//! What holds in every test: an order is paid at most once, and a cancelled order is not paid.

use axum::http::StatusCode;
use serde_json::{Value, json};

use crate::{
    copies::at,
    devhost::{DevHost, has},
    handler::{Handler, JsonBody, json_of, order, order_placed},
    service_bus::sas,
};

/// So short that what waits comes back within the test.
const SOON: (&str, &str) = ("RETRY_SCHEDULE", "1s");

async fn place_with(host: &DevHost, source: &str) -> String {
    let mut order = order();
    order["payment"]["source"] = json!(source);
    let response = host.post("/api/checkout", &order).await;
    assert_eq!(response.status(), StatusCode::ACCEPTED);
    let answer = json_of(response).await;
    answer["orderId"].as_str().unwrap().to_owned()
}

async fn place(host: &DevHost) -> String {
    place_with(host, "cnon:card-nonce-ok").await
}

fn count(entries: &[Value], name: &str, value: &str) -> usize {
    entries.iter().filter(|entry| entry[name] == value).count()
}

/// The order is at the till once, and paid once.
async fn assert_paid_once(host: &DevHost, order_id: &str) {
    let (orders, payments) = host.at_the_till(order_id).await;
    assert_eq!(orders.len(), 1, "{orders:?}");
    assert_eq!(orders[0]["state"], "COMPLETED", "{orders:?}");
    assert_eq!(count(&payments, "status", "COMPLETED"), 1, "{payments:?}");
    assert_eq!(count(&payments, "status", "APPROVED"), 0, "{payments:?}");
}

/// Nothing is taken or reserved, and the till has no open order.
async fn assert_nothing_charged(host: &DevHost, order_id: &str) {
    let (orders, payments) = host.at_the_till(order_id).await;
    assert_eq!(count(&payments, "status", "COMPLETED"), 0, "{payments:?}");
    assert_eq!(count(&payments, "status", "APPROVED"), 0, "{payments:?}");
    assert_eq!(
        count(&orders, "state", "CANCELED"),
        orders.len(),
        "{orders:?}"
    );
}

async fn cancel(host: &DevHost, order_id: &str) -> (StatusCode, Value) {
    let reason = json!({ "reason": "Changed my mind" });
    let response = host
        .post(&format!("/api/orders/{order_id}/cancel"), &reason)
        .await;
    (response.status(), json_of(response).await)
}

fn subjects(emails: &Value) -> Vec<&str> {
    let emails = emails.as_array().unwrap().iter();
    emails
        .map(|email| email["subject"].as_str().unwrap())
        .collect()
}

#[tokio::test]
async fn an_order_is_paid_and_confirmed_and_then_the_vendors_hear_of_it() {
    let host = DevHost::with_till(&[]).await;
    let order_id = place(&host).await;
    let order = host.wait_for_status(&order_id, "confirmed").await;
    assert_paid_once(&host, &order_id).await;
    assert_eq!(order["total"], json!({ "amount": 3400, "currency": "AUD" }));

    let emails = host.wait_for("/_dev/emails", has(2)).await;
    let mut subjects = subjects(&emails);
    subjects.sort_unstable();
    assert!(
        subjects[0].starts_with("We have your order"),
        "{subjects:?}"
    );
    assert!(subjects[1].ends_with("is confirmed"), "{subjects:?}");
    let webhooks = host.wait_for("/_dev/webhooks", has(2)).await;
    for webhook in webhooks.as_array().unwrap() {
        assert_eq!(webhook["verified"], true, "{webhook}");
        assert_eq!(webhook["body"]["type"], "order.confirmed", "{webhook}");
        assert_eq!(webhook["body"]["data"]["version"], 2);
    }
    host.wait_until_idle().await;
    let (code, printed) = host.audit("square").await;
    assert_eq!(code, Some(0), "{printed}");
}

#[tokio::test]
async fn vendors_hear_of_an_order_at_once_where_that_is_set() {
    let host = DevHost::with_till(&[("VENDOR_NOTIFY_ON", "placed")]).await;
    let order_id = place(&host).await;
    host.wait_for_status(&order_id, "confirmed").await;
    let webhooks = host.wait_for("/_dev/webhooks", has(2)).await;
    for webhook in webhooks.as_array().unwrap() {
        assert_eq!(webhook["body"]["type"], "order.placed", "{webhook}");
    }
    let declined = place_with(&host, "cnon:card-nonce-declined").await;
    host.wait_for_status(&declined, "cancelled").await;
    // Told, and then told that it is cancelled; or, if the till was quicker, only that.
    host.wait_until_idle().await;
    let webhooks = host.get("/_dev/webhooks").await;
    for vendor in ["bakery", "florist"] {
        let own = |webhook: &&Value| {
            webhook["vendor"] == vendor && webhook["body"]["data"]["orderId"] == declined.as_str()
        };
        let last = webhooks.as_array().unwrap().iter().rfind(own).unwrap();
        assert_eq!(last["body"]["type"], "order.cancelled", "{webhooks}");
    }
    let (code, printed) = host.audit("square").await;
    assert_eq!(code, Some(0), "{printed}");
}

#[tokio::test]
async fn a_payment_that_is_declined_cancels_the_order_and_no_vendor_ever_hears_of_it() {
    let host = DevHost::with_till(&[]).await;
    let sources = [
        "cnon:card-nonce-declined",
        "cnon:card-nonce-rejected-cvv",
        "cnon:card-nonce-rejected-expiration",
        "cnon:card-nonce-already-used",
        "cnon:card-nonce-expired",
        "cnon:no-such-nonce",
        "nonsense",
    ];
    for source in sources {
        let order_id = place_with(&host, source).await;
        let order = host.wait_for_status(&order_id, "cancelled").await;
        assert_eq!(
            order["cancellation"],
            json!({ "reason": "payment_declined", "charged": false }),
            "{source}"
        );
        host.wait_until_idle().await;
        assert_nothing_charged(&host, &order_id).await;
        let (status, _) = cancel(&host, &order_id).await;
        assert_eq!(status, StatusCode::ACCEPTED, "it is cancelled as asked");
    }
    let emails = host.wait_for("/_dev/emails", has(2 * sources.len())).await;
    let emails = emails.as_array().unwrap().iter();
    let told = emails.filter(|email| {
        email["text"]
            .as_str()
            .unwrap()
            .contains("You were not charged.")
    });
    assert_eq!(told.count(), sources.len());
    host.wait_until_idle().await;
    assert_eq!(host.get("/_dev/webhooks").await, json!([]));
    let (code, printed) = host.audit("square").await;
    assert_eq!(code, Some(0), "{printed}");
    host.assert_unsaid(&[
        "cnon:card",
        "cnon:no",
        "Lovelace",
        "ada@",
        "only-for-this-machine",
    ]);
}

/// The same order twice at once, as two messages: nothing but the book and the keys stands between them.
#[tokio::test]
async fn an_order_that_is_delivered_twice_at_once_is_paid_once() {
    let host = DevHost::with_till(&[SOON]).await;
    host.fault("till", &json!({ "latencyMs": 50 })).await;
    let mut orders = Vec::new();
    for _ in 0..10 {
        let order_id = uuid::Uuid::now_v7().to_string();
        let mut event = order_placed();
        event["data"]["orderId"] = json!(order_id);
        event["id"] = json!(format!("{order_id}:placed"));
        event["subject"] = json!(order_id);
        event["time"] = json!("2026-11-25T05:00:00Z");
        orders.push((order_id, event));
    }
    let sends = orders.iter().flat_map(|(order_id, event)| {
        ["one", "two"].map(|name| {
            let url = format!("http://127.0.0.1:{}/orders/messages", host.bus_port);
            let properties = json!({ "MessageId": format!("{order_id}:{name}") });
            host.http
                .post(&url)
                .header("Authorization", sas(&url))
                .header("Content-Type", "application/cloudevents+json")
                .header("BrokerProperties", properties.to_string())
                .body(event.to_string())
                .send()
        })
    });
    for sent in futures_util::future::join_all(sends).await {
        assert_eq!(sent.unwrap().status(), StatusCode::CREATED);
    }
    let orders: Vec<String> = orders.into_iter().map(|(order_id, _)| order_id).collect();
    assert_all_paid(&host, &orders).await;
    // One email that it was placed, and one that it is confirmed.
    let emails = host.get("/_dev/emails").await;
    assert_eq!(emails.as_array().unwrap().len(), 2 * orders.len());
}

/// In two processes, which share nothing but the order book and Square.
#[tokio::test]
async fn an_order_that_comes_to_two_instances_at_once_is_paid_once() {
    let host = DevHost::with_till(&[]).await;
    host.fault("till", &json!({ "latencyMs": 20 })).await;
    let (book, square) = (host.book(), host.square());
    let settings = [
        ("ORDER_BOOK", book.to_str().unwrap()),
        ("TILL", "square"),
        ("SQUARE_BASE_URL", &square),
        ("SQUARE_ACCESS_TOKEN", "devhost-stand-in-not-a-secret"),
        ("SQUARE_LOCATION_ID", "LDEVHOST"),
    ];
    let one = Handler::start_with(&settings).await;
    let two = Handler::start_with(&settings).await;
    for _ in 0..10 {
        let order_id = uuid::Uuid::now_v7().to_string();
        let mut event = order_placed();
        event["data"]["orderId"] = json!(order_id);
        event["id"] = json!(format!("{order_id}:placed"));
        event["subject"] = json!(order_id);
        event["time"] = json!(at(time::OffsetDateTime::now_utc()));
        // One of them may be told to come again, because the other is at it.
        while !book
            .join(format!("orders/{order_id}/confirmed.json"))
            .exists()
        {
            let body = event.to_string();
            let at_once = [&one, &two].map(|it| it.trigger("till", body.as_bytes()));
            for response in futures_util::future::join_all(at_once).await {
                assert_eq!(response.status(), StatusCode::OK);
            }
            for sent in one.bus.rest().into_iter().chain(two.bus.rest()) {
                assert!(!sent.headers.contains_key("dead-letter-reason"), "{sent:?}");
                assert_ne!(sent.json()["type"], "order.cancelled", "{sent:?}");
            }
        }
        assert_paid_once(&host, &order_id).await;
    }
}

#[tokio::test]
async fn what_the_shop_was_paid_itself_is_only_recorded() {
    let host = DevHost::with_till(&[]).await;
    let order_id = place_with(&host, "EXTERNAL").await;
    host.wait_for_status(&order_id, "confirmed").await;
    assert_paid_once(&host, &order_id).await;
    let (_, payments) = host.at_the_till(&order_id).await;
    assert_eq!(payments[0]["sourceType"], "EXTERNAL");
}

#[tokio::test]
async fn an_order_that_costs_nothing_is_confirmed() {
    let host = DevHost::with_till(&[]).await;
    let mut free = order();
    for line in [0, 1] {
        free["lineItems"][line]["unitPrice"]["amount"] = json!(0);
    }
    let response = host.post("/api/checkout", &free).await;
    let order_id = json_of(response).await["orderId"]
        .as_str()
        .unwrap()
        .to_owned();
    host.wait_for_status(&order_id, "confirmed").await;
    let (orders, payments) = host.at_the_till(&order_id).await;
    assert_eq!(orders[0]["state"], "COMPLETED");
    assert_eq!(payments, Vec::<Value>::new());
}

async fn till(host: &DevHost, change: &Value) {
    let request = host.http.put(host.url("/_dev/till")).json_body(change);
    let response = request.send().await.unwrap();
    assert!(
        response.status().is_success(),
        "{:?}",
        response.text().await
    );
}

#[tokio::test]
async fn a_price_that_has_changed_is_not_charged() {
    let host = DevHost::with_till(&[]).await;
    till(&host, &json!({ "priceChangePercent": 10 })).await;
    let order_id = place(&host).await;
    let order = host.wait_for_status(&order_id, "cancelled").await;
    assert_eq!(order["cancellation"]["reason"], "rejected_by_vendor");
    host.wait_until_idle().await;
    assert_nothing_charged(&host, &order_id).await;
}

#[tokio::test]
async fn a_location_that_is_closed_delays_orders_and_cancels_none() {
    let host = DevHost::with_till(&[SOON]).await;
    till(&host, &json!({ "locationClosed": true })).await;
    let order_id = place(&host).await;
    let waits = |order: &Value| order["waiting"][0]["lastError"] == "channel-broken";
    host.wait_for(&format!("/api/orders/{order_id}"), waits)
        .await;
    assert_eq!(host.at_the_till(&order_id).await, (Vec::new(), Vec::new()));
    till(&host, &json!({ "locationClosed": false })).await;
    host.wait_for_status(&order_id, "confirmed").await;
    assert_paid_once(&host, &order_id).await;
    // And nobody is said to wait.
    host.wait_until_idle().await;
    let order = host.get(&format!("/api/orders/{order_id}")).await;
    assert_eq!(order["waiting"], json!([]), "{order}");
}

/// Whatever the till does at whichever step, and whether or not it did what it was asked before.
#[tokio::test]
async fn a_till_that_fails_at_any_step_delays_the_order_and_is_paid_once() {
    let host = DevHost::with_till(&[SOON]).await;
    for step in ["orders", "payments", "pay"] {
        for fault in [
            json!({ "status": 503, "times": 1 }),
            json!({ "status": 503, "retryAfter": 1, "times": 1 }),
            json!({ "status": 500, "times": 1 }),
            json!({ "status": 429, "retryAfter": 1, "times": 1 }),
            json!({ "drop": "before", "times": 1 }),
            json!({ "drop": "after", "times": 1 }),
        ] {
            host.fault(&format!("till/{step}"), &fault).await;
            let order_id = place(&host).await;
            host.wait_for_status(&order_id, "confirmed").await;
            assert_paid_once(&host, &order_id).await;
        }
    }
    let temporary = place_with(&host, "cnon:card-nonce-temporary").await;
    host.wait_for_status(&temporary, "confirmed").await;
    assert_paid_once(&host, &temporary).await;
    host.wait_until_idle().await;
    let (code, printed) = host.audit("square").await;
    assert_eq!(code, Some(0), "{printed}");
}

/// Every order is confirmed, and paid once; there is no other payment.
async fn assert_all_paid(host: &DevHost, orders: &[String]) {
    for order_id in orders {
        host.wait_for_status(order_id, "confirmed").await;
        assert_paid_once(host, order_id).await;
    }
    host.wait_until_idle().await;
    let till = host.get("/_dev/till").await;
    let all = |name: &str| till[name].as_array().unwrap().clone();
    assert_eq!(count(&all("orders"), "state", "COMPLETED"), orders.len());
    assert_eq!(count(&all("payments"), "status", "COMPLETED"), orders.len());
    assert_eq!(all("payments").len(), orders.len());
    let (code, printed) = host.audit("square").await;
    assert_eq!(code, Some(0), "{printed}");
}

/// `kill -9` between every two steps: while the till is asked and has not done it yet, and when it has and the answer is on
/// its way.
#[tokio::test]
async fn a_kill_between_any_two_steps_is_paid_once() {
    for step in ["orders", "payments", "pay"] {
        // The host gives up after the third.
        let host = DevHost::with_till(&[SOON]).await;
        let mut killed = Vec::new();
        for fault in [
            json!({ "hang": true, "times": 1 }),
            json!({ "hang": true, "drop": "after", "times": 1 }),
        ] {
            let before = host.get("/_dev/faults").await;
            host.fault(&format!("till/{step}"), &fault).await;
            killed.push(place(&host).await);
            // It has struck: the handler waits for an answer that never comes.
            host.wait_for("/_dev/faults", |faults| *faults == before)
                .await;
            host.kill_handler().await;
        }
        assert_all_paid(&host, &killed).await;
    }
}

/// The money is taken, and the bus has not heard of it, or has and nobody knows.
#[tokio::test]
async fn a_kill_while_the_bus_is_told_is_confirmed_once() {
    for drop in ["before", "after"] {
        let host = DevHost::with_till(&[SOON]).await;
        let pay = json!({ "latencyMs": 300, "times": 1 });
        host.fault("till/pay", &pay).await;
        let order_id = place(&host).await;
        host.wait_for("/_dev/faults", |faults| *faults == json!({}))
            .await;
        // The next that the bus is told is what came of it.
        let bus = json!({ "hang": true, "drop": drop });
        host.fault("bus", &bus).await;
        let is_paid = |till: &Value| till["payments"][0]["status"] == "COMPLETED";
        host.wait_for("/_dev/till", is_paid).await;
        host.wait_for_status(&order_id, "confirmed").await;
        host.kill_handler().await;
        host.no_fault("bus").await;
        host.wait_for("/_dev/emails", has(2)).await;
        assert_all_paid(&host, &[order_id]).await;
        let webhooks = host.get("/_dev/webhooks").await;
        // The kill may have met a vendor's answer on its way: then it is told again, under the id that it knows.
        assert_eq!(webhooks.as_array().unwrap().len(), 2);
    }
}
