//! The one owner of all entities, on a thread of its own because every commit waits for the disk.
//!
//! It takes the commands that wait as one batch, applies them, serves those who wait for messages, commits
//! once, and only then answers. When a commit fails, memory goes back to what it was before the batch, every
//! command of the batch gets the error, and so do for a while those that follow. What the failed commit may have
//! left on the disk all the same is written over before anything else is.

use std::{
    sync::{
        Weak,
        mpsc::{Receiver, RecvTimeoutError, Sender},
    },
    time::{Duration, Instant},
};

use jiff::Timestamp;
use tokio::sync::{oneshot, watch};

use crate::{
    AcceptedSession, EntityPath, Error, ReceivedMessage,
    broker::Broker,
    entity::EntityId,
    journal::Change,
    store::Store,
    waiting::{For, Waiter, Waiting, Wants},
};

/// How many commands share a commit; a bound, so that the first of them does not wait for all that follow.
const MAX_BATCH: usize = 512;

/// How long the owner leaves the store alone after a failed commit: each attempt opens the file again.
const PAUSE_AFTER_FAILURE: Duration = Duration::from_secs(1);

/// How long the owner waits for a time by the clock before it looks at the clock again: it may have been set,
/// or the machine may have slept.
const LONGEST_WAIT: Duration = Duration::from_secs(15);

pub(crate) type Reply<T> = oneshot::Sender<Result<T, Error>>;

/// Answers a command once it is known whether its changes are stored.
pub(crate) type Answer = Box<dyn FnOnce(Option<&Error>)>;

pub(crate) enum Command {
    /// Waits for what it wants; the line at the owner answers it.
    Receive(Waiter),
    /// Everything else: carried out in the order in which it comes.
    Do(Job),
    Close,
}

/// One thing that a broker does, at the owner's time.
pub(crate) struct Job {
    /// Whether it may change something, and is refused while nothing can be stored.
    pub(crate) changes: bool,
    pub(crate) work: Box<dyn FnOnce(Work<'_>) -> Option<Answer> + Send>,
}

/// Either do it or answer that it cannot be done.
pub(crate) enum Work<'a> {
    Now(&'a mut Broker, Timestamp),
    Refused(&'a Error),
}

impl Job {
    /// A command with an answer.
    pub(crate) fn new<T: Send + 'static>(
        changes: bool,
        reply: Reply<T>,
        work: impl FnOnce(&mut Broker, Timestamp) -> Result<T, Error> + Send + 'static,
    ) -> Self {
        let work = Box::new(move |how: Work<'_>| {
            let outcome = match how {
                Work::Now(broker, now) => work(broker, now),
                Work::Refused(error) => Err(error.clone()),
            };
            Some(answer(reply, outcome))
        });
        Self { changes, work }
    }

    /// A command that nobody waits for. It is carried out even when nothing can be stored: what it changes is stored
    /// with the next commit, or lost with the process, and either is right.
    pub(crate) fn silent(work: impl FnOnce(&mut Broker, Timestamp) + Send + 'static) -> Self {
        let work = Box::new(move |how: Work<'_>| {
            if let Work::Now(broker, now) = how {
                work(broker, now);
            }
            None
        });
        Self {
            changes: false,
            work,
        }
    }
}

/// Messages on their way to their receiver. If they do not arrive, because the future was dropped in the
/// meantime, they are given back and the delivery does not count.
pub(crate) struct Delivery {
    messages: Vec<ReceivedMessage>,
    from: EntityPath,
    owner: Weak<Sender<Command>>,
}

impl Delivery {
    pub(crate) fn new(
        messages: Vec<ReceivedMessage>,
        from: EntityPath,
        owner: Weak<Sender<Command>>,
    ) -> Self {
        Self {
            messages,
            from,
            owner,
        }
    }

    pub(crate) fn take(mut self) -> Vec<ReceivedMessage> {
        std::mem::take(&mut self.messages)
    }
}

impl Drop for Delivery {
    fn drop(&mut self) {
        let messages = std::mem::take(&mut self.messages);
        if !messages.is_empty()
            && let Some(owner) = self.owner.upgrade()
        {
            let from = self.from.clone();
            let job = Job::silent(move |broker, now| broker.undelivered(now, &from, messages));
            // An owner that has ended has no locks either.
            let _ = owner.send(Command::Do(job));
        }
    }
}

/// A session on its way to its receiver; if it does not arrive, it is free again.
pub(crate) struct Accepted {
    session: Option<AcceptedSession>,
    from: EntityPath,
    owner: Weak<Sender<Command>>,
}

