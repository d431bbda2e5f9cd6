//! Messages on their way to receivers: received, received by number, looked at, and taken back when nobody got them.

use std::collections::BTreeSet;

use jiff::Timestamp;
use uuid::Uuid;

use super::{Broker, after};
use crate::{
    EntityPath, Error, MessageState, ReceiveMode, ReceivedMessage,
    entity::{EntityId, Lock, Record, Stored},
};

/// How many bytes of messages are handed out at once, unless the first one alone is larger.
const MAX_BYTES: u64 = 1 << 20;

impl Broker {
    /// The next message: locked, or removed; `None` when there is none.
    pub(crate) fn receive(
        &mut self,
        now: Timestamp,
        from: &EntityPath,
        mode: ReceiveMode,
    ) -> Result<Option<ReceivedMessage>, Error> {
        Ok(self.receive_batch(now, from, mode, None, 1)?.pop())
    }

    /// The next messages, up to that many. Where the entity requires sessions, they are those of the session that is
    /// held with the token.
    pub(crate) fn receive_batch(
        &mut self,
        now: Timestamp,
        from: &EntityPath,
        mode: ReceiveMode,
        session: Option<Uuid>,
        most: usize,
    ) -> Result<Vec<ReceivedMessage>, Error> {
        self.advance(now);
        let at = self.receivable(from)?;
        self.check_session_use(at, session.is_some())?;
        self.entities[at.0].accessed(now);
        let mut received = Vec::new();
        let mut bytes = 0;
        while received.len() < most {
            let sequence = match self.first_ready(at, session) {
                Ok(Some(sequence)) => sequence,
                Ok(None) => break,
                // Those that have been taken are delivered all the same.
                Err(_) if !received.is_empty() => break,
                Err(error) => return Err(error),
            };
            let Some(stored) = self.entities[at.0].get(sequence).cloned() else {
                break;
            };
            bytes += stored.size;
            if bytes > MAX_BYTES && !received.is_empty() {
                break;
            }
            received.push(self.deliver(now, at, mode, sequence, stored));
        }
        Ok(received)
    }

    /// The deferred messages with those sequence numbers, all or none. Where the entity requires sessions, the
    /// receiver holds theirs.
    pub(crate) fn receive_deferred(
        &mut self,
        now: Timestamp,
        from: &EntityPath,
        mode: ReceiveMode,
        session: Option<Uuid>,
        sequences: &[i64],
    ) -> Result<Vec<ReceivedMessage>, Error> {
        self.advance(now);
        let at = self.receivable(from)?;
        self.check_session_use(at, session.is_some())?;
        let session = match session {
            Some(token) => Some(self.held_session(now, from, token)?.1),
            None => None,
        };
        let session = session.as_deref();
        let mut found = Vec::new();
        let mut named = BTreeSet::new();
        // In the order in which they are named, and one that is named twice once.
        for sequence in sequences.iter().filter(|sequence| named.insert(**sequence)) {
            self.thaw_message(at, *sequence)?;
            let stored = self.entities[at.0].get(*sequence).filter(|stored| {
                let message_session = stored.record.message.session_id.as_deref();
                stored.state() == MessageState::Deferred
                    && (session.is_none() || session == message_session)
            });
            let stored = stored.cloned().ok_or_else(|| {
                Error::MessageNotFound(format!(
                    "there is no deferred message with the sequence number {sequence} in `{from}`"
                ))
            })?;
            found.push((*sequence, stored));
        }
        Ok(found
            .into_iter()
            .map(|(sequence, stored)| self.deliver(now, at, mode, sequence, stored))
            .collect())
    }

