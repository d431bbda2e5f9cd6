//! The JSON that triggers are sent as, against the samples of the host's own tests.

use axum::http::{HeaderMap, Method, Uri};
use bytes::Bytes;
use devhost::{
    envelope::{BindingData, BindingValue, manual_envelope, service_bus_envelope},
    function_json::{DataType, ServiceBusTrigger},
    http_envelope::{IncomingRequest, http_envelope},
};
use jiff::Timestamp;
use serde_json::{Value, json};
use servicebus_emulator::{Message, MessageState, ReceivedMessage, Value as Property};
use uuid::Uuid;

fn time(text: &str) -> Timestamp {
    text.parse().unwrap()
}

fn received(body: &[u8]) -> ReceivedMessage {
    ReceivedMessage {
        message: Message {
            body: Bytes::copy_from_slice(body).into(),
            content_type: Some("application/json".to_owned()),
            message_id: Some("m-1".to_owned()),
            correlation_id: Some("c-7".to_owned()),
            label: Some("order.paid".to_owned()),
            properties: [
                ("tenant".to_owned(), Property::String("acme".to_owned())),
                ("attempt".to_owned(), Property::Long(3)),
            ]
            .into(),
            ..Message::default()
        },
        sequence_number: 42,
        enqueued_sequence_number: 42,
        enqueued_time: time("2026-01-02T08:15:30.75Z"),
        expires_at: Some(time("2026-01-16T08:15:30.75Z")),
        delivery_count: 1,
        lock_token: Some(Uuid::nil()),
        locked_until: Some(time("2026-01-02T08:16:30Z")),
        state: MessageState::Locked,
        dead_letter_source: None,
    }
}

fn envelope(body: &[u8], data_type: DataType) -> Value {
    let trigger = ServiceBusTrigger {
        name: "msg".to_owned(),
        entity: "orders".parse().unwrap(),
        data_type,
    };
    service_bus_envelope(
        "OnOrder",
        &trigger,
        &received(body),
        time("2026-01-02T08:15:31.2205399Z"),
    )
}

#[test]
fn values_are_encoded_as_the_host_encodes_them() {
    let encoded = |value: BindingValue| value.encode();
    assert_eq!(encoded("HelloWorld".into()), json!("\"HelloWorld\""));
    assert_eq!(encoded(4.into()), json!("4"));
    assert_eq!(encoded(true.into()), json!("true"));
    assert_eq!(encoded(json!(["a"]).into()), json!("[\"a\"]"));
    assert_eq!(encoded(Value::Null.into()), json!("null"));
    assert_eq!(
        encoded(json!({"Name":"TestName","Id":1234}).into()),
        json!({"Name":"TestName","Id":1234})
    );
    assert_eq!(
        encoded(BindingValue::Bytes(vec![0, 0xff, 0x10, 0x80])),
        json!("AP8QgA==")
    );
    let october = time("2019-10-01T00:00:00.9Z");
    assert_eq!(
        encoded(BindingValue::DateTime(october)),
        json!("2019-10-01T00:00:00")
    );
    assert_eq!(
        encoded(BindingValue::DateTimeOffset(october)),
        json!("2019-10-01T00:00:00+00:00")
    );
}

#[test]
fn metadata_leaves_out_nulls_and_triggers_and_compares_keys_without_case() {
    let mut data = BindingData::default();
    data.set("dequeueCount", 4);
    data.set("helloString", "first");
    data.set("HELLOSTRING", "helloMetadata");
    data.set("nothing", Value::Null);
    data.set("myQueueTrigger", "raw");
    assert_eq!(
        data.encode(),
        json!({"dequeueCount": "4", "helloString": "\"helloMetadata\""})
    );
}

