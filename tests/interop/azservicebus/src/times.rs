//! Steps: what happens at a time. Each waits for the event that the time brings, never for a time alone.

use std::time::Duration;

use azservicebus::{ServiceBusMessage, ServiceBusMessageState};
use time::OffsetDateTime;

use crate::{
    messages::{message, text, texts},
    stage::{
        Stage, assert_empty, dead_letters, everything_in, receiver, send, sender, take, take_one,
        until_empty,
    },
};

/// In whole milliseconds, as AMQP has them.
fn in_seconds(seconds: u64) -> OffsetDateTime {
    let time = OffsetDateTime::now_utc() + Duration::from_secs(seconds);
    time.replace_millisecond(time.millisecond()).unwrap()
}

async fn until(time: OffsetDateTime) {
    let left = time - OffsetDateTime::now_utc();
    tokio::time::sleep(left.try_into().unwrap_or_default()).await;
}

pub async fn schedule(stage: Stage) {
    let mut client = stage.client().await;
    let mut scheduled = sender(&mut client, "scheduled").await;
    let due = in_seconds(2);
    let numbers = scheduled.schedule_messages(["a", "b"], due).await.unwrap();
    assert_eq!(numbers, [1, 2]);
    // Sent like any other, but with a time.
    let mut third = ServiceBusMessage::from("c");
    third.set_scheduled_enqueue_time(due);
    send(&mut scheduled, third).await;
    let mut receiver = receiver(&mut client, "scheduled").await;
    let peeked = everything_in(&mut receiver).await;
    assert_eq!(peeked.len(), 3);
    for one in &peeked {
        assert_eq!(one.state(), ServiceBusMessageState::Scheduled);
        assert_eq!(one.scheduled_enqueue_time(), due);
    }
    let messages = take(&mut receiver, 3).await;
    assert!(OffsetDateTime::now_utc() >= due);
    let mut bodies = texts(&messages);
    bodies.sort_unstable();
    assert_eq!(bodies, ["a", "b", "c"]);
    for one in &messages {
        assert_eq!(one.state(), ServiceBusMessageState::Active);
        assert!(one.enqueued_time() >= due);
        receiver.complete_message(one).await.unwrap();
    }
    until_empty(&mut receiver).await;
}

pub async fn cancel_scheduled(stage: Stage) {
    let mut client = stage.client().await;
    let mut scheduled = sender(&mut client, "scheduled").await;
    let numbers = scheduled
        .schedule_messages(["s0", "s1", "s2"], in_seconds(3600))
        .await
        .unwrap();
    assert_eq!(numbers, [1, 2, 3]);
    scheduled
        .cancel_scheduled_message(numbers[1])
        .await
        .unwrap();
    let mut receiver = receiver(&mut client, "scheduled").await;
    let left = everything_in(&mut receiver).await;
    let left: Vec<&[u8]> = left.iter().map(|one| one.body().unwrap()).collect();
    assert_eq!(left, [b"s0", b"s2"]);
    let missing = scheduled
        .cancel_scheduled_message(numbers[1])
        .await
        .unwrap_err();
    assert!(format!("{missing:?}").contains("404"), "{missing:?}");
    scheduled.cancel_scheduled_messages([1, 3]).await.unwrap();
    assert_empty(&mut receiver).await;
}

pub async fn renew_lock(stage: Stage) {
    let mut client = stage.client().await;
    let mut short = sender(&mut client, "short-lock").await;
    send(&mut short, "slow").await;
    let mut holder = receiver(&mut client, "short-lock").await;
    let mut other = receiver(&mut client, "short-lock").await;
    let mut message = take_one(&mut holder).await;
    let first_end = message.locked_until().unwrap();
    assert!(first_end <= OffsetDateTime::now_utc() + Duration::from_secs(5));
    until(first_end - Duration::from_secs(2)).await;
    holder.renew_message_lock(&mut message).await.unwrap();
    let renewed = message.locked_until().unwrap();
    assert!(renewed >= first_end + Duration::from_secs(1), "{renewed}");
    assert!(renewed <= OffsetDateTime::now_utc() + Duration::from_secs(5));
    // Past the first end it is still this receiver's.
    let past = first_end + Duration::from_millis(500) - OffsetDateTime::now_utc();
    let nothing = other
        .receive_message_with_max_wait_time(Duration::try_from(past).unwrap())
        .await
        .unwrap();
    assert!(nothing.is_none());
    holder.complete_message(&message).await.unwrap();
    until_empty(&mut holder).await;
}

