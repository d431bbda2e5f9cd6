//! Entities and rules that are created, changed and deleted while the namespace runs.
//!
//! Each is one command: it is checked whole before anything changes, and everything it changes is in the journal, so that
//! it is stored with the commit or undone. An entity that is deleted takes its messages and dead letters with it, a
//! topic its subscriptions; its slot in the list of entities stays empty.

use std::sync::Arc;

use jiff::Timestamp;

use super::Broker;
use crate::{
    EntityPath, Error,
    description::{Counts, Described, Description, Kind, Listed},
    entity::{EntityId, Role, Setup},
    rule::Rule,
    topology::Queue,
};

impl Broker {
    /// The entity, as it is described.
    pub(crate) fn describe(&self, path: &EntityPath) -> Result<Described, Error> {
        let at = self.find(path)?;
        self.described(at)
            .ok_or_else(|| Error::EntityNotFound(path.to_string()))
    }

    /// Entities of one kind by name, from the one in that place on.
    pub(crate) fn describe_all(
        &self,
        kind: &Kind,
        skip: usize,
        most: usize,
    ) -> Result<Vec<Described>, Error> {
        let mut found = match kind {
            Kind::SubscriptionsOf(topic) => {
                let at = self.topic(topic)?;
                match &self.entities[at.0].role {
                    Role::Topic { subscriptions } => subscriptions.clone(),
                    _ => Vec::new(),
                }
            }
            Kind::Queues | Kind::Topics => (0..self.entities.len())
                .map(EntityId)
                .filter(|at| match self.entities[at.0].role {
                    Role::Queue => *kind == Kind::Queues,
                    Role::Topic { .. } => *kind == Kind::Topics,
                    _ => false,
                })
                .collect(),
        };
        found.sort_by_key(|at| Arc::clone(&self.entities[at.0].key));
        Ok(found
            .into_iter()
            .skip(skip)
            .take(most)
            .filter_map(|at| self.described(at))
            .collect())
    }

    fn described(&self, at: EntityId) -> Option<Described> {
        let entity = &self.entities[at.0];
        let (active, locked, scheduled, deferred) = entity.counts();
        let subscriptions = match &entity.role {
            Role::Topic { subscriptions } => subscriptions.len(),
            _ => 0,
        };
        let dead_letters = entity.dead_letters.map(|at| &self.entities[at.0]);
        let size_in_bytes = match entity.role {
            Role::Queue | Role::Topic { .. } => self.usage[at.0],
            _ => entity.size() + dead_letters.map_or(0, |dead_letters| dead_letters.size()),
        };
        Some(Described {
            listed: self.listed(at)?,
            counts: Counts {
                active: active + locked + deferred,
                dead_letter: dead_letters.map_or(0, |dead_letters| dead_letters.len()),
                scheduled,
                size_in_bytes,
                subscriptions,
            },
        })
    }

    /// The description with the rules that a subscription has now.
    pub(super) fn listed(&self, at: EntityId) -> Option<Listed> {
        let entity = &self.entities[at.0];
        let mut listed = entity.listed.clone()?;
        if let (Description::Subscription { subscription, .. }, Role::Subscription { rules }) =
            (&mut listed.description, &entity.role)
        {
            subscription.rules.clone_from(rules);
        }
        Some(listed)
    }

    /// Creates a queue, a topic without subscriptions, or a subscription with its rules.
    pub(crate) fn create(
        &mut self,
        now: Timestamp,
        mut description: Description,
    ) -> Result<Described, Error> {
        self.advance(now);
        let path: EntityPath = description
            .path()
            .parse()
            .map_err(|error| Error::NotSupported(format!("{error}")))?;
        if self.find(&path).is_ok() {
            return Err(Error::EntityExists(path.to_string()));
        }
        let topic = match &mut description {
            Description::Subscription {
                topic,
                subscription,
            } => {
                for rule in &mut subscription.rules {
                    rule.created_at = now;
                }
                let at = self.topic(topic)?;
                // In the topic's own spelling.
                topic.clone_from(&self.entities[at.0].path.entity().to_owned());
                Some(at)
            }
            Description::Queue(_) | Description::Topic(_) => None,
        };
        self.check_forwarding(&description)?;
        let at = self
            .add_described(Listed {
                description,
                created_at: now,
                updated_at: now,
                accessed_at: now,
            })
            .map_err(Error::NotSupported)?;
        if let Some(topic) = topic {
            self.set_up(topic, |setup| {
                if let Role::Topic { subscriptions } = &mut setup.role {
                    subscriptions.push(at);
                }
            });
        }
        self.remember_entity(at);
        self.describe(&path)
    }

