//! What the commands since the last commit have changed, to be stored or taken back as a whole.
//!
//! The journal keeps what each change replaced. Before a commit, [`Broker::changes`] says what the store
//! must do; after it, the journal is emptied with [`Broker::committed`] or undone with [`Broker::roll_back`].

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use bytes::Bytes;
use jiff::Timestamp;

use crate::{
    broker::Broker,
    description::Remembered,
    entity::{Entity, EntityId, Record, Setup, Stored},
    sessions::Held,
};

/// One thing the store must do.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Change {
    Put {
        entity: Arc<str>,
        sequence: i64,
        record: Record,
    },
    Remove {
        entity: Arc<str>,
        sequence: i64,
    },
    /// The highest sequence number given out, so that none is given out twice.
    LastSequence {
        entity: Arc<str>,
        sequence: i64,
    },
    /// A message id was accepted at that time.
    Seen {
        entity: Arc<str>,
        message_id: Arc<str>,
        at: Timestamp,
    },
    Forget {
        entity: Arc<str>,
        message_id: Arc<str>,
    },
    /// Everything of the entity is gone: messages, numbers, ids that were seen, session states.
    Clear {
        entity: Arc<str>,
    },
    /// What the management API has made of the entity; `None` where that no longer counts.
    Remember {
        entity: Arc<str>,
        record: Option<Box<Remembered>>,
    },
    /// A session's state, and when it was set; `None` where it has none any more.
    SessionState {
        entity: Arc<str>,
        session: Arc<str>,
        state: Option<(Bytes, Timestamp)>,
    },
}

/// What changed, and what was there before.
#[derive(Debug)]
enum Undo {
    Message(EntityId, i64, Option<Stored>),
    LastSequence(EntityId, i64),
    Seen(EntityId, Arc<str>, Option<Timestamp>),
    Session(EntityId, Arc<str>, Held),
    /// What was in the slot.
    Entity(EntityId, Box<Entity>),
    /// How the entity was set up; nothing of that is stored as such.
    Setup(EntityId, Box<Setup>),
    Remembered(Arc<str>, Box<Option<Remembered>>),
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Place {
    Entity(EntityId),
    Message(EntityId, i64),
    LastSequence(EntityId),
    Seen(EntityId, Arc<str>),
    Session(EntityId, Arc<str>),
    Remembered(Arc<str>),
}

impl Undo {
    /// What of the store it is about, if anything.
    fn place(&self) -> Option<Place> {
        Some(match self {
            Self::Message(at, sequence, _) => Place::Message(*at, *sequence),
            Self::LastSequence(at, _) => Place::LastSequence(*at),
            Self::Seen(at, message_id, _) => Place::Seen(*at, Arc::clone(message_id)),
            Self::Session(at, session, _) => Place::Session(*at, Arc::clone(session)),
            Self::Entity(at, _) => Place::Entity(*at),
            Self::Setup(..) => return None,
            Self::Remembered(key, _) => Place::Remembered(Arc::clone(key)),
        })
    }
}

#[derive(Debug, Default)]
pub(crate) struct Journal {
    undo: Vec<Undo>,
    /// Where a failed commit may have left something in the store all the same: an error does not say
    /// that nothing was written. The next commit writes these places again.
    suspect: BTreeSet<Place>,
}

impl Journal {
    pub(crate) fn replaced(&mut self, at: EntityId, previous: Entity) {
        self.undo.push(Undo::Entity(at, Box::new(previous)));
    }

    pub(crate) fn set_up(&mut self, at: EntityId, previous: Setup) {
        self.undo.push(Undo::Setup(at, Box::new(previous)));
    }

    pub(crate) fn remembered(&mut self, key: Arc<str>, previous: Option<Remembered>) {
        self.undo.push(Undo::Remembered(key, Box::new(previous)));
    }

    /// Forgets how entities were and how they were set up: there is nothing of that to be cleared or taken back.
    pub(crate) fn keep_remembered(&mut self) {
        self.undo
            .retain(|undo| matches!(undo, Undo::Remembered(..)));
    }

