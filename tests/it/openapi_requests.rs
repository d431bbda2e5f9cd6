//! What `docs/openapi.json` says of requests, and what the real binary takes: a value on each side of each limit.

use reqwest::header::HeaderValue;
use serde_json::{Value, json};

use crate::{
    api_answers::{Answered, ApiAnswers},
    api_document::ApiDocument,
    handler::{Folder, Handler, JsonBody, order_placed},
    schema_probes::{Probe, probes},
};

const ORDER: &str = "01935a1e-9c00-7000-8000-000000000001";

/// With every member that the schema knows, and with room for the largest number at each place.
fn full_order() -> Value {
    json!({
        "customer": { "name": "Ada Lovelace", "email": "ada@example.net", "locale": "en-AU" },
        "lineItems": [{ "vendorId": "bakery", "sku": "PANCAKE-12", "name": "Pancake stack", "quantity": 1,
                        "unitPrice": { "amount": 1, "currency": "AUD" } }],
        "payment": { "source": "cnon:card-nonce-ok" },
        "partner": "brand-7"
    })
}

/// Sends what may be valid and what may be not, and holds the answers against the schema.
async fn try_each(handler: &Handler, path: &str, operation: &str, schema: &str, valid: &Value) {
    let document = ApiDocument::openapi();
    let answers = ApiAnswers::new();
    let place = format!("/components/schemas/{schema}");
    let compiled = document.schema(&place);
    compiled.assert(valid);
    let probes = probes(&document, document.at(&place), valid);
    assert!(probes.len() > 300, "{}", probes.len());
    let mut refused = 0;
    let mut differing = Vec::new();
    for probe in probes {
        let Probe {
            pointer,
            what,
            value,
            meant,
            ..
        } = &probe;
        let is_taken = probe.counts_as_absent || probe.is_lenient || compiled.allows(meant);
        let response = handler.post(path, value).await;
        handler.bus.rest();
        let (status, answer) = answers.check(operation, &Answered::of(response).await);
        // Each error is about the place or what is in it.
        let is_told = answer["errors"].as_array().is_some_and(|errors| {
            errors.iter().all(|error| {
                let told = error["pointer"].as_str().unwrap();
                let rest = told.strip_prefix(pointer.as_str());
                rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
            })
        });
        refused += usize::from(is_told);
        if !matches!(
            (is_taken, status, is_told),
            (true, 202, false) | (false, 422, true)
        ) {
            let errors = &answer["errors"];
            differing.push(format!("{pointer} {what}: {status} {errors}"));
        }
    }
    assert!(differing.is_empty(), "{}", differing.join("\n"));
    assert!(refused > 100, "{refused}");
}

#[tokio::test]
async fn an_order_is_taken_or_refused_as_its_schema_says() {
    let handler = Handler::start().await;
    try_each(
        &handler,
        "/api/checkout",
        "placeOrder",
        "NewOrder",
        &full_order(),
    )
    .await;
}

#[tokio::test]
async fn a_cancellation_is_taken_or_refused_as_its_schema_says() {
    let book = Folder::new();
    let folder = book.0.join(format!("orders/{ORDER}"));
    std::fs::create_dir_all(&folder).unwrap();
    std::fs::write(folder.join("placed.json"), order_placed().to_string()).unwrap();
    let handler = Handler::start_with(&[("ORDER_BOOK", book.0.to_str().unwrap())]).await;
    let mut snapshot = full_order();
    snapshot["orderId"] = json!(ORDER);
    snapshot["placedAt"] = json!("2026-11-22T19:40:00Z");
    let valid = json!({ "reason": "Ordered twice", "order": snapshot });
    let path = format!("/api/orders/{ORDER}/cancel");
    try_each(&handler, &path, "cancelOrder", "Cancellation", &valid).await;
}