    fn deliver(
        &mut self,
        now: Timestamp,
        at: EntityId,
        mode: ReceiveMode,
        sequence: i64,
        mut stored: Stored,
    ) -> ReceivedMessage {
        stored.record.delivery_count = stored.record.delivery_count.saturating_add(1);
        match mode {
            ReceiveMode::PeekLock => {
                let entity = &self.entities[at.0];
                let session = stored.record.message.session_id.as_deref();
                let session = session.and_then(|session| entity.sessions.held(session).lock);
                stored.lock = Some(Lock {
                    // A message that is received in a session is locked as long as that.
                    until: session.map_or_else(
                        || after(now, entity.settings.lock_duration),
                        |lock| lock.until,
                    ),
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
        }
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
        if !entity.settings.status.gives_messages() {
            return Err(Error::EntityDisabled(from.to_string()));
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

    /// A receiver of an entity that requires sessions has one, and no other receiver has.
    pub(crate) fn check_session_use(&self, at: EntityId, in_session: bool) -> Result<(), Error> {
        let entity = &self.entities[at.0];
        match (entity.settings.requires_session, in_session) {
            // In the service's words.
            (true, false) => Err(Error::NotSupported(format!(
                "it is not possible for an entity that requires sessions to create a non-sessionful message \
                 receiver: `{}`",
                entity.path
            ))),
            (false, true) => Err(Error::NotSupported(format!(
                "a sessionful message receiver cannot be created on an entity that does not require sessions: `{}`",
                entity.path
            ))),
            _ => Ok(()),
        }
    }

    /// The first message that a receiver would get; in a session, that is an error once it is not held any more.
    fn first_ready(&mut self, at: EntityId, session: Option<Uuid>) -> Result<Option<i64>, Error> {
        let Some(token) = session else {
            return self.thaw_first_ready(at);
        };
        let entity = &self.entities[at.0];
        let session = entity.sessions.under(token).ok_or(Error::SessionLockLost)?;
        Ok(entity.sessions.first_ready(session))
    }

    /// Whether a receiver would get an answer at once: a message, or that its session is lost, or that nothing can be read.
    pub(crate) fn is_ready(&mut self, at: EntityId, session: Option<Uuid>) -> bool {
        !matches!(self.first_ready(at, session), Ok(None))
    }

    /// Takes back deliveries that reached nobody: they do not count.
    pub(crate) fn undelivered(
        &mut self,
        now: Timestamp,
        from: &EntityPath,
        messages: Vec<ReceivedMessage>,
    ) {
        self.advance(now);
        let Ok(at) = self.find(from) else { return };
        for received in messages {
            match received.lock_token {
                Some(token) => {
                    if let Some(sequence) = self.entities[at.0].locked_under(token) {
                        self.take_back(at, sequence);
                    }
                }
                // The entity may be another one of that name by now.
                None if received.sequence_number > self.entities[at.0].last_sequence
                    || self.entities[at.0].get(received.sequence_number).is_some() => {}
                None => {
                    let record = Record {
                        message: received.message.into(),
                        enqueued_sequence: received.enqueued_sequence_number,
                        enqueued_time: received.enqueued_time,
                        expires_at: received.expires_at,
                        scheduled: None,
                        delivery_count: received.delivery_count - 1,
                        hops: 0,
                        dead_letter_source: received.dead_letter_source,
                        deferred: received.state == MessageState::Deferred,
                    };
                    self.put(at, received.sequence_number, Some(Stored::new(record)));
                }
            }
        }
        self.advance(now);
    }

    /// Ends a lock as if the message had never been delivered.
    pub(crate) fn take_back(&mut self, at: EntityId, sequence: i64) {
        if let Some(mut stored) = self.entities[at.0].get(sequence).cloned() {
            stored.lock = None;
            stored.record.delivery_count = stored.record.delivery_count.saturating_sub(1);
            self.put(at, sequence, Some(stored));
        }
    }

    /// The next message that would be delivered, as it is; as of the last [`Self::advance`].
    pub(crate) fn peek(&mut self, from: &EntityPath) -> Result<Option<ReceivedMessage>, Error> {
        let at = self.receivable(from)?;
        let first = self.thaw_first_ready(at)?;
        let entity = &self.entities[at.0];
        Ok(first.and_then(|sequence| Some(entity.get(sequence)?.received(sequence))))
    }

    /// The messages from that sequence number on, whatever their state, as they are; of one session, if one is given.
    pub(crate) fn peek_batch(
        &mut self,
        from: &EntityPath,
        from_sequence: i64,
        most: usize,
        session: Option<&str>,
    ) -> Result<Vec<ReceivedMessage>, Error> {
        let at = self.receivable(from)?;
        if session.is_some() && !self.entities[at.0].settings.requires_session {
            // Which session a message was sent in says nothing here, and to look for it would be to read everything.
            return Err(Error::NotSupported(format!(
                "`{from}` does not require sessions: its messages are not peeked at by session"
            )));
        }
        let mut peeked = Vec::new();
        let mut bytes = 0;
        let mut next = from_sequence;
        while peeked.len() < most {
            self.thaw_up_to_next(at, next)?;
            let Some((sequence, stored)) = self.entities[at.0].messages_from(next).next() else {
                break;
            };
            next = sequence + 1;
            if session.is_some() && session != stored.record.message.session_id.as_deref() {
                continue;
            }
            bytes += stored.size;
            if bytes > MAX_BYTES && !peeked.is_empty() {
                break;
            }
            peeked.push(unlocked(stored.received(sequence)));
        }
        Ok(peeked)
    }

    /// The messages of the entity in that state, by sequence number.
    pub(crate) fn browse(
        &mut self,
        entity: &EntityPath,
        state: MessageState,
    ) -> Result<Vec<ReceivedMessage>, Error> {
        let at = self.find(entity)?;
        self.thaw_all(at)?;
        self.in_memory(entity, state)
    }

    /// As [`Self::browse`], without what lies in the store only.
    pub(crate) fn in_memory(
        &self,
        entity: &EntityPath,
        state: MessageState,
    ) -> Result<Vec<ReceivedMessage>, Error> {
        let at = self.find(entity)?;
        Ok(self.entities[at.0]
            .messages()
            .filter(|(_, stored)| stored.state() == state)
            .map(|(sequence, stored)| unlocked(stored.received(sequence)))
            .collect())
    }
}

/// Who only looks at a message does not learn its lock token.
fn unlocked(received: ReceivedMessage) -> ReceivedMessage {
    ReceivedMessage {
        lock_token: None,
        locked_until: None,
        ..received
    }
}
