//! A namespace without a clock, a thread or a disk: the broker as a value.
//!
//! For simulations, in which days pass in a moment: every command takes the time as an argument, and its answer is all
//! that happens. [`crate::ServiceBus`] is the same broker as a running thing.

use jiff::Timestamp;
use uuid::Uuid;

use crate::{
    EntityCounts, EntityPath, Error, Limits, Message, MessageState, ReceiveMode, ReceivedMessage,
    Topology, broker::Broker,
};

/// The broker of one namespace.
pub struct Namespace(Broker);

impl Namespace {
    /// The empty namespace; `ids` is where lock tokens come from.
    ///
    /// # Errors
    /// What is wrong with the topology.
    pub fn new(
        topology: &Topology,
        ids: impl FnMut() -> Uuid + Send + 'static,
    ) -> Result<Self, String> {
        Broker::new(topology, Limits::default(), Box::new(ids)).map(Self)
    }

    /// When time alone will next change something: a schedule, the end of a lock, an expiry.
    pub fn next_due(&self) -> Option<Timestamp> {
        self.0.next_due()
    }

    /// Carries out what is due.
    pub fn advance(&mut self, now: Timestamp) {
        self.0.advance(now);
        self.0.committed();
    }

    /// As [`crate::ServiceBus::send`], for one message.
    pub fn send(&mut self, now: Timestamp, to: &EntityPath, message: Message) -> Result<(), Error> {
        let sent = self.0.send(now, to, vec![message]);
        self.0.committed();
        sent
    }

    /// The next message, locked, if there is one now.
    pub fn receive(
        &mut self,
        now: Timestamp,
        from: &EntityPath,
    ) -> Result<Option<ReceivedMessage>, Error> {
        let received = self.0.receive(now, from, ReceiveMode::PeekLock);
        self.0.committed();
        received
    }

    /// As [`crate::ServiceBus::complete`].
    pub fn complete(
        &mut self,
        now: Timestamp,
        from: &EntityPath,
        lock_token: Uuid,
    ) -> Result<(), Error> {
        let completed = self.0.complete(now, from, lock_token);
        self.0.committed();
        completed
    }

    /// As [`crate::ServiceBus::abandon`].
    pub fn abandon(
        &mut self,
        now: Timestamp,
        from: &EntityPath,
        lock_token: Uuid,
    ) -> Result<(), Error> {
        let abandoned = self.0.abandon(now, from, lock_token);
        self.0.committed();
        abandoned
    }

    /// As [`crate::ServiceBus::renew_lock`].
    pub fn renew_lock(
        &mut self,
        now: Timestamp,
        from: &EntityPath,
        lock_token: Uuid,
    ) -> Result<Timestamp, Error> {
        let renewed = self.0.renew_lock(now, from, lock_token);
        self.0.committed();
        renewed
    }

    /// As [`crate::ServiceBus::browse`].
    pub fn browse(
        &self,
        entity: &EntityPath,
        state: MessageState,
    ) -> Result<Vec<ReceivedMessage>, Error> {
        self.0.in_memory(entity, state)
    }

    /// As [`crate::ServiceBus::entities`].
    pub fn entities(&self) -> Vec<EntityCounts> {
        self.0.entities()
    }
}
