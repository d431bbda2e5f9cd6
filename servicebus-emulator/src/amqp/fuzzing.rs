//! What the parsers of AMQP must keep to, whatever they are given: see `crate::fuzzing`.

use bytes::{Bytes, BytesMut};
use serde_amqp::{Value, primitives::Array};

use crate::{Body, Message, fuzzing::received};

use super::{
    frame::{self, FrameBody},
    management_message::{Request, Response},
    message_decoding::{decode_batch, decode_message},
    message_encoding::encode_message,
    value_decoding::Reader,
    value_encoding::put_value,
};

const LARGEST_FRAME: u32 = 65_536;

/// A stream of frames: what is read and written again is read as the same, and its payload is untouched.
pub fn frames(data: &[u8]) {
    let mut input = BytesMut::from(data);
    loop {
        let before = input.len();
        let Ok(Some(frame)) = frame::decode(&mut input, LARGEST_FRAME) else {
            return;
        };
        assert!(input.len() <= before - 8, "a frame has at least its header");
        let FrameBody::Amqp {
            performative,
            payload,
        } = frame.body
        else {
            continue;
        };
        let mut first = BytesMut::new();
        // A client may nest what nobody writes.
        if frame::encode(&mut first, frame.channel, &performative, &payload).is_err() {
            continue;
        }
        let bytes = first.clone().freeze();
        let again = frame::decode(&mut first, u32::MAX);
        let Ok(Some(again)) = again else {
            panic!("{performative:?} was written so that it became {again:?}");
        };
        assert!(first.is_empty() && again.channel == frame.channel);
        let FrameBody::Amqp {
            performative,
            payload: kept,
        } = again.body
        else {
            panic!("a performative became something else");
        };
        assert_eq!(kept, payload);
        let mut second = BytesMut::new();
        frame::encode(&mut second, again.channel, &performative, &kept)
            .expect("it has been written before");
        assert_eq!(second.freeze(), bytes);
    }
}

/// Any value: what is read is written so that it is read as the same, and is passed over as it is read.
pub fn values(data: &[u8]) {
    let mut reader = Reader::new(data);
    let Ok(value) = reader.value() else {
        return;
    };
    let length = data.len() - reader.rest().len();
    let passed = Reader::new(data).encoded().map(<[u8]>::len);
    assert_eq!(passed, Ok(length));
    let once = written(&value);
    assert_eq!(written(&once), once);
    // An array of described values is written as the list that it is.
    if !has_described_array(&value) {
        assert_eq!(once, value);
    }
    let kept = super::value::to_amqp(&super::value::from_amqp(value));
    assert_eq!(kept, once, "the bus keeps every value");
}

/// The value as it is read again.
fn written(value: &Value) -> Value {
    let mut out = BytesMut::new();
    put_value(&mut out, value);
    let mut reader = Reader::new(&out);
    let read = reader.value().expect("what is written can be read");
    assert!(reader.is_empty());
    read
}

fn has_described_array(value: &Value) -> bool {
    match value {
        Value::Array(Array(elements)) => elements
            .iter()
            .any(|it| matches!(it, Value::Described(_)) || has_described_array(it)),
        Value::List(elements) => elements.iter().any(has_described_array),
        Value::Map(entries) => entries
            .iter()
            .any(|(key, value)| has_described_array(key) || has_described_array(value)),
        Value::Described(described) => has_described_array(&described.value),
        _ => false,
    }
}

/// A message, a batch of them, and a request to `$management`: what goes through the bus comes out as it went in.
pub fn messages(data: &[u8]) {
    if let Ok(message) = decode_message(data) {
        check_message(message);
    }
    for message in decode_batch(data).unwrap_or_default() {
        check_message(message);
    }
    if let Ok(request) = Request::decode(data) {
        let response = Response::ok(request.body.clone()).encode(&request);
        let read = Request::decode(&response).expect("what is answered can be read");
        assert_eq!(read.body, request.body);
        assert_eq!(read.id, request.id);
        assert!(read.operation.is_empty());
    }
}

fn check_message(message: Message) {
    let _ = message.check();
    let data = message.body.data();
    if let Body::Data(bytes) = &message.body {
        assert_eq!(data, bytes);
    }
    let body = message.body.clone();
    let properties = message.properties.len();
    let first = encode_message(&received(message));
    let again = decode_message(&first).expect("what is delivered can be read");
    assert_eq!(again.body, body);
    assert_eq!(again.properties.len(), properties);
    let second: Bytes = encode_message(&received(again));
    assert_eq!(second, first);
}
