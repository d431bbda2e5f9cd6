//! What frames and performatives must survive, and what must be read from them.

use bytes::{BufMut, BytesMut};
use fe2o3_amqp_types::{
    definitions::{AmqpError, ErrorCondition, Handle, ReceiverSettleMode, Role, SenderSettleMode},
    messaging::{Accepted, DeliveryState, Outcome, Rejected, TargetArchetype},
    performatives::{Begin, Close, Disposition, End, Flow, Open, Performative, Transfer},
    sasl::{SaslCode, SaslInit, SaslMechanisms, SaslOutcome},
    transaction::TransactionalState,
};
use proptest::prelude::*;
use serde_amqp::{
    Value,
    primitives::{Array, Symbol},
};

use super::*;

const LIMIT: u32 = 65_536;

/// A frame around these bytes.
fn framed(kind: u8, body: &[u8]) -> BytesMut {
    let mut bytes = BytesMut::new();
    bytes.put_u32(u32::try_from(body.len() + HEADER_SIZE).unwrap());
    bytes.put_slice(&[BODY_OFFSET, kind, 0, 7]);
    bytes.put_slice(body);
    bytes
}

fn hex(text: &str) -> Vec<u8> {
    (0..text.len())
        .step_by(2)
        .map(|at| u8::from_str_radix(&text[at..at + 2], 16).unwrap())
        .collect()
}

fn performative_of(body: &[u8]) -> Result<Performative, FrameError> {
    match decode(&mut framed(AMQP, body), LIMIT)? {
        Some(Frame {
            channel: 7,
            body: FrameBody::Amqp { performative, .. },
        }) => Ok(performative),
        frame => panic!("{frame:?}"),
    }
}

fn transfer() -> Performative {
    Performative::Transfer(Transfer {
        handle: Handle(3),
        delivery_id: Some(300),
        delivery_tag: Some(vec![1, 2, 3].into()),
        message_format: Some(0x8001_3700),
        settled: Some(false),
        more: true,
        rcv_settle_mode: Some(ReceiverSettleMode::First),
        state: Some(DeliveryState::TransactionalState(TransactionalState {
            txn_id: vec![9; 16].into(),
            outcome: Some(Outcome::Accepted(Accepted {})),
        })),
        resume: false,
        aborted: false,
        batchable: true,
    })
}

/// One of most kinds, with fields of every type.
fn performatives() -> Vec<Performative> {
    let symbols = || Some(Array(vec![Symbol::from("a"), Symbol::from("bc")]));
    let properties = || {
        let mut map = serde_amqp::primitives::OrderedMap::new();
        map.insert(Symbol::from("product"), Value::from("bus".to_owned()));
        map.insert(Symbol::from("timeout"), Value::Uint(3000));
        Some(map)
    };
    let error = || {
        Some(fe2o3_amqp_types::definitions::Error {
            condition: AmqpError::NotFound.into(),
            description: Some("no such queue".to_owned()),
            info: properties().map(Box::new),
        })
    };
    vec![
        Performative::Open(Open {
            container_id: "c".to_owned(),
            hostname: Some("localhost".to_owned()),
            max_frame_size: 65_536.into(),
            channel_max: 255.into(),
            idle_time_out: Some(60_000),
            outgoing_locales: None,
            incoming_locales: None,
            offered_capabilities: symbols(),
            desired_capabilities: None,
            properties: properties(),
        }),
        Performative::Begin(Begin {
            remote_channel: Some(1),
            next_outgoing_id: 0,
            incoming_window: 5000,
            outgoing_window: u32::MAX,
            handle_max: Handle(255),
            offered_capabilities: None,
            desired_capabilities: symbols(),
            properties: None,
        }),
        Performative::Flow(Flow {
            next_incoming_id: Some(u32::MAX),
            incoming_window: 1,
            next_outgoing_id: 2,
            outgoing_window: 3,
            handle: Some(Handle(0)),
            delivery_count: Some(0),
            link_credit: Some(100),
            available: None,
            drain: true,
            echo: false,
            properties: properties(),
        }),
        transfer(),
        Performative::Disposition(Disposition {
            role: Role::Receiver,
            first: 0,
            last: Some(7),
            settled: true,
            state: Some(DeliveryState::Rejected(Rejected { error: error() })),
            batchable: false,
        }),
        Performative::End(End { error: error() }),
        Performative::Close(Close { error: None }),
    ]
}

