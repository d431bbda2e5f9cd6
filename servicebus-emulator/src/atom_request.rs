//! What a client sends to create or change an entity: an entry with a description.
//!
//! What is left out has Azure's default, not the official emulator's; so do clients that leave out what is "never". Elements
//! may come in any order, and those that mean nothing here (`AuthorizationRules`, counts, times) are read over.

use std::time::Duration;

use roxmltree::Node;

use crate::{
    atom_rules,
    atom_xml::{bad_request, child, parse, text},
    attributes::{Attributes, Status},
    description::Description,
    iso_8601,
    rest_error::RestError,
    rule::Rule,
    topology::{Queue, Subscription, Topic},
    topology_limits::{self, MINUTE},
};

const DEFAULT_MAX_DELIVERY_COUNT: u32 = 10;

/// Reads a queue or a topic with that name: which of them it is, only the body says.
pub(crate) fn queue_or_topic(body: &str, name: &str) -> Result<Description, RestError> {
    topology_limits::entity_name(name).map_err(bad_request)?;
    let document = parse(body)?;
    let node = described(document.root_element())?;
    match node.tag_name().name() {
        "QueueDescription" => Ok(Description::Queue(queue(node, name)?)),
        "TopicDescription" => Ok(Description::Topic(topic(node, name)?)),
        other => Err(unexpected(
            other,
            "a QueueDescription or a TopicDescription",
        )),
    }
}

/// Reads a subscription. Its rule is the one in it, or else the one that takes everything.
pub(crate) fn subscription(body: &str, topic: &str, name: &str) -> Result<Description, RestError> {
    topology_limits::short_name(name).map_err(bad_request)?;
    let document = parse(body)?;
    let node = described(document.root_element())?;
    match node.tag_name().name() {
        "SubscriptionDescription" => {}
        other => return Err(unexpected(other, "a SubscriptionDescription")),
    }
    let rule = match child(node, "DefaultRuleDescription") {
        Some(rule) => {
            let name = text(rule, "Name").unwrap_or_else(|| "$Default".to_owned());
            atom_rules::read(rule, &name)?
        }
        None => Rule::default_rule(),
    };
    let queue = Queue {
        duplicate_detection: None,
        ..queue(node, name)?
    };
    let rules = vec![rule];
    Ok(Description::Subscription {
        topic: topic.to_owned(),
        subscription: Subscription { queue, rules },
    })
}

/// Reads a rule; the name in the address counts.
pub(crate) fn rule(body: &str, name: &str) -> Result<Rule, RestError> {
    let document = parse(body)?;
    let node = described(document.root_element())?;
    match node.tag_name().name() {
        "RuleDescription" => atom_rules::read(node, name),
        other => Err(unexpected(other, "a RuleDescription")),
    }
}

fn unexpected(found: &str, expected: &str) -> RestError {
    bad_request(format!(
        "The content of the entry is a `{found}`, and {expected} is expected."
    ))
}

/// The description in the content of the entry.
fn described<'a, 'input>(entry: Node<'a, 'input>) -> Result<Node<'a, 'input>, RestError> {
    let content = (entry.tag_name().name() == "entry")
        .then(|| child(entry, "content"))
        .flatten();
    content
        .and_then(|content| content.children().find(Node::is_element))
        .ok_or_else(|| bad_request("The body of the request is not an entry with a description."))
}

fn queue(node: Node<'_, '_>, name: &str) -> Result<Queue, RestError> {
    let property = Properties(node);
    Ok(Queue {
        name: name.to_owned(),
        lock_duration: property
            .duration("LockDuration", topology_limits::lock_duration)?
            .unwrap_or(MINUTE),
        max_delivery_count: property
            .number("MaxDeliveryCount", topology_limits::max_delivery_count)?
            .unwrap_or(DEFAULT_MAX_DELIVERY_COUNT),
        default_message_time_to_live: property
            .duration("DefaultMessageTimeToLive", topology_limits::time_to_live)?,
        dead_lettering_on_message_expiration: property
            .boolean("DeadLetteringOnMessageExpiration", false)?,
        duplicate_detection: property.duplicate_detection()?,
        forward_to: property.forward("ForwardTo")?,
        forward_dead_lettered_messages_to: property.forward("ForwardDeadLetteredMessagesTo")?,
        requires_session: property.boolean("RequiresSession", false)?,
        attributes: property.attributes()?,
    })
}

