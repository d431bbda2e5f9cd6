//! The till that devhost stands in for: orders, payments, and what is left of them after an accident.

use axum::http::Method;
use devhost::square::{ACCESS_TOKEN, LOCATION_ID};
use serde_json::{Value, json};

use crate::app::{App, Devhost};

/// A client of the stand-in, with the settings that the handler gets.
#[derive(Clone)]
pub(crate) struct Till {
    client: reqwest::Client,
    base: String,
}

impl Till {
    pub(crate) async fn of(devhost: &Devhost) -> Self {
        assert_eq!(devhost.handler_variable("TILL").await, "square");
        for (name, value) in [
            ("SQUARE_ACCESS_TOKEN", ACCESS_TOKEN),
            ("SQUARE_LOCATION_ID", LOCATION_ID),
        ] {
            assert_eq!(devhost.handler_variable(name).await, value);
        }
        Self {
            client: devhost.client.clone(),
            base: devhost.handler_variable("SQUARE_BASE_URL").await,
        }
    }

    pub(crate) fn request(
        &self,
        method: Method,
        path: &str,
        body: &Value,
    ) -> reqwest::RequestBuilder {
        self.client
            .request(method, format!("{}/v2/{path}", self.base))
            .header("authorization", format!("Bearer {ACCESS_TOKEN}"))
            .header("square-version", "2026-09-16")
            .header("content-type", "application/json")
            .body(body.to_string())
    }

    async fn send(&self, method: Method, path: &str, body: &Value) -> (u16, Value) {
        answer(self.request(method, path, body)).await
    }

    pub(crate) async fn post(&self, path: &str, body: &Value) -> (u16, Value) {
        self.send(Method::POST, path, body).await
    }

    async fn get(&self, path: &str) -> Value {
        let (status, body) = self.send(Method::GET, path, &json!({})).await;
        assert_eq!(status, 200, "{body}");
        body
    }

    /// An order of 25.00 and 4.50 AUD; gives its id.
    async fn order(&self, key: &str) -> String {
        let (status, body) = self.post("orders", &order(key)).await;
        assert_eq!(status, 200, "{body}");
        body["order"]["id"].as_str().unwrap().to_owned()
    }

    /// A payment that is approved; gives its id.
    async fn approved(&self, key: &str, order: &str) -> String {
        let (status, body) = self.post("payments", &payment(key, order)).await;
        assert_eq!(
            (status, &body["payment"]["status"]),
            (200, &json!("APPROVED"))
        );
        body["payment"]["id"].as_str().unwrap().to_owned()
    }

    async fn pay(&self, order: &str, key: &str, payments: &[&str]) -> (u16, Value) {
        let body = json!({ "idempotency_key": key, "payment_ids": payments });
        self.post(&format!("orders/{order}/pay"), &body).await
    }
}

async fn answer(request: reqwest::RequestBuilder) -> (u16, Value) {
    let response = request.send().await.unwrap();
    let status = response.status().as_u16();
    let text = response.text().await.unwrap();
    (status, serde_json::from_str(&text).unwrap())
}

pub(crate) fn order(key: &str) -> Value {
    json!({ "idempotency_key": key, "order": {
        "location_id": LOCATION_ID, "reference_id": "ORD-1001", "source": { "name": "orderup" },
        "metadata": { "order": "1001" },
        "line_items": [
            { "uid": "1", "name": "Pancakes", "quantity": "2",
              "base_price_money": { "amount": 1250, "currency": "AUD" } },
            { "name": "Tea", "quantity": "1", "base_price_money": { "amount": 450, "currency": "AUD" } },
        ],
    }})
}

fn payment(key: &str, order: &str) -> Value {
    json!({
        "idempotency_key": key, "source_id": "cnon:card-nonce-ok", "order_id": order, "location_id": LOCATION_ID,
        "amount_money": { "amount": 2950, "currency": "AUD" }, "reference_id": "ORD-1001", "autocomplete": false,
        "delay_duration": "PT168H",
    })
}

/// The body with another value at the pointer.
fn with(mut body: Value, pointer: &str, value: Value) -> Value {
    let (parent, name) = pointer.rsplit_once('/').unwrap();
    body.pointer_mut(parent).unwrap()[name] = value;
    body
}

