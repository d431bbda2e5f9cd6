//! Entries and feeds as the management API answers them.
//!
//! The order of the elements is Azure's, because older clients read them in order. Addresses in `id` are spelt with
//! `Subscriptions` and `Rules` whatever the request had: JavaScript's client takes names out of them by these words.
//! <https://learn.microsoft.com/rest/api/servicebus/entities>

use jiff::Timestamp;

use crate::{
    Limits,
    atom_rules::{self, time},
    atom_xml::{ATOM, COUNTS, INSTANCE, SERVICE_BUS, Writer},
    attributes::Attributes,
    description::{Counts, Described, Description, Listed},
    iso_8601::{self, write_or_never},
    rule::Rule,
    topology::{Queue, Topic},
    topology_limits::MINUTE,
};

/// The name of an emulator's namespace.
pub(crate) const NAMESPACE: &str = "sbemulatorns";

/// What entries need to know of the namespace and the request.
#[derive(Debug, Clone)]
pub(crate) struct Place {
    /// As the client calls it.
    pub(crate) host: String,
    /// Those of entities that have none of their own.
    pub(crate) limits: Limits,
}

impl Place {
    fn address(&self, path: &str) -> String {
        format!("http://{}/{path}", self.host)
    }

    /// Where messages are forwarded to is shown as the address of an entity.
    fn forward(&self, target: Option<&String>) -> Option<String> {
        target.map(|target| format!("sb://{}/{target}", self.host))
    }
}

/// One entity.
pub(crate) fn entity(place: &Place, described: &Described) -> String {
    let mut xml = Writer::default();
    write_entity(&mut xml, place, described);
    xml.finish()
}

/// A page of entities; `next` is the address of the one that follows.
pub(crate) fn entities(
    place: &Place,
    list: &str,
    page: &[Described],
    next: Option<&str>,
) -> String {
    feed(place, list, next, |xml| {
        for described in page {
            write_entity(xml, place, described);
        }
    })
}

/// One rule of a subscription.
pub(crate) fn rule(place: &Place, subscription: &str, rule: &Rule) -> String {
    let mut xml = Writer::default();
    write_rule(&mut xml, place, subscription, rule);
    xml.finish()
}

/// A page of the rules of a subscription.
pub(crate) fn rules(
    place: &Place,
    list: &str,
    subscription: &str,
    page: &[Rule],
    next: Option<&str>,
) -> String {
    feed(place, list, next, |xml| {
        for rule in page {
            write_rule(xml, place, subscription, rule);
        }
    })
}

/// What the namespace is.
pub(crate) fn namespace(place: &Place, since: Timestamp) -> String {
    let mut xml = Writer::default();
    entry(
        &mut xml,
        place,
        "$namespaceinfo",
        NAMESPACE,
        (since, since),
        |xml| {
            describe(xml, "NamespaceInfo", |xml| {
                xml.text("CreatedTime", time(since));
                xml.text("MessagingSKU", "Standard");
                xml.text("ModifiedTime", time(since));
                xml.text("Name", NAMESPACE);
                xml.text("NamespaceType", "Messaging");
            });
        },
    );
    xml.finish()
}

fn feed(
    place: &Place,
    list: &str,
    next: Option<&str>,
    entries: impl FnOnce(&mut Writer),
) -> String {
    let mut xml = Writer::default();
    xml.within("feed", &[("xmlns", ATOM)], |xml| {
        let address = place.address(list);
        xml.text("id", &address);
        xml.text_with("title", &[("type", "text")], list);
        xml.text("updated", time(Timestamp::now()));
        xml.empty("link", &[("rel", "self"), ("href", &address)]);
        if let Some(next) = next {
            // Python's client takes the second link for this one.
            xml.empty("link", &[("rel", "next"), ("href", &place.address(next))]);
        }
        entries(xml);
    });
    xml.finish()
}

fn entry(
    xml: &mut Writer,
    place: &Place,
    path: &str,
    title: &str,
    (published, updated): (Timestamp, Timestamp),
    content: impl FnOnce(&mut Writer),
) {
    xml.within("entry", &[("xmlns", ATOM)], |xml| {
        let address = place.address(path);
        xml.text("id", &address);
        xml.text_with("title", &[("type", "text")], title);
        xml.text("published", time(published));
        xml.text("updated", time(updated));
        xml.within("author", &[], |xml| xml.text("name", NAMESPACE));
        xml.empty("link", &[("rel", "self"), ("href", &address)]);
        xml.within("content", &[("type", "application/xml")], content);
    });
}

