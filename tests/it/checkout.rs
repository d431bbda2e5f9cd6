//! Orders and cancellations over HTTP, through the real binary, with a scripted bus.

use axum::http::StatusCode;
use serde_json::{Value, json};

use crate::{
    handler::{Handler, JsonBody, json_of, order},
    scripted_server::Reply,
};

#[tokio::test]
async fn an_order_is_answered_with_202_once_the_bus_has_it() {
    let handler = Handler::start().await;

    let response = handler.post("/api/checkout", &order()).await;

    assert_eq!(response.status(), StatusCode::ACCEPTED);
    let location = response.headers()["location"].to_str().unwrap().to_owned();
    let body = json_of(response).await;
    let order_id = body["orderId"].as_str().unwrap();
    assert_eq!(location, format!("/api/orders/{order_id}"));
    assert_eq!(
        body,
        json!({
            "orderId": order_id,
            "status": "accepted",
            "total": { "amount": 3400, "currency": "AUD" },
            "links": { "self": location, "cancel": format!("{location}/cancel") }
        })
    );

    let sent = handler.bus.next().await;
    assert_eq!(sent.method, "POST");
    assert_eq!(sent.path_and_query, "/orders/messages");
    assert_eq!(sent.header("content-type"), "application/cloudevents+json");
    let broker: Value = serde_json::from_str(sent.header("brokerproperties")).unwrap();
    assert_eq!(
        broker,
        json!({ "MessageId": format!("{order_id}:placed"), "Label": "order.placed", "CorrelationId": order_id })
    );
    assert_eq!(sent.header("generation"), "0");
    assert_eq!(sent.header("traceparent"), sent.header("diagnostic-id"));
    let event = sent.json();
    assert_eq!(event["id"], format!("{order_id}:placed"));
    assert_eq!(event["type"], "order.placed");
    assert_eq!(event["subject"], order_id);
    assert_eq!(event["data"]["customer"], order()["customer"]);
    assert_eq!(event["data"]["lineItems"], order()["lineItems"]);
    assert_eq!(event["data"]["payment"], order()["payment"]);
    assert!(handler.bus.rest().is_empty());
}

#[tokio::test]
async fn the_same_key_and_order_give_the_same_answer_and_message_id() {
    let handler = Handler::start().await;
    let post = async |key: &str, body: &Value| {
        let request = handler
            .http
            .post(handler.url("/api/checkout"))
            .header("Idempotency-Key", key);
        let response = request.json_body(body).send().await.unwrap();
        assert_eq!(response.status(), StatusCode::ACCEPTED);
        let answer = json_of(response).await;
        let sent = handler.bus.next().await;
        let broker: Value = serde_json::from_str(sent.header("brokerproperties")).unwrap();
        (answer, broker["MessageId"].clone())
    };

    let first = post("8e03978e-40d5-43e8-bc93-6894a57f9324", &order()).await;
    let quoted = post("\"8e03978e-40d5-43e8-bc93-6894a57f9324\"", &order()).await;
    assert_eq!(first, quoted);

    let mut other = order();
    other["lineItems"][0]["quantity"] = json!(3);
    assert_ne!(
        post("8e03978e-40d5-43e8-bc93-6894a57f9324", &other).await.1,
        first.1
    );
    assert_ne!(post("another-key", &order()).await.1, first.1);
}

/// What it is, its media type and body; the status and the pointers of the answer.
type Case = (
    &'static str,
    &'static str,
    Vec<u8>,
    u16,
    &'static [&'static str],
);

