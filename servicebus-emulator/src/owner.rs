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
use uuid::Uuid;

use crate::{
    EntityCounts, EntityPath, Error, Message, MessageState, ReceivedMessage,
    broker::Broker,
    journal::Change,
    store::Store,
    waiting::{Waiter, Waiting},
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
type Answer = Box<dyn FnOnce(Option<&Error>)>;

pub(crate) enum Command {
    Send {
        to: EntityPath,
        messages: Vec<Message>,
        reply: Reply<()>,
    },
    Receive(Waiter),
    Complete {
        from: EntityPath,
        lock_token: Uuid,
        reply: Reply<()>,
    },
    Abandon {
        from: EntityPath,
        lock_token: Uuid,
        reply: Reply<()>,
    },
    RenewLock {
        from: EntityPath,
        lock_token: Uuid,
        reply: Reply<Timestamp>,
    },
    DeadLetter {
        from: EntityPath,
        lock_token: Uuid,
        reason: String,
        description: String,
        reply: Reply<()>,
    },
    Entities {
        reply: Reply<Vec<EntityCounts>>,
    },
    Peek {
        from: EntityPath,
        reply: Reply<Option<ReceivedMessage>>,
    },
    Browse {
        entity: EntityPath,
        state: MessageState,
        reply: Reply<Vec<ReceivedMessage>>,
    },
    /// A message was locked for a receiver that was gone before it got it.
    Undelivered {
        from: EntityPath,
        lock_token: Uuid,
    },
    Close,
}

impl Command {
    /// Answers the command with the error if it would change something at once; gives back any other.
    fn refuse(self, error: &Error) -> Option<Self> {
        // The one who asked may have gone.
        match self {
            Self::Send { reply, .. }
            | Self::Complete { reply, .. }
            | Self::Abandon { reply, .. }
            | Self::DeadLetter { reply, .. } => drop(reply.send(Err(error.clone()))),
            Self::RenewLock { reply, .. } => drop(reply.send(Err(error.clone()))),
            other => return Some(other),
        }
        None
    }
}

/// A message on its way to its receiver. If it does not arrive, because the future was dropped in the
/// meantime, the lock is given back and the delivery does not count.
pub(crate) struct Delivery {
    message: Option<ReceivedMessage>,
    from: EntityPath,
    owner: Weak<Sender<Command>>,
}

impl Delivery {
    pub(crate) fn take(mut self) -> Option<ReceivedMessage> {
        self.message.take()
    }
}

impl Drop for Delivery {
    fn drop(&mut self) {
        let lock_token = self.message.take().and_then(|message| message.lock_token);
        if let (Some(lock_token), Some(owner)) = (lock_token, self.owner.upgrade()) {
            let from = self.from.clone();
            // An owner that has ended has no locks either.
            let _ = owner.send(Command::Undelivered { from, lock_token });
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
                let command = match &self.paused {
                    Some((_, error)) => command.refuse(error),
                    None => Some(command),
                };
                answers.extend(command.and_then(|command| self.apply(command)));
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
        let (broker, now) = (&mut self.broker, self.now);
        Some(match command {
            Command::Send {
                to,
                messages,
                reply,
            } => answer(reply, broker.send(now, &to, messages)),
            Command::Receive(waiter) => return self.wait(waiter),
            Command::Complete {
                from,
                lock_token,
                reply,
            } => answer(reply, broker.complete(now, &from, lock_token)),
            Command::Abandon {
                from,
                lock_token,
                reply,
            } => answer(reply, broker.abandon(now, &from, lock_token)),
            Command::RenewLock {
                from,
                lock_token,
                reply,
            } => answer(reply, broker.renew_lock(now, &from, lock_token)),
            Command::DeadLetter {
                from,
                lock_token,
                reason,
                description,
                reply,
            } => answer(
                reply,
                broker.dead_letter(now, &from, lock_token, &reason, &description),
            ),
            Command::Entities { reply } => answer(reply, Ok(broker.entities())),
            Command::Peek { from, reply } => answer(reply, broker.peek(&from)),
            Command::Browse {
                entity,
                state,
                reply,
            } => answer(reply, broker.browse(&entity, state)),
            Command::Undelivered { from, lock_token } => {
                broker.undelivered(now, &from, lock_token);
                return None;
            }
            Command::Close => return None,
        })
    }

    fn wait(&mut self, waiter: Waiter) -> Option<Answer> {
        match self.broker.receivable(&waiter.from) {
            Ok(at) => {
                self.waiting.add(at, waiter);
                None
            }
            Err(error) => Some(answer(waiter.reply, Err(error))),
        }
    }

    /// Gives messages to those who wait, first come first served, and sends away whose time is over.
    fn serve(&mut self, answers: &mut Vec<Answer>) {
        if self.paused.is_none() {
            for at in self.waiting.entities() {
                while self.broker.is_ready(at)
                    && let Some(waiter) = self.waiting.next(at)
                {
                    let delivery = self
                        .broker
                        .receive(self.now, &waiter.from, waiter.mode)
                        .map(|message| {
                            Some(Delivery {
                                message,
                                from: waiter.from,
                                owner: Weak::clone(&self.own_commands),
                            })
                        });
                    answers.push(answer(waiter.reply, delivery));
                }
            }
        }
        let now = Instant::now();
        while let Some(waiter) = self.waiting.next_late(now) {
            // During a pause nobody can tell whether there is a message.
            let outcome = match &self.paused {
                Some((_, error)) => Err(error.clone()),
                None => Ok(None),
            };
            answers.push(answer(waiter.reply, outcome));
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
        if let Some(store) = &mut self.store
            && let Err(reason) = store.commit(changes)
        {
            self.broker.roll_back();
            self.store_failure.send_if_modified(|failure| {
                let first = failure.is_none();
                failure.get_or_insert_with(|| reason.clone());
                first
            });
            let error = Error::Store(reason);
            self.paused = Some((Instant::now() + PAUSE_AFTER_FAILURE, error.clone()));
            return Some(error);
        }
        self.broker.committed();
        None
    }
}

/// The namespace's time so long after it was `last`: that of the machine's clock, but when that is set back
/// or stands still, the namespace's goes on all the same, and so no lock and no message lasts longer than it should.
fn time_after(last: Timestamp, elapsed: Duration, clock: Timestamp) -> Timestamp {
    last.checked_add(elapsed)
        .unwrap_or(Timestamp::MAX)
        .max(clock)
}

fn answer<T: 'static>(reply: Reply<T>, outcome: Result<T, Error>) -> Answer {
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
