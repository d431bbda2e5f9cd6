//! The running namespace: a handle to the one owner of all its entities.
//!
//! Commands go to the owner over a channel. It applies those that wait to the [`crate::broker`] state machine,
//! commits their changes to the store in one transaction and then answers them: an answered send,
//! complete or schedule survives `kill -9`.

use std::{
    io,
    path::Path,
    sync::{Arc, mpsc},
    thread,
    time::{Duration, Instant},
};

use bytes::Bytes;
use jiff::Timestamp;
use serde::Serialize;
use tokio::sync::{oneshot, watch};
use uuid::Uuid;

use crate::{
    AcceptedSession, Changes, EntityPath, MAX_MESSAGE_SIZE, Message, MessageState, Operation,
    ReceiveMode, ReceivedMessage, Settlement, Topology,
    broker::Broker,
    owner::{Accepted, Command, Delivery, Job, Owner},
    store::Store,
    waiting::{Waiter, Wants},
};

mod administration;
#[cfg(test)]
mod administration_tests;
#[cfg(test)]
mod tests;

/// How much a namespace takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// The maximum size of a queue, or of a topic with its subscriptions, dead letters included, in bytes.
    pub entity_quota: u64,
    /// The largest message, and the largest batch of messages, in bytes.
    pub max_message_size: usize,
}

impl Default for Limits {
    /// The smallest entity that Azure offers, and a message of the Standard tier.
    fn default() -> Self {
        Self {
            entity_quota: 1 << 30,
            max_message_size: MAX_MESSAGE_SIZE,
        }
    }
}

/// A handle to the running namespace; clones share it. The namespace closes when the last one is dropped.
///
/// What changes something is on its way when the method returns: the future is only the answer.
#[derive(Clone)]
pub struct ServiceBus {
    commands: Arc<mpsc::Sender<Command>>,
    store_failure: watch::Receiver<Option<String>>,
    limits: Limits,
}

/// Why a command was not carried out.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    #[error("the messaging entity `{0}` could not be found")]
    EntityNotFound(String),
    /// The operation does not exist on this kind of entity: sending to a subscription, receiving from a topic.
    #[error("{0}")]
    NotSupported(String),
    #[error(
        "the lock supplied is invalid: it has expired, or the message has already been removed"
    )]
    MessageLockLost,
    #[error("the session lock is lost: it has expired, or the session was never accepted")]
    SessionLockLost,
    #[error("the session `{0}` is locked by another receiver")]
    SessionCannotBeLocked(String),
    /// No message with that sequence number is in the state that is asked for.
    #[error("{0}")]
    MessageNotFound(String),
    #[error("{0}")]
    InvalidMessage(String),
    #[error("the message is larger than the {limit} bytes that `{entity}` takes")]
    MessageTooLarge { entity: String, limit: usize },
    #[error("`{0}` has reached its maximum size")]
    QuotaExceeded(String),
    #[error("the messaging entity `{0}` is currently disabled")]
    EntityDisabled(String),
    #[error("the messaging entity `{0}` already exists")]
    EntityExists(String),
    #[error("the namespace has been closed")]
    Closed,
    /// The store could not take the change (disk full, for one); nothing was changed.
    #[error("the change could not be stored: {0}")]
    Store(String),
}

/// Why a namespace could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    #[error("the data folder `{folder}` cannot be used: {reason}")]
    Data { folder: String, reason: String },
    #[error("the topology is not valid: {0}")]
    Topology(String),
}

/// How many messages an entity holds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct EntityCounts {
    pub name: String,
    pub active: usize,
    pub locked: usize,
    pub scheduled: usize,
    pub deferred: usize,
    pub dead_letter: usize,
}

impl ServiceBus {
    /// Opens the namespace with what the data folder holds; without a folder nothing outlives the process.
    pub fn open(topology: &Topology, data: Option<&Path>) -> Result<Self, OpenError> {
        Self::open_with(topology, data, Limits::default())
    }

    /// As [`Self::open`], with limits of one's own.
    pub fn open_with(
        topology: &Topology,
        data: Option<&Path>,
        limits: Limits,
    ) -> Result<Self, OpenError> {
        let mut broker =
            Broker::new(topology, limits, Box::new(Uuid::new_v4)).map_err(OpenError::Topology)?;
        let folder = data.map_or_else(String::new, |folder| folder.display().to_string());
        let store = data.map(Store::open).transpose()?;
        if let Some(store) = &store {
            broker.freeze_into(store.frozen());
            store.read(|item| {
                broker.load(item).map_err(|entity| {
                    format!(
                        "it holds messages of `{entity}`, which the topology does not have as such; put the entity \
                         back, or choose another data folder to begin with an empty namespace"
                    )
                })
            })?;
        }
        broker.resume(Timestamp::now());
        if let Some(store) = &store {
            store
                .commit(&broker.changes())
                .map_err(|reason| store.unusable(reason))?;
        }
        broker.committed();
        Self::start(broker, store, limits).map_err(|error| OpenError::Data {
            folder,
            reason: format!("no thread could be started for it: {error}"),
        })
    }

