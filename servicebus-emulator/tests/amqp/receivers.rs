//! Links that the client receives on: credit, drain, windows, settlement, and clients that do not read.

use fe2o3_amqp_types::{
    definitions::{Fields, Role, SenderSettleMode},
    messaging::{Accepted, DeliveryState, Modified, Rejected, Released},
    performatives::{Attach, Detach, Flow, Open, Performative},
};
use serde_amqp::{Value, primitives::Symbol};
use servicebus_emulator::{MessageState, ReceiveMode, Settlement};
use uuid::Uuid;

use crate::client::{
    Client, Namespace, begin, condition, credit_flow, data, open, receiver, session_flow, transfer,
};

fn body(payload: &[u8]) -> &[u8] {
    let data = payload
        .windows(3)
        .rposition(|window| window == [0x00, 0x53, 0x75]);
    let data = &payload[data.unwrap() + 3..];
    match data[0] {
        0xa0 => &data[2..],
        _ => &data[5..],
    }
}

#[tokio::test]
async fn nothing_comes_beyond_the_credit_and_a_flow_said_twice_says_nothing_new() {
    let namespace = Namespace::start().await;
    namespace.send("work", &["a", "b", "c"]).await;
    let mut client = Client::begin(&namespace).await;
    client.receiver(0, "work").await;
    client.credit(0, 0, 2).await;
    client.credit(0, 0, 2).await;
    let asks = Flow {
        echo: true,
        ..credit_flow(0, 0, 2)
    };
    assert_eq!(body(&client.delivery().await.1), b"a");
    assert_eq!(body(&client.delivery().await.1), b"b");
    // The same once more, by a client that has not counted what is on its way to it.
    client.send(0, Performative::Flow(asks), &[]).await;
    let flow = client.flow().await;
    assert_eq!((flow.delivery_count, flow.link_credit), (Some(2), Some(0)));
    client.credit(0, 2, 1).await;
    assert_eq!(body(&client.delivery().await.1), b"c");
}

#[tokio::test]
async fn a_drained_link_gets_what_there_is_and_then_has_no_credit() {
    let namespace = Namespace::start().await;
    namespace.send("work", &["a", "b"]).await;
    let mut client = Client::begin(&namespace).await;
    client.receiver(0, "work").await;
    // At once with the credit, and again while a receive waits.
    for (count, credit, expected) in [(0, 5, &[b"a", b"b"][..]), (5, 3, &[])] {
        if expected.is_empty() {
            client.credit(0, count, credit).await;
        }
        let drain = Flow {
            drain: true,
            ..credit_flow(0, count, credit)
        };
        client.send(0, Performative::Flow(drain), &[]).await;
        for expected in expected {
            assert_eq!(body(&client.delivery().await.1), *expected);
        }
        let flow = client.flow().await;
        assert!(flow.drain);
        assert_eq!(flow.delivery_count, Some(count + credit));
        assert_eq!(flow.link_credit, Some(0));
    }
    // What comes now finds no credit; more of it finds what came.
    namespace.send("work", &["c"]).await;
    client.credit(0, 8, 1).await;
    assert_eq!(body(&client.delivery().await.1), b"c");
}

#[tokio::test]
async fn the_window_of_a_session_is_kept_to_in_the_middle_of_a_message_too() {
    let namespace = Namespace::start().await;
    let large = "x".repeat(1200);
    namespace.send("work", &[&large, "small"]).await;
    let open = Open {
        max_frame_size: 512.into(),
        ..open()
    };
    let mut client = Client::open_as(&namespace, open).await;
    client.send(0, Performative::Begin(begin(2)), &[]).await;
    assert!(matches!(client.next().await, Performative::Begin(_)));
    client.receiver(0, "work").await;
    let credit = Flow {
        incoming_window: 2,
        ..credit_flow(0, 0, 10)
    };
    client.send(0, Performative::Flow(credit), &[]).await;
    let mut payload = Vec::new();
    let mut seen = 0;
    let mut whole = Vec::new();
    while whole.len() < 2 {
        for _ in 0..2 {
            let (Performative::Transfer(transfer), part) = client.next_with_payload().await else {
                panic!("no transfer");
            };
            assert!(part.len() < 512);
            payload.extend_from_slice(&part);
            seen += 1;
            if !transfer.more {
                whole.push(std::mem::take(&mut payload));
            }
            if whole.len() == 2 {
                break;
            }
        }
        // The window is used up: the answer to this comes before anything else.
        let echo = Flow {
            echo: true,
            ..session_flow(seen, 0)
        };
        client.send(0, Performative::Flow(echo), &[]).await;
        assert_eq!(client.flow().await.next_outgoing_id, seen);
        client
            .send(0, Performative::Flow(session_flow(seen, 2)), &[])
            .await;
    }
    assert_eq!(body(&whole[0]), large.as_bytes());
    assert_eq!(body(&whole[1]), b"small");
}

