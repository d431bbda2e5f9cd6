//! Messages from and to the bytes that clients send and expect.

use bytes::{BufMut, BytesMut};
use fe2o3_amqp_types::messaging::Header;
use proptest::prelude::*;
use uuid::Uuid;

use crate::{MessageState, ReceivedMessage, Value};

use super::{
    super::{
        message_encoding::{encode_message, encode_peeked},
        value_encoding::{
            put_binary, put_descriptor, put_list, put_map, put_null, put_string, put_symbol,
            put_timestamp, put_uint, put_value,
        },
    },
    *,
};

fn time(milliseconds: i64) -> Timestamp {
    Timestamp::from_millisecond(milliseconds).unwrap()
}

/// A message with something in every place.
fn full() -> Message {
    Message {
        body: Body::from(&b"hello"[..]),
        content_type: Some("application/json".to_owned()),
        message_id: Some("m".to_owned()),
        correlation_id: Some("c".to_owned()),
        session_id: Some("s".to_owned()),
        partition_key: Some("s".to_owned()),
        label: Some("subject".to_owned()),
        reply_to: Some("replies".to_owned()),
        reply_to_session_id: Some("rs".to_owned()),
        to: Some("to".to_owned()),
        time_to_live: Some(Duration::from_millis(90_500)),
        scheduled_enqueue_time: Some(time(1_700_000_000_123)),
        properties: [
            ("int".to_owned(), Value::Int(5)),
            ("long".to_owned(), Value::Long(5)),
            ("null".to_owned(), Value::Null),
            ("text".to_owned(), Value::String("é".to_owned())),
        ]
        .into(),
    }
}

fn received(message: Message) -> ReceivedMessage {
    ReceivedMessage {
        message,
        sequence_number: 300,
        enqueued_sequence_number: 7,
        enqueued_time: time(1_700_000_000_000),
        expires_at: Some(time(1_700_000_090_500)),
        delivery_count: 1,
        lock_token: Some(Uuid::from_u128(7)),
        locked_until: Some(time(1_700_000_060_000)),
        state: MessageState::Locked,
        dead_letter_source: Some("q1".to_owned()),
    }
}

/// The values of the sections of a message, with their descriptors.
fn sections(bytes: &[u8]) -> Vec<(u64, Amqp)> {
    let mut reader = Reader::new(bytes);
    let mut sections = Vec::new();
    while !reader.is_empty() {
        sections.push((reader.descriptor().unwrap(), reader.value().unwrap()));
    }
    sections
}

fn string(text: &str) -> Amqp {
    Amqp::String(text.to_owned())
}

fn timestamp(milliseconds: i64) -> Amqp {
    Amqp::Timestamp(milliseconds.into())
}

#[test]
fn a_received_message_has_the_sections_and_annotations_that_clients_read() {
    let sections = sections(&encode_message(&received(full())));
    let codes: Vec<u64> = sections.iter().map(|(code, _)| *code).collect();
    assert_eq!(codes, [0x70, 0x71, 0x72, 0x73, 0x74, 0x75]);
    let header = Amqp::List(vec![
        Amqp::Bool(true),
        Amqp::Null,
        Amqp::Uint(90_500),
        Amqp::Null,
        Amqp::Uint(0),
    ]);
    assert_eq!(sections[0].1, header);
    let symbol = |name: &str| Amqp::Symbol(name.into());
    let token = [(symbol("x-opt-lock-token"), value::uuid(Uuid::from_u128(7)))];
    assert_eq!(sections[1].1, Amqp::Map(token.into_iter().collect()));
    let annotations = [
        (symbol("x-opt-sequence-number"), Amqp::Long(300)),
        (symbol("x-opt-enqueue-sequence-number"), Amqp::Long(7)),
        (symbol("x-opt-enqueued-time"), timestamp(1_700_000_000_000)),
        (symbol("x-opt-message-state"), Amqp::Int(0)),
        (symbol("x-opt-locked-until"), timestamp(1_700_000_060_000)),
        (
            symbol("x-opt-scheduled-enqueue-time"),
            timestamp(1_700_000_000_123),
        ),
        (symbol("x-opt-partition-key"), string("s")),
        (symbol("x-opt-deadletter-source"), string("q1")),
    ];
    assert_eq!(sections[2].1, Amqp::Map(annotations.into_iter().collect()));
    let properties = Amqp::List(vec![
        string("m"),
        Amqp::Null,
        string("to"),
        string("subject"),
        string("replies"),
        string("c"),
        symbol("application/json"),
        Amqp::Null,
        timestamp(1_700_000_090_500),
        timestamp(1_700_000_000_000),
        string("s"),
        Amqp::Null,
        string("rs"),
    ]);
    assert_eq!(sections[3].1, properties);
    assert_eq!(sections[5].1, Amqp::Binary(b"hello".to_vec().into()));
}

