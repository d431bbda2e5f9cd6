//! Deliveries by the host, through the real binary.

use axum::http::StatusCode;
use base64::{Engine, engine::general_purpose::STANDARD};
use serde_json::{Value, json};

use crate::{
    copies::Copy,
    handler::{Handler, JsonBody, OTHER_SECRET, SECRET, order_placed},
    scripted_server::{Received, Reply},
};

/// The body that the host takes for success; an empty one would hang the invocation.
pub(crate) async fn assert_completed(response: reqwest::Response) {
    assert_eq!(response.status(), StatusCode::OK);
    assert_eq!(response.headers()["content-type"], "application/json");
    let body = response.text().await.unwrap();
    assert_eq!(body, r#"{"Outputs":{},"Logs":[],"ReturnValue":null}"#);
}

fn verifies(webhook: &Received, secret: &str) -> bool {
    let verifier = standardwebhooks::Webhook::new(secret).unwrap();
    verifier
        .verify(webhook.body.as_bytes(), &webhook.headers)
        .is_ok()
}

#[tokio::test]
async fn the_customer_gets_one_email_with_a_stable_key() {
    let handler = Handler::start().await;
    let message = order_placed().to_string();

    assert_completed(handler.trigger("notify", message.as_bytes()).await).await;
    assert_completed(handler.trigger("notify", message.as_bytes()).await).await;

    let (first, second) = (handler.provider.next().await, handler.provider.next().await);
    assert_eq!(first.path_and_query, "/emails:send?api-version=2025-09-01");
    assert_eq!(
        first.json()["recipients"]["to"][0]["address"],
        "ada@example.net"
    );
    // A redelivery says the same thing under the same key, so that the provider can drop it.
    assert_eq!(first.header("operation-id"), second.header("operation-id"));
    assert_eq!(first.body, second.body);
    let mut cancelled = order_placed();
    cancelled["type"] = json!("order.cancelled");
    cancelled["data"]["cancellation"] = json!({ "reason": "Ordered twice" });
    assert_completed(
        handler
            .trigger("notify", cancelled.to_string().as_bytes())
            .await,
    )
    .await;
    let third = handler.provider.next().await;
    assert_ne!(third.header("operation-id"), first.header("operation-id"));
    assert!(handler.bakery.rest().is_empty());
}

#[tokio::test]
async fn each_vendor_gets_its_own_signed_webhook() {
    let handler = Handler::start().await;

    let response = handler
        .trigger("vendor-notify", order_placed().to_string().as_bytes())
        .await;

    assert_completed(response).await;
    let (bakery, florist) = (handler.bakery.next().await, handler.florist.next().await);
    assert!(verifies(&bakery, SECRET) && !verifies(&bakery, OTHER_SECRET));
    // The florist is changing its secret: both sign.
    assert!(verifies(&florist, SECRET) && verifies(&florist, OTHER_SECRET));
    assert_eq!(bakery.header("content-type"), "application/json");
    assert_eq!(bakery.json()["type"], "order.placed");
    assert_eq!(bakery.json()["data"]["lineItems"][0]["sku"], "PANCAKE-12");
    assert_eq!(
        bakery.json()["data"]["lineItems"].as_array().unwrap().len(),
        1
    );
    assert_eq!(
        florist.json()["data"]["total"],
        json!({ "amount": 900, "currency": "AUD" })
    );
    for webhook in [&bakery, &florist] {
        let body = &webhook.body;
        assert!(
            !body.contains("cnon") && !body.contains("ada@example.net"),
            "{body}"
        );
    }
    assert_ne!(bakery.header("webhook-id"), florist.header("webhook-id"));
    assert!(handler.provider.rest().is_empty());
}

#[tokio::test]
async fn vendors_are_told_at_the_same_time() {
    let handler = Handler::start().await;
    let release = std::sync::Arc::new(tokio::sync::Notify::new());
    handler
        .bakery
        .reply_once(Reply::Held(release.clone(), 200, String::new()));

    let message = order_placed().to_string();
    let trigger = handler.trigger("vendor-notify", message.as_bytes());
    let florist = async {
        // The florist hears of it while the bakery has not answered yet.
        handler.florist.next().await;
        release.notify_one();
    };
    let (response, ()) = tokio::join!(trigger, florist);
    assert_completed(response).await;
}

#[tokio::test]
async fn redirects_are_not_followed() {
    let handler = Handler::start().await;
    let elsewhere = handler.florist.url() + "/elsewhere";
    for _ in 0..3 {
        handler
            .bakery
            .reply_once(Reply::with_header(302, "location", elsewhere.clone()));
    }
    let mut event = order_placed();
    event["data"]["lineItems"].as_array_mut().unwrap().remove(1);

    let response = handler
        .trigger("vendor-notify", event.to_string().as_bytes())
        .await;

    assert_completed(response).await;
    assert_eq!(handler.bakery.rest().len(), 3, "with the two quick retries");
    assert!(handler.florist.rest().is_empty());
    assert_eq!(
        Copy::next(&handler).await["last-error"],
        "transient: the vendor answered 302 Found"
    );
}

#[tokio::test]
async fn a_name_that_leads_inside_is_not_called() {
    let handler = Handler::start().await;
    let mut event = order_placed();
    event["data"]["lineItems"].as_array_mut().unwrap().remove(1);
    event["data"]["lineItems"][0]["vendorId"] = json!("inside");

    let response = handler
        .trigger("vendor-notify", event.to_string().as_bytes())
        .await;

    assert_completed(response).await;
    let nobody = handler.inside.accept().unwrap_err();
    assert_eq!(nobody.kind(), std::io::ErrorKind::WouldBlock);
    let copy = Copy::next(&handler).await;
    assert_eq!(copy["vendor"], "inside");
    assert_eq!(
        copy["last-error"],
        "transient: the vendor's name leads to no public address"
    );
}

#[tokio::test]
async fn what_is_not_ours_is_condemned_and_the_handler_goes_on() {
    let handler = Handler::start().await;
    for body in [
        Vec::new(),
        b"hello".to_vec(),
        b"{\"orderId\":1005}".to_vec(),
        b"[".repeat(100_000),
    ] {
        assert_completed(handler.trigger("vendor-notify", &body).await).await;
        let copy = Copy::next(&handler).await;
        assert_eq!(copy["dead-letter-reason"], "Unreadable");
        assert_eq!(copy["audience"], "vendors");
        assert_eq!(copy.body.as_bytes(), body);
        let message_id = copy.broker["MessageId"].as_str().unwrap();
        assert!(message_id.starts_with("unreadable:"), "{message_id}");
    }
    // Nothing that we could send: it goes its way through the delivery count.
    let response = handler
        .trigger("vendor-notify", &[0x00, 0xff, 0x10, 0x80])
        .await;
    assert_eq!(response.status(), StatusCode::UNPROCESSABLE_ENTITY);
    for envelope in ["", "null", "[1]", "{}", "{\"Data\":{\"message\":null}}"] {
        let request = handler.http.post(handler.url("/notify")).body(envelope);
        let response = request.send().await.unwrap();
        assert_eq!(
            response.status(),
            StatusCode::UNPROCESSABLE_ENTITY,
            "{envelope}"
        );
    }
    let message = order_placed().to_string();
    assert_completed(handler.trigger("notify", message.as_bytes()).await).await;
    assert!(handler.bus.rest().is_empty());
}

#[tokio::test]
async fn every_way_in_which_hosts_write_the_body_is_read() {
    let handler = Handler::start().await;
    let message = order_placed().to_string();
    let twice = serde_json::to_string(&message).unwrap();
    for data in [
        json!(STANDARD.encode(&message)),
        json!(twice),
        json!(message),
        order_placed(),
    ] {
        let envelope = json!({ "Data": { "message": data }, "Metadata": { "RetryContext": null, "Client": {} } });
        let request = handler
            .http
            .post(handler.url("/notify"))
            .json_body(&envelope);
        assert_completed(request.send().await.unwrap()).await;
        handler.provider.next().await;
    }
}

#[tokio::test]
async fn chunked_bodies_are_taken_as_well_as_those_with_a_length() {
    let handler = Handler::start().await;
    let message = STANDARD.encode(order_placed().to_string());
    let envelope = json!({ "Data": { "message": message }, "Metadata": {} }).to_string();
    let length = envelope.len();
    let requests = [
        format!("Content-Length: {length}\r\n\r\n{envelope}"),
        format!("Transfer-Encoding: chunked\r\n\r\n{length:x}\r\n{envelope}\r\n0\r\n\r\n"),
    ];
    for request in requests {
        let head = "POST /notify HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\nContent-Type: application/json; charset=utf-8\r\n";
        let answer = raw(&handler, &format!("{head}{request}")).await;
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
        assert!(
            answer.ends_with(r#"{"Outputs":{},"Logs":[],"ReturnValue":null}"#),
            "{answer}"
        );
    }
}

async fn raw(handler: &Handler, request: &str) -> String {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    let mut stream = tokio::net::TcpStream::connect(handler.address)
        .await
        .unwrap();
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    answer
}

#[tokio::test]
async fn a_message_of_one_megabyte_is_taken() {
    let handler = Handler::start().await;
    let mut event = order_placed();
    event["data"]["note"] = json!("x".repeat(1024 * 1024 - event.to_string().len() - 20));
    let message = event.to_string();
    assert!(message.len() > 1_048_000);
    assert_completed(handler.trigger("notify", message.as_bytes()).await).await;
    // And as text, which the host escapes twice.
    let twice = serde_json::to_string(&message).unwrap();
    let envelope = json!({ "Data": { "message": twice }, "Metadata": {} });
    let request = handler
        .http
        .post(handler.url("/notify"))
        .json_body(&envelope);
    assert_completed(request.send().await.unwrap()).await;
}

#[tokio::test]
async fn metadata_of_any_shape_does_no_harm() {
    let handler = Handler::start().await;
    let message = STANDARD.encode(order_placed().to_string());
    let shapes: Vec<Value> = vec![
        Value::Null,
        json!([]),
        json!("x"),
        json!({ "MessageId": 7, "DeliveryCount": 3, "ApplicationProperties": "none" }),
        json!({ "MessageId": ["a"], "DeliveryCount": "many", "ApplicationProperties": { "traceparent": 1 } }),
    ];
    for metadata in shapes {
        let envelope = json!({ "Data": { "message": message }, "Metadata": metadata });
        let request = handler
            .http
            .post(handler.url("/notify"))
            .json_body(&envelope);
        assert_completed(request.send().await.unwrap()).await;
    }
}

#[tokio::test]
async fn a_time_that_no_calendar_has_is_not_ours() {
    let handler = Handler::start().await;
    for time in ["9999-12-31T23:59:59-23:59", "0000-01-01T00:00:00Z"] {
        let mut event = order_placed();
        event["time"] = json!(time);
        let mut order = order_placed();
        order["data"]["placedAt"] = json!(time);
        for event in [event, order] {
            let response = handler
                .trigger("notify", event.to_string().as_bytes())
                .await;
            assert_completed(response).await;
            assert_eq!(
                Copy::next(&handler).await["dead-letter-reason"],
                "Unreadable"
            );
        }
    }
}

/// The requests of the Functions host's own tests (Azure/azure-functions-host, `HttpWorkerTestUtilities` and
/// `ScriptInvocationContextExtensionsTests`), as they are on the wire.
#[tokio::test]
async fn what_the_hosts_own_tests_send_is_read() {
    let handler = Handler::start().await;
    let post = async |envelope: Value| {
        let request = handler.http.post(handler.url("/notify"));
        request.json_body(&envelope).send().await.unwrap()
    };
    // Not our messages, but read: the answer is about the body, and the next one is taken.
    for envelope in [
        json!({
            "Data": { "myqueueItem": "\"HelloWorld\"" },
            "Metadata": {
                "dequeueCount": "4", "VisibleTime": "2019-10-01T00:00:00",
                "VisibleTimeOffset": "2019-10-01T00:00:00+00:00", "helloString": "\"helloMetadata\""
            }
        }),
        json!({ "Data": { "item": { "Name": "TestName", "Id": 1234 } }, "Metadata": {} }),
        json!({ "Data": { "randomDataKey": "randomDataValue" }, "Metadata": { "randomMetaDataKey": "randomMetaDataValue" } }),
    ] {
        assert_completed(post(envelope).await).await;
        assert_eq!(
            Copy::next(&handler).await["dead-letter-reason"],
            "Unreadable"
        );
    }
    let retried = json!({
        "Data": { "message": serde_json::to_string(&order_placed().to_string()).unwrap() },
        "Metadata": {
            "RetryContext": { "RetryCount": 1, "MaxRetryCount": 2, "Exception": { "Message": "x" }, "State": {} },
            "DeliveryCount": "2", "MessageId": "\"m-1\"", "sys": { "MethodName": "notify" }
        }
    });
    assert_completed(post(retried).await).await;
}
