//! The spans of messages on their way: by the semantic conventions for messaging, and Azure Service Bus among them.
//!
//! An event's first message is sent in a span whose context it carries ([`crate::trace::Carried`]). Every delivery of it, and of
//! its copies, whenever and by whomever sent, is a part of that one; a copy's is linked to the delivery that it repeats. So an order's
//! story is one level of attempts, and not a staircase of as many steps as an outage has retries.

use crate::{
    orders_topic::{OrdersTopic, PublishError},
    redelivery::Audience,
    span::{Kind, Parent, Recording, Span},
    trace::SpanContext,
};

/// How a message is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sending {
    /// An event's first: it carries this span's context.
    First,
    /// One that carries the context of another.
    Copy { is_scheduled: bool },
}

/// The span in which a message is sent to the topic; `ids` are the message's and the order's, and are only asked for if it is
/// recorded.
pub fn sending(
    topic: &OrdersTopic,
    parent: Parent,
    sending: Sending,
    ids: &dyn Fn() -> (String, String),
) -> Span {
    let (kind, operation) = match sending {
        Sending::First => (Kind::Producer, "send"),
        Sending::Copy {
            is_scheduled: false,
        } => (Kind::Client, "send"),
        Sending::Copy { is_scheduled: true } => (Kind::Client, "schedule"),
    };
    let span = Span::begin(kind, parent, || format!("{operation} {}", topic.name()));
    span.note(|recording| {
        let (message_id, order_id) = ids();
        of_message(recording, operation, "send", topic.name(), Some(message_id));
        recording.set("server.address", topic.host().to_owned());
        if !order_id.is_empty() {
            recording.set("messaging.message.conversation_id", order_id);
        }
    });
    span
}

/// What came of it; the last try counts.
pub fn sent(span: &Span, result: Result<(), &PublishError>) {
    span.note(|recording| match result {
        Ok(()) => recording.succeed(),
        Err(error) => {
            recording.fail(error.name());
        }
    });
}

/// It is a `create` if the event is kept, and will be sent by somebody else, or a `send` after all.
pub fn becomes(span: &Span, operation: &'static str, topic: &OrdersTopic) {
    span.note(|recording| {
        recording.name = format!("{operation} {}", topic.name()).into();
        recording
            .set("messaging.operation.name", operation)
            .set("messaging.operation.type", operation);
    });
}

/// What is known of a delivery before its message is looked into.
pub struct Delivered<'a> {
    pub function: &'static str,
    pub audience: Audience,
    pub invocation_id: Option<&'a str>,
    pub message_id: Option<&'a str>,
    pub delivery_count: Option<u32>,
    pub parent: Option<SpanContext>,
    pub repeats: Option<SpanContext>,
}

/// The span of one delivery.
pub fn delivering(delivered: &Delivered<'_>) -> Span {
    let (entity, subscription) = match delivered.audience {
        Audience::Customers => ("notifications", None),
        audience @ (Audience::Vendors | Audience::Till | Audience::Book) => {
            ("orders", Some(audience.name()))
        }
    };
    let parent = Parent::Remote(delivered.parent);
    let span = Span::begin(Kind::Consumer, parent, || format!("process {entity}"));
    span.note(|recording| {
        of_message(
            recording,
            "process",
            "process",
            entity,
            delivered.message_id.map(str::to_owned),
        );
        recording
            .set_some("messaging.destination.subscription.name", subscription)
            .set_some(
                "messaging.servicebus.message.delivery_count",
                delivered.delivery_count,
            )
            .set("faas.trigger", "pubsub")
            .set_some(
                "faas.invocation_id",
                delivered.invocation_id.map(str::to_owned),
            )
            .set("orderup.function", delivered.function)
            .link(delivered.repeats);
    });
    span
}

fn of_message(
    recording: &mut Recording,
    operation: &'static str,
    operation_type: &'static str,
    destination: &str,
    message_id: Option<String>,
) {
    recording
        .set("messaging.system", "servicebus")
        .set("messaging.operation.name", operation)
        .set("messaging.operation.type", operation_type)
        .set("messaging.destination.name", destination.to_owned())
        .set_some("messaging.message.id", message_id);
}
