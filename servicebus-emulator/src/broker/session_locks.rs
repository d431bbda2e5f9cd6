//! Sessions and their locks: accepted, renewed, released, lost.
//!
//! Whoever has accepted a session is the only one to receive its messages until the lock ends. When it runs out, the
//! deliveries under it count; when its holder closes it, they do not.
//! <https://learn.microsoft.com/azure/service-bus-messaging/message-sessions#impact-of-delivery-count>

use std::sync::Arc;

use bytes::Bytes;
use jiff::Timestamp;
use uuid::Uuid;

use super::{Broker, after};
use crate::{
    AcceptedSession, EntityPath, Error,
    entity::{EntityId, Lock},
    sessions::Held,
};

/// The longest session id, in characters.
const MAX_SESSION_ID: usize = 128;

/// The largest state of a session, in bytes: a message's size in the Standard tier.
const MAX_STATE: usize = 262_144;

impl Broker {
    /// Locks that session, or without a name the next one that has messages and is free; `None` when there is none.
    pub(crate) fn accept_session(
        &mut self,
        now: Timestamp,
        from: &EntityPath,
        session_id: Option<&str>,
    ) -> Result<Option<AcceptedSession>, Error> {
        self.advance(now);
        let at = self.receivable(from)?;
        self.check_session_use(at, true)?;
        let entity = &self.entities[at.0];
        let session: Arc<str> = match session_id {
            Some(id) if id.chars().count() > MAX_SESSION_ID => {
                return Err(Error::NotSupported(format!(
                    "a session id is longer than {MAX_SESSION_ID} characters"
                )));
            }
            Some(id) => id.into(),
            None => match entity.sessions.next_available() {
                Some(session) => session,
                None => return Ok(None),
            },
        };
        let held = entity.sessions.held(&session);
        if held.lock.is_some() {
            return Err(Error::SessionCannotBeLocked(session.to_string()));
        }
        let until = after(now, entity.settings.lock_duration);
        let token = (self.ids)();
        let lock = Some(Lock { token, until });
        self.hold(at, &session, Held { lock, ..held });
        Ok(Some(AcceptedSession {
            session_id: session.to_string(),
            token,
            locked_until: until,
        }))
    }

    /// Whether a receiver that waits for any session would get one.
    pub(crate) fn has_session(&self, at: EntityId) -> bool {
        self.entities[at.0].sessions.next_available().is_some()
    }

    /// Its holder closes the session: what it has not settled is available again, as if it had not been delivered.
    pub(crate) fn release_session(&mut self, now: Timestamp, from: &EntityPath, token: Uuid) {
        self.advance(now);
        let Ok(at) = self.find(from) else { return };
        let sessions = &self.entities[at.0].sessions;
        let Some(session) = sessions.under(token).map(Arc::clone) else {
            return;
        };
        for sequence in sessions.locked(&session) {
            self.take_back(at, sequence);
        }
        self.unhold(at, &session);
        self.advance(now);
    }

    /// The session's lock has run out.
    pub(crate) fn end_session(&mut self, now: Timestamp, at: EntityId, session: &Arc<str>) {
        for sequence in self.entities[at.0].sessions.locked(session) {
            self.unlock(now, at, sequence);
        }
        self.unhold(at, session);
    }

    fn unhold(&mut self, at: EntityId, session: &Arc<str>) {
        let held = self.entities[at.0].sessions.held(session);
        self.hold(at, session, Held { lock: None, ..held });
    }

    pub(crate) fn renew_session_lock(
        &mut self,
        now: Timestamp,
        from: &EntityPath,
        token: Uuid,
    ) -> Result<Timestamp, Error> {
        let (at, session, held) = self.held_session(now, from, token)?;
        let until = after(now, self.entities[at.0].settings.lock_duration);
        let lock = held.lock.map(|lock| Lock { until, ..lock });
        self.hold(at, &session, Held { lock, ..held });
        Ok(until)
    }

    pub(crate) fn session_state(
        &mut self,
        now: Timestamp,
        from: &EntityPath,
        token: Uuid,
    ) -> Result<Option<Bytes>, Error> {
        let (_, _, held) = self.held_session(now, from, token)?;
        Ok(held.state)
    }

    pub(crate) fn set_session_state(
        &mut self,
        now: Timestamp,
        from: &EntityPath,
        token: Uuid,
        state: Option<Bytes>,
    ) -> Result<(), Error> {
        let (at, session, held) = self.held_session(now, from, token)?;
        if state.as_ref().is_some_and(|state| state.len() > MAX_STATE) {
            return Err(Error::MessageTooLarge {
                entity: from.to_string(),
                limit: MAX_STATE,
            });
        }
        let updated = state.is_some().then_some(now);
        let lock = held.lock;
        let held = Held {
            lock,
            state,
            updated,
        };
        self.hold(at, &session, held);
        Ok(())
    }

    /// The sessions that have messages, or whose state was set after that time.
    pub(crate) fn sessions(
        &self,
        from: &EntityPath,
        updated_since: Option<Timestamp>,
        skip: usize,
        most: usize,
    ) -> Result<Vec<String>, Error> {
        let at = self.receivable(from)?;
        self.check_session_use(at, true)?;
        let ids = self.entities[at.0].sessions.ids(updated_since);
        Ok(ids.skip(skip).take(most).map(|id| id.to_string()).collect())
    }

    /// The session that is held with that token, if it still is.
    pub(crate) fn held_session(
        &mut self,
        now: Timestamp,
        from: &EntityPath,
        token: Uuid,
    ) -> Result<(EntityId, Arc<str>, Held), Error> {
        self.advance(now);
        let at = self.receivable(from)?;
        self.check_session_use(at, true)?;
        let sessions = &self.entities[at.0].sessions;
        let session = sessions.under(token).ok_or(Error::SessionLockLost)?;
        Ok((at, Arc::clone(session), sessions.held(session)))
    }
}
