//! A session: its links, and the deliveries that the client has not settled.
//!
//! It takes the frames of its channel, in their order, and what has come of the work that they caused. An error in a frame
//! ends the session or the one link that it belongs to; what the client still sends there is not looked at until it has
//! said that it knows.

use std::{collections::BTreeMap, time::Instant};

use fe2o3_amqp_types::{
    definitions::{ReceiverSettleMode, Role},
    messaging::{DeliveryState, Source as AmqpSource},
    performatives::{Attach, Begin, Detach, Disposition, End, Flow, Performative, Transfer},
    transaction::TransactionalState,
};
use serde_amqp::{Value as Amqp, primitives::Symbol};
use tokio::sync::oneshot;

use super::{
    attach::{self, Admitted, LOCKED_UNTIL, SESSION_FILTER},
    delivery,
    dispositions::Dispositions,
    errors::{ERRANT_LINK, HANDLE_IN_USE, RESOURCE_LIMIT_EXCEEDED, Refusal, UNATTACHED_HANDLE},
    incoming_link::IncomingLink,
    outgoing_link::{OutgoingLink, Source, Unsettled},
    settlement,
    windows::Windows,
    work::{Context, Done, LinkId},
};
use crate::{Operation, ReceivedMessage};

/// The highest handle, as in Azure's sessions: how many links a session has.
const HANDLE_MAX: u32 = 1023;
/// .NET counts ticks of 100 ns since year 1.
const TICKS_AT_EPOCH: i64 = 621_355_968_000_000_000;

pub(crate) struct Session {
    channel: u16,
    serial: u64,
    windows: Windows,
    links: BTreeMap<u32, Link>,
    unsettled: BTreeMap<u32, Unsettled>,
    dispositions: Dispositions,
    /// It has been ended with an error, and the client has not said that it knows.
    ended: bool,
}

enum Link {
    /// Whether it may be attached is being found out.
    Attaching(Box<Attaching>),
    Incoming(Box<IncomingLink>),
    Outgoing(Box<OutgoingLink>),
    /// It has been detached with an error, and the client has not said that it knows.
    Detached,
}

struct Attaching {
    serial: u64,
    attach: Attach,
    /// What the client has said meanwhile about its credit.
    flow: Option<Flow>,
    /// Ends the finding out when it is dropped.
    _cancel: oneshot::Sender<()>,
}

impl Session {
    /// Begins it, towards the client too.
    pub(crate) fn begin(channel: u16, begin: &Begin, context: &mut Context) -> Self {
        let windows = Windows::new(begin);
        let answer = windows.begin(channel, HANDLE_MAX);
        context.send(channel, &Performative::Begin(answer), &[]);
        Self {
            channel,
            serial: context.serial(),
            windows,
            links: BTreeMap::new(),
            unsettled: BTreeMap::new(),
            dispositions: Dispositions::default(),
            ended: false,
        }
    }

    /// Takes a frame of its channel.
    pub(crate) fn take(
        &mut self,
        performative: Performative,
        payload: &[u8],
        context: &mut Context,
    ) {
        if self.ended {
            return;
        }
        let taken = match performative {
            Performative::Attach(attach) => self.attach(attach, context),
            Performative::Flow(flow) => self.flow(&flow, context),
            Performative::Transfer(transfer) => self.transfer(transfer, payload, context),
            Performative::Disposition(disposition) => {
                self.disposition(disposition, context);
                Ok(())
            }
            Performative::Detach(detach) => self.client_detached(&detach, context),
            // Those are the connection's.
            Performative::Open(_)
            | Performative::Begin(_)
            | Performative::End(_)
            | Performative::Close(_) => Ok(()),
        };
        if let Err(refusal) = taken {
            self.flush(context);
            self.close(context);
            self.ended = true;
            let error = Some(refusal.into());
            context.send(self.channel, &Performative::End(End { error }), &[]);
        }
    }

