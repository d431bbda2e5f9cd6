//! Random commands with virtual time, and what the property tests compare: the store and all of memory.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex},
};

use bytes::Bytes;
use jiff::Timestamp;
use proptest::{prelude::*, sample::Index};
use uuid::Uuid;

use super::{Broker, Frozen, Item};
use crate::{
    Changes, EntityPath, Error, Limits, Settlement, Topology,
    description::Remembered,
    entity::{EntityId, Record, Stored},
    journal::Change,
    sample::counted_ids,
    sessions::Held,
};

pub(super) const LIMITS: Limits = Limits {
    entity_quota: 1 << 30,
    max_message_size: 262_144,
};

/// What a store would hold.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Disk {
    pub(super) messages: BTreeMap<(String, i64), Record>,
    pub(super) last_sequences: BTreeMap<String, i64>,
    pub(super) seen: BTreeMap<(String, String), Timestamp>,
    pub(super) session_states: BTreeMap<(String, String), (Bytes, Timestamp)>,
    pub(super) entities: BTreeMap<String, Remembered>,
}

impl Disk {
    pub(super) fn commit(&mut self, broker: &mut Broker) {
        for change in broker.changes() {
            apply(self, change);
        }
        broker.committed();
    }

    pub(super) fn items(&self) -> Vec<Item> {
        let messages = self.messages.iter().map(|((entity, sequence), record)| {
            Item::Message(entity.clone(), *sequence, record.clone())
        });
        let last = self
            .last_sequences
            .iter()
            .map(|(entity, last)| Item::LastSequence(entity.clone(), *last));
        let seen = self
            .seen
            .iter()
            .map(|((entity, id), at)| Item::Seen(entity.clone(), id.clone(), *at));
        let states = self
            .session_states
            .iter()
            .map(|((entity, id), (state, updated))| {
                Item::SessionState(entity.clone(), id.clone(), state.clone(), *updated)
            });
        let entities = Item::Entities(self.entities.clone().into_iter().collect());
        std::iter::once(entities)
            .chain(last)
            .chain(messages)
            .chain(seen)
            .chain(states)
            .collect()
    }

    fn records(&self, entity: &str, first: i64, last: i64) -> Vec<(i64, Record)> {
        self.messages
            .range((entity.to_owned(), first)..=(entity.to_owned(), last))
            .map(|((_, sequence), record)| (*sequence, record.clone()))
            .collect()
    }
}

pub(super) fn apply(disk: &mut Disk, change: Change) {
    match change {
        Change::Put {
            entity,
            sequence,
            record,
        } => {
            disk.messages.insert((entity.to_string(), sequence), record);
        }
        Change::Remove { entity, sequence } => {
            disk.messages.remove(&(entity.to_string(), sequence));
        }
        Change::LastSequence { entity, sequence } => {
            disk.last_sequences.insert(entity.to_string(), sequence);
            disk.last_sequences.retain(|_, last| *last > 0);
        }
        Change::Seen {
            entity,
            message_id,
            at,
        } => {
            disk.seen
                .insert((entity.to_string(), message_id.to_string()), at);
        }
        Change::Forget { entity, message_id } => {
            disk.seen
                .remove(&(entity.to_string(), message_id.to_string()));
        }
        Change::Clear { entity } => {
            let is_other = |name: &String| **name != *entity;
            disk.messages.retain(|(name, _), _| is_other(name));
            disk.last_sequences.retain(|name, _| is_other(name));
            disk.seen.retain(|(name, _), _| is_other(name));
            disk.session_states.retain(|(name, _), _| is_other(name));
        }
        Change::Remember { entity, record } => {
            let entity = entity.to_string();
            match record {
                Some(record) => disk.entities.insert(entity, *record),
                None => disk.entities.remove(&entity),
            };
        }
        Change::SessionState {
            entity,
            session,
            state,
        } => {
            let place = (entity.to_string(), session.to_string());
            match state {
                Some(state) => disk.session_states.insert(place, state),
                None => disk.session_states.remove(&place),
            };
        }
    }
}

impl Broker {
    pub(super) fn load_all(&mut self, items: Vec<Item>) -> Result<(), String> {
        items.into_iter().try_for_each(|item| self.load(item))
    }

    pub(super) fn dead_letter(
        &mut self,
        now: Timestamp,
        from: &EntityPath,
        token: Uuid,
        reason: &str,
        description: &str,
    ) -> Result<(), Error> {
        let settlement = Settlement::DeadLetter {
            reason: Some(reason.to_owned()),
            description: Some(description.to_owned()),
            changes: Changes::new(),
        };
        self.settle(now, from, token, settlement)
    }

    /// The delivery under that lock, if it is still one, reached nobody.
    pub(super) fn lost_on_its_way(&mut self, now: Timestamp, from: &EntityPath, token: Uuid) {
        if let Ok((at, sequence)) = self.locked(now, from, token)
            && let Some(stored) = self.entities[at.0].get(sequence)
        {
            let received = stored.received(sequence);
            self.undelivered(now, from, vec![received]);
        }
    }
}