    /// The messages in that range that have changed since the last commit, or may have in the store without our knowledge.
    pub(crate) fn touched(&self, at: EntityId, first: i64, last: i64) -> BTreeSet<i64> {
        let suspect = self
            .suspect
            .range(Place::Message(at, first)..=Place::Message(at, last))
            .filter_map(|place| match place {
                Place::Message(_, sequence) => Some(*sequence),
                _ => None,
            });
        let changed = self.undo.iter().filter_map(|undo| match undo {
            Undo::Message(of, sequence, _) if *of == at && (first..=last).contains(sequence) => {
                Some(*sequence)
            }
            _ => None,
        });
        suspect.chain(changed).collect()
    }
}

impl Broker {
    /// Puts, changes or removes a message, in all indexes, and notes what was there.
    pub(crate) fn put(&mut self, at: EntityId, sequence: i64, new: Option<Stored>) {
        let previous = self.swap(at, sequence, new);
        self.journal
            .undo
            .push(Undo::Message(at, sequence, previous));
    }

    pub(crate) fn next_sequence(&mut self, at: EntityId) -> i64 {
        let entity = &mut self.entities[at.0];
        self.journal
            .undo
            .push(Undo::LastSequence(at, entity.last_sequence));
        entity.last_sequence += 1;
        entity.last_sequence
    }

    pub(crate) fn remember(&mut self, at: EntityId, message_id: Arc<str>, seen: Option<Timestamp>) {
        let previous = self.entities[at.0].remember(&message_id, seen);
        self.journal.undo.push(Undo::Seen(at, message_id, previous));
    }

    /// Sets lock and state of a session, and notes what was there.
    pub(crate) fn hold(&mut self, at: EntityId, session: &Arc<str>, held: Held) {
        let previous = self.swap_session(at, session, held);
        let undo = Undo::Session(at, Arc::clone(session), previous);
        self.journal.undo.push(undo);
    }

    /// Where a transaction begins: [`Self::roll_back_to`] takes back what comes after it.
    pub(crate) fn savepoint(&self) -> usize {
        self.journal.undo.len()
    }

    /// Takes back everything since the savepoint; nothing of it has been stored.
    pub(crate) fn roll_back_to(&mut self, savepoint: usize) {
        for undo in self.journal.undo.split_off(savepoint).into_iter().rev() {
            self.take_back_change(undo);
        }
    }

    /// What the store must do so that it holds what memory holds. Locks are not stored, and what came and
    /// went since the last commit never reaches the store.
    pub(crate) fn changes(&self) -> Vec<Change> {
        let mut before = BTreeMap::new();
        for undo in &self.journal.undo {
            if let Some(place) = undo.place() {
                before.entry(place).or_insert(Some(undo));
            }
        }
        for place in &self.journal.suspect {
            before.insert(place.clone(), None);
        }
        let mut changes = self.cleared(&before);
        changes.extend(
            before
                .into_iter()
                .filter_map(|(place, before)| self.change(place, before)),
        );
        changes
    }

    /// What has to be done for whole entities, before anything else: several slots may have had the same name, and
    /// what is cleared must be so before the last of them is written. One that is new is cleared too: an entity of that
    /// name that has left the topology file may have left something behind.
    fn cleared(&self, before: &BTreeMap<Place, Option<&Undo>>) -> Vec<Change> {
        let mut clear = BTreeSet::new();
        let mut whole = Vec::new();
        for (place, before) in before {
            let Place::Entity(at) = place else { continue };
            let entity = &self.entities[at.0];
            let was_there = match before {
                Some(Undo::Entity(_, before)) => !before.is_deleted(),
                _ => true,
            };
            if was_there || !entity.is_deleted() {
                clear.insert(Arc::clone(&entity.key));
            }
            if !entity.is_deleted() {
                whole.push(*at);
            }
        }
        let clear = clear.into_iter().map(|entity| Change::Clear { entity });
        let whole = whole.into_iter().flat_map(|at| self.everything(at));
        clear.chain(whole).collect()
    }

    /// All that is stored of an entity.
    fn everything(&self, at: EntityId) -> impl Iterator<Item = Change> + '_ {
        let entity = &self.entities[at.0];
        let key = &entity.key;
        let messages = entity.messages().map(|(sequence, stored)| Change::Put {
            entity: Arc::clone(key),
            sequence,
            record: stored.record.clone(),
        });
        let last_sequence = (entity.last_sequence > 0).then(|| Change::LastSequence {
            entity: Arc::clone(key),
            sequence: entity.last_sequence,
        });
        let seen = entity.all_seen().map(|(message_id, at)| Change::Seen {
            entity: Arc::clone(key),
            message_id: Arc::clone(message_id),
            at,
        });
        let sessions = entity.sessions.all_held();
        let sessions = sessions.map(|(session, held)| Change::SessionState {
            entity: Arc::clone(key),
            session: Arc::clone(session),
            state: held.state.clone().zip(held.updated),
        });
        messages.chain(last_sequence).chain(seen).chain(sessions)
    }