/// Category, code and field of the error.
fn error(body: &Value) -> (&str, &str, &str) {
    let error = &body["errors"][0];
    (
        error["category"].as_str().unwrap_or_default(),
        error["code"].as_str().unwrap_or_default(),
        error["field"].as_str().unwrap_or_default(),
    )
}

fn invalid<'a>(code: &'a str, field: &'a str) -> (&'a str, &'a str, &'a str) {
    ("INVALID_REQUEST_ERROR", code, field)
}

#[tokio::test]
async fn an_order_is_made_authorised_and_paid() {
    let app = App::new();
    let devhost = app.run().await;
    let till = Till::of(&devhost).await;
    let (status, made) = till.post("orders", &order("o1")).await;
    let made = &made["order"];
    assert_eq!(
        (status, &made["state"], &made["version"]),
        (200, &json!("OPEN"), &json!(1))
    );
    assert_eq!(
        made["total_money"],
        json!({ "amount": 2950, "currency": "AUD" })
    );
    assert_eq!(
        made["line_items"][0]["total_money"],
        json!({ "amount": 2500, "currency": "AUD" })
    );
    assert_eq!(made["metadata"], json!({ "order": "1001" }));
    let id = made["id"].as_str().unwrap();

    let payment_id = till.approved("p1", id).await;
    assert_eq!(
        till.get(&format!("orders/{id}")).await["order"]["version"],
        2
    );
    let (status, paid) = till.pay(id, "c1", &[&payment_id]).await;
    assert_eq!(
        (status, &paid["order"]["state"]),
        (200, &json!("COMPLETED"))
    );
    assert_eq!(paid["order"]["version"], 3);
    assert_eq!(till.pay(id, "c1", &[&payment_id]).await, (status, paid));
    let (status, again) = till.pay(id, "c2", &[&payment_id]).await;
    assert_eq!((status, error(&again)), (400, invalid("BAD_REQUEST", "")));
    let shown = till.get(&format!("payments/{payment_id}")).await;
    assert_eq!(shown["payment"]["status"], "COMPLETED");

    let mut seen = devhost.get_json("/_dev/till").await;
    assert!(seen["orders"][0]["createdAt"].is_string());
    assert!(seen["payments"][0]["capturedAt"].is_string());
    for name in ["createdAt", "updatedAt", "capturedAt"] {
        seen["orders"][0].as_object_mut().unwrap().remove(name);
        seen["payments"][0].as_object_mut().unwrap().remove(name);
    }
    assert_eq!(
        seen,
        json!({
            "orders": [{ "id": id, "referenceId": "ORD-1001", "state": "COMPLETED", "version": 3,
                "total": { "amount": 2950, "currency": "AUD" } }],
            "payments": [{ "id": payment_id, "orderId": id, "referenceId": "ORD-1001", "status": "COMPLETED",
                "amount": { "amount": 2950, "currency": "AUD" }, "sourceType": "CARD" }],
            "calls": 7,
            "controls": { "priceChangePercent": 0, "locationClosed": false },
        })
    );
}

/// The bodies that the official JavaScript SDK 46.0.0 sent, with the location and the ids of the stand-in.
#[tokio::test]
async fn the_official_sdks_requests_are_taken() {
    let app = App::new();
    let devhost = app.run().await;
    let till = Till::of(&devhost).await;
    let order = r#"{"idempotency_key":"ord-1001:order","order":{"location_id":"LDEVHOST","reference_id":"ORD-1001","source":{"name":"vendor-platform"},"line_items":[{"uid":"l1","catalog_object_id":"VARIATION1","quantity":"2","base_price_money":{"amount":750,"currency":"EUR"}},{"uid":"l2","name":"Delivery","quantity":"1","base_price_money":{"amount":225,"currency":"EUR"}}],"fulfillments":[{"uid":"f1","type":"PICKUP","state":"PROPOSED","pickup_details":{"recipient":{"display_name":"Ada Lovelace","email_address":"ada@example.net"},"schedule_type":"ASAP","prep_time_duration":"PT20M"}}],"metadata":{"platform_order_id":"ORD-1001"}}}"#;
    let (status, made) = till.post("orders", &order.parse().unwrap()).await;
    assert_eq!(status, 200, "{made}");
    let id = made["order"]["id"].as_str().unwrap();
    let payment = r#"{"idempotency_key":"ord-1001:pay","source_id":"cnon:card-nonce-ok","amount_money":{"amount":1725,"currency":"EUR"},"order_id":"CAISENgvlJ6jLWAzERDzjyHVybY","location_id":"LDEVHOST","reference_id":"ORD-1001","autocomplete":false,"delay_duration":"PT168H"}"#;
    let payment = payment.replace("CAISENgvlJ6jLWAzERDzjyHVybY", id);
    let (status, approved) = till.post("payments", &payment.parse().unwrap()).await;
    assert_eq!(status, 200, "{approved}");
    let payment = approved["payment"]["id"].as_str().unwrap();
    let (status, paid) = till.pay(id, "ord-1001:capture", &[payment]).await;
    assert_eq!(
        (status, &paid["order"]["state"]),
        (200, &json!("COMPLETED"))
    );
}

