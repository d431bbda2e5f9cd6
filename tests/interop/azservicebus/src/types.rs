//! Steps: the types of properties and bodies, and the other door of the same namespace.

use azservicebus::ServiceBusMessage;
use fe2o3_amqp_types::primitives::{SimpleValue, Symbol, Timestamp, Uuid};
use reqwest::Method;

use crate::{
    messages::{property, property_names, string, text, with_properties},
    rest::request,
    stage::{Stage, assert_empty, receiver, send, sender, take_one, until_empty},
};

pub async fn types_round_trip(stage: Stage) {
    let mut client = stage.client().await;
    let mut types = sender(&mut client, "types").await;
    let properties = [
        ("null", SimpleValue::Null),
        ("bool", SimpleValue::Bool(true)),
        ("ubyte", SimpleValue::Ubyte(255)),
        ("ushort", SimpleValue::Ushort(65_535)),
        ("uint", SimpleValue::Uint(u32::MAX)),
        ("ulong", SimpleValue::Ulong(u64::MAX)),
        ("byte", SimpleValue::Byte(-128)),
        ("short", SimpleValue::Short(-32_768)),
        ("int", SimpleValue::Int(i32::MIN)),
        ("long", SimpleValue::Long(i64::MIN)),
        ("float", SimpleValue::from(1.5_f32)),
        ("double", SimpleValue::from(-0.1_f64)),
        ("char", SimpleValue::Char('ß')),
        (
            "timestamp",
            SimpleValue::Timestamp(Timestamp::from(1_700_000_000_123)),
        ),
        ("uuid", SimpleValue::Uuid(Uuid::from([7; 16]))),
        ("binary", SimpleValue::Binary(vec![0, 255, 1].into())),
        ("string", SimpleValue::String("Grüße".to_owned())),
        ("symbol", SimpleValue::Symbol(Symbol::from("x:y"))),
    ];
    send(&mut types, with_properties("body", properties.clone())).await;
    let every_byte: Vec<u8> = (0..=255).collect();
    send(&mut types, every_byte.clone()).await;
    send(&mut types, Vec::<u8>::new()).await;
    let mut receiver = receiver(&mut client, "types").await;
    let message = take_one(&mut receiver).await;
    for (name, value) in properties {
        assert_eq!(property(&message, name), Some(value), "{name}");
    }
    assert_eq!(message.application_properties().unwrap().len(), 18);
    assert_eq!(take_one(&mut receiver).await.body().unwrap(), every_byte);
    assert_eq!(take_one(&mut receiver).await.body().unwrap(), b"");
}

pub async fn rest_to_amqp(stage: Stage) {
    let headers = [
        ("content-type", "application/json"),
        (
            "brokerproperties",
            r#"{"MessageId":"m-1","Label":"order","CorrelationId":"c-1","TimeToLive":90}"#,
        ),
        ("vendor", "\"bakery\""),
        ("quantity", "2"),
        ("price", "12.5"),
        ("gift", "true"),
    ];
    let body = r#"{"dish":"Käsespätzle"}"#;
    let sent = request(&stage, Method::POST, "rest/messages", &headers, body).await;
    assert_eq!(sent.status(), 201);
    let mut client = stage.client().await;
    let mut receiver = receiver(&mut client, "rest").await;
    let message = take_one(&mut receiver).await;
    assert_eq!(text(&message), body);
    assert_eq!(message.content_type(), Some("application/json"));
    assert_eq!(message.message_id().as_deref(), Some("m-1"));
    assert_eq!(message.subject(), Some("order"));
    assert_eq!(message.correlation_id().as_deref(), Some("c-1"));
    assert_eq!(
        message.time_to_live(),
        Some(std::time::Duration::from_secs(90))
    );
    assert_eq!(property(&message, "vendor"), string("bakery"));
    assert_eq!(property(&message, "quantity"), Some(SimpleValue::Long(2)));
    assert_eq!(
        property(&message, "price"),
        Some(SimpleValue::from(12.5_f64))
    );
    assert_eq!(property(&message, "gift"), Some(SimpleValue::Bool(true)));
    assert_eq!(
        property_names(&message),
        ["gift", "price", "quantity", "vendor"]
    );
    receiver.complete_message(&message).await.unwrap();
    until_empty(&mut receiver).await;
}

pub async fn amqp_to_rest(stage: Stage) {
    let mut client = stage.client().await;
    let mut rest = sender(&mut client, "rest").await;
    let mut sent: ServiceBusMessage = with_properties(
        r#"{"dish":"Käsespätzle"}"#,
        [
            ("vendor", SimpleValue::from("bakery")),
            ("quantity", SimpleValue::Int(2)),
            ("gift", SimpleValue::Bool(true)),
        ],
    );
    sent.set_message_id("m-1").unwrap();
    sent.set_subject("order".to_owned());
    sent.set_content_type("application/json".to_owned());
    send(&mut rest, sent).await;
    let path = "rest/messages/head?timeout=5";
    let received = request(&stage, Method::DELETE, path, &[], "").await;
    assert_eq!(received.status(), 200);
    let header = |name: &str| {
        let value = received.headers().get(name);
        value.map(|value| value.to_str().expect("ASCII").to_owned())
    };
    assert_eq!(header("content-type").as_deref(), Some("application/json"));
    assert_eq!(header("vendor").as_deref(), Some("\"bakery\""));
    assert_eq!(header("quantity").as_deref(), Some("2"));
    assert_eq!(header("gift").as_deref(), Some("true"));
    let broker: serde_json::Value =
        serde_json::from_str(&header("brokerproperties").expect("is there")).expect("JSON");
    assert_eq!(broker["MessageId"], "m-1");
    assert_eq!(broker["Label"], "order");
    assert_eq!(broker["DeliveryCount"], 1);
    assert_eq!(broker["SequenceNumber"], 1);
    assert_eq!(received.text().await.unwrap(), r#"{"dish":"Käsespätzle"}"#);
    let mut receiver = receiver(&mut client, "rest").await;
    assert_empty(&mut receiver).await;
}
