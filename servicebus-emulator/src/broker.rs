//! All entities of a namespace as one pure state machine.
//!
//! Every command takes the time and carries out first what has become due until then: schedules, lock expiry,
//! message expiry. It answers at once; what must be stored before the answer may be told to anyone is in
//! [`Broker::changes`](crate::journal). There is no clock, no randomness of its own and no input or output here.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
    time::Duration,
};

use jiff::Timestamp;
use uuid::Uuid;

use crate::{
    EntityCounts, EntityPath, Error, Limits, Message, MessageState,
    description::{Description, Remembered},
    entity::{Entity, EntityId, Record, Role, Stored},
    journal::Journal,
    routing::{Arrival, DeadLetterCause},
    sessions::Held,
};

mod administration;
mod checks;
mod freezing;
mod opening;
mod receiving;
mod rules;
mod session_locks;
mod settling;
mod slots;

#[cfg(test)]
mod administration_laws;
#[cfg(test)]
mod administration_tests;
#[cfg(test)]
mod freezing_tests;
#[cfg(test)]
mod laws;
#[cfg(test)]
mod model;
#[cfg(test)]
mod random;
#[cfg(test)]
mod receiver_tests;
#[cfg(test)]
mod tests;

pub(crate) use freezing::Frozen;
pub(crate) use opening::Item;

/// Where message ids and lock tokens come from.
pub(crate) type Ids = Box<dyn FnMut() -> Uuid + Send>;

pub(crate) struct Broker {
    pub(crate) entities: Vec<Entity>,
    /// The slots of [`Self::entities`] in which nothing is, and those of them that can be used again.
    empty_slots: BTreeSet<EntityId>,
    free_slots: Vec<EntityId>,
    by_key: HashMap<Arc<str>, EntityId>,
    /// When time itself changes a message.
    due: BTreeSet<(Timestamp, EntityId, i64)>,
    /// When the lock of a session ends.
    session_due: BTreeSet<(Timestamp, EntityId, Arc<str>)>,
    /// When something of a page of an entity that lies in the store only is due.
    page_due: BTreeSet<(Timestamp, EntityId, i64)>,
    frozen: Option<Frozen>,
    /// The bytes that count against the quota of each entity.
    usage: Vec<u64>,
    limits: Limits,
    /// What the topology file says of each entity that it names.
    in_file: HashMap<Arc<str>, Description>,
    /// What the management API has made of entities.
    remembered: BTreeMap<Arc<str>, Remembered>,
    ids: Ids,
    pub(crate) journal: Journal,
}

impl Broker {
    /// When [`Self::advance`] will next have something to do.
    pub(crate) fn next_due(&self) -> Option<Timestamp> {
        let message = self.due.first().map(|(due, ..)| *due);
        let session = self.session_due.first().map(|(due, ..)| *due);
        let page = self.next_page_due().map(|(due, ..)| due);
        message.into_iter().chain(session).chain(page).min()
    }

    /// Carries out what time alone brings: scheduled messages are enqueued, locks end, messages expire.
    pub(crate) fn advance(&mut self, now: Timestamp) {
        self.advance_part(now, usize::MAX);
    }

    /// As [`Self::advance`], up to `most` things; answers whether there are more.
    pub(crate) fn advance_part(&mut self, now: Timestamp, most: usize) -> bool {
        let mut done = 0;
        while let Some(next) = self.next_due()
            && next <= now
        {
            if done == most {
                return true;
            }
            done += 1;
            // What is in memory comes first, so that no more is read than is dealt with.
            if let Some(&(due, at, sequence)) = self.due.first()
                && due == next
            {
                self.carry_out(now, at, sequence);
            } else if let Some((due, at, session)) = self.session_due.first()
                && *due == next
            {
                let (at, session) = (*at, Arc::clone(session));
                self.end_session(now, at, &session);
            } else if let Some((_, at, first)) = self.next_page_due() {
                // What cannot be read stays due: the owner tries again later.
                if self.thaw(at, first).is_err() {
                    return false;
                }
            }
        }
        false
    }

    /// What is due for one message.
    fn carry_out(&mut self, now: Timestamp, at: EntityId, sequence: i64) {
        let entity = &self.entities[at.0];
        let Some(stored) = entity.get(sequence).cloned() else {
            self.due.pop_first();
            return;
        };
        match stored.state() {
            MessageState::Scheduled => {
                self.put(at, sequence, None);
                // It is as if it were sent now: it gets a new number.
                self.enqueue(now, at, Arrival::new(stored.record.message));
            }
            MessageState::Locked => self.unlock(now, at, sequence),
            MessageState::Active | MessageState::Deferred
                if entity.settings.dead_letter_expired =>
            {
                self.move_to_dead_letters(now, at, sequence, DeadLetterCause::expired());
            }
            MessageState::Active | MessageState::Deferred => self.put(at, sequence, None),
        }
    }

