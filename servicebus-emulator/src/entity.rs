//! One entity's messages and the indexes over them: what is ready, what is locked, what was seen before.
//!
//! A queue, a topic (which holds scheduled messages only), a subscription and a dead-letter sub-queue are all
//! such an entity. Every change of a message goes through [`Entity::replace`], which gives back what was there
//! before: that is all the broker needs to know what to store and how to undo it.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
    time::Duration,
};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::{
    EntityPath, Message, MessageState, ReceivedMessage, attributes::Status, cold::Cold,
    description::Listed, rule::Rule, sessions::Sessions,
};

/// The place of an entity in the broker's list.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct EntityId(pub(crate) usize);

/// What of a message outlives the process: everything but its lock.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Record {
    /// Shared between the subscriptions that got the same copy.
    #[serde(with = "shared")]
    pub(crate) message: Arc<Message>,
    pub(crate) enqueued_sequence: i64,
    pub(crate) enqueued_time: Timestamp,
    pub(crate) expires_at: Option<Timestamp>,
    /// Until when a scheduled message waits; `None` once it is enqueued.
    pub(crate) scheduled: Option<Timestamp>,
    pub(crate) delivery_count: u32,
    /// How often the message has been forwarded.
    pub(crate) hops: u32,
    pub(crate) dead_letter_source: Option<String>,
    pub(crate) deferred: bool,
}

impl Record {
    /// Whether both have the same stored form; cheap, and rather no than yes.
    pub(crate) fn same(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.message, &other.message)
            && self.scheduled == other.scheduled
            && self.delivery_count == other.delivery_count
            && self.enqueued_time == other.enqueued_time
            && self.expires_at == other.expires_at
            && self.deferred == other.deferred
    }
}

#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Lock {
    pub(crate) token: Uuid,
    pub(crate) until: Timestamp,
}

/// A message where it lies.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Stored {
    pub(crate) record: Record,
    pub(crate) lock: Option<Lock>,
    /// In bytes, as it counts against the quota.
    pub(crate) size: u64,
}

impl Stored {
    pub(crate) fn new(record: Record) -> Self {
        let size = record.message.size() as u64;
        Self {
            record,
            lock: None,
            size,
        }
    }

    pub(crate) fn state(&self) -> MessageState {
        match (&self.record.scheduled, &self.lock) {
            (Some(_), _) => MessageState::Scheduled,
            (None, Some(_)) => MessageState::Locked,
            (None, None) if self.record.deferred => MessageState::Deferred,
            (None, None) => MessageState::Active,
        }
    }

    /// When time itself changes the message: a locked one does not expire while it is locked. A lock that is part of
    /// a session's ends with that.
    fn due(&self, locked_by_session: bool) -> Option<Timestamp> {
        match (self.record.scheduled, self.lock) {
            (Some(due), _) => Some(due),
            (None, Some(_)) if locked_by_session => None,
            (None, Some(lock)) => Some(lock.until),
            (None, None) => self.record.expires_at,
        }
    }

    pub(crate) fn received(&self, sequence_number: i64) -> ReceivedMessage {
        ReceivedMessage {
            message: Message::clone(&self.record.message),
            sequence_number,
            enqueued_sequence_number: self.record.enqueued_sequence,
            enqueued_time: self.record.enqueued_time,
            expires_at: self.record.expires_at,
            delivery_count: self.record.delivery_count,
            lock_token: self.lock.map(|lock| lock.token),
            locked_until: self.lock.map(|lock| lock.until),
            state: self.state(),
            dead_letter_source: self.record.dead_letter_source.clone(),
        }
    }
}

/// What kind of entity it is, with what only that kind has.
#[derive(Debug, Clone)]
pub(crate) enum Role {
    Queue,
    Topic {
        subscriptions: Vec<EntityId>,
    },
    Subscription {
        rules: Vec<Rule>,
    },
    DeadLetterQueue,
    /// What is left of an entity that was deleted.
    Deleted,
}

/// How the entity treats its messages.
#[derive(Debug, Clone)]
pub(crate) struct Settings {
    pub(crate) lock_duration: Duration,
    /// `None` where no number of deliveries moves a message: in a dead-letter queue.
    pub(crate) max_delivery_count: Option<u32>,
    /// Default and ceiling of a message's time to live.
    pub(crate) time_to_live: Option<Duration>,
    pub(crate) dead_letter_expired: bool,
    pub(crate) duplicate_window: Option<Duration>,
    pub(crate) forward_to: Option<String>,
    pub(crate) requires_session: bool,
    pub(crate) status: Status,
    /// In bytes; `None` is the namespace's own limit. It counts at the entity that has the quota.
    pub(crate) max_size: Option<u64>,
}

/// What of an entity is changed without its messages.
#[derive(Debug, Clone)]
pub(crate) struct Setup {
    pub(crate) role: Role,
    pub(crate) settings: Settings,
    pub(crate) listed: Option<Listed>,
}

