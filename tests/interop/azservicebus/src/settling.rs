//! Steps: what a receiver does with a message under its lock.

use azservicebus::{ServiceBusMessageState, receiver::DeadLetterOptions};
use fe2o3_amqp_types::primitives::{OrderedMap, SimpleValue, Value};

use crate::{
    messages::{property, property_names, string, text, texts, with_properties},
    stage::{
        Stage, assert_empty, dead_letters, everything_in, receiver, send, sender, take, take_one,
        until_empty, until_there_are,
    },
};

fn changes<const N: usize>(changes: [(&str, Value); N]) -> Option<OrderedMap<String, Value>> {
    let changes = changes.into_iter();
    Some(
        changes
            .map(|(name, value)| (name.to_owned(), value))
            .collect(),
    )
}

pub async fn complete(stage: Stage) {
    let mut client = stage.client().await;
    let mut plain = sender(&mut client, "plain").await;
    plain.send_messages(["first", "second"]).await.unwrap();
    let mut receiver = receiver(&mut client, "plain").await;
    let both = take(&mut receiver, 2).await;
    assert_eq!(texts(&both), ["first", "second"]);
    receiver.complete_message(&both[0]).await.unwrap();
    until_there_are(&mut receiver, 1).await;
    let left = everything_in(&mut receiver).await;
    assert_eq!(left[0].body().unwrap(), b"second");
    receiver.complete_message(&both[1]).await.unwrap();
    until_empty(&mut receiver).await;
}

pub async fn abandon_with_properties(stage: Stage) {
    let mut client = stage.client().await;
    let mut plain = sender(&mut client, "plain").await;
    let kept = ("kept", SimpleValue::from("yes"));
    let changed = ("changed", SimpleValue::from(1));
    send(&mut plain, with_properties("again", [kept, changed])).await;
    let mut receiver = receiver(&mut client, "plain").await;
    let first = take_one(&mut receiver).await;
    assert_eq!(first.delivery_count(), Some(1));
    let new = changes([("changed", Value::Int(2)), ("added", Value::Bool(true))]);
    receiver.abandon_message(&first, new).await.unwrap();
    let second = take_one(&mut receiver).await;
    assert_eq!(second.delivery_count(), Some(2));
    assert_eq!(second.sequence_number(), first.sequence_number());
    assert_eq!(second.enqueued_time(), first.enqueued_time());
    assert_ne!(second.lock_token(), first.lock_token());
    assert_eq!(property_names(&second), ["added", "changed", "kept"]);
    assert_eq!(property(&second, "kept"), string("yes"));
    assert_eq!(property(&second, "changed"), Some(SimpleValue::Int(2)));
    assert_eq!(property(&second, "added"), Some(SimpleValue::Bool(true)));
    receiver.complete_message(&second).await.unwrap();
    until_empty(&mut receiver).await;
}

pub async fn dead_letter_with_reason(stage: Stage) {
    let mut client = stage.client().await;
    let mut plain = sender(&mut client, "plain").await;
    send(
        &mut plain,
        with_properties("bad", [("kept", SimpleValue::from(1))]),
    )
    .await;
    send(&mut plain, "worse").await;
    let mut receiver = receiver(&mut client, "plain").await;
    let both = take(&mut receiver, 2).await;
    let options = DeadLetterOptions {
        dead_letter_reason: Some("NotFood".to_owned()),
        dead_letter_error_description: Some("“Bücher” are not eaten".to_owned()),
        properties_to_modify: changes([("added", Value::Int(7))]),
    };
    receiver
        .dead_letter_message(&both[0], options)
        .await
        .unwrap();
    let none = DeadLetterOptions::default();
    receiver.dead_letter_message(&both[1], none).await.unwrap();
    let mut dead_letters = dead_letters(&mut client, "plain").await;
    let dead = take(&mut dead_letters, 2).await;
    assert_eq!(texts(&dead), ["bad", "worse"]);
    assert_eq!(dead[0].dead_letter_reason(), Some("NotFood"));
    assert_eq!(
        dead[0].dead_letter_error_description(),
        Some("“Bücher” are not eaten")
    );
    assert_eq!(property(&dead[0], "kept"), Some(SimpleValue::Int(1)));
    assert_eq!(property(&dead[0], "added"), Some(SimpleValue::Int(7)));
    assert_eq!(dead[0].sequence_number(), both[0].sequence_number());
    assert_eq!(dead[0].dead_letter_source(), None);
    assert_eq!(dead[1].dead_letter_reason(), None);
    assert_eq!(dead[1].dead_letter_error_description(), None);
    assert_empty(&mut receiver).await;
}

