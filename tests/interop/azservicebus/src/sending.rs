//! Steps: sending, peeking, receiving in both modes.

use std::time::Duration;

use azservicebus::{
    CreateMessageBatchOptions, ServiceBusMessageState, ServiceBusReceiveMode, ServiceBusReceiver,
    ServiceBusReceiverOptions,
};
use fe2o3_amqp_types::primitives::SimpleValue;
use time::OffsetDateTime;

use crate::{
    messages::{message, property, string, text, texts, with_properties},
    stage::{
        Stage, assert_empty, everything_in, receiver, receiver_with, send, sender, take, take_one,
        until_empty, until_there_are,
    },
};

pub async fn single_send(stage: Stage) {
    let mut client = stage.client().await;
    let mut plain = sender(&mut client, "plain").await;
    let mut sent = with_properties("Käsespätzle", [("vendor", SimpleValue::from("bakery"))]);
    sent.set_message_id("m-1").unwrap();
    sent.set_subject("order.placed".to_owned());
    sent.set_content_type("text/plain; charset=utf-8".to_owned());
    sent.set_correlation_id("c-1".to_owned());
    sent.set_to("kitchen".to_owned());
    sent.set_reply_to("till".to_owned());
    sent.set_reply_to_session_id("till-7".to_owned()).unwrap();
    sent.set_partition_key("p-1".to_owned()).unwrap();
    sent.set_time_to_live(Duration::from_secs(300)).unwrap();
    // AMQP's times are whole milliseconds.
    let before = OffsetDateTime::now_utc() - Duration::from_millis(1);
    send(&mut plain, sent).await;
    let after = OffsetDateTime::now_utc();
    let mut receiver = receiver(&mut client, "plain").await;
    let received = take_one(&mut receiver).await;
    assert_eq!(text(&received), "Käsespätzle");
    assert_eq!(received.message_id().as_deref(), Some("m-1"));
    assert_eq!(received.subject(), Some("order.placed"));
    assert_eq!(received.content_type(), Some("text/plain; charset=utf-8"));
    assert_eq!(received.correlation_id().as_deref(), Some("c-1"));
    assert_eq!(received.to(), Some("kitchen"));
    assert_eq!(received.reply_to(), Some("till"));
    assert_eq!(received.reply_to_session_id(), Some("till-7"));
    assert_eq!(received.partition_key(), Some("p-1"));
    assert_eq!(received.session_id(), None);
    assert_eq!(received.time_to_live(), Some(Duration::from_secs(300)));
    assert_eq!(property(&received, "vendor"), string("bakery"));
    assert_eq!(received.application_properties().unwrap().len(), 1);
    assert_eq!(received.sequence_number(), 1);
    assert_eq!(received.enqueued_sequence_number(), 1);
    // The crate counts this delivery.
    assert_eq!(received.delivery_count(), Some(1));
    assert_eq!(received.state(), ServiceBusMessageState::Active);
    let enqueued = received.enqueued_time();
    assert!(before <= enqueued && enqueued <= after, "{enqueued}");
    assert_eq!(received.expires_at(), enqueued + Duration::from_secs(300));
    assert_eq!(received.dead_letter_source(), None);
    assert_eq!(received.dead_letter_reason(), None);
    let locked_until = received.locked_until().unwrap();
    let now = OffsetDateTime::now_utc();
    assert!(
        locked_until <= now + Duration::from_secs(60),
        "{locked_until}"
    );
    assert!(
        locked_until > now + Duration::from_secs(30),
        "{locked_until}"
    );
}

