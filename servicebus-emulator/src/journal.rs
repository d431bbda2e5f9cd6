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
    entity::{EntityId, Record, Stored},
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
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Place {
    Message(EntityId, i64),
    LastSequence(EntityId),
    Seen(EntityId, Arc<str>),
    Session(EntityId, Arc<str>),
}

impl Undo {
    fn place(&self) -> Place {
        match self {
            Self::Message(at, sequence, _) => Place::Message(*at, *sequence),
            Self::LastSequence(at, _) => Place::LastSequence(*at),
            Self::Seen(at, message_id, _) => Place::Seen(*at, Arc::clone(message_id)),
            Self::Session(at, session, _) => Place::Session(*at, Arc::clone(session)),
        }
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
            before.entry(undo.place()).or_insert(Some(undo));
        }
        for place in &self.journal.suspect {
            before.insert(place.clone(), None);
        }
        before
            .into_iter()
            .filter_map(|(place, before)| self.change(place, before))
            .collect()
    }

    fn change(&self, place: Place, before: Option<&Undo>) -> Option<Change> {
        match place {
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
        self.journal.suspect.clear();
        self.freeze();
    }

    /// The changes could not be stored: memory is again as it was after the last commit.
    pub(crate) fn roll_back(&mut self) {
        let journal = std::mem::take(&mut self.journal);
        let mut suspect = journal.suspect;
        for undo in journal.undo.into_iter().rev() {
            suspect.insert(undo.place());
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
        }
    }
}
