//! All entities of a namespace as one pure state machine.
//!
//! Every command takes the time and carries out first what has become due until then: schedules, lock expiry,
//! message expiry. It answers at once; what must be stored before the answer may be told to anyone is in
//! [`Broker::changes`](crate::journal). There is no clock, no randomness of its own and no input or output here.

use std::{
    collections::{BTreeSet, HashMap},
    sync::Arc,
    time::Duration,
};

use jiff::Timestamp;
use uuid::Uuid;

use crate::{
    EntityCounts, EntityPath, Error, MAX_MESSAGE_SIZE, Message, MessageState, ReceiveMode,
    ReceivedMessage,
    entity::{Entity, EntityId, Lock, Record, Role, Stored},
    journal::Journal,
    routing::{Arrival, DeadLetterCause},
};

mod opening;

#[cfg(test)]
mod laws;
#[cfg(test)]
mod model;
#[cfg(test)]
mod random;
#[cfg(test)]
mod tests;

pub(crate) use opening::Contents;

/// The longest dead-letter reason or description, in characters; the .NET client has the same limit.
const MAX_DEAD_LETTER_TEXT: usize = 4096;

/// Where message ids and lock tokens come from.
pub(crate) type Ids = Box<dyn FnMut() -> Uuid + Send>;

pub(crate) struct Broker {
    pub(crate) entities: Vec<Entity>,
    by_key: HashMap<Arc<str>, EntityId>,
    /// When time itself changes a message.
    due: BTreeSet<(Timestamp, EntityId, i64)>,
    /// The bytes that count against the quota of each entity.
    usage: Vec<u64>,
    /// The maximum size of a queue or topic, in bytes.
    quota: u64,
    ids: Ids,
    pub(crate) journal: Journal,
}

impl Broker {
    /// When [`Self::advance`] will next have something to do.
    pub(crate) fn next_due(&self) -> Option<Timestamp> {
        self.due.first().map(|(due, _, _)| *due)
    }

    /// Carries out what time alone brings: scheduled messages are enqueued, locks end, messages expire.
    pub(crate) fn advance(&mut self, now: Timestamp) {
        while let Some(&(due, at, sequence)) = self.due.first()
            && due <= now
        {
            let entity = &self.entities[at.0];
            let Some(stored) = entity.get(sequence).cloned() else {
                self.due.pop_first();
                continue;
            };
            match stored.state() {
                MessageState::Scheduled => {
                    self.put(at, sequence, None);
                    // It is as if it were sent now: it gets a new number.
                    self.enqueue(now, at, Arrival::new(stored.record.message));
                }
                MessageState::Locked => self.unlock(now, at, sequence),
                MessageState::Active if entity.settings.dead_letter_expired => {
                    self.move_to_dead_letters(now, at, sequence, DeadLetterCause::expired());
                }
                MessageState::Active => self.put(at, sequence, None),
            }
        }
    }

    /// Takes all of the messages or none.
    pub(crate) fn send(
        &mut self,
        now: Timestamp,
        to: &EntityPath,
        mut messages: Vec<Message>,
    ) -> Result<(), Error> {
        self.advance(now);
        let at = self.find(to)?;
        if matches!(
            self.entities[at.0].role,
            Role::Subscription { .. } | Role::DeadLetterQueue
        ) {
            return Err(Error::NotSupported(format!(
                "`{to}` takes messages from its topic or queue only: nothing can be sent to it"
            )));
        }
        let mut size = 0;
        for message in &mut messages {
            if message.message_id.is_none() {
                message.message_id = Some((self.ids)().simple().to_string());
            }
            message.check().map_err(Error::InvalidMessage)?;
            size += message.size();
        }
        // A batch travels as one message, and has the same limit.
        if size > MAX_MESSAGE_SIZE {
            return Err(Error::MessageTooLarge {
                entity: to.to_string(),
                limit: MAX_MESSAGE_SIZE,
            });
        }
        if !self.has_room(at, size as u64) {
            return Err(Error::QuotaExceeded(to.to_string()));
        }
        for message in messages {
            if self.is_duplicate(now, at, &message) {
                continue;
            }
            match message.scheduled_enqueue_time {
                Some(due) if due > now => self.schedule(now, at, message, due),
                _ => self.enqueue(now, at, Arrival::new(Arc::new(message))),
            }
        }
        Ok(())
    }