    /// Takes all of the messages or none.
    pub(crate) fn send(
        &mut self,
        now: Timestamp,
        to: &EntityPath,
        messages: Vec<Message>,
    ) -> Result<(), Error> {
        let (at, messages) = self.acceptable(now, to, messages)?;
        for message in messages {
            if self.is_duplicate(now, at, &message) {
                continue;
            }
            match message.scheduled_enqueue_time {
                Some(due) if due > now => {
                    self.schedule_one(now, at, message, due);
                }
                _ => self.enqueue(now, at, Arrival::new(Arc::new(message))),
            }
        }
        Ok(())
    }

    /// Takes all of the messages or none, each for its time; answers the sequence numbers by which they can be
    /// cancelled. A duplicate, which is not kept, has 0.
    pub(crate) fn schedule(
        &mut self,
        now: Timestamp,
        to: &EntityPath,
        messages: Vec<Message>,
    ) -> Result<Vec<i64>, Error> {
        let (at, messages) = self.acceptable(now, to, messages)?;
        let mut sequences = Vec::new();
        for message in messages {
            sequences.push(if self.is_duplicate(now, at, &message) {
                0
            } else {
                let due = message.scheduled_enqueue_time.unwrap_or(now);
                self.schedule_one(now, at, message, due)
            });
        }
        self.advance(now);
        Ok(sequences)
    }

    /// Takes back all of those scheduled messages or none.
    pub(crate) fn cancel_scheduled(
        &mut self,
        now: Timestamp,
        entity: &EntityPath,
        sequences: &[i64],
    ) -> Result<(), Error> {
        self.advance(now);
        let at = self.find(entity)?;
        for sequence in sequences {
            self.thaw_message(at, *sequence)?;
            let stored = self.entities[at.0].get(*sequence);
            if stored.map(Stored::state) != Some(MessageState::Scheduled) {
                return Err(Error::MessageNotFound(format!(
                    "there is no scheduled message with the sequence number {sequence} in `{entity}`"
                )));
            }
        }
        for sequence in sequences {
            self.put(at, *sequence, None);
        }
        Ok(())
    }

    /// The entity with that path, if messages can be sent to it.
    pub(crate) fn sendable(&self, to: &EntityPath) -> Result<EntityId, Error> {
        let at = self.find(to)?;
        let entity = &self.entities[at.0];
        if matches!(
            entity.role,
            Role::Subscription { .. } | Role::DeadLetterQueue
        ) {
            return Err(Error::NotSupported(format!(
                "`{to}` takes messages from its topic or queue only: nothing can be sent to it"
            )));
        }
        if !entity.settings.status.takes_messages() {
            return Err(Error::EntityDisabled(to.to_string()));
        }
        Ok(at)
    }

    /// Checks what is sent, and gives ids to the messages without one.
    fn acceptable(
        &mut self,
        now: Timestamp,
        to: &EntityPath,
        mut messages: Vec<Message>,
    ) -> Result<(EntityId, Vec<Message>), Error> {
        self.advance(now);
        let at = self.sendable(to)?;
        self.entities[at.0].accessed(now);
        let entity = &self.entities[at.0];
        let mut size = 0;
        for message in &mut messages {
            if message.message_id.is_none() {
                message.message_id = Some((self.ids)().simple().to_string());
            }
            message.check().map_err(Error::InvalidMessage)?;
            if entity.settings.requires_session && message.session_id.is_none() {
                return Err(Error::InvalidMessage(format!(
                    "`{to}` requires sessions, and the message has no SessionId"
                )));
            }
            size += message.size();
        }
        // A batch travels as one message, and has the same limit.
        let limit = self.limits.max_message_size;
        if size > limit {
            return Err(Error::MessageTooLarge {
                entity: to.to_string(),
                limit,
            });
        }
        if !self.has_room(at, size as u64) {
            return Err(Error::QuotaExceeded(to.to_string()));
        }
        Ok((at, messages))
    }

    fn schedule_one(
        &mut self,
        now: Timestamp,
        at: EntityId,
        message: Message,
        due: Timestamp,
    ) -> i64 {
        let sequence = self.next_sequence(at);
        let record = Record {
            message: Arc::new(message),
            enqueued_sequence: sequence,
            enqueued_time: now,
            expires_at: None,
            scheduled: Some(due),
            delivery_count: 0,
            hops: 0,
            dead_letter_source: None,
            deferred: false,
        };
        self.put(at, sequence, Some(Stored::new(record)));
        sequence
    }

