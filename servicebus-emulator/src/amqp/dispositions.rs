//! Tells the client what has become of deliveries, as many as possible in one frame.
//!
//! Deliveries that are dealt with one after the other, in the same way, make a range. It is sent when one comes that does
//! not fit, and at the latest when the connection has nothing else to do.

use fe2o3_amqp_types::{
    definitions::Role,
    messaging::DeliveryState,
    performatives::{Disposition, Performative},
};

use super::work::Context;

#[derive(Default)]
pub(crate) struct Dispositions {
    range: Option<Disposition>,
}

impl Dispositions {
    pub(crate) fn add(
        &mut self,
        channel: u16,
        role: Role,
        delivery: u32,
        settled: bool,
        state: DeliveryState,
        context: &mut Context,
    ) {
        if let Some(range) = &mut self.range
            && range.role == role
            && range.settled == settled
            && range.last.unwrap_or(range.first).checked_add(1) == Some(delivery)
            && range.state.as_ref() == Some(&state)
        {
            range.last = Some(delivery);
            return;
        }
        self.flush(channel, context);
        self.range = Some(Disposition {
            role,
            first: delivery,
            last: None,
            settled,
            state: Some(state),
            batchable: false,
        });
    }

    pub(crate) fn flush(&mut self, channel: u16, context: &mut Context) {
        if let Some(range) = self.range.take() {
            context.send(channel, &Performative::Disposition(range), &[]);
        }
    }
}