#[tokio::test]
async fn outcomes_are_carried_out_and_echoed() {
    let namespace = Namespace::start().await;
    let mut client = Client::begin(&namespace).await;
    client.receiver(0, "work").await;
    let queue = "work".parse().unwrap();
    let changes =
        |key: &str| -> Fields { [(Symbol::from(key), Value::Int(7))].into_iter().collect() };
    let dead_letter = |info: Fields| {
        let condition = fe2o3_amqp_types::definitions::ErrorCondition::Custom(Symbol::from(
            "com.microsoft:dead-letter",
        ));
        let error = fe2o3_amqp_types::definitions::Error::new(condition, None, Some(info));
        Rejected { error: Some(error) }
    };
    let modified = |undeliverable_here, message_annotations| Modified {
        delivery_failed: Some(true),
        undeliverable_here,
        message_annotations,
    };
    let mut reason = changes("tries");
    reason.insert(
        Symbol::from("DeadLetterReason"),
        Value::String("spoilt".to_owned()),
    );

    for (delivery, (state, echo, left)) in (0..).zip([
        (Accepted {}.into(), Accepted {}.into(), None),
        (
            Released {}.into(),
            Released {}.into(),
            Some((MessageState::Active, 0)),
        ),
        (
            modified(None, Some(changes("tries"))).into(),
            modified(None, None).into(),
            Some((MessageState::Active, 1)),
        ),
        (
            modified(Some(true), Some(changes("tries"))).into(),
            modified(Some(true), None).into(),
            Some((MessageState::Deferred, 1)),
        ),
        (
            dead_letter(reason).into(),
            Rejected { error: None }.into(),
            None,
        ),
    ]) {
        let (state, echo): (DeliveryState, DeliveryState) = (state, echo);
        namespace.send("work", &["m"]).await;
        client.credit(0, delivery, 1).await;
        client.delivery().await;
        client.settle(delivery, delivery, state).await;
        let disposition = client.disposition().await;
        assert_eq!(disposition.role, Role::Sender);
        assert_eq!(disposition.first, delivery);
        assert_eq!(disposition.state, Some(echo));
        let peeked = namespace.bus.peek_batch(&queue, 0, 2, None).await.unwrap();
        let now = peeked
            .first()
            .map(|peeked| (peeked.state, peeked.delivery_count));
        assert_eq!(now, left);
        // The next one begins with an empty queue.
        match peeked.first() {
            Some(peeked) if peeked.state == MessageState::Deferred => {
                let numbers = vec![peeked.sequence_number];
                let mode = ReceiveMode::ReceiveAndDelete;
                let received = namespace
                    .bus
                    .receive_deferred(&queue, mode, None, numbers)
                    .await;
                let tries = &received.unwrap()[0].message.properties["tries"];
                assert_eq!(*tries, servicebus_emulator::Value::Int(7));
            }
            Some(_) => {
                let mode = ReceiveMode::ReceiveAndDelete;
                let taken = namespace
                    .bus
                    .receive(&queue, mode, std::time::Duration::ZERO)
                    .await;
                assert!(taken.unwrap().is_some());
            }
            None => {}
        }
    }
    let dead = namespace
        .bus
        .peek(&queue.dead_letter())
        .await
        .unwrap()
        .unwrap();
    let properties = &dead.message.properties;
    let text = servicebus_emulator::Value::String("spoilt".to_owned());
    assert_eq!(properties["DeadLetterReason"], text);
    assert_eq!(properties["tries"], servicebus_emulator::Value::Int(7));
}

