//! Square.

use std::time::Duration;

use orderup::{
    config::Settings,
    failure::Class,
    http_client,
    order::{Currency, Customer, LineItem, Money, Order, OrderId, Payment},
    square::{SquareClient, SquareOrderState, SquarePaymentStatus},
    till_error::{TillError, TillFailure},
};
use serde_json::{Value, json};
use tokio::{io::AsyncReadExt, net::TcpListener};
use uuid::Uuid;

use crate::{
    golden::Golden,
    provider::free_port,
    scripted_server::{Reply, ScriptedServer},
};

const NONCE: &str = "cnon:card-nonce-ok";
const KEY: Uuid = Uuid::from_u128(0x8540_c0de_899f_5cce_acb5_3ec4_93af_3800);
const SQUARE_ORDER: &str = "CAISENgvlJ6jLWAzERDzjyHVybY";
const SQUARE_PAYMENT: &str = "GQTFp1ZlXdpoW4o6eGiZhbjosiDFf";

const ORDER: &str = r#"{"order":{"id":"CAISENgvlJ6jLWAzERDzjyHVybY","location_id":"LOC1","version":1,
    "state":"OPEN","total_money":{"amount":1725,"currency":"EUR"},"line_items":[]}}"#;
const APPROVED: &str = r#"{"payment":{"id":"GQTFp1ZlXdpoW4o6eGiZhbjosiDFf","status":"APPROVED",
    "amount_money":{"amount":1725,"currency":"EUR"},"delay_duration":"PT168H"}}"#;

fn settings(url: &str) -> Settings {
    Settings::from_pairs([
        ("SQUARE_ACCESS_TOKEN", "EAAA-test-token"),
        ("SQUARE_LOCATION_ID", "LOC1"),
        ("SQUARE_BASE_URL", url),
    ])
}

fn client(url: &str) -> SquareClient {
    let settings = settings(url);
    SquareClient::from_settings(&settings, &http_client::outgoing(&settings).unwrap()).unwrap()
}

fn impatient_client(url: &str) -> SquareClient {
    let settings = settings(url);
    let http = http_client::outgoing(&settings).unwrap();
    SquareClient::with_timeout(&settings, &http, Duration::from_millis(300)).unwrap()
}

fn euros(amount: i64) -> Money {
    Money {
        amount,
        currency: Currency::EUR,
    }
}

/// The order of the captured requests.
pub(crate) fn ada_order(source: &str) -> Order {
    let item = |vendor: &str, name: &str, quantity, amount| LineItem {
        vendor_id: vendor.to_owned(),
        sku: name.to_uppercase(),
        name: name.to_owned(),
        quantity,
        unit_price: euros(amount),
    };
    Order {
        order_id: OrderId(Uuid::from_u128(0x0193_5a1e_9c00_7000_8000_0000_0000_0001)),
        placed_at: None,
        customer: Customer {
            name: "Ada Lovelace".to_owned(),
            email: "ada@example.net".to_owned(),
            locale: None,
        },
        line_items: vec![
            item("bakery", "Pancakes", 2, 750),
            item("courier", "Delivery", 1, 225),
        ],
        total: euros(1725),
        payment: Some(Payment {
            source: source.to_owned(),
        }),
        partner: None,
    }
}

/// The error, after a check that it tells nothing about Ada, her card or our token.
pub(crate) fn told<T: std::fmt::Debug>(result: Result<T, TillError>) -> TillError {
    let error = result.unwrap_err();
    let printed = format!("{error} {error:?}").to_lowercase();
    for personal in [
        "ada",
        "lovelace",
        "example.net",
        "cnon",
        "tok_5f1c",
        "secret",
        "eaaa",
    ] {
        assert!(!printed.contains(personal), "{printed}");
    }
    error
}

pub(crate) fn name(error: &TillError) -> &'static str {
    let failure = match error {
        TillError::Declined { .. } => return "declined",
        TillError::Rejected { .. } => return "rejected",
        TillError::Failed(failure) => failure,
    };
    match failure {
        TillFailure::Unreachable { .. } => "unreachable",
        TillFailure::Unanswered { .. } => "unanswered",
        TillFailure::Busy { .. } => "busy",
        TillFailure::Deferred { .. } => "deferred",
        TillFailure::RateLimited { .. } => "rate-limited",
        TillFailure::Unauthorized { .. } => "unauthorized",
        TillFailure::KeyReused { .. } => "key reused",
        TillFailure::NotFound { .. } => "not found",
        TillFailure::Outdated { .. } => "outdated",
        TillFailure::InvalidState { .. } => "invalid state",
        TillFailure::Refused { .. } => "refused",
    }
}

