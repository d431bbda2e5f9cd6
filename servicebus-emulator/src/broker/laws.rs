//! A namespace with topics, forwarding and failing commits against the laws that hold whatever happens: no copy of
//! a message is lost or doubled, no message is under two locks, no session has two holders, a transaction is carried
//! out whole or not at all, no number is given out twice.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};

use jiff::Timestamp;
use proptest::{prelude::*, sample::Index};
use uuid::Uuid;

use super::{
    Broker,
    random::{Disk, LIMITS, Step, apply, freeze_into, restarted, snapshot, step},
};
use crate::{
    Changes, Error, Message, MessageState, Operation, ReceiveMode, ReceivedMessage, Settlement,
    Topology,
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
            Queue {
                requires_session: true,
                ..short(queue("rooms"))
            },
        ],
        topics: vec![topic],
    }
}

const SOURCES: [&str; 6] = ["work", "one", "circle", "strict", "news", "rooms"];
const RECEIVED: [&str; 7] = [
    "work",
    "rooms/$deadletterqueue",
    "work/$deadletterqueue",
    "strict",
    "news/subscriptions/kept",
    "news/subscriptions/kept/$deadletterqueue",
    "circle/$deadletterqueue",
];

/// What only these laws are tried with, beside the steps of a simple queue.
#[derive(Debug, Clone, Copy)]
enum LawStep {
    Simple(Step),
    Accept(Option<u8>),
    ReceiveInSession {
        of: Index,
        delete: bool,
    },
    SetState(Index, Option<u8>),
    RenewSession(Index),
    Release(Index),
    Defer(Index),
    ReceiveDeferred {
        from: Index,
        delete: bool,
    },
    CancelScheduled(Index),
    /// Sends one message and completes another; with a lost lock among the operations, which refuses them all.
    Transact {
        complete: Index,
        lost: bool,
    },
}

fn law_step() -> impl Strategy<Value = LawStep> {
    let index = any::<Index>;
    prop_oneof![
        20 => step().prop_map(LawStep::Simple),
        2 => prop::option::of(0..3_u8).prop_map(LawStep::Accept),
        4 => (index(), prop::bool::weighted(0.2))
            .prop_map(|(of, delete)| LawStep::ReceiveInSession { of, delete }),
        1 => (index(), prop::option::of(any::<u8>())).prop_map(|(of, state)| LawStep::SetState(of, state)),
        1 => index().prop_map(LawStep::RenewSession),
        1 => index().prop_map(LawStep::Release),
        3 => index().prop_map(LawStep::Defer),
        3 => (index(), prop::bool::weighted(0.2))
            .prop_map(|(from, delete)| LawStep::ReceiveDeferred { from, delete }),
        1 => index().prop_map(LawStep::CancelScheduled),
        2 => (index(), prop::bool::ANY).prop_map(|(complete, lost)| LawStep::Transact { complete, lost }),
    ]
}

