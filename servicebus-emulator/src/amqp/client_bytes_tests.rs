//! Bytes that clients were seen to send: what azure-servicebus 7.15 (Python) and rhea 3.0 (under @azure/service-bus)
//! write for the same message, a batch, a receiver's attach and a management request.

use std::time::Duration;

use bytes::BytesMut;
use fe2o3_amqp_types::{
    definitions::{ReceiverSettleMode, Role, SenderSettleMode},
    messaging::TargetArchetype,
    performatives::Performative,
};
use jiff::Timestamp;
use serde_amqp::{Value as Amqp, primitives::Symbol};
use uuid::Uuid;

use crate::{Body, Message, Value};

use super::{
    frame::{Frame, FrameBody, decode},
    management_message::Request,
    message_decoding::{decode_batch, decode_message},
};

const PYTHON_MESSAGE: &str = "005370c00a05404070000013884040005372c12802a31c782d6f70742d7363686564756c65642d656e\
    71756575652d74696d65830000018bcfe5687b005373c0320da1026d314040a1016c40a10163a30a746578742f706c61696e4083000001a2\
    12d7b44083000001a212d7a0b8a101734040005374c1350ca1016e5405a10166823ff8000000000000a101625601a10173a10178a1017598\
    00000000000000000000000000000007a1017a40005375a0026869";

/// The message above, and another.
const PYTHON_BATCH: &str = "005373c0130da1026d31404040404040404040a101734040005375a0b4005370c00a0540407000001388\
    4040005372c12802a31c782d6f70742d7363686564756c65642d656e71756575652d74696d65830000018bcfe5687b005373c0320da1026d\
    314040a1016c40a10163a30a746578742f706c61696e4083000001a212d7b44083000001a212d7a0b8a101734040005374c1350ca1016e54\
    05a10166823ff8000000000000a101625601a10173a10178a101759800000000000000000000000000000007a1017a40005375a002686900\
    5375a040005373c0330da12466643838626234662d666336312d343430662d616539382d6536333433303239633739664040404040404040\
    40404040005375a00374776f";

const PYTHON_ATTACH: &str = "0000009f02000000005312c0920ea1016c43560150005001005328c0460ba118616d7170733a2f2f6c6f6361\
    6c686f73743a353637322f71404040404040c12002a31c636f6d2e6d6963726f736f66743a73657373696f6e2d66696c7465724040404000\
    5329c00a07a101744040404040404040408000000000001000004040c11d02a315636f6d2e6d6963726f736f66743a74696d656f75747100\
    001388";

const NODE_MESSAGE: &str = "005370d00000000b0000000340407000001388005372d10000004300000004a31c782d6f70742d736368\
    6564756c65642d656e71756575652d74696d65830000018bcfe5687ba313782d6f70742d706172746974696f6e2d6b6579a1017300537\
    3d0000000320000000ba1026d314040a1016c40532aa30a746578742f706c61696e40830000000000001388830000000000000000a1017300\
    5374d10000003d0000000ea1016e5205a10362696780000000012a05f200a10166823ff8000000000000a1016241a10173a10178a1017a40\
    a101648300000000000004d2005375a0026869";

const NODE_REQUEST: &str = "00537045005373d00000000d00000005a10178404040a10163005374d10000002b00000002a1096f7065\
    726174696f6ea11a636f6d2e6d6963726f736f66743a7065656b2d6d657373616765005377d10000000900000002a101615201";

fn hex(text: &str) -> Vec<u8> {
    (0..text.len())
        .step_by(2)
        .map(|at| u8::from_str_radix(&text[at..at + 2], 16).unwrap())
        .collect()
}

fn milliseconds(milliseconds: i64) -> Timestamp {
    Timestamp::from_millisecond(milliseconds).unwrap()
}

