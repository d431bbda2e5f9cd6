//! `$cbs` and `$management`, as far as the SDKs do not show them.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use base64::{Engine, engine::general_purpose::STANDARD as BASE64};
use bytes::BufMut;
use fe2o3_amqp_types::{
    messaging::{Target, TargetArchetype},
    performatives::{Attach, Performative},
    transaction::Coordinator,
};
use hmac::{Hmac, Mac};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde::Deserialize;
use serde_amqp::{Value, de::Deserializer, primitives::OrderedMap, read::IoReader};
use sha2::Sha256;

use crate::client::{
    AMQP_HEADER, Client, Namespace, SASL_HEADER, begin, mechanism, open, put_sasl, receiver,
    sender, transfer,
};

fn token(address: &str) -> String {
    let in_an_hour = SystemTime::now() + Duration::from_secs(3600);
    let expiry = in_an_hour.duration_since(UNIX_EPOCH).unwrap().as_secs();
    let encode = |text: &str| utf8_percent_encode(text, NON_ALPHANUMERIC).to_string();
    let resource = encode(address);
    let mut mac = Hmac::<Sha256>::new_from_slice(b"SAS_KEY_VALUE").unwrap();
    mac.update(format!("{resource}\n{expiry}").as_bytes());
    let signature = encode(&BASE64.encode(mac.finalize().into_bytes()));
    format!(
        "SharedAccessSignature sr={resource}&sig={signature}&se={expiry}&skn=RootManageSharedAccessKey"
    )
}

fn map<const N: usize>(entries: [(&str, Value); N]) -> Value {
    let entries = entries.map(|(name, value)| (Value::String(name.to_owned()), value));
    Value::Map(OrderedMap::from_iter(entries))
}

fn text(text: &str) -> Value {
    Value::String(text.to_owned())
}

/// A request with that number for an id.
fn request(id: u64, reply_to: &str, properties: &Value, body: &Value) -> Vec<u8> {
    let id = Value::Ulong(id);
    let fields = vec![id, Value::Null, Value::Null, Value::Null, text(reply_to)];
    let mut bytes = Vec::new();
    for (code, section) in [
        (0x73, &Value::List(fields)),
        (0x74, properties),
        (0x77, body),
    ] {
        bytes.put_slice(&[0x00, 0x53, code]);
        bytes.put_slice(&serde_amqp::to_vec(section).unwrap());
    }
    bytes
}

/// The id that an answer is to, and its properties.
fn answer(payload: &[u8]) -> (Value, OrderedMap<Value, Value>) {
    let mut deserializer = Deserializer::new(IoReader::new(payload));
    let mut section = || Value::deserialize(&mut deserializer).unwrap();
    let (Value::Described(properties), Value::Described(application)) = (section(), section())
    else {
        panic!("no sections");
    };
    let (Value::List(mut fields), Value::Map(application)) = (properties.value, application.value)
    else {
        panic!("no properties");
    };
    (fields.remove(5), application)
}

/// Attaches both links to the node: requests go out on the first handle, answers come in on the second.
async fn links(client: &mut Client, node: &str, handles: [u32; 2], reply_to: &str) {
    client.sender(handles[0], node).await;
    let target = Target::builder().address(reply_to).build();
    let attach = Attach {
        target: Some(Box::new(TargetArchetype::Target(target))),
        ..receiver(handles[1], node)
    };
    client.attach(attach).await;
    client.credit(handles[1], 0, 100).await;
}

/// The answer's properties, and on which handle it came; the request is accepted besides.
async fn ask(
    client: &mut Client,
    handle: u32,
    id: u64,
    payload: &[u8],
) -> (u32, OrderedMap<Value, Value>) {
    let delivery = u32::try_from(id).unwrap();
    client
        .send(
            0,
            Performative::Transfer(transfer(handle, delivery, false)),
            payload,
        )
        .await;
    let mut answered = None;
    let mut accepted = false;
    while answered.is_none() || !accepted {
        match client.next_with_payload().await {
            (Performative::Disposition(disposition), _) => {
                assert_eq!(disposition.first, delivery);
                accepted = true;
            }
            (Performative::Transfer(transfer), payload) => {
                assert_eq!(transfer.settled, Some(true));
                let (to, properties) = answer(&payload);
                assert_eq!(to, Value::Ulong(id));
                answered = Some((transfer.handle.0, properties));
            }
            (other, _) => panic!("{other:?}"),
        }
    }
    answered.unwrap()
}

fn status(properties: &OrderedMap<Value, Value>) -> i32 {
    let Some(Value::Int(status)) = properties.get(&text("statusCode")) else {
        panic!("{properties:?} has no status");
    };
    assert_eq!(
        properties.get(&text("status-code")),
        Some(&Value::Int(*status))
    );
    *status
}

async fn anonymous(namespace: &Namespace) -> Client {
    let mut client = Client::connect(namespace).await;
    let init = mechanism("MSSBCBS", None);
    let mut bytes = bytes::BytesMut::new();
    bytes.put_slice(&SASL_HEADER);
    put_sasl(&mut bytes, &init);
    bytes.put_slice(&AMQP_HEADER);
    client.write(&bytes).await;
    client.bytes::<8>().await;
    client.sasl().await;
    client.sasl().await;
    client.bytes::<8>().await;
    client.send(0, Performative::Open(open()), &[]).await;
    client.next().await;
    client.send(0, Performative::Begin(begin(5000)), &[]).await;
    client.next().await;
    client
}