impl Accepted {
    pub(crate) fn new(
        session: Option<AcceptedSession>,
        from: EntityPath,
        owner: Weak<Sender<Command>>,
    ) -> Self {
        Self {
            session,
            from,
            owner,
        }
    }

    pub(crate) fn take(mut self) -> Option<AcceptedSession> {
        self.session.take()
    }
}

impl Drop for Accepted {
    fn drop(&mut self) {
        if let (Some(session), Some(owner)) = (self.session.take(), self.owner.upgrade()) {
            let from = self.from.clone();
            let job = Job::silent(move |broker, now| {
                broker.release_session(now, &from, session.token);
            });
            let _ = owner.send(Command::Do(job));
        }
    }
}

pub(crate) struct Owner {
    broker: Broker,
    store: Option<Store>,
    commands: Receiver<Command>,
    own_commands: Weak<Sender<Command>>,
    waiting: Waiting,
    /// The namespace's time, and when it was that.
    now: Timestamp,
    now_since: Instant,
    /// After a failed commit: until when, and the error that changes are refused with.
    paused: Option<(Instant, Error)>,
    /// Told of the first failed commit and of the first that changes something again.
    store_failure: watch::Sender<Option<String>>,
}

impl Owner {
    pub(crate) fn new(
        broker: Broker,
        store: Option<Store>,
        commands: Receiver<Command>,
        own_commands: Weak<Sender<Command>>,
        store_failure: watch::Sender<Option<String>>,
    ) -> Self {
        Self {
            broker,
            store,
            commands,
            own_commands,
            waiting: Waiting::default(),
            now: Timestamp::now(),
            now_since: Instant::now(),
            paused: None,
            store_failure,
        }
    }

    /// Runs until it is closed or no handle is left.
    pub(crate) fn run(mut self) {
        loop {
            let Ok(first) = self.next_command() else {
                return;
            };
            self.step();
            self.end_pause();
            if self.paused.is_none() {
                self.broker.advance(self.now);
                self.note_read_failure();
            }
            let mut answers = Vec::new();
            let mut closing = false;
            let mut taken = 0;
            let mut next = first;
            while let Some(command) = next {
                if matches!(command, Command::Close) {
                    closing = true;
                    break;
                }
                answers.extend(self.apply(command));
                taken += 1;
                next = if taken < MAX_BATCH {
                    self.commands.try_recv().ok()
                } else {
                    None
                };
            }
            if !closing {
                self.serve(&mut answers);
            }
            let failure = match self.paused {
                Some(_) => None,
                None => self.commit(),
            };
            for answer in answers {
                answer(failure.as_ref());
            }
            if closing {
                return;
            }
        }
    }

    /// The time goes on.
    fn step(&mut self) {
        self.now = time_after(self.now, self.now_since.elapsed(), Timestamp::now());
        self.now_since = Instant::now();
    }

    /// When the pause is over, tries the store with what the failed commit may have left behind, before
    /// anything else changes: so there is never more of that than one batch.
    fn end_pause(&mut self) {
        if self
            .paused
            .as_ref()
            .is_some_and(|(until, _)| *until <= Instant::now())
        {
            self.paused = None;
            self.write(&self.broker.changes());
        }
    }

    /// The next command, or `None` when it is time to do something without one; an error when there will
    /// never be one.
    fn next_command(&self) -> Result<Option<Command>, RecvTimeoutError> {
        let now = Instant::now();
        let due = match &self.paused {
            Some((until, _)) => Some(*until),
            None => self.broker.next_due().map(|due| {
                let time = time_after(self.now, self.now_since.elapsed(), Timestamp::now());
                let wait = Duration::try_from(due.duration_since(time)).unwrap_or(Duration::ZERO);
                now + wait.min(LONGEST_WAIT)
            }),
        };
        let deadline = self.waiting.first_deadline();
        match due.into_iter().chain(deadline).min() {
            None => self
                .commands
                .recv()
                .map(Some)
                .map_err(|_| RecvTimeoutError::Disconnected),
            Some(wake) => match self
                .commands
                .recv_timeout(wake.saturating_duration_since(now))
            {
                Ok(command) => Ok(Some(command)),
                Err(RecvTimeoutError::Timeout) => Ok(None),
                Err(error) => Err(error),
            },
        }
    }

    fn apply(&mut self, command: Command) -> Option<Answer> {
        match command {
            Command::Receive(waiter) => {
                self.wait(waiter);
                None
            }
            Command::Do(job) => match &self.paused {
                Some((_, error)) if job.changes => (job.work)(Work::Refused(error)),
                _ => (job.work)(Work::Now(&mut self.broker, self.now)),
            },
            Command::Close => None,
        }
    }