    fn change(&self, place: Place, before: Option<&Undo>) -> Option<Change> {
        let slot = match &place {
            Place::Message(at, _)
            | Place::LastSequence(at)
            | Place::Seen(at, _)
            | Place::Session(at, _) => Some(at),
            Place::Entity(_) | Place::Remembered(_) => None,
        };
        // What was in an entity that is gone has been cleared.
        if slot.is_some_and(|at| self.entities[at.0].is_deleted()) {
            return None;
        }
        match place {
            Place::Entity(_) => None,
            Place::Remembered(entity) => {
                let now = self.remembered(&entity);
                if let Some(Undo::Remembered(_, before)) = before
                    && (**before).as_ref() == now
                {
                    return None;
                }
                let record = now.cloned().map(Box::new);
                Some(Change::Remember { entity, record })
            }
            Place::Message(at, sequence) => {
                let entity = &self.entities[at.0];
                let now = entity.get(sequence).map(|stored| &stored.record);
                if let Some(Undo::Message(_, _, before)) = before {
                    match (before, now) {
                        (None, None) => return None,
                        (Some(before), Some(now)) if before.record.same(now) => return None,
                        _ => {}
                    }
                }
                let entity = Arc::clone(&entity.key);
                Some(match now {
                    Some(record) => Change::Put {
                        entity,
                        sequence,
                        record: record.clone(),
                    },
                    None => Change::Remove { entity, sequence },
                })
            }
            Place::LastSequence(at) => {
                let entity = &self.entities[at.0];
                Some(Change::LastSequence {
                    entity: Arc::clone(&entity.key),
                    sequence: entity.last_sequence,
                })
            }
            Place::Seen(at, message_id) => {
                let entity = &self.entities[at.0];
                let now = entity.seen(&message_id);
                if let Some(Undo::Seen(_, _, before)) = before
                    && *before == now
                {
                    return None;
                }
                let entity = Arc::clone(&entity.key);
                Some(match now {
                    Some(at) => Change::Seen {
                        entity,
                        message_id,
                        at,
                    },
                    None => Change::Forget { entity, message_id },
                })
            }
            Place::Session(at, session) => {
                let entity = &self.entities[at.0];
                let now = entity.sessions.held(&session);
                if let Some(Undo::Session(_, _, before)) = before
                    && before.state == now.state
                    && before.updated == now.updated
                {
                    return None;
                }
                Some(Change::SessionState {
                    entity: Arc::clone(&entity.key),
                    session,
                    state: now.state.zip(now.updated),
                })
            }
        }
    }

    /// The changes are in the store.
    pub(crate) fn committed(&mut self) {
        self.journal.undo.clear();
        let is_repair = !self.journal.suspect.is_empty();
        self.journal.suspect.clear();
        // Someone may still wait at an entity that was to be created with the commit that failed, and is sent away
        // before the next one.
        if !is_repair {
            self.release_slots();
        }
        self.freeze();
    }

    /// The changes could not be stored: memory is again as it was after the last commit.
    pub(crate) fn roll_back(&mut self) {
        let journal = std::mem::take(&mut self.journal);
        let mut suspect = journal.suspect;
        for undo in journal.undo.into_iter().rev() {
            suspect.extend(undo.place());
            self.take_back_change(undo);
        }
        self.journal.suspect = suspect;
    }

    fn take_back_change(&mut self, undo: Undo) {
        match undo {
            Undo::Message(at, sequence, previous) => {
                self.swap(at, sequence, previous);
            }
            Undo::LastSequence(at, previous) => self.entities[at.0].last_sequence = previous,
            Undo::Seen(at, message_id, previous) => {
                self.entities[at.0].remember(&message_id, previous);
            }
            Undo::Session(at, session, previous) => {
                self.swap_session(at, &session, previous);
            }
            Undo::Entity(at, previous) => {
                self.swap_entity(at, *previous);
            }
            Undo::Setup(at, previous) => self.entities[at.0].set_up(*previous),
            Undo::Remembered(key, previous) => {
                self.swap_remembered(&key, *previous);
            }
        }
    }
}