#[tokio::test]
async fn what_is_no_order_gets_its_4xx_and_never_reaches_the_bus() {
    let handler = Handler::start().await;
    let with = |pointer: &str, value: Value| {
        let mut order = order();
        *order.pointer_mut(pointer).unwrap() = value;
        order.to_string().into_bytes()
    };
    let valid = order().to_string();
    let item = order()["lineItems"][0].clone();
    let mut mixed = order();
    mixed["lineItems"][1]["unitPrice"]["currency"] = json!("EUR");
    let duplicate_keys = valid.replacen("{\"customer\"", "{\"partner\":\"x\",\"customer\"", 1);
    assert_ne!(duplicate_keys, valid);

    let json = "application/json";
    let cases: Vec<Case> = vec![
        ("not JSON", json, b"customer=Ada".to_vec(), 400, &[]),
        ("an empty body", json, Vec::new(), 400, &[]),
        (
            "another media type",
            "text/plain",
            valid.clone().into_bytes(),
            415,
            &[],
        ),
        (
            "a form",
            "application/x-www-form-urlencoded",
            b"a=b".to_vec(),
            415,
            &[],
        ),
        ("10 MB", json, vec![b' '; 10 * 1024 * 1024], 413, &[]),
        (
            "deep nesting",
            json,
            [b"[".repeat(20_000), b"]".repeat(20_000)].concat(),
            400,
            &[],
        ),
        (
            "invalid UTF-8",
            json,
            valid
                .replace("Ada", "\u{7f}")
                .into_bytes()
                .iter()
                .map(|byte| if *byte == 0x7f { 0xff } else { *byte })
                .collect(),
            400,
            &[],
        ),
        (
            "keys named twice",
            json,
            duplicate_keys.into_bytes(),
            400,
            &[],
        ),
        ("an array", json, b"[]".to_vec(), 422, &[""]),
        (
            "a negative quantity",
            json,
            with("/lineItems/0/quantity", json!(-1)),
            422,
            &["/lineItems/0/quantity"],
        ),
        (
            "no quantity",
            json,
            with("/lineItems/0/quantity", json!(0)),
            422,
            &["/lineItems/0/quantity"],
        ),
        (
            "half a pancake",
            json,
            with("/lineItems/0/quantity", json!(0.5)),
            422,
            &["/lineItems/0/quantity"],
        ),
        (
            "a negative price",
            json,
            with("/lineItems/0/unitPrice/amount", json!(-1)),
            422,
            &["/lineItems/0/unitPrice/amount"],
        ),
        (
            "a total that overflows",
            json,
            with(
                "/lineItems/0/unitPrice/amount",
                json!(9_007_199_254_740_991_i64),
            ),
            422,
            &["/lineItems"],
        ),
        (
            "mixed currencies",
            json,
            mixed.to_string().into_bytes(),
            422,
            &["/lineItems/1/unitPrice/currency"],
        ),
        (
            "an unknown currency",
            json,
            with("/lineItems/0/unitPrice/currency", json!("XYZ")),
            422,
            &["/lineItems/0/unitPrice/currency"],
        ),
        (
            "a bad email",
            json,
            with("/customer/email", json!("ada(at)example.net")),
            422,
            &["/customer/email"],
        ),
        (
            "a header in a name",
            json,
            with("/customer/name", json!("Ada\r\nBcc: eve@example.net")),
            422,
            &["/customer/name"],
        ),
        (
            "a control character",
            json,
            with("/lineItems/0/name", json!("Pan\u{0}cake")),
            422,
            &["/lineItems/0/name"],
        ),
        (
            "a card number",
            json,
            with("/payment/source", json!("4111 1111 1111 1111")),
            422,
            &["/payment/source"],
        ),
        (
            "501 line items",
            json,
            with("/lineItems", json!(vec![item; 501])),
            422,
            &["/lineItems"],
        ),
        (
            "no line items",
            json,
            with("/lineItems", json!([])),
            422,
            &["/lineItems"],
        ),
        (
            "several mistakes",
            json,
            br#"{"customer":{"name":7},"lineItems":[{}]}"#.to_vec(),
            422,
            &[
                "/customer/name",
                "/customer/email",
                "/lineItems/0/vendorId",
                "/lineItems/0/sku",
                "/lineItems/0/name",
                "/lineItems/0/quantity",
                "/lineItems/0/unitPrice",
                "/payment",
            ],
        ),
    ];
    for (what, media_type, body, status, pointers) in cases {
        let response = handler
            .http
            .post(handler.url("/api/checkout"))
            .header("Content-Type", media_type)
            .body(body)
            .send()
            .await
            .unwrap();
        assert_eq!(response.status().as_u16(), status, "{what}");
        assert_eq!(
            response.headers()["content-type"],
            "application/problem+json",
            "{what}"
        );
        let problem = json_of(response).await;
        assert_eq!(problem["status"], status, "{what}");
        assert!(!problem["detail"].as_str().unwrap().is_empty(), "{what}");
        let told: Vec<&str> = problem["errors"]
            .as_array()
            .into_iter()
            .flatten()
            .map(|error| error["pointer"].as_str().unwrap())
            .collect();
        assert_eq!(told, pointers, "{what}");
        assert!(!problem.to_string().contains("4111"), "{what}");
    }
    assert!(handler.bus.rest().is_empty());
}

