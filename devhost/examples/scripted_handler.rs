//! A custom handler that does what its messages tell it; the tests of devhost run it.
//!
//! A message's text is the command: `ok`, `500`, `empty`, `blank`, `null`, `text`, `never`, `wait`, `exit 3`. What arrives is
//! printed, so that a test can wait for the line. `SCRIPT` in the environment changes how it starts. A tick of a timer is
//! answered with the status that was last posted to `/ticks/{status}`, and with 0 after the release.

use std::{
    net::Ipv4Addr,
    process::exit,
    sync::atomic::{AtomicU16, AtomicUsize, Ordering},
};

use axum::{
    Router,
    body::Bytes,
    extract::{Path, Request},
    http::{HeaderMap, StatusCode, header},
    response::{IntoResponse, Response},
    routing::{any, get, post},
};
use serde_json::{Value, json};

const CANONICAL: &str = r#"{"Outputs":{},"Logs":["a line of the handler's"],"ReturnValue":null}"#;

/// What a tick is answered.
static TICKS: AtomicU16 = AtomicU16::new(200);
static TICKS_AT_ONCE: AtomicUsize = AtomicUsize::new(0);

/// Lets a message with the text `wait` end.
static RELEASE: tokio::sync::Notify = tokio::sync::Notify::const_new();

#[tokio::main]
async fn main() -> std::io::Result<()> {
    match std::env::var("SCRIPT").as_deref() {
        Ok("deaf") => return std::future::pending().await,
        Ok("fails at start") => {
            eprintln!("it cannot be done");
            eprintln!("a warning about it");
            exit(3);
        }
        _ => {}
    }
    let port = std::env::var("FUNCTIONS_CUSTOMHANDLER_PORT")
        .ok()
        .and_then(|port| port.parse().ok())
        .unwrap_or_default();
    let listener = tokio::net::TcpListener::bind((Ipv4Addr::LOCALHOST, port)).await?;
    let router = Router::new()
        .route("/work", post(work))
        .route("/tick", post(tick))
        .route("/ticks/{status}", post(set_ticks))
        .route("/release", post(release))
        .route("/api/echo/{*rest}", any(echo))
        .route("/api/env/{name}", get(environment));
    axum::serve(listener, router).await
}

async fn work(headers: HeaderMap, body: Bytes) -> Response {
    let envelope: Value = serde_json::from_slice(&body).unwrap_or_default();
    let encoded = envelope["Data"]["message"].as_str().unwrap_or_default();
    let text: String = serde_json::from_str(encoded).unwrap_or_default();
    let framing = if headers.contains_key(header::TRANSFER_ENCODING) {
        "chunked"
    } else {
        "with a length"
    };
    println!(
        "got '{text}' {framing}, delivery {}",
        envelope["Metadata"]["DeliveryCount"]
    );
    let json = [(header::CONTENT_TYPE, "application/json")];
    match text.as_str() {
        "500" => (StatusCode::INTERNAL_SERVER_ERROR, json, CANONICAL).into_response(),
        "empty" => (StatusCode::OK, json).into_response(),
        "blank" => (json, " \r\n").into_response(),
        "null" => (json, "null").into_response(),
        "text" => (StatusCode::OK, CANONICAL).into_response(),
        "wait" => {
            RELEASE.notified().await;
            (json, CANONICAL).into_response()
        }
        "never" => std::future::pending().await,
        other => match other
            .strip_prefix("exit ")
            .and_then(|code| code.parse().ok())
        {
            Some(code) => exit(code),
            None => (json, CANONICAL).into_response(),
        },
    }
}

async fn tick(body: Bytes) -> Response {
    let at_once = TICKS_AT_ONCE.fetch_add(1, Ordering::SeqCst) + 1;
    println!(
        "tick, {at_once} at once: {}",
        String::from_utf8_lossy(&body)
    );
    let status = TICKS.load(Ordering::SeqCst);
    if status == 0 {
        RELEASE.notified().await;
    }
    TICKS_AT_ONCE.fetch_sub(1, Ordering::SeqCst);
    let json = [(header::CONTENT_TYPE, "application/json")];
    let status = StatusCode::from_u16(status).unwrap_or_default();
    (status, json, CANONICAL).into_response()
}

async fn set_ticks(Path(status): Path<u16>) {
    TICKS.store(status, Ordering::SeqCst);
}

async fn release() {
    RELEASE.notify_one();
}

/// `/api/echo/wait` answers after the release.
async fn echo(request: Request) -> Response {
    if request.uri().path() == "/api/echo/wait" {
        println!("a request waits");
        RELEASE.notified().await;
    }

    let (parts, body) = request.into_parts();
    let headers: Vec<(String, String)> = parts
        .headers
        .iter()
        .map(|(name, value)| {
            (
                name.to_string(),
                value.to_str().unwrap_or_default().to_owned(),
            )
        })
        .collect();
    let body = axum::body::to_bytes(body, usize::MAX)
        .await
        .unwrap_or_default();
    let answer = json!({
        "method": parts.method.as_str(),
        "uri": parts.uri.to_string(),
        "headers": headers.into_iter().collect::<std::collections::BTreeMap<_, _>>(),
        "body": String::from_utf8_lossy(&body),
        "pid": std::process::id(),
    });
    (
        StatusCode::IM_A_TEAPOT,
        [(header::CONTENT_TYPE, "application/json")],
        answer.to_string(),
    )
        .into_response()
}

async fn environment(Path(name): Path<String>) -> Response {
    std::env::var(name).map_or_else(
        |_| StatusCode::GONE.into_response(),
        IntoResponse::into_response,
    )
}