#[test]
fn a_frame_is_read_as_it_was_written_however_it_arrives() {
    for performative in performatives() {
        let mut whole = BytesMut::new();
        encode(&mut whole, 12, &performative, b"payload").unwrap();
        let mut input = BytesMut::new();
        for (index, byte) in whole.iter().enumerate() {
            input.put_u8(*byte);
            let frame = decode(&mut input, LIMIT).unwrap();
            assert_eq!(frame.is_some(), index + 1 == whole.len());
            if let Some(frame) = frame {
                assert_eq!(frame.channel, 12);
                match frame.body {
                    FrameBody::Amqp {
                        performative: read,
                        payload,
                    } => assert_eq!(
                        (read, &payload[..]),
                        (performative.clone(), &b"payload"[..])
                    ),
                    body => panic!("{body:?}"),
                }
            }
        }
        assert!(input.is_empty());
    }
}

#[test]
fn what_serde_amqp_reads_is_read_the_same() {
    for performative in performatives() {
        let bytes = serde_amqp::to_vec(&performative).unwrap();
        let theirs: Performative = serde_amqp::from_slice(&bytes).unwrap();
        assert_eq!(performative_of(&bytes).unwrap(), theirs);
    }
}

#[test]
fn heartbeats_and_authentication_are_frames_too() {
    let mut bytes = BytesMut::new();
    encode_empty(&mut bytes);
    assert_eq!(bytes[..], [0, 0, 0, 8, 2, 0, 0, 0]);
    let frame = decode(&mut bytes, MIN_MAX_FRAME_SIZE).unwrap().unwrap();
    assert!(matches!(frame.body, FrameBody::Empty));

    let mechanisms = SaslMechanisms {
        sasl_server_mechanisms: vec![Symbol::from("PLAIN"), Symbol::from("MSSBCBS")].into(),
    };
    encode_sasl(&mut bytes, &SaslFrame::Mechanisms(mechanisms)).unwrap();
    // An array of sym32; the type is SASL.
    assert_eq!(bytes[4..8], [2, 1, 0, 0]);
    let mut reader = Reader::new(&bytes[HEADER_SIZE..]);
    assert_eq!(reader.descriptor(), Ok(0x40));
    let symbols = reader.fields().unwrap().symbols("mechanisms").unwrap();
    assert_eq!(symbols.unwrap().0[1].as_str(), "MSSBCBS");

    bytes.clear();
    let outcome = SaslOutcome {
        code: SaslCode::Auth,
        additional_data: None,
    };
    encode_sasl(&mut bytes, &SaslFrame::Outcome(outcome)).unwrap();
    let mut reader = Reader::new(&bytes[HEADER_SIZE..]);
    assert_eq!(reader.descriptor(), Ok(0x44));
    assert_eq!(reader.fields().unwrap().value(), Ok(Value::Ubyte(1)));

    let init = SaslInit {
        mechanism: Symbol::from("PLAIN"),
        initial_response: Some(b"\0user\0key".to_vec().into()),
        hostname: None,
    };
    let bytes = serde_amqp::to_vec(&init).unwrap();
    match decode(&mut framed(SASL, &bytes), LIMIT)
        .unwrap()
        .unwrap()
        .body
    {
        FrameBody::SaslInit(read) => {
            assert_eq!(read.mechanism.as_str(), "PLAIN");
            assert_eq!(read.initial_response.unwrap()[..], b"\0user\0key"[..]);
        }
        body => panic!("{body:?}"),
    }
}

#[test]
fn an_extended_header_is_passed_over() {
    let close = hex("00531845");
    let mut bytes = BytesMut::from(&[0, 0, 0, 16, 3, 0, 0, 1, 9, 9, 9, 9][..]);
    bytes.put_slice(&close);
    let frame = decode(&mut bytes, LIMIT).unwrap().unwrap();
    assert_eq!(frame.channel, 1);
    assert!(matches!(
        frame.body,
        FrameBody::Amqp {
            performative: Performative::Close(Close { error: None }),
            ..
        }
    ));
}

