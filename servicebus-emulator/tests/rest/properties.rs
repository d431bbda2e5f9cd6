//! Properties in and out: custom ones as headers with inferred types, broker properties as JSON.

use crate::namespace::{Namespace, broker_properties, header};

#[tokio::test]
async fn custom_properties_come_out_as_they_went_in() {
    let namespace = Namespace::start().await;
    let properties = [
        ("text", "\"A-17\""),
        ("digits", "\"5\""),
        ("number", "5"),
        ("decimal", "299.98"),
        ("yes", "true"),
        ("order-time", "\"Fri, 04 Mar 2011 08:49:37 GMT\""),
        (
            "traceparent",
            "\"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01\"",
        ),
    ];
    let request = properties
        .iter()
        .fold(namespace.post("work/messages"), |request, (name, value)| {
            request.header(*name, *value)
        });
    assert_eq!(request.body("x").send().await.unwrap().status(), 201);
    let received = namespace.take("work").await;
    for (name, value) in properties {
        assert_eq!(header(&received, name), Some(value));
    }
    assert_eq!(header(&received, "accept"), None);
    assert_eq!(header(&received, "content-type"), None);
}

#[tokio::test]
async fn a_rule_sees_the_inferred_type_and_changes_only_its_own_copy() {
    let namespace = Namespace::start().await;
    let send = |colour: &'static str| {
        namespace
            .post("orders/messages")
            .header("Colour", colour)
            .header("draft", "true")
            .send()
    };
    assert_eq!(send("\"red\"").await.unwrap().status(), 201);
    assert_eq!(send("\"blue\"").await.unwrap().status(), 201);
    assert_eq!(send("5").await.unwrap().status(), 201);

    let painted = namespace.take("orders/subscriptions/red").await;
    assert_eq!(header(&painted, "painted"), Some("true"));
    assert_eq!(header(&painted, "draft"), None);
    assert!(namespace.is_empty("orders/subscriptions/red").await);
    for colour in ["\"red\"", "\"blue\"", "5"] {
        let plain = namespace.take("orders/subscriptions/all").await;
        assert_eq!(header(&plain, "colour"), Some(colour));
        assert_eq!(header(&plain, "painted"), None);
        assert_eq!(header(&plain, "draft"), Some("true"));
    }
}

#[tokio::test]
async fn broker_properties_come_out_as_they_went_in_in_ascii() {
    let namespace = Namespace::start().await;
    let properties = r#"{"MessageId":"m","Label":"grün","CorrelationId":"c","To":"t","ReplyTo":"r","SessionId":"s","PartitionKey":"s","ReplyToSessionId":"rs","TimeToLive":90}"#;
    let sent = namespace
        .post("work/messages")
        .header("BrokerProperties", properties.as_bytes())
        .send();
    assert_eq!(sent.await.unwrap().status(), 201);
    let received = namespace.take("work").await;
    assert!(header(&received, "brokerproperties").unwrap().is_ascii());
    let out = broker_properties(&received);
    let sent: serde_json::Map<_, _> = serde_json::from_str(properties).unwrap();
    for (name, value) in sent.iter().filter(|(name, _)| *name != "TimeToLive") {
        assert_eq!(&out[name], value, "{name}");
    }
    assert_eq!(out["TimeToLive"].as_f64(), Some(90.0));
    assert!(out["EnqueuedTimeUtc"].as_str().unwrap().ends_with(" GMT"));
}

#[tokio::test]
async fn a_message_without_an_id_gets_one() {
    let namespace = Namespace::start().await;
    for _ in 0..2 {
        assert_eq!(
            namespace
                .post("work/messages")
                .send()
                .await
                .unwrap()
                .status(),
            201
        );
    }
    let first = broker_properties(&namespace.take("work").await)["MessageId"].clone();
    let second = broker_properties(&namespace.take("work").await)["MessageId"].clone();
    assert_eq!(first.as_str().unwrap().len(), 32);
    assert_ne!(first, second);
}

#[tokio::test]
async fn a_body_is_bytes_and_comes_out_unchanged() {
    let namespace = Namespace::start().await;
    let body: Vec<u8> = (0..=255).collect();
    let sent = namespace
        .post("work/messages")
        .header("content-type", "application/octet-stream")
        .body(body.clone())
        .send();
    assert_eq!(sent.await.unwrap().status(), 201);
    let received = namespace.take("work").await;
    assert_eq!(
        header(&received, "content-type"),
        Some("application/octet-stream")
    );
    assert_eq!(received.bytes().await.unwrap(), body);
}

#[tokio::test]
async fn a_scheduled_message_is_not_there_yet_and_one_of_the_past_is() {
    let namespace = Namespace::start().await;
    let send = |time: &'static str| {
        let properties = format!(r#"{{"ScheduledEnqueueTimeUtc":"{time}"}}"#);
        namespace
            .post("work/messages")
            .header("BrokerProperties", properties)
            .body(time)
            .send()
    };
    assert_eq!(
        send("Fri, 31 Dec 2100 23:59:59 GMT")
            .await
            .unwrap()
            .status(),
        201
    );
    assert!(namespace.is_empty("work").await);
    assert_eq!(
        send("Sun, 06 Nov 1994 08:49:37 GMT")
            .await
            .unwrap()
            .status(),
        201
    );
    let received = namespace.take("work").await;
    assert_eq!(
        received.text().await.unwrap(),
        "Sun, 06 Nov 1994 08:49:37 GMT"
    );
}