#[tokio::test]
async fn no_text_of_an_order_may_break_a_line() {
    let handler = Handler::start().await;
    for pointer in [
        "/customer/name",
        "/customer/email",
        "/lineItems/0/vendorId",
        "/lineItems/0/sku",
        "/lineItems/0/name",
        "/lineItems/0/unitPrice/currency",
        "/payment/source",
        "/partner",
    ] {
        for hostile in ["a\r\nb", "\u{0}", "\u{1b}[2J", "a\u{2028}b"] {
            let mut order = order();
            *order.pointer_mut(pointer).unwrap() = json!(hostile);
            let response = handler.post("/api/checkout", &order).await;
            assert_eq!(
                response.status(),
                StatusCode::UNPROCESSABLE_ENTITY,
                "{pointer}"
            );
            let problem = json_of(response).await;
            assert_eq!(problem["errors"][0]["pointer"], pointer, "{problem}");
        }
    }
    assert!(handler.bus.rest().is_empty());
}

#[tokio::test]
async fn an_order_with_unknown_fields_is_taken() {
    let handler = Handler::start().await;
    let mut body = order();
    body["gift"] = json!({ "wrapping": ["paper", { "colour": "red" }] });
    body["customer"]["age"] = json!(36);
    let response = handler.post("/api/checkout", &body).await;
    assert_eq!(response.status(), StatusCode::ACCEPTED);
    let data = &handler.bus.next().await.json()["data"];
    assert!(data.get("gift").is_none());
    assert_eq!(data["customer"], order()["customer"]);
}

