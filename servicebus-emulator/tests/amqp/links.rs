//! Sessions and links that the client sends on.

use fe2o3_amqp_types::{
    definitions::Role,
    messaging::DeliveryState,
    performatives::{Attach, Detach, Performative, Transfer},
};
use servicebus_emulator::Body;

use crate::client::{Client, Namespace, begin, condition, data, receiver, sender, transfer};

fn rejected(state: Option<DeliveryState>) -> String {
    match state {
        Some(DeliveryState::Rejected(rejected)) => condition(rejected.error),
        other => panic!("{other:?} is no rejection"),
    }
}

#[tokio::test]
async fn a_handle_that_is_not_attached_ends_the_session_and_not_the_connection() {
    let namespace = Namespace::start().await;
    let mut client = Client::begin(&namespace).await;
    let cases = [
        Performative::Transfer(transfer(9, 0, false)),
        Performative::Flow(crate::client::credit_flow(9, 0, 1)),
        Performative::Detach(Detach {
            handle: 9.into(),
            closed: true,
            error: None,
        }),
    ];
    for performative in cases {
        client.send(0, performative, &data(b"x")).await;
        assert_eq!(client.ended().await, "amqp:session:unattached-handle");
        // What is sent before the client knows is passed over.
        client
            .send(
                0,
                Performative::Transfer(transfer(9, 1, false)),
                &data(b"x"),
            )
            .await;
        let end = fe2o3_amqp_types::performatives::End { error: None };
        client.send(0, Performative::End(end), &[]).await;
        client.send(0, Performative::Begin(begin(10)), &[]).await;
        assert!(matches!(client.next().await, Performative::Begin(_)));
    }
    client.sender(0, "work").await;
}

#[tokio::test]
async fn a_handle_has_one_link() {
    let namespace = Namespace::start().await;
    let mut client = Client::begin(&namespace).await;
    client.sender(4, "work").await;
    client
        .send(0, Performative::Attach(sender(4, "other")), &[])
        .await;
    assert_eq!(client.ended().await, "amqp:session:handle-in-use");
}

#[tokio::test]
async fn a_link_that_leads_nowhere_is_attached_to_nothing_and_detached() {
    let namespace = Namespace::start().await;
    let mut client = Client::begin(&namespace).await;
    for (address, condition) in [
        ("missing", "amqp:not-found"),
        ("$other", "amqp:not-found"),
        ("orders/Subscriptions/missing", "amqp:not-found"),
        ("missing/$management", "amqp:not-found"),
        ("orders/Subscriptions/all", "amqp:not-allowed"),
        ("work/$DeadLetterQueue", "amqp:not-allowed"),
    ] {
        let attach = client.attach(sender(1, address)).await;
        assert!(attach.target.is_none(), "{address}");
        assert_eq!(client.detached().await, condition, "{address}");
    }
    for (address, condition) in [
        ("missing", "amqp:not-found"),
        ("missing/$DeadLetterQueue", "amqp:not-found"),
        ("orders", "amqp:not-allowed"),
        ("sessions", "amqp:not-allowed"),
    ] {
        let attach = client.attach(receiver(2, address)).await;
        assert!(attach.source.is_none(), "{address}");
        assert_eq!(client.detached().await, condition, "{address}");
    }
    let nowhere = Attach {
        target: None,
        ..sender(3, "work")
    };
    client.attach(nowhere).await;
    assert_eq!(client.detached().await, "amqp:invalid-field");
    // The session goes on.
    client.sender(4, "amqps://localhost:5671/WORK").await;
}

