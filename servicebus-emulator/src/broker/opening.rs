//! A namespace out of its topology and what the store holds of it, before the first command.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use jiff::Timestamp;

use super::{Broker, Ids};
use crate::{
    Limits, Topology,
    attributes::Attributes,
    description::{Description, Listed, Remembered},
    entity::{EntityId, Record, Role, Settings, Stored},
    journal::Journal,
    routing::DeadLetterCause,
    sessions::Held,
    topology::Topic,
};

/// One thing that a store holds.
#[derive(Debug, Clone)]
pub(crate) enum Item {
    Message(String, i64, Record),
    LastSequence(String, i64),
    Seen(String, String, Timestamp),
    SessionState(String, String, Bytes, Timestamp),
    /// What the management API has made of entities; it comes first.
    Entities(Vec<(String, Remembered)>),
}

/// The entities of a topology one by one, a topic before its subscriptions.
fn descriptions(topology: &Topology) -> Vec<Description> {
    let mut descriptions: Vec<Description> = topology
        .queues
        .iter()
        .cloned()
        .map(Description::Queue)
        .collect();
    for topic in &topology.topics {
        descriptions.push(Description::Topic(Topic {
            subscriptions: Vec::new(),
            ..topic.clone()
        }));
        for subscription in &topic.subscriptions {
            descriptions.push(Description::Subscription {
                topic: topic.name.clone(),
                subscription: subscription.clone(),
            });
        }
    }
    descriptions
}

/// How an entity that is described like that treats its messages, and how its dead-letter queue does.
pub(super) fn settings(description: &Description) -> (Settings, Option<Settings>) {
    let max_size = |attributes: &Attributes| {
        let megabytes = attributes.max_size_in_megabytes?;
        Some(u64::from(megabytes) << 20)
    };
    let queue = match description {
        Description::Topic(topic) => {
            let settings = Settings {
                lock_duration: Duration::ZERO,
                max_delivery_count: None,
                time_to_live: topic.default_message_time_to_live,
                dead_letter_expired: false,
                duplicate_window: topic.duplicate_detection,
                forward_to: None,
                requires_session: false,
                status: topic.attributes.status,
                max_size: max_size(&topic.attributes),
            };
            return (settings, None);
        }
        Description::Queue(queue) => queue,
        Description::Subscription { subscription, .. } => &subscription.queue,
    };
    let settings = Settings {
        lock_duration: queue.lock_duration,
        max_delivery_count: Some(queue.max_delivery_count),
        time_to_live: queue.default_message_time_to_live,
        dead_letter_expired: queue.dead_lettering_on_message_expiration,
        duplicate_window: queue.duplicate_detection,
        forward_to: queue.forward_to.clone(),
        requires_session: queue.requires_session,
        status: queue.attributes.status,
        max_size: max_size(&queue.attributes),
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
    (settings, Some(dead_letter_settings))
}

impl Broker {
    /// The empty namespace, or what is wrong with the topology.
    pub(crate) fn new(topology: &Topology, limits: Limits, ids: Ids) -> Result<Self, String> {
        let mut broker = Self {
            entities: Vec::new(),
            empty_slots: BTreeSet::new(),
            free_slots: Vec::new(),
            by_key: HashMap::new(),
            due: BTreeSet::new(),
            session_due: BTreeSet::new(),
            page_due: BTreeSet::new(),
            frozen: None,
            usage: Vec::new(),
            limits,
            in_file: HashMap::new(),
            remembered: BTreeMap::new(),
            ids,
            journal: Journal::default(),
        };
        for description in descriptions(topology) {
            let listed = Listed {
                description: description.clone(),
                created_at: Timestamp::UNIX_EPOCH,
                updated_at: Timestamp::UNIX_EPOCH,
                accessed_at: Timestamp::UNIX_EPOCH,
            };
            let at = broker.add_listed(listed)?;
            let key = Arc::clone(&broker.entities[at.0].key);
            broker.in_file.insert(key, description);
        }
        broker.committed();
        Ok(broker)
    }

    /// Adds an entity, and a subscription to its topic.
    fn add_listed(&mut self, listed: Listed) -> Result<EntityId, String> {
        let topic = match &listed.description {
            Description::Subscription { topic, .. } => self.named(topic),
            Description::Queue(_) | Description::Topic(_) => None,
        };
        let at = self.add_described(listed)?;
        if let Some(topic) = topic
            && let Role::Topic { subscriptions } = &mut self.entities[topic.0].role
        {
            subscriptions.push(at);
        }
        Ok(at)
    }

    /// Takes in what the store holds; messages come by entity and number. Messages of an entity that the topology does
    /// not have (any more) are not dropped: the path of that entity is the error.
    pub(crate) fn load(&mut self, item: Item) -> Result<(), String> {
        match item {
            Item::Message(key, sequence, record) => self.load_message(key, sequence, record)?,
            Item::Entities(remembered) => self.load_remembered(remembered),
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

    /// Takes in what the management API has made of entities. What it has made of one counts until the topology file says
    /// something else about that entity than it said then; from then on the file's word counts.
    fn load_remembered(&mut self, mut remembered: Vec<(String, Remembered)>) {
        // A topic comes before its subscriptions.
        remembered.sort_by(|(one, _), (other, _)| one.cmp(other));
        let mut topics_back = BTreeSet::new();
        for (key, record) in remembered {
            let key: Arc<str> = key.into();
            let topic = key
                .split_once("/subscriptions/")
                .map(|(topic, _)| topic.to_owned());
            let is_back = topic
                .as_ref()
                .is_some_and(|topic| topics_back.contains(topic) && record.now.is_none());
            let is_lost = topic
                .as_ref()
                .is_some_and(|topic| self.named(topic).is_none() && record.now.is_some());
            let is_valid =
                record.in_file.as_ref() == self.in_file.get(&key) && !is_back && !is_lost;
            if !is_valid {
                if record.now.is_none() {
                    topics_back.insert(key.to_string());
                }
                self.swap_remembered(&key, Some(record));
                self.note(key, None);
                continue;
            }
            let now = record.now.clone();
            self.swap_remembered(&key, Some(record));
            match (self.by_key.get(&key).copied(), now) {
                (Some(at), Some(listed)) if self.is_of_kind(at, &listed.description) => {
                    self.apply_listed(at, listed);
                }
                (there, now) => {
                    if let Some(at) = there {
                        self.remove_entity(at);
                    }
                    if let Some(listed) = now {
                        // Its name is free, and was checked when it was created.
                        let _ = self.add_listed(listed);
                    }
                }
            }
        }
        // What it replaced is the file's word. Nothing of that is stored, and what is stored under the name belongs
        // to what is there now.
        self.journal.keep_remembered();
    }

    /// Carries out, after loading, what the end of the last process left open: its locks have ended, and the
    /// topology may have changed since.
    pub(crate) fn resume(&mut self, now: Timestamp) {
        for at in (0..self.entities.len()).map(EntityId) {
            self.entities[at.0].begin(now);
            self.settle_in(now, at);
            // The clock has been set back since: an id from the future would be remembered too long.
            for message_id in self.entities[at.0].seen_after(now) {
                self.remember(at, message_id, Some(now));
            }
            self.prune_seen(now, at);
        }
        self.advance(now);
    }

    /// Moves what cannot stay in an entity that is set up as it is now: the messages came when it was otherwise.
    pub(super) fn settle_in(&mut self, now: Timestamp, at: EntityId) {
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