const HEADERS: [&str; 3] = ["content-type", "authorization", "square-version"];

#[tokio::test]
async fn an_order_is_created_as_the_sdk_creates_it() {
    let square = ScriptedServer::start([Reply::text(200, ORDER)]).await;
    let order = ada_order(NONCE);
    let created = client(&square.url())
        .create_order(&order, KEY)
        .await
        .unwrap();
    assert_eq!(created.id, SQUARE_ORDER);
    assert_eq!(created.version, 1);
    assert_eq!(created.state, SquareOrderState::Open);
    assert_eq!(created.total, order.total);

    let request = square.next().await;
    assert!(!request.body.contains("Ada") && !request.body.contains("ada@"));
    let captured = include_str!("../golden/square-create-order.js-sdk-46.0.0.http");
    let mut golden = Golden::parse(captured);
    // What the captured order says otherwise: an item of the catalogue, a fulfilment, and its own names and ids.
    let body = &mut golden.body;
    body["idempotency_key"] = json!(KEY);
    let golden_order = body["order"].as_object_mut().unwrap();
    golden_order.remove("fulfillments").unwrap();
    golden_order["reference_id"] = json!(order.order_id);
    golden_order["source"]["name"] = json!("orderup");
    golden_order["metadata"] = json!({ "order_id": order.order_id });
    let items = golden_order["line_items"].as_array_mut().unwrap();
    let pancakes = items[0].as_object_mut().unwrap();
    pancakes.remove("catalog_object_id").unwrap();
    pancakes.insert("name".to_owned(), json!("Pancakes"));
    items[0]["metadata"] = json!({ "vendor_id": "bakery", "sku": "PANCAKES" });
    items[1]["metadata"] = json!({ "vendor_id": "courier", "sku": "DELIVERY" });
    golden.assert_sent(&request, &HEADERS);
}

#[tokio::test]
async fn a_payment_is_authorised_as_the_sdk_does_it() {
    let square = ScriptedServer::start([Reply::text(200, APPROVED)]).await;
    let order = ada_order(NONCE);
    let payment = client(&square.url())
        .create_payment(&order, SQUARE_ORDER, KEY, NONCE)
        .await
        .unwrap();
    assert_eq!(payment.id, SQUARE_PAYMENT);
    assert_eq!(payment.status, SquarePaymentStatus::Approved);
    assert_eq!(payment.amount, order.total);

    let captured = include_str!("../golden/square-create-payment.js-sdk-46.0.0.http");
    let mut golden = Golden::parse(captured);
    golden.body["idempotency_key"] = json!(KEY);
    golden.body["reference_id"] = json!(order.order_id);
    let request = square.next().await;
    golden.assert_sent(&request, &HEADERS);
    // Square's limits.
    let body = request.json();
    assert!(body["idempotency_key"].as_str().unwrap().len() <= 45);
    assert!(body["reference_id"].as_str().unwrap().len() <= 40);
}

#[tokio::test]
async fn an_order_is_paid_as_the_sdk_pays_it() {
    let paid = ORDER.replace("OPEN", "COMPLETED");
    let square = ScriptedServer::start([Reply::text(200, &paid)]).await;
    let client = client(&square.url());
    let order = client
        .pay_order(SQUARE_ORDER, SQUARE_PAYMENT, KEY)
        .await
        .unwrap();
    assert_eq!(order.state, SquareOrderState::Completed);
    let captured = include_str!("../golden/square-pay-order.js-sdk-46.0.0.http");
    let mut golden = Golden::parse(captured);
    golden.body["idempotency_key"] = json!(KEY);
    golden.assert_sent(&square.next().await, &HEADERS);

    client.pay_free_order(SQUARE_ORDER, KEY).await.unwrap();
    golden.body["payment_ids"] = json!([]);
    golden.assert_sent(&square.next().await, &HEADERS);
}