pub async fn dead_letter_queue(stage: Stage) {
    let mut client = stage.client().await;
    let mut once = sender(&mut client, "one-try").await;
    send(&mut once, "once").await;
    let mut receiver = receiver(&mut client, "one-try").await;
    let message = take_one(&mut receiver).await;
    receiver.abandon_message(&message, None).await.unwrap();
    let mut dead_letters = dead_letters(&mut client, "one-try").await;
    let mut dead = take_one(&mut dead_letters).await;
    assert_eq!(text(&dead), "once");
    assert_eq!(dead.dead_letter_reason(), Some("MaxDeliveryCountExceeded"));
    assert_eq!(
        dead.dead_letter_error_description(),
        Some("Message could not be consumed after 1 delivery attempts.")
    );
    assert_empty(&mut receiver).await;
    // Dead letters are never given up: they can be abandoned for ever, and then sent on.
    for _ in 0..3 {
        dead_letters.abandon_message(&dead, None).await.unwrap();
        dead = take_one(&mut dead_letters).await;
    }
    send(&mut once, text(&dead)).await;
    dead_letters.complete_message(&dead).await.unwrap();
    until_empty(&mut dead_letters).await;
    let again = take_one(&mut receiver).await;
    assert_eq!((text(&again), again.delivery_count()), ("once", Some(1)));
}

pub async fn defer(stage: Stage) {
    let mut client = stage.client().await;
    let mut deferred = sender(&mut client, "deferred").await;
    deferred
        .send_messages(["later", "too late", "now"])
        .await
        .unwrap();
    let mut receiver = receiver(&mut client, "deferred").await;
    let all = take(&mut receiver, 3).await;
    let change = changes([("put aside", Value::Bool(true))]);
    receiver.defer_message(&all[0], change).await.unwrap();
    receiver.defer_message(&all[1], None).await.unwrap();
    receiver.complete_message(&all[2]).await.unwrap();
    until_there_are(&mut receiver, 2).await;
    for left in everything_in(&mut receiver).await {
        assert_eq!(left.state(), ServiceBusMessageState::Deferred);
    }
    let missing = receiver
        .receive_deferred_messages([1, 99])
        .await
        .unwrap_err();
    assert!(format!("{missing:?}").contains("404"), "{missing:?}");
    let both = receiver.receive_deferred_messages([1, 2]).await.unwrap();
    assert_eq!(texts(&both), ["later", "too late"]);
    assert_eq!(both[0].sequence_number(), 1);
    assert_eq!(both[0].delivery_count(), Some(2));
    let put_aside = property(&both[0], "put aside");
    assert_eq!(put_aside, Some(SimpleValue::Bool(true)));
    receiver.complete_message(&both[0]).await.unwrap();
    let options = DeadLetterOptions {
        dead_letter_reason: Some("TooLate".to_owned()),
        dead_letter_error_description: Some("after closing time".to_owned()),
        properties_to_modify: None,
    };
    receiver
        .dead_letter_message(&both[1], options)
        .await
        .unwrap();
    until_empty(&mut receiver).await;
    let mut dead_letters = dead_letters(&mut client, "deferred").await;
    let dead = take_one(&mut dead_letters).await;
    assert_eq!(text(&dead), "too late");
    assert_eq!(dead.dead_letter_reason(), Some("TooLate"));
}

pub async fn abandon_deferred(stage: Stage) {
    let mut client = stage.client().await;
    let mut deferred = sender(&mut client, "deferred").await;
    send(&mut deferred, "later").await;
    let mut receiver = receiver(&mut client, "deferred").await;
    let message = take_one(&mut receiver).await;
    receiver.defer_message(&message, None).await.unwrap();
    until_deferred(&mut receiver).await;
    // One that is abandoned stays deferred.
    let again = receiver.receive_deferred_message(1).await.unwrap().unwrap();
    receiver.abandon_message(&again, None).await.unwrap();
    until_deferred(&mut receiver).await;
}

async fn until_deferred(receiver: &mut azservicebus::ServiceBusReceiver) {
    let deferred = async {
        while everything_in(receiver).await[0].state() != ServiceBusMessageState::Deferred {
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        }
    };
    let deferred = tokio::time::timeout(crate::emulator::PATIENCE, deferred).await;
    assert!(deferred.is_ok(), "it is never deferred");
}