    fn start(broker: Broker, store: Option<Store>, limits: Limits) -> io::Result<Self> {
        let (sender, commands) = mpsc::channel();
        let handle = Arc::new(sender);
        let (failed, store_failure) = watch::channel(None);
        // It outlives all else that the thread holds, a panic included: when it is gone, the file is free.
        let ended = failed.clone();
        let owner = Owner::new(broker, store, commands, Arc::downgrade(&handle), failed);
        thread::Builder::new()
            .name("servicebus".to_owned())
            .spawn(move || {
                let _ended = ended;
                owner.run();
            })?;
        Ok(Self {
            commands: handle,
            store_failure,
            limits,
        })
    }

    /// The largest message that is taken, in bytes.
    pub fn max_message_size(&self) -> usize {
        self.limits.max_message_size
    }

    /// Ends the namespace, for all handles: what waits is answered with [`Error::Closed`]. When this
    /// returns, the data folder is free.
    pub async fn close(self) {
        // An error says that it had ended before.
        let _ = self.commands.send(Command::Close);
        self.closed().await;
    }

    /// Resolves when the namespace has ended: closed through any handle, or by a fault of its own.
    pub async fn closed(&self) {
        let mut store_failure = self.store_failure.clone();
        while store_failure.changed().await.is_ok() {}
    }

    pub(crate) fn limits(&self) -> Limits {
        self.limits
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.store_failure.has_changed().is_err()
    }

    /// Why changes cannot be stored at present, if they cannot. It changes when storing first fails and
    /// when it works again, and ends with the namespace.
    pub fn store_failure(&self) -> watch::Receiver<Option<String>> {
        self.store_failure.clone()
    }

    /// Takes all of the messages or none, and answers once they are durable.
    pub fn send(
        &self,
        to: &EntityPath,
        messages: Vec<Message>,
    ) -> impl Future<Output = Result<(), Error>> + Send + use<> {
        let to = to.clone();
        self.change(move |broker, now| broker.send(now, &to, messages))
    }

    /// Takes all of the messages or none, each for its `scheduled_enqueue_time`; answers the sequence numbers by which
    /// they can be cancelled (0 for a duplicate, which is not kept).
    pub fn schedule(
        &self,
        to: &EntityPath,
        messages: Vec<Message>,
    ) -> impl Future<Output = Result<Vec<i64>, Error>> + Send + use<> {
        let to = to.clone();
        self.change(move |broker, now| broker.schedule(now, &to, messages))
    }

    /// Takes back all of those scheduled messages or none.
    pub fn cancel_scheduled(
        &self,
        entity: &EntityPath,
        sequence_numbers: Vec<i64>,
    ) -> impl Future<Output = Result<(), Error>> + Send + use<> {
        let entity = entity.clone();
        self.change(move |broker, now| broker.cancel_scheduled(now, &entity, &sequence_numbers))
    }

    /// The next message, waiting for it up to `wait`; `None` when none came. Those who wait are served in the
    /// order in which they came. Dropping the future leaves the message where it is.
    pub async fn receive(
        &self,
        from: &EntityPath,
        mode: ReceiveMode,
        wait: Duration,
    ) -> Result<Option<ReceivedMessage>, Error> {
        let mut received = self.receive_batch(from, mode, None, 1, Some(wait)).await?;
        Ok(received.pop())
    }

    /// As [`Self::receive`], up to `most` messages as soon as there is one, and without `wait` for ever. Where the
    /// entity requires sessions, they are those of the accepted session with that token.
    pub async fn receive_batch(
        &self,
        from: &EntityPath,
        mode: ReceiveMode,
        session: Option<Uuid>,
        most: usize,
        wait: Option<Duration>,
    ) -> Result<Vec<ReceivedMessage>, Error> {
        let (reply, answer) = oneshot::channel();
        let waiter = Waiter {
            from: from.clone(),
            deadline: deadline(wait),
            wants: Wants::Messages {
                mode,
                session,
                most,
                reply,
            },
        };
        let delivery = self.ask(Command::Receive(waiter), answer).await?;
        Ok(delivery.map_or_else(Vec::new, Delivery::take))
    }

