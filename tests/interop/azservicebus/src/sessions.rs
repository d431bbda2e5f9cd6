//! Steps: sessions.

use std::time::Duration;

use azservicebus::{ServiceBusMessage, ServiceBusSessionReceiver};
use time::OffsetDateTime;

use crate::{
    emulator::PATIENCE,
    messages::{text, texts},
    stage::{Client, Stage, send, sender},
};

fn in_session(body: &str, session: &str) -> ServiceBusMessage {
    let mut message = ServiceBusMessage::from(body);
    message.set_session_id(session.to_owned()).unwrap();
    message
}

async fn accept(client: &mut Client, queue: &str, session: &str) -> ServiceBusSessionReceiver {
    client
        .accept_session_for_queue(queue, session, Default::default())
        .await
        .expect("the session")
}

async fn take(
    receiver: &mut ServiceBusSessionReceiver,
    count: u32,
) -> Vec<azservicebus::ServiceBusReceivedMessage> {
    let messages = receiver
        .receive_messages_with_max_wait_time(count, PATIENCE)
        .await
        .expect("messages");
    assert_eq!(messages.len(), count as usize);
    messages
}

pub async fn session_named(stage: Stage) {
    let mut client = stage.client().await;
    let mut sessions = sender(&mut client, "sessions").await;
    for (body, session) in [("a1", "a"), ("b1", "b"), ("a2", "a")] {
        send(&mut sessions, in_session(body, session)).await;
    }
    let refused = sessions
        .send_message("without a session")
        .await
        .unwrap_err();
    assert!(format!("{refused:?}").contains("session"), "{refused:?}");
    let mut a = accept(&mut client, "sessions", "a").await;
    assert_eq!(a.session_id(), "a");
    let messages = take(&mut a, 2).await;
    assert_eq!(texts(&messages), ["a1", "a2"]);
    assert_eq!(messages[0].session_id(), Some("a"));
    for one in &messages {
        a.complete_message(one).await.unwrap();
    }
    // The other session is not this receiver's.
    let nothing = a
        .receive_message_with_max_wait_time(Duration::from_millis(300))
        .await
        .unwrap();
    assert!(nothing.is_none());
    let mut b = accept(&mut client, "sessions", "b").await;
    assert_eq!(text(&take(&mut b, 1).await[0]), "b1");
}

pub async fn session_of_a_subscription(stage: Stage) {
    let mut client = stage.client().await;
    let mut topic = sender(&mut client, "sessions-topic").await;
    send(&mut topic, in_session("a1", "a")).await;
    let mut a = client
        .accept_session_for_subscription("sessions-topic", "sessions", "a", Default::default())
        .await
        .unwrap();
    assert_eq!(text(&take(&mut a, 1).await[0]), "a1");
}

pub async fn session_next(stage: Stage) {
    let mut client = stage.client().await;
    let mut sessions = sender(&mut client, "sessions").await;
    for (body, session) in [("a1", "a"), ("b1", "b")] {
        send(&mut sessions, in_session(body, session)).await;
    }
    let mut seen = Vec::new();
    let mut held = Vec::new();
    for _ in 0..2 {
        let mut next = client
            .accept_next_session_for_queue("sessions", Default::default())
            .await
            .unwrap();
        let messages = take(&mut next, 1).await;
        assert_eq!(text(&messages[0]), format!("{}1", next.session_id()));
        seen.push(next.session_id().to_owned());
        held.push(next);
    }
    seen.sort_unstable();
    assert_eq!(seen, ["a", "b"]);
    // The next one is there when a message comes for it.
    let later = tokio::spawn(async move {
        tokio::time::sleep(Duration::from_millis(300)).await;
        send(&mut sessions, in_session("c1", "c")).await;
        sessions
    });
    let mut third = client
        .accept_next_session_for_queue("sessions", Default::default())
        .await
        .unwrap();
    assert_eq!(third.session_id(), "c");
    assert_eq!(text(&take(&mut third, 1).await[0]), "c1");
    // Held until now, for the end of a link that is dropped ends the session of this client.
    drop(later.await.unwrap());
}

pub async fn session_state(stage: Stage) {
    let mut client = stage.client().await;
    let mut sessions = sender(&mut client, "sessions").await;
    send(&mut sessions, in_session("a1", "a")).await;
    let mut a = accept(&mut client, "sessions", "a").await;
    // That there is none the crate cannot read: it wants bytes.
    let state = vec![0, 1, 2, 255];
    a.set_session_state(state.clone()).await.unwrap();
    assert_eq!(a.session_state().await.unwrap(), state);
    a.dispose().await.unwrap();
    // It outlives its receiver.
    let mut again = accept(&mut client, "sessions", "a").await;
    assert_eq!(again.session_state().await.unwrap(), state);
    again.set_session_state(Vec::new()).await.unwrap();
    assert_eq!(again.session_state().await.unwrap(), b"");
}

pub async fn session_lock(stage: Stage) {
    let mut client = stage.client().await;
    let mut sessions = sender(&mut client, "short-sessions").await;
    send(&mut sessions, in_session("a1", "a")).await;
    let mut holder = accept(&mut client, "short-sessions", "a").await;
    let held = client
        .accept_session_for_queue("short-sessions", "a", Default::default())
        .await
        .unwrap_err();
    let held = format!("{held:?}");
    assert!(held.contains("session-cannot-be-locked"), "{held}");
    let message = take(&mut holder, 1).await.remove(0);
    // Of when the session was accepted the crate cannot tell: it looks for a time where Service Bus has a count of ticks.
    let before = OffsetDateTime::now_utc();
    holder.renew_session_lock().await.unwrap();
    let renewed = holder.session_locked_until();
    assert!(
        renewed >= before + Duration::from_millis(4_999),
        "{renewed}"
    );
    assert!(
        renewed <= OffsetDateTime::now_utc() + Duration::from_secs(5),
        "{renewed}"
    );
    // Once it has expired, it is lost, and then the next one's, and the message with it.
    let past = renewed + Duration::from_millis(100) - OffsetDateTime::now_utc();
    tokio::time::sleep(Duration::try_from(past).unwrap()).await;
    let lost = holder.renew_session_lock().await.unwrap_err();
    assert!(format!("{lost:?}").contains("410"), "{lost:?}");
    let mut next = client
        .accept_next_session_for_queue("short-sessions", Default::default())
        .await
        .unwrap();
    assert_eq!(next.session_id(), "a");
    let again = take(&mut next, 1).await.remove(0);
    assert_eq!((text(&again), again.delivery_count()), ("a1", Some(2)));
    // What the former holder still says does nothing: it may fail, as its link may be closed.
    let _ = holder.complete_message(&message).await;
    assert_eq!(next.peek_messages(10, Some(0)).await.unwrap().len(), 1);
    next.complete_message(&again).await.unwrap();
    let completed = async {
        while !next.peek_messages(10, Some(0)).await.unwrap().is_empty() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    let completed = tokio::time::timeout(PATIENCE, completed).await;
    assert!(completed.is_ok(), "it is never completed");
}
