//! What docs/SECURITY.md says of doors that stay shut: who may ask, from where, and how much an answer may take.

use std::{path::Path, time::Duration};

use axum::http::{Method, StatusCode};
use orderup::{
    config::Settings,
    http_client::{outgoing, read_at_most},
};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
};

use crate::handler::Handler;

const ORDER: &str = "01935a1e-9c00-7000-8000-000000000001";

/// No order's status is secret from its customer, and so one function asks for a token of its own instead of a key. What a problem
/// is about is no secret at all.
#[test]
fn every_http_function_asks_for_a_key_but_for_the_status_and_the_pages_of_problems() {
    let mut levels = Vec::new();
    for entry in std::fs::read_dir(env!("CARGO_MANIFEST_DIR")).unwrap() {
        let folder = entry.unwrap().path();
        let Ok(text) = std::fs::read_to_string(folder.join("function.json")) else {
            continue;
        };
        let function: Value = serde_json::from_str(&text).unwrap();
        let trigger = &function["bindings"][0];
        if trigger["type"] == "httpTrigger" {
            let name = folder.file_name().unwrap().to_str().unwrap().to_owned();
            levels.push((
                name,
                trigger["authLevel"].as_str().unwrap().to_owned(),
                trigger["methods"].to_string(),
            ));
        }
    }
    levels.sort();
    let level = |name: &str, level: &str, methods: Value| {
        (name.to_owned(), level.to_owned(), methods.to_string())
    };
    assert_eq!(
        levels,
        [
            level("cancel", "function", json!(["post"])),
            level("checkout", "function", json!(["post"])),
            level("order", "function", json!(["get"])),
            level("order-status", "anonymous", json!(["get"])),
            level("problem", "anonymous", json!(["get"])),
        ]
    );
}

#[test]
fn no_setting_opens_the_app_to_other_origins() {
    for file in ["host.json", "local.settings.json.example"] {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(file);
        let text = std::fs::read_to_string(path).unwrap().to_ascii_lowercase();
        for word in ["cors", "access-control", "customheaders"] {
            assert!(!text.contains(word), "{file} has `{word}`");
        }
    }
}

#[tokio::test]
async fn no_answer_is_kept_or_guessed_at_or_given_to_another_origin() {
    let handler =
        Handler::start_with(&[("ORDER_TOKEN_SECRET", "0123456789abcdef0123456789abcdef0123")])
            .await;
    let order = json!({
        "customer": { "name": "Ada Lovelace", "email": "ada@example.net" },
        "lineItems": [{
            "vendorId": "bakery", "sku": "P", "name": "Pancake", "quantity": 1,
            "unitPrice": { "amount": 1250, "currency": "AUD" },
        }],
        "payment": { "source": "cnon:card-nonce-ok" },
    });
    let status = format!("/api/orders/{ORDER}/status?token=x");
    let cases = [
        (Method::POST, "/api/checkout", order.to_string(), 202),
        (Method::POST, "/api/checkout", "{".to_owned(), 400),
        (Method::POST, "/api/checkout", "{}".to_owned(), 422),
        // What a browser asks before it lets a page of another origin send JSON.
        (Method::OPTIONS, "/api/checkout", String::new(), 405),
        (Method::GET, status.as_str(), String::new(), 401),
        (Method::GET, "/api/orders/x", String::new(), 404),
        (Method::GET, "/nothing", String::new(), 404),
        (Method::GET, "/", String::new(), 200),
        (Method::POST, "/notify", "{}".to_owned(), 422),
    ];
    for (method, path, body, expected) in cases {
        let request = handler
            .http
            .request(method.clone(), handler.url(path))
            .header("content-type", "application/json")
            .header("origin", "https://elsewhere.example")
            .header("access-control-request-method", "POST")
            .header("access-control-request-headers", "content-type")
            .body(body);
        let response = request.send().await.unwrap();
        assert_eq!(response.status().as_u16(), expected, "{method} {path}");
        let headers = response.headers();
        assert_eq!(headers["cache-control"], "no-store", "{method} {path}");
        assert_eq!(headers["x-content-type-options"], "nosniff");
        for name in headers.keys() {
            let name = name.as_str();
            let tells = name.starts_with("access-control-") || name == "server";
            assert!(!tells && name != "set-cookie", "{method} {path}: {name}");
        }
    }
}