    /// The deferred messages with those sequence numbers, all or none; where the entity requires sessions, of a
    /// session that is held.
    pub async fn receive_deferred(
        &self,
        from: &EntityPath,
        mode: ReceiveMode,
        session_id: Option<&str>,
        sequence_numbers: Vec<i64>,
    ) -> Result<Vec<ReceivedMessage>, Error> {
        let from = from.clone();
        let session = session_id.map(str::to_owned);
        let owner = Arc::downgrade(&self.commands);
        let delivery = self.change(move |broker, now| {
            let session = session.as_deref();
            let received = broker.receive_deferred(now, &from, mode, session, &sequence_numbers)?;
            Ok(Delivery::new(received, from, owner))
        });
        Ok(delivery.await?.take())
    }

    /// Takes messages back that reached nobody: their deliveries do not count.
    pub(crate) fn give_back(&self, from: &EntityPath, messages: Vec<ReceivedMessage>) {
        // As when they get lost on their way.
        drop(Delivery::new(
            messages,
            from.clone(),
            Arc::downgrade(&self.commands),
        ));
    }

    /// Does with the locked message what its receiver says.
    pub fn settle(
        &self,
        from: &EntityPath,
        lock_token: Uuid,
        settlement: Settlement,
    ) -> impl Future<Output = Result<(), Error>> + Send + use<> {
        let from = from.clone();
        self.change(move |broker, now| broker.settle(now, &from, lock_token, settlement))
    }

    /// Removes the locked message.
    pub fn complete(
        &self,
        from: &EntityPath,
        lock_token: Uuid,
    ) -> impl Future<Output = Result<(), Error>> + Send + use<> {
        self.settle(from, lock_token, Settlement::Complete)
    }

    /// Gives the locked message back at once; at the maximum delivery count it is dead-lettered.
    pub fn abandon(
        &self,
        from: &EntityPath,
        lock_token: Uuid,
    ) -> impl Future<Output = Result<(), Error>> + Send + use<> {
        let changes = Changes::new();
        let settlement = Settlement::Abandon { changes };
        self.settle(from, lock_token, settlement)
    }

    /// Holds the lock for another lock duration; answers until when.
    pub fn renew_lock(
        &self,
        from: &EntityPath,
        lock_token: Uuid,
    ) -> impl Future<Output = Result<Timestamp, Error>> + Send + use<> {
        let from = from.clone();
        self.change(move |broker, now| broker.renew_lock(now, &from, lock_token))
    }

    /// Carries out all of the operations, in order, or none.
    pub fn transact(
        &self,
        operations: Vec<Operation>,
    ) -> impl Future<Output = Result<(), Error>> + Send + use<> {
        self.change(move |broker, now| broker.transact(now, operations))
    }

    /// Locks that session; without a name the next one that is free and has messages, waiting for it up to `wait`.
    /// `None` when none came. Dropping the future leaves the session free.
    pub async fn accept_session(
        &self,
        from: &EntityPath,
        session_id: Option<&str>,
        wait: Duration,
    ) -> Result<Option<AcceptedSession>, Error> {
        let from = from.clone();
        if let Some(session) = session_id.map(str::to_owned) {
            let owner = Arc::downgrade(&self.commands);
            let accepted = self.change(move |broker, now| {
                let accepted = broker.accept_session(now, &from, Some(&session))?;
                Ok(Accepted::new(accepted, from, owner))
            });
            return Ok(accepted.await?.take());
        }
        let (reply, answer) = oneshot::channel();
        let waiter = Waiter {
            from,
            deadline: deadline(Some(wait)),
            wants: Wants::Session { reply },
        };
        let accepted = self.ask(Command::Receive(waiter), answer).await?;
        Ok(accepted.and_then(Accepted::take))
    }

    /// Holds the session for another lock duration; answers until when.
    pub async fn renew_session_lock(
        &self,
        from: &EntityPath,
        session_id: &str,
    ) -> Result<Timestamp, Error> {
        let (from, session) = (from.clone(), session_id.to_owned());
        self.change(move |broker, now| broker.renew_session_lock(now, &from, &session))
            .await
    }

    /// The state of a session that is held.
    pub async fn session_state(
        &self,
        from: &EntityPath,
        session_id: &str,
    ) -> Result<Option<Bytes>, Error> {
        let (from, session) = (from.clone(), session_id.to_owned());
        self.change(move |broker, now| broker.session_state(now, &from, &session))
            .await
    }

    /// Sets the state of a session that is held; it outlives the lock, the messages and the process.
    pub async fn set_session_state(
        &self,
        from: &EntityPath,
        session_id: &str,
        state: Option<Bytes>,
    ) -> Result<(), Error> {
        let (from, session) = (from.clone(), session_id.to_owned());
        self.change(move |broker, now| broker.set_session_state(now, &from, &session, state))
            .await
    }