    fn attach(&mut self, attach: Attach, context: &mut Context) -> Result<(), Refusal> {
        let handle = attach.handle.0;
        if !matches!(self.links.get(&handle), None | Some(Link::Detached)) {
            return Err(Refusal::new(
                HANDLE_IN_USE,
                format!("handle {handle} is attached"),
            ));
        }
        if handle > HANDLE_MAX {
            return Err(Refusal::new(
                RESOURCE_LIMIT_EXCEEDED,
                format!("a session has handles up to {HANDLE_MAX}"),
            ));
        }
        if !self.links.contains_key(&handle) {
            context.count_link()?;
        }
        let admission = match attach::admission(&attach, context) {
            Ok(admission) => admission,
            Err(refusal) => {
                self.refuse(&attach, Some(refusal), context);
                self.links.insert(handle, Link::Detached);
                return Ok(());
            }
        };
        let serial = context.serial();
        let id = LinkId {
            channel: self.channel,
            handle,
            serial,
        };
        let (cancel, cancelled) = oneshot::channel::<()>();
        context.work.push(async move {
            tokio::select! {
                biased;
                _ = cancelled => Done::Nothing,
                admitted = admission => Done::Attach(id, admitted),
            }
        });
        let attaching = Attaching {
            serial,
            attach,
            flow: None,
            _cancel: cancel,
        };
        self.links.insert(handle, Link::Attaching(attaching.into()));
        Ok(())
    }

    /// Whether the link may be attached is known.
    pub(crate) fn attached(
        &mut self,
        id: LinkId,
        admitted: Result<Admitted, Refusal>,
        context: &mut Context,
    ) {
        let attaching = match self.links.remove(&id.handle) {
            Some(Link::Attaching(attaching)) if attaching.serial == id.serial => *attaching,
            other => {
                // The attaching is cancelled with its link, so there is always one.
                if let Some(link) = other {
                    self.links.insert(id.handle, link);
                }
                return;
            }
        };
        let Attaching { attach, flow, .. } = attaching;
        let link = match admitted {
            Err(refusal) => {
                self.refuse(&attach, Some(refusal), context);
                Link::Detached
            }
            Ok(Admitted::Incoming(target)) => {
                let limit = context.shared.bus.max_message_size();
                let mut link = IncomingLink::new(id, target, limit);
                self.answer_attach(&attach, None, context);
                if let Some(flow) = link.more_credit(&self.windows) {
                    context.send(self.channel, &Performative::Flow(flow), &[]);
                }
                Link::Incoming(link.into())
            }
            Ok(Admitted::Outgoing(source)) => {
                self.answer_attach(&attach, Some(&source), context);
                Link::Outgoing(OutgoingLink::new(id, source).into())
            }
        };
        self.links.insert(id.handle, link);
        if let Some(flow) = flow {
            self.link_flow(id.handle, &flow, context);
        }
    }

    fn answer_attach(&self, attach: &Attach, source: Option<&Source>, context: &mut Context) {
        let mut answer = answer_to(attach);
        answer.source.clone_from(&attach.source);
        answer.target.clone_from(&attach.target);
        answer.max_message_size = u64::try_from(context.shared.bus.max_message_size()).ok();
        if let Some(Source::Entity {
            session: Some(session),
            ..
        }) = source
        {
            let mut terminus = attach.source.clone().unwrap_or_default();
            in_session(&mut terminus, &session.session_id);
            answer.source = Some(terminus);
            let ticks = TICKS_AT_EPOCH + session.locked_until.as_microsecond() * 10;
            let properties = [(Symbol::from(LOCKED_UNTIL), Amqp::Long(ticks))];
            answer.properties = Some(properties.into_iter().collect());
        }
        context.send(self.channel, &Performative::Attach(answer), &[]);
    }

    /// Answers an attach with one that leads nowhere, and the detach of it.
    fn refuse(&self, attach: &Attach, refusal: Option<Refusal>, context: &mut Context) {
        let mut answer = answer_to(attach);
        match attach.role {
            Role::Sender => answer.source.clone_from(&attach.source),
            Role::Receiver => answer.target.clone_from(&attach.target),
        }
        context.send(self.channel, &Performative::Attach(answer), &[]);
        self.send_detach(attach.handle.0, true, refusal, context);
    }