/// What both were told to send.
fn message() -> Message {
    let properties = [
        ("f", Value::Double(1.5)),
        ("b", Value::Bool(true)),
        ("s", Value::String("x".to_owned())),
        ("z", Value::Null),
    ];
    Message {
        body: Body::from(&b"hi"[..]),
        content_type: Some("text/plain".to_owned()),
        message_id: Some("m1".to_owned()),
        session_id: Some("s".to_owned()),
        label: Some("l".to_owned()),
        time_to_live: Some(Duration::from_secs(5)),
        scheduled_enqueue_time: Some(milliseconds(1_700_000_000_123)),
        properties: properties
            .map(|(name, value)| (name.to_owned(), value))
            .into(),
        ..Message::default()
    }
}

fn from_python() -> Message {
    let mut message = message();
    message.correlation_id = Some("c".to_owned());
    let more = [
        ("n".to_owned(), Value::Int(5)),
        ("u".to_owned(), Value::Uuid(Uuid::from_u128(7))),
    ];
    message.properties.extend(more);
    message
}

#[test]
fn a_message_from_python() {
    assert_eq!(decode_message(&hex(PYTHON_MESSAGE)), Ok(from_python()));
}

/// A number of JavaScript has no type: a whole one comes as an unsigned one.
#[test]
fn a_message_from_node() {
    let mut expected = message();
    expected.correlation_id = Some("42".to_owned());
    expected.partition_key = Some("s".to_owned());
    let more = [
        ("n".to_owned(), Value::UInt(5)),
        ("big".to_owned(), Value::ULong(5_000_000_000)),
        ("d".to_owned(), Value::Timestamp(milliseconds(1234))),
    ];
    expected.properties.extend(more);
    assert_eq!(decode_message(&hex(NODE_MESSAGE)), Ok(expected));
}

#[test]
fn a_batch_from_python() {
    let messages = decode_batch(&hex(PYTHON_BATCH)).unwrap();
    let second = Message {
        body: Body::from(&b"two"[..]),
        message_id: Some("fd88bb4f-fc61-440f-ae98-e6343029c79f".to_owned()),
        ..Message::default()
    };
    assert_eq!(messages, [from_python(), second]);
}

#[test]
fn a_receiver_of_the_next_session_from_python() {
    let frame = decode(&mut BytesMut::from(&hex(PYTHON_ATTACH)[..]), 512);
    let Ok(Some(Frame {
        channel: 0,
        body:
            FrameBody::Amqp {
                performative: Performative::Attach(attach),
                payload,
            },
    })) = frame
    else {
        panic!("{frame:?}");
    };
    assert!(payload.is_empty());
    assert!(matches!(attach.role, Role::Receiver));
    assert!(matches!(
        (&attach.snd_settle_mode, &attach.rcv_settle_mode),
        (SenderSettleMode::Unsettled, ReceiverSettleMode::Second)
    ));
    assert_eq!(attach.max_message_size, Some(1_048_576));
    let source = attach.source.unwrap();
    let address = source.address.as_deref();
    assert_eq!(address, Some("amqps://localhost:5672/q"));
    let filter = source.filter.unwrap();
    let session = Symbol::from("com.microsoft:session-filter");
    assert_eq!(filter.get(&session), Some(&Amqp::Null));
    let target = attach.target.map(|target| *target);
    let Some(TargetArchetype::Target(target)) = target else {
        panic!("{target:?}");
    };
    assert_eq!(target.address.as_deref(), Some("t"));
    let properties = attach.properties.unwrap();
    let timeout = properties.get(&Symbol::from("com.microsoft:timeout"));
    assert_eq!(timeout, Some(&Amqp::Int(5000)));
}

#[test]
fn a_management_request_from_node() {
    let request = Request::decode(&hex(NODE_REQUEST)).unwrap();
    assert_eq!(request.id, Amqp::String("x".to_owned()));
    assert_eq!(request.reply_to.as_deref(), Some("c"));
    assert_eq!(request.operation, "com.microsoft:peek-message");
    assert_eq!(request.argument("a"), Some(&Amqp::Uint(1)));
}