fn describe(xml: &mut Writer, name: &str, properties: impl FnOnce(&mut Writer)) {
    let namespaces = [("xmlns", SERVICE_BUS), ("xmlns:i", INSTANCE)];
    xml.within(name, &namespaces, properties);
}

fn write_rule(xml: &mut Writer, place: &Place, subscription: &str, rule: &Rule) {
    let path = format!("{subscription}/Rules/{}", rule.name);
    let times = (rule.created_at, rule.created_at);
    entry(xml, place, &path, &rule.name, times, |xml| {
        describe(xml, "RuleDescription", |xml| atom_rules::write(xml, rule));
    });
}

fn write_entity(xml: &mut Writer, place: &Place, described: &Described) {
    let Described { listed, counts } = described;
    let path = listed.description.path();
    let times = (listed.created_at, listed.updated_at);
    let title = match &listed.description {
        Description::Queue(queue) => &queue.name,
        Description::Topic(topic) => &topic.name,
        Description::Subscription { subscription, .. } => &subscription.queue.name,
    };
    entry(xml, place, &path, title, times, |xml| {
        match &listed.description {
            Description::Queue(queue) => describe(xml, "QueueDescription", |xml| {
                write_queue(xml, place, queue, listed, *counts);
            }),
            Description::Topic(topic) => describe(xml, "TopicDescription", |xml| {
                write_topic(xml, place, topic, listed, *counts);
            }),
            Description::Subscription { subscription, .. } => {
                describe(xml, "SubscriptionDescription", |xml| {
                    write_subscription(xml, place, &subscription.queue, listed, *counts);
                });
            }
        }
    });
}

fn write_queue(xml: &mut Writer, place: &Place, queue: &Queue, listed: &Listed, counts: Counts) {
    let attributes = &queue.attributes;
    xml.text("LockDuration", iso_8601::write(queue.lock_duration));
    write_max_size(xml, place, attributes);
    xml.boolean(
        "RequiresDuplicateDetection",
        queue.duplicate_detection.is_some(),
    );
    xml.boolean("RequiresSession", queue.requires_session);
    xml.text(
        "DefaultMessageTimeToLive",
        write_or_never(queue.default_message_time_to_live),
    );
    xml.boolean(
        "DeadLetteringOnMessageExpiration",
        queue.dead_lettering_on_message_expiration,
    );
    write_window(xml, queue.duplicate_detection);
    xml.number("MaxDeliveryCount", queue.max_delivery_count);
    xml.boolean(
        "EnableBatchedOperations",
        attributes.enable_batched_operations,
    );
    xml.number("SizeInBytes", counts.size_in_bytes);
    write_message_count(xml, counts);
    xml.boolean("IsAnonymousAccessible", false);
    xml.empty("AuthorizationRules", &[]);
    xml.text("Status", attributes.status.name());
    let forward = place.forward(queue.forward_to.as_ref());
    xml.optional("ForwardTo", forward.as_deref());
    xml.optional("UserMetadata", attributes.user_metadata.as_deref());
    write_times(xml, listed);
    xml.boolean("SupportOrdering", attributes.support_ordering);
    write_counts(xml, counts);
    xml.text(
        "AutoDeleteOnIdle",
        write_or_never(attributes.auto_delete_on_idle),
    );
    xml.boolean("EnablePartitioning", attributes.enable_partitioning);
    xml.text("EntityAvailabilityStatus", "Available");
    let forward = place.forward(queue.forward_dead_lettered_messages_to.as_ref());
    xml.optional("ForwardDeadLetteredMessagesTo", forward.as_deref());
    xml.boolean("EnableExpress", attributes.enable_express);
    write_max_message_size(xml, place, attributes);
}

