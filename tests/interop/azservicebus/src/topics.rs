//! Steps: topics, their filters, and forwarding.

use azservicebus::ServiceBusMessage;
use fe2o3_amqp_types::primitives::SimpleValue;

use crate::{
    messages::{property, property_names, string, text, texts, with_properties},
    stage::{
        Stage, assert_empty, dead_letters, receiver, send, sender, take, take_one, until_empty,
    },
};

pub async fn topic_fan_out(stage: Stage) {
    let mut client = stage.client().await;
    let mut fan = sender(&mut client, "fan").await;
    fan.send_messages(["fan 1", "fan 2"]).await.unwrap();
    for subscription in ["fan/s1", "fan/s2"] {
        let mut receiver = receiver(&mut client, subscription).await;
        let messages = take(&mut receiver, 2).await;
        assert_eq!(texts(&messages), ["fan 1", "fan 2"], "{subscription}");
        for one in &messages {
            receiver.complete_message(one).await.unwrap();
        }
        until_empty(&mut receiver).await;
        receiver.dispose().await.unwrap();
    }
}

fn order(body: &str, quantity: i32, colour: &str) -> ServiceBusMessage {
    let quantity = ("quantity", SimpleValue::from(quantity));
    with_properties(body, [quantity, ("colour", SimpleValue::from(colour))])
}

pub async fn sql_filter_and_action(stage: Stage) {
    let mut client = stage.client().await;
    let mut filtered = sender(&mut client, "filtered").await;
    for (body, quantity, colour) in [
        ("few", 10, "red"),
        ("many red", 11, "red"),
        ("many green", 12, "green"),
        ("many blue", 13, "blue"),
    ] {
        send(&mut filtered, order(body, quantity, colour)).await;
    }
    send(&mut filtered, "without properties").await;
    let mut sql = receiver(&mut client, "filtered/sql").await;
    let messages = take(&mut sql, 2).await;
    assert_eq!(texts(&messages), ["many red", "many blue"]);
    for (message, quantity) in messages.iter().zip([11, 13]) {
        assert_eq!(property_names(message), ["doubled", "priority", "quantity"]);
        assert_eq!(property(message, "priority"), string("high"));
        assert_eq!(
            property(message, "quantity"),
            Some(SimpleValue::Int(quantity))
        );
        // Arithmetic is done in 64 bits.
        let doubled = property(message, "doubled");
        assert_eq!(doubled, Some(SimpleValue::Long((2 * quantity).into())));
        sql.complete_message(message).await.unwrap();
    }
    until_empty(&mut sql).await;
    let mut all = receiver(&mut client, "filtered/all").await;
    let untouched = take(&mut all, 5).await;
    assert_eq!(property_names(&untouched[1]), ["colour", "quantity"]);
    let mut none = receiver(&mut client, "filtered/none").await;
    assert_empty(&mut none).await;
}

pub async fn correlation_filter(stage: Stage) {
    let mut client = stage.client().await;
    let mut filtered = sender(&mut client, "filtered").await;
    for (body, correlation_id, colour) in [
        ("both", Some("important"), "red"),
        ("wrong colour", Some("important"), "blue"),
        ("wrong id", Some("unimportant"), "red"),
        ("no id", None, "red"),
    ] {
        let mut message = with_properties(body, [("colour", SimpleValue::from(colour))]);
        message.set_correlation_id(correlation_id.map(str::to_owned));
        send(&mut filtered, message).await;
    }
    let mut correlation = receiver(&mut client, "filtered/correlation").await;
    let message = take_one(&mut correlation).await;
    assert_eq!(text(&message), "both");
    assert_eq!(message.correlation_id().as_deref(), Some("important"));
    correlation.complete_message(&message).await.unwrap();
    until_empty(&mut correlation).await;
}

pub async fn forwarding(stage: Stage) {
    let mut client = stage.client().await;
    let mut from = sender(&mut client, "forwards-from").await;
    send(&mut from, "by a queue").await;
    let mut topic = sender(&mut client, "forwarding-topic").await;
    send(&mut topic, "by a subscription").await;
    let mut to = receiver(&mut client, "forwards-to").await;
    let messages = take(&mut to, 2).await;
    assert_eq!(texts(&messages), ["by a queue", "by a subscription"]);
    for one in &messages {
        to.complete_message(one).await.unwrap();
    }
    until_empty(&mut to).await;

    let mut dying = sender(&mut client, "forwards-dead").await;
    send(&mut dying, "dead").await;
    let mut receiver = receiver(&mut client, "forwards-dead").await;
    let message = take_one(&mut receiver).await;
    receiver.abandon_message(&message, None).await.unwrap();
    let mut dead_letters_of_it = dead_letters(&mut client, "forwards-dead").await;
    let mut others = crate::stage::receiver(&mut client, "dead-letters").await;
    let dead = take_one(&mut others).await;
    assert_eq!(text(&dead), "dead");
    assert_eq!(dead.dead_letter_source(), Some("forwards-dead"));
    assert_eq!(dead.dead_letter_reason(), Some("MaxDeliveryCountExceeded"));
    assert_empty(&mut dead_letters_of_it).await;
}
