//! Entities that come and go at random, with messages in them, failing commits and restarts: the store holds what memory
//! holds, and a commit that fails leaves nothing behind, on the disk or in memory.

use std::sync::{Arc, Mutex};

use jiff::Timestamp;
use proptest::{prelude::*, sample::Index};

use super::{
    Broker,
    random::{Disk, LIMITS, Snapshot, apply, freeze_into, restarted, snapshot},
};
use crate::{
    EntityPath, Error, ReceiveMode, Topology,
    attributes::Status,
    description::{Description, Kind},
    rule::Rule,
    sample::{at, counted_ids, message, path, queue, subscription, topic},
    topology::{Queue, Subscription, Topic},
};

fn file() -> Topology {
    Topology {
        queues: vec![queue("file"), queue("was-queue")],
        topics: vec![
            topic("news", vec![subscription(queue("kept"))]),
            topic("was-topic", Vec::new()),
        ],
    }
}

const NAMES: [&str; 8] = [
    "file",
    "made",
    "news",
    "news/Subscriptions/kept",
    "news/Subscriptions/made",
    "other",
    "was-queue",
    "was-topic",
];

/// Queues and topics in turn have the last three names.
fn description(name: &str, deliveries: u32, metadata: bool) -> Description {
    let mut described = Queue {
        max_delivery_count: deliveries,
        ..queue(name.rsplit('/').next().unwrap_or_default())
    };
    described.attributes.user_metadata = metadata.then(|| deliveries.to_string());
    match name {
        "news" => Description::Topic(Topic {
            attributes: described.attributes,
            ..topic(name, Vec::new())
        }),
        "other" | "was-queue" | "was-topic" if deliveries.is_multiple_of(2) => {
            Description::Topic(topic(name, Vec::new()))
        }
        _ if name.contains('/') => Description::Subscription {
            topic: "news".to_owned(),
            subscription: Subscription {
                rules: vec![Rule::default_rule()],
                queue: described,
            },
        },
        _ => Description::Queue(described),
    }
}

#[derive(Debug, Clone, Copy)]
enum Step {
    Create(Index, u32),
    Update(Index, u32, bool),
    Disable(Index),
    Delete(Index),
    AddRule(Index, u8),
    UpdateRule(Index, u8),
    RemoveRule(Index, u8),
    Send(Index, u8),
    Schedule(Index, u8),
    Receive(Index, bool),
    Wait(i64),
}

fn step() -> impl Strategy<Value = Step> {
    let index = any::<Index>;
    prop_oneof![
        4 => (index(), 1..5_u32).prop_map(|(name, deliveries)| Step::Create(name, deliveries)),
        2 => (index(), 1..5_u32, any::<bool>()).prop_map(|(name, deliveries, metadata)| Step::Update(name, deliveries, metadata)),
        1 => index().prop_map(Step::Disable),
        3 => index().prop_map(Step::Delete),
        1 => (index(), 0..3_u8).prop_map(|(name, rule)| Step::AddRule(name, rule)),
        1 => (index(), 0..3_u8).prop_map(|(name, rule)| Step::UpdateRule(name, rule)),
        1 => (index(), 0..3_u8).prop_map(|(name, rule)| Step::RemoveRule(name, rule)),
        8 => (index(), 0..8_u8).prop_map(|(name, id)| Step::Send(name, id)),
        2 => (index(), 0..8_u8).prop_map(|(name, id)| Step::Schedule(name, id)),
        4 => (index(), any::<bool>()).prop_map(|(name, delete)| Step::Receive(name, delete)),
        1 => (1..40_i64).prop_map(Step::Wait),
    ]
}

#[derive(Debug, Clone, Copy)]
enum Commit {
    Works,
    /// The error says that it failed, and that is so.
    Fails,
    /// The error says that it failed, and all of it has been written.
    FailsTooLate,
    /// It works, and the process ends.
    Crash,
}

fn commit() -> impl Strategy<Value = Commit> {
    prop_oneof![
        6 => Just(Commit::Works),
        1 => Just(Commit::Fails),
        1 => Just(Commit::FailsTooLate),
        1 => Just(Commit::Crash),
    ]
}

struct Run {
    broker: Broker,
    disk: Arc<Mutex<Disk>>,
    now: i64,
}

impl Run {
    fn new() -> Self {
        let mut broker = Broker::new(&file(), LIMITS, counted_ids()).expect("a valid topology");
        let disk: Arc<Mutex<Disk>> = Arc::default();
        freeze_into(&mut broker, &disk);
        broker.resume(at(0));
        Self {
            broker,
            disk,
            now: 0,
        }
    }