fn topic(node: Node<'_, '_>, name: &str) -> Result<Topic, RestError> {
    let property = Properties(node);
    Ok(Topic {
        name: name.to_owned(),
        default_message_time_to_live: property
            .duration("DefaultMessageTimeToLive", topology_limits::time_to_live)?,
        duplicate_detection: property.duplicate_detection()?,
        attributes: property.attributes()?,
        subscriptions: Vec::new(),
    })
}

/// The elements of a description, by name.
#[derive(Clone, Copy)]
struct Properties<'a, 'input>(Node<'a, 'input>);

impl Properties<'_, '_> {
    /// An empty element is one that is not there.
    fn text(self, name: &str) -> Option<String> {
        text(self.0, name)
            .map(|text| text.trim().to_owned())
            .filter(|text| !text.is_empty())
    }

    fn boolean(self, name: &str, default: bool) -> Result<bool, RestError> {
        match self.text(name).map(|text| text.to_ascii_lowercase()) {
            None => Ok(default),
            Some(text) if text == "true" || text == "1" => Ok(true),
            Some(text) if text == "false" || text == "0" => Ok(false),
            Some(text) => Err(invalid(name, &text, "expected true or false")),
        }
    }

    fn number<T>(
        self,
        name: &str,
        check: impl FnOnce(i64) -> Result<T, &'static str>,
    ) -> Result<Option<T>, RestError> {
        let Some(text) = self.text(name) else {
            return Ok(None);
        };
        let number = text
            .parse()
            .map_err(|_| invalid(name, &text, "expected a whole number"))?;
        check(number)
            .map(Some)
            .map_err(|reason| invalid(name, &text, reason))
    }

    /// `None` where it is left out or never.
    fn duration(
        self,
        name: &str,
        check: impl FnOnce(Duration) -> Result<Duration, &'static str>,
    ) -> Result<Option<Duration>, RestError> {
        let text = self.text(name).filter(|text| !iso_8601::is_never(text));
        let Some(text) = text else {
            return Ok(None);
        };
        let duration = iso_8601::read(&text).ok_or_else(|| {
            invalid(
                name,
                &text,
                "expected an ISO 8601 duration such as PT1M or P14D",
            )
        })?;
        check(duration)
            .map(Some)
            .map_err(|reason| invalid(name, &text, reason))
    }

    fn duplicate_detection(self) -> Result<Option<Duration>, RestError> {
        let window = self
            .duration(
                "DuplicateDetectionHistoryTimeWindow",
                topology_limits::duplicate_window,
            )?
            .unwrap_or(10 * MINUTE);
        let required = self.boolean("RequiresDuplicateDetection", false)?;
        Ok(required.then_some(window))
    }

    /// The entity that messages go to: given by name, or by its address, whose scheme, host and port are free.
    fn forward(self, name: &str) -> Result<Option<String>, RestError> {
        let Some(text) = self.text(name) else {
            return Ok(None);
        };
        let entity = match text.split_once("://") {
            Some((_, address)) => address.split_once('/').map_or("", |(_, path)| path),
            None => &text,
        };
        let entity = percent_encoding::percent_decode_str(entity)
            .decode_utf8_lossy()
            .trim_matches('/')
            .to_owned();
        if entity.is_empty() {
            return Err(invalid(name, &text, "expected an entity"));
        }
        Ok(Some(entity))
    }

