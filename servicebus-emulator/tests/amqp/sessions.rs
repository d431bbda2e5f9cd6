//! Receivers that hold a session.

use std::time::Duration;

use fe2o3_amqp_types::{
    definitions::Fields,
    messaging::{Source, TargetArchetype},
    performatives::{Attach, Detach, Performative},
};
use serde_amqp::{Value, described::Described, descriptor::Descriptor, primitives::Symbol};
use servicebus_emulator::Message;

use crate::client::{Client, Namespace, receiver};

const FILTER: &str = "com.microsoft:session-filter";

fn session(handle: u32, filter: Value, timeout: Duration) -> Attach {
    let mut source = Source::builder().address("sessions").build();
    source.filter = Some([(Symbol::from(FILTER), filter)].into_iter().collect());
    let timeout = u32::try_from(timeout.as_millis()).unwrap();
    let timeout = (Symbol::from("com.microsoft:timeout"), Value::Uint(timeout));
    let properties: Fields = [timeout].into_iter().collect();
    Attach {
        source: Some(Box::new(source)),
        properties: Some(properties),
        ..receiver(handle, "sessions")
    }
}

fn named(name: &str) -> Value {
    Value::String(name.to_owned())
}

fn session_id(attach: &Attach) -> String {
    let source = attach.source.as_ref().expect("it has a source");
    let filter = source.filter.as_ref().expect("it has filters");
    match filter.get(&Symbol::from(FILTER)) {
        Some(Value::String(id)) => id.clone(),
        other => panic!("{other:?} is no session id"),
    }
}

async fn send(namespace: &Namespace, session: &str) {
    let message = Message {
        body: session.as_bytes().to_vec().into(),
        session_id: Some(session.to_owned()),
        ..Message::default()
    };
    let queue = "sessions".parse().unwrap();
    namespace.bus.send(&queue, vec![message]).await.unwrap();
}

fn detach(handle: u32) -> Performative {
    Performative::Detach(Detach {
        handle: handle.into(),
        closed: true,
        error: None,
    })
}

#[tokio::test]
async fn a_receiver_learns_which_session_it_has_and_until_when() {
    let namespace = Namespace::start().await;
    let mut client = Client::begin(&namespace).await;
    let attached = client.attach(session(0, named("a"), Duration::ZERO)).await;
    assert_eq!(session_id(&attached), "a");
    let properties = attached.properties.unwrap();
    let until = properties.get(&Symbol::from("com.microsoft:locked-until-utc"));
    let Some(Value::Long(ticks)) = until else {
        panic!("{until:?} is no number of ticks");
    };
    let since_1970 = (ticks - 621_355_968_000_000_000) / 10_000_000;
    let now = jiff::Timestamp::now().as_second();
    assert!((now..=now + 61).contains(&since_1970), "{since_1970}");

    // Nobody else has it until it is closed.
    let mut other = Client::begin(&namespace).await;
    let attached = other.attach(session(0, named("a"), Duration::ZERO)).await;
    assert!(attached.source.is_none());
    assert_eq!(
        other.detached().await,
        "com.microsoft:session-cannot-be-locked"
    );
    client.send(0, detach(0), &[]).await;
    assert_eq!(client.detached().await, "");
    let described = Value::Described(Box::new(Described {
        descriptor: Descriptor::Name(Symbol::from(FILTER)),
        value: named("a"),
    }));
    let attached = other.attach(session(1, described, Duration::ZERO)).await;
    assert_eq!(session_id(&attached), "a");
}

#[tokio::test]
async fn the_next_session_is_waited_for_as_long_as_the_client_says() {
    let namespace = Namespace::start().await;
    let mut client = Client::begin(&namespace).await;
    let attached = client.attach(session(0, Value::Null, Duration::ZERO)).await;
    assert!(attached.source.is_none());
    assert_eq!(client.detached().await, "com.microsoft:timeout");

    let waits = session(1, Value::Null, Duration::from_secs(60));
    client.send(0, Performative::Attach(waits), &[]).await;
    // A link that is attached after it says that it has come to the broker.
    client.receiver(2, "work").await;
    send(&namespace, "b").await;
    assert_eq!(session_id(&client.attached().await), "b");
    // Its credit brings what is in it.
    client.credit(1, 0, 10).await;
    let (transfer, payload) = client.delivery().await;
    assert_eq!(transfer.handle.0, 1);
    assert!(payload.ends_with(b"b"));
}

#[tokio::test]
async fn who_does_not_wait_any_more_gets_no_session_and_keeps_its_connection() {
    let namespace = Namespace::start().await;
    let mut client = Client::begin(&namespace).await;
    let waits = session(1, Value::Null, Duration::from_secs(60));
    client.send(0, Performative::Attach(waits), &[]).await;
    client.send(0, detach(1), &[]).await;
    let attached = client.attached().await;
    assert!(attached.source.is_none());
    assert!(matches!(
        attached.target.as_deref(),
        Some(TargetArchetype::Target(_))
    ));
    assert_eq!(client.detached().await, "");
    send(&namespace, "c").await;
    // It is free for the next one, on the same handle.
    let attached = client.attach(session(1, Value::Null, Duration::ZERO)).await;
    assert_eq!(session_id(&attached), "c");
}

#[tokio::test]
async fn a_session_is_free_again_when_the_connection_of_its_receiver_is_lost() {
    let namespace = Namespace::start().await;
    send(&namespace, "d").await;
    let mut lost = Client::begin(&namespace).await;
    let attached = lost.attach(session(0, named("d"), Duration::ZERO)).await;
    assert_eq!(session_id(&attached), "d");
    let mut client = Client::begin(&namespace).await;
    let waits = session(0, Value::Null, Duration::from_secs(60));
    client.send(0, Performative::Attach(waits), &[]).await;
    client.receiver(1, "work").await;
    drop(lost);
    assert_eq!(session_id(&client.attached().await), "d");
}