#[tokio::test]
async fn a_range_is_settled_and_what_is_lost_is_said_for_itself() {
    let namespace = Namespace::start().await;
    namespace.send("work", &["a", "b", "c", "d"]).await;
    let mut client = Client::begin(&namespace).await;
    client.receiver(0, "work").await;
    client.credit(0, 0, 4).await;
    let mut tags = Vec::new();
    for _ in 0..4 {
        let (transfer, _) = client.delivery().await;
        assert_eq!(transfer.settled, Some(false));
        tags.push(transfer.delivery_tag.unwrap());
    }
    // The tag is the lock token, as .NET writes it.
    let token = Uuid::from_bytes_le(tags[2].as_ref().try_into().unwrap());
    let queue = "work".parse().unwrap();
    namespace.bus.complete(&queue, token).await.unwrap();
    client.settle(0, 3, Accepted {}.into()).await;
    let accepted = Some(Accepted {}.into());
    let mut settled = Vec::new();
    while settled.len() < 4 {
        let disposition = client.disposition().await;
        let range = disposition.first..=disposition.last.unwrap_or(disposition.first);
        for delivery in range {
            settled.push(delivery);
            if delivery == 2 {
                let Some(DeliveryState::Rejected(rejected)) = &disposition.state else {
                    panic!("{disposition:?}");
                };
                let lost = condition(rejected.error.clone());
                assert_eq!(lost, "com.microsoft:message-lock-lost");
            } else {
                assert_eq!(disposition.state, accepted);
            }
        }
    }
    assert_eq!(settled, [0, 1, 2, 3]);
    assert!(
        namespace
            .bus
            .peek_batch(&queue, 0, 4, None)
            .await
            .unwrap()
            .is_empty()
    );
}

#[tokio::test]
async fn a_detached_link_settles_nothing_and_takes_nothing_more() {
    let namespace = Namespace::start().await;
    namespace.send("work", &["a"]).await;
    let mut client = Client::begin(&namespace).await;
    client.receiver(0, "work").await;
    client.credit(0, 0, 10).await;
    let (transfer, _) = client.delivery().await;
    let detach = Detach {
        handle: 0.into(),
        closed: true,
        error: None,
    };
    client.send(0, Performative::Detach(detach), &[]).await;
    assert_eq!(client.detached().await, "");
    namespace.send("work", &["b"]).await;
    let queue = "work".parse().unwrap();
    let states = namespace.bus.entities().await.unwrap();
    let counts = states.iter().find(|counts| counts.name == "work").unwrap();
    assert_eq!((counts.active, counts.locked), (1, 1));
    let tag = transfer.delivery_tag.unwrap();
    let token = Uuid::from_bytes_le(tag.as_ref().try_into().unwrap());
    let settled = namespace
        .bus
        .settle(&queue, token, Settlement::Complete)
        .await;
    assert_eq!(settled, Ok(()));
}

#[tokio::test]
async fn a_receiver_that_settles_at_once_deletes() {
    let namespace = Namespace::start().await;
    namespace.send("work", &["a"]).await;
    let mut client = Client::begin(&namespace).await;
    let attach = Attach {
        snd_settle_mode: SenderSettleMode::Settled,
        ..receiver(0, "work")
    };
    client.attach(attach).await;
    client.credit(0, 0, 1).await;
    let (transfer, payload) = client.delivery().await;
    assert_eq!(transfer.settled, Some(true));
    assert_eq!(body(&payload), b"a");
    let queue = "work".parse().unwrap();
    assert!(namespace.bus.peek(&queue).await.unwrap().is_none());
}

#[tokio::test]
async fn a_link_is_detached_when_its_entity_is_deleted() {
    let namespace = Namespace::start().await;
    let mut client = Client::begin(&namespace).await;
    client.receiver(0, "work").await;
    client.credit(0, 0, 1).await;
    let echo = Flow {
        echo: true,
        ..credit_flow(0, 0, 1)
    };
    client.send(0, Performative::Flow(echo), &[]).await;
    assert_eq!(client.flow().await.link_credit, Some(1));
    namespace
        .bus
        .delete(&"work".parse().unwrap())
        .await
        .unwrap();
    assert_eq!(client.detached().await, "amqp:not-found");
}

#[tokio::test]
async fn a_client_that_does_not_read_is_waited_for_and_others_are_not() {
    let namespace = Namespace::start().await;
    let bodies: Vec<String> = (0..300).map(|number| format!("{number:060000}")).collect();
    for body in &bodies {
        namespace.send("work", &[body]).await;
    }
    let mut slow = Client::begin(&namespace).await;
    slow.receiver(0, "work").await;
    slow.credit(0, 0, 1000).await;

    // What was sent to the slow one does not fit between it and the broker, which goes on serving others.
    let mut other = Client::begin(&namespace).await;
    other.sender(0, "other").await;
    other.receiver(1, "other").await;
    for delivery in 0..50 {
        let sent = Performative::Transfer(transfer(0, delivery, false));
        other.send(0, sent, &data(b"x")).await;
        assert_eq!(other.disposition().await.first, delivery);
        other.credit(1, delivery, 1).await;
        assert_eq!(body(&other.delivery().await.1), b"x");
    }
    let waiting = namespace
        .bus
        .browse(&"work".parse().unwrap(), MessageState::Active)
        .await;
    assert!(!waiting.unwrap().is_empty());

    for expected in &bodies {
        assert_eq!(body(&slow.delivery().await.1), expected.as_bytes());
    }
}