    /// Every queue, topic and subscription, by name.
    pub(crate) fn entities(&self) -> Vec<EntityCounts> {
        let mut counts: Vec<EntityCounts> = self
            .entities
            .iter()
            .filter(|entity| !entity.is_deleted() && !entity.path.is_dead_letter())
            .map(|entity| {
                let (active, locked, scheduled, deferred) = entity.counts();
                let dead_letter = entity
                    .dead_letters
                    .map_or(0, |at| self.entities[at.0].len());
                EntityCounts {
                    name: entity.path.to_string(),
                    active,
                    locked,
                    scheduled,
                    deferred,
                    dead_letter,
                }
            })
            .collect();
        counts.sort_by(|one, other| one.name.cmp(&other.name));
        counts
    }

    /// Whether the entity detects duplicates and has accepted the message id within its window; if not, the
    /// id is remembered. The window is counted from the first message and does not ask whether that one
    /// is still there. Ids are compared exactly: Azure documents no other way.
    /// <https://learn.microsoft.com/azure/service-bus-messaging/duplicate-detection>
    pub(crate) fn is_duplicate(&mut self, now: Timestamp, at: EntityId, message: &Message) -> bool {
        let entity = &self.entities[at.0];
        let (Some(_), Some(message_id)) = (entity.settings.duplicate_window, &message.message_id)
        else {
            return false;
        };
        self.prune_seen(now, at);
        if self.entities[at.0].seen(message_id).is_some() {
            return true;
        }
        self.remember(at, message_id.as_str().into(), Some(now));
        false
    }

    /// Forgets the message ids that have left the window of duplicate detection.
    fn prune_seen(&mut self, now: Timestamp, at: EntityId) {
        loop {
            let entity = &self.entities[at.0];
            let Some((seen, message_id)) = entity.oldest_seen() else {
                return;
            };
            let window = entity.settings.duplicate_window;
            if window.is_some_and(|window| after(*seen, window) > now) {
                return;
            }
            let message_id = Arc::clone(message_id);
            self.remember(at, message_id, None);
        }
    }

    pub(crate) fn has_room(&self, at: EntityId, size: u64) -> bool {
        let at = self.entities[at.0].quota;
        let own = self.entities[at.0].settings.max_size;
        self.usage[at.0].saturating_add(size) <= own.unwrap_or(self.limits.entity_quota)
    }

    /// Replaces a message in its entity and in the indexes over all entities.
    pub(crate) fn swap(
        &mut self,
        at: EntityId,
        sequence: i64,
        new: Option<Stored>,
    ) -> Option<Stored> {
        let entity = &mut self.entities[at.0];
        let due = new.as_ref().and_then(|new| entity.due(new));
        let size = new.as_ref().map_or(0, |new| new.size);
        let previous = entity.replace(sequence, new);
        let usage = &mut self.usage[entity.quota.0];
        *usage += size;
        if let Some(previous) = &previous {
            *usage -= previous.size;
            if let Some(due) = entity.due(previous) {
                self.due.remove(&(due, at, sequence));
            }
        }
        if let Some(due) = due {
            self.due.insert((due, at, sequence));
        }
        previous
    }

    /// Replaces the lock and the state of a session.
    pub(crate) fn swap_session(&mut self, at: EntityId, session: &Arc<str>, held: Held) -> Held {
        let until = held.lock.map(|lock| lock.until);
        let previous = self.entities[at.0].sessions.hold(session, held);
        if let Some(lock) = previous.lock {
            self.session_due
                .remove(&(lock.until, at, Arc::clone(session)));
        }
        if let Some(until) = until {
            self.session_due.insert((until, at, Arc::clone(session)));
        }
        previous
    }

    /// The entity with that name, in any case.
    pub(crate) fn named(&self, name: &str) -> Option<EntityId> {
        let path: EntityPath = name.parse().ok()?;
        self.by_key.get(path.key().as_str()).copied()
    }

    pub(crate) fn find(&self, path: &EntityPath) -> Result<EntityId, Error> {
        self.by_key
            .get(path.key().as_str())
            .copied()
            .ok_or_else(|| Error::EntityNotFound(path.to_string()))
    }
}

fn after(time: Timestamp, duration: Duration) -> Timestamp {
    time.checked_add(duration).unwrap_or(Timestamp::MAX)
}
