//! The email provider and the vendors that devhost stands in for.

use std::time::{Duration, SystemTime};

use axum::http::{HeaderMap, Method};
use base64::{Engine, engine::general_purpose::STANDARD};
use devhost::{
    acs::ACCESS_KEY,
    acs_signature::{SignedRequest, verify},
};
use hmac::{Hmac, Mac};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::app::{App, BAKERY_SECRET, Devhost, TEA_SECRET};

const PATH: &str = "/emails:send?api-version=2025-09-01";
const OPERATION: &str = "8540c0de-899f-5cce-acb5-3ec493af3800";

/// The request that the official JavaScript SDK 1.1.0 signed with the key `0123456789abcdef` twice.
fn golden() -> (HeaderMap, &'static [u8], SystemTime) {
    let body = br#"{"headers":{"x-order-id":"ORD-1001"},"senderAddress":"orders@contoso.example","content":{"subject":"Order ORD-1001 confirmed","plainText":"Your order is confirmed.","html":"<p>Your order is <b>confirmed</b>.</p>"},"recipients":{"to":[{"address":"ada@example.net","displayName":"Ada Lovelace"}]},"replyTo":[{"address":"help@contoso.example","displayName":"Help"}],"userEngagementTrackingDisabled":true}"#;
    let headers = [
        ("host", "127.0.0.1:18101"),
        ("x-ms-date", "Sun, 22 Nov 2026 19:43:43 GMT"),
        (
            "x-ms-content-sha256",
            "PjuVl8yjy8cUQmXTHKQwqeZq396gWnkw1aAxqiv3iEw=",
        ),
        (
            "authorization",
            "HMAC-SHA256 SignedHeaders=x-ms-date;host;x-ms-content-sha256&Signature=sqdIiF3la6Uiv5dQXUA2lSyf3VJ0PwJxNzsnl2qVrhw=",
        ),
    ];
    let headers = headers
        .into_iter()
        .map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap()))
        .collect();
    let date = httpdate::parse_http_date("Sun, 22 Nov 2026 19:43:43 GMT").unwrap();
    (headers, body, date)
}

fn check(headers: &HeaderMap, path: &str, body: &[u8], now: SystemTime) -> Result<(), String> {
    let request = SignedRequest {
        method: &Method::POST,
        path_and_query: path,
        headers,
        body,
    };
    verify(request, b"0123456789abcdef0123456789abcdef", now)
}

#[test]
fn the_official_sdks_signature_is_accepted() {
    let (headers, body, date) = golden();
    assert_eq!(
        check(&headers, PATH, body, date + Duration::from_secs(600)),
        Ok(())
    );
}

#[test]
fn anything_else_than_what_was_signed_is_refused() {
    let (headers, body, date) = golden();
    let refused = |headers: &HeaderMap, path, body, now, word: &str| {
        let error = check(headers, path, body, now).unwrap_err();
        assert!(error.contains(word), "{error}");
    };
    refused(
        &headers,
        "/emails:send?api-version=2023-03-31",
        body,
        date,
        "signature does not match",
    );
    refused(&headers, PATH, b"{}", date, "hash of the body");
    refused(
        &headers,
        PATH,
        body,
        date + Duration::from_secs(901),
        "901 s away",
    );
    refused(
        &headers,
        PATH,
        body,
        date - Duration::from_secs(901),
        "901 s away",
    );
    for (name, value) in [
        ("host", "127.0.0.1:1"),
        ("authorization", "Bearer token"),
        ("x-ms-date", "today"),
    ] {
        let mut changed = headers.clone();
        changed.insert(name, value.parse().unwrap());
        assert!(check(&changed, PATH, body, date).is_err(), "{name}");
        changed.remove(name);
        refused(&changed, PATH, body, date, name);
    }
}

pub(crate) fn email(subject: &str) -> Value {
    json!({
        "senderAddress": "orders@shop.example",
        "content": {"subject": subject, "plainText": "text", "html": "<p>html</p>"},
        "recipients": {"to": [{"address": "ada@example.net", "displayName": "Ada"}]},
        "replyTo": [{"address": "help@shop.example"}],
    })
}