#[tokio::test]
async fn an_idempotency_key_is_taken_or_refused_as_its_schema_says() {
    let document = ApiDocument::openapi();
    let answers = ApiAnswers::new();
    let schema = document.schema("/components/parameters/IdempotencyKey/schema");
    let handler = Handler::start().await;
    let (fits, longer) = ("k".repeat(255), "k".repeat(256));
    let (quoted, quoted_longer) = (format!("\"{fits}\""), format!("\"{longer}\""));
    for key in [
        "",
        "\"",
        "\"\"",
        "a",
        "\"a\"",
        "a\"",
        "\"a",
        "a\"b",
        "\"a\"b\"",
        "two words",
        "\"two words\"",
        "~!",
        "\u{e9}",
        "a\tb",
        "8e03978e-40d5-43e8-bc93-6894a57f9324",
        &fits,
        &longer,
        &quoted,
        &quoted_longer,
    ] {
        let request = handler.http.post(handler.url("/api/checkout")).header(
            "Idempotency-Key",
            HeaderValue::from_bytes(key.as_bytes()).unwrap(),
        );
        let response = request.json_body(&full_order()).send().await.unwrap();
        let (status, answer) = answers.check("placeOrder", &Answered::of(response).await);
        let expected = if schema.allows(&json!(key)) { 202 } else { 400 };
        assert_eq!(status, expected, "{key}: {answer}");
    }
}

/// What the document says in words.
#[tokio::test]
async fn what_no_schema_can_say_is_as_the_document_has_it() {
    let answers = ApiAnswers::new();
    let handler = Handler::start().await;
    let send = async |body: Vec<u8>| {
        let request = handler
            .http
            .post(handler.url("/api/checkout"))
            .header("Content-Type", "application/vnd.shop+json; charset=utf-8");
        let response = request.body(body).send().await.unwrap();
        answers.check("placeOrder", &Answered::of(response).await)
    };
    let with = |pointer: &str, value: Value| {
        let mut order = full_order();
        *order.pointer_mut(pointer).unwrap() = value;
        order
    };
    let name = format!("  {}  ", "x".repeat(200));
    let order = with("/customer/name", json!(name)).to_string();
    assert_eq!(send(order.into_bytes()).await.0, 202, "spaces at the ends");

    let nested = |levels: usize| {
        // The order itself is one of them.
        let nest = format!("{}{}", "[".repeat(levels - 1), "]".repeat(levels - 1));
        full_order()
            .to_string()
            .replacen('{', &format!("{{\"nest\":{nest},"), 1)
    };
    assert_eq!(send(nested(127).into_bytes()).await.0, 202);
    assert_eq!(send(nested(128).into_bytes()).await.0, 400);

    let marked = format!("\u{feff}{}", full_order());
    assert_eq!(send(marked.into_bytes()).await.0, 202, "a byte order mark");
    let twice = full_order()
        .to_string()
        .replacen('{', "{\"partner\":\"x\",", 1);
    assert_eq!(send(twice.into_bytes()).await.0, 400, "a member twice");

    let mut line = full_order()["lineItems"][0].clone();
    line["unitPrice"]["currency"] = json!("EUR");
    let mut mixed = full_order();
    mixed["lineItems"].as_array_mut().unwrap().push(line);
    assert_eq!(
        send(mixed.to_string().into_bytes()).await.0,
        422,
        "two currencies"
    );
    let mut much = with("/lineItems/0/quantity", json!(2));
    much["lineItems"][0]["unitPrice"]["amount"] = json!(4_503_599_627_370_496_i64);
    assert_eq!(
        send(much.to_string().into_bytes()).await.0,
        422,
        "too large a sum"
    );
    much["lineItems"][0]["unitPrice"]["amount"] = json!(4_503_599_627_370_495_i64);
    assert_eq!(send(much.to_string().into_bytes()).await.0, 202);
    for pointer in ["/payment/source", "/partner", "/lineItems/0/vendorId"] {
        let card = with(pointer, json!("4111111111111111")).to_string();
        let (status, answer) = send(card.into_bytes()).await;
        assert_eq!(status, 422);
        assert_eq!(answer["errors"][0]["pointer"], pointer);
    }

    // The body itself, and the event that is made of it.
    let padded = |length: usize| {
        let mut text = full_order().to_string();
        text += &" ".repeat(length - text.len());
        text.into_bytes()
    };
    assert_eq!(send(padded(262_144)).await.0, 202);
    assert_eq!(send(padded(262_145)).await.0, 413);
    let mut large = full_order();
    let line = json!({ "vendorId": "bakery", "sku": "x".repeat(100), "name": "x".repeat(300), "quantity": 1,
                       "unitPrice": { "amount": 1, "currency": "AUD" } });
    large["lineItems"] = vec![line; 500].into();
    let large = large.to_string();
    assert!(
        large.len() < 262_144 && large.len() > 262_144 - 20_000,
        "{}",
        large.len()
    );
    handler.bus.rest();
    assert_eq!(send(large.into_bytes()).await.0, 202);
}
