//! Where the messages of a Service Bus trigger come from, and how they are settled.
//!
//! In-process, straight from the bus, or over AMQP, as the host in Azure does. What comes of it is the same: the pump knows no
//! difference.

use std::{net::SocketAddr, time::Duration};

use jiff::Timestamp;
use servicebus_emulator::{EntityPath, Error, ReceiveMode, ReceivedMessage, ServiceBus};
use uuid::Uuid;

use crate::amqp_receiver::AmqpReceiver;

/// The receiver of one entity's messages, each of which comes with a lock.
pub enum Receiver {
    Direct { bus: ServiceBus, entity: EntityPath },
    Amqp(AmqpReceiver),
}

/// Why nothing was received, or a message not settled.
#[derive(Debug, thiserror::Error)]
pub enum ReceiverError {
    #[error(transparent)]
    Bus(#[from] Error),
    #[error("no AMQP connection to {0}: {1}")]
    Connect(SocketAddr, String),
    #[error("the AMQP connection was lost: {0}")]
    Lost(String),
    #[error("the bus refuses it: {0}")]
    Refused(String),
    #[error("what the bus sent cannot be read: {0}")]
    Unreadable(String),
}

impl Receiver {
    /// The next message, waiting up to `wait` for it; `None` when none came. Of those that follow, up to `free_calls` in all
    /// may be on their way already. Dropping the future loses none.
    pub async fn receive(
        &self,
        free_calls: usize,
        wait: Duration,
    ) -> Result<Option<ReceivedMessage>, ReceiverError> {
        match self {
            Self::Direct { bus, entity } => {
                Ok(bus.receive(entity, ReceiveMode::PeekLock, wait).await?)
            }
            Self::Amqp(receiver) => receiver.receive(free_calls, wait).await,
        }
    }

    /// No more messages come; those that are here can still be settled.
    pub async fn stop(&self) {
        match self {
            // It brings only what it is asked for.
            Self::Direct { .. } => {}
            Self::Amqp(receiver) => receiver.stop().await,
        }
    }

    /// The message has been dealt with.
    pub async fn complete(&self, lock_token: Uuid) -> Result<(), ReceiverError> {
        match self {
            Self::Direct { bus, entity } => Ok(bus.complete(entity, lock_token).await?),
            Self::Amqp(receiver) => receiver.complete(lock_token).await,
        }
    }

    /// The message is delivered again, or dead-lettered when it was delivered as often as it may.
    pub async fn abandon(&self, lock_token: Uuid) -> Result<(), ReceiverError> {
        match self {
            Self::Direct { bus, entity } => Ok(bus.abandon(entity, lock_token).await?),
            Self::Amqp(receiver) => receiver.abandon(lock_token).await,
        }
    }

    /// The lock holds for another lock duration; until when.
    pub async fn renew_lock(&self, lock_token: Uuid) -> Result<Timestamp, ReceiverError> {
        match self {
            Self::Direct { bus, entity } => Ok(bus.renew_lock(entity, lock_token).await?),
            Self::Amqp(receiver) => receiver.renew_lock(lock_token).await,
        }
    }
}