    fn send_detach(
        &self,
        handle: u32,
        closed: bool,
        refusal: Option<Refusal>,
        context: &mut Context,
    ) {
        let detach = Detach {
            handle: handle.into(),
            closed,
            error: refusal.map(Into::into),
        };
        context.send(self.channel, &Performative::Detach(detach), &[]);
    }

    fn client_detached(&mut self, detach: &Detach, context: &mut Context) -> Result<(), Refusal> {
        let handle = detach.handle.0;
        // What has come of this link is said before that it is closed.
        self.dispositions.flush(self.channel, context);
        if self.links.contains_key(&handle) {
            context.links -= 1;
        }
        match self.links.remove(&handle) {
            None => return Err(unattached(handle)),
            Some(Link::Detached) => return Ok(()),
            Some(Link::Attaching(attaching)) => {
                // A detach answers an attach, so there has to be one.
                self.refuse(&attaching.attach, None, context);
                return Ok(());
            }
            Some(Link::Incoming(link)) => link.close(context),
            Some(Link::Outgoing(link)) => link.close(context),
        }
        self.send_detach(handle, detach.closed, None, context);
        Ok(())
    }

    /// Closes a link for a reason of the broker's.
    fn close_link(&mut self, handle: u32, refusal: Refusal, context: &mut Context) {
        self.dispositions.flush(self.channel, context);
        match self.links.insert(handle, Link::Detached) {
            Some(Link::Outgoing(link)) => link.close(context),
            Some(Link::Incoming(link)) => link.close(context),
            Some(Link::Attaching(_) | Link::Detached) | None => {}
        }
        self.send_detach(handle, true, Some(refusal), context);
    }

    fn flow(&mut self, flow: &Flow, context: &mut Context) -> Result<(), Refusal> {
        let was_closed = self.windows.is_closed();
        self.windows.update(flow);
        match &flow.handle {
            Some(handle) => {
                if !self.links.contains_key(&handle.0) {
                    return Err(unattached(handle.0));
                }
                self.link_flow(handle.0, flow, context);
            }
            None if flow.echo => {
                let flow = self.windows.flow();
                context.send(self.channel, &Performative::Flow(flow), &[]);
            }
            None => {}
        }
        if was_closed {
            self.go_on(context);
        }
        Ok(())
    }

    fn link_flow(&mut self, handle: u32, flow: &Flow, context: &mut Context) {
        let echo = match self.links.get_mut(&handle) {
            Some(Link::Attaching(attaching)) => {
                attaching.flow = Some(flow.clone());
                return;
            }
            Some(Link::Outgoing(link)) => {
                link.update(flow);
                link.go_on(&mut self.windows, &mut self.unsettled, context);
                link.flow(&self.windows)
            }
            Some(Link::Incoming(link)) => link.flow(&self.windows),
            Some(Link::Detached) | None => return,
        };
        if flow.echo {
            context.send(self.channel, &Performative::Flow(echo), &[]);
        }
    }

    fn transfer(
        &mut self,
        transfer: Transfer,
        payload: &[u8],
        context: &mut Context,
    ) -> Result<(), Refusal> {
        if self.windows.came()? {
            let flow = self.windows.flow();
            context.send(self.channel, &Performative::Flow(flow), &[]);
        }
        let handle = transfer.handle.0;
        let link = match self.links.get_mut(&handle) {
            Some(Link::Incoming(link)) => link,
            Some(Link::Detached) => return Ok(()),
            Some(Link::Attaching(_) | Link::Outgoing(_)) => {
                return Err(Refusal::new(
                    ERRANT_LINK,
                    format!("handle {handle} takes no transfers"),
                ));
            }
            None => return Err(unattached(handle)),
        };
        match link.transfer(transfer, payload) {
            Ok(None) => {
                // One that was aborted has used up its credit.
                if let Some(flow) = link.more_credit(&self.windows) {
                    context.send(self.channel, &Performative::Flow(flow), &[]);
                }
            }
            Ok(Some(delivery)) => delivery::dispatch(link.id, &link.target, delivery, context),
            Err(refusal) => self.close_link(handle, refusal, context),
        }
        Ok(())
    }