#[derive(Debug)]
pub(crate) struct Entity {
    pub(crate) path: EntityPath,
    /// The name under which its messages are stored.
    pub(crate) key: Arc<str>,
    pub(crate) role: Role,
    pub(crate) settings: Settings,
    /// How it is described; dead-letter queues are not.
    pub(crate) listed: Option<Listed>,
    /// Its dead-letter sub-queue; topics and dead-letter queues have none.
    pub(crate) dead_letters: Option<EntityId>,
    /// The queue or topic whose maximum size the messages count against.
    pub(crate) quota: EntityId,
    /// The highest sequence number that has been given out.
    pub(crate) last_sequence: i64,
    messages: BTreeMap<i64, Stored>,
    ready: BTreeSet<i64>,
    locks: HashMap<Uuid, i64>,
    deferred: usize,
    /// The size of the messages, in bytes.
    size: u64,
    /// The messages that are in the store only; all that follows leaves them out, except where it says so.
    pub(crate) cold: Cold,
    /// Empty where messages are received without sessions.
    pub(crate) sessions: Sessions,
    /// When each message id was accepted, for duplicate detection.
    seen: HashMap<Arc<str>, Timestamp>,
    seen_by_time: BTreeSet<(Timestamp, Arc<str>)>,
}

impl Entity {
    pub(crate) fn new(path: EntityPath, role: Role, settings: Settings, quota: EntityId) -> Self {
        Self {
            key: path.key().into(),
            path,
            role,
            settings,
            listed: None,
            dead_letters: None,
            quota,
            last_sequence: 0,
            messages: BTreeMap::new(),
            ready: BTreeSet::new(),
            locks: HashMap::new(),
            deferred: 0,
            size: 0,
            cold: Cold::default(),
            sessions: Sessions::default(),
            seen: HashMap::new(),
            seen_by_time: BTreeSet::new(),
        }
    }

    /// The slot of this entity without it.
    pub(crate) fn emptied(&self) -> Self {
        let settings = self.settings.clone();
        Self::new(self.path.clone(), Role::Deleted, settings, self.quota)
    }

    pub(crate) fn is_deleted(&self) -> bool {
        matches!(self.role, Role::Deleted)
    }

    pub(crate) fn setup(&self) -> Setup {
        Setup {
            role: self.role.clone(),
            settings: self.settings.clone(),
            listed: self.listed.clone(),
        }
    }

    pub(crate) fn set_up(&mut self, setup: Setup) {
        self.role = setup.role;
        self.settings = setup.settings;
        self.listed = setup.listed;
    }

    /// The process begins: what is new with it has existed since now.
    pub(crate) fn begin(&mut self, now: Timestamp) {
        if let Some(listed) = &mut self.listed {
            for time in [
                &mut listed.created_at,
                &mut listed.updated_at,
                &mut listed.accessed_at,
            ] {
                if *time == Timestamp::UNIX_EPOCH {
                    *time = now;
                }
            }
        }
        if let Role::Subscription { rules } = &mut self.role {
            for rule in rules {
                if rule.created_at == Timestamp::UNIX_EPOCH {
                    rule.created_at = now;
                }
            }
        }
    }

    /// Something is sent to the entity or received from it.
    pub(crate) fn accessed(&mut self, now: Timestamp) {
        if let Some(listed) = &mut self.listed {
            listed.accessed_at = now;
        }
    }

    pub(crate) fn is_topic(&self) -> bool {
        matches!(self.role, Role::Topic { .. })
    }

    pub(crate) fn get(&self, sequence: i64) -> Option<&Stored> {
        self.messages.get(&sequence)
    }

    /// Puts, changes or (with `None`) removes the message under that number; gives back what was there.
    pub(crate) fn replace(&mut self, sequence: i64, new: Option<Stored>) -> Option<Stored> {
        let state = new.as_ref().map(Stored::state);
        if state == Some(MessageState::Active) {
            self.ready.insert(sequence);
        } else {
            self.ready.remove(&sequence);
        }
        let lock = new.as_ref().and_then(|new| new.lock);
        let session = self.session_of(new.as_ref());
        self.size += new.as_ref().map_or(0, |new| new.size);
        let previous = match new {
            Some(new) => self.messages.insert(sequence, new),
            None => self.messages.remove(&sequence),
        };
        if let Some(previous) = &previous {
            self.size -= previous.size;
            if let Some(lock) = previous.lock {
                self.locks.remove(&lock.token);
            }
            if previous.state() == MessageState::Deferred {
                self.deferred -= 1;
            }
            if let Some(previous) = self.session_of(Some(previous))
                && session.as_ref() != Some(&previous)
            {
                self.sessions.place(&previous, sequence, false, false);
            }
        }
        if let Some(lock) = lock {
            self.locks.insert(lock.token, sequence);
        }
        if state == Some(MessageState::Deferred) {
            self.deferred += 1;
        }
        if let Some(session) = session {
            let is = |wanted| state == Some(wanted);
            let (ready, locked) = (is(MessageState::Active), is(MessageState::Locked));
            self.sessions.place(&session, sequence, ready, locked);
        }
        previous
    }