#[tokio::test]
async fn a_request_without_token_or_version_is_refused() {
    let app = App::new();
    let devhost = app.run().await;
    let till = Till::of(&devhost).await;
    for (name, value, expected) in [
        (
            "authorization",
            "Bearer other",
            (401, ("AUTHENTICATION_ERROR", "UNAUTHORIZED", "")),
        ),
        (
            "square-version",
            "yesterday",
            (400, invalid("BAD_REQUEST", "")),
        ),
        (
            "square-version",
            "2026-13-01",
            (400, invalid("BAD_REQUEST", "")),
        ),
        (
            "content-type",
            "text/plain",
            (400, invalid("INVALID_CONTENT_TYPE", "")),
        ),
    ] {
        let mut request = till
            .request(Method::POST, "orders", &order("o"))
            .build()
            .unwrap();
        request.headers_mut().insert(name, value.parse().unwrap());
        let response = devhost.client.execute(request).await.unwrap();
        let status = response.status().as_u16();
        let body: Value = serde_json::from_str(&response.text().await.unwrap()).unwrap();
        assert_eq!((status, error(&body)), expected, "{name}: {value}");
    }
    for path in ["orders/nothing", "payments/nothing", "refunds"] {
        let (status, body) = till.send(Method::GET, path, &json!({})).await;
        assert_eq!(
            (status, error(&body)),
            (404, invalid("NOT_FOUND", "")),
            "{path}"
        );
    }
    assert_eq!(devhost.get_json("/_dev/till").await["orders"], json!([]));
}

#[tokio::test]
async fn what_is_wrong_in_an_order_is_named_by_its_path() {
    let app = App::new();
    let devhost = app.run().await;
    let till = Till::of(&devhost).await;
    let line = "/order/line_items/0";
    for (pointer, value, code, field) in [
        (
            "/idempotency_key".to_owned(),
            json!(null),
            "MISSING_REQUIRED_PARAMETER",
            "idempotency_key",
        ),
        (
            "/idempotency_key".to_owned(),
            json!(""),
            "VALUE_EMPTY",
            "idempotency_key",
        ),
        (
            "/idempotency_key".to_owned(),
            json!("k".repeat(193)),
            "VALUE_TOO_LONG",
            "idempotency_key",
        ),
        (
            "/order/location_id".to_owned(),
            json!("L2"),
            "INVALID_LOCATION",
            "order.location_id",
        ),
        (
            "/order/reference_id".to_owned(),
            json!("r".repeat(41)),
            "VALUE_TOO_LONG",
            "order.reference_id",
        ),
        (
            "/order/refernce_id".to_owned(),
            json!("r"),
            "BAD_REQUEST",
            "order.refernce_id",
        ),
        (
            "/order/line_items".to_owned(),
            json!([]),
            "INVALID_VALUE",
            "order.line_items",
        ),
        (
            format!("{line}/quantity"),
            json!(2),
            "EXPECTED_STRING",
            "order.line_items[0].quantity",
        ),
        (
            format!("{line}/quantity"),
            json!("0"),
            "INVALID_VALUE",
            "order.line_items[0].quantity",
        ),
        (
            format!("{line}/name"),
            json!(null),
            "MISSING_REQUIRED_PARAMETER",
            "order.line_items[0].name",
        ),
        (
            format!("{line}/base_price_money/amount"),
            json!("12"),
            "EXPECTED_INTEGER",
            "order.line_items[0].base_price_money.amount",
        ),
        (
            format!("{line}/base_price_money/currency"),
            json!("USD"),
            "INVALID_VALUE",
            "order.line_items[1].base_price_money",
        ),
        (
            format!("{line}/base_price_money/currency"),
            json!("aud"),
            "INVALID_VALUE",
            "order.line_items[0].base_price_money",
        ),
        (
            "/order/metadata".to_owned(),
            json!({ "n": 1 }),
            "INVALID_VALUE",
            "order.metadata",
        ),
    ] {
        let (status, body) = till
            .post("orders", &with(order("o"), &pointer, value))
            .await;
        assert_eq!(
            (status, error(&body)),
            (400, invalid(code, field)),
            "{pointer}"
        );
    }
    // None of them has taken the key.
    till.order("o").await;
}

