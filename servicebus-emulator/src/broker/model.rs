//! One queue against a naive model of it: two lists that are searched from end to end.

use std::{collections::BTreeMap, time::Duration};

use proptest::{prelude::*, sample::Index};
use uuid::Uuid;

use super::{
    Broker,
    random::{Disk, LIMITS, Step, restarted, steps},
};
use crate::{
    Error, Message, MessageState, ReceiveMode, Value,
    sample::{at, counted_ids, message, path, queue, queues},
    topology::Queue,
};

const LOCK: i64 = 10;
const MAX_DELIVERIES: u32 = 3;
const WINDOW: i64 = 30;

fn modelled_queue(dead_letter_expired: bool) -> Queue {
    Queue {
        lock_duration: Duration::from_secs(LOCK.unsigned_abs()),
        max_delivery_count: MAX_DELIVERIES,
        dead_lettering_on_message_expiration: dead_letter_expired,
        duplicate_detection: Some(Duration::from_secs(WINDOW.unsigned_abs())),
        ..queue("q")
    }
}

#[derive(Debug, Clone, PartialEq)]
enum ModelState {
    Active,
    Locked { until: i64, token: Uuid },
    Scheduled { due: i64 },
}

#[derive(Debug, Clone)]
struct ModelMessage {
    number: i64,
    id: String,
    state: ModelState,
    time_to_live: Option<i64>,
    expires: Option<i64>,
    deliveries: u32,
    reason: Option<&'static str>,
}

/// Two lists that are searched from end to end, with the time in whole seconds.
#[derive(Default)]
struct Model {
    now: i64,
    dead_letter_expired: bool,
    queue: Vec<ModelMessage>,
    dead: Vec<ModelMessage>,
    last_number: i64,
    last_dead_number: i64,
    seen: Vec<(String, i64)>,
}

impl Model {
    fn due(message: &ModelMessage) -> Option<i64> {
        match message.state {
            ModelState::Active => message.expires,
            ModelState::Locked { until, .. } => Some(until),
            ModelState::Scheduled { due } => Some(due),
        }
    }

    /// What happens first, in which list and where in it.
    fn next(&self) -> Option<(i64, bool, usize)> {
        let of = |dead: bool, list: &[ModelMessage]| {
            list.iter()
                .enumerate()
                .filter_map(|(place, message)| Some((Self::due(message)?, dead, place)))
                .min()
        };
        of(false, &self.queue)
            .into_iter()
            .chain(of(true, &self.dead))
            .min()
            .filter(|(due, ..)| *due <= self.now)
    }

    fn catch_up(&mut self) {
        while let Some((_, dead, place)) = self.next() {
            if dead {
                self.dead[place].state = ModelState::Active;
                continue;
            }
            match self.queue[place].state {
                ModelState::Locked { .. } => self.give_back(place),
                ModelState::Active => {
                    let message = self.queue.remove(place);
                    if self.dead_letter_expired {
                        self.bury(message, "TTLExpiredException");
                    }
                }
                ModelState::Scheduled { .. } => {
                    let message = self.queue.remove(place);
                    self.enqueue(message);
                }
            }
        }
    }

    fn enqueue(&mut self, mut message: ModelMessage) {
        self.last_number += 1;
        message.number = self.last_number;
        message.state = ModelState::Active;
        message.expires = message.time_to_live.map(|seconds| self.now + seconds);
        self.queue.push(message);
    }

    fn bury(&mut self, mut message: ModelMessage, reason: &'static str) {
        self.last_dead_number += 1;
        message.number = self.last_dead_number;
        message.state = ModelState::Active;
        message.expires = None;
        message.reason = Some(reason);
        self.dead.push(message);
    }

    fn give_back(&mut self, place: usize) {
        if self.queue[place].deliveries >= MAX_DELIVERIES {
            let message = self.queue.remove(place);
            self.bury(message, "MaxDeliveryCountExceeded");
        } else {
            self.queue[place].state = ModelState::Active;
        }
    }

    fn send(&mut self, id: &str, time_to_live: Option<u64>, delay: Option<u64>) {
        self.catch_up();
        self.seen.retain(|(_, at)| at + WINDOW > self.now);
        if self.seen.iter().any(|(seen, _)| seen == id) {
            return;
        }
        self.seen.push((id.to_owned(), self.now));
        let message = ModelMessage {
            number: 0,
            id: id.to_owned(),
            state: ModelState::Active,
            time_to_live: time_to_live.map(u64::cast_signed),
            expires: None,
            deliveries: 0,
            reason: None,
        };
        match delay {
            Some(delay) if delay > 0 => {
                self.last_number += 1;
                self.queue.push(ModelMessage {
                    number: self.last_number,
                    state: ModelState::Scheduled {
                        due: self.now + delay.cast_signed(),
                    },
                    ..message
                });
            }
            _ => self.enqueue(message),
        }
    }

