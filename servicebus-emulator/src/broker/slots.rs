//! Whole entities in the broker's list: put there, taken out, and put back when a commit fails.
//!
//! What is deleted leaves an empty slot behind, so that an [`EntityId`] means the same until all is committed; after that
//! nobody has one of an entity that is gone. The slots at the end are given back then, the others used again.

use std::sync::Arc;

use super::Broker;
use crate::{
    EntityPath,
    description::{Description, Listed, Remembered},
    entity::{Entity, EntityId, Role, Settings},
};

impl Broker {
    /// Adds an entity as it is described, with its dead-letter queue. A subscription is not yet known to its topic.
    pub(super) fn add_described(&mut self, listed: Listed) -> Result<EntityId, String> {
        let (settings, dead_letter_settings) = super::opening::settings(&listed.description);
        let path = listed.description.path();
        let (role, quota) = match &listed.description {
            Description::Queue(_) => (Role::Queue, None),
            Description::Topic(_) => {
                let subscriptions = Vec::new();
                (Role::Topic { subscriptions }, None)
            }
            Description::Subscription {
                topic,
                subscription,
            } => {
                let rules = subscription.rules.clone();
                (Role::Subscription { rules }, self.named(topic))
            }
        };
        let at = self.add(&path, role, settings, quota, Some(listed))?;
        if let Some(settings) = dead_letter_settings {
            let path = format!("{path}/$deadletterqueue");
            let quota = Some(quota.unwrap_or(at));
            let dead_letters = self.add(&path, Role::DeadLetterQueue, settings, quota, None)?;
            self.entities[at.0].dead_letters = Some(dead_letters);
        }
        Ok(at)
    }

    fn add(
        &mut self,
        path: &str,
        role: Role,
        settings: Settings,
        quota: Option<EntityId>,
        listed: Option<Listed>,
    ) -> Result<EntityId, String> {
        let path: EntityPath = path.parse().map_err(|error| format!("{error}"))?;
        if self.find(&path).is_ok() {
            return Err(format!("`{path}` is there twice"));
        }
        let free = self.free_slots.pop();
        let at = free.unwrap_or(EntityId(self.entities.len()));
        let mut entity = Entity::new(path, role, settings, quota.unwrap_or(at));
        entity.listed = listed;
        // The slot has the new name even if this is taken back: that is what a failed commit may have left behind.
        if free.is_some() {
            self.entities[at.0] = entity.emptied();
        } else {
            self.entities.push(entity.emptied());
            self.usage.push(0);
        }
        self.replace_entity(at, entity);
        Ok(at)
    }

    /// Takes an entity out of the list, with all that it holds.
    pub(super) fn bury(&mut self, at: EntityId) {
        let empty = self.entities[at.0].emptied();
        self.replace_entity(at, empty);
    }

    fn replace_entity(&mut self, at: EntityId, entity: Entity) {
        let previous = self.swap_entity(at, entity);
        self.journal.replaced(at, previous);
    }

    /// Replaces what is in the slot, and in the indexes over all entities.
    pub(crate) fn swap_entity(&mut self, at: EntityId, new: Entity) -> Entity {
        let previous = std::mem::replace(&mut self.entities[at.0], new);
        for (sequence, stored) in previous.messages() {
            if let Some(due) = previous.due(stored) {
                self.due.remove(&(due, at, sequence));
            }
        }
        for (session, until) in previous.sessions.locks() {
            self.session_due.remove(&(until, at, session));
        }
        self.usage[previous.quota.0] -= previous.size();
        if self.by_key.get(&previous.key) == Some(&at) {
            self.by_key.remove(&previous.key);
        }
        let entity = &self.entities[at.0];
        for (sequence, stored) in entity.messages() {
            if let Some(due) = entity.due(stored) {
                self.due.insert((due, at, sequence));
            }
        }
        for (session, until) in entity.sessions.locks() {
            self.session_due.insert((until, at, session));
        }
        self.usage[entity.quota.0] += entity.size();
        if entity.is_deleted() {
            self.empty_slots.insert(at);
        } else {
            self.empty_slots.remove(&at);
            self.by_key.insert(Arc::clone(&entity.key), at);
        }
        previous
    }

    /// Gives back the empty slots at the end of the list and frees the others, once nothing can fill them again.
    pub(crate) fn release_slots(&mut self) {
        while self.entities.last().is_some_and(Entity::is_deleted) {
            self.entities.pop();
            self.usage.pop();
            self.empty_slots.remove(&EntityId(self.entities.len()));
        }
        self.free_slots.clear();
        self.free_slots.extend(self.empty_slots.iter().rev());
    }

    /// Has it stored how the entity is described now.
    pub(super) fn remember_entity(&mut self, at: EntityId) {
        let key = Arc::clone(&self.entities[at.0].key);
        let record = self.listed(at).map(|listed| Remembered {
            in_file: self.in_file.get(&key).cloned(),
            now: Some(listed),
        });
        self.note(key, record);
    }

    /// Has it stored that the entity is gone, as long as the topology file would bring it back.
    pub(super) fn remember_deleted(&mut self, key: Arc<str>) {
        let record = self.in_file.get(&key).map(|in_file| Remembered {
            in_file: Some(in_file.clone()),
            now: None,
        });
        self.note(key, record);
    }

    pub(super) fn note(&mut self, key: Arc<str>, record: Option<Remembered>) {
        let previous = self.swap_remembered(&key, record);
        self.journal.remembered(key, previous);
    }

    pub(crate) fn remembered(&self, key: &str) -> Option<&Remembered> {
        self.remembered.get(key)
    }

    pub(crate) fn swap_remembered(
        &mut self,
        key: &Arc<str>,
        record: Option<Remembered>,
    ) -> Option<Remembered> {
        match record {
            Some(record) => self.remembered.insert(Arc::clone(key), record),
            None => self.remembered.remove(key),
        }
    }
}