pub async fn lock_lost(stage: Stage) {
    let mut client = stage.client().await;
    let mut short = sender(&mut client, "short-lock").await;
    send(&mut short, "slow").await;
    let mut holder = receiver(&mut client, "short-lock").await;
    let mut other = receiver(&mut client, "short-lock").await;
    let mut lost = take_one(&mut holder).await;
    // Comes only when the lock has expired.
    let redelivered = take_one(&mut other).await;
    assert!(OffsetDateTime::now_utc() >= lost.locked_until().unwrap());
    assert_eq!(text(&redelivered), "slow");
    assert_eq!(redelivered.delivery_count(), Some(2));
    assert_ne!(redelivered.lock_token(), lost.lock_token());
    let refused = holder.renew_message_lock(&mut lost).await.unwrap_err();
    assert!(format!("{refused:?}").contains("410"), "{refused:?}");
    // The crate does not wait for what comes of it: the message stays with the other receiver, whatever was asked.
    holder.complete_message(&lost).await.unwrap();
    assert_eq!(everything_in(&mut holder).await.len(), 1);
    other.complete_message(&redelivered).await.unwrap();
    until_empty(&mut other).await;
}

pub async fn time_to_live(stage: Stage) {
    let mut client = stage.client().await;
    for (entity, is_kept) in [("expiring", true), ("vanishing", false)] {
        let mut sender = sender(&mut client, entity).await;
        let mut short = message("short", "m-1");
        short.set_time_to_live(Duration::from_secs(1)).unwrap();
        send(&mut sender, short).await;
        send(&mut sender, "long").await;
        let mut receiver = receiver(&mut client, entity).await;
        let expiring = everything_in(&mut receiver).await.remove(0);
        assert_eq!(expiring.time_to_live(), Some(Duration::from_secs(1)));
        let expires_at = expiring.enqueued_time() + Duration::from_secs(1);
        assert_eq!(expiring.expires_at(), expires_at);
        let mut dead_letters = dead_letters(&mut client, entity).await;
        if is_kept {
            let dead = take_one(&mut dead_letters).await;
            assert!(OffsetDateTime::now_utc() >= expires_at);
            assert_eq!(text(&dead), "short");
            assert_eq!(dead.dead_letter_reason(), Some("TTLExpiredException"));
        } else {
            until(expires_at + Duration::from_millis(1)).await;
        }
        let left = take_one(&mut receiver).await;
        assert_eq!(text(&left), "long");
        receiver.complete_message(&left).await.unwrap();
        until_empty(&mut receiver).await;
        if !is_kept {
            assert_empty(&mut dead_letters).await;
        }
        // Dropped, they would take the session with them: their client ends it over the bus's answers to their ends.
        sender.dispose().await.unwrap();
        receiver.dispose().await.unwrap();
        dead_letters.dispose().await.unwrap();
    }
}

pub async fn duplicate_detection(stage: Stage) {
    let mut client = stage.client().await;
    let mut dedup = sender(&mut client, "dedup").await;
    for (body, id) in [("one", "m-1"), ("one again", "m-1"), ("two", "m-2")] {
        send(&mut dedup, message(body, id)).await;
    }
    let mut receiver = receiver(&mut client, "dedup").await;
    let messages = take(&mut receiver, 2).await;
    assert_eq!(texts(&messages), ["one", "two"]);
    for one in &messages {
        receiver.complete_message(one).await.unwrap();
    }
    until_empty(&mut receiver).await;
    // Also one that is gone already is known.
    send(&mut dedup, message("one once more", "m-1")).await;
    assert_empty(&mut receiver).await;
}