#[test]
fn a_frame_that_lies_about_itself_is_refused() {
    let refused = |bytes: &[u8]| decode(&mut BytesMut::from(bytes), 512).unwrap_err();
    let too_large = FrameError::TooLarge {
        size: 513,
        limit: 512,
    };
    // Before its bytes have come.
    assert_eq!(refused(&[0, 0, 2, 1, 2, 0, 0, 0]), too_large);
    assert!(too_large.is_framing());
    assert_eq!(refused(&[0, 0, 0, 7, 2, 0, 0, 0]), FrameError::Header);
    assert_eq!(refused(&[0, 0, 0, 8, 1, 0, 0, 0]), FrameError::Header);
    assert_eq!(refused(&[0, 0, 0, 8, 3, 0, 0, 0]), FrameError::Header);
    assert_eq!(refused(&[0, 0, 0, 8, 2, 2, 0, 0]), FrameError::Type(2));
    let empty_sasl = refused(&[0, 0, 0, 8, 2, 1, 0, 0]);
    assert_eq!(empty_sasl, FrameError::Body(DecodeError::Truncated));
    assert!(!empty_sasl.is_framing());
}

/// What rhea 3.0.5 sends for `deadLetterMessage`: an error whose information has strings for keys.
#[test]
fn a_dead_lettering_from_node_is_read() {
    let body = hex(
        "005315d00000007700000005415201520142005325d0000000650000000100531dd00000005900000003a319\
         636f6d2e6d6963726f736f66743a646561642d6c657474657240d10000003400000004a110446561644c6574\
         746572526561736f6e40a11a446561644c65747465724572726f724465736372697074696f6e40",
    );
    let Performative::Disposition(disposition) = performative_of(&body).unwrap() else {
        panic!("not a disposition");
    };
    assert_eq!((disposition.first, disposition.last), (1, Some(1)));
    assert!(matches!(disposition.role, Role::Receiver));
    assert!(!disposition.settled);
    let Some(DeliveryState::Rejected(Rejected { error: Some(error) })) = disposition.state else {
        panic!("{:?}", disposition.state);
    };
    let condition = Symbol::from("com.microsoft:dead-letter");
    assert_eq!(error.condition, ErrorCondition::Custom(condition));
    let info = error.info.unwrap();
    assert_eq!(info.len(), 2);
    let reason = info.get(&Symbol::from("DeadLetterReason"));
    assert_eq!(reason, Some(&Value::Null));
}

/// A described list of these encoded fields.
fn composite(code: u8, fields: &[&str]) -> String {
    let fields_hex = fields.concat().replace(' ', "");
    let size = fields_hex.len() / 2 + 1;
    format!("0053{code:02x}c0{size:02x}{:02x}{fields_hex}", fields.len())
}

#[test]
fn an_attach_is_read_with_what_clients_leave_out_and_mistake() {
    // The address is a symbol, and a key of the filter a string.
    let filter = "c10b02a10773657373696f6e40";
    let source = composite(
        0x28,
        &["a303712f73", "40", "40", "40", "40", "40", "40", filter],
    );
    let target = composite(
        0x30,
        &["a317616d71703a6c6f63616c2d7472616e73616374696f6e73"],
    );
    let fields = ["a1016c", "43", "41", "40", "40", &source, &target];
    let attach = performative_of(&hex(&composite(0x12, &fields))).unwrap();
    let Performative::Attach(attach) = attach else {
        panic!("not an attach");
    };
    assert_eq!((attach.name.as_str(), attach.handle), ("l", Handle(0)));
    assert!(matches!(attach.role, Role::Receiver));
    assert!(matches!(attach.snd_settle_mode, SenderSettleMode::Mixed));
    assert!(matches!(attach.rcv_settle_mode, ReceiverSettleMode::First));
    let source = attach.source.unwrap();
    assert_eq!(source.address.as_deref(), Some("q/s"));
    let filter = source.filter.unwrap();
    assert_eq!(filter.get(&Symbol::from("session")), Some(&Value::Null));
    let Some(TargetArchetype::Coordinator(coordinator)) = attach.target.map(|target| *target)
    else {
        panic!("not a coordinator");
    };
    assert_eq!(coordinator.capabilities.unwrap().len(), 1);
}

#[test]
fn what_must_be_there_is_missed_and_what_is_too_much_is_passed_over() {
    let close = performative_of(&hex(&composite(0x18, &["40", "41", "42"])));
    assert_eq!(close, Ok(Performative::Close(Close { error: None })));
    let refused = |code, fields: &[&str]| performative_of(&hex(&composite(code, fields)));
    let error = |error| Err(FrameError::Body(error));
    assert_eq!(refused(0x16, &[]), error(DecodeError::Missing("handle")));
    assert_eq!(refused(0x16, &["a100"]), error(DecodeError::Type("handle")));
    assert_eq!(
        refused(0x14, &["43", "80ffffffffffffffff"]),
        error(DecodeError::Type("delivery-id"))
    );
    assert_eq!(refused(0x19, &[]), error(DecodeError::Type("performative")));
    // A list that goes on beyond its frame.
    let beyond = performative_of(&hex("005318c00503404142"));
    assert_eq!(beyond, error(DecodeError::Truncated));
}

