//! Requests that Service Bus refuses, and in which words; nothing of them may reach the entity.

use reqwest::{Method, RequestBuilder};

use servicebus_emulator::MAX_MESSAGE_SIZE;

use crate::namespace::Namespace;

async fn refused(request: RequestBuilder, status: u16) -> String {
    let response = request.send().await.unwrap();
    assert_eq!(response.status(), status);
    assert_eq!(
        response.headers()["content-type"],
        "application/xml; charset=utf-8"
    );
    let text = response.text().await.unwrap();
    assert!(
        text.starts_with(&format!("<Error><Code>{status}</Code><Detail>")),
        "{text}"
    );
    for part in [
        " TrackingId:",
        ", SystemTracker:127.0.0.1:",
        ", Timestamp:20",
    ] {
        assert!(text.contains(part), "{text}");
    }
    assert!(text.ends_with("</Detail></Error>"), "{text}");
    text
}

#[tokio::test]
async fn an_unquoted_string_is_refused_and_nothing_is_sent() {
    let namespace = Namespace::start().await;
    for value in [
        "world",
        "Fri, 04 Mar 2011 08:49:37 GMT",
        "True",
        "1,5",
        "\"open",
        "<b>",
    ] {
        let text = refused(namespace.post("work/messages").header("Hello", value), 400).await;
        assert!(
            text.contains(" of the HTTP header hello is invalid."),
            "{text}"
        );
    }
    assert!(namespace.is_empty("work").await);
}

#[tokio::test]
async fn broken_broker_properties_are_refused_and_nothing_is_sent() {
    let namespace = Namespace::start().await;
    for properties in [
        "Label=x",
        "[]",
        r#"{"Label":5}"#,
        r#"{"TimeToLive":"90"}"#,
        r#"{"TimeToLive":-5}"#,
        r#"{"ScheduledEnqueueTimeUtc":"Thu, 24 Dec 2026 17:00:05 +0000"}"#,
        r#"{"ScheduledEnqueueTimeUtc":"2026-12-24T17:00:05Z"}"#,
        r#"{"SessionId":"a","PartitionKey":"b"}"#,
        r#"{"MessageId":""}"#,
        &format!(r#"{{"MessageId":"{}"}}"#, "x".repeat(129)),
    ] {
        let request = namespace
            .post("work/messages")
            .header("BrokerProperties", properties);
        refused(request, 400).await;
    }
    assert!(namespace.is_empty("work").await);
}

#[tokio::test]
async fn a_timeout_that_is_no_number_is_refused() {
    let namespace = Namespace::start().await;
    for timeout in ["soon", "-1", "1.5", ""] {
        let path = format!("work/messages/head?timeout={timeout}");
        refused(namespace.post(&path), 400).await;
        refused(namespace.request(Method::DELETE, &path), 400).await;
    }
}

#[tokio::test]
async fn a_verb_that_does_not_exist_there_is_refused() {
    let namespace = Namespace::start().await;
    for (method, path) in [
        (Method::PATCH, "work/messages"),
        (Method::PATCH, "work/messages/head"),
        (Method::POST, "work"),
        (
            Method::PATCH,
            "work/messages/1/0e5a3d4e-6a3c-4f5c-9d2b-3f2f3f0f7c11",
        ),
    ] {
        refused(namespace.request(method, path), 405).await;
    }
    // There the management API is asked for an entity of that name.
    for path in [
        "work/messages",
        "work/messages/head",
        "work/messages/1/0e5a3d4e-6a3c-4f5c-9d2b-3f2f3f0f7c11",
    ] {
        refused(namespace.request(Method::GET, path), 404).await;
    }
    for path in ["work/messages", "work/messages/head"] {
        refused(namespace.request(Method::PUT, path), 400).await;
    }
}

#[tokio::test]
async fn a_body_beyond_the_limit_is_forbidden() {
    let namespace = Namespace::start().await;
    for size in [MAX_MESSAGE_SIZE + 1, 8 * MAX_MESSAGE_SIZE] {
        let request = namespace.post("work/messages").body(vec![b'x'; size]);
        refused(request, 403).await;
    }
    assert!(namespace.is_empty("work").await);
}

#[tokio::test]
async fn a_full_entity_is_forbidden() {
    let namespace = Namespace::with_quota(100_000).await;
    let send = || namespace.post("work/messages").body(vec![b'x'; 60_000]);
    assert_eq!(send().send().await.unwrap().status(), 201);
    let text = refused(send(), 403).await;
    assert!(
        text.contains("`work` has reached its maximum size"),
        "{text}"
    );
    namespace.take("work").await;
    assert_eq!(send().send().await.unwrap().status(), 201);
}

#[tokio::test]
async fn too_large_a_head_is_refused_by_the_web_server_itself() {
    let namespace = Namespace::start().await;
    let long = format!("\"{}\"", "x".repeat(16 * 1024));
    let response = namespace
        .post("work/messages")
        .header("long", long)
        .send()
        .await
        .unwrap();
    assert_eq!(response.status(), 400);
    let text = response.text().await.unwrap();
    assert!(text.contains("Bad Request - Request Too Long"), "{text}");
    assert!(namespace.is_empty("work").await);

    let fits = format!("\"{}\"", "x".repeat(15 * 1024));
    let response = namespace.post("work/messages").header("long", fits).send();
    assert_eq!(response.await.unwrap().status(), 201);
}
