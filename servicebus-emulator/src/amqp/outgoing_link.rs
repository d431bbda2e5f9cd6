//! A link on which the client receives: messages of an entity, or the answers to its requests.
//!
//! While it has credit there is one receive at the bus for it, never two, that waits for as long as it takes; its messages
//! go out at once. It is dropped, and with it whatever it would have got, when the client takes its credit back, drains the
//! link or closes it. What the client gets under a lock is settled later, on this link or by a request: closing the
//! link settles nothing.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use fe2o3_amqp_types::performatives::{Flow, Performative, Transfer};
use jiff::Timestamp;
use tokio::sync::oneshot;
use uuid::Uuid;

use super::{
    address::Node,
    message_encoding::encode_message,
    value,
    windows::Windows,
    work::{Context, Done, LinkId},
};
use crate::{AcceptedSession, EntityPath, ReceiveMode, ReceivedMessage};

/// How many messages are received at once; the bus limits their bytes.
const MOST_AT_ONCE: u32 = 256;
/// How many answers, and how many bytes of them, are kept for a client that gives no credit for them.
const MOST_ANSWERS: usize = 1000;
const MOST_ANSWER_BYTES: usize = 16 << 20;
/// How many deliveries of a session are remembered that the client has not settled; the locks of older ones have long
/// run out.
const MOST_UNSETTLED: usize = 100_000;
/// What a transfer takes of a frame besides its payload, at most.
const TRANSFER_SIZE: usize = 96;

pub(crate) enum Source {
    Entity {
        from: Arc<EntityPath>,
        mode: ReceiveMode,
        session: Option<AcceptedSession>,
    },
    /// The answers of `$cbs` or `$management`.
    Answers {
        node: Node,
        /// How the client's requests name this link.
        reply_to: String,
    },
}

pub(crate) struct OutgoingLink {
    pub(crate) id: LinkId,
    pub(crate) source: Source,
    delivery_count: u32,
    credit: u32,
    /// The client wants what there is, and then to have no credit.
    drain: bool,
    pending: VecDeque<Outgoing>,
    receive: Option<Receive>,
}

/// A receive that waits at the bus; it is cancelled when this is dropped.
struct Receive {
    most: u32,
    _cancel: oneshot::Sender<()>,
}

/// What has not been sent, or not all of it.
struct Outgoing {
    /// A message of which nothing has been sent.
    message: Option<ReceivedMessage>,
    /// An answer, or what is left of a message.
    payload: Bytes,
    delivery: Option<u32>,
    tag: [u8; 16],
    lock_token: Option<Uuid>,
}

/// A delivery that the client may settle.
pub(crate) struct Unsettled {
    pub(crate) from: Arc<EntityPath>,
    pub(crate) lock_token: Uuid,
}

impl OutgoingLink {
    pub(crate) fn new(id: LinkId, source: Source) -> Self {
        Self {
            id,
            source,
            delivery_count: 0,
            credit: 0,
            drain: false,
            pending: VecDeque::new(),
            receive: None,
        }
    }

    /// The client says how much it takes. The same flow once more changes nothing.
    pub(crate) fn update(&mut self, flow: &Flow) {
        if let Some(credit) = flow.link_credit {
            // What the client has not counted yet is on its way to it.
            let seen = flow.delivery_count.unwrap_or(0);
            let under_way = self.delivery_count.wrapping_sub(seen);
            self.credit = credit.saturating_sub(under_way);
        }
        let drains = flow.drain && !self.drain;
        self.drain = flow.drain;
        if drains
            || self
                .receive
                .as_ref()
                .is_some_and(|receive| receive.most > self.credit)
        {
            self.receive = None;
        }
    }

    /// Sends what there is and may be sent, and sees to it that more comes.
    pub(crate) fn go_on(
        &mut self,
        windows: &mut Windows,
        unsettled: &mut BTreeMap<u32, Unsettled>,
        context: &mut Context,
    ) {
        self.send_pending(windows, unsettled, context);
        if self.receive.is_some() || !self.pending.is_empty() && self.credit > 0 {
            return;
        }
        if self.credit == 0 {
            if self.drain {
                self.drained(windows, context);
            }
            return;
        }
        let Source::Entity {
            from,
            mode,
            session,
        } = &self.source
        else {
            if self.drain {
                self.drained(windows, context);
            }
            return;
        };
        if windows.is_closed() {
            return;
        }
        if context.is_full() {
            context.stalled = true;
            return;
        }
        let most = self.credit.min(MOST_AT_ONCE);
        let wait = self.drain.then_some(Duration::ZERO);
        let (cancel, cancelled) = oneshot::channel::<()>();
        self.receive = Some(Receive {
            most,
            _cancel: cancel,
        });
        let (id, bus) = (self.id, context.shared.bus.clone());
        let (from, mode) = (Arc::clone(from), *mode);
        let session = session.as_ref().map(|session| session.token);
        context.work.push(async move {
            tokio::select! {
                // First: what has been cancelled gets nothing, however near it was.
                biased;
                _ = cancelled => Done::Nothing,
                received = bus.receive_batch(&from, mode, session, most as usize, wait) => {
                    Done::Received(id, received)
                }
            }
        });
    }