    fn list(&mut self, dead: bool) -> &mut Vec<ModelMessage> {
        if dead {
            &mut self.dead
        } else {
            &mut self.queue
        }
    }

    fn first(&mut self, dead: bool) -> Option<usize> {
        self.catch_up();
        self.list(dead)
            .iter()
            .enumerate()
            .filter(|(_, message)| message.state == ModelState::Active)
            .min_by_key(|(_, message)| message.number)
            .map(|(place, _)| place)
    }

    fn locked(&mut self, dead: bool, token: Uuid) -> Option<usize> {
        self.catch_up();
        self.list(dead).iter().position(
            |message| matches!(message.state, ModelState::Locked { token: own, .. } if own == token),
        )
    }

    /// The locks end with the process.
    fn crash(&mut self) {
        self.queue.sort_by_key(|message| message.number);
        let mut place = 0;
        while place < self.queue.len() {
            let before = self.queue.len();
            if !matches!(self.queue[place].state, ModelState::Scheduled { .. }) {
                self.give_back(place);
            }
            if self.queue.len() == before {
                place += 1;
            }
        }
        for message in &mut self.dead {
            message.state = ModelState::Active;
        }
        self.catch_up();
    }

    fn view(&self, dead: bool) -> BTreeMap<i64, (String, u32, MessageState)> {
        let list = if dead { &self.dead } else { &self.queue };
        list.iter()
            .map(|message| {
                let state = match message.state {
                    ModelState::Active => MessageState::Active,
                    ModelState::Locked { .. } => MessageState::Locked,
                    ModelState::Scheduled { .. } => MessageState::Scheduled,
                };
                (
                    message.number,
                    (message.id.clone(), message.deliveries, state),
                )
            })
            .collect()
    }
}

fn view(broker: &Broker, name: &str) -> BTreeMap<i64, (String, u32, MessageState)> {
    let at = broker.named(name).expect("the entity exists");
    broker.entities[at.0]
        .messages()
        .map(|(number, stored)| {
            let id = stored.record.message.message_id.clone().unwrap_or_default();
            (number, (id, stored.record.delivery_count, stored.state()))
        })
        .collect()
}

fn reasons(broker: &Broker) -> Vec<Option<String>> {
    let at = broker.named("q/$deadletterqueue").expect("it exists");
    broker.entities[at.0]
        .messages()
        .map(
            |(_, stored)| match stored.record.message.properties.get("DeadLetterReason") {
                Some(Value::String(reason)) => Some(reason.clone()),
                _ => None,
            },
        )
        .collect()
}

