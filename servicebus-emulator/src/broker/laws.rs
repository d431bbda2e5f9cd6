//! A namespace with topics, forwarding and failing commits against the laws that hold whatever happens: no copy of
//! a message is lost or doubled, no message is under two locks, no number is given out twice.

use std::{collections::HashMap, time::Duration};

use jiff::Timestamp;
use proptest::{prelude::*, sample::Index};
use uuid::Uuid;

use super::{
    Broker,
    random::{Disk, QUOTA, Step, apply, restarted, snapshot, step, steps},
};
use crate::{
    Message, ReceiveMode, Topology,
    sample::{at, counted_ids, forwarding, message, path, queue, subscription, topic},
    topology::Queue,
};

/// A queue, a chain into it, a topic that detects duplicates, and a queue whose dead letters move on.
fn namespace() -> Topology {
    let short = |queue: Queue| Queue {
        lock_duration: Duration::from_secs(10),
        max_delivery_count: 3,
        dead_lettering_on_message_expiration: true,
        ..queue
    };
    let mut topic = topic(
        "news",
        vec![
            subscription(short(queue("kept"))),
            subscription(short(forwarding("passed", "work"))),
        ],
    );
    topic.duplicate_detection = Some(Duration::from_secs(30));
    Topology {
        queues: vec![
            short(queue("work")),
            forwarding("one", "two"),
            forwarding("two", "work"),
            forwarding("circle", "circle"),
            Queue {
                forward_dead_lettered_messages_to: Some("work".to_owned()),
                ..short(queue("strict"))
            },
        ],
        topics: vec![topic],
    }
}

const SOURCES: [&str; 5] = ["work", "one", "circle", "strict", "news"];
const RECEIVED: [&str; 6] = [
    "work",
    "work/$deadletterqueue",
    "strict",
    "news/subscriptions/kept",
    "news/subscriptions/kept/$deadletterqueue",
    "circle/$deadletterqueue",
];