    /// Replaces the properties of an entity that exists. A subscription keeps its rules.
    pub(crate) fn update(
        &mut self,
        now: Timestamp,
        description: Description,
    ) -> Result<Described, Error> {
        self.advance(now);
        let missing = || Error::EntityNotFound(description.path());
        let path: EntityPath = description.path().parse().map_err(|_| missing())?;
        let at = self.find(&path)?;
        let mut listed = self.listed(at).ok_or_else(missing)?;
        if !self.is_of_kind(at, &description) {
            return Err(Error::EntityExists(description.path()));
        }
        check_unchangeable(&listed.description, &description)?;
        self.check_forwarding(&description)?;
        if moves_messages(&listed.description, &description) {
            self.thaw_entity(at)?;
        }
        match (&mut listed.description, description) {
            (Description::Queue(old), Description::Queue(new)) => {
                *old = Queue {
                    name: std::mem::take(&mut old.name),
                    ..new
                };
            }
            (Description::Topic(old), Description::Topic(new)) => {
                let name = std::mem::take(&mut old.name);
                *old = crate::topology::Topic { name, ..new };
            }
            (
                Description::Subscription { subscription, .. },
                Description::Subscription {
                    subscription: new, ..
                },
            ) => {
                subscription.queue = Queue {
                    name: std::mem::take(&mut subscription.queue.name),
                    ..new.queue
                };
            }
            // It is of the same kind.
            _ => {}
        }
        listed.updated_at = now;
        self.apply_listed(at, listed);
        self.remember_entity(at);
        self.settle_in(now, at);
        if let Some(dead_letters) = self.entities[at.0].dead_letters {
            self.settle_in(now, dead_letters);
        }
        self.advance(now);
        self.describe(&path)
    }

    /// Sets an entity up as it is described.
    pub(super) fn apply_listed(&mut self, at: EntityId, listed: Listed) {
        let (settings, dead_letter_settings) = super::opening::settings(&listed.description);
        if let (Some(dead_letters), Some(settings)) =
            (self.entities[at.0].dead_letters, dead_letter_settings)
        {
            self.set_up(dead_letters, |setup| setup.settings = settings);
        }
        self.set_up(at, |setup| {
            setup.settings = settings;
            if let (Role::Subscription { rules }, Description::Subscription { subscription, .. }) =
                (&mut setup.role, &listed.description)
            {
                rules.clone_from(&subscription.rules);
            }
            setup.listed = Some(listed);
        });
    }

    pub(super) fn is_of_kind(&self, at: EntityId, description: &Description) -> bool {
        match self.entities[at.0].role {
            Role::Queue => matches!(description, Description::Queue(_)),
            Role::Topic { .. } => matches!(description, Description::Topic(_)),
            Role::Subscription { .. } => matches!(description, Description::Subscription { .. }),
            Role::DeadLetterQueue | Role::Deleted => false,
        }
    }

    /// Deletes a queue, a topic with its subscriptions, or a subscription, with all messages.
    pub(crate) fn delete(&mut self, now: Timestamp, path: &EntityPath) -> Result<(), Error> {
        self.advance(now);
        let at = self.find(path)?;
        if path.is_dead_letter() {
            return Err(Error::NotSupported(format!(
                "`{path}` belongs to its entity and cannot be deleted"
            )));
        }
        self.thaw_entity(at)?;
        for key in self.remove_entity(at) {
            self.remember_deleted(key);
        }
        Ok(())
    }

    /// Reads back all that the entity holds. It is needed when it is deleted, since the commit may fail and yet have been
    /// written, and when all messages may have to move.
    fn thaw_entity(&mut self, at: EntityId) -> Result<(), Error> {
        if let Role::Topic { subscriptions } = &self.entities[at.0].role {
            for subscription in subscriptions.clone() {
                self.thaw_entity(subscription)?;
            }
        }
        if let Some(dead_letters) = self.entities[at.0].dead_letters {
            self.thaw_all(dead_letters)?;
        }
        self.thaw_all(at)
    }

    /// Takes an entity out of the list, a topic after its subscriptions; answers what was taken out.
    pub(super) fn remove_entity(&mut self, at: EntityId) -> Vec<Arc<str>> {
        let entity = &self.entities[at.0];
        let parts: Vec<EntityId> = match &entity.role {
            Role::Topic { subscriptions } => subscriptions.clone(),
            _ => Vec::new(),
        };
        let mut removed = Vec::new();
        for part in parts {
            removed.extend(self.remove_entity(part));
        }
        let entity = &self.entities[at.0];
        let (key, quota, dead_letters) =
            (Arc::clone(&entity.key), entity.quota, entity.dead_letters);
        if let Role::Topic { subscriptions } = &self.entities[quota.0].role
            && subscriptions.contains(&at)
        {
            self.set_up(quota, |setup| {
                if let Role::Topic { subscriptions } = &mut setup.role {
                    subscriptions.retain(|subscription| *subscription != at);
                }
            });
        }
        for gone in dead_letters.into_iter().chain([at]) {
            self.bury(gone);
        }
        removed.push(key);
        removed
    }

