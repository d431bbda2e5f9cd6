//! What the real `azure_messaging_servicebus` crate sends and reads.

use std::{collections::HashMap, time::Duration};

use azure_messaging_servicebus::service_bus::{SendMessageOptions, SettableBrokerProperties};
use legacy_azure_core::StatusCode;

use crate::namespace::{Namespace, broker_properties, header};

const NOW: Option<Duration> = Some(Duration::ZERO);

fn options() -> SendMessageOptions {
    SendMessageOptions {
        content_type: Some("application/json".to_owned()),
        broker_properties: Some(SettableBrokerProperties {
            message_id: Some("m-1".to_owned()),
            label: Some("créé 🎉".to_owned()),
            correlation_id: Some("c-1".to_owned()),
            time_to_live: Some(Duration::from_millis(90_500)),
            ..SettableBrokerProperties::default()
        }),
        custom_properties: Some(HashMap::from([
            ("OrderId".to_owned(), "\"A-17\"".to_owned()),
            ("priority".to_owned(), "5".to_owned()),
        ])),
    }
}

#[tokio::test]
async fn a_message_is_sent_and_received_and_deleted_on_a_queue() {
    let namespace = Namespace::start().await;
    let queue = namespace.queue("work");
    queue.send_message("one", None).await.unwrap();
    queue.send_message("two", None).await.unwrap();
    assert_eq!(queue.receive_and_delete_message().await.unwrap(), "one");
    assert_eq!(queue.receive_and_delete_message().await.unwrap(), "two");
    assert!(namespace.is_empty("work").await);
}

#[tokio::test]
async fn a_locked_message_carries_its_broker_properties_and_is_deleted() {
    let namespace = Namespace::start().await;
    let queue = namespace.queue("work");
    queue.send_message("{}", Some(options())).await.unwrap();

    let locked = queue.peek_lock_message2(NOW).await.unwrap();
    assert_eq!(*locked.status(), StatusCode::Created);
    assert_eq!(locked.body(), "{}");
    let properties = locked.broker_properties().unwrap();
    assert_eq!(properties.message_id, "m-1");
    assert_eq!(properties.delivery_count, 1);
    assert_eq!(properties.state, "Active");
    assert!((properties.time_to_live - 90.5).abs() < 0.001);
    assert!(properties.sequence_number > 0);
    assert!(properties.locked_until_utc > properties.enqueued_time_utc.unwrap());

    locked.delete_message().await.unwrap();
    assert!(namespace.is_empty("work").await);
    let error = locked.delete_message().await.unwrap_err();
    assert!(error.to_string().contains("404"), "{error}");
}

#[tokio::test]
async fn a_message_of_the_client_keeps_its_properties_and_content_type() {
    let namespace = Namespace::start().await;
    let queue = namespace.queue("work");
    queue.send_message("{}", Some(options())).await.unwrap();
    let received = namespace.take("work").await;
    assert_eq!(header(&received, "content-type"), Some("application/json"));
    assert_eq!(header(&received, "orderid"), Some("\"A-17\""));
    assert_eq!(header(&received, "priority"), Some("5"));
    let properties = broker_properties(&received);
    assert_eq!(properties["Label"], "créé 🎉");
    assert_eq!(properties["CorrelationId"], "c-1");
    assert_eq!(properties.get("LockToken"), None);
}

#[tokio::test]
async fn an_unlocked_message_is_delivered_again_at_once() {
    let namespace = Namespace::start().await;
    let queue = namespace.queue("work");
    queue.send_message("again", None).await.unwrap();
    let locked = queue.peek_lock_message2(NOW).await.unwrap();
    assert!(namespace.is_empty("work").await);
    locked.unlock_message().await.unwrap();

    let locked = queue.peek_lock_message2(NOW).await.unwrap();
    assert_eq!(locked.body(), "again");
    assert_eq!(locked.broker_properties().unwrap().delivery_count, 2);
}

#[tokio::test]
async fn a_lock_is_renewed_and_stays_the_same_lock() {
    let namespace = Namespace::start().await;
    let queue = namespace.queue("work");
    queue.send_message("held", None).await.unwrap();
    let locked = queue.peek_lock_message2(NOW).await.unwrap();
    locked.renew_message_lock().await.unwrap();
    locked.delete_message().await.unwrap();
    assert!(namespace.is_empty("work").await);
}

#[tokio::test]
async fn a_subscription_is_received_from_and_settled() {
    let namespace = Namespace::start().await;
    let topic = namespace.topic("orders");
    let all = topic.subscription_receiver("all");
    for text in ["first", "second"] {
        topic.topic_sender().send_message(text, None).await.unwrap();
    }
    let locked = all.peek_lock_message2(NOW).await.unwrap();
    assert_eq!(locked.body(), "first");
    locked.renew_message_lock().await.unwrap();
    locked.unlock_message().await.unwrap();
    let locked = all.peek_lock_message2(NOW).await.unwrap();
    assert_eq!(locked.body(), "first");
    locked.delete_message().await.unwrap();
    assert_eq!(all.receive_and_delete_message().await.unwrap(), "second");
    assert!(namespace.is_empty("orders/subscriptions/all").await);
}

#[tokio::test]
async fn nothing_to_receive_is_no_content() {
    let namespace = Namespace::start().await;
    let locked = namespace
        .queue("work")
        .peek_lock_message2(NOW)
        .await
        .unwrap();
    assert_eq!(*locked.status(), StatusCode::NoContent);
    assert!(locked.broker_properties().is_none());
}

#[tokio::test]
async fn the_clients_dates_are_not_the_documented_ones_and_are_refused() {
    let namespace = Namespace::start().await;
    let options = SendMessageOptions {
        broker_properties: Some(SettableBrokerProperties {
            scheduled_enqueue_time_utc: Some(time::OffsetDateTime::UNIX_EPOCH),
            ..SettableBrokerProperties::default()
        }),
        ..SendMessageOptions::default()
    };
    let error = namespace
        .queue("work")
        .send_message("late", Some(options))
        .await
        .unwrap_err();
    assert!(error.to_string().contains("400"), "{error}");
    assert!(namespace.is_empty("work").await);
}
