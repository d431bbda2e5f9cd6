//! Entities and rules that are created, changed and deleted while the namespace runs.
//!
//! Each is one command: it is checked whole before anything changes, and everything it changes is in the journal, so that
//! it is stored with the commit or undone. An entity that is deleted takes its messages and dead letters with it, a
//! topic its subscriptions; its slot in the list of entities stays empty.

use std::sync::Arc;

use jiff::Timestamp;

use super::{
    Broker,
    checks::{check_unchangeable, moves_messages},
};
use crate::{
    EntityPath, Error,
    description::{Counts, Described, Description, Kind, Listed},
    entity::{EntityId, Role, Setup},
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
        self.check_number(topic)?;
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

    /// Changes how an entity is set up, and notes how it was.
    pub(super) fn set_up(&mut self, at: EntityId, change: impl FnOnce(&mut Setup)) {
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

    /// Why nobody can receive from the entity any more, if that is so.
    pub(crate) fn turns_away(&self, at: EntityId) -> Option<Error> {
        let entity = &self.entities[at.0];
        if entity.is_deleted() {
            return Some(Error::EntityNotFound(entity.path.to_string()));
        }
        self.receivable(&entity.path).err()
    }
}