/// A signed request to the email stand-in.
pub(crate) fn signed(
    devhost: &Devhost,
    outside: &str,
    method: Method,
    path: &str,
    body: String,
) -> reqwest::RequestBuilder {
    let host = outside.trim_start_matches("http://");
    let date = httpdate::fmt_http_date(SystemTime::now());
    let hash = STANDARD.encode(Sha256::digest(&body));
    let signature = Hmac::<Sha256>::new_from_slice(&STANDARD.decode(ACCESS_KEY).unwrap())
        .unwrap()
        .chain_update(format!("{method}\n{path}\n{date};{host};{hash}"))
        .finalize()
        .into_bytes();
    let signature = STANDARD.encode(signature);
    devhost
        .client
        .request(method, format!("{outside}{path}"))
        .header("content-type", "application/json")
        .header("x-ms-date", date)
        .header("x-ms-content-sha256", hash)
        .header(
            "authorization",
            format!(
                "HMAC-SHA256 SignedHeaders=x-ms-date;host;x-ms-content-sha256&Signature={signature}"
            ),
        )
        .body(body)
}

async fn send(devhost: &Devhost, outside: &str, operation: &str, body: &Value) -> (u16, Value) {
    let request = signed(devhost, outside, Method::POST, PATH, body.to_string())
        .header("operation-id", operation);
    let response = request.send().await.unwrap();
    let status = response.status().as_u16();
    if status == 202 {
        let location = response.headers()["operation-location"].to_str().unwrap();
        assert_eq!(
            location,
            format!("{outside}/emails/operations/{operation}?api-version=2025-09-01")
        );
        assert!(response.headers().contains_key("retry-after"));
    }
    (
        status,
        serde_json::from_str(&response.text().await.unwrap()).unwrap(),
    )
}

#[tokio::test]
async fn an_email_is_taken_once_for_its_operation_id_and_survives_a_kill() {
    let app = App::new();
    let mut devhost = app.run().await;
    let outside = devhost.outside().await;
    let (status, answer) = send(&devhost, &outside, OPERATION, &email("first")).await;
    assert_eq!((status, &answer["id"]), (202, &OPERATION.into()));
    assert_eq!(
        send(&devhost, &outside, OPERATION, &email("first")).await.0,
        202
    );
    let (status, answer) = send(&devhost, &outside, OPERATION, &email("another")).await;
    assert_eq!(
        (status, &answer["error"]["code"]),
        (400, &"BadRequest".into())
    );
    devhost.child.kill().await.unwrap();

    let devhost = app.run().await;
    let outside = devhost.outside().await;
    let emails = devhost.get_json("/_dev/emails").await;
    assert_eq!(emails.as_array().unwrap().len(), 1);
    let expected = json!({
        "to": ["ada@example.net"], "from": "orders@shop.example", "subject": "first", "text": "text",
        "html": "<p>html</p>", "replyTo": ["help@shop.example"], "operationId": OPERATION,
    });
    for (key, value) in expected.as_object().unwrap() {
        assert_eq!(&emails[0][key], value, "{key}");
    }
    assert_eq!(
        send(&devhost, &outside, OPERATION, &email("first")).await.0,
        202
    );
    let delete = devhost
        .client
        .delete(format!("{}/_dev/emails", devhost.url))
        .send()
        .await
        .unwrap();
    assert_eq!(delete.status(), 204);
    assert_eq!(
        send(&devhost, &outside, OPERATION, &email("first")).await.0,
        202
    );
    assert_eq!(devhost.get_json("/_dev/emails").await, json!([]));
}

#[tokio::test]
async fn an_operation_can_be_asked_for() {
    let app = App::new();
    let devhost = app.run().await;
    let outside = devhost.outside().await;
    let path = format!("/emails/operations/{OPERATION}?api-version=2025-09-01");
    let ask = || async {
        signed(&devhost, &outside, Method::GET, &path, String::new())
            .send()
            .await
            .unwrap()
    };
    assert_eq!(ask().await.status(), 404);
    send(&devhost, &outside, OPERATION, &email("first")).await;
    let answer = ask().await;
    assert_eq!(answer.status(), 200);
    assert!(answer.text().await.unwrap().contains("\"Succeeded\""));
}