#[test]
fn a_bare_message_says_no_more_than_it_knows() {
    let message = ReceivedMessage {
        expires_at: None,
        lock_token: None,
        locked_until: None,
        dead_letter_source: None,
        state: MessageState::Deferred,
        delivery_count: 3,
        ..received(Message::default())
    };
    let sections = sections(&encode_peeked(&message));
    let codes: Vec<u64> = sections.iter().map(|(code, _)| *code).collect();
    assert_eq!(codes, [0x70, 0x72, 0x73, 0x75]);
    let Amqp::List(header) = &sections[0].1 else {
        panic!("{sections:?}");
    };
    assert_eq!((&header[2], &header[4]), (&Amqp::Null, &Amqp::Uint(3)));
    let annotations = &sections[1].1;
    assert_eq!(value::get(annotations, "x-opt-locked-until"), None);
    let state = value::get(annotations, "x-opt-message-state");
    assert_eq!(state, Some(&Amqp::Int(1)));
    assert_eq!(sections[2].1, Amqp::List(vec![Amqp::Null; 13]));
}

#[test]
fn the_delivery_count_is_on_the_wire_when_it_is_zero() {
    let bytes = encode_message(&received(Message::default()));
    let mut reader = Reader::new(&bytes);
    reader.descriptor().unwrap();
    let header = &bytes[..3 + reader.encoded().unwrap().len()];
    // A list of five, the last a uint of 0.
    assert_eq!(header[..12], [0, 0x53, 0x70, 0xd0, 0, 0, 0, 9, 0, 0, 0, 5]);
    assert_eq!(header[12..], [0x41, 0x40, 0x40, 0x40, 0x43]);
    let theirs: Header = serde_amqp::from_slice(header).unwrap();
    assert!(theirs.durable);
    assert_eq!((theirs.ttl, theirs.delivery_count), (None, 0));
}

#[test]
fn a_message_is_received_as_it_was_sent() {
    let bytes = encode_message(&received(full()));
    assert_eq!(decode_message(&bytes), Ok(full()));
    let forever = Message {
        time_to_live: Some(Duration::from_secs(100 * 86_400)),
        ..full()
    };
    let long_lived = ReceivedMessage {
        expires_at: Some(time(1_700_000_000_000 + 100 * 86_400_000)),
        ..received(forever.clone())
    };
    assert_eq!(decode_message(&encode_message(&long_lived)), Ok(forever));
}