#[test]
fn a_json_message_arrives_as_text_in_text() {
    let envelope = envelope(br#"{"id":1}"#, DataType::String);
    assert_eq!(envelope["Data"], json!({"msg": "\"{\\\"id\\\":1}\""}));
}

#[test]
fn a_binary_message_arrives_as_base64_and_leaves_the_metadata_alone() {
    let envelope = envelope(br#"{"MessageId":"evil","new":1}"#, DataType::Binary);
    assert_eq!(
        envelope["Data"],
        json!({"msg": "eyJNZXNzYWdlSWQiOiJldmlsIiwibmV3IjoxfQ=="})
    );
    assert_eq!(envelope["Metadata"]["MessageId"], "\"m-1\"");
    assert_eq!(envelope["Metadata"].get("new"), None);
}

#[test]
fn properties_of_a_text_message_overwrite_the_metadata() {
    let body = br#"{"messageid":"evil","orderId":1005,"paid":true,"nested":{"a":1},"tags":["x"],"none":null}"#;
    let metadata = &envelope(body, DataType::String)["Metadata"];
    assert_eq!(metadata["MessageId"], "\"evil\"");
    assert_eq!(metadata["orderId"], "\"1005\"");
    assert_eq!(metadata["paid"], "\"True\"");
    assert_eq!(metadata["nested"], json!({"a": 1}));
    assert_eq!(
        (
            metadata.get("tags"),
            metadata.get("none"),
            metadata.get("messageid")
        ),
        (None, None, None)
    );
}

#[test]
fn broker_properties_have_the_hosts_names_and_forms() {
    let metadata = &envelope(b"plain", DataType::String)["Metadata"];
    let expected = json!({
        "DeliveryCount": "1", "SequenceNumber": "42", "MessageId": "\"m-1\"", "CorrelationId": "\"c-7\"",
        "ContentType": "\"application/json\"", "Subject": "\"order.paid\"", "Label": "\"order.paid\"",
        "LockToken": "\"00000000-0000-0000-0000-000000000000\"",
        "ExpiresAtUtc": "2026-01-16T08:15:30", "ExpiresAt": "2026-01-16T08:15:30+00:00",
        "EnqueuedTimeUtc": "2026-01-02T08:15:30", "EnqueuedTime": "2026-01-02T08:15:30+00:00",
        "ApplicationProperties": {"tenant": "acme", "attempt": 3},
        "UserProperties": {"tenant": "acme", "attempt": 3},
        "MessageReceiver": {}, "MessageActions": {},
    });
    for (key, value) in expected.as_object().unwrap() {
        assert_eq!(&metadata[key], value, "{key}");
    }
    assert_eq!(metadata["sys"]["MethodName"], "OnOrder");
    assert_eq!(metadata["sys"]["UtcNow"], "2026-01-02T08:15:31.2205399Z");
    for absent in [
        "DeadLetterSource",
        "SessionId",
        "To",
        "ScheduledEnqueueTime",
        "LockedUntil",
        "State",
    ] {
        assert_eq!(metadata.get(absent), None, "{absent}");
    }
}

#[test]
fn a_run_by_hand_has_a_body_and_hardly_any_metadata() {
    let trigger = ServiceBusTrigger {
        name: "msg".to_owned(),
        entity: "orders".parse().unwrap(),
        data_type: DataType::String,
    };
    let envelope = manual_envelope("OnOrder", &trigger, r#"{"id":1}"#, Timestamp::UNIX_EPOCH);
    assert_eq!(envelope["Data"], json!({"msg": "\"{\\\"id\\\":1}\""}));
    assert_eq!(envelope["Metadata"]["DeliveryCount"], "0");
    assert_eq!(envelope["Metadata"]["id"], "\"1\"");
    assert_eq!(envelope["Metadata"].get("MessageId"), None);
}

#[test]
fn an_http_request_in_an_envelope_is_an_object() {
    let mut headers = HeaderMap::new();
    headers.insert("host", "localhost".parse().unwrap());
    headers.insert("accept-charset", "UTF-8".parse().unwrap());
    headers.insert("content-length", "13".parse().unwrap());
    let request = IncomingRequest {
        method: Method::GET,
        uri: Uri::from_static("/api/hello?id=149656222&name=Ink%20And%20Toner"),
        headers,
        parameters: vec![("rest".to_owned(), "a/b".to_owned())],
        body: Bytes::from_static(b"\"hello world\""),
    };
    let envelope = http_envelope("hello", "testInputReq", &request, Timestamp::UNIX_EPOCH);
    assert_eq!(
        envelope["Data"]["testInputReq"],
        json!({
            "Url": "http://localhost/api/hello?id=149656222&name=Ink%20And%20Toner",
            "Method": "GET",
            "Query": {"id": "149656222", "name": "Ink And Toner"},
            "Headers": {"Host": ["localhost"], "Accept-Charset": ["UTF-8"], "Content-Length": ["13"]},
            "Params": {"rest": "a/b"},
            "Identities": [],
            "Body": "\"hello world\"",
        })
    );
    assert_eq!(envelope["Metadata"]["rest"], "\"a/b\"");
}