#[tokio::test]
async fn a_token_opens_what_lies_below_its_address_and_nothing_else() {
    let namespace = Namespace::start().await;
    let mut client = anonymous(&namespace).await;
    links(&mut client, "$cbs", [0, 1], "cbs").await;
    let put = |id, address: &str, token: &str, kind: &str| {
        let properties = map([
            ("operation", text("put-token")),
            ("type", text(kind)),
            ("name", text(address)),
        ]);
        request(id, "cbs", &properties, &text(token))
    };
    let sas = "servicebus.windows.net:sastoken";
    let queue = "amqp://localhost/work";
    let forged = token(queue).replace("sig=", "sig=A");
    for (id, (address, token, kind)) in (0..).zip([
        (queue, forged, sas),
        (queue, "eyJ0eXAiOiJKV1QifQ.e30.".to_owned(), "jwt"),
        // A token for something else than is asked for.
        ("amqp://localhost/other", token(queue), sas),
    ]) {
        let (_, properties) = ask(&mut client, 0, id, &put(id, address, &token, kind)).await;
        assert_eq!(status(&properties), 401);
    }
    client.attach(sender(2, "work")).await;
    assert_eq!(client.detached().await, "amqp:unauthorized-access");

    let (_, properties) = ask(&mut client, 0, 3, &put(3, queue, &token(queue), sas)).await;
    assert_eq!(status(&properties), 202);
    client.sender(3, "Work").await;
    client.receiver(4, "work/$DeadLetterQueue").await;
    client.receiver(5, "work/$management").await;
    client.attach(sender(6, "other")).await;
    assert_eq!(client.detached().await, "amqp:unauthorized-access");
}

#[tokio::test]
async fn an_answer_goes_where_the_request_says_or_else_to_its_own_session() {
    let namespace = Namespace::start().await;
    let mut client = Client::begin(&namespace).await;
    links(&mut client, "work/$management", [0, 1], "first").await;
    links(&mut client, "work/$management", [2, 3], "second").await;
    let body = map([
        ("from-sequence-number", Value::Long(0)),
        ("message-count", Value::Int(1)),
    ]);
    let properties = map([("operation", text("com.microsoft:peek-message"))]);
    for (id, (reply_to, handle)) in (0..).zip([("first", 1), ("second", 3), ("nobody", 1)]) {
        let payload = request(id, reply_to, &properties, &body);
        let (came_on, properties) = ask(&mut client, 2, id, &payload).await;
        assert_eq!(status(&properties), 204);
        assert_eq!(came_on, handle, "{reply_to}");
    }
}

#[tokio::test]
async fn what_is_not_understood_is_never_answered_as_done() {
    let namespace = Namespace::start().await;
    let mut client = Client::begin(&namespace).await;
    links(&mut client, "work/$management", [0, 1], "here").await;
    let operation = |name: &str| map([("operation", text(name))]);
    let nothing = Value::Map(OrderedMap::new());
    for (id, (name, body, expected, condition)) in (0..).zip([
        (
            "com.microsoft:unheard-of",
            &nothing,
            501,
            "amqp:not-implemented",
        ),
        ("", &nothing, 501, "amqp:not-implemented"),
        (
            "com.microsoft:peek-message",
            &nothing,
            400,
            "com.microsoft:argument-error",
        ),
        (
            "com.microsoft:renew-lock",
            &nothing,
            400,
            "com.microsoft:argument-error",
        ),
        (
            "com.microsoft:schedule-message",
            &Value::Null,
            400,
            "com.microsoft:argument-error",
        ),
        (
            "com.microsoft:renew-lock",
            &map([(
                "lock-tokens",
                Value::List(vec![Value::Uuid([7; 16].into())]),
            )]),
            410,
            "com.microsoft:message-lock-lost",
        ),
        (
            "com.microsoft:receive-by-sequence-number",
            &map([
                ("sequence-numbers", Value::List(vec![Value::Long(9)])),
                ("receiver-settle-mode", Value::Uint(1)),
            ]),
            404,
            "com.microsoft:message-not-found",
        ),
        (
            "com.microsoft:get-session-state",
            &map([("session-id", text("a"))]),
            400,
            "amqp:not-allowed",
        ),
    ]) {
        let payload = request(id, "here", &operation(name), body);
        let (_, properties) = ask(&mut client, 0, id, &payload).await;
        assert_eq!(status(&properties), expected, "{name}");
        let symbol = Value::Symbol(condition.into());
        assert_eq!(
            properties.get(&text("errorCondition")),
            Some(&symbol),
            "{name}"
        );
    }
}

#[tokio::test]
async fn the_coordinator_is_attached_before_any_token_and_opens_nothing() {
    let namespace = Namespace::start().await;
    let mut client = anonymous(&namespace).await;
    let coordinator = TargetArchetype::Coordinator(Coordinator::new(None));
    let attach = Attach {
        target: Some(Box::new(coordinator)),
        ..sender(0, "")
    };
    assert!(client.attach(attach).await.target.is_some());
    client.flow().await;
    let refused = client.attach(sender(1, "work")).await;
    assert!(refused.target.is_none());
    assert_eq!(client.detached().await, "amqp:unauthorized-access");
}