    /// The rules of a subscription, in the order in which they were added.
    pub(crate) fn rules(&self, subscription: &EntityPath) -> Result<Vec<Rule>, Error> {
        let at = self.subscription(subscription)?;
        Ok(self.rules_at(at).to_vec())
    }

    pub(crate) fn add_rule(
        &mut self,
        now: Timestamp,
        subscription: &EntityPath,
        rule: Rule,
    ) -> Result<Rule, Error> {
        self.advance(now);
        let at = self.subscription(subscription)?;
        if position(self.rules_at(at), &rule.name).is_some() {
            return Err(Error::EntityExists(rule_path(subscription, &rule.name)));
        }
        let rule = Rule {
            created_at: now,
            ..rule
        };
        let added = rule.clone();
        self.change_rules(at, |rules| rules.push(rule));
        Ok(added)
    }

    /// Replaces the filter and the action of a rule.
    pub(crate) fn update_rule(
        &mut self,
        now: Timestamp,
        subscription: &EntityPath,
        rule: Rule,
    ) -> Result<Rule, Error> {
        self.advance(now);
        let at = self.subscription(subscription)?;
        let rules = self.rules_at(at);
        let index = position(rules, &rule.name)
            .ok_or_else(|| Error::EntityNotFound(rule_path(subscription, &rule.name)))?;
        let rule = Rule {
            name: rules[index].name.clone(),
            created_at: rules[index].created_at,
            ..rule
        };
        let changed = rule.clone();
        self.change_rules(at, |rules| rules[index] = rule);
        Ok(changed)
    }

    pub(crate) fn remove_rule(
        &mut self,
        now: Timestamp,
        subscription: &EntityPath,
        name: &str,
    ) -> Result<(), Error> {
        self.advance(now);
        let at = self.subscription(subscription)?;
        let index = position(self.rules_at(at), name)
            .ok_or_else(|| Error::EntityNotFound(rule_path(subscription, name)))?;
        self.change_rules(at, |rules| drop(rules.remove(index)));
        Ok(())
    }

    fn change_rules(&mut self, at: EntityId, change: impl FnOnce(&mut Vec<Rule>)) {
        self.set_up(at, |setup| {
            if let Role::Subscription { rules } = &mut setup.role {
                change(rules);
            }
        });
        self.remember_entity(at);
    }

    fn rules_at(&self, at: EntityId) -> &[Rule] {
        match &self.entities[at.0].role {
            Role::Subscription { rules } => rules,
            _ => &[],
        }
    }

    /// Changes how an entity is set up, and notes how it was.
    fn set_up(&mut self, at: EntityId, change: impl FnOnce(&mut Setup)) {
        let before = self.entities[at.0].setup();
        let mut after = before.clone();
        change(&mut after);
        self.entities[at.0].set_up(after);
        self.journal.set_up(at, before);
    }

    fn topic(&self, name: &str) -> Result<EntityId, Error> {
        self.named(name)
            .filter(|at| self.entities[at.0].is_topic())
            .ok_or_else(|| Error::EntityNotFound(name.to_owned()))
    }

    fn subscription(&self, path: &EntityPath) -> Result<EntityId, Error> {
        let at = self.find(path)?;
        if matches!(self.entities[at.0].role, Role::Subscription { .. }) {
            Ok(at)
        } else {
            Err(Error::NotSupported(format!(
                "`{path}` is not a subscription: it has no rules"
            )))
        }
    }

    /// Why nobody can receive from the entity any more, if that is so.
    pub(crate) fn turns_away(&self, at: EntityId) -> Option<Error> {
        let entity = &self.entities[at.0];
        if matches!(entity.role, Role::Deleted) {
            return Some(Error::EntityNotFound(entity.path.to_string()));
        }
        self.receivable(&entity.path).err()
    }

    /// Every target exists, and nothing is forwarded in a circle that it can never leave.
    fn check_forwarding(&self, description: &Description) -> Result<(), Error> {
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
fn check_unchangeable(old: &Description, new: &Description) -> Result<(), Error> {
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
fn moves_messages(old: &Description, new: &Description) -> bool {
    let (Some(old), Some(new)) = (old.queue(), new.queue()) else {
        return false;
    };
    new.max_delivery_count < old.max_delivery_count
        || new.forward_to.is_some()
        || new.forward_dead_lettered_messages_to.is_some()
}

fn position(rules: &[Rule], name: &str) -> Option<usize> {
    let name = name.to_lowercase();
    rules
        .iter()
        .position(|rule| rule.name.to_lowercase() == name)
}

fn rule_path(subscription: &EntityPath, rule: &str) -> String {
    format!("{subscription}/Rules/{rule}")
}