struct Laws {
    broker: Broker,
    disk: Arc<Mutex<Disk>>,
    frozen: bool,
    now: i64,
    sent: u32,
    /// How many copies of each accepted body there are, or will be once it is due.
    copies: HashMap<String, usize>,
    /// How many of them have been completed, or received and deleted.
    finished: HashMap<String, usize>,
    scheduled_twice: HashMap<String, usize>,
    locks: Vec<(&'static str, Uuid)>,
    /// Every session that was ever accepted: which, and with what token.
    accepted: Vec<(String, Uuid)>,
    /// Each allows one more delivery: only a message that is given back is counted out.
    deferrals: u32,
    live: HashMap<(&'static str, i64), (Uuid, Timestamp)>,
    highest: HashMap<String, i64>,
    seen: HashMap<u8, i64>,
}

impl Laws {
    /// With `frozen`, nearly everything is left to the disk.
    fn new(frozen: bool) -> Self {
        let mut broker =
            Broker::new(&namespace(), LIMITS, counted_ids()).expect("a valid topology");
        let disk = Arc::default();
        if frozen {
            freeze_into(&mut broker, &disk);
        }
        Self {
            broker,
            disk,
            frozen,
            now: 0,
            sent: 0,
            copies: HashMap::new(),
            finished: HashMap::new(),
            scheduled_twice: HashMap::new(),
            locks: Vec::new(),
            accepted: Vec::new(),
            deferrals: 0,
            live: HashMap::new(),
            highest: HashMap::new(),
            seen: HashMap::new(),
        }
    }

    fn disk(&self) -> MutexGuard<'_, Disk> {
        self.disk.lock().expect("a disk")
    }

    fn commit(&mut self) {
        // The lock is free again before the broker reads.
        let changes = self.broker.changes();
        for change in changes {
            apply(&mut self.disk(), change);
        }
        self.broker.committed();
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
                    session_id: (to == "rooms").then(|| (id % 3).to_string()),
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
                    self.note(from, &received)?;
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
                if self.frozen {
                    freeze_into(&mut self.broker, &self.disk);
                }
                let items = self.disk().items();
                self.broker.load_all(items).expect("the entities are there");
                self.broker.resume(now);
                self.live.clear();
            }
        }
        self.broker.advance(at(self.now));
        Ok(())
    }

    fn note(
        &mut self,
        from: &'static str,
        received: &ReceivedMessage,
    ) -> Result<(), TestCaseError> {
        let place = (from, received.sequence_number);
        if let Some((token, until)) = self.live.get(&place) {
            let ended = *until <= at(self.now) || self.body_under(from, *token).is_none();
            prop_assert!(ended, "{place:?} is delivered under two locks");
        }
        if !from.contains('$') {
            prop_assert!(received.delivery_count <= 3 + self.deferrals);
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
        Ok(())
    }

    fn session(&self, index: Index) -> Option<(String, Uuid)> {
        (!self.accepted.is_empty()).then(|| self.accepted[index.index(self.accepted.len())].clone())
    }

    fn take_any(&mut self, step: LawStep) -> Result<(), TestCaseError> {
        let now = at(self.now);
        let rooms = path("rooms");
        let mode = |delete| {
            if delete {
                ReceiveMode::ReceiveAndDelete
            } else {
                ReceiveMode::PeekLock
            }
        };
        self.broker.advance(now);
        match step {
            LawStep::Simple(step) => return self.take(step),
            LawStep::Accept(wanted) => {
                let wanted = wanted.map(|id| id.to_string());
                let held = wanted.as_deref().is_some_and(|id| self.is_held(id));
                match self.broker.accept_session(now, &rooms, wanted.as_deref()) {
                    Ok(Some(session)) => {
                        prop_assert!(!held, "{} has two holders", session.session_id);
                        if wanted.is_none() {
                            let entity =
                                &self.broker.entities[self.broker.named("rooms").expect("it").0];
                            prop_assert!(
                                entity.sessions.first_ready(&session.session_id).is_some()
                            );
                        }
                        self.accepted.push((session.session_id, session.token));
                    }
                    Ok(None) => prop_assert!(wanted.is_none()),
                    Err(error) => {
                        prop_assert!(held);
                        prop_assert!(matches!(error, Error::SessionCannotBeLocked(_)));
                    }
                }
            }
            LawStep::ReceiveInSession { of, delete } => {
                if let Some((id, token)) = self.session(of) {
                    let received =
                        self.broker
                            .receive_batch(now, &rooms, mode(delete), Some(token), 2);
                    prop_assert_eq!(received.is_ok(), self.holder(&id) == Some(token));
                    for received in received.unwrap_or_default() {
                        prop_assert_eq!(received.message.session_id.as_deref(), Some(id.as_str()));
                        self.note("rooms", &received)?;
                    }
                }
            }
            LawStep::SetState(of, state) => {
                if let Some((id, _)) = self.session(of) {
                    let state = state.map(|byte| vec![byte].into());
                    let set = self
                        .broker
                        .set_session_state(now, &rooms, &id, state.clone());
                    prop_assert_eq!(set.is_ok(), self.is_held(&id));
                    if set.is_ok() {
                        prop_assert_eq!(self.broker.session_state(now, &rooms, &id), Ok(state));
                    }
                }
            }
            LawStep::RenewSession(of) => {
                if let Some((id, _)) = self.session(of)
                    && let Ok(until) = self.broker.renew_session_lock(now, &rooms, &id)
                {
                    for ((from, _), (_, old)) in &mut self.live {
                        if *from == "rooms" {
                            *old = until;
                        }
                    }
                }
            }
            LawStep::Release(of) => {
                if let Some((id, token)) = self.session(of) {
                    let held = self.holder(&id);
                    self.broker.release_session(now, &rooms, token);
                    prop_assert_eq!(self.is_held(&id), held.is_some_and(|held| held != token));
                }
            }
            LawStep::Defer(index) => {
                if let Some((from, token)) = self.chosen(index) {
                    let locked = self.body_under(from, token).is_some();
                    let changes = Changes::new();
                    let settlement = Settlement::Defer { changes };
                    let deferred = self.broker.settle(now, &path(from), token, settlement);
                    prop_assert_eq!(deferred.is_ok(), locked);
                    self.deferrals += 1;
                    self.live.retain(|_, (live, _)| *live != token);
                }
            }
            LawStep::ReceiveDeferred { from, delete } => {
                let from = *from.get(&RECEIVED);
                let deferred = self.broker.browse(&path(from), MessageState::Deferred);
                let numbers: Vec<i64> = deferred
                    .expect("the entity exists")
                    .iter()
                    .map(|message| message.sequence_number)
                    .collect();
                let received =
                    self.broker
                        .receive_deferred(now, &path(from), mode(delete), None, &numbers);
                let received = received.expect("they are there");
                prop_assert_eq!(received.len(), numbers.len());
                for received in received {
                    self.note(from, &received)?;
                }
            }
            LawStep::CancelScheduled(to) => {
                let to = path(SOURCES[to.index(SOURCES.len())]);
                let scheduled = self.broker.browse(&to, MessageState::Scheduled);
                if let Some(message) = scheduled.expect("the entity exists").first() {
                    let number = message.sequence_number;
                    prop_assert_eq!(self.broker.cancel_scheduled(now, &to, &[number]), Ok(()));
                    let body = String::from_utf8_lossy(message.message.body.bytes()).into_owned();
                    self.copies.insert(body, 0);
                }
            }
            LawStep::Transact { complete, lost } => {
                let Some((from, token)) = self.chosen(complete) else {
                    return Ok(());
                };
                let body = self.body_under(from, token);
                self.sent += 1;
                let sent = self.sent.to_string();
                let settle = |lock_token| Operation::Settle {
                    from: path(from),
                    lock_token,
                    settlement: Settlement::Complete,
                };
                let send = Operation::Send {
                    to: path("work"),
                    messages: vec![Message {
                        body: sent.clone().into(),
                        ..Message::default()
                    }],
                };
                let mut operations = vec![settle(token), send];
                if lost {
                    operations.push(settle(Uuid::nil()));
                }
                let before = snapshot(&mut self.broker);
                let outcome = self.broker.transact(now, operations);
                prop_assert_eq!(outcome.is_ok(), body.is_some() && !lost);
                match body {
                    Some(body) if outcome.is_ok() => {
                        *self.finished.entry(body).or_default() += 1;
                        self.copies.insert(sent, 1);
                        self.live.retain(|_, (live, _)| *live != token);
                    }
                    _ => prop_assert_eq!(snapshot(&mut self.broker), before),
                }
            }
        }
        self.broker.advance(at(self.now));
        Ok(())
    }

    fn holder(&self, session: &str) -> Option<Uuid> {
        let rooms = &self.broker.entities[self.broker.named("rooms")?.0];
        rooms.sessions.held(session).lock.map(|lock| lock.token)
    }

    fn is_held(&self, session: &str) -> bool {
        self.holder(session).is_some()
    }

    fn check(&mut self) -> Result<(), TestCaseError> {
        let now = snapshot(&mut self.broker);
        prop_assert_eq!(&now.disk, &*self.disk());
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
                prop_assert!(stored.record.delivery_count <= 3 + self.deferrals);
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

fn the_laws_hold(steps: Vec<(LawStep, bool)>, frozen: bool) -> Result<(), TestCaseError> {
    let mut laws = Laws::new(frozen);
    for (step, fails) in steps {
        let passes_time = matches!(step, LawStep::Simple(Step::Wait(_) | Step::Crash));
        if fails && !passes_time {
            // A commit that fails: nothing of the step is left.
            let before = snapshot(&mut laws.broker);
            let mut other = Laws {
                broker: std::mem::replace(
                    &mut laws.broker,
                    Broker::new(&namespace(), LIMITS, counted_ids()).expect("a valid topology"),
                ),
                ..Laws::new(false)
            };
            other.now = laws.now;
            other.locks.clone_from(&laws.locks);
            other.accepted.clone_from(&laws.accepted);
            other.deferrals = laws.deferrals;
            other.take_any(step)?;
            other.broker.roll_back();
            laws.broker = other.broker;
            prop_assert_eq!(snapshot(&mut laws.broker), before);
            continue;
        }
        laws.take_any(step)?;
        laws.commit();
        laws.check()?;
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_message_is_lost_or_doubled_whatever_happens(
        steps in prop::collection::vec((law_step(), prop::bool::weighted(0.1)), 1..120), frozen: bool
    ) {
        the_laws_hold(steps, frozen)?;
    }

    #[test]
    fn a_commit_after_a_failed_one_repairs_what_that_one_may_have_written(
        steps in prop::collection::vec(law_step(), 1..120), half: Index, frozen: bool
    ) {
        let mut laws = Laws::new(frozen);
        let half = half.index(steps.len());
        for step in steps[..half].iter().filter(|step| !matches!(step, LawStep::Simple(Step::Crash))) {
            laws.take_any(*step)?;
            laws.commit();
        }
        let before = snapshot(&mut laws.broker).disk;
        for step in steps[half..].iter().filter(|step| !matches!(step, LawStep::Simple(Step::Crash))) {
            laws.take_any(*step)?;
        }
        // The disk takes the changes and reports an error all the same.
        let mut torn = Broker::new(&namespace(), LIMITS, counted_ids()).expect("a valid topology");
        std::mem::swap(&mut torn, &mut laws.broker);
        for change in torn.changes() {
            apply(&mut laws.disk(), change);
        }
        torn.roll_back();
        std::mem::swap(&mut torn, &mut laws.broker);
        laws.commit();
        std::mem::swap(&mut torn, &mut laws.broker);
        prop_assert_eq!(&laws.disk().messages, &before.messages);
        prop_assert_eq!(&laws.disk().seen, &before.seen);
        prop_assert_eq!(&laws.disk().session_states, &before.session_states);
        prop_assert_eq!(&snapshot(&mut torn).disk, &before);
    }
}
