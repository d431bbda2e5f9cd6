//! Several messages in one request.

use serde_json::json;

use crate::namespace::{Namespace, broker_properties, header};

const BATCH: &str = "application/vnd.microsoft.servicebus.json";

#[tokio::test]
async fn a_batch_is_several_messages_with_properties_of_their_own() {
    let namespace = Namespace::start().await;
    let batch = json!([
        { "Body": "{\"a\":1}",
          "BrokerProperties": { "Label": "M1", "TimeToLiveTimeSpan": "0.00:00:40" },
          "UserProperties": { "Priority": "Low", "Count": 3, "Share": 0.5, "Vip": true } },
        { "Body": "second" }
    ]);
    let sent = namespace
        .post("work/messages")
        .header("content-type", format!("{BATCH}; charset=utf-8"))
        .header("BrokerProperties", r#"{"Label":"ignored"}"#)
        .header("ignored", "true")
        .body(batch.to_string())
        .send();
    assert_eq!(sent.await.unwrap().status(), 201);

    let first = namespace.take("work").await;
    assert_eq!(broker_properties(&first)["Label"], "M1");
    assert_eq!(broker_properties(&first)["TimeToLive"].as_f64(), Some(40.0));
    assert_eq!(header(&first, "priority"), Some("\"Low\""));
    assert_eq!(header(&first, "count"), Some("3"));
    assert_eq!(header(&first, "share"), Some("0.5"));
    assert_eq!(header(&first, "vip"), Some("true"));
    assert_eq!(header(&first, "ignored"), None);
    assert_eq!(header(&first, "content-type"), None);
    assert_eq!(first.text().await.unwrap(), "{\"a\":1}");

    let second = namespace.take("work").await;
    assert_eq!(broker_properties(&second).get("Label"), None);
    assert_eq!(second.text().await.unwrap(), "second");
    assert!(namespace.is_empty("work").await);
}

#[tokio::test]
async fn a_batch_with_one_bad_message_is_refused_whole() {
    let namespace = Namespace::start().await;
    for batch in [
        json!({ "Body": "not an array" }),
        json!([]),
        json!(["not an object"]),
        json!([{ "Body": "good" }, { "Body": 5 }]),
        json!([{ "Body": "good" }, {}]),
        json!([{ "Body": "good" }, { "Body": "x", "BrokerProperties": { "Label": 5 } }]),
        json!([{ "Body": "good" }, { "Body": "x", "BrokerProperties": "Label" }]),
        json!([{ "Body": "good" }, { "Body": "x", "UserProperties": { "a": [] } }]),
        json!([{ "Body": "x", "BrokerProperties": { "ScheduledEnqueueTimeUtc": "2026-12-24T17:00:05Z" } }]),
    ] {
        let sent = namespace
            .post("work/messages")
            .header("content-type", BATCH)
            .body(batch.to_string())
            .send();
        assert_eq!(sent.await.unwrap().status(), 400, "{batch}");
    }
    let sent = namespace
        .post("work/messages")
        .header("content-type", BATCH)
        .body("[{")
        .send();
    assert_eq!(sent.await.unwrap().status(), 400);
    assert!(namespace.is_empty("work").await);
}
