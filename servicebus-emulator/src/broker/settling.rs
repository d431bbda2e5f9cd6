//! What becomes of messages under a lock: each way to settle them, the end of locks, and transactions.

use std::sync::Arc;

use jiff::Timestamp;
use uuid::Uuid;

use super::{Broker, after};
use crate::{
    Changes, EntityPath, Error, Operation, Settlement,
    entity::{EntityId, Lock, Stored},
    routing::DeadLetterCause,
};

/// The longest dead-letter reason or description, in characters; the .NET client has the same limit.
const MAX_DEAD_LETTER_TEXT: usize = 4096;

impl Broker {
    pub(crate) fn settle(
        &mut self,
        now: Timestamp,
        from: &EntityPath,
        token: Uuid,
        settlement: Settlement,
    ) -> Result<(), Error> {
        let (at, sequence) = self.locked(now, from, token)?;
        match settlement {
            Settlement::Complete => self.put(at, sequence, None),
            Settlement::Release => {
                self.take_back(at, sequence);
                self.advance(now);
            }
            Settlement::Abandon { changes } => {
                self.modify(at, sequence, changes)?;
                self.unlock(now, at, sequence);
                // It may have expired under the lock.
                self.advance(now);
            }
            Settlement::Defer { changes } => {
                self.modify(at, sequence, changes)?;
                if let Some(mut stored) = self.entities[at.0].get(sequence).cloned() {
                    stored.lock = None;
                    stored.record.deferred = true;
                    self.put(at, sequence, Some(stored));
                    self.advance(now);
                }
            }
            Settlement::DeadLetter {
                reason,
                description,
                changes,
            } => {
                if from.is_dead_letter() {
                    return Err(Error::NotSupported(format!(
                        "`{from}` holds dead letters: they cannot be dead-lettered again"
                    )));
                }
                let cause = DeadLetterCause {
                    reason: reason.unwrap_or_default(),
                    description: description.unwrap_or_default(),
                };
                if [&cause.reason, &cause.description]
                    .iter()
                    .any(|text| text.chars().count() > MAX_DEAD_LETTER_TEXT)
                {
                    return Err(Error::InvalidMessage(format!(
                        "a dead-letter reason or description is longer than {MAX_DEAD_LETTER_TEXT} characters"
                    )));
                }
                self.modify(at, sequence, changes)?;
                self.move_to_dead_letters(now, at, sequence, cause);
            }
        }
        Ok(())
    }

    pub(crate) fn complete(
        &mut self,
        now: Timestamp,
        from: &EntityPath,
        token: Uuid,
    ) -> Result<(), Error> {
        self.settle(now, from, token, Settlement::Complete)
    }

    pub(crate) fn abandon(
        &mut self,
        now: Timestamp,
        from: &EntityPath,
        token: Uuid,
    ) -> Result<(), Error> {
        let changes = Changes::new();
        self.settle(now, from, token, Settlement::Abandon { changes })
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

    /// Carries out all of the operations, in order, or none.
    pub(crate) fn transact(
        &mut self,
        now: Timestamp,
        operations: Vec<Operation>,
    ) -> Result<(), Error> {
        self.advance(now);
        let before = self.savepoint();
        let outcome = operations
            .into_iter()
            .try_for_each(|operation| match operation {
                Operation::Send { to, messages } => self.send(now, &to, messages),
                Operation::Settle {
                    from,
                    lock_token,
                    settlement,
                } => self.settle(now, &from, lock_token, settlement),
            });
        if outcome.is_err() {
            self.roll_back_to(before);
        }
        outcome
    }

    /// Sets application properties of a message that is given back.
    fn modify(&mut self, at: EntityId, sequence: i64, changes: Changes) -> Result<(), Error> {
        if changes.is_empty() {
            return Ok(());
        }
        let Some(mut stored) = self.entities[at.0].get(sequence).cloned() else {
            return Ok(());
        };
        let message = Arc::make_mut(&mut stored.record.message);
        message.properties.extend(changes);
        message.check().map_err(Error::InvalidMessage)?;
        let modified = Stored {
            lock: stored.lock,
            ..Stored::new(stored.record)
        };
        self.put(at, sequence, Some(modified));
        Ok(())
    }

    /// Ends the lock: the message waits at its old place, or has been delivered often enough.
    pub(crate) fn unlock(&mut self, now: Timestamp, at: EntityId, sequence: i64) {
        if let Some(deliveries) = self.deliveries_used_up(at, sequence) {
            let cause = DeadLetterCause::max_delivery_count(deliveries);
            self.move_to_dead_letters(now, at, sequence, cause);
        } else if let Some(mut stored) = self.entities[at.0].get(sequence).cloned() {
            stored.lock = None;
            self.put(at, sequence, Some(stored));
        }
    }

    /// The delivery count, if it has reached the maximum.
    pub(crate) fn deliveries_used_up(&self, at: EntityId, sequence: i64) -> Option<u32> {
        let entity = &self.entities[at.0];
        let deliveries = entity.get(sequence)?.record.delivery_count;
        (deliveries >= entity.settings.max_delivery_count?).then_some(deliveries)
    }

    pub(crate) fn locked(
        &mut self,
        now: Timestamp,
        from: &EntityPath,
        token: Uuid,
    ) -> Result<(EntityId, i64), Error> {
        self.advance(now);
        let at = self.find(from)?;
        let entity = &self.entities[at.0];
        let lost = if entity.settings.requires_session {
            Error::SessionLockLost
        } else {
            Error::MessageLockLost
        };
        let sequence = entity.locked_under(token).ok_or(lost)?;
        Ok((at, sequence))
    }
}