/// A list in a list, and so on; and descriptors alike.
#[test]
fn deep_nesting_is_refused_without_a_deep_stack() {
    let mut list = vec![0x45];
    for _ in 0..10_000 {
        let mut outer = vec![0xd0];
        outer.put_u32(u32::try_from(list.len() + 4).unwrap());
        outer.put_u32(1);
        outer.append(&mut list);
        list = outer;
    }
    assert_eq!(Reader::new(&list).value(), Err(DecodeError::TooDeep));
    assert_eq!(Reader::new(&list).encoded().map(<[u8]>::len), Ok(90_001));
    let described = [0x00, 0x44].repeat(10_000);
    assert_eq!(Reader::new(&described).value(), Err(DecodeError::TooDeep));
    let descriptors = vec![0x00; 10_000];
    assert_eq!(
        Reader::new(&descriptors).encoded(),
        Err(DecodeError::TooDeep)
    );
    // An array of arrays of described values.
    let mut array = vec![0xe0, 0xff, 1];
    array.extend([0x00, 0x44].repeat(126));
    array.extend([0x40, 0x40]);
    assert_eq!(Reader::new(&array).value(), Err(DecodeError::TooDeep));
}

#[test]
fn a_count_is_believed_only_as_far_as_there_are_bytes() {
    // Four thousand million elements of nothing.
    let nulls = hex("f000000005ffffffff40");
    assert_eq!(Reader::new(&nulls).value(), Err(DecodeError::Count));
    let list = hex("d000000004ffffffff");
    assert_eq!(Reader::new(&list).value(), Err(DecodeError::Truncated));
    let map = hex("d100000004fffffffe");
    assert_eq!(Reader::new(&map).value(), Err(DecodeError::Truncated));
    let binary = hex("b0ffffffff00");
    assert_eq!(Reader::new(&binary).value(), Err(DecodeError::Truncated));
    let odd = hex("c1020140");
    assert_eq!(Reader::new(&odd).value(), Err(DecodeError::Count));
}

/// Takes frames until there are none, as a connection does, and says how many there were.
fn drained(mut input: BytesMut) -> usize {
    let mut frames = 0;
    loop {
        let before = input.len();
        match decode(&mut input, LIMIT) {
            Ok(Some(_)) => frames += 1,
            Ok(None) | Err(_) => return frames,
        }
        assert!(input.len() < before, "a frame takes bytes");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_bytes_are_survived(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        drained(BytesMut::from(&bytes[..]));
        drained(framed(AMQP, &bytes));
        drained(framed(SASL, &bytes));
        let mut body = vec![0x00, 0x53, 0x10 + bytes.len().to_le_bytes()[0] % 9, 0xc0, 199, 14];
        body.extend(&bytes);
        drained(framed(AMQP, &body));
    }

    #[test]
    fn a_damaged_frame_is_survived(
        which in 0..7usize,
        flips in proptest::collection::vec((any::<proptest::sample::Index>(), 0..8u8), 1..5),
        cut in any::<proptest::sample::Index>(),
        truncated in any::<bool>(),
    ) {
        let mut bytes = BytesMut::new();
        encode(&mut bytes, 0, &performatives()[which], b"payload").unwrap();
        for (index, bit) in flips {
            let at = index.index(bytes.len());
            bytes[at] ^= 1 << bit;
        }
        if truncated {
            let length = cut.index(bytes.len());
            bytes.truncate(length);
        }
        drained(bytes);
    }

    /// Whatever can be read as a value is as long as it says, both ways of finding its end.
    #[test]
    fn a_value_ends_where_it_is_passed_over(bytes in proptest::collection::vec(any::<u8>(), 0..60)) {
        let mut read = Reader::new(&bytes);
        if read.value().is_ok() {
            let mut passed = Reader::new(&bytes);
            passed.encoded().unwrap();
            prop_assert_eq!(passed.rest(), read.rest());
        }
    }
}