    /// A delivery of the client has been dealt with.
    pub(crate) fn delivered(
        &mut self,
        id: LinkId,
        delivery: u32,
        state: Option<DeliveryState>,
        context: &mut Context,
    ) {
        // A link that is gone is not told anything.
        let Some(Link::Incoming(link)) = self.links.get_mut(&id.handle) else {
            return;
        };
        if link.id != id {
            return;
        }
        link.dealt_with();
        let credit = link.more_credit(&self.windows);
        if let Some(state) = state {
            self.dispositions
                .add(self.channel, Role::Receiver, delivery, true, state, context);
        }
        if let Some(flow) = credit {
            self.dispositions.flush(self.channel, context);
            context.send(self.channel, &Performative::Flow(flow), &[]);
        }
    }

    /// The client says what becomes of deliveries to it.
    fn disposition(&mut self, disposition: Disposition, context: &mut Context) {
        // Of its own deliveries it can say nothing that has not been decided.
        if disposition.role == Role::Sender {
            return;
        }
        let first = disposition.first;
        let last = disposition.last.unwrap_or(first);
        let deliveries: Vec<u32> = if first <= last {
            self.unsettled
                .range(first..=last)
                .map(|(id, _)| *id)
                .collect()
        } else {
            // The ids have wrapped round.
            let late = self.unsettled.range(first..);
            late.chain(self.unsettled.range(..=last))
                .map(|(id, _)| *id)
                .collect()
        };
        let Some(state) = disposition.state else {
            // It forgets them, and they stay locked.
            if disposition.settled {
                for delivery in deliveries {
                    self.unsettled.remove(&delivery);
                }
            }
            return;
        };
        if deliveries.is_empty() && first == last && !disposition.settled {
            // Whoever waits for the answer must not wait in vain.
            let lost = settlement::rejected(crate::Error::MessageLockLost.into());
            self.settled(first, lost, context);
        }
        for delivery in deliveries {
            self.settle(delivery, state.clone(), context);
        }
    }

    fn settle(&mut self, delivery: u32, state: DeliveryState, context: &mut Context) {
        let (outcome, transaction) = match state {
            DeliveryState::TransactionalState(TransactionalState { txn_id, outcome }) => {
                (outcome, Some(txn_id))
            }
            state => (settlement::outcome(state), None),
        };
        let Some((outcome, settlement)) = outcome
            .and_then(|outcome| Some((settlement::settlement(&outcome)?, outcome)))
            .map(|(settlement, outcome)| (settlement::echo(outcome), settlement))
        else {
            return;
        };
        let (channel, session) = (self.channel, self.serial);
        if let Some(txn_id) = transaction {
            // It stays unsettled until the transaction is over: after a roll-back it can be settled otherwise.
            let Some(Unsettled { from, lock_token }) = self.unsettled.get(&delivery) else {
                return;
            };
            let operation = Operation::Settle {
                from: (**from).clone(),
                lock_token: *lock_token,
                settlement,
            };
            let enlisted = context
                .transactions
                .enlist(&txn_id, Ok(operation), Instant::now());
            let state = match enlisted {
                Ok(()) => DeliveryState::TransactionalState(TransactionalState {
                    txn_id,
                    outcome: Some(outcome),
                }),
                Err(refusal) => settlement::rejected(refusal),
            };
            self.dispositions
                .add(channel, Role::Sender, delivery, false, state, context);
            return;
        }
        let Some(Unsettled { from, lock_token }) = self.unsettled.remove(&delivery) else {
            return;
        };
        // On its way now: before what closing the link gives back, and whatever becomes of the connection.
        let carried_out = context.shared.bus.settle(&from, lock_token, settlement);
        context.work.push(async move {
            let state = match carried_out.await {
                Ok(()) => outcome.into(),
                Err(error) => settlement::rejected(error.into()),
            };
            Done::Settlement {
                channel,
                session,
                delivery,
                state,
            }
        });
    }

