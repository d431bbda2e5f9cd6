//! Whether an entity may be created or changed like that: how many there are, where messages go, what cannot be changed.

use super::Broker;
use crate::{
    Error,
    description::Description,
    entity::{EntityId, Role},
};

/// The quotas of Azure: queues and topics of a namespace, subscriptions of a topic.
/// <https://learn.microsoft.com/azure/service-bus-messaging/service-bus-quotas>
const MOST_ENTITIES: usize = 10_000;
const MOST_SUBSCRIPTIONS: usize = 2_000;

impl Broker {
    /// Whether there may be one more queue or topic, or subscription of that topic.
    pub(super) fn check_number(&self, topic: Option<EntityId>) -> Result<(), Error> {
        let (number, most, whose) = match topic.map(|at| &self.entities[at.0]) {
            Some(topic) => {
                let number = match &topic.role {
                    Role::Topic { subscriptions } => subscriptions.len(),
                    _ => 0,
                };
                (number, MOST_SUBSCRIPTIONS, topic.path.to_string())
            }
            None => {
                let counts = |role: &Role| matches!(role, Role::Queue | Role::Topic { .. });
                let entities = self.entities.iter();
                let number = entities.filter(|entity| counts(&entity.role)).count();
                (number, MOST_ENTITIES, "sbemulatorns".to_owned())
            }
        };
        if number < most {
            Ok(())
        } else {
            Err(Error::QuotaExceeded(whose))
        }
    }

    /// Every target exists, and nothing is forwarded in a circle that it can never leave.
    pub(super) fn check_forwarding(&self, description: &Description) -> Result<(), Error> {
        let Some(queue) = description.queue() else {
            return Ok(());
        };
        let invalid = |reason: String| Err(Error::NotSupported(reason));
        let own_entity = match description {
            Description::Subscription { topic, .. } => topic.to_lowercase(),
            _ => queue.name.to_lowercase(),
        };
        for (property, target) in [
            ("ForwardTo", &queue.forward_to),
            (
                "ForwardDeadLetteredMessagesTo",
                &queue.forward_dead_lettered_messages_to,
            ),
        ] {
            let Some(target) = target else { continue };
            if target.to_lowercase() == own_entity {
                return invalid(format!("{property} leads back to `{target}`"));
            }
            let role = self.named(target).map(|at| &self.entities[at.0].role);
            if !matches!(role, Some(Role::Queue | Role::Topic { .. })) {
                return invalid(format!("{property}: there is no queue or topic `{target}`"));
            }
        }
        if queue.requires_session && queue.forward_to.is_some() {
            return invalid("an entity that requires sessions cannot have ForwardTo".to_owned());
        }
        // A circle through a topic is left to the hop limit, since rules may end it.
        let mut next = match description {
            Description::Queue(queue) => queue.forward_to.clone(),
            _ => None,
        };
        for _ in 0..self.entities.len() {
            let Some(target) = next else { break };
            if target.to_lowercase() == own_entity {
                return invalid(format!("ForwardTo leads back to `{own_entity}`"));
            }
            next = self
                .named(&target)
                .and_then(|at| self.entities[at.0].settings.forward_to.clone());
        }
        Ok(())
    }
}

/// Some properties are decided when an entity is created.
pub(super) fn check_unchangeable(old: &Description, new: &Description) -> Result<(), Error> {
    let properties = |description: &Description| match description {
        Description::Topic(topic) => (
            false,
            topic.duplicate_detection.is_some(),
            topic.attributes.enable_partitioning,
        ),
        Description::Queue(queue)
        | Description::Subscription {
            subscription: crate::topology::Subscription { queue, .. },
            ..
        } => (
            queue.requires_session,
            queue.duplicate_detection.is_some(),
            queue.attributes.enable_partitioning,
        ),
    };
    let (old, new) = (properties(old), properties(new));
    for (name, same) in [
        ("RequiresSession", old.0 == new.0),
        ("RequiresDuplicateDetection", old.1 == new.1),
        ("EnablePartitioning", old.2 == new.2),
    ] {
        if !same {
            return Err(Error::NotSupported(format!(
                "{name} cannot be changed once the entity exists"
            )));
        }
    }
    Ok(())
}

/// Whether messages that are there may not be able to stay.
pub(super) fn moves_messages(old: &Description, new: &Description) -> bool {
    let (Some(old), Some(new)) = (old.queue(), new.queue()) else {
        return false;
    };
    new.max_delivery_count < old.max_delivery_count
        || new.forward_to.is_some()
        || new.forward_dead_lettered_messages_to.is_some()
}
