//! A link on which the client sends: messages for an entity, requests, or the declaring and discharging of transactions.
//!
//! Credit is given together with the attach, since the JavaScript client waits a second when its first send finds none, and
//! again when half of it is used up; deliveries that the bus has not answered yet count as used, so that a client cannot
//! have more under way than it got credit for.

use std::sync::Arc;

use fe2o3_amqp_types::{
    messaging::DeliveryState,
    performatives::{Flow, Transfer},
};

use super::{
    address::Node,
    errors::{INVALID_FIELD, Refusal, TRANSFER_LIMIT_EXCEEDED},
    windows::Windows,
    work::{Context, LinkId},
};
use crate::EntityPath;

/// How many deliveries a client may send ahead, as in Azure.
const CREDIT: u32 = 1000;

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Target {
    Entity(Arc<EntityPath>),
    /// Requests to `$cbs` or `$management`.
    Requests(Node),
    Coordinator,
}

pub(crate) struct IncomingLink {
    pub(crate) id: LinkId,
    pub(crate) target: Target,
    /// The largest delivery, in bytes.
    max_message_size: usize,
    delivery_count: u32,
    credit: u32,
    /// Deliveries that have come and have not been dealt with.
    under_way: u32,
    partial: Option<Delivery>,
}

/// What a client has sent, when it is complete.
pub(crate) struct Delivery {
    pub(crate) id: u32,
    pub(crate) format: u32,
    /// Whether the client does not want to know what has become of it.
    pub(crate) settled: bool,
    pub(crate) state: Option<DeliveryState>,
    pub(crate) payload: Vec<u8>,
    pub(crate) is_too_large: bool,
}

impl IncomingLink {
    pub(crate) fn new(id: LinkId, target: Target, max_message_size: usize) -> Self {
        Self {
            id,
            target,
            max_message_size,
            delivery_count: 0,
            credit: 0,
            under_way: 0,
            partial: None,
        }
    }

    /// Takes one frame of a delivery, and gives the delivery when it was the last one.
    pub(crate) fn transfer(
        &mut self,
        transfer: Transfer,
        payload: &[u8],
    ) -> Result<Option<Delivery>, Refusal> {
        let mut delivery = match self.partial.take() {
            Some(partial) if transfer.delivery_id.is_none_or(|id| id == partial.id) => partial,
            Some(partial) => {
                return Err(Refusal::new(
                    INVALID_FIELD,
                    format!("delivery {} is not complete", partial.id),
                ));
            }
            None => self.first(&transfer)?,
        };
        if transfer.aborted {
            self.under_way -= 1;
            return Ok(None);
        }
        delivery.settled |= transfer.settled == Some(true);
        delivery.state = transfer.state.or(delivery.state);
        if delivery.payload.len() + payload.len() > self.max_message_size {
            delivery.is_too_large = true;
            // The rest of it is not kept either.
            delivery.payload = Vec::new();
        }
        if !delivery.is_too_large {
            delivery.payload.extend_from_slice(payload);
        }
        if transfer.more {
            self.partial = Some(delivery);
            return Ok(None);
        }
        Ok(Some(delivery))
    }

    fn first(&mut self, transfer: &Transfer) -> Result<Delivery, Refusal> {
        let id = transfer.delivery_id.ok_or_else(|| {
            Refusal::new(INVALID_FIELD, "the first transfer of a delivery has no id")
        })?;
        self.credit = self.credit.checked_sub(1).ok_or_else(|| {
            Refusal::new(
                TRANSFER_LIMIT_EXCEEDED,
                "more deliveries than the link has credit",
            )
        })?;
        self.delivery_count = self.delivery_count.wrapping_add(1);
        self.under_way += 1;
        Ok(Delivery {
            id,
            format: transfer.message_format.unwrap_or_default(),
            settled: false,
            state: None,
            payload: Vec::new(),
            is_too_large: false,
        })
    }

    /// A delivery has been dealt with.
    pub(crate) fn dealt_with(&mut self) {
        self.under_way -= 1;
    }

    /// The flow that gives more credit, when it is time for it.
    pub(crate) fn more_credit(&mut self, windows: &Windows) -> Option<Flow> {
        (self.credit + self.under_way <= CREDIT / 2).then(|| {
            self.credit = CREDIT - self.under_way;
            self.flow(windows)
        })
    }

    /// The link is closed. What has been sent on it goes its way; what has not been discharged through it is rolled back.
    pub(crate) fn close(&self, context: &mut Context) {
        if self.target == Target::Coordinator {
            context.transactions.clear();
        }
    }

    pub(crate) fn flow(&self, windows: &Windows) -> Flow {
        Flow {
            handle: Some(self.id.handle.into()),
            delivery_count: Some(self.delivery_count),
            link_credit: Some(self.credit),
            ..windows.flow()
        }
    }
}