    fn schedule(&mut self, now: Timestamp, at: EntityId, message: Message, due: Timestamp) {
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
        };
        self.put(at, sequence, Some(Stored::new(record)));
    }

    /// The next message: locked, or removed; `None` when there is none.
    pub(crate) fn receive(
        &mut self,
        now: Timestamp,
        from: &EntityPath,
        mode: ReceiveMode,
    ) -> Result<Option<ReceivedMessage>, Error> {
        self.advance(now);
        let at = self.receivable(from)?;
        let entity = &self.entities[at.0];
        let Some(sequence) = entity.first_ready() else {
            return Ok(None);
        };
        let Some(mut stored) = entity.get(sequence).cloned() else {
            return Ok(None);
        };
        stored.record.delivery_count = stored.record.delivery_count.saturating_add(1);
        let received = match mode {
            ReceiveMode::PeekLock => {
                stored.lock = Some(Lock {
                    until: after(now, entity.settings.lock_duration),
                    token: (self.ids)(),
                });
                let received = stored.received(sequence);
                self.put(at, sequence, Some(stored));
                received
            }
            ReceiveMode::ReceiveAndDelete => {
                self.put(at, sequence, None);
                stored.received(sequence)
            }
        };
        Ok(Some(received))
    }

    /// The entity with that path, if messages can be received from it.
    pub(crate) fn receivable(&self, from: &EntityPath) -> Result<EntityId, Error> {
        let at = self.find(from)?;
        let entity = &self.entities[at.0];
        if entity.is_topic() {
            return Err(Error::NotSupported(format!(
                "`{from}` is a topic: messages are received from its subscriptions"
            )));
        }
        // Azure refuses a receiver on an entity with auto-forwarding.
        if let Some(target) = &entity.settings.forward_to
            && !from.is_dead_letter()
        {
            return Err(Error::NotSupported(format!(
                "`{from}` forwards its messages to `{target}`: they are received there"
            )));
        }
        Ok(at)
    }

    /// Whether a receiver would get a message at once.
    pub(crate) fn is_ready(&self, at: EntityId) -> bool {
        self.entities[at.0].first_ready().is_some()
    }

    pub(crate) fn complete(
        &mut self,
        now: Timestamp,
        from: &EntityPath,
        token: Uuid,
    ) -> Result<(), Error> {
        let (at, sequence) = self.locked(now, from, token)?;
        self.put(at, sequence, None);
        Ok(())
    }

    /// Makes the message available again at its old place, or dead-letters it when it has been delivered
    /// as often as it may.
    pub(crate) fn abandon(
        &mut self,
        now: Timestamp,
        from: &EntityPath,
        token: Uuid,
    ) -> Result<(), Error> {
        let (at, sequence) = self.locked(now, from, token)?;
        self.unlock(now, at, sequence);
        // It may have expired under the lock.
        self.advance(now);
        Ok(())
    }

    pub(crate) fn renew_lock(
        &mut self,
        now: Timestamp,
        from: &EntityPath,
        token: Uuid,
    ) -> Result<Timestamp, Error> {
        let (at, sequence) = self.locked(now, from, token)?;
        let entity = &self.entities[at.0];
        let until = after(now, entity.settings.lock_duration);
        if let Some(mut stored) = entity.get(sequence).cloned() {
            stored.lock = Some(Lock { token, until });
            self.put(at, sequence, Some(stored));
        }
        Ok(until)
    }

    pub(crate) fn dead_letter(
        &mut self,
        now: Timestamp,
        from: &EntityPath,
        token: Uuid,
        reason: &str,
        description: &str,
    ) -> Result<(), Error> {
        let (at, sequence) = self.locked(now, from, token)?;
        if from.is_dead_letter() {
            return Err(Error::NotSupported(format!(
                "`{from}` holds dead letters: they cannot be dead-lettered again"
            )));
        }
        if [reason, description]
            .iter()
            .any(|text| text.chars().count() > MAX_DEAD_LETTER_TEXT)
        {
            return Err(Error::InvalidMessage(format!(
                "a dead-letter reason or description is longer than {MAX_DEAD_LETTER_TEXT} characters"
            )));
        }
        let cause = DeadLetterCause {
            reason: reason.to_owned(),
            description: description.to_owned(),
        };
        self.move_to_dead_letters(now, at, sequence, cause);
        Ok(())
    }

    /// Takes back a delivery that reached nobody: it does not count.
    pub(crate) fn undelivered(&mut self, now: Timestamp, from: &EntityPath, token: Uuid) {
        if let Ok((at, sequence)) = self.locked(now, from, token)
            && let Some(mut stored) = self.entities[at.0].get(sequence).cloned()
        {
            stored.lock = None;
            stored.record.delivery_count -= 1;
            self.put(at, sequence, Some(stored));
            self.advance(now);
        }
    }

    /// Every queue, topic and subscription, by name.
    pub(crate) fn entities(&self) -> Vec<EntityCounts> {
        let mut counts: Vec<EntityCounts> = self
            .entities
            .iter()
            .filter(|entity| !entity.path.is_dead_letter())
            .map(|entity| {
                let (active, locked, scheduled) = entity.counts();
                let dead_letter = entity
                    .dead_letters
                    .map_or(0, |at| self.entities[at.0].len());
                EntityCounts {
                    name: entity.path.to_string(),
                    active,
                    locked,
                    scheduled,
                    dead_letter,
                }
            })
            .collect();
        counts.sort_by(|one, other| one.name.cmp(&other.name));
        counts
    }

    /// The next message that would be delivered, as it is; as of the last [`Self::advance`].
    pub(crate) fn peek(&self, from: &EntityPath) -> Result<Option<ReceivedMessage>, Error> {
        let entity = &self.entities[self.receivable(from)?.0];
        Ok(entity
            .first_ready()
            .and_then(|sequence| Some(entity.get(sequence)?.received(sequence))))
    }

    /// The messages of the entity in that state, by sequence number.
    pub(crate) fn browse(
        &self,
        entity: &EntityPath,
        state: MessageState,
    ) -> Result<Vec<ReceivedMessage>, Error> {
        let at = self.find(entity)?;
        Ok(self.entities[at.0]
            .messages()
            .filter(|(_, stored)| stored.state() == state)
            .map(|(sequence, stored)| ReceivedMessage {
                lock_token: None,
                locked_until: None,
                ..stored.received(sequence)
            })
            .collect())
    }

    /// Ends the lock: the message waits at its old place, or has been delivered often enough.
    fn unlock(&mut self, now: Timestamp, at: EntityId, sequence: i64) {
        if let Some(deliveries) = self.deliveries_used_up(at, sequence) {
            let cause = DeadLetterCause::max_delivery_count(deliveries);
            self.move_to_dead_letters(now, at, sequence, cause);
        } else if let Some(mut stored) = self.entities[at.0].get(sequence).cloned() {
            stored.lock = None;
            self.put(at, sequence, Some(stored));
        }
    }

    /// The delivery count, if it has reached the maximum.
    fn deliveries_used_up(&self, at: EntityId, sequence: i64) -> Option<u32> {
        let entity = &self.entities[at.0];
        let deliveries = entity.get(sequence)?.record.delivery_count;
        (deliveries >= entity.settings.max_delivery_count?).then_some(deliveries)
    }

    fn locked(
        &mut self,
        now: Timestamp,
        from: &EntityPath,
        token: Uuid,
    ) -> Result<(EntityId, i64), Error> {
        self.advance(now);
        let at = self.find(from)?;
        self.entities[at.0]
            .locked_under(token)
            .map(|sequence| (at, sequence))
            .ok_or(Error::MessageLockLost)
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
        self.usage[self.entities[at.0].quota.0].saturating_add(size) <= self.quota
    }

    /// Replaces a message in its entity and in the indexes over all entities.
    pub(crate) fn swap(
        &mut self,
        at: EntityId,
        sequence: i64,
        new: Option<Stored>,
    ) -> Option<Stored> {
        let entity = &mut self.entities[at.0];
        let due = new.as_ref().and_then(Stored::due);
        let size = new.as_ref().map_or(0, |new| new.size);
        let previous = entity.replace(sequence, new);
        let usage = &mut self.usage[entity.quota.0];
        *usage += size;
        if let Some(previous) = &previous {
            *usage -= previous.size;
            if let Some(due) = previous.due() {
                self.due.remove(&(due, at, sequence));
            }
        }
        if let Some(due) = due {
            self.due.insert((due, at, sequence));
        }
        previous
    }

    /// The entity with that name, in any case.
    pub(crate) fn named(&self, name: &str) -> Option<EntityId> {
        let path: EntityPath = name.parse().ok()?;
        self.by_key.get(path.key().as_str()).copied()
    }

    fn find(&self, path: &EntityPath) -> Result<EntityId, Error> {
        self.by_key
            .get(path.key().as_str())
            .copied()
            .ok_or_else(|| Error::EntityNotFound(path.to_string()))
    }
}

fn after(time: Timestamp, duration: Duration) -> Timestamp {
    time.checked_add(duration).unwrap_or(Timestamp::MAX)
}
