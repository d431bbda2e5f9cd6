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
            context.transactions.clear(self.id);
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

#[cfg(test)]
mod tests {
    use fe2o3_amqp_types::performatives::Begin;

    use super::*;

    fn link() -> (IncomingLink, Windows) {
        let begin = Begin {
            remote_channel: None,
            next_outgoing_id: 0,
            incoming_window: 1,
            outgoing_window: 1,
            handle_max: 0.into(),
            offered_capabilities: None,
            desired_capabilities: None,
            properties: None,
        };
        let id = LinkId {
            channel: 0,
            handle: 0,
            serial: 1,
        };
        (
            IncomingLink::new(id, Target::Coordinator, 10),
            Windows::new(&begin),
        )
    }

    fn transfer(delivery: u32) -> Transfer {
        Transfer {
            handle: 0.into(),
            delivery_id: Some(delivery),
            delivery_tag: None,
            message_format: None,
            settled: None,
            more: false,
            rcv_settle_mode: None,
            state: None,
            resume: false,
            aborted: false,
            batchable: false,
        }
    }

    #[test]
    fn more_than_the_credit_is_refused_and_what_is_not_dealt_with_counts() {
        let (mut link, windows) = link();
        assert_eq!(link.more_credit(&windows).unwrap().link_credit, Some(1000));
        for delivery in 0..CREDIT {
            assert!(link.transfer(transfer(delivery), b"x").unwrap().is_some());
            assert_eq!(link.more_credit(&windows), None);
        }
        let refusal = link.transfer(transfer(CREDIT), b"x").err().unwrap();
        assert_eq!(refusal.condition, TRANSFER_LIMIT_EXCEEDED);
        for _ in 1..CREDIT / 2 {
            link.dealt_with();
            assert_eq!(link.more_credit(&windows), None);
        }
        link.dealt_with();
        let flow = link.more_credit(&windows).unwrap();
        assert_eq!(flow.link_credit, Some(500));
        assert_eq!(flow.delivery_count, Some(1000));
    }

    #[test]
    fn a_delivery_is_put_together_up_to_its_limit_and_no_further() {
        let (mut link, windows) = link();
        link.more_credit(&windows);
        let more = |delivery| Transfer {
            more: true,
            ..transfer(delivery)
        };
        assert!(link.transfer(more(0), b"12345").unwrap().is_none());
        let whole = link.transfer(transfer(0), b"67890").unwrap().unwrap();
        assert!(!whole.is_too_large);
        assert_eq!(whole.payload, b"1234567890");

        assert!(link.transfer(more(1), b"1234567890").unwrap().is_none());
        assert!(link.transfer(more(1), b"1").unwrap().is_none());
        assert_eq!(link.partial.as_ref().unwrap().payload.capacity(), 0);
        let whole = link.transfer(transfer(1), b"2").unwrap().unwrap();
        assert!(whole.is_too_large && whole.payload.is_empty());

        assert!(link.transfer(more(2), b"1").unwrap().is_none());
        let other = link.transfer(transfer(3), b"1").err().unwrap();
        assert_eq!(other.condition, INVALID_FIELD);
    }
}
