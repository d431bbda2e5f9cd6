//! Reading what was received, and writing what is sent.

use azservicebus::{ServiceBusMessage, ServiceBusReceivedMessage};
use fe2o3_amqp_types::{messaging::ApplicationProperties, primitives::SimpleValue};

pub fn message(body: &str, id: &str) -> ServiceBusMessage {
    let mut message = ServiceBusMessage::from(body);
    message.set_message_id(id).expect("a short id");
    message
}

pub fn with_properties<const N: usize>(
    body: &str,
    properties: [(&str, SimpleValue); N],
) -> ServiceBusMessage {
    let mut message = ServiceBusMessage::from(body);
    let mut builder = ApplicationProperties::builder();
    for (name, value) in properties {
        builder = builder.insert(name, value);
    }
    *message.application_properties_mut() = Some(builder.build());
    message
}

pub fn text(message: &ServiceBusReceivedMessage) -> &str {
    std::str::from_utf8(message.body().expect("one section of data")).expect("text")
}

pub fn texts(messages: &[ServiceBusReceivedMessage]) -> Vec<&str> {
    messages.iter().map(text).collect()
}

pub fn property(message: &ServiceBusReceivedMessage, name: &str) -> Option<SimpleValue> {
    message.application_properties()?.get(name).cloned()
}

pub fn string(text: &str) -> Option<SimpleValue> {
    Some(SimpleValue::String(text.to_owned()))
}

/// The names of all properties, in alphabetical order.
pub fn property_names(message: &ServiceBusReceivedMessage) -> Vec<&str> {
    let properties = message.application_properties();
    let mut names: Vec<&str> = properties
        .iter()
        .flat_map(|properties| properties.0.keys().map(String::as_str))
        .collect();
    names.sort_unstable();
    names
}