#[tokio::test]
async fn cards_behave_as_in_the_sandbox() {
    let app = App::new();
    let devhost = app.run().await;
    let till = Till::of(&devhost).await;
    let id = till.order("o").await;
    let method = |code| ("PAYMENT_METHOD_ERROR", code, "");
    for (source, status, expected, has_payment) in [
        (
            "cnon:card-nonce-declined",
            402,
            method("GENERIC_DECLINE"),
            true,
        ),
        (
            "cnon:card-nonce-rejected-cvv",
            400,
            method("CVV_FAILURE"),
            true,
        ),
        (
            "cnon:card-nonce-rejected-postalcode",
            400,
            method("ADDRESS_VERIFICATION_FAILURE"),
            true,
        ),
        (
            "cnon:card-nonce-rejected-expiration",
            400,
            method("INVALID_EXPIRATION"),
            true,
        ),
        (
            "cnon:card-nonce-already-used",
            400,
            invalid("CARD_TOKEN_USED", "source_id"),
            false,
        ),
        (
            "cnon:card-nonce-expired",
            400,
            invalid("CARD_TOKEN_EXPIRED", "source_id"),
            false,
        ),
        (
            "cnon:something",
            404,
            invalid("NOT_FOUND", "source_id"),
            false,
        ),
        (
            "ccof:something",
            404,
            invalid("NOT_FOUND", "source_id"),
            false,
        ),
    ] {
        let key = source.rsplit('-').next().unwrap();
        let body = with(payment(key, &id), "/source_id", source.into());
        let first = till.post("payments", &body).await;
        assert_eq!((first.0, error(&first.1)), (status, expected), "{source}");
        assert_eq!(
            first.1["payment"]["status"] == "FAILED",
            has_payment,
            "{source}"
        );
        assert_eq!(till.post("payments", &body).await, first, "{source} again");
    }
    let body = with(
        payment("stored", &id),
        "/source_id",
        "ccof:customer-card-id-ok".into(),
    );
    assert_eq!(till.post("payments", &body).await.0, 200);

    // The same key can succeed later.
    let body = with(
        payment("now", &id),
        "/source_id",
        "cnon:card-nonce-temporary".into(),
    );
    for _ in 0..2 {
        let (status, body) = till.post("payments", &body).await;
        assert_eq!((status, error(&body)), (400, method("TEMPORARY_ERROR")));
    }
    let third = till.post("payments", &body).await;
    assert_eq!(
        (third.0, &third.1["payment"]["status"]),
        (200, &json!("APPROVED"))
    );
    assert_eq!(till.post("payments", &body).await, third);

    let seen = devhost.get_json("/_dev/till").await;
    let statuses: Vec<&str> = seen["payments"]
        .as_array()
        .unwrap()
        .iter()
        .map(|payment| payment["status"].as_str().unwrap())
        .collect();
    assert_eq!(
        statuses,
        [
            "FAILED", "FAILED", "FAILED", "FAILED", "APPROVED", "APPROVED"
        ]
    );
    assert_eq!(
        seen["orders"][0]["version"], 7,
        "it goes up with every payment"
    );
    assert!(!seen.to_string().contains("cnon:"), "{seen}");
}