    /// The session in which the message is received, where the entity has sessions.
    fn session_of(&self, stored: Option<&Stored>) -> Option<Arc<str>> {
        if !self.settings.requires_session {
            return None;
        }
        stored?.record.message.session_id.as_deref().map(Arc::from)
    }

    pub(crate) fn due(&self, stored: &Stored) -> Option<Timestamp> {
        stored.due(self.settings.requires_session)
    }

    /// The next message to deliver: order is by sequence number.
    pub(crate) fn first_ready(&self) -> Option<i64> {
        self.ready.first().copied()
    }

    pub(crate) fn locked_under(&self, token: Uuid) -> Option<i64> {
        self.locks.get(&token).copied()
    }

    pub(crate) fn ready(&self) -> impl Iterator<Item = i64> + '_ {
        self.ready.iter().copied()
    }

    pub(crate) fn messages(&self) -> impl Iterator<Item = (i64, &Stored)> {
        self.messages
            .iter()
            .map(|(sequence, stored)| (*sequence, stored))
    }

    /// How many messages there are, those in the store included.
    pub(crate) fn len(&self) -> usize {
        self.messages.len() + self.cold.len()
    }

    /// How many messages in memory are under no lock.
    pub(crate) fn unheld(&self) -> usize {
        if self.settings.requires_session {
            return 0;
        }
        self.messages.len() - self.locks.len()
    }

    /// In bytes, as the messages count against the quota, those in the store included.
    pub(crate) fn size(&self) -> u64 {
        self.size + self.cold.size()
    }

    /// The messages from that number on, in order.
    pub(crate) fn messages_from(&self, sequence: i64) -> impl Iterator<Item = (i64, &Stored)> {
        self.messages
            .range(sequence..)
            .map(|(sequence, stored)| (*sequence, stored))
    }

    /// Active, locked, scheduled and deferred messages, those in the store included.
    pub(crate) fn counts(&self) -> (usize, usize, usize, usize) {
        let (active, locked) = (self.ready.len() + self.cold.ready(), self.locks.len());
        let deferred = self.deferred + self.cold.deferred();
        let scheduled = self.len() - active - locked - deferred;
        (active, locked, scheduled, deferred)
    }

    pub(crate) fn seen(&self, message_id: &str) -> Option<Timestamp> {
        self.seen.get(message_id).copied()
    }

    /// Remembers or (with `None`) forgets a message id; gives back since when it was known.
    pub(crate) fn remember(
        &mut self,
        message_id: &Arc<str>,
        at: Option<Timestamp>,
    ) -> Option<Timestamp> {
        let previous = match at {
            Some(at) => self.seen.insert(Arc::clone(message_id), at),
            None => self.seen.remove(message_id),
        };
        if let Some(previous) = previous {
            self.seen_by_time
                .remove(&(previous, Arc::clone(message_id)));
        }
        if let Some(at) = at {
            self.seen_by_time.insert((at, Arc::clone(message_id)));
        }
        previous
    }

    /// The message ids that are said to have been accepted after that time.
    pub(crate) fn seen_after(&self, time: Timestamp) -> Vec<Arc<str>> {
        self.seen_by_time
            .iter()
            .rev()
            .take_while(|(seen, _)| *seen > time)
            .map(|(_, message_id)| Arc::clone(message_id))
            .collect()
    }

    pub(crate) fn all_seen(&self) -> impl Iterator<Item = (&Arc<str>, Timestamp)> {
        self.seen.iter().map(|(id, at)| (id, *at))
    }

    pub(crate) fn oldest_seen(&self) -> Option<&(Timestamp, Arc<str>)> {
        self.seen_by_time.first()
    }
}

/// The copies of the message that a subscription gets: one for all matching rules without an action, and
/// one more for each matching rule with one.
/// <https://learn.microsoft.com/azure/service-bus-messaging/topic-filters>
pub(crate) fn copies(rules: &[Rule], message: &Arc<Message>) -> Vec<Arc<Message>> {
    let mut copies = Vec::new();
    let mut has_plain_copy = false;
    for rule in rules.iter().filter(|rule| rule.matches(message)) {
        if rule.has_action() {
            let mut copy = Message::clone(message);
            rule.apply(&mut copy);
            copies.push(Arc::new(copy));
        } else if !has_plain_copy {
            has_plain_copy = true;
            copies.push(Arc::clone(message));
        }
    }
    copies
}

mod shared {
    use std::sync::Arc;

    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    use crate::Message;

    pub(super) fn serialize<S: Serializer>(
        message: &Arc<Message>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        Message::serialize(message, serializer)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Arc<Message>, D::Error> {
        Message::deserialize(deserializer).map(Arc::new)
    }
}
