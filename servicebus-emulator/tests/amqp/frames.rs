//! Bytes that no client of good will sends: whoever does is told what is wrong and disconnected, and nobody else notices.

use bytes::{BufMut, BytesMut};
use fe2o3_amqp_types::performatives::Performative;
use tokio::io::AsyncWriteExt;

use crate::client::{
    AMQP_HEADER, Client, Namespace, SASL_HEADER, begin, data, put, put_frame, sender, transfer,
};

const FRAMING: &str = "amqp:connection:framing-error";
const DECODE: &str = "amqp:decode-error";
const NOT_ALLOWED: &str = "amqp:not-allowed";

fn frame(kind: u8, channel: u16, body: &[u8]) -> Vec<u8> {
    let mut bytes = BytesMut::new();
    put_frame(&mut bytes, kind, channel, body, &[]);
    bytes.to_vec()
}

#[tokio::test]
async fn an_invalid_frame_closes_its_own_connection_only() {
    let namespace = Namespace::start().await;
    let mut unharmed = Client::begin(&namespace).await;
    unharmed.sender(0, "work").await;

    let performative = |performative| {
        let mut bytes = BytesMut::new();
        put(&mut bytes, 7, &performative, &[]);
        bytes.to_vec()
    };
    let cases: [(&str, Vec<u8>, &str); 12] = [
        (
            "smaller than its header",
            vec![0, 0, 0, 7, 2, 0, 0, 0],
            FRAMING,
        ),
        (
            "an offset into the header",
            vec![0, 0, 0, 8, 1, 0, 0, 0],
            FRAMING,
        ),
        (
            "an offset beyond its end",
            vec![0, 0, 0, 8, 3, 0, 0, 0],
            FRAMING,
        ),
        ("larger than agreed", vec![0, 1, 0, 1, 2, 0, 0, 0], FRAMING),
        (
            "as large as can be said",
            vec![0xff, 0xff, 0xff, 0xff, 2, 0, 0, 0],
            FRAMING,
        ),
        ("of an unknown type", frame(9, 0, &[0x45]), FRAMING),
        (
            "no performative",
            frame(0, 0, &[0x00, 0x53, 0x99, 0x45]),
            DECODE,
        ),
        ("not even described", frame(0, 0, b"hello"), DECODE),
        (
            "a list longer than the frame",
            frame(
                0,
                0,
                &[0x00, 0x53, 0x12, 0xd0, 0xff, 0xff, 0xff, 0xff, 0, 0, 0, 9],
            ),
            DECODE,
        ),
        (
            "a list of more than there is",
            frame(0, 0, &[0x00, 0x53, 0x15, 0xc0, 0x02, 0xff, 0x41]),
            DECODE,
        ),
        (
            "a flow on a channel without a session",
            performative(Performative::Flow(crate::client::session_flow(0, 1))),
            NOT_ALLOWED,
        ),
        (
            "a second open",
            performative(Performative::Open(crate::client::open())),
            NOT_ALLOWED,
        ),
    ];
    for (what, bytes, condition) in cases {
        let mut client = Client::open(&namespace).await;
        client.write(&bytes).await;
        assert_eq!(client.closed().await, condition, "{what}");
    }

    let sent = Performative::Transfer(transfer(0, 0, false));
    unharmed.send(0, sent, &data(b"still there")).await;
    assert_eq!(unharmed.disposition().await.first, 0);
}

#[tokio::test]
async fn what_ends_in_the_middle_of_a_frame_is_forgotten() {
    let namespace = Namespace::start().await;
    let mut bytes = BytesMut::new();
    put(&mut bytes, 1, &Performative::Begin(begin(1)), &[]);
    for length in [1, 7, 8, bytes.len() - 1] {
        let mut client = Client::begin(&namespace).await;
        client.write(&bytes[..length]).await;
        client.stream.shutdown().await.unwrap();
        assert!(client.frame().await.is_none());
    }
    // Nor is anything sent that had no end.
    let mut client = Client::begin(&namespace).await;
    client.sender(0, "work").await;
    let first = Performative::Transfer(transfer(0, 0, true));
    client.send(0, first, &data(b"half")).await;
    client.stream.shutdown().await.unwrap();
    assert!(client.frame().await.is_none());
    assert_eq!(namespace.bus.entities().await.unwrap()[3].active, 0);
}

#[tokio::test]
async fn another_protocol_is_answered_with_the_one_there_is() {
    let namespace = Namespace::start().await;
    for header in [*b"AMQP\x02\x01\x00\x00", *b"AMQP\x00\x00\x09\x01"] {
        let mut client = Client::connect(&namespace).await;
        client.write(&header).await;
        assert_eq!(client.bytes::<8>().await, SASL_HEADER);
        assert!(client.frame().await.is_none());
    }
}

#[tokio::test]
async fn frames_may_come_ahead_of_their_answers_and_in_pieces() {
    let namespace = Namespace::start().await;
    let mut bytes = BytesMut::new();
    bytes.put_slice(&SASL_HEADER);
    crate::client::put_sasl(&mut bytes, &crate::client::plain("SAS_KEY_VALUE"));
    bytes.put_slice(&AMQP_HEADER);
    // A heartbeat may come before anything else.
    put_frame(&mut bytes, 0, 0, &[], &[]);
    put(
        &mut bytes,
        0,
        &Performative::Open(crate::client::open()),
        &[],
    );
    put(&mut bytes, 3, &Performative::Begin(begin(10)), &[]);
    put(&mut bytes, 3, &Performative::Attach(sender(5, "work")), &[]);
    for piece in [bytes.len(), 1] {
        let mut client = Client::connect(&namespace).await;
        for piece in bytes.chunks(piece) {
            client.write(piece).await;
        }
        assert_eq!(client.bytes::<8>().await, SASL_HEADER);
        client.sasl().await;
        client.sasl().await;
        assert_eq!(client.bytes::<8>().await, AMQP_HEADER);
        assert!(matches!(client.next().await, Performative::Open(_)));
        let Performative::Begin(begun) = client.next().await else {
            panic!("no begin");
        };
        assert_eq!(begun.remote_channel, Some(3));
        let attached = client.attached().await;
        assert_eq!(attached.handle.0, 5);
        assert_eq!(attached.max_message_size, Some(262_144));
    }
}