#[tokio::test]
async fn what_is_wrong_in_a_payment_is_named() {
    let app = App::new();
    let devhost = app.run().await;
    let till = Till::of(&devhost).await;
    let id = till.order("o").await;
    for (name, value, code, field) in [
        (
            "idempotency_key",
            json!("k".repeat(46)),
            "VALUE_TOO_LONG",
            "idempotency_key",
        ),
        (
            "source_id",
            json!(null),
            "MISSING_REQUIRED_PARAMETER",
            "source_id",
        ),
        (
            "source_id",
            json!("EXTERNAL"),
            "MISSING_REQUIRED_PARAMETER",
            "external_details",
        ),
        (
            "amount_money",
            json!({ "amount": 2950 }),
            "MISSING_REQUIRED_PARAMETER",
            "amount_money.currency",
        ),
        (
            "amount_money",
            json!({ "amount": 2950, "currency": "NZD" }),
            "CURRENCY_MISMATCH",
            "amount_money.currency",
        ),
        (
            "reference_id",
            json!("r".repeat(41)),
            "VALUE_TOO_LONG",
            "reference_id",
        ),
        (
            "location_id",
            json!("L2"),
            "INVALID_LOCATION",
            "location_id",
        ),
        (
            "delay_duration",
            json!("a week"),
            "INVALID_VALUE",
            "delay_duration",
        ),
        (
            "autocomplete",
            json!("no"),
            "EXPECTED_BOOLEAN",
            "autocomplete",
        ),
        ("tip", json!(1), "BAD_REQUEST", "tip"),
    ] {
        let body = with(payment("p", &id), &format!("/{name}"), value);
        let (status, body) = till.post("payments", &body).await;
        assert_eq!(
            (status, error(&body)),
            (400, invalid(code, field)),
            "{name}"
        );
    }
    let (status, body) = till.post("payments", &payment("p", "no-such-order")).await;
    assert_eq!(
        (status, error(&body)),
        (404, invalid("NOT_FOUND", "order_id"))
    );
    till.approved("p", &id).await;
}

#[tokio::test]
async fn a_payment_made_elsewhere_is_only_recorded_and_completes_the_order() {
    let app = App::new();
    let devhost = app.run().await;
    let till = Till::of(&devhost).await;
    let id = till.order("o").await;
    let mut body = with(payment("p", &id), "/source_id", "EXTERNAL".into());
    body["external_details"] = json!({ "type": "OTHER", "source": "Orderup", "source_id": "1001" });
    let (status, refused) = till.post("payments", &body).await;
    assert_eq!(
        (status, error(&refused)),
        (400, invalid("BAD_REQUEST", "autocomplete"))
    );
    body["autocomplete"] = true.into();
    let (status, made) = till.post("payments", &body).await;
    assert_eq!(
        (
            status,
            &made["payment"]["status"],
            &made["payment"]["source_type"]
        ),
        (200, &json!("COMPLETED"), &json!("EXTERNAL"))
    );
    assert_eq!(
        till.get(&format!("orders/{id}")).await["order"]["state"],
        "COMPLETED"
    );
    let (status, refused) = till.post("payments", &payment("p2", &id)).await;
    assert_eq!((status, error(&refused)), (400, invalid("BAD_REQUEST", "")));
}

