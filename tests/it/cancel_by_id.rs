//! A cancellation that names the order by its id, with and against the till.

use axum::http::StatusCode;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::{
    devhost::{DevHost, has},
    handler::{json_of, order},
};

async fn place(host: &DevHost) -> String {
    let response = host.post("/api/checkout", &order()).await;
    assert_eq!(response.status(), StatusCode::ACCEPTED);
    let answer = json_of(response).await;
    answer["orderId"].as_str().unwrap().to_owned()
}

async fn cancel(host: &DevHost, order_id: &str, reason: &str) -> (StatusCode, Value) {
    let body = json!({ "reason": reason });
    let response = host
        .post(&format!("/api/orders/{order_id}/cancel"), &body)
        .await;
    (response.status(), json_of(response).await)
}

#[tokio::test]
async fn an_order_is_cancelled_by_its_id_and_once() {
    let host = DevHost::start().await;
    let order_id = place(&host).await;
    // At once, and so perhaps before it is in the order book.
    let (status, answer) = cancel(&host, &order_id, "Ordered twice").await;
    assert_eq!(status, StatusCode::ACCEPTED, "{answer}");
    assert_eq!(answer["orderId"], order_id.as_str());
    let (status, _) = cancel(&host, &order_id, "Really").await;
    assert_eq!(status, StatusCode::ACCEPTED);

    let order = host.wait_for_status(&order_id, "cancelled").await;
    assert_eq!(order["cancellation"]["reason"], "Ordered twice");
    host.wait_until_idle().await;
    let emails = host.get("/_dev/emails").await;
    let of = |subject: &str| {
        let emails = emails.as_array().unwrap().iter();
        emails
            .filter(|email| email["subject"].as_str().unwrap().contains(subject))
            .count()
    };
    assert_eq!(of("has been cancelled"), 1, "{emails}");
    let webhooks = host.get("/_dev/webhooks").await;
    let cancelled = webhooks.as_array().unwrap().iter();
    let cancelled = cancelled.filter(|webhook| webhook["body"]["type"] == "order.cancelled");
    assert_eq!(cancelled.count(), 2, "{webhooks}");
}

#[tokio::test]
async fn an_id_that_nobody_was_given_is_not_found() {
    let host = DevHost::start().await;
    // Of 22 November, and of no time at all.
    for id in [
        Uuid::from_u128(0x0193_5a1e_9c00_7000_8000_0000_0000_0001),
        Uuid::new_v4(),
    ] {
        let (status, problem) = cancel(&host, &id.to_string(), "Why not").await;
        assert_eq!(status, StatusCode::NOT_FOUND, "{problem}");
    }
    assert_eq!(host.get("/_dev/emails").await, json!([]));
}

#[tokio::test]
async fn an_order_that_may_be_on_its_way_into_the_book_is_waited_for() {
    let host = DevHost::start().await;
    let (status, problem) = cancel(&host, &Uuid::now_v7().to_string(), "Why not").await;
    assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE, "{problem}");
    assert!(
        problem["detail"]
            .as_str()
            .unwrap()
            .contains("not in the order book yet"),
        "{problem}"
    );
}

#[tokio::test]
async fn an_order_that_is_confirmed_is_not_cancelled_any_more() {
    let host = DevHost::with_till(&[]).await;
    let order_id = place(&host).await;
    host.wait_for_status(&order_id, "confirmed").await;
    let (status, problem) = cancel(&host, &order_id, "Changed my mind").await;
    assert_eq!(status, StatusCode::CONFLICT);
    let detail = problem["detail"].as_str().unwrap();
    assert!(detail.contains("was confirmed at 20"), "{problem}");
    host.wait_until_idle().await;
    assert_eq!(
        host.get(&format!("/api/orders/{order_id}")).await["status"],
        "confirmed"
    );
}

/// What the till has reserved for an order that is cancelled before it was charged is released.
#[tokio::test]
async fn a_payment_that_is_reserved_for_a_cancelled_order_is_voided() {
    let host = DevHost::with_till(&[("RETRY_SCHEDULE", "1s")]).await;
    // Square reserves the payment, and nobody hears of it.
    let fault = json!({ "drop": "after", "times": 1 });
    host.fault("till/payments", &fault).await;
    let down = json!({ "status": 503 });
    host.fault("till/pay", &down).await;
    host.fault("till/cancel", &down).await;
    let order_id = place(&host).await;
    let is_reserved = |till: &Value| till["payments"][0]["status"] == "APPROVED";
    host.wait_for("/_dev/till", is_reserved).await;
    let (status, problem) = cancel(&host, &order_id, "Changed my mind").await;
    if status == StatusCode::CONFLICT {
        panic!("it had not been decided: {problem}");
    }
    assert_eq!(status, StatusCode::ACCEPTED);
    host.no_fault("till/pay").await;
    host.no_fault("till/cancel").await;
    let order = host.wait_for_status(&order_id, "cancelled").await;
    assert_eq!(order["cancellation"]["charged"], false);
    host.wait_until_idle().await;
    let (orders, payments) = host.at_the_till(&order_id).await;
    assert_eq!(orders[0]["state"], "CANCELED", "{orders:?}");
    assert_eq!(payments.len(), 1);
    assert_eq!(payments[0]["status"], "CANCELED", "{payments:?}");
    assert_eq!(host.get("/_dev/webhooks").await, json!([]));
    host.wait_for("/_dev/emails", has(2)).await;
    let (code, printed) = host.audit("square").await;
    assert_eq!(code, Some(0), "{printed}");
}