#[tokio::test]
async fn a_delivery_comes_in_pieces_or_not_at_all() {
    let namespace = Namespace::start().await;
    let mut client = Client::begin(&namespace).await;
    client.sender(0, "work").await;
    let payload = data(b"in three pieces");
    for (more, part) in [
        (true, &payload[..3]),
        (true, &payload[3..9]),
        (false, &payload[9..]),
    ] {
        client
            .send(0, Performative::Transfer(transfer(0, 0, more)), part)
            .await;
    }
    assert_eq!(client.disposition().await.first, 0);

    client
        .send(
            0,
            Performative::Transfer(transfer(0, 1, true)),
            &payload[..3],
        )
        .await;
    let aborted = Transfer {
        aborted: true,
        ..transfer(0, 1, true)
    };
    client.send(0, Performative::Transfer(aborted), &[]).await;
    // Settled already: nobody is told.
    let settled = Transfer {
        settled: Some(true),
        ..transfer(0, 2, false)
    };
    client
        .send(0, Performative::Transfer(settled), &data(b"settled"))
        .await;
    client
        .send(
            0,
            Performative::Transfer(transfer(0, 3, false)),
            &data(b"last"),
        )
        .await;
    let disposition = client.disposition().await;
    assert_eq!((disposition.first, disposition.last), (3, None));

    let queue = "work".parse().unwrap();
    let peeked = namespace.bus.peek_batch(&queue, 0, 10, None).await.unwrap();
    let bodies: Vec<Body> = peeked
        .into_iter()
        .map(|peeked| peeked.message.body)
        .collect();
    let expected: [&'static [u8]; 3] = [b"in three pieces", b"settled", b"last"];
    assert_eq!(bodies, expected.map(Body::from));
}

#[tokio::test]
async fn what_is_too_large_or_no_message_is_rejected_and_the_link_stays() {
    let namespace = Namespace::start().await;
    let mut client = Client::begin(&namespace).await;
    client.sender(0, "work").await;
    let piece = data(&[0; 60_000]);
    for more in [true, true, true, true, true, false] {
        client
            .send(0, Performative::Transfer(transfer(0, 0, more)), &piece)
            .await;
    }
    let state = client.disposition().await.state;
    assert_eq!(rejected(state), "amqp:link:message-size-exceeded");

    for payload in [&b"no message"[..], &[0x00, 0x53, 0x75, 0xa0, 0xff, 1]] {
        client
            .send(0, Performative::Transfer(transfer(0, 1, false)), payload)
            .await;
        let state = client.disposition().await.state;
        assert_eq!(rejected(state), "com.microsoft:argument-error");
    }
    let unknown = Transfer {
        message_format: Some(7),
        ..transfer(0, 2, false)
    };
    client
        .send(0, Performative::Transfer(unknown), &data(b"x"))
        .await;
    assert_eq!(
        rejected(client.disposition().await.state),
        "amqp:not-implemented"
    );

    client
        .send(
            0,
            Performative::Transfer(transfer(0, 3, false)),
            &data(b"x"),
        )
        .await;
    let disposition = client.disposition().await;
    assert_eq!(disposition.role, Role::Receiver);
    assert!(matches!(
        disposition.state,
        Some(DeliveryState::Accepted(_))
    ));
}

#[tokio::test]
async fn credit_is_given_again_when_half_of_it_is_used() {
    let namespace = Namespace::start().await;
    let mut client = Client::begin(&namespace).await;
    client.sender(0, "work").await;
    for delivery in 0..500 {
        client
            .send(
                0,
                Performative::Transfer(transfer(0, delivery, false)),
                &data(b"x"),
            )
            .await;
    }
    let mut accepted = 0;
    let flow = loop {
        match client.next().await {
            Performative::Disposition(disposition) => {
                accepted += disposition.last.unwrap_or(disposition.first) - disposition.first + 1;
            }
            Performative::Flow(flow) => break flow,
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(accepted, 500);
    assert_eq!(
        (flow.delivery_count, flow.link_credit),
        (Some(500), Some(1000))
    );
}

#[tokio::test]
async fn deliveries_that_are_aborted_do_not_use_up_the_credit_for_good() {
    let namespace = Namespace::start().await;
    let mut client = Client::begin(&namespace).await;
    client.sender(0, "work").await;
    for delivery in 0..500 {
        let aborted = Transfer {
            aborted: true,
            ..transfer(0, delivery, false)
        };
        client
            .send(0, Performative::Transfer(aborted), &data(b"x"))
            .await;
    }
    let flow = client.flow().await;
    assert_eq!(flow.delivery_count, Some(500));
    assert_eq!(flow.link_credit, Some(1000));
}