#[tokio::test]
async fn an_order_is_paid_only_by_what_was_approved_for_all_of_it() {
    let app = App::new();
    let devhost = app.run().await;
    let till = Till::of(&devhost).await;
    let (id, other) = (till.order("o").await, till.order("o2").await);
    let part = with(payment("p1", &id), "/amount_money/amount", 950.into());
    let (_, part) = till.post("payments", &part).await;
    let part = part["payment"]["id"].as_str().unwrap();
    let rest = with(payment("p2", &id), "/amount_money/amount", 2000.into());
    let (_, rest) = till.post("payments", &rest).await;
    let rest = rest["payment"]["id"].as_str().unwrap();
    let (spare, foreign) = (
        till.approved("p3", &id).await,
        till.approved("p4", &other).await,
    );
    for (ids, code, field) in [
        (vec![part], "BAD_REQUEST", ""),
        (vec![], "BAD_REQUEST", ""),
        (vec![part, part], "BAD_REQUEST", "payment_ids[1]"),
        (vec![foreign.as_str()], "BAD_REQUEST", "payment_ids[0]"),
    ] {
        let (status, body) = till.pay(&id, "c", &ids).await;
        assert_eq!(
            (status, error(&body)),
            (400, invalid(code, field)),
            "{ids:?}"
        );
    }
    let old = json!({ "idempotency_key": "c", "payment_ids": [part, rest], "order_version": 1 });
    let (status, body) = till.post(&format!("orders/{id}/pay"), &old).await;
    assert_eq!(
        (status, error(&body)),
        (400, invalid("VERSION_MISMATCH", "order_version"))
    );
    assert_eq!(till.pay(&id, "c", &[part, rest]).await.0, 200);
    // What else was held for the order is let go.
    let spare = till.get(&format!("payments/{spare}")).await;
    assert_eq!(spare["payment"]["status"], "CANCELED");
    let foreign = till.get(&format!("payments/{foreign}")).await;
    assert_eq!(foreign["payment"]["status"], "APPROVED");
}

#[tokio::test]
async fn payments_and_orders_are_canceled_once() {
    let app = App::new();
    let devhost = app.run().await;
    let till = Till::of(&devhost).await;
    let id = till.order("o").await;
    let approved = till.approved("p1", &id).await;
    let path = format!("payments/{approved}/cancel");
    let (status, body) = till.post(&path, &json!({})).await;
    assert_eq!(
        (status, &body["payment"]["status"]),
        (200, &json!("CANCELED"))
    );
    let (status, body) = till.post(&path, &json!({})).await;
    assert_eq!((status, error(&body)), (400, invalid("BAD_REQUEST", "")));

    let by_key = |key: &str| json!({ "idempotency_key": key });
    assert_eq!(
        till.post("payments/cancel", &by_key("never used")).await,
        (200, json!({}))
    );
    let second = till.approved("p2", &id).await;
    for _ in 0..2 {
        assert_eq!(
            till.post("payments/cancel", &by_key("p2")).await,
            (200, json!({}))
        );
    }
    let second = till.get(&format!("payments/{second}")).await;
    assert_eq!(second["payment"]["status"], "CANCELED");
    let (status, body) = till.post("payments/cancel", &by_key(&"k".repeat(46))).await;
    assert_eq!(
        (status, error(&body)),
        (400, invalid("VALUE_TOO_LONG", "idempotency_key"))
    );

    let cancel = |version: u64| {
        json!({ "order": {
        "location_id": LOCATION_ID, "version": version, "state": "CANCELED" } })
    };
    let path = format!("orders/{id}");
    let (status, body) = till.send(Method::PUT, &path, &cancel(1)).await;
    assert_eq!(
        (status, error(&body)),
        (400, invalid("VERSION_MISMATCH", "order.version"))
    );
    let (status, body) = till.send(Method::PUT, &path, &cancel(3)).await;
    assert_eq!((status, &body["order"]["state"]), (200, &json!("CANCELED")));
    let (status, body) = till.post("payments", &payment("p3", &id)).await;
    assert_eq!((status, error(&body)), (400, invalid("BAD_REQUEST", "")));

    let paid = till.order("o2").await;
    let body = with(payment("p4", &paid), "/autocomplete", true.into());
    let (_, body) = till.post("payments", &body).await;
    let completed = body["payment"]["id"].as_str().unwrap();
    for (method, path, body) in [
        (
            Method::POST,
            format!("payments/{completed}/cancel"),
            json!({}),
        ),
        (Method::POST, "payments/cancel".to_owned(), by_key("p4")),
        (Method::PUT, format!("orders/{paid}"), cancel(2)),
    ] {
        let (status, body) = till.send(method, &path, &body).await;
        assert_eq!(
            (status, error(&body)),
            (400, invalid("BAD_REQUEST", "")),
            "{path}"
        );
    }
}