#[test]
fn bodies_that_are_not_one_piece_of_data_are_passed_on_as_they_were_sent() {
    for (body, plain) in [
        (&b"\x00\x53\x77\xa1\x02hi"[..], &b"hi"[..]),
        (b"\x00\x53\x77\xa0\x02\x00\x01", b"\x00\x01"),
        (b"\x00\x53\x77\x40", b"\x00\x53\x77\x40"),
        // Two sequences.
        (
            b"\x00\x53\x76\xc0\x03\x01\x54\x01\x00\x53\x76\x45",
            b"\x00\x53\x76\xc0\x03\x01\x54\x01\x00\x53\x76\x45",
        ),
        // Two pieces of data.
        (
            b"\x00\x53\x75\xa0\x01a\x00\x53\x75\xb0\x00\x00\x00\x01b",
            b"ab",
        ),
        // A descriptor that is a ulong in its long form.
        (
            b"\x00\x80\x00\x00\x00\x00\x00\x00\x00\x77\x74\x01\x02\x03\x04",
            b"\x00\x80\x00\x00\x00\x00\x00\x00\x00\x77\x74\x01\x02\x03\x04",
        ),
    ] {
        let message = decode_message(body).unwrap();
        assert_eq!(message.body, Body::Encoded(Bytes::copy_from_slice(body)));
        assert_eq!(message.body.data(), plain);
        assert!(encode_message(&received(message)).ends_with(body));
    }
    let one = decode_message(b"\x00\x53\x75\xa0\x01a").unwrap();
    assert_eq!(one.body, Body::from(&b"a"[..]));
    let none = decode_message(b"").unwrap();
    assert_eq!(none.body, Body::Encoded(Bytes::new()));
    assert_eq!(none.body.data(), "");
    let mixed = b"\x00\x53\x75\xa0\x00\x00\x53\x77\x40";
    assert_eq!(decode_message(mixed), Err(MessageError::MixedBody));
    let unknown = b"\x00\x53\x79\x40";
    assert_eq!(decode_message(unknown), Err(MessageError::Section(0x79)));
}

/// As clients write it: an annotated message with these annotations, ids and application properties.
fn sent(
    annotations: &[(&str, Amqp)],
    ids: (&Amqp, &Amqp),
    application: &[(&str, Amqp)],
) -> BytesMut {
    let mut out = BytesMut::new();
    put_descriptor(&mut out, 0x71);
    put_map(&mut out, |_| 0);
    put_descriptor(&mut out, 0x72);
    put_map(&mut out, |out| {
        for (name, value) in annotations {
            put_symbol(out, name);
            put_value(out, value);
        }
        annotations.len() * 2
    });
    put_descriptor(&mut out, 0x73);
    put_list(&mut out, |out| {
        put_value(out, ids.0);
        for _ in 0..4 {
            put_null(out);
        }
        put_value(out, ids.1);
        6
    });
    put_descriptor(&mut out, 0x74);
    put_map(&mut out, |out| {
        for (name, value) in application {
            put_string(out, name);
            put_value(out, value);
        }
        application.len() * 2
    });
    out
}

#[test]
fn what_clients_send_besides_is_taken_or_passed_over() {
    let annotations = [
        ("x-opt-partition-key", Amqp::Null),
        ("x-opt-scheduled-enqueue-time", timestamp(1_700_000_000_001)),
        ("x-opt-via-partition-key", string("v")),
        ("mine", Amqp::List(vec![Amqp::Bool(true)])),
    ];
    let application = [
        ("a", Amqp::List(vec![Amqp::Uint(1)])),
        ("b", Amqp::Null),
        ("far", timestamp(i64::MAX)),
    ];
    let uuid = Amqp::Uuid([0x22; 16].into());
    let bytes = sent(&annotations, (&uuid, &Amqp::Ulong(9)), &application);
    let message = decode_message(&bytes).unwrap();
    assert_eq!(
        message.message_id.as_deref(),
        Some("22222222-2222-2222-2222-222222222222")
    );
    assert_eq!(message.correlation_id.as_deref(), Some("9"));
    assert_eq!(message.partition_key, None);
    assert_eq!(
        message.scheduled_enqueue_time,
        Some(time(1_700_000_000_001))
    );
    assert_eq!(message.properties["b"], Value::Null);
    for name in ["a", "far"] {
        let property = &message.properties[name];
        assert!(matches!(property, Value::Encoded(_)), "{property:?}");
    }
}

#[test]
fn a_message_that_cannot_be_meant_is_refused() {
    let null = (&Amqp::Null, &Amqp::Null);
    for time in [timestamp(i64::MAX), timestamp(i64::MIN), Amqp::Long(5)] {
        let bytes = sent(&[("x-opt-scheduled-enqueue-time", time)], null, &[]);
        let error = decode_message(&bytes).unwrap_err();
        assert_eq!(error, MessageError::ScheduledEnqueueTime);
    }
    let bytes = sent(&[("x-opt-partition-key", Amqp::Int(1))], null, &[]);
    let error = MessageError::Encoding(DecodeError::Type("x-opt-partition-key"));
    assert_eq!(decode_message(&bytes), Err(error));
    let bytes = sent(&[], (&Amqp::Bool(true), &Amqp::Null), &[]);
    let error = MessageError::Encoding(DecodeError::Type("id"));
    assert_eq!(decode_message(&bytes), Err(error));
}

