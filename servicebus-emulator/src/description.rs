//! What an entity is described with: its own properties, since when it has them, and what it holds.
//!
//! The broker has a description of every queue, topic and subscription. The management API shows and changes them, and
//! those that it has changed are stored, so that they outlive the process.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::topology::{Queue, Subscription, Topic};

/// The properties of one entity.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) enum Description {
    Queue(Queue),
    /// Without its subscriptions, which have descriptions of their own.
    Topic(Topic),
    Subscription {
        topic: String,
        subscription: Subscription,
    },
}

impl Description {
    /// The entity's path, as it is written.
    pub(crate) fn path(&self) -> String {
        match self {
            Self::Queue(queue) => queue.name.clone(),
            Self::Topic(topic) => topic.name.clone(),
            Self::Subscription {
                topic,
                subscription,
            } => format!("{topic}/Subscriptions/{}", subscription.queue.name),
        }
    }

    /// What a queue and a subscription have in common.
    pub(crate) fn queue(&self) -> Option<&Queue> {
        match self {
            Self::Queue(queue) => Some(queue),
            Self::Topic(_) => None,
            Self::Subscription { subscription, .. } => Some(&subscription.queue),
        }
    }
}

/// A description with its times.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Listed {
    pub(crate) description: Description,
    pub(crate) created_at: Timestamp,
    pub(crate) updated_at: Timestamp,
    /// When something was last sent to it or received from it.
    pub(crate) accessed_at: Timestamp,
}

/// What the management API has made of an entity.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Remembered {
    /// What the topology file said about the entity at that time, if it named it.
    pub(crate) in_file: Option<Description>,
    /// `None` where it was deleted.
    pub(crate) now: Option<Listed>,
}

/// An entity as the management API shows it.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Described {
    pub(crate) listed: Listed,
    pub(crate) counts: Counts,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Counts {
    /// Those under a lock and the deferred ones included.
    pub(crate) active: usize,
    pub(crate) dead_letter: usize,
    pub(crate) scheduled: usize,
    pub(crate) size_in_bytes: u64,
    /// Of a topic only.
    pub(crate) subscriptions: usize,
}

/// Which entities are listed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Kind {
    Queues,
    Topics,
    SubscriptionsOf(String),
}