fn write_topic(xml: &mut Writer, place: &Place, topic: &Topic, listed: &Listed, counts: Counts) {
    let attributes = &topic.attributes;
    xml.text(
        "DefaultMessageTimeToLive",
        write_or_never(topic.default_message_time_to_live),
    );
    write_max_size(xml, place, attributes);
    xml.boolean(
        "RequiresDuplicateDetection",
        topic.duplicate_detection.is_some(),
    );
    write_window(xml, topic.duplicate_detection);
    xml.boolean(
        "EnableBatchedOperations",
        attributes.enable_batched_operations,
    );
    xml.number("SizeInBytes", counts.size_in_bytes);
    xml.boolean(
        "FilteringMessagesBeforePublishing",
        attributes.filtering_messages_before_publishing,
    );
    xml.boolean("IsAnonymousAccessible", false);
    xml.empty("AuthorizationRules", &[]);
    xml.text("Status", attributes.status.name());
    xml.optional("UserMetadata", attributes.user_metadata.as_deref());
    write_times(xml, listed);
    xml.boolean("SupportOrdering", attributes.support_ordering);
    write_counts(xml, counts);
    xml.number("SubscriptionCount", counts.subscriptions as u64);
    xml.text(
        "AutoDeleteOnIdle",
        write_or_never(attributes.auto_delete_on_idle),
    );
    xml.boolean("EnablePartitioning", attributes.enable_partitioning);
    xml.text("EntityAvailabilityStatus", "Available");
    xml.boolean("EnableSubscriptionPartitioning", false);
    xml.boolean("EnableExpress", attributes.enable_express);
    write_max_message_size(xml, place, attributes);
}

fn write_subscription(
    xml: &mut Writer,
    place: &Place,
    queue: &Queue,
    listed: &Listed,
    counts: Counts,
) {
    let attributes = &queue.attributes;
    xml.text("LockDuration", iso_8601::write(queue.lock_duration));
    xml.boolean("RequiresSession", queue.requires_session);
    xml.text(
        "DefaultMessageTimeToLive",
        write_or_never(queue.default_message_time_to_live),
    );
    xml.boolean(
        "DeadLetteringOnMessageExpiration",
        queue.dead_lettering_on_message_expiration,
    );
    xml.boolean(
        "DeadLetteringOnFilterEvaluationExceptions",
        attributes.dead_lettering_on_filter_evaluation_exceptions,
    );
    write_message_count(xml, counts);
    xml.number("MaxDeliveryCount", queue.max_delivery_count);
    xml.boolean(
        "EnableBatchedOperations",
        attributes.enable_batched_operations,
    );
    xml.text("Status", attributes.status.name());
    let forward = place.forward(queue.forward_to.as_ref());
    xml.optional("ForwardTo", forward.as_deref());
    write_times(xml, listed);
    xml.optional("UserMetadata", attributes.user_metadata.as_deref());
    write_counts(xml, counts);
    let forward = place.forward(queue.forward_dead_lettered_messages_to.as_ref());
    xml.optional("ForwardDeadLetteredMessagesTo", forward.as_deref());
    xml.text(
        "AutoDeleteOnIdle",
        write_or_never(attributes.auto_delete_on_idle),
    );
    xml.text("EntityAvailabilityStatus", "Available");
}

fn write_max_size(xml: &mut Writer, place: &Place, attributes: &Attributes) {
    let megabytes = attributes
        .max_size_in_megabytes
        .map_or(place.limits.entity_quota >> 20, u64::from);
    xml.number("MaxSizeInMegabytes", megabytes);
}

fn write_max_message_size(xml: &mut Writer, place: &Place, attributes: &Attributes) {
    let kilobytes = attributes
        .max_message_size_in_kilobytes
        .map_or(place.limits.max_message_size as u64 >> 10, u64::from);
    xml.number("MaxMessageSizeInKilobytes", kilobytes);
}

/// Azure's default where duplicates are not detected: clients require the element.
fn write_window(xml: &mut Writer, window: Option<std::time::Duration>) {
    let window = window.unwrap_or(10 * MINUTE);
    xml.text(
        "DuplicateDetectionHistoryTimeWindow",
        iso_8601::write(window),
    );
}

fn write_times(xml: &mut Writer, listed: &Listed) {
    xml.text("CreatedAt", time(listed.created_at));
    xml.text("UpdatedAt", time(listed.updated_at));
    xml.text("AccessedAt", time(listed.accessed_at));
}

fn write_message_count(xml: &mut Writer, counts: Counts) {
    let all = counts.active + counts.dead_letter + counts.scheduled;
    xml.number("MessageCount", all as u64);
}

/// There is no transfer queue here: what cannot be forwarded is in the dead-letter queue.
fn write_counts(xml: &mut Writer, counts: Counts) {
    xml.within("CountDetails", &[("xmlns:d2p1", COUNTS)], |xml| {
        for (name, count) in [
            ("d2p1:ActiveMessageCount", counts.active),
            ("d2p1:DeadLetterMessageCount", counts.dead_letter),
            ("d2p1:ScheduledMessageCount", counts.scheduled),
            ("d2p1:TransferMessageCount", 0),
            ("d2p1:TransferDeadLetterMessageCount", 0),
        ] {
            xml.number(name, count as u64);
        }
    });
}
