//! The windows of a session: how many transfer frames each side may send.
//!
//! What a client may send is renewed as it is used: the connection stops reading while too much is under way, so the window
//! protects nothing of ours. What it takes from us is kept to.

use fe2o3_amqp_types::performatives::{Begin, Flow};

use super::errors::{Refusal, WINDOW_VIOLATION};

/// How many transfers a client may send ahead, as in Azure.
const WINDOW: u32 = 5000;

#[derive(Debug)]
pub(crate) struct Windows {
    next_incoming_id: u32,
    incoming_window: u32,
    next_outgoing_id: u32,
    /// How many transfers the client still takes.
    remote_window: u32,
    next_delivery_id: u32,
}

impl Windows {
    pub(crate) fn new(begin: &Begin) -> Self {
        Self {
            next_incoming_id: begin.next_outgoing_id,
            incoming_window: WINDOW,
            next_outgoing_id: 0,
            remote_window: begin.incoming_window,
            next_delivery_id: 0,
        }
    }

    /// What a session is begun with, towards the client.
    pub(crate) fn begin(&self, remote_channel: u16, handle_max: u32) -> Begin {
        Begin {
            remote_channel: Some(remote_channel),
            next_outgoing_id: self.next_outgoing_id,
            incoming_window: self.incoming_window,
            outgoing_window: WINDOW,
            handle_max: handle_max.into(),
            offered_capabilities: None,
            desired_capabilities: None,
            properties: None,
        }
    }

    /// What both sides may send now, for any flow.
    pub(crate) fn flow(&self) -> Flow {
        Flow {
            next_incoming_id: Some(self.next_incoming_id),
            incoming_window: self.incoming_window,
            next_outgoing_id: self.next_outgoing_id,
            outgoing_window: WINDOW,
            handle: None,
            delivery_count: None,
            link_credit: None,
            available: None,
            drain: false,
            echo: false,
            properties: None,
        }
    }

    /// The client has sent a transfer. Whether it has to be told that it may send more.
    pub(crate) fn came(&mut self) -> Result<bool, Refusal> {
        self.incoming_window = self.incoming_window.checked_sub(1).ok_or_else(|| {
            Refusal::new(
                WINDOW_VIOLATION,
                "more transfers than the session's window has",
            )
        })?;
        self.next_incoming_id = self.next_incoming_id.wrapping_add(1);
        let renew = self.incoming_window <= WINDOW / 2;
        if renew {
            self.incoming_window = WINDOW;
        }
        Ok(renew)
    }

    /// The client says what it takes.
    pub(crate) fn update(&mut self, flow: &Flow) {
        // Without an id it has not seen our begin.
        let seen = flow.next_incoming_id.unwrap_or(0);
        let under_way = self.next_outgoing_id.wrapping_sub(seen);
        self.remote_window = flow.incoming_window.saturating_sub(under_way);
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.remote_window == 0
    }

    /// A transfer goes out.
    pub(crate) fn went(&mut self) {
        self.remote_window = self.remote_window.saturating_sub(1);
        self.next_outgoing_id = self.next_outgoing_id.wrapping_add(1);
    }

    pub(crate) fn delivery_id(&mut self) -> u32 {
        let id = self.next_delivery_id;
        self.next_delivery_id = id.wrapping_add(1);
        id
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn windows(incoming_window: u32) -> Windows {
        let begin = Begin {
            remote_channel: None,
            next_outgoing_id: u32::MAX,
            incoming_window,
            outgoing_window: 1,
            handle_max: u32::MAX.into(),
            offered_capabilities: None,
            desired_capabilities: None,
            properties: None,
        };
        Windows::new(&begin)
    }

    #[test]
    fn what_a_client_takes_is_counted_from_what_it_has_seen() {
        let mut windows = windows(2);
        windows.went();
        windows.went();
        assert!(windows.is_closed());
        let flow = |next_incoming_id, incoming_window| Flow {
            next_incoming_id,
            incoming_window,
            ..Windows::flow(&self::windows(0))
        };
        // One of the two is still on its way.
        windows.update(&flow(Some(1), 1));
        assert!(windows.is_closed());
        windows.update(&flow(Some(2), 1));
        assert!(!windows.is_closed());
        windows.update(&flow(None, u32::MAX));
        windows.went();
        assert!(!windows.is_closed());
    }

    #[test]
    fn the_window_of_a_client_is_renewed_when_half_of_it_is_used() {
        let mut windows = windows(0);
        for _ in 1..WINDOW / 2 {
            assert_eq!(windows.came(), Ok(false));
        }
        assert_eq!(windows.came(), Ok(true));
        let flow = windows.flow();
        assert_eq!(flow.incoming_window, WINDOW);
        // Ids wrap round.
        assert_eq!(flow.next_incoming_id, Some(WINDOW / 2 - 1));
    }
}
