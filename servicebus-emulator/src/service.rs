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

use jiff::Timestamp;
use serde::Serialize;
use tokio::sync::{oneshot, watch};
use uuid::Uuid;

use crate::{
    EntityPath, Message, MessageState, ReceiveMode, ReceivedMessage, Topology,
    broker::{Broker, Contents},
    owner::{Command, Delivery, Owner, Reply},
    store::Store,
    waiting::Waiter,
};

#[cfg(test)]
mod tests;

/// The maximum size of a queue or topic, in bytes, where none is given: the smallest that Azure offers.
pub const DEFAULT_ENTITY_QUOTA: u64 = 1 << 30;

/// A handle to the running namespace; clones share it. The namespace closes when the last one is dropped.
#[derive(Clone)]
pub struct ServiceBus {
    commands: Arc<mpsc::Sender<Command>>,
    store_failure: watch::Receiver<Option<String>>,
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
    #[error("{0}")]
    InvalidMessage(String),
    #[error("the message is larger than the {limit} bytes that `{entity}` takes")]
    MessageTooLarge { entity: String, limit: usize },
    #[error("`{0}` has reached its maximum size")]
    QuotaExceeded(String),
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
    pub dead_letter: usize,
}

impl ServiceBus {
    /// Opens the namespace with what the data folder holds; without a folder nothing outlives the process.
    pub fn open(topology: &Topology, data: Option<&Path>) -> Result<Self, OpenError> {
        Self::open_with_quota(topology, data, DEFAULT_ENTITY_QUOTA)
    }

    /// As [`Self::open`], with a maximum size in bytes for each queue and topic (with its subscriptions),
    /// dead letters included: for those who use the library and want to see a full entity.
    pub fn open_with_quota(
        topology: &Topology,
        data: Option<&Path>,
        entity_quota: u64,
    ) -> Result<Self, OpenError> {
        let mut broker = Broker::new(topology, entity_quota, Box::new(Uuid::new_v4))
            .map_err(OpenError::Topology)?;
        let (mut store, contents) = match data {
            Some(folder) => {
                let (store, contents) = Store::open(folder)?;
                (Some(store), contents)
            }
            None => (None, Contents::default()),
        };
        let folder = data.map_or_else(String::new, |folder| folder.display().to_string());
        broker.load(contents).map_err(|entity| OpenError::Data {
            folder: folder.clone(),
            reason: format!(
                "it holds messages of `{entity}`, which the topology does not have as such; put the entity back, \
                 or choose another data folder to begin with an empty namespace"
            ),
        })?;
        broker.resume(Timestamp::now());
        if let Some(store) = &mut store {
            store
                .commit(&broker.changes())
                .map_err(|reason| OpenError::Data {
                    folder: folder.clone(),
                    reason,
                })?;
        }
        broker.committed();
        Self::start(broker, store).map_err(|error| OpenError::Data {
            folder,
            reason: format!("no thread could be started for it: {error}"),
        })
    }

    fn start(broker: Broker, store: Option<Store>) -> io::Result<Self> {
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
        })
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

    pub(crate) fn is_closed(&self) -> bool {
        self.store_failure.has_changed().is_err()
    }

    /// Why changes cannot be stored at present, if they cannot. It changes when storing first fails and
    /// when it works again, and ends with the namespace.
    pub fn store_failure(&self) -> watch::Receiver<Option<String>> {
        self.store_failure.clone()
    }

    /// Takes all of the messages or none, and answers once they are durable.
    pub async fn send(&self, to: &EntityPath, messages: Vec<Message>) -> Result<(), Error> {
        let to = to.clone();
        self.ask(|reply| Command::Send {
            to,
            messages,
            reply,
        })
        .await
    }

    /// The next message, waiting for it up to `wait`; `None` when none came. Those who wait are served in the
    /// order in which they came. Dropping the future leaves the message where it is, except with
    /// [`ReceiveMode::ReceiveAndDelete`] when it is on its way already.
    pub async fn receive(
        &self,
        from: &EntityPath,
        mode: ReceiveMode,
        wait: Duration,
    ) -> Result<Option<ReceivedMessage>, Error> {
        let from = from.clone();
        let delivery = self
            .ask(|reply| {
                Command::Receive(Waiter {
                    from,
                    mode,
                    deadline: Instant::now().checked_add(wait),
                    reply,
                })
            })
            .await?;
        Ok(delivery.and_then(Delivery::take))
    }

    /// Removes the locked message.
    pub async fn complete(&self, from: &EntityPath, lock_token: Uuid) -> Result<(), Error> {
        let from = from.clone();
        self.ask(|reply| Command::Complete {
            from,
            lock_token,
            reply,
        })
        .await
    }

    /// Gives the locked message back at once; at the maximum delivery count it is dead-lettered.
    pub async fn abandon(&self, from: &EntityPath, lock_token: Uuid) -> Result<(), Error> {
        let from = from.clone();
        self.ask(|reply| Command::Abandon {
            from,
            lock_token,
            reply,
        })
        .await
    }

    /// Holds the lock for another lock duration; answers until when.
    pub async fn renew_lock(
        &self,
        from: &EntityPath,
        lock_token: Uuid,
    ) -> Result<Timestamp, Error> {
        let from = from.clone();
        self.ask(|reply| Command::RenewLock {
            from,
            lock_token,
            reply,
        })
        .await
    }

    /// Moves the locked message to the dead-letter queue: what Service Bus lets a receiver do, though not
    /// over REST.
    pub async fn dead_letter(
        &self,
        from: &EntityPath,
        lock_token: Uuid,
        reason: &str,
        description: &str,
    ) -> Result<(), Error> {
        let from = from.clone();
        let (reason, description) = (reason.to_owned(), description.to_owned());
        self.ask(|reply| Command::DeadLetter {
            from,
            lock_token,
            reason,
            description,
            reply,
        })
        .await
    }

    /// Every queue, topic and subscription, by name.
    pub async fn entities(&self) -> Result<Vec<EntityCounts>, Error> {
        self.ask(|reply| Command::Entities { reply }).await
    }

    /// The next message that a receiver would get, without locking it or counting a delivery.
    pub async fn peek(&self, from: &EntityPath) -> Result<Option<ReceivedMessage>, Error> {
        let from = from.clone();
        self.ask(|reply| Command::Peek { from, reply }).await
    }

    /// The messages of an entity in that state (`Active` leaves the locked ones out), by sequence number,
    /// without touching them.
    pub async fn browse(
        &self,
        entity: &EntityPath,
        state: MessageState,
    ) -> Result<Vec<ReceivedMessage>, Error> {
        let entity = entity.clone();
        self.ask(|reply| Command::Browse {
            entity,
            state,
            reply,
        })
        .await
    }

    async fn ask<T>(&self, command: impl FnOnce(Reply<T>) -> Command) -> Result<T, Error> {
        let (reply, answer) = oneshot::channel();
        self.commands
            .send(command(reply))
            .map_err(|_| Error::Closed)?;
        answer.await.map_err(|_| Error::Closed)?
    }
}
