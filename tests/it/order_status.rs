//! An order's status from outside, with an order book in a folder.

use axum::http::StatusCode;
use orderup::{config::Settings, order::OrderId, order_token::OrderTokens};
use reqwest::Response;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::handler::{Folder, Handler, json_of, order_placed};

const SECRET: &str = "0123456789abcdef0123456789abcdef";
const ORDER: &str = "01935a1e-9c00-7000-8000-000000000001";

/// Writes a fact as the handler would.
fn put(folder: &Folder, path: &str, body: &Value) {
    let path = folder.0.join(path);
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(path, body.to_string()).unwrap();
}

fn put_placed(folder: &Folder) {
    let mut placed = order_placed();
    placed["data"].as_object_mut().unwrap().remove("payment");
    put(folder, &format!("orders/{ORDER}/placed.json"), &placed);
}

async fn start(folder: &Folder) -> Handler {
    let book = format!("{}/", folder.0.display());
    Handler::start_with(&[("ORDER_BOOK", &book), ("ORDER_TOKEN_SECRET", SECRET)]).await
}

async fn get(handler: &Handler, path: &str) -> Response {
    handler.http.get(handler.url(path)).send().await.unwrap()
}

fn token(order: &str) -> String {
    let settings = Settings::from_pairs([("ORDER_TOKEN_SECRET", SECRET)]);
    let tokens = OrderTokens::from_settings(&settings).unwrap().unwrap();
    tokens.token(OrderId(order.parse().unwrap()))
}

#[tokio::test]
async fn an_order_s_status_and_timeline_are_told_without_its_customer() {
    let folder = Folder::new();
    put_placed(&folder);
    let told = format!("orders/{ORDER}/told");
    let sent = json!({ "at": "2026-11-22T19:40:02.500Z" });
    put(
        &folder,
        &format!("{told}/customers/placed/sent.json"),
        &sent,
    );
    let later = json!({ "at": "2026-11-22T19:40:01Z", "due": "2026-11-22T19:41:00Z", "error": "transient", "failures": 1 });
    put(
        &folder,
        &format!("{told}/vendors/bakery/placed/later-0000000000.json"),
        &later,
    );
    let handler = start(&folder).await;
    let response = get(&handler, &format!("/api/orders/{ORDER}")).await;
    assert_eq!(response.status(), StatusCode::OK);
    assert_eq!(response.headers()["content-type"], "application/json");
    assert_eq!(response.headers()["cache-control"], "private, no-cache");
    let etag = response.headers()["etag"].clone();
    let told = json_of(response).await;
    let waiting = json!({
        "at": "2026-11-22T19:40:01Z", "what": "waiting", "who": "vendor", "vendor": "bakery", "about": "order.placed",
        "nextAttempt": "2026-11-22T19:41:00Z", "lastError": "transient", "failures": 1
    });
    assert_eq!(
        told,
        json!({
            "orderId": ORDER,
            "status": "placed",
            "placedAt": "2026-11-22T19:40:00Z",
            "total": { "amount": 3400, "currency": "AUD" },
            "timeline": [
                { "at": "2026-11-22T19:40:00Z", "what": "placed" },
                waiting,
                { "at": "2026-11-22T19:40:02.5Z", "what": "told", "who": "customer", "about": "order.placed" },
            ],
            "waiting": [waiting],
            "links": {
                "self": format!("/api/orders/{ORDER}"),
                "cancel": format!("/api/orders/{ORDER}/cancel")
            }
        })
    );

    let again = || {
        handler
            .http
            .get(handler.url(&format!("/api/orders/{ORDER}")))
    };
    let again = again().header("If-None-Match", &etag).send().await.unwrap();
    assert_eq!(again.status(), StatusCode::NOT_MODIFIED);
    assert_eq!(again.headers()["etag"], etag);
    assert!(again.bytes().await.unwrap().is_empty());
}