pub async fn batch_send(stage: Stage) {
    let mut client = stage.client().await;
    let mut plain = sender(&mut client, "plain").await;
    let mut batch = plain
        .create_message_batch(CreateMessageBatchOptions::default())
        .unwrap();
    assert_eq!(batch.max_size_in_bytes(), 262_144);
    for number in 0..100 {
        let mut message = with_properties(
            &format!("body {number}"),
            [("number", SimpleValue::from(number))],
        );
        message.set_message_id(format!("m-{number}")).unwrap();
        message.set_subject(format!("subject {number}"));
        batch.try_add_message(message).unwrap();
    }
    plain.send_message_batch(batch).await.unwrap();
    plain.send_messages(["list 0", "list 1"]).await.unwrap();
    let mut receiver = receiver(&mut client, "plain").await;
    let received = take(&mut receiver, 102).await;
    for (number, received) in (0..100).zip(&received) {
        assert_eq!(text(received), format!("body {number}"));
        assert_eq!(received.message_id().unwrap(), format!("m-{number}"));
        assert_eq!(
            received.subject(),
            Some(format!("subject {number}").as_str())
        );
        assert_eq!(property(received, "number"), Some(SimpleValue::Int(number)));
    }
    assert_eq!(texts(&received[100..]), ["list 0", "list 1"]);
    let numbers: Vec<i64> = received.iter().map(|one| one.sequence_number()).collect();
    assert_eq!(numbers, (1..=102).collect::<Vec<i64>>());
}

pub async fn peek(stage: Stage) {
    let mut client = stage.client().await;
    let mut peeked = receiver(&mut client, "peeked").await;
    assert!(peeked.peek_message(None).await.unwrap().is_none());
    let mut sender = sender(&mut client, "peeked").await;
    for number in 0..5 {
        send(
            &mut sender,
            message(&format!("peek {number}"), &format!("m-{number}")),
        )
        .await;
    }
    // Without a sequence number each goes on behind the one before.
    assert_eq!(two_from(&mut peeked, None).await, ["peek 0", "peek 1"]);
    assert_eq!(two_from(&mut peeked, None).await, ["peek 2", "peek 3"]);
    assert_eq!(two_from(&mut peeked, None).await, ["peek 4"]);
    assert_eq!(two_from(&mut peeked, None).await, Vec::<String>::new());
    assert_eq!(two_from(&mut peeked, Some(4)).await, ["peek 3", "peek 4"]);
    // One that is locked is still shown.
    let locked = take_one(&mut peeked).await;
    assert_eq!(locked.delivery_count(), Some(1));
    let all = everything_in(&mut peeked).await;
    let numbers: Vec<i64> = all.iter().map(|one| one.sequence_number()).collect();
    assert_eq!(numbers, [1, 2, 3, 4, 5]);
    assert_eq!(all[3].message_id().as_deref(), Some("m-3"));
    assert!(
        all.iter()
            .all(|one| one.state() == ServiceBusMessageState::Active)
    );
}

async fn two_from(receiver: &mut ServiceBusReceiver, first: Option<i64>) -> Vec<String> {
    let peeked = receiver.peek_messages(2, first).await.unwrap();
    let body = |one: &[u8]| String::from_utf8(one.to_vec()).unwrap();
    peeked.iter().map(|one| body(one.body().unwrap())).collect()
}

pub async fn receive_and_delete(stage: Stage) {
    let mut client = stage.client().await;
    let mut plain = sender(&mut client, "plain").await;
    plain.send_messages(["a", "b", "c"]).await.unwrap();
    let options = ServiceBusReceiverOptions {
        receive_mode: ServiceBusReceiveMode::ReceiveAndDelete,
        ..Default::default()
    };
    // The crate wants a lock token of every message, also of one that has no lock.
    let mut deleting = receiver_with(&mut client, "plain", options).await;
    assert_eq!(text(&take_one(&mut deleting).await), "a");
    until_there_are(&mut deleting, 2).await;
    assert_eq!(texts(&take(&mut deleting, 2).await), ["b", "c"]);
    until_empty(&mut deleting).await;
    deleting.dispose().await.unwrap();
    let mut receiver = receiver(&mut client, "plain").await;
    assert_empty(&mut receiver).await;
}

pub async fn prefetched(stage: Stage) {
    let mut client = stage.client().await;
    let mut plain = sender(&mut client, "plain").await;
    let sent: Vec<String> = (0..50).map(|number| format!("body {number}")).collect();
    plain.send_messages(sent.clone()).await.unwrap();
    let options = ServiceBusReceiverOptions {
        prefetch_count: 7,
        ..Default::default()
    };
    let mut receiver = receiver_with(&mut client, "plain", options).await;
    // Credit is given again while messages are settled.
    for body in &sent {
        let message = take_one(&mut receiver).await;
        assert_eq!(text(&message), body);
        receiver.complete_message(&message).await.unwrap();
    }
    until_empty(&mut receiver).await;
}