fn a_queue_behaves_like_the_model(
    steps: Vec<Step>,
    dead_letter_expired: bool,
) -> Result<(), TestCaseError> {
    let topology = queues([modelled_queue(dead_letter_expired)]);
    let mut broker = Broker::new(&topology, LIMITS, counted_ids()).expect("a valid topology");
    let mut disk = Disk::default();
    let mut model = Model {
        dead_letter_expired,
        ..Model::default()
    };
    let mut locks: Vec<(bool, Uuid)> = Vec::new();
    let names = ["q", "q/$deadletterqueue"];
    for step in steps {
        let now = at(model.now);
        let name = |dead: bool| path(names[usize::from(dead)]);
        let chosen = |locks: &[(bool, Uuid)], index: Index| {
            (!locks.is_empty()).then(|| locks[index.index(locks.len())])
        };
        match step {
            Step::Send {
                id,
                time_to_live,
                delay,
                ..
            } => {
                let id = id.to_string();
                model.send(&id, time_to_live, delay);
                let message = Message {
                    time_to_live: time_to_live.map(Duration::from_secs),
                    scheduled_enqueue_time: delay.map(|delay| now + Duration::from_secs(delay)),
                    ..message(&id)
                };
                prop_assert_eq!(broker.send(now, &path("q"), vec![message]), Ok(()));
            }
            Step::Receive { from, delete } => {
                let dead = from.index(4) == 0;
                let mode = if delete {
                    ReceiveMode::ReceiveAndDelete
                } else {
                    ReceiveMode::PeekLock
                };
                let expected = model.first(dead).map(|place| {
                    let message = &mut model.list(dead)[place];
                    message.deliveries += 1;
                    (place, message.number, message.deliveries)
                });
                let received = broker
                    .receive(now, &name(dead), mode)
                    .expect("it can be received from");
                prop_assert_eq!(
                    expected.map(|(_, number, deliveries)| (number, deliveries)),
                    received
                        .as_ref()
                        .map(|message| (message.sequence_number, message.delivery_count))
                );
                if let (Some((place, ..)), Some(received)) = (expected, received) {
                    if delete {
                        model.list(dead).remove(place);
                    } else {
                        let token = received.lock_token.expect("a lock");
                        // The same counter as the broker's: tokens are reproducible.
                        let until = model.now + LOCK;
                        prop_assert_eq!(received.locked_until, Some(at(until)));
                        model.list(dead)[place].state = ModelState::Locked { until, token };
                        locks.push((dead, token));
                    }
                }
            }
            Step::Complete(index) => {
                if let Some((dead, token)) = chosen(&locks, index) {
                    let expected = match model.locked(dead, token) {
                        Some(place) => {
                            model.list(dead).remove(place);
                            Ok(())
                        }
                        None => Err(Error::MessageLockLost),
                    };
                    prop_assert_eq!(broker.complete(now, &name(dead), token), expected);
                }
            }
            Step::Abandon(index) => {
                if let Some((dead, token)) = chosen(&locks, index) {
                    let expected = match model.locked(dead, token) {
                        Some(place) if dead => {
                            model.dead[place].state = ModelState::Active;
                            Ok(())
                        }
                        Some(place) => {
                            model.give_back(place);
                            Ok(())
                        }
                        None => Err(Error::MessageLockLost),
                    };
                    prop_assert_eq!(broker.abandon(now, &name(dead), token), expected);
                }
            }
            Step::Renew(index) => {
                if let Some((dead, token)) = chosen(&locks, index) {
                    let until = model.now + LOCK;
                    let expected = match model.locked(dead, token) {
                        Some(place) => {
                            model.list(dead)[place].state = ModelState::Locked { until, token };
                            Ok(at(until))
                        }
                        None => Err(Error::MessageLockLost),
                    };
                    prop_assert_eq!(broker.renew_lock(now, &name(dead), token), expected);
                }
            }
            Step::DeadLetter(index) => {
                if let Some((dead, token)) = chosen(&locks, index) {
                    let outcome = broker.dead_letter(now, &name(dead), token, "given", "");
                    match model.locked(dead, token) {
                        Some(_) if dead => {
                            prop_assert!(matches!(outcome, Err(Error::NotSupported(_))));
                        }
                        Some(place) => {
                            prop_assert_eq!(outcome, Ok(()));
                            let message = model.queue.remove(place);
                            model.bury(message, "given");
                        }
                        None => prop_assert_eq!(outcome, Err(Error::MessageLockLost)),
                    }
                }
            }
            Step::Undelivered(index) => {
                if let Some((dead, token)) = chosen(&locks, index) {
                    broker.lost_on_its_way(now, &name(dead), token);
                    if let Some(place) = model.locked(dead, token) {
                        let message = &mut model.list(dead)[place];
                        message.state = ModelState::Active;
                        message.deliveries -= 1;
                    }
                }
            }
            Step::Wait(seconds) => model.now += seconds.cast_signed(),
            Step::Crash => {
                disk.commit(&mut broker);
                let mut again = restarted(&topology, &mut broker);
                again
                    .load_all(disk.items())
                    .expect("the entities are there");
                again.resume(now);
                broker = again;
                model.crash();
            }
        }
        let now = at(model.now);
        broker.advance(now);
        model.catch_up();
        disk.commit(&mut broker);
        prop_assert_eq!(view(&broker, "q"), model.view(false));
        prop_assert_eq!(view(&broker, names[1]), model.view(true));
        let mut dead = model.dead.clone();
        dead.sort_by_key(|message| message.number);
        let expected: Vec<_> = dead
            .iter()
            .map(|message| message.reason.map(str::to_owned))
            .collect();
        prop_assert_eq!(reasons(&broker), expected);
        let due = model
            .queue
            .iter()
            .chain(&model.dead)
            .filter_map(Model::due)
            .min();
        prop_assert_eq!(broker.next_due(), due.map(at));
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_queue_does_what_its_simple_model_does(steps in steps(), dead_letter_expired: bool) {
        a_queue_behaves_like_the_model(steps, dead_letter_expired)?;
    }
}