    fn wait(&mut self, waiter: Waiter) {
        let in_session = match &waiter.wants {
            Wants::Messages { session, .. } => session.is_some(),
            Wants::Session { .. } => true,
        };
        let at = self.broker.receivable(&waiter.from).and_then(|at| {
            self.broker.check_session_use(at, in_session)?;
            Ok(at)
        });
        match at {
            Ok(at) => self.waiting.add(at, waiter),
            Err(error) => waiter.send_away(Some(error)),
        }
    }

    /// Gives messages and sessions to those who wait, first come first served, and sends away whose time is over.
    fn serve(&mut self, answers: &mut Vec<Answer>) {
        if self.paused.is_none() {
            for place in self.waiting.places() {
                while let Some(error) = self.broker.turns_away(place.0)
                    && let Some(waiter) = self.waiting.next(place)
                {
                    answers.push(waiter.refused(error));
                }
                while self.has_something_for(place)
                    && let Some(waiter) = self.waiting.next(place)
                {
                    answers.push(self.serve_one(waiter));
                }
            }
        }
        let now = Instant::now();
        while let Some(waiter) = self.waiting.next_late(now) {
            // During a pause nobody can tell whether there is a message.
            let error = self.paused.as_ref().map(|(_, error)| error.clone());
            waiter.send_away(error);
        }
    }

    fn has_something_for(&mut self, (at, wanted): (EntityId, For)) -> bool {
        match wanted {
            For::Messages(session) => self.broker.is_ready(at, session),
            For::Session => self.broker.has_session(at),
        }
    }

    fn serve_one(&mut self, waiter: Waiter) -> Answer {
        let Waiter { from, wants, .. } = waiter;
        let owner = Weak::clone(&self.own_commands);
        match wants {
            Wants::Messages {
                mode,
                session,
                most,
                reply,
            } => {
                let received = self
                    .broker
                    .receive_batch(self.now, &from, mode, session, most);
                let delivery = received.map(|messages| Some(Delivery::new(messages, from, owner)));
                answer(reply, delivery)
            }
            Wants::Session { reply } => {
                let accepted = self.broker.accept_session(self.now, &from, None);
                let accepted = accepted.map(|session| Some(Accepted::new(session, from, owner)));
                answer(reply, accepted)
            }
        }
    }

    fn commit(&mut self) -> Option<Error> {
        let changes = self.broker.changes();
        let failure = self.write(&changes);
        if failure.is_none() && !changes.is_empty() {
            self.store_failure
                .send_if_modified(|failure| failure.take().is_some());
        }
        failure
    }

    fn write(&mut self, changes: &[Change]) -> Option<Error> {
        if let Some(store) = &self.store
            && let Err(reason) = store.commit(changes)
        {
            self.broker.roll_back();
            return Some(self.pause(reason));
        }
        self.broker.committed();
        None
    }

    /// What is due and cannot be read would otherwise be tried without end.
    fn note_read_failure(&mut self) {
        if let Some(reason) = self.broker.read_failure() {
            self.pause(reason);
        }
    }

    fn pause(&mut self, reason: String) -> Error {
        self.store_failure.send_if_modified(|failure| {
            let first = failure.is_none();
            failure.get_or_insert_with(|| reason.clone());
            first
        });
        let error = Error::Store(reason);
        self.paused = Some((Instant::now() + PAUSE_AFTER_FAILURE, error.clone()));
        error
    }
}

/// The namespace's time so long after it was `last`: that of the machine's clock, but when that is set back
/// or stands still, the namespace's goes on all the same, and so no lock and no message lasts longer than it should.
fn time_after(last: Timestamp, elapsed: Duration, clock: Timestamp) -> Timestamp {
    last.checked_add(elapsed)
        .unwrap_or(Timestamp::MAX)
        .max(clock)
}

pub(crate) fn answer<T: 'static>(reply: Reply<T>, outcome: Result<T, Error>) -> Answer {
    Box::new(move |failure| {
        let outcome = match failure {
            Some(failure) => Err(failure.clone()),
            None => outcome,
        };
        // The one who asked may have gone.
        let _ = reply.send(outcome);
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sample::at;

    #[test]
    fn time_goes_on_when_the_clock_is_set_back_and_follows_it_when_it_is_set_forward() {
        let second = Duration::from_secs(1);
        assert_eq!(time_after(at(100), second, at(101)), at(101));
        assert_eq!(time_after(at(100), second, at(-3_500)), at(101));
        assert_eq!(time_after(at(101), second, at(-3_499)), at(102));
        assert_eq!(time_after(at(100), second, at(3_701)), at(3_701));
        assert_eq!(time_after(at(0), Duration::MAX, at(1)), Timestamp::MAX);
    }
}