#[tokio::test]
async fn an_email_that_the_schema_does_not_know_is_refused() {
    let app = App::new();
    let devhost = app.run().await;
    let outside = devhost.outside().await;
    let cases: [(&str, Value, &str); 6] = [
        ("/recipients/to", json!([]), "recipients.to"),
        ("/recipients/to/0/address", json!("ada"), "recipients.to[0]"),
        ("/senderAddress", json!("nobody"), "senderAddress"),
        ("/content/subject", json!(""), "subject"),
        ("/content", json!({"subject": "x"}), "plainText"),
        (
            "/content",
            json!({"subject": "x", "plainTxt": "y"}),
            "plainTxt",
        ),
    ];
    for (pointer, value, word) in cases {
        let mut body = email("x");
        *body.pointer_mut(pointer).unwrap() = value;
        let (status, answer) = send(&devhost, &outside, OPERATION, &body).await;
        let message = answer["error"]["message"].as_str().unwrap();
        assert!(
            status == 400 && message.contains(word),
            "{status} {message}"
        );
    }
    assert_eq!(
        send(&devhost, &outside, "not-a-uuid", &email("x")).await.0,
        400
    );
    let unsigned = devhost
        .client
        .post(format!("{outside}{PATH}"))
        .body("{}")
        .send()
        .await
        .unwrap();
    assert_eq!(unsigned.status(), 401);
    let path = "/emails:send?api-version=2021-10-01-preview";
    let old = signed(
        &devhost,
        &outside,
        Method::POST,
        path,
        email("x").to_string(),
    )
    .send()
    .await
    .unwrap();
    assert_eq!(old.status(), 400);
    assert_eq!(devhost.get_json("/_dev/emails").await, json!([]));
}

/// A webhook signed with the secret.
async fn notify(devhost: &Devhost, outside: &str, vendor: &str, secret: &str) -> u16 {
    let body = r#"{"type":"order.placed","data":{}}"#;
    let now = jiff::Timestamp::now().as_second();
    let signature = standardwebhooks::Webhook::new(secret)
        .unwrap()
        .sign("msg_1", now, body.as_bytes())
        .unwrap();
    let request = devhost
        .client
        .post(format!("{outside}/vendors/{vendor}"))
        .header("webhook-id", "msg_1")
        .header("webhook-timestamp", now)
        .header("webhook-signature", signature)
        .body(body);
    request.send().await.unwrap().status().as_u16()
}

#[tokio::test]
async fn a_webhook_is_verified_and_kept() {
    let app = App::new();
    let mut devhost = app.run().await;
    let outside = devhost.outside().await;
    assert_eq!(
        notify(&devhost, &outside, "bakery", BAKERY_SECRET).await,
        200
    );
    assert_eq!(notify(&devhost, &outside, "tea", TEA_SECRET).await, 200);
    assert_eq!(notify(&devhost, &outside, "tea", TEA_SECRET).await, 200);
    assert_eq!(notify(&devhost, &outside, "tea", BAKERY_SECRET).await, 401);
    assert_eq!(notify(&devhost, &outside, "nobody", TEA_SECRET).await, 404);
    devhost.child.kill().await.unwrap();

    let devhost = app.run().await;
    let webhooks = devhost.get_json("/_dev/webhooks").await;
    let shown: Vec<_> = webhooks
        .as_array()
        .unwrap()
        .iter()
        .map(|webhook| {
            assert_eq!(
                (&webhook["id"], &webhook["type"]),
                (&"msg_1".into(), &"order.placed".into())
            );
            (
                webhook["vendor"].as_str().unwrap(),
                webhook["verified"] == true,
                webhook["duplicate"] == true,
                webhook["deliveries"].as_u64().unwrap(),
            )
        })
        .collect();
    assert_eq!(
        shown,
        [
            ("bakery", true, false, 1),
            ("tea", true, false, 2),
            ("tea", false, true, 1)
        ]
    );
}