#[tokio::test]
async fn requests_at_once_with_one_key_take_effect_once() {
    let app = App::new();
    let devhost = app.run().await;
    let till = Till::of(&devhost).await;
    let id = till.order("o").await;
    let sent: Vec<_> = (0..16)
        .map(|_| {
            tokio::spawn(answer(till.request(
                Method::POST,
                "payments",
                &payment("p", &id),
            )))
        })
        .collect();
    let mut answers = Vec::new();
    for sent in sent {
        answers.push(sent.await.unwrap());
    }
    assert_eq!(answers[0].0, 200);
    assert!(answers.iter().all(|answer| *answer == answers[0]));
    let seen = devhost.get_json("/_dev/till").await;
    assert_eq!(
        (seen["payments"].as_array().unwrap().len(), &seen["calls"]),
        (1, &json!(17))
    );

    let other = with(payment("p", &id), "/amount_money/amount", 1.into());
    let reused = (400, invalid("IDEMPOTENCY_KEY_REUSED", "idempotency_key"));
    let (status, body) = till.post("payments", &other).await;
    assert_eq!((status, error(&body)), reused);
    let (status, body) = till
        .post(
            "orders",
            &with(order("o"), "/order/reference_id", "x".into()),
        )
        .await;
    assert_eq!((status, error(&body)), reused);
}

#[tokio::test]
async fn what_was_answered_outlives_devhost_and_a_clearing() {
    let app = App::new();
    let mut devhost = app.run().await;
    let till = Till::of(&devhost).await;
    let first = till.post("orders", &order("o")).await;
    let id = first.1["order"]["id"].as_str().unwrap();
    let approved = till.approved("p", id).await;
    let declined = with(
        payment("d", id),
        "/source_id",
        "cnon:card-nonce-declined".into(),
    );
    let decline = till.post("payments", &declined).await;
    let temporary = with(
        payment("t", id),
        "/source_id",
        "cnon:card-nonce-temporary".into(),
    );
    till.post("payments", &temporary).await;
    let mut before = devhost.get_json("/_dev/till").await;
    devhost.child.kill().await.unwrap();

    let devhost = app.run().await;
    let till = Till::of(&devhost).await;
    let after = devhost.get_json("/_dev/till").await;
    before["calls"] = 0.into();
    assert_eq!(after, before);
    assert_eq!(till.post("orders", &order("o")).await, first);
    assert_eq!(till.post("payments", &declined).await, decline);
    assert_eq!(till.post("payments", &temporary).await.0, 400);
    assert_eq!(till.post("payments", &temporary).await.0, 200);

    let url = format!("{}/_dev/till", devhost.url);
    assert_eq!(
        devhost.client.delete(url).send().await.unwrap().status(),
        204
    );
    let cleared = devhost.get_json("/_dev/till").await;
    assert_eq!(
        (&cleared["orders"], &cleared["payments"], &cleared["calls"]),
        (&json!([]), &json!([]), &json!(0))
    );
    assert_eq!(till.post("orders", &order("o")).await, first);
    assert_eq!(till.pay(id, "c", &[&approved]).await.0, 200);
    assert_eq!(devhost.get_json("/_dev/till").await["orders"], json!([]));
}