    fn attributes(self) -> Result<Attributes, RestError> {
        let default = Attributes::default();
        let status = match self.text("Status") {
            None => Status::Active,
            Some(text) => Status::from_name(&text).ok_or_else(|| {
                invalid(
                    "Status",
                    &text,
                    "expected Active, Disabled, SendDisabled or ReceiveDisabled",
                )
            })?,
        };
        let user_metadata = text(self.0, "UserMetadata");
        if let Some(metadata) = &user_metadata {
            topology_limits::user_metadata(metadata)
                .map_err(|reason| bad_request(format!("UserMetadata: {reason}.")))?;
        }
        let boolean = |name, default| self.boolean(name, default);
        Ok(Attributes {
            status,
            max_size_in_megabytes: self
                .number("MaxSizeInMegabytes", topology_limits::max_size_in_megabytes)?,
            user_metadata,
            auto_delete_on_idle: self
                .duration("AutoDeleteOnIdle", topology_limits::auto_delete_on_idle)?,
            enable_batched_operations: boolean(
                "EnableBatchedOperations",
                default.enable_batched_operations,
            )?,
            enable_partitioning: boolean("EnablePartitioning", default.enable_partitioning)?,
            enable_express: boolean("EnableExpress", default.enable_express)?,
            support_ordering: boolean("SupportOrdering", default.support_ordering)?,
            max_message_size_in_kilobytes: self.number(
                "MaxMessageSizeInKilobytes",
                topology_limits::max_message_size_in_kilobytes,
            )?,
            dead_lettering_on_filter_evaluation_exceptions: boolean(
                "DeadLetteringOnFilterEvaluationExceptions",
                default.dead_lettering_on_filter_evaluation_exceptions,
            )?,
            filtering_messages_before_publishing: boolean(
                "FilteringMessagesBeforePublishing",
                default.filtering_messages_before_publishing,
            )?,
        })
    }
}

fn invalid(name: &str, value: &str, reason: &str) -> RestError {
    bad_request(format!(
        "The value `{value}` of {name} is invalid: {reason}."
    ))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Pieces of entries, most of which do not fit together.
    fn piece() -> impl Strategy<Value = String> {
        prop_oneof![
            Just("<entry xmlns=\"http://www.w3.org/2005/Atom\">".to_owned()),
            Just("<content>".to_owned()),
            Just("</content></entry>".to_owned()),
            "(Queue|Topic|Subscription|Rule|DefaultRule)Description"
                .prop_map(|name| format!("<{name}>")),
            "(Queue|Topic|Subscription|Rule|DefaultRule)Description"
                .prop_map(|name| format!("</{name}>")),
            "(LockDuration|Status|MaxDeliveryCount|ForwardTo|UserMetadata|Name)"
                .prop_map(|name| format!("<{name}>")),
            "(LockDuration|Status|MaxDeliveryCount|ForwardTo|UserMetadata|Name)"
                .prop_map(|name| format!("</{name}>")),
            "<(Filter|Action|Value) a:type=\"b:(SqlFilter|CorrelationFilter|SqlRuleAction|int|dateTime)\" xmlns:a=\"http://www.w3.org/2001/XMLSchema-instance\">",
            Just("<Properties><KeyValueOfstringanyType><Key>".to_owned()),
            "P[0-9]{0,20}[YMWD]T?[0-9.]{0,20}[HMS]?",
            "-?[0-9]{1,30}",
            "\\PC{0,20}",
            "&(#[0-9]{1,9}|amp|x);",
            "<!\\[CDATA\\[.{0,9}(\\]\\]>)?",
        ]
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn whatever_comes_is_read_or_refused(pieces in prop::collection::vec(piece(), 0..24)) {
            let body = pieces.concat();
            let well_formed = parse(&body).is_ok();
            for outcome in [
                queue_or_topic(&body, "q").map(drop),
                subscription(&body, "t", "s").map(drop),
                rule(&body, "r").map(drop),
            ] {
                prop_assert!(well_formed || outcome.is_err());
            }
        }
    }
}