#[test]
fn a_life_is_as_long_as_the_header_says_unless_it_has_no_room() {
    let life = |milliseconds: u32, creation: i64, expiry: i64| {
        let mut out = BytesMut::new();
        put_descriptor(&mut out, 0x70);
        put_list(&mut out, |out| {
            put_null(out);
            put_null(out);
            put_uint(out, milliseconds);
            3
        });
        put_descriptor(&mut out, 0x73);
        put_list(&mut out, |out| {
            for _ in 0..8 {
                put_null(out);
            }
            put_timestamp(out, expiry);
            put_timestamp(out, creation);
            10
        });
        let time_to_live = decode_message(&out).unwrap().time_to_live.unwrap();
        time_to_live.as_millis()
    };
    assert_eq!(life(1000, 0, 5000), 1000);
    assert_eq!(life(u32::MAX, 100, 5_000_000_100), 5_000_000_000);
    assert_eq!(life(u32::MAX, 100, 5000), u32::MAX.into());
    assert_eq!(life(u32::MAX, i64::MIN, i64::MAX), u32::MAX.into());
    assert_eq!(life(u32::MAX, 5000, 100), u32::MAX.into());
}

#[test]
fn a_batch_is_one_message_for_every_data_section() {
    let mut batch = sent(
        &[("x-opt-partition-key", string("outer"))],
        (&string("outer"), &Amqp::Null),
        &[],
    );
    for body in ["one", "two"] {
        let message = Message {
            body: Body::from(body.as_bytes().to_vec()),
            message_id: Some(body.to_owned()),
            ..Message::default()
        };
        put_descriptor(&mut batch, 0x75);
        put_binary(&mut batch, &encode_message(&received(message)));
    }
    let messages = decode_batch(&batch).unwrap();
    let read: Vec<_> = messages
        .iter()
        .map(|message| {
            (
                message.message_id.as_deref().unwrap(),
                &message.body.bytes()[..],
            )
        })
        .collect();
    assert_eq!(read, [("one", &b"one"[..]), ("two", b"two")]);
    assert!(
        messages
            .iter()
            .all(|message| message.partition_key.is_none())
    );
    assert_eq!(decode_batch(b""), Ok(Vec::new()));
    // A batch that is no batch, and one with a message that is none.
    let plain = b"\x00\x53\x77\xa1\x02hi";
    assert_eq!(decode_batch(plain), Err(MessageError::Section(0x77)));
    batch.put_slice(b"\x00\x53\x75\xa0\x01x");
    let error = MessageError::Encoding(DecodeError::Constructor(b'x'));
    assert_eq!(decode_batch(&batch), Err(error));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_damaged_message_is_survived(
        flips in proptest::collection::vec((any::<proptest::sample::Index>(), 0..8u8), 1..5),
        cut in any::<proptest::sample::Index>(),
        truncated in any::<bool>(),
    ) {
        let mut bytes = encode_message(&received(full())).to_vec();
        for (index, bit) in flips {
            let at = index.index(bytes.len());
            bytes[at] ^= 1 << bit;
        }
        if truncated {
            bytes.truncate(cut.index(bytes.len()));
        }
        // What can still be read can also be sent on, and is read the same again.
        if let Ok(message) = decode_message(&bytes) {
            let first = encode_message(&received(message));
            let again = encode_message(&received(decode_message(&first).unwrap()));
            prop_assert_eq!(again, first);
        }
        let _ = decode_batch(&bytes);
    }

    #[test]
    fn any_bytes_are_survived(bytes in proptest::collection::vec(any::<u8>(), 0..100)) {
        let _ = decode_message(&bytes);
        let _ = decode_batch(&bytes);
        let mut section = vec![0x00, 0x53, 0x70 + bytes.len().to_le_bytes()[0] % 9];
        section.extend(&bytes);
        let _ = decode_message(&section);
    }
}