    /// The client's outcome has been carried out, or not.
    pub(crate) fn settled(&mut self, delivery: u32, state: DeliveryState, context: &mut Context) {
        // Nothing is said in a session that has ended.
        if !self.ended {
            self.dispositions
                .add(self.channel, Role::Sender, delivery, true, state, context);
        }
    }

    /// A receive has ended.
    pub(crate) fn received(
        &mut self,
        id: LinkId,
        received: Result<Vec<ReceivedMessage>, crate::Error>,
        context: &mut Context,
    ) {
        let Some(Link::Outgoing(link)) = self.links.get_mut(&id.handle) else {
            return;
        };
        if link.id != id {
            return;
        }
        match received {
            Ok(messages) => {
                link.received(messages, &mut self.windows, &mut self.unsettled, context);
            }
            Err(error) => self.close_link(id.handle, error.into(), context),
        }
    }

    /// The link on which the client looks for answers of this kind.
    pub(crate) fn answer_link(
        &mut self,
        wanted: impl Fn(&Source) -> bool,
    ) -> Option<&mut OutgoingLink> {
        self.links.values_mut().find_map(|link| match link {
            Link::Outgoing(link) if wanted(&link.source) => Some(&mut **link),
            _ => None,
        })
    }

    /// Sends an answer on the link with that handle.
    pub(crate) fn answer(&mut self, handle: u32, payload: bytes::Bytes, context: &mut Context) {
        if let Some(Link::Outgoing(link)) = self.links.get_mut(&handle) {
            link.answer(payload, &mut self.windows, &mut self.unsettled, context);
        }
    }

    /// Sends what could not be sent before.
    pub(crate) fn go_on(&mut self, context: &mut Context) {
        for link in self.links.values_mut() {
            if let Link::Outgoing(link) = link {
                link.go_on(&mut self.windows, &mut self.unsettled, context);
            }
        }
    }

    /// Says what has been settled and not been said yet.
    pub(crate) fn flush(&mut self, context: &mut Context) {
        self.dispositions.flush(self.channel, context);
    }

    pub(crate) fn is(&self, serial: u64) -> bool {
        self.serial == serial
    }

    pub(crate) fn is_ended(&self) -> bool {
        self.ended
    }

    /// All of its links go.
    pub(crate) fn close(&mut self, context: &mut Context) {
        context.links -= self.links.len();
        for link in std::mem::take(&mut self.links).into_values() {
            match link {
                Link::Outgoing(link) => link.close(context),
                Link::Incoming(link) => link.close(context),
                Link::Attaching(_) | Link::Detached => {}
            }
        }
    }
}

/// What every answer to an attach has of it.
fn answer_to(attach: &Attach) -> Attach {
    let (role, initial_delivery_count) = match attach.role {
        Role::Sender => (Role::Receiver, None),
        Role::Receiver => (Role::Sender, Some(0)),
    };
    Attach {
        name: attach.name.clone(),
        handle: attach.handle.clone(),
        role,
        snd_settle_mode: attach.snd_settle_mode.clone(),
        rcv_settle_mode: match attach.rcv_settle_mode {
            ReceiverSettleMode::First => ReceiverSettleMode::First,
            ReceiverSettleMode::Second => ReceiverSettleMode::Second,
        },
        source: None,
        target: None,
        unsettled: None,
        incomplete_unsettled: false,
        initial_delivery_count,
        max_message_size: None,
        offered_capabilities: None,
        desired_capabilities: None,
        properties: None,
    }
}

/// Says which session the receiver has.
fn in_session(source: &mut AmqpSource, session_id: &str) {
    let filter = source.filter.get_or_insert_default();
    filter.insert(
        Symbol::from(SESSION_FILTER),
        Amqp::String(session_id.to_owned()),
    );
}

fn unattached(handle: u32) -> Refusal {
    Refusal::new(
        UNATTACHED_HANDLE,
        format!("handle {handle} is not attached"),
    )
}