/// Has the broker leave nearly everything to the disk.
pub(super) fn freeze_into(broker: &mut Broker, disk: &Arc<Mutex<Disk>>) {
    let disk = Arc::clone(disk);
    broker.freeze_into(Frozen {
        read: Box::new(move |entity, first, last| {
            Ok(disk.lock().expect("a disk").records(entity, first, last))
        }),
        kept: 1,
        page: 2,
        failure: None,
    });
}

/// Everything a broker holds, locks included, wherever it holds it.
#[derive(Debug, PartialEq)]
pub(super) struct Snapshot {
    pub(super) messages: BTreeMap<(String, i64), Stored>,
    pub(super) disk: Disk,
    pub(super) sessions: BTreeMap<(String, String), Held>,
    pub(super) due: BTreeSet<(Timestamp, EntityId, i64)>,
    pub(super) session_due: BTreeSet<(Timestamp, EntityId, Arc<str>)>,
    pub(super) usage: Vec<u64>,
}

pub(super) fn snapshot(broker: &mut Broker) -> Snapshot {
    let mut messages = BTreeMap::new();
    let mut disk = Disk::default();
    let mut sessions = BTreeMap::new();
    let mut due = broker.due.clone();
    let mut page_due = BTreeSet::new();
    for (index, entity) in broker.entities.iter().enumerate() {
        if entity.is_deleted() {
            continue;
        }
        let name = entity.key.to_string();
        for (first, page) in entity.cold.pages() {
            let frozen = broker.frozen.as_mut().expect("a place for pages");
            let records = (frozen.read)(&name, first, page.last).expect("the disk is there");
            let mut first_due = None;
            for (sequence, record) in records {
                let stored = Stored::new(record.clone());
                if let Some(at) = entity.due(&stored) {
                    due.insert((at, EntityId(index), sequence));
                    first_due = first_due.into_iter().chain([at]).min();
                }
                assert!(
                    entity.get(sequence).is_none(),
                    "{name} {sequence} is there twice"
                );
                messages.insert((name.clone(), sequence), stored);
                disk.messages.insert((name.clone(), sequence), record);
            }
            assert_eq!(page.due, first_due);
            page_due.extend(first_due.map(|due| (due, EntityId(index), first)));
        }
        for (sequence, stored) in entity.messages() {
            messages.insert((name.clone(), sequence), stored.clone());
            disk.messages
                .insert((name.clone(), sequence), stored.record.clone());
        }
        if entity.last_sequence > 0 {
            disk.last_sequences
                .insert(name.clone(), entity.last_sequence);
        }
        for (id, at) in entity.all_seen() {
            disk.seen.insert((name.clone(), id.to_string()), at);
        }
        for (session, held) in entity.sessions.all_held() {
            if let Some(state) = held.state.clone().zip(held.updated) {
                disk.session_states
                    .insert((name.clone(), session.to_string()), state);
            }
            sessions.insert((name.clone(), session.to_string()), held.clone());
        }
    }
    for (entity, record) in &broker.remembered {
        disk.entities.insert(entity.to_string(), record.clone());
    }
    assert_eq!(broker.page_due, page_due);
    Snapshot {
        messages,
        disk,
        sessions,
        due,
        session_due: broker.session_due.clone(),
        // A slot whose entity is gone stays, empty.
        usage: (broker.entities.iter().zip(&broker.usage))
            .filter(|(entity, _)| !entity.is_deleted())
            .map(|(_, usage)| *usage)
            .collect(),
    }
}

#[derive(Debug, Clone, Copy)]
pub(super) enum Step {
    Send {
        to: Index,
        id: u8,
        time_to_live: Option<u64>,
        delay: Option<u64>,
    },
    Receive {
        from: Index,
        delete: bool,
    },
    Complete(Index),
    Abandon(Index),
    Renew(Index),
    DeadLetter(Index),
    Undelivered(Index),
    Wait(u64),
    Crash,
}

pub(super) fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => (any::<Index>(), 0..8_u8, prop::option::weighted(0.3, 1..40_u64), prop::option::weighted(0.3, 0..40_u64))
            .prop_map(|(to, id, time_to_live, delay)| Step::Send { to, id, time_to_live, delay }),
        6 => (any::<Index>(), prop::bool::weighted(0.2)).prop_map(|(from, delete)| Step::Receive { from, delete }),
        2 => any::<Index>().prop_map(Step::Complete),
        3 => any::<Index>().prop_map(Step::Abandon),
        1 => any::<Index>().prop_map(Step::Renew),
        1 => any::<Index>().prop_map(Step::DeadLetter),
        1 => any::<Index>().prop_map(Step::Undelivered),
        3 => (1..25_u64).prop_map(Step::Wait),
        1 => Just(Step::Crash),
    ]
}

pub(super) fn steps() -> impl Strategy<Value = Vec<Step>> {
    prop::collection::vec(step(), 1..120)
}

/// An empty broker that goes on counting where the old one stopped: random ids do not repeat either.
pub(super) fn restarted(topology: &Topology, broker: &mut Broker) -> Broker {
    let ids = std::mem::replace(&mut broker.ids, counted_ids());
    Broker::new(topology, LIMITS, ids).expect("a valid topology")
}