    /// The receive has got these. Where the link is drained, that there are none is its end.
    pub(crate) fn received(
        &mut self,
        messages: Vec<ReceivedMessage>,
        windows: &mut Windows,
        unsettled: &mut BTreeMap<u32, Unsettled>,
        context: &mut Context,
    ) {
        self.receive = None;
        if messages.is_empty() && self.drain {
            self.drained(windows, context);
        }
        for received in messages {
            self.pending.push_back(Outgoing {
                payload: Bytes::new(),
                delivery: None,
                tag: value::delivery_tag(received.lock_token.unwrap_or_else(Uuid::new_v4)),
                lock_token: received.lock_token,
                message: Some(received),
            });
        }
        self.go_on(windows, unsettled, context);
    }

    /// An answer to a request; what nobody takes is not kept for ever.
    pub(crate) fn answer(
        &mut self,
        payload: Bytes,
        windows: &mut Windows,
        unsettled: &mut BTreeMap<u32, Unsettled>,
        context: &mut Context,
    ) {
        let kept: usize = self.pending.iter().map(|kept| kept.payload.len()).sum();
        if self.pending.len() < MOST_ANSWERS && kept < MOST_ANSWER_BYTES {
            self.pending.push_back(Outgoing {
                message: None,
                payload,
                delivery: None,
                tag: Uuid::new_v4().into_bytes(),
                lock_token: None,
            });
        }
        self.go_on(windows, unsettled, context);
    }

    fn send_pending(
        &mut self,
        windows: &mut Windows,
        unsettled: &mut BTreeMap<u32, Unsettled>,
        context: &mut Context,
    ) {
        let room = context.max_frame_size as usize - TRANSFER_SIZE;
        while let Some(outgoing) = self.pending.front_mut() {
            if windows.is_closed() || outgoing.delivery.is_none() && self.credit == 0 {
                return;
            }
            if context.is_full() {
                context.stalled = true;
                return;
            }
            if let Some(received) = outgoing.message.take() {
                // It waited for too long: it is somebody else's again.
                if received
                    .locked_until
                    .is_some_and(|until| until <= Timestamp::now())
                {
                    self.pending.pop_front();
                    continue;
                }
                outgoing.payload = encode_message(&received);
            }
            let is_first = outgoing.delivery.is_none();
            let delivery = *outgoing
                .delivery
                .get_or_insert_with(|| windows.delivery_id());
            if is_first {
                self.credit -= 1;
                self.delivery_count = self.delivery_count.wrapping_add(1);
                if let (Some(lock_token), Source::Entity { from, .. }) =
                    (outgoing.lock_token, &self.source)
                {
                    let from = Arc::clone(from);
                    unsettled.insert(delivery, Unsettled { from, lock_token });
                    if unsettled.len() > MOST_UNSETTLED {
                        unsettled.pop_first();
                    }
                }
            }
            let part = outgoing.payload.split_to(room.min(outgoing.payload.len()));
            let more = !outgoing.payload.is_empty();
            let transfer = Transfer {
                handle: self.id.handle.into(),
                delivery_id: Some(delivery),
                delivery_tag: is_first.then(|| outgoing.tag.to_vec().into()),
                message_format: is_first.then_some(0),
                settled: Some(outgoing.lock_token.is_none()),
                more,
                rcv_settle_mode: None,
                state: None,
                resume: false,
                aborted: false,
                batchable: false,
            };
            windows.went();
            context.send(self.id.channel, &Performative::Transfer(transfer), &part);
            if !more {
                self.pending.pop_front();
            }
        }
    }

    /// There is nothing more: the credit is used up, and the client is told so.
    fn drained(&mut self, windows: &Windows, context: &mut Context) {
        self.drain = false;
        self.delivery_count = self.delivery_count.wrapping_add(self.credit);
        self.credit = 0;
        let flow = Flow {
            drain: true,
            ..self.flow(windows)
        };
        context.send(self.id.channel, &Performative::Flow(flow), &[]);
    }

    pub(crate) fn flow(&self, windows: &Windows) -> Flow {
        Flow {
            handle: Some(self.id.handle.into()),
            delivery_count: Some(self.delivery_count),
            link_credit: Some(self.credit),
            available: Some(u32::try_from(self.pending.len()).unwrap_or(u32::MAX)),
            drain: self.drain,
            ..windows.flow()
        }
    }

    /// The link is closed. What the client has not been sent goes back uncounted, and so does its session.
    pub(crate) fn close(self, context: &mut Context) {
        let Source::Entity { from, session, .. } = self.source else {
            return;
        };
        let bus = &context.shared.bus;
        let unsent = self.pending.into_iter();
        bus.give_back(
            &from,
            unsent.filter_map(|outgoing| outgoing.message).collect(),
        );
        if let Some(session) = session {
            bus.release_session(&from, session.token);
        }
    }
}
