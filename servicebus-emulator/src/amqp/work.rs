//! What is under way for a connection: the commands to the bus that it has not been answered yet.
//!
//! Each is a future that the connection's own task drives, so that an answer, and the state of the link that it is for, are
//! only ever looked at in one place, and what is dropped has certainly not happened behind its back. They are first driven in
//! the order in which they came: two messages of one link reach the bus in that order.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use fe2o3_amqp_types::{messaging::DeliveryState, performatives::Performative};
use futures_util::{FutureExt, StreamExt, future::BoxFuture, stream::FuturesUnordered};

use super::{
    address::Node,
    attach::Admitted,
    authorization::Authorization,
    coordinator::Transactions,
    errors::{RESOURCE_LIMIT_EXCEEDED, Refusal},
    frame,
    listener::Shared,
};
use crate::{Error, ReceivedMessage};

/// No more is made to be sent while so much waits for a slow reader.
const MOST_OUTPUT: usize = 256 * 1024;
/// How many links a connection may have.
const MOST_LINKS: usize = 5000;
/// No more is read while so many bytes of messages are on their way to the bus.
const MOST_UNDER_WAY: usize = 16 * 1024 * 1024;

/// One link in the life of a connection; handles and channels are used again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct LinkId {
    pub(crate) channel: u16,
    pub(crate) handle: u32,
    pub(crate) serial: u64,
}

/// What has come of something that was under way.
pub(crate) enum Done {
    /// A link may be attached, or not.
    Attach(LinkId, Result<Admitted, Refusal>),
    /// A delivery of the client has been dealt with; nothing where the client does not want to know.
    Delivery(LinkId, u32, Option<DeliveryState>),
    /// The client's outcome for a delivery to it has been carried out, in the session with that serial.
    Settlement {
        channel: u16,
        session: u64,
        delivery: u32,
        state: DeliveryState,
    },
    /// What a receiver gets.
    Received(LinkId, Result<Vec<ReceivedMessage>, Error>),
    /// The answer to a request, for the link that the client receives its answers on.
    Answer {
        request: LinkId,
        node: Node,
        reply_to: Option<String>,
        payload: Bytes,
    },
    /// It was cancelled, or nobody wants to know.
    Nothing,
}

#[derive(Default)]
pub(crate) struct Work {
    futures: FuturesUnordered<BoxFuture<'static, (usize, Done)>>,
    /// The bytes of messages that are under way.
    weight: usize,
}

impl Work {
    pub(crate) fn push(&mut self, future: impl Future<Output = Done> + Send + 'static) {
        self.push_weighing(0, future);
    }

    pub(crate) fn push_weighing(
        &mut self,
        weight: usize,
        future: impl Future<Output = Done> + Send + 'static,
    ) {
        self.weight += weight;
        self.futures
            .push(future.map(move |done| (weight, done)).boxed());
    }

    /// Whether the client should not be listened to for now.
    pub(crate) fn is_too_much(&self) -> bool {
        self.weight >= MOST_UNDER_WAY
    }

    /// What is done next; it never comes when nothing is under way.
    pub(crate) async fn next(&mut self) -> Done {
        match self.futures.next().await {
            Some(done) => self.lift(done),
            None => std::future::pending().await,
        }
    }

    /// What is done already.
    pub(crate) fn next_now(&mut self) -> Option<Done> {
        let done = self.futures.next().now_or_never().flatten()?;
        Some(self.lift(done))
    }

    fn lift(&mut self, (weight, done): (usize, Done)) -> Done {
        self.weight -= weight;
        done
    }
}

/// What the sessions of a connection share.
pub(crate) struct Context {
    pub(crate) shared: Arc<Shared>,
    /// What the client has not been sent yet.
    pub(crate) output: BytesMut,
    /// The largest frame that the client takes.
    pub(crate) max_frame_size: u32,
    pub(crate) work: Work,
    pub(crate) authorization: Authorization,
    pub(crate) transactions: Transactions,
    /// How many links there are in all sessions.
    pub(crate) links: usize,
    /// Some link has something to send, and has not because there is too much output.
    pub(crate) stalled: bool,
    /// A frame could not be written: the connection cannot go on.
    pub(crate) failure: Option<Refusal>,
    last_serial: u64,
}

impl Context {
    pub(crate) fn new(
        shared: Arc<Shared>,
        authorization: Authorization,
        max_frame_size: u32,
        output: BytesMut,
    ) -> Self {
        Self {
            shared,
            output,
            max_frame_size,
            work: Work::default(),
            authorization,
            transactions: Transactions::default(),
            links: 0,
            stalled: false,
            failure: None,
            last_serial: 0,
        }
    }

    /// A number that no session or link of this connection has had.
    pub(crate) fn serial(&mut self) -> u64 {
        self.last_serial += 1;
        self.last_serial
    }

    /// One more link, if there may be.
    pub(crate) fn count_link(&mut self) -> Result<(), Refusal> {
        if self.links >= MOST_LINKS {
            return Err(Refusal::new(
                RESOURCE_LIMIT_EXCEEDED,
                format!("a connection has up to {MOST_LINKS} links"),
            ));
        }
        self.links += 1;
        Ok(())
    }

    pub(crate) fn send(&mut self, channel: u16, performative: &Performative, payload: &[u8]) {
        if let Err(error) = frame::encode(&mut self.output, channel, performative, payload) {
            self.failure.get_or_insert(error.into());
        }
    }

    /// Whether nothing more should be made for the client to read, until it has read something.
    pub(crate) fn is_full(&self) -> bool {
        self.output.len() >= MOST_OUTPUT
    }
}