/// `kill -9` while the payment of a cancelled order is voided: before Square has done it, and when it has and nobody knows.
#[tokio::test]
async fn a_kill_while_a_payment_is_voided_leaves_nothing_reserved() {
    for fault in [
        json!({ "hang": true, "times": 1 }),
        json!({ "hang": true, "drop": "after", "times": 1 }),
    ] {
        let host = DevHost::with_till(&[("RETRY_SCHEDULE", "1s")]).await;
        let lost = json!({ "drop": "after", "times": 1 });
        host.fault("till/payments", &lost).await;
        host.fault("till/cancel", &fault).await;
        let order_id = place(&host).await;
        let is_reserved = |till: &Value| till["payments"][0]["status"] == "APPROVED";
        host.wait_for("/_dev/till", is_reserved).await;
        let (status, problem) = cancel(&host, &order_id, "Changed my mind").await;
        assert_eq!(status, StatusCode::ACCEPTED, "{problem}");
        host.wait_for("/_dev/faults", |faults| *faults == json!({}))
            .await;
        host.kill_handler().await;
        host.wait_for_status(&order_id, "cancelled").await;
        host.wait_for("/_dev/emails", has(2)).await;
        host.wait_until_idle().await;
        let (orders, payments) = host.at_the_till(&order_id).await;
        assert_eq!(orders[0]["state"], "CANCELED", "{orders:?}");
        assert_eq!(payments.len(), 1, "{payments:?}");
        assert_eq!(payments[0]["status"], "CANCELED", "{payments:?}");
        let (code, printed) = host.audit("square").await;
        assert_eq!(code, Some(0), "{printed}");
    }
}

/// Both at once, many times: whoever is first decides, and nobody is charged for a cancelled order.
#[tokio::test]
async fn a_cancellation_that_races_the_till_leaves_the_order_either_paid_or_cancelled() {
    let host = DevHost::with_till(&[]).await;
    let race = async || {
        let order_id = place(&host).await;
        let (status, answer) = cancel(&host, &order_id, "Changed my mind").await;
        match status {
            StatusCode::ACCEPTED => {
                host.wait_for_status(&order_id, "cancelled").await;
            }
            StatusCode::CONFLICT => {
                host.wait_for_status(&order_id, "confirmed").await;
            }
            _ => panic!("{status}: {answer}"),
        }
        (order_id, status)
    };
    let raced = futures_util::future::join_all((0..20).map(|_| race())).await;
    host.wait_until_idle().await;
    for (order_id, status) in raced {
        let (orders, payments) = host.at_the_till(&order_id).await;
        let of = |status: &str| {
            let found = payments
                .iter()
                .filter(|payment| payment["status"] == status);
            found.count()
        };
        assert_eq!(of("APPROVED"), 0, "{payments:?}");
        let is_confirmed = status == StatusCode::CONFLICT;
        assert_eq!(of("COMPLETED"), usize::from(is_confirmed), "{payments:?}");
        for order in orders {
            let state = if is_confirmed {
                "COMPLETED"
            } else {
                "CANCELED"
            };
            assert_eq!(order["state"], state, "{order}");
        }
    }
    let (code, printed) = host.audit("square").await;
    assert_eq!(code, Some(0), "{printed}");
}

/// The till is about to authorise the payment when the order is cancelled: no dead letter, and nothing reserved.
#[tokio::test]
async fn an_order_that_is_cancelled_while_its_payment_is_authorised_is_voided() {
    let host = DevHost::with_till(&[("RETRY_SCHEDULE", "1s")]).await;
    let slow = json!({ "latencyMs": 1500, "times": 1 });
    host.fault("till/payments", &slow).await;
    let order_id = place(&host).await;
    let is_asked = |faults: &Value| *faults == json!({});
    host.wait_for("/_dev/faults", is_asked).await;
    let (status, problem) = cancel(&host, &order_id, "Changed my mind").await;
    assert_eq!(status, StatusCode::ACCEPTED, "{problem}");
    host.wait_for_status(&order_id, "cancelled").await;
    host.wait_until_idle().await;
    let (orders, payments) = host.at_the_till(&order_id).await;
    assert_eq!(orders[0]["state"], "CANCELED", "{orders:?}");
    let holds_money =
        |payment: &&Value| ["APPROVED", "COMPLETED"].contains(&payment["status"].as_str().unwrap());
    assert_eq!(payments.iter().find(holds_money), None);
    let (code, printed) = host.audit("square").await;
    assert_eq!(code, Some(0), "{printed}");
    assert!(
        printed.contains("1 told") && printed.contains(" 0 dead"),
        "{printed}"
    );
}