#[tokio::test]
async fn what_the_shop_has_already_is_recorded_and_not_charged() {
    let recorded = APPROVED.replace("APPROVED", "COMPLETED");
    let square = ScriptedServer::start([Reply::text(200, &recorded)]).await;
    let order = ada_order("EXTERNAL");
    assert!(order.payment.as_ref().unwrap().is_external());
    let square_client = client(&square.url());
    let long = "é".repeat(300);
    for reference in [None, Some("P-991"), Some(long.as_str())] {
        square_client
            .record_external_payment(&order, SQUARE_ORDER, KEY, reference)
            .await
            .unwrap();
        let mut details = json!({ "type": "OTHER", "source": "Orderup" });
        if let Some(reference) = reference {
            details["source_id"] = json!(reference.chars().take(255).collect::<String>());
        }
        let request = square.next().await;
        assert_eq!(request.path_and_query, "/v2/payments");
        let expected = json!({
            "idempotency_key": KEY,
            "source_id": "EXTERNAL",
            "external_details": details,
            "amount_money": { "amount": 1725, "currency": "EUR" },
            "order_id": SQUARE_ORDER,
            "location_id": "LOC1",
            "reference_id": order.order_id,
        });
        assert_eq!(request.json(), expected);
    }
}

#[tokio::test]
async fn orders_and_payments_are_asked_for_and_cancelled() {
    let cancelled_order = ORDER.replace("OPEN", "CANCELED");
    let voided = APPROVED.replace("APPROVED", "CANCELED");
    let square = ScriptedServer::start([
        Reply::text(200, ORDER),
        Reply::text(200, APPROVED),
        Reply::text(200, &voided),
        Reply::text(200, "{}"),
        Reply::text(200, &cancelled_order),
    ])
    .await;
    let client = client(&square.url());
    let order = client.get_order("or/der").await.unwrap();
    let payment = client.get_payment(SQUARE_PAYMENT).await.unwrap();
    let status = client.cancel_payment(SQUARE_PAYMENT).await.unwrap().status;
    client.cancel_payment_by_key(KEY).await.unwrap();
    let state = client
        .cancel_order(SQUARE_ORDER, 3, KEY)
        .await
        .unwrap()
        .state;
    assert_eq!((order.version, payment.amount), (1, euros(1725)));
    assert_eq!(status, SquarePaymentStatus::Canceled);
    assert_eq!(state, SquareOrderState::Canceled);

    let requests = square.rest();
    let lines: Vec<_> = requests
        .iter()
        .map(|request| format!("{} {}", request.method, request.path_and_query))
        .collect();
    assert_eq!(
        lines,
        [
            "GET /v2/orders/or%2Fder".to_owned(),
            format!("GET /v2/payments/{SQUARE_PAYMENT}"),
            format!("POST /v2/payments/{SQUARE_PAYMENT}/cancel"),
            "POST /v2/payments/cancel".to_owned(),
            format!("PUT /v2/orders/{SQUARE_ORDER}"),
        ]
    );
    for request in &requests {
        assert_eq!(request.header("square-version"), "2026-09-16");
        assert_eq!(request.header("authorization"), "Bearer EAAA-test-token");
    }
    assert_eq!(requests[3].json(), json!({ "idempotency_key": KEY }));
    let order = json!({ "location_id": "LOC1", "version": 3, "state": "CANCELED" });
    assert_eq!(
        requests[4].json(),
        json!({ "idempotency_key": KEY, "order": order })
    );
}

fn square_error(category: &str, code: &str) -> String {
    let detail = "Ada Lovelace's card cnon:card-nonce-ok";
    let error = json!({ "category": category, "code": code, "detail": detail });
    json!({ "errors": [error] }).to_string()
}

async fn payment_answered(reply: Reply) -> TillError {
    let square = ScriptedServer::start([reply]).await;
    let client = client(&square.url());
    told(
        client
            .create_payment(&ada_order(NONCE), SQUARE_ORDER, KEY, NONCE)
            .await,
    )
}