/// Answers every request with `head` and a body that never ends, until the other side has had enough.
async fn endless(head: &'static str) -> String {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let url = format!("http://{}/", listener.local_addr().unwrap());
    tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut request = [0; 1024];
        let read = stream.read(&mut request).await.unwrap();
        let request = String::from_utf8_lossy(&request[..read]).to_ascii_lowercase();
        assert!(!request.contains("accept-encoding"), "{request}");
        stream.write_all(head.as_bytes()).await.unwrap();
        while stream.write_all(&[b'x'; 4096]).await.is_ok() {}
    });
    url
}

#[tokio::test]
async fn an_answer_without_an_end_fills_no_memory() {
    let url = endless("HTTP/1.1 200 OK\r\n\r\n").await;
    let client = outgoing(&Settings::from_pairs([])).unwrap();
    let mut response = client.get(url).send().await.unwrap();
    let body = read_at_most(&mut response, 10_000).await.unwrap();
    assert_eq!(body.len(), 10_000);
}

/// A small answer that becomes a large one is no danger to whoever does not unpack it.
#[tokio::test]
async fn no_answer_is_unpacked() {
    let url = endless("HTTP/1.1 200 OK\r\ncontent-encoding: gzip\r\n\r\n").await;
    let client = outgoing(&Settings::from_pairs([])).unwrap();
    let mut response = client.get(url).send().await.unwrap();
    let body = read_at_most(&mut response, 100).await.unwrap();
    assert_eq!(body, [b'x'; 100]);
}

#[tokio::test]
async fn a_vendor_whose_answer_has_no_end_holds_nobody_up() {
    let vendor = endless("HTTP/1.1 200 OK\r\n\r\n").await;
    let folder = std::env::temp_dir().join(format!("orderup-{}", uuid::Uuid::new_v4()));
    std::fs::create_dir(&folder).unwrap();
    let file = folder.join("vendors.json");
    let entry = json!([{
        "id": "bakery", "name": "The Bakery", "url": vendor, "allowPrivate": true,
        "secrets": ["whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"],
    }]);
    std::fs::write(&file, entry.to_string()).unwrap();
    let settings = Settings::from_pairs([("VENDORS_FILE", file.to_str().unwrap())]);
    let policy = orderup::retry_policy::RetryPolicy::default();
    let vendors = orderup::vendors::Vendors::from_settings(&settings, &policy).unwrap();
    std::fs::remove_dir_all(&folder).unwrap();
    let client = orderup::webhook::WebhookClient::new(Duration::from_secs(60));
    let webhook = orderup::webhook::Webhook {
        id: "m-1".to_owned(),
        body: "{}".to_owned(),
    };
    let now = time::OffsetDateTime::now_utc();
    let delivered = client.deliver(vendors.get("bakery").unwrap(), &webhook, now);
    // Half of what the client has: it is the answer that is cut off, and not the time.
    tokio::time::timeout(Duration::from_secs(30), delivered)
        .await
        .expect("no more than a part of the answer is read")
        .unwrap();
}

/// Whoever is on the same network does not get at the functions, which trust their caller: the host.
#[tokio::test]
async fn only_this_machine_can_connect() {
    let handler = Handler::start().await;
    assert!(handler.address.ip().is_loopback());
    let port = handler.address.port();
    // Another address of this machine, which everything that listens on all of them would answer on.
    let elsewhere = tokio::net::TcpStream::connect(("127.0.0.2", port)).await;
    assert!(elsewhere.is_err());
    let response = handler.http.get(handler.url("/")).send().await.unwrap();
    assert_eq!(response.status(), StatusCode::OK);
}