    /// Whether it is carried out does not matter here, but when it is refused, nothing has changed.
    fn take(&mut self, step: Step) {
        let now = at(self.now);
        let named = |name: Index| -> (&'static str, EntityPath) {
            let name = *name.get(&NAMES);
            (name, path(name))
        };
        let rule = |number: u8| Rule {
            name: format!("rule-{number}"),
            ..Rule::default_rule()
        };
        let broker = &mut self.broker;
        broker.advance(now);
        let savepoint = broker.savepoint();
        let outcome: Result<(), Error> = match step {
            Step::Create(name, deliveries) => {
                let (name, _) = named(name);
                broker
                    .create(now, description(name, deliveries, false))
                    .map(drop)
            }
            Step::Update(name, deliveries, metadata) => {
                let (name, _) = named(name);
                broker
                    .update(now, description(name, deliveries, metadata))
                    .map(drop)
            }
            Step::Disable(name) => {
                let (name, _) = named(name);
                let mut description = description(name, 3, false);
                if let Description::Queue(queue) = &mut description {
                    queue.attributes.status = Status::SendDisabled;
                }
                broker.update(now, description).map(drop)
            }
            Step::Delete(name) => broker.delete(now, &named(name).1),
            Step::AddRule(name, number) => {
                broker.add_rule(now, &named(name).1, rule(number)).map(drop)
            }
            Step::UpdateRule(name, number) => broker
                .update_rule(now, &named(name).1, rule(number))
                .map(drop),
            Step::RemoveRule(name, number) => {
                broker.remove_rule(now, &named(name).1, &rule(number).name)
            }
            Step::Send(name, id) => {
                broker.send(now, &named(name).1, vec![message(&id.to_string())])
            }
            Step::Schedule(name, id) => {
                let mut message = message(&id.to_string());
                message.scheduled_enqueue_time = Some(at(self.now + 20));
                broker.send(now, &named(name).1, vec![message])
            }
            Step::Receive(name, delete) => {
                let mode = if delete {
                    ReceiveMode::ReceiveAndDelete
                } else {
                    ReceiveMode::PeekLock
                };
                broker.receive(now, &named(name).1, mode).map(drop)
            }
            Step::Wait(seconds) => {
                self.now += seconds;
                broker.advance(at(self.now));
                Ok(())
            }
        };
        if outcome.is_err() {
            assert_eq!(self.broker.savepoint(), savepoint, "{step:?} {outcome:?}");
        }
    }

    fn write(&mut self) {
        let mut disk = self.disk.lock().expect("a disk");
        for change in self.broker.changes() {
            apply(&mut disk, change);
        }
    }

    fn commit(&mut self) {
        self.write();
        self.broker.committed();
        self.broker.freeze();
    }

    fn restart(&mut self) {
        let items = self.disk.lock().expect("a disk").items();
        let mut broker = restarted(&file(), &mut self.broker);
        freeze_into(&mut broker, &self.disk);
        for item in items {
            broker.load(item).expect("the entities are there");
        }
        broker.resume(at(self.now));
        self.broker = broker;
        self.commit();
    }

    /// Every entity as it is described, without its times.
    fn described(&self) -> Vec<Description> {
        let all = |kind| {
            self.broker
                .describe_all(&kind, 0, usize::MAX)
                .unwrap_or_default()
        };
        let mut described = all(Kind::Queues);
        described.extend(all(Kind::Topics));
        described.extend(all(Kind::SubscriptionsOf("news".to_owned())));
        described
            .into_iter()
            .map(|described| match described.listed.description {
                Description::Subscription {
                    topic,
                    mut subscription,
                } => {
                    for rule in &mut subscription.rules {
                        rule.created_at = Timestamp::UNIX_EPOCH;
                    }
                    Description::Subscription {
                        topic,
                        subscription,
                    }
                }
                other => other,
            })
            .collect()
    }

    fn check(&mut self) -> Result<Snapshot, TestCaseError> {
        let now = snapshot(&mut self.broker);
        prop_assert_eq!(&now.disk, &*self.disk.lock().expect("a disk"));
        let used: u64 = now.messages.values().map(|stored| stored.size).sum();
        prop_assert_eq!(now.usage.iter().sum::<u64>(), used);
        for (entity, _) in now.messages.keys() {
            prop_assert!(self.broker.named(entity).is_some(), "{entity} has messages");
        }
        Ok(now)
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn entities_come_and_go_whole_whatever_happens(
        batches in prop::collection::vec((prop::collection::vec(step(), 1..6), commit()), 1..40)
    ) {
        let mut run = Run::new();
        run.commit();
        for (steps, commit) in batches {
            let before = run.check()?;
            let described = run.described();
            let time = run.now;
            for step in steps {
                run.take(step);
            }
            match commit {
                Commit::Works => run.commit(),
                Commit::Fails | Commit::FailsTooLate => {
                    if matches!(commit, Commit::FailsTooLate) {
                        run.write();
                    }
                    run.broker.roll_back();
                    run.now = time;
                    prop_assert_eq!(run.described(), described);
                    // The next commit is the repair.
                    run.commit();
                    prop_assert_eq!(run.check()?, before);
                }
                Commit::Crash => {
                    run.commit();
                    let (described, messages) = (run.described(), run.check()?.disk.messages);
                    run.restart();
                    prop_assert_eq!(run.described(), described);
                    let after = run.check()?.disk.messages;
                    let numbers = |messages: &std::collections::BTreeMap<_, _>| -> Vec<(String, i64)> {
                        messages.keys().cloned().collect()
                    };
                    // Messages that were under a lock may have been delivered often enough, and be dead letters now.
                    prop_assert_eq!(numbers(&after).len(), numbers(&messages).len());
                }
            }
        }
    }
}
