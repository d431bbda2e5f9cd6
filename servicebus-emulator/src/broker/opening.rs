//! A namespace out of its topology and what the store holds of it, before the first command.

use std::{
    collections::{BTreeSet, HashMap},
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use jiff::Timestamp;

use super::{Broker, Ids};
use crate::{
    EntityPath, Topology,
    entity::{Entity, EntityId, Record, Role, Settings, Stored},
    journal::Journal,
    routing::DeadLetterCause,
    sessions::Held,
    topology::Queue,
};

/// One thing that a store holds.
#[derive(Debug, Clone)]
pub(crate) enum Item {
    Message(String, i64, Record),
    LastSequence(String, i64),
    Seen(String, String, Timestamp),
    SessionState(String, String, Bytes, Timestamp),
}

impl Broker {
    /// The empty namespace, or what is wrong with the topology.
    pub(crate) fn new(topology: &Topology, quota: u64, ids: Ids) -> Result<Self, String> {
        let mut broker = Self {
            entities: Vec::new(),
            by_key: HashMap::new(),
            due: BTreeSet::new(),
            session_due: BTreeSet::new(),
            page_due: BTreeSet::new(),
            frozen: None,
            usage: Vec::new(),
            quota,
            ids,
            journal: Journal::default(),
        };
        for queue in &topology.queues {
            let own = EntityId(broker.entities.len());
            broker.add_queue(&queue.name, Role::Queue, queue, own)?;
        }
        for topic in &topology.topics {
            let settings = Settings {
                lock_duration: Duration::ZERO,
                max_delivery_count: None,
                time_to_live: topic.default_message_time_to_live,
                dead_letter_expired: false,
                duplicate_window: topic.duplicate_detection,
                forward_to: None,
                requires_session: false,
            };
            let own = EntityId(broker.entities.len());
            let subscriptions = Vec::new();
            broker.add(&topic.name, Role::Topic { subscriptions }, settings, own)?;
            let mut added = Vec::new();
            for subscription in &topic.subscriptions {
                let path = format!("{}/Subscriptions/{}", topic.name, subscription.queue.name);
                let rules = subscription.rules.clone();
                let role = Role::Subscription { rules };
                added.push(broker.add_queue(&path, role, &subscription.queue, own)?);
            }
            if let Role::Topic { subscriptions } = &mut broker.entities[own.0].role {
                *subscriptions = added;
            }
        }
        Ok(broker)
    }

    fn add_queue(
        &mut self,
        path: &str,
        role: Role,
        queue: &Queue,
        quota: EntityId,
    ) -> Result<EntityId, String> {
        let settings = Settings {
            lock_duration: queue.lock_duration,
            max_delivery_count: Some(queue.max_delivery_count),
            time_to_live: queue.default_message_time_to_live,
            dead_letter_expired: queue.dead_lettering_on_message_expiration,
            duplicate_window: queue.duplicate_detection,
            forward_to: queue.forward_to.clone(),
            requires_session: queue.requires_session,
        };
        let dead_letter_settings = Settings {
            max_delivery_count: None,
            time_to_live: None,
            dead_letter_expired: false,
            duplicate_window: None,
            forward_to: queue.forward_dead_lettered_messages_to.clone(),
            // Dead letters are received without sessions.
            requires_session: false,
            ..settings.clone()
        };
        let own = self.add(path, role, settings, quota)?;
        let dead_letters = self.add(
            &format!("{path}/$deadletterqueue"),
            Role::DeadLetterQueue,
            dead_letter_settings,
            quota,
        )?;
        self.entities[own.0].dead_letters = Some(dead_letters);
        Ok(own)
    }

    fn add(
        &mut self,
        path: &str,
        role: Role,
        settings: Settings,
        quota: EntityId,
    ) -> Result<EntityId, String> {
        let path: EntityPath = path.parse().map_err(|error| format!("{error}"))?;
        let id = EntityId(self.entities.len());
        let entity = Entity::new(path, role, settings, quota);
        if self.by_key.insert(Arc::clone(&entity.key), id).is_some() {
            return Err(format!("`{}` is there twice", entity.path));
        }
        self.entities.push(entity);
        self.usage.push(0);
        Ok(id)
    }

    /// Takes in what the store holds; messages come by entity and number. Messages of an entity that the topology does
    /// not have (any more) are not dropped: the path of that entity is the error.
    pub(crate) fn load(&mut self, item: Item) -> Result<(), String> {
        match item {
            Item::Message(key, sequence, record) => self.load_message(key, sequence, record)?,
            Item::LastSequence(key, sequence) => {
                if let Some(at) = self.by_key.get(key.as_str()) {
                    let last = &mut self.entities[at.0].last_sequence;
                    *last = sequence.max(*last);
                }
            }
            Item::Seen(key, message_id, seen) => {
                if let Some(at) = self.by_key.get(key.as_str()) {
                    self.entities[at.0].remember(&message_id.into(), Some(seen));
                }
            }
            Item::SessionState(key, session, state, updated) => {
                if let Some(at) = self.by_key.get(key.as_str()).copied() {
                    let held = Held {
                        lock: None,
                        state: Some(state),
                        updated: Some(updated),
                    };
                    self.swap_session(at, &session.into(), held);
                }
            }
        }
        Ok(())
    }

    fn load_message(&mut self, key: String, sequence: i64, record: Record) -> Result<(), String> {
        let Some(at) = self.by_key.get(key.as_str()).copied() else {
            return Err(key);
        };
        let entity = &mut self.entities[at.0];
        if entity.is_topic() && record.scheduled.is_none() {
            return Err(key);
        }
        entity.last_sequence = sequence.max(entity.last_sequence);
        let used_up =
            (entity.settings.max_delivery_count).is_some_and(|most| record.delivery_count >= most);
        let moves_on = entity.settings.forward_to.is_some();
        let stored = Stored::new(record);
        // What [`Self::resume`] has to look at is kept in memory.
        if used_up || moves_on || !self.load_frozen(at, sequence, &stored) {
            self.swap(at, sequence, Some(stored));
        }
        Ok(())
    }

    /// Carries out, after loading, what the end of the last process left open: its locks have ended, and the
    /// topology may have changed since.
    pub(crate) fn resume(&mut self, now: Timestamp) {
        for at in (0..self.entities.len()).map(EntityId) {
            let ready: Vec<i64> = self.entities[at.0].ready().collect();
            for sequence in ready {
                if let Some(deliveries) = self.deliveries_used_up(at, sequence) {
                    let cause = DeadLetterCause::max_delivery_count(deliveries);
                    self.move_to_dead_letters(now, at, sequence, cause);
                } else if self.lacks_session(at, sequence) {
                    let cause = DeadLetterCause::session_id_is_null();
                    self.move_to_dead_letters(now, at, sequence, cause);
                } else if self.can_move_on(at, sequence) {
                    self.move_on(now, at, sequence);
                }
            }
            // The clock has been set back since: an id from the future would be remembered too long.
            for message_id in self.entities[at.0].seen_after(now) {
                self.remember(at, message_id, Some(now));
            }
            self.prune_seen(now, at);
        }
        self.advance(now);
    }

    /// Whether nobody could ever receive the message.
    fn lacks_session(&self, at: EntityId, sequence: i64) -> bool {
        let entity = &self.entities[at.0];
        entity.settings.requires_session
            && entity
                .get(sequence)
                .is_some_and(|stored| stored.record.message.session_id.is_none())
    }

    fn can_move_on(&self, at: EntityId, sequence: i64) -> bool {
        let entity = &self.entities[at.0];
        let (Some(target), Some(stored)) = (&entity.settings.forward_to, entity.get(sequence))
        else {
            return false;
        };
        // What a dead-letter queue cannot forward stays there; elsewhere it becomes a dead letter.
        !entity.path.is_dead_letter()
            || self
                .destination(target, &stored.record.clone().into())
                .is_ok()
    }
}