#[tokio::test]
async fn each_error_has_its_class_whatever_the_status() {
    const INVALID: &str = "INVALID_REQUEST_ERROR";
    const METHOD: &str = "PAYMENT_METHOD_ERROR";
    for (status, category, code, expected) in [
        (402, METHOD, "GENERIC_DECLINE", "declined"),
        (400, METHOD, "CVV_FAILURE", "declined"),
        (500, METHOD, "CARD_DECLINED", "declined"),
        (400, METHOD, "TEMPORARY_ERROR", "deferred"),
        (400, INVALID, "CARD_TOKEN_USED", "declined"),
        (400, INVALID, "SOURCE_EXPIRED", "declined"),
        (400, INVALID, "IDEMPOTENCY_KEY_REUSED", "key reused"),
        (400, INVALID, "VERSION_MISMATCH", "outdated"),
        (400, INVALID, "BAD_REQUEST", "invalid state"),
        (404, INVALID, "NOT_FOUND", "not found"),
        (408, INVALID, "REQUEST_TIMEOUT", "unanswered"),
        (409, INVALID, "CONFLICT", "deferred"),
        (400, INVALID, "EXPECTED_INTEGER", "refused"),
        (429, "RATE_LIMIT_ERROR", "RATE_LIMITED", "rate-limited"),
        (401, "AUTHENTICATION_ERROR", "UNAUTHORIZED", "unauthorized"),
        (503, "API_ERROR", "SERVICE_UNAVAILABLE", "unanswered"),
        (400, "UNHEARD_OF_ERROR", "UNHEARD_OF", "refused"),
        (500, "UNHEARD_OF_ERROR", "UNHEARD_OF", "unanswered"),
        (200, METHOD, "GENERIC_DECLINE", "declined"),
    ] {
        let body = square_error(category, code);
        let error = payment_answered(Reply::text(status, &body)).await;
        assert_eq!(name(&error), expected, "{error}");
        assert!(error.to_string().contains(code), "{error}");
    }
}

#[tokio::test]
async fn an_answer_that_is_not_squares_is_classed_by_its_status() {
    for (status, expected) in [
        (200, "unanswered"),
        (204, "unanswered"),
        (302, "busy"),
        (400, "refused"),
        (402, "refused"),
        (403, "unauthorized"),
        (404, "unauthorized"),
        (405, "unauthorized"),
        (408, "busy"),
        (409, "deferred"),
        (425, "busy"),
        (429, "rate-limited"),
        (500, "unanswered"),
        (502, "unanswered"),
        (503, "busy"),
        (504, "unanswered"),
    ] {
        let error = payment_answered(Reply::text(status, "<html>Ada</html>")).await;
        assert_eq!(name(&error), expected, "{error}");
    }
}

#[tokio::test]
async fn a_success_is_one_only_if_it_says_so() {
    let payment = |status: &str| APPROVED.replace("APPROVED", status);
    for (body, expected) in [
        (payment("FAILED"), "declined"),
        (payment("UNHEARD_OF"), "unanswered"),
        (APPROVED.replace("EUR", "DUCATS"), "unanswered"),
        (APPROVED.replace("1725", "17.25"), "unanswered"),
        (APPROVED.replace(SQUARE_PAYMENT, ""), "unanswered"),
        (APPROVED.replace(SQUARE_PAYMENT, ".."), "unanswered"),
        (APPROVED[..40].to_owned(), "unanswered"),
        ("{}".to_owned(), "unanswered"),
    ] {
        let error = payment_answered(Reply::text(200, &body)).await;
        assert_eq!(name(&error), expected, "{body}: {error}");
    }

    let mut failed: Value = serde_json::from_str(&payment("FAILED")).unwrap();
    failed["errors"] = json!([{ "category": "PAYMENT_METHOD_ERROR", "code": "CVV_FAILURE" }]);
    let error = payment_answered(Reply::text(200, &failed.to_string())).await;
    assert!(error.to_string().ends_with(": CVV_FAILURE"), "{error}");

    // A key that was used before changes nothing.
    let square = ScriptedServer::start([Reply::text(200, ORDER)]).await;
    let error = told(
        client(&square.url())
            .cancel_order(SQUARE_ORDER, 1, KEY)
            .await,
    );
    assert_eq!(name(&error), "invalid state");
    let errors = square_error("API_ERROR", "INTERNAL_SERVER_ERROR");
    let square = ScriptedServer::start([Reply::text(200, &errors)]).await;
    let error = told(client(&square.url()).cancel_payment_by_key(KEY).await);
    assert_eq!(name(&error), "unanswered");
}

