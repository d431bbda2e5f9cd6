//! Where messages are sent to and received from: how paths are written.

use reqwest::Method;

use crate::namespace::{Namespace, broker_properties, header};

#[tokio::test]
async fn the_health_of_the_service_needs_no_signature() {
    let namespace = Namespace::start().await;
    let response = namespace
        .unsigned(Method::GET, "health")
        .send()
        .await
        .unwrap();
    assert_eq!(response.status(), 200);
    assert_eq!(
        response.text().await.unwrap(),
        r#"{"status":"healthy","message":"Service is healthy."}"#
    );
}

#[tokio::test]
async fn a_namespace_that_has_ended_is_not_healthy() {
    let namespace = Namespace::start().await;
    namespace.bus.clone().close().await;
    let health = namespace.unsigned(Method::GET, "health").send();
    assert_eq!(health.await.unwrap().status(), 503);
    let sent = namespace.post("work/messages").body("x").send();
    assert_eq!(sent.await.unwrap().status(), 503);
}

#[tokio::test]
async fn a_queues_name_may_hold_slashes_and_case_does_not_count() {
    let namespace = Namespace::start().await;
    let sent = namespace.post("team/a/work/messages").body("x").send();
    assert_eq!(sent.await.unwrap().status(), 201);
    assert!(namespace.is_empty("work").await);
    let locked = namespace.lock("TEAM/A/Work").await;
    let location = header(&locked, "location").unwrap();
    let start = format!("{}/TEAM/A/Work/messages/", namespace.url);
    assert!(location.starts_with(&start), "{location}");
}

#[tokio::test]
async fn what_was_delivered_too_often_is_in_the_dead_letter_queue_in_any_case() {
    let namespace = Namespace::start().await;
    for body in ["one", "two", "three"] {
        let sent = namespace.post("work/messages").body(body).send();
        assert_eq!(sent.await.unwrap().status(), 201);
    }
    for _ in 0..6 {
        let locked = namespace.lock("work").await;
        let location = header(&locked, "location").unwrap().to_owned();
        let path = location
            .strip_prefix(&format!("{}/", namespace.url))
            .unwrap();
        let unlocked = namespace.request(Method::PUT, path).send().await.unwrap();
        assert_eq!(unlocked.status(), 200);
    }
    assert!(namespace.is_empty("work").await);

    let dead = namespace.take("work/$deadletterqueue").await;
    assert_eq!(
        header(&dead, "deadletterreason"),
        Some("\"MaxDeliveryCountExceeded\"")
    );
    let properties = broker_properties(&dead);
    assert_eq!(properties["TimeToLive"].as_f64(), Some(86_400.0));
    assert_eq!(properties.get("DeadLetterSource"), None);
    assert_eq!(dead.text().await.unwrap(), "one");
    let dead = namespace.take("work/$DeadLetterQueue").await;
    assert_eq!(dead.text().await.unwrap(), "two");

    let locked = namespace.lock("WORK/$DEADLETTERQUEUE").await;
    let location = header(&locked, "location").unwrap().to_owned();
    let path = location
        .strip_prefix(&format!("{}/", namespace.url))
        .unwrap();
    let deleted = namespace
        .request(Method::DELETE, path)
        .send()
        .await
        .unwrap();
    assert_eq!(deleted.status(), 200);
    assert!(namespace.is_empty("work/$deadletterqueue").await);
}

#[tokio::test]
async fn an_unknown_entity_is_not_found() {
    let namespace = Namespace::start().await;
    let lock = "0e5a3d4e-6a3c-4f5c-9d2b-3f2f3f0f7c11";
    for (method, path) in [
        (Method::POST, "nowhere/messages".to_owned()),
        (Method::POST, "nowhere/messages/head?timeout=0".to_owned()),
        (
            Method::DELETE,
            "orders/subscriptions/none/messages/head?timeout=0".to_owned(),
        ),
        (Method::DELETE, format!("nowhere/messages/1/{lock}")),
        (Method::POST, "$management/messages".to_owned()),
    ] {
        let response = namespace.request(method, &path).send().await.unwrap();
        assert_eq!(response.status(), 404, "{path}");
        let text = response.text().await.unwrap();
        assert!(
            text.starts_with("<Error><Code>404</Code><Detail>The messaging entity '"),
            "{text}"
        );
    }
}

#[tokio::test]
async fn a_topic_is_only_sent_to_and_a_subscription_only_received_from() {
    let namespace = Namespace::start().await;
    for path in [
        "orders/messages/head?timeout=0",
        "orders/subscriptions/all/messages",
    ] {
        let response = namespace.post(path).send().await.unwrap();
        assert_eq!(response.status(), 400, "{path}");
    }
}

#[tokio::test]
async fn a_waiting_receive_gets_what_is_sent_meanwhile() {
    let namespace = Namespace::start().await;
    let waiting = tokio::spawn(
        namespace
            .request(Method::DELETE, "work/messages/head?timeout=60")
            .send(),
    );
    let sent = namespace.post("work/messages").body("at last").send();
    assert_eq!(sent.await.unwrap().status(), 201);
    let received = waiting.await.unwrap().unwrap();
    assert_eq!(received.status(), 200);
    assert!(broker_properties(&received)["SequenceNumber"].is_i64());
    assert_eq!(received.text().await.unwrap(), "at last");
}
