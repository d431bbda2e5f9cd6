//! `kill -9` while the handler waits for somebody outside, and what the next process does with the same request.
//!
//! Whoever was asked may have done what they were asked to. What is said again must be the same to the byte, under the
//! same id, so that they can tell.

use std::cell::Cell;

use axum::http::StatusCode;
use serde_json::{Value, json};

use crate::{
    handler::{Handler, JsonBody, json_of, order, order_placed},
    scripted_server::{Received, Reply, ScriptedServer},
};

/// Starts a request, kills the handler while `asked` waits for its answer, and makes the request of another one.
async fn again<'a>(
    killed: &'a mut Handler,
    next: &'a Handler,
    asked: impl Fn(&Handler) -> &ScriptedServer,
    request: impl Fn(&Handler) -> reqwest::RequestBuilder,
) -> (Received, Received, reqwest::Response) {
    asked(killed).reply_once(Reply::Hang);
    let lost = tokio::spawn(request(killed).send());
    let first = asked(killed).next().await;
    killed.kill().await;
    lost.await.unwrap().expect_err("nobody answers any more");
    let response = request(next).send().await.unwrap();
    let second = asked(next).next().await;
    (first, second, response)
}

#[tokio::test]
async fn an_order_whose_answer_was_lost_has_the_same_message_id_when_it_is_sent_again() {
    let (mut killed, next) = (Handler::start().await, Handler::start().await);
    let (first, second, response) = again(
        &mut killed,
        &next,
        |handler| &handler.bus,
        |handler| {
            let request = handler.http.post(handler.url("/api/checkout"));
            request
                .header("Idempotency-Key", "8e03978e")
                .json_body(&order())
        },
    )
    .await;
    assert_eq!(response.status(), StatusCode::ACCEPTED);
    let message_id = |sent: &Received| {
        let properties: Value = serde_json::from_str(sent.header("brokerproperties")).unwrap();
        properties["MessageId"].clone()
    };
    assert_eq!(message_id(&first), message_id(&second));
    let order_id = json_of(response).await["orderId"].clone();
    assert_eq!(first.json()["subject"], order_id);
}

/// Delivers the message as the host does for the first time, the second, and so on.
fn deliveries(function: &str) -> impl Fn(&Handler) -> reqwest::RequestBuilder {
    let count = Cell::new(0);
    move |handler| {
        count.set(count.get() + 1);
        let metadata = json!({ "DeliveryCount": count.get().to_string() });
        let envelope = json!({ "Data": { "message": order_placed() }, "Metadata": metadata });
        let url = handler.url(&format!("/{function}"));
        handler.http.post(url).json_body(&envelope)
    }
}

#[tokio::test]
async fn an_email_that_the_provider_may_have_is_asked_for_and_sent_again_under_its_key() {
    let (mut killed, next) = (Handler::start().await, Handler::start().await);
    // It does not have it.
    next.provider.reply_once(Reply::status(404));
    let (first, asked, response) = again(
        &mut killed,
        &next,
        |handler| &handler.provider,
        deliveries("notify"),
    )
    .await;
    assert_eq!(response.status(), StatusCode::OK);
    let key = first.header("operation-id");
    assert_eq!(asked.method, "GET");
    assert!(
        asked.path_and_query.contains(key),
        "{}",
        asked.path_and_query
    );
    let second = next.provider.next().await;
    assert_eq!(second.header("operation-id"), key);
    assert_eq!(first.body, second.body);
}

#[tokio::test]
async fn a_webhook_that_a_vendor_may_have_is_sent_again_under_its_id() {
    let (mut killed, next) = (Handler::start().await, Handler::start().await);
    let (first, second, response) = again(
        &mut killed,
        &next,
        |handler| &handler.bakery,
        deliveries("vendor-notify"),
    )
    .await;
    assert_eq!(response.status(), StatusCode::OK);
    assert_eq!(first.header("webhook-id"), second.header("webhook-id"));
    assert_eq!(first.body, second.body);
}