struct Laws {
    broker: Broker,
    disk: Disk,
    now: i64,
    sent: u32,
    /// How many copies of each accepted body there are, or will be once it is due.
    copies: HashMap<String, usize>,
    /// How many of them have been completed, or received and deleted.
    finished: HashMap<String, usize>,
    scheduled_twice: HashMap<String, usize>,
    locks: Vec<(&'static str, Uuid)>,
    live: HashMap<(&'static str, i64), (Uuid, Timestamp)>,
    highest: HashMap<String, i64>,
    seen: HashMap<u8, i64>,
}

impl Laws {
    fn new() -> Self {
        Self {
            broker: Broker::new(&namespace(), QUOTA, counted_ids()).expect("a valid topology"),
            disk: Disk::default(),
            now: 0,
            sent: 0,
            copies: HashMap::new(),
            finished: HashMap::new(),
            scheduled_twice: HashMap::new(),
            locks: Vec::new(),
            live: HashMap::new(),
            highest: HashMap::new(),
            seen: HashMap::new(),
        }
    }

    fn body_under(&self, from: &str, token: Uuid) -> Option<String> {
        let entity = &self.broker.entities[self.broker.named(from)?.0];
        let stored = entity.get(entity.locked_under(token)?)?;
        Some(String::from_utf8_lossy(stored.record.message.body.bytes()).into_owned())
    }

    fn chosen(&self, index: Index) -> Option<(&'static str, Uuid)> {
        (!self.locks.is_empty()).then(|| self.locks[index.index(self.locks.len())])
    }

    fn take(&mut self, step: Step) -> Result<(), TestCaseError> {
        let now = at(self.now);
        match step {
            Step::Send {
                to,
                id,
                time_to_live,
                delay,
            } => {
                let to = *to.get(&SOURCES);
                self.sent += 1;
                let body = self.sent.to_string();
                let message = Message {
                    body: body.clone().into(),
                    time_to_live: time_to_live.map(Duration::from_secs),
                    scheduled_enqueue_time: delay.map(|delay| now + Duration::from_secs(delay)),
                    ..message(&id.to_string())
                };
                let outcome = self.broker.send(now, &path(to), vec![message]);
                prop_assert_eq!(outcome, Ok(()));
                let copies = if to == "news" {
                    if self.seen.get(&id).is_some_and(|at| at + 30 > self.now) {
                        0
                    } else {
                        self.seen.insert(id, self.now);
                        2
                    }
                } else {
                    1
                };
                if to == "news" && copies > 0 && delay.is_some_and(|delay| delay > 0) {
                    self.scheduled_twice.insert(body.clone(), 2);
                }
                self.copies.insert(body, copies);
            }
            Step::Receive { from, delete } => {
                let from = *from.get(&RECEIVED);
                let mode = if delete {
                    ReceiveMode::ReceiveAndDelete
                } else {
                    ReceiveMode::PeekLock
                };
                let received = self
                    .broker
                    .receive(now, &path(from), mode)
                    .expect("it can be received from");
                if let Some(received) = received {
                    let place = (from, received.sequence_number);
                    if let Some((_, until)) = self.live.get(&place) {
                        prop_assert!(*until <= now, "{place:?} is delivered under two locks");
                    }
                    if !from.contains('$') {
                        prop_assert!(received.delivery_count <= 3);
                    }
                    match (received.lock_token, received.locked_until) {
                        (Some(token), Some(until)) => {
                            self.live.insert(place, (token, until));
                            self.locks.push((from, token));
                        }
                        _ => {
                            let body = String::from_utf8_lossy(received.message.body.bytes());
                            *self.finished.entry(body.into_owned()).or_default() += 1;
                        }
                    }
                }
            }
            Step::Complete(index) => {
                if let Some((from, token)) = self.chosen(index) {
                    self.broker.advance(now);
                    let body = self.body_under(from, token);
                    let outcome = self.broker.complete(now, &path(from), token);
                    prop_assert_eq!(outcome.is_ok(), body.is_some());
                    if let Some(body) = body {
                        *self.finished.entry(body).or_default() += 1;
                        self.live.retain(|_, (live, _)| *live != token);
                    }
                }
            }
            Step::Abandon(index) => {
                if let Some((from, token)) = self.chosen(index)
                    && self.broker.abandon(now, &path(from), token).is_ok()
                {
                    self.live.retain(|_, (live, _)| *live != token);
                }
            }
            Step::Renew(index) => {
                if let Some((from, token)) = self.chosen(index)
                    && let Ok(until) = self.broker.renew_lock(now, &path(from), token)
                {
                    for (live, old) in self.live.values_mut() {
                        if *live == token {
                            *old = until;
                        }
                    }
                }
            }
            Step::DeadLetter(index) => {
                if let Some((from, token)) = self.chosen(index)
                    && self
                        .broker
                        .dead_letter(now, &path(from), token, "why", "")
                        .is_ok()
                {
                    self.live.retain(|_, (live, _)| *live != token);
                }
            }
            Step::Undelivered(index) => {
                if let Some((from, token)) = self.chosen(index) {
                    self.broker.lost_on_its_way(now, &path(from), token);
                    self.live.retain(|_, (live, _)| *live != token);
                }
            }
            Step::Wait(seconds) => self.now += seconds.cast_signed(),
            Step::Crash => {
                self.broker = restarted(&namespace(), &mut self.broker);
                self.broker
                    .load(self.disk.contents())
                    .expect("the entities are there");
                self.broker.resume(now);
                self.live.clear();
            }
        }
        self.broker.advance(at(self.now));
        Ok(())
    }

    fn check(&mut self) -> Result<(), TestCaseError> {
        let now = snapshot(&self.broker);
        prop_assert_eq!(&now.disk, &self.disk);
        let mut held: HashMap<String, usize> = HashMap::new();
        let mut used = 0;
        for ((entity, _), stored) in &now.messages {
            let body = String::from_utf8_lossy(stored.record.message.body.bytes()).into_owned();
            let waits_in_topic = entity == "news";
            let copies = if waits_in_topic {
                self.scheduled_twice.get(&body).copied().unwrap_or(1)
            } else {
                1
            };
            *held.entry(body).or_default() += copies;
            used += stored.size;
            if !entity.contains('$') {
                prop_assert!(stored.record.delivery_count <= 3);
            }
        }
        for (body, copies) in &self.copies {
            let held = held.get(body).copied().unwrap_or(0);
            let finished = self.finished.get(body).copied().unwrap_or(0);
            prop_assert_eq!(held + finished, *copies, "body {}", body);
        }
        prop_assert_eq!(now.usage.iter().sum::<u64>(), used);
        for (entity, sequence) in now.messages.keys() {
            let last = now.disk.last_sequences.get(entity).copied().unwrap_or(0);
            prop_assert!(*sequence <= last);
        }
        for (entity, last) in &now.disk.last_sequences {
            let before = self.highest.insert(entity.clone(), *last).unwrap_or(0);
            prop_assert!(*last >= before, "{entity} gives numbers out twice");
        }
        Ok(())
    }
}

fn the_laws_hold(steps: Vec<(Step, bool)>) -> Result<(), TestCaseError> {
    let mut laws = Laws::new();
    for (step, fails) in steps {
        if fails && !matches!(step, Step::Wait(_) | Step::Crash) {
            // A commit that fails: nothing of the step is left.
            let before = snapshot(&laws.broker);
            let mut other = Laws {
                broker: std::mem::replace(
                    &mut laws.broker,
                    Broker::new(&namespace(), QUOTA, counted_ids()).expect("a valid topology"),
                ),
                ..Laws::new()
            };
            other.now = laws.now;
            other.locks.clone_from(&laws.locks);
            other.take(step)?;
            other.broker.roll_back();
            laws.broker = other.broker;
            prop_assert_eq!(snapshot(&laws.broker), before);
            continue;
        }
        laws.take(step)?;
        let Laws { broker, disk, .. } = &mut laws;
        disk.commit(broker);
        laws.check()?;
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_message_is_lost_or_doubled_whatever_happens(
        steps in prop::collection::vec((step(), prop::bool::weighted(0.1)), 1..120)
    ) {
        the_laws_hold(steps)?;
    }

    #[test]
    fn a_commit_after_a_failed_one_repairs_what_that_one_may_have_written(
        steps in steps(), half: Index
    ) {
        let mut laws = Laws::new();
        let half = half.index(steps.len());
        for step in steps[..half].iter().filter(|step| !matches!(step, Step::Crash)) {
            laws.take(*step)?;
            let Laws { broker, disk, .. } = &mut laws;
            disk.commit(broker);
        }
        let before = snapshot(&laws.broker).disk;
        for step in steps[half..].iter().filter(|step| !matches!(step, Step::Crash)) {
            laws.take(*step)?;
        }
        // The disk takes the changes and reports an error all the same.
        let mut torn = Broker::new(&namespace(), QUOTA, counted_ids()).expect("a valid topology");
        std::mem::swap(&mut torn, &mut laws.broker);
        for change in torn.changes() {
            apply(&mut laws.disk, change);
        }
        torn.roll_back();
        laws.disk.commit(&mut torn);
        prop_assert_eq!(&laws.disk.messages, &before.messages);
        prop_assert_eq!(&laws.disk.seen, &before.seen);
        prop_assert_eq!(&snapshot(&torn).disk, &before);
    }
}