#[tokio::test]
async fn a_token_opens_the_status_of_its_order_and_nothing_else() {
    let folder = Folder::new();
    put_placed(&folder);
    let handler = start(&folder).await;
    let path = format!("/api/orders/{ORDER}/status");
    let other = "01935a1e-9c00-7000-8000-000000000002";
    for query in [
        "",
        "?token=",
        "?token=x",
        &format!("?token={}", token(other)),
    ] {
        let response = get(&handler, &format!("{path}{query}")).await;
        assert_eq!(response.status(), StatusCode::UNAUTHORIZED, "{query}");
        assert_eq!(response.headers()["www-authenticate"], "Bearer");
        let problem = response.headers()["content-type"].clone();
        assert_eq!(problem, "application/problem+json");
    }
    let token = token(ORDER);
    let bearer = handler.http.get(handler.url(&path)).bearer_auth(&token);
    let told = json_of(bearer.send().await.unwrap()).await;
    assert_eq!(told["status"], "placed");
    assert_eq!(told["links"]["self"], path);
    // As a person may write it; the query stays as it is.
    let shouted = format!(
        "{}/?token={token}",
        path.to_uppercase().replace("/API", "/Api")
    );
    let response = get(&handler, &shouted).await;
    assert_eq!(response.status(), StatusCode::OK, "{shouted}");
    assert!(!json_of(response).await.to_string().contains(&token));

    let log = handler.stop().await.join("\n");
    assert!(log.contains("order-status answered 401"), "{log}");
    assert!(log.contains(&format!("\"order.id\":\"{ORDER}\"")), "{log}");
    for secret in [token.as_str(), SECRET, "Ada", "Lovelace", "example.net"] {
        assert!(!log.contains(secret), "{log}");
    }
}

#[tokio::test]
async fn an_order_that_is_not_in_the_book_is_on_its_way_or_was_never_placed() {
    let folder = Folder::new();
    let handler = start(&folder).await;
    let new = Uuid::now_v7().to_string();
    let keyed = Uuid::new_v5(&Uuid::NAMESPACE_URL, b"key").to_string();
    for path in [
        format!("/api/orders/{new}"),
        format!("/api/orders/{keyed}/status?token={}", token(&keyed)),
    ] {
        let response = get(&handler, &path).await;
        assert_eq!(response.status(), StatusCode::OK, "{path}");
        assert_eq!(response.headers()["retry-after"], "2");
        let told = json_of(response).await;
        assert_eq!(told["status"], "accepted");
        assert_eq!(
            (&told["timeline"], &told["waiting"]),
            (&json!([]), &json!([]))
        );
    }
    for path in [
        format!("/api/orders/{ORDER}"),
        format!("/api/orders/{keyed}"),
        "/api/orders/7".to_owned(),
        "/api/orders/7/status".to_owned(),
    ] {
        let response = get(&handler, &path).await;
        assert_eq!(response.status(), StatusCode::NOT_FOUND, "{path}");
        assert_eq!(
            response.headers()["content-type"],
            "application/problem+json"
        );
    }
    let posted = handler
        .post(&format!("/api/orders/{ORDER}"), &json!({}))
        .await;
    assert_eq!(posted.status(), StatusCode::METHOD_NOT_ALLOWED);
}

#[tokio::test]
async fn without_a_book_or_a_secret_the_answer_says_what_is_missing() {
    let handler = Handler::start_with(&[("ORDER_BOOK", "none")]).await;
    for (path, named) in [
        (format!("/api/orders/{ORDER}"), "ORDER_BOOK"),
        (format!("/api/orders/{ORDER}/status"), "ORDER_TOKEN_SECRET"),
    ] {
        let response = get(&handler, &path).await;
        assert_eq!(response.status(), StatusCode::NOT_FOUND, "{path}");
        let detail = json_of(response).await["detail"].clone();
        assert!(detail.as_str().unwrap().contains(named), "{detail}");
    }
}