    /// The sessions that have messages, or whose state was set after that time, by name.
    pub async fn sessions(
        &self,
        from: &EntityPath,
        updated_since: Option<Timestamp>,
        skip: usize,
        most: usize,
    ) -> Result<Vec<String>, Error> {
        let from = from.clone();
        self.look(move |broker, _| broker.sessions(&from, updated_since, skip, most))
            .await
    }

    /// Closes an accepted session: what was received in it and not settled is available again, and its delivery does
    /// not count.
    pub fn release_session(&self, from: &EntityPath, token: Uuid) {
        let from = from.clone();
        let job = Job::silent(move |broker, now| broker.release_session(now, &from, token));
        // A namespace that has ended has no locks.
        let _ = self.commands.send(Command::Do(job));
    }

    /// Whether the entity is there and takes messages.
    pub(crate) async fn check_sender(&self, to: &EntityPath) -> Result<(), Error> {
        let to = to.clone();
        self.look(move |broker, _| broker.sendable(&to).map(drop))
            .await
    }

    /// Whether a receiver can be opened on the entity, outside of sessions.
    pub(crate) async fn check_receiver(&self, from: &EntityPath) -> Result<(), Error> {
        let from = from.clone();
        self.look(move |broker, _| {
            let at = broker.receivable(&from)?;
            broker.check_session_use(at, false)
        })
        .await
    }

    /// Whether the entity is there.
    pub(crate) async fn check_entity(&self, entity: &EntityPath) -> Result<(), Error> {
        let entity = entity.clone();
        self.look(move |broker, _| broker.find(&entity).map(drop))
            .await
    }

    /// Every queue, topic and subscription, by name.
    pub async fn entities(&self) -> Result<Vec<EntityCounts>, Error> {
        self.look(|broker, _| Ok(broker.entities())).await
    }

    /// The next message that a receiver would get, without locking it or counting a delivery.
    pub async fn peek(&self, from: &EntityPath) -> Result<Option<ReceivedMessage>, Error> {
        let from = from.clone();
        self.look(move |broker, _| broker.peek(&from)).await
    }

    /// Up to `most` messages from that sequence number on, in whatever state, of one session if one is given, without
    /// touching them.
    pub async fn peek_batch(
        &self,
        from: &EntityPath,
        from_sequence_number: i64,
        most: usize,
        session_id: Option<&str>,
    ) -> Result<Vec<ReceivedMessage>, Error> {
        let (from, session) = (from.clone(), session_id.map(str::to_owned));
        self.look(move |broker, _| {
            broker.peek_batch(&from, from_sequence_number, most, session.as_deref())
        })
        .await
    }

    /// The messages of an entity in that state (`Active` leaves the locked ones out), by sequence number,
    /// without touching them.
    pub async fn browse(
        &self,
        entity: &EntityPath,
        state: MessageState,
    ) -> Result<Vec<ReceivedMessage>, Error> {
        let entity = entity.clone();
        self.look(move |broker, _| broker.browse(&entity, state))
            .await
    }

    /// Has something carried out that may change something. It is on its way when this returns, so that what one caller
    /// asks for one after the other is carried out in that order, however the answers are awaited.
    fn change<T, Work>(
        &self,
        work: Work,
    ) -> impl Future<Output = Result<T, Error>> + Send + use<T, Work>
    where
        T: Send + 'static,
        Work: FnOnce(&mut Broker, Timestamp) -> Result<T, Error> + Send + 'static,
    {
        let (reply, answer) = oneshot::channel();
        let sent = self
            .commands
            .send(Command::Do(Job::new(true, reply, work)))
            .map_err(|_| Error::Closed);
        async move {
            sent?;
            answer.await.map_err(|_| Error::Closed)?
        }
    }

    /// Has something answered that changes nothing, and so works even while nothing can be stored.
    async fn look<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Broker, Timestamp) -> Result<T, Error> + Send + 'static,
    ) -> Result<T, Error> {
        let (reply, answer) = oneshot::channel();
        self.ask(Command::Do(Job::new(false, reply, work)), answer)
            .await
    }

    async fn ask<T>(
        &self,
        command: Command,
        answer: oneshot::Receiver<Result<T, Error>>,
    ) -> Result<T, Error> {
        self.commands.send(command).map_err(|_| Error::Closed)?;
        answer.await.map_err(|_| Error::Closed)?
    }
}

fn deadline(wait: Option<Duration>) -> Option<Instant> {
    Instant::now().checked_add(wait?)
}
