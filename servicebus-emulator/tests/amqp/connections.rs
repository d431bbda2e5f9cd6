//! Connections as such: who gets in, how many, how long they may be silent, and HTTP on the same port.

use std::time::Duration;

use fe2o3_amqp_types::performatives::{Close, Open, Performative};
use servicebus_emulator::amqp::Limits;

use crate::client::{
    AMQP_HEADER, Client, Frame, Namespace, SASL_HEADER, data, mechanism, open, plain, put_sasl,
    receiver, transfer, within,
};

const FORCED: &str = "amqp:connection:forced";

/// What a mechanism comes to: the outcome's code.
async fn outcome(namespace: &Namespace, init: fe2o3_amqp_types::sasl::SaslInit) -> (Client, u8) {
    let mut client = Client::connect(namespace).await;
    client.write(&SASL_HEADER).await;
    assert_eq!(client.bytes::<8>().await, SASL_HEADER);
    client.sasl().await;
    let mut bytes = bytes::BytesMut::new();
    put_sasl(&mut bytes, &init);
    client.write(&bytes).await;
    let outcome = client.sasl().await;
    let code = outcome[7];
    (client, code)
}

#[tokio::test]
async fn who_has_no_key_gets_in_but_not_to_an_entity() {
    let namespace = Namespace::start().await;
    for init in [
        mechanism("ANONYMOUS", None),
        mechanism("EXTERNAL", Some(b"")),
        mechanism("MSSBCBS", None),
    ] {
        let (mut client, code) = outcome(&namespace, init).await;
        assert_eq!(code, 0);
        client.write(&AMQP_HEADER).await;
        assert_eq!(client.bytes::<8>().await, AMQP_HEADER);
        client.send(0, Performative::Open(open()), &[]).await;
        assert!(matches!(client.next().await, Performative::Open(_)));
        client
            .send(0, Performative::Begin(crate::client::begin(10)), &[])
            .await;
        assert!(matches!(client.next().await, Performative::Begin(_)));
        for address in ["work", "work/$management", "$management"] {
            let attach = client.attach(receiver(1, address)).await;
            assert!(attach.source.is_none());
            assert_eq!(client.detached().await, "amqp:unauthorized-access");
        }
        assert!(client.attach(receiver(2, "$cbs")).await.source.is_some());
    }
}

#[tokio::test]
async fn a_wrong_key_and_an_unknown_mechanism_are_refused() {
    let namespace = Namespace::start().await;
    for init in [
        plain("another key"),
        mechanism("PLAIN", Some(b"\0Somebody\0SAS_KEY_VALUE")),
        mechanism("PLAIN", Some(b"RootManageSharedAccessKey")),
        mechanism("PLAIN", None),
        mechanism("SCRAM-SHA-256", Some(b"n,,n=u,r=r")),
    ] {
        let (mut client, code) = outcome(&namespace, init).await;
        assert_eq!(code, 1);
        assert!(client.frame().await.is_none());
    }
}

#[tokio::test]
async fn a_client_that_is_silent_too_long_is_told_so() {
    let namespace = Namespace::with(Limits {
        idle_timeout: Duration::from_millis(40),
        ..Limits::default()
    })
    .await;
    let mut client = Client::open(&namespace).await;
    assert_eq!(client.closed().await, FORCED);
}

#[tokio::test]
async fn a_client_hears_from_the_broker_within_the_time_it_allows() {
    let namespace = Namespace::start().await;
    let open = Open {
        idle_time_out: Some(1000),
        ..open()
    };
    let mut client = Client::open_as(&namespace, open).await;
    for _ in 0..2 {
        let asked = tokio::time::Instant::now();
        let Some(Frame::Heartbeat) = client.frame().await else {
            panic!("no heartbeat");
        };
        assert!(asked.elapsed() < Duration::from_millis(1000));
    }
}

#[tokio::test]
async fn a_connection_that_does_not_get_anywhere_is_closed() {
    let namespace = Namespace::with(Limits {
        handshake: Duration::from_millis(500),
        ..Limits::default()
    })
    .await;
    // At whatever point it stops: nothing, half of the protocol, no mechanism, half of a frame.
    let mut begun = SASL_HEADER.to_vec();
    begun.extend([0, 0, 0, 9, 2, 1, 0, 0]);
    let mut clients = Vec::new();
    for sent in [0, 3, 8, 16] {
        let mut client = Client::connect(&namespace).await;
        client.write(&begun[..sent]).await;
        clients.push((sent, client));
    }
    for (sent, mut client) in clients {
        if sent >= SASL_HEADER.len() {
            assert_eq!(client.bytes::<8>().await, SASL_HEADER);
            client.sasl().await;
        }
        assert!(client.frame().await.is_none());
    }
}

#[tokio::test]
async fn there_are_so_many_connections_and_no_more() {
    let namespace = Namespace::with(Limits {
        connections: 1,
        ..Limits::default()
    })
    .await;
    let mut first = Client::open(&namespace).await;
    let mut second = Client::connect(&namespace).await;
    assert!(second.frame().await.is_none());
    first
        .send(0, Performative::Close(Close { error: None }), &[])
        .await;
    assert_eq!(first.closed().await, "");
    drop(first);
    // The place is free when the broker has seen that the first one has gone.
    within(async {
        loop {
            let mut third = Client::connect(&namespace).await;
            if third.stream.try_write(&AMQP_HEADER).is_ok() && third.ends_without_a_header().await {
                continue;
            }
            break;
        }
    })
    .await;
}

#[tokio::test]
async fn channels_have_a_limit() {
    let namespace = Namespace::with(Limits {
        max_channel: 1,
        ..Limits::default()
    })
    .await;
    let mut client = Client::begin(&namespace).await;
    client
        .send(1, Performative::Begin(crate::client::begin(10)), &[])
        .await;
    assert!(matches!(client.next().await, Performative::Begin(_)));
    client
        .send(2, Performative::Begin(crate::client::begin(10)), &[])
        .await;
    assert_eq!(client.closed().await, "amqp:not-allowed");
}

#[tokio::test]
async fn http_is_served_on_the_same_port() {
    let namespace = Namespace::start().await;
    let url = format!("http://127.0.0.1:{}/health", namespace.port);
    let health = reqwest::get(url).await.unwrap();
    assert_eq!(health.status(), 200);
    let text = health.text().await.unwrap();
    assert!(text.contains("Service is healthy."), "{text}");
}

#[tokio::test]
async fn whoever_is_connected_is_told_when_the_broker_stops() {
    let mut namespace = Namespace::start().await;
    let mut client = Client::begin(&namespace).await;
    client.sender(0, "work").await;
    client
        .send(
            0,
            Performative::Transfer(transfer(0, 0, false)),
            &data(b"x"),
        )
        .await;
    assert_eq!(client.disposition().await.first, 0);
    let closed = tokio::spawn(async move { client.closed().await });
    namespace.stop().await;
    assert_eq!(within(closed).await.unwrap(), FORCED);
}