#[tokio::test]
async fn without_the_bus_the_answer_is_an_honest_503() {
    let handler = Handler::start().await;
    let busy = || Reply::Answer {
        status: 503,
        headers: vec![("retry-after", "120".to_owned())],
        body: "<Error><Code>503</Code><Detail>The server is busy.</Detail></Error>".to_owned(),
    };
    // A longer wait than a request may take: the caller is told at once.
    handler.bus.reply_once(busy());
    let response = handler.post("/api/checkout", &order()).await;
    assert_eq!(response.status(), StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(response.headers()["retry-after"], "120");
    assert_eq!(json_of(response).await["status"], 503);

    let lines = handler.stop().await.join("\n");
    assert!(lines.contains("The server is busy."), "{lines}");
}

#[tokio::test]
async fn an_absurd_retry_after_is_an_hour_at_most() {
    let handler = Handler::start().await;
    for asked in ["18446744073709551615", "31536000"] {
        handler
            .bus
            .reply_once(Reply::with_header(503, "retry-after", asked));
        let response = handler.post("/api/checkout", &order()).await;
        assert_eq!(response.status(), StatusCode::SERVICE_UNAVAILABLE);
        assert_eq!(response.headers()["retry-after"], "3600");
    }
}

#[tokio::test]
async fn a_caller_who_goes_away_leaves_a_line_in_the_log() {
    let handler = Handler::start().await;
    handler.bus.reply_once(Reply::Hang);
    let request = handler.http.post(handler.url("/api/checkout"));
    let request = tokio::spawn(request.json_body(&order()).send());
    handler.bus.next().await;
    request.abort();
    assert!(request.await.unwrap_err().is_cancelled());
    let lines = handler.stop().await.join("\n");
    assert!(
        lines.contains("the caller of checkout went away"),
        "{lines}"
    );
}

#[tokio::test]
async fn a_cancellation_carries_the_reason_and_the_order_but_no_payment() {
    let handler = Handler::start().await;
    let order_id = "01935a1e-9c00-7000-8000-000000000001";
    let path = format!("/api/orders/{order_id}/cancel");
    let body = json!({ "reason": "Ordered twice", "order": order() });

    let response = handler.post(&path, &body).await;

    assert_eq!(response.status(), StatusCode::ACCEPTED);
    assert_eq!(json_of(response).await["orderId"], order_id);
    let sent = handler.bus.next().await;
    let broker: Value = serde_json::from_str(sent.header("brokerproperties")).unwrap();
    assert_eq!(broker["MessageId"], format!("{order_id}:cancelled"));
    assert_eq!(broker["Label"], "order.cancelled");
    let event = sent.json();
    assert_eq!(event["data"]["cancellation"]["reason"], "Ordered twice");
    assert_eq!(event["data"]["customer"], order()["customer"]);
    assert!(event["data"].get("payment").is_none());
}

#[tokio::test]
async fn a_cancellation_that_is_none_is_refused() {
    let handler = Handler::start().await;
    let path = "/api/orders/01935a1e-9c00-7000-8000-000000000001/cancel";
    let pointers = async |body: Value| {
        let response = handler.post(path, &body).await;
        assert_eq!(response.status(), StatusCode::UNPROCESSABLE_ENTITY);
        let problem = json_of(response).await;
        let errors = problem["errors"].as_array().unwrap().clone();
        errors
            .iter()
            .map(|error| error["pointer"].as_str().unwrap().to_owned())
            .collect::<Vec<_>>()
    };
    assert_eq!(pointers(json!({})).await, ["/reason", "/order"]);
    assert_eq!(
        pointers(json!({ "reason": "a\nb", "order": { "orderId": "7", "lineItems": [] } })).await,
        [
            "/reason",
            "/order/customer",
            "/order/lineItems",
            "/order/orderId"
        ]
    );
    for path in ["/api/orders/17/cancel", "/api/orders/%ff/cancel"] {
        let response = handler.post(path, &json!({ "reason": "x" })).await;
        assert_eq!(response.status(), StatusCode::NOT_FOUND);
        assert_eq!(
            response.headers()["content-type"],
            "application/problem+json"
        );
    }
    assert!(handler.bus.rest().is_empty());
}

#[tokio::test]
async fn other_routes_and_methods_get_a_problem() {
    let handler = Handler::start().await;
    let get = handler
        .http
        .get(handler.url("/api/checkout"))
        .send()
        .await
        .unwrap();
    assert_eq!(get.status(), StatusCode::METHOD_NOT_ALLOWED);
    assert_eq!(get.headers()["content-type"], "application/problem+json");
    assert_eq!(get.headers()["allow"], "POST");
    assert_eq!(
        json_of(get).await["type"],
        "/api/problems/method-not-allowed"
    );
    // The names of triggered functions are matched in exact case, as the host sends them.
    for path in [
        "/checkout",
        "/Notify",
        "/vendor_notify",
        "/api/notify",
        "/api/",
    ] {
        let response = handler.post(path, &json!({})).await;
        assert_eq!(response.status(), StatusCode::NOT_FOUND, "{path}");
    }
    // A storefront may write the path of an HTTP function as it likes.
    for path in ["/api/Checkout", "/API/checkout/", "/api/checkout?code=1"] {
        let response = handler.post(path, &order()).await;
        assert_eq!(response.status(), StatusCode::ACCEPTED, "{path}");
    }
}
