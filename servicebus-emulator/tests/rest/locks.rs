//! What can be done with a lock, and that it is all over when the lock is.

use reqwest::Method;

use crate::namespace::{Namespace, broker_properties, header};

const NOBODYS_LOCK: &str = "0e5a3d4e-6a3c-4f5c-9d2b-3f2f3f0f7c11";

#[tokio::test]
async fn a_locked_message_is_addressed_by_its_number_or_by_its_id() {
    let namespace = Namespace::start().await;
    for id in ["42:placed", "two words/and a slash"] {
        let sent = namespace
            .post("work/messages")
            .header("BrokerProperties", format!(r#"{{"MessageId":"{id}"}}"#))
            .send();
        assert_eq!(sent.await.unwrap().status(), 201);
    }
    let first = namespace.lock("work").await;
    let properties = broker_properties(&first);
    let token = properties["LockToken"].as_str().unwrap();
    let number = properties["SequenceNumber"].as_i64().unwrap();
    let path = format!("work/messages/{number}/{token}");
    assert_eq!(
        header(&first, "location"),
        Some(format!("{}/{path}", namespace.url).as_str())
    );
    let renewed = namespace.post(&path).send().await.unwrap();
    assert_eq!(renewed.status(), 200);
    let deleted = namespace
        .request(Method::DELETE, &path)
        .send()
        .await
        .unwrap();
    assert_eq!(deleted.status(), 200);

    let second = broker_properties(&namespace.lock("work").await);
    let token = second["LockToken"].as_str().unwrap();
    let path = format!("work/messages/two%20words%2Fand%20a%20slash/{token}");
    let deleted = namespace
        .request(Method::DELETE, &path)
        .send()
        .await
        .unwrap();
    assert_eq!(deleted.status(), 200);
    assert!(namespace.is_empty("work").await);
}

#[tokio::test]
async fn the_location_is_right_however_the_path_was_written() {
    let namespace = Namespace::start().await;
    for path in [
        "work/messages/head/",
        "%77ork/m%65ssages/head",
        "team%2Fa%2Fwork/messages/%68ead",
        "orders/SUBSCRIPTIONS/all/messages/head",
    ] {
        for to in ["work", "team/a/work", "orders"] {
            let sent = namespace.post(&format!("{to}/messages")).body("x").send();
            assert_eq!(sent.await.unwrap().status(), 201);
        }
        let path = format!("{path}?timeout=0");
        let locked = namespace.post(&path).send().await.unwrap();
        assert_eq!(locked.status(), 201, "{path}");
        let location = header(&locked, "location").unwrap();
        let path = location
            .strip_prefix(&format!("{}/", namespace.url))
            .unwrap();
        let deleted = namespace.request(Method::DELETE, path).send();
        assert_eq!(deleted.await.unwrap().status(), 200, "{location}");
    }
}

#[tokio::test]
async fn peeking_locks_nothing_and_counts_no_delivery() {
    let namespace = Namespace::start().await;
    let peek = |value: &str| {
        let path = format!("work/messages/head?timeout=60&PeekOnly={value}");
        namespace.post(&path).send()
    };
    assert_eq!(peek("true").await.unwrap().status(), 204);
    assert_eq!(peek("perhaps").await.unwrap().status(), 400);
    let sent = namespace.post("work/messages").body("x").send();
    assert_eq!(sent.await.unwrap().status(), 201);
    for _ in 0..3 {
        let peeked = peek("True").await.unwrap();
        assert_eq!(peeked.status(), 201);
        assert_eq!(header(&peeked, "location"), None);
        let properties = broker_properties(&peeked);
        assert_eq!(properties["DeliveryCount"], 0);
        assert_eq!(properties.get("LockToken"), None);
        assert_eq!(properties.get("LockedUntilUtc"), None);
        assert_eq!(peeked.text().await.unwrap(), "x");
    }
    let locked = peek("false").await.unwrap();
    assert_eq!(broker_properties(&locked)["DeliveryCount"], 1);
}

#[tokio::test]
async fn a_lock_that_is_lost_or_never_was_is_not_found() {
    let namespace = Namespace::start().await;
    let sent = namespace.post("work/messages").body("x").send();
    assert_eq!(sent.await.unwrap().status(), 201);
    let properties = broker_properties(&namespace.lock("work").await);
    let lost = properties["LockToken"].as_str().unwrap();
    let path = format!("work/messages/1/{lost}");
    let unlocked = namespace.request(Method::PUT, &path).send().await.unwrap();
    assert_eq!(unlocked.status(), 200);

    for token in [lost, NOBODYS_LOCK, "no-guid"] {
        for method in [Method::DELETE, Method::PUT, Method::POST] {
            let path = format!("work/messages/1/{token}");
            let response = namespace.request(method, &path).send().await.unwrap();
            assert_eq!(response.status(), 404);
            let text = response.text().await.unwrap();
            assert!(
                text.contains("<Code>404</Code><Detail>The lock supplied is invalid"),
                "{text}"
            );
        }
    }
    assert_eq!(namespace.take("work").await.text().await.unwrap(), "x");
}