#[tokio::test]
async fn a_new_order_that_is_not_found_means_that_our_address_is_wrong() {
    let body = square_error("INVALID_REQUEST_ERROR", "NOT_FOUND");
    let square = ScriptedServer::start([Reply::text(404, &body)]).await;
    let client = client(&square.url());
    let error = told(client.create_order(&ada_order(NONCE), KEY).await);
    assert_eq!(name(&error), "unauthorized");
    assert_eq!(name(&told(client.get_order("x").await)), "not found");
}

#[tokio::test]
async fn an_outage_is_told_from_a_lost_answer() {
    let url = format!("http://127.0.0.1:{}", free_port().await);
    let error = told(client(&url).create_order(&ada_order(NONCE), KEY).await);
    assert_eq!(name(&error), "unreachable");

    let square = ScriptedServer::start([Reply::Hang]).await;
    let client = impatient_client(&square.url());
    let error = told(client.create_order(&ada_order(NONCE), KEY).await);
    assert_eq!(name(&error), "unanswered");
    let TillError::Failed(failure) = error else {
        panic!("{error}");
    };
    assert!(failure.may_be_done());
    assert_eq!(failure.failure().class, Class::Ambiguous);
}

#[tokio::test]
async fn a_connection_that_ends_after_the_request_leaves_the_outcome_open() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let dropped = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut request = [0; 4096];
        assert!(stream.read(&mut request).await.unwrap() > 0);
    });
    let client = client(&url);
    let order = ada_order(NONCE);
    let error = told(
        client
            .create_payment(&order, SQUARE_ORDER, KEY, NONCE)
            .await,
    );
    assert_eq!(name(&error), "unanswered");
    dropped.await.unwrap();
}

#[tokio::test]
async fn a_rate_limit_says_how_long_it_lasts() {
    let reset = std::time::SystemTime::now() + Duration::from_secs(20);
    let reset = reset.duration_since(std::time::UNIX_EPOCH).unwrap();
    for (header, value, expected) in [
        ("retry-after", "7".to_owned(), 7..=7),
        ("x-ratelimit-reset", reset.as_secs().to_string(), 17..=20),
    ] {
        let error = payment_answered(Reply::with_header(429, header, value)).await;
        let TillError::Failed(failure) = error else {
            panic!("{error}");
        };
        let failure = failure.failure();
        assert_eq!(failure.class, Class::RateLimited);
        let wait = failure.retry_after.unwrap().as_secs();
        assert!(expected.contains(&wait), "{header}: {wait}");
    }
}

#[tokio::test]
async fn an_order_of_500_line_items_is_read_whole() {
    let item = json!({ "uid": "l1", "name": "n".repeat(300), "note": "x".repeat(700) });
    let mut body: Value = serde_json::from_str(ORDER).unwrap();
    body["order"]["line_items"] = vec![item; 500].into();
    let square = ScriptedServer::start([Reply::text(200, &body.to_string())]).await;
    client(&square.url()).get_order(SQUARE_ORDER).await.unwrap();
}

#[test]
fn settings_that_are_missing_or_wrong_are_named_and_none_is_printed() {
    let read = |settings: Settings| SquareClient::from_settings(&settings, &reqwest::Client::new());
    let problem = |settings| read(settings).unwrap_err().to_string();
    let token = ("SQUARE_ACCESS_TOKEN", "EAAA-secret");
    let location = ("SQUARE_LOCATION_ID", "LOC1");

    let error = problem(Settings::from_pairs([location]));
    assert!(error.contains("SQUARE_ACCESS_TOKEN is missing"), "{error}");
    let error = problem(Settings::from_pairs([token]));
    assert!(error.contains("SQUARE_LOCATION_ID is missing"), "{error}");
    let unusable = ("SQUARE_ACCESS_TOKEN", "EAAA\nsecret");
    let error = problem(Settings::from_pairs([unusable, location]));
    assert!(
        error.contains("SQUARE_ACCESS_TOKEN is not usable"),
        "{error}"
    );
    assert!(!error.contains("secret"), "{error}");
    let unencrypted = ("SQUARE_BASE_URL", "http://square.example");
    let error = problem(Settings::from_pairs([token, location, unencrypted]));
    assert!(error.contains("SQUARE_BASE_URL is not usable"), "{error}");

    let client = read(Settings::from_pairs([token, location])).unwrap();
    let printed = format!("{client:?}");
    assert!(
        printed.contains("https://connect.squareup.com"),
        "{printed}"
    );
    assert!(!printed.contains("secret"), "{printed}");
}