#[tokio::test]
async fn prices_can_change_and_the_location_can_close() {
    let app = App::new();
    let devhost = app.run().await;
    let till = Till::of(&devhost).await;
    let control = async |controls: &str| {
        let url = format!("{}/_dev/till", devhost.url);
        let response = devhost
            .client
            .put(url)
            .body(controls.to_owned())
            .send()
            .await
            .unwrap();
        (response.status().as_u16(), response.text().await.unwrap())
    };
    assert_eq!(control(r#"{"priceChangePercent":10}"#).await.0, 200);
    let (_, body) = till.post("orders", &order("dear")).await;
    assert_eq!(body["order"]["total_money"]["amount"], 3245);
    assert_eq!(control(r#"{"locationClosed":true}"#).await.0, 200);
    let (status, body) = till.post("orders", &order("closed")).await;
    assert_eq!(
        (status, error(&body)),
        (400, invalid("INVALID_LOCATION", "order.location_id"))
    );
    assert_eq!(
        body["errors"][0]["detail"], "The location is inactive.",
        "the old price change is gone with the new controls"
    );
    for (controls, word) in [
        ("[]", "JSON object"),
        (r#"{"priceChangePercent":1.5}"#, "`priceChangePercent`"),
        (r#"{"locationClosed":"yes"}"#, "`locationClosed`"),
        (r#"{"closed":true}"#, "`closed`"),
    ] {
        let (status, text) = control(controls).await;
        assert!(status == 400 && text.contains(word), "{text}");
    }
    let url = format!("{}/_dev/till", devhost.url);
    devhost.client.delete(url).send().await.unwrap();
    let (_, body) = till.post("orders", &order("closed")).await;
    assert_eq!(body["order"]["total_money"]["amount"], 2950);
}

#[tokio::test]
async fn a_fault_strikes_the_whole_till_or_one_step() {
    let app = App::new();
    let devhost = app.run().await;
    let till = Till::of(&devhost).await;
    let id = till.order("o").await;
    let fault = async |target: &str, fault: &str| {
        assert_eq!(devhost.set_fault(target, fault).await.0, 200, "{target}");
    };
    assert_eq!(
        devhost
            .set_fault("till/refunds", r#"{"status":503}"#)
            .await
            .0,
        404
    );
    fault(
        "till/payments",
        r#"{"status":429,"retryAfter":7,"times":1}"#,
    )
    .await;
    fault("till/pay", r#"{"status":503,"times":1}"#).await;
    fault("till/cancel", r#"{"status":504,"times":2}"#).await;
    // No step of its own has a fault here.
    till.order("o2").await;
    let refused = till
        .request(Method::POST, "payments", &payment("p", &id))
        .send()
        .await
        .unwrap();
    assert_eq!(
        (refused.status().as_u16(), &refused.headers()["retry-after"]),
        (429, &"7".parse().unwrap())
    );
    let body: Value = serde_json::from_str(&refused.text().await.unwrap()).unwrap();
    assert_eq!(error(&body), ("RATE_LIMIT_ERROR", "RATE_LIMITED", ""));
    let approved = till.approved("p", &id).await;
    let (status, body) = till.pay(&id, "c", &[&approved]).await;
    assert_eq!(
        (status, error(&body)),
        (503, ("API_ERROR", "SERVICE_UNAVAILABLE", ""))
    );
    assert_eq!(
        till.post(&format!("payments/{approved}/cancel"), &json!({}))
            .await
            .0,
        504
    );
    assert_eq!(
        till.send(Method::PUT, &format!("orders/{id}"), &json!({}))
            .await
            .0,
        504
    );
    fault("till", r#"{"status":500}"#).await;
    assert_eq!(till.post("orders", &order("o3")).await.0, 500);
    assert_eq!(till.pay(&id, "c", &[&approved]).await.0, 500);
    let calls = devhost.get_json("/_dev/till").await["calls"].clone();
    assert_eq!(calls, 9, "those that a fault struck count");
}

#[tokio::test]
async fn a_lost_answer_is_found_again_under_its_key() {
    let app = App::new();
    let devhost = app.run().await;
    let till = Till::of(&devhost).await;
    let id = till.order("o").await;
    let request = || till.request(Method::POST, "payments", &payment("p", &id));
    devhost
        .set_fault("till/payments", r#"{"drop":"before","times":1}"#)
        .await;
    assert!(request().send().await.is_err());
    assert_eq!(devhost.get_json("/_dev/till").await["payments"], json!([]));
    devhost
        .set_fault("till/payments", r#"{"drop":"after","times":1}"#)
        .await;
    assert!(request().send().await.is_err());
    let made = devhost.get_json("/_dev/till").await["payments"][0]["id"].clone();
    assert_eq!(answer(request()).await.1["payment"]["id"], made);
}

#[tokio::test]
async fn a_till_of_the_users_own_is_out_of_reach() {
    let app = App::new();
    let mut devhost = app.start(&[], &[("TILL", "none")]);
    devhost.wait_until_ready().await;
    assert_eq!(devhost.handler_variable("TILL").await, "none");
    assert_eq!(devhost.get("/api/env/SQUARE_BASE_URL").await.status(), 410);
    for target in ["till", "till/pay"] {
        let (status, text) = devhost.set_fault(target, r#"{"status":503}"#).await;
        assert!(status == 409 && text.contains("TILL"), "{text}");
    }
    let url = format!("{}/_dev/till", devhost.url);
    let controls = devhost.client.put(url).body(r#"{"locationClosed":true}"#);
    assert_eq!(controls.send().await.unwrap().status(), 409);
}
