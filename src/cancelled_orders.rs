//! Who is told by a cancellation, as far as this instance knows.
//!
//! A notification that was held up may come after the cancellation has overtaken it. Whoever is told that an order was
//! cancelled must not be told afterwards that it was placed. What an instance knows is what it has handled itself, and
//! what the order book says; where none is kept, the webhooks' `version` is there for the rest.

use std::{
    collections::{HashSet, VecDeque},
    fmt,
    sync::{Arc, Mutex, PoisonError},
};

use tracing::warn;

use crate::{
    event::{Event, EventKind},
    order::OrderId,
    order_book::{CANCELLED, OrderBook},
};

/// The latest so many are remembered, in a few megabytes at the most. That is the cancellations of some days in a
/// busy shop, and more than what waits on the bus of them.
const MOST: usize = 20_000;

/// An order, and a vendor's id or the customer's address, which can't be taken for each other: an address has an `@`.
type Recipient = (OrderId, String);

/// Clones share it.
#[derive(Clone, Default)]
pub struct CancelledOrders(Arc<Mutex<Known>>);

#[derive(Default)]
struct Known {
    recipients: HashSet<Recipient>,
    oldest_first: VecDeque<Recipient>,
}

impl CancelledOrders {
    /// Remembers that the customer and the vendors of a cancelled order are told so; `cancelled` is any event of it.
    pub fn note(&self, cancelled: &Event) {
        let order_id = cancelled.order_id();
        let lines = &cancelled.order.line_items;
        let vendors = lines.iter().map(|line| line.vendor_id.clone());
        let customer = cancelled.order.customer.email.clone();
        let mut known = self.lock();
        for recipient in vendors.chain([customer]) {
            let recipient = (order_id, recipient);
            if known.recipients.insert(recipient.clone()) {
                known.oldest_first.push_back(recipient);
            }
            if known.oldest_first.len() > MOST
                && let Some(oldest) = known.oldest_first.pop_front()
            {
                known.recipients.remove(&oldest);
            }
        }
    }

    /// Asks the order book whether the order of a notification was cancelled. Even one that comes at once may be overtaken: a
    /// cancellation need not wait in the outbox where its order has waited. An order book that does not answer is not waited for.
    pub async fn learn_from(&self, book: &OrderBook, event: &Event) {
        if matches!(event.kind, EventKind::Cancelled(_)) || !book.is_kept() {
            return;
        }
        match book.is_known(event.order_id(), CANCELLED).await {
            Ok(true) => self.note(event),
            Ok(false) => {}
            Err(error) => {
                warn!(
                    "told without asking the order book whether the order was cancelled: {error}"
                );
            }
        }
    }

    /// Whether this vendor, or the customer with this address, is told that the order was cancelled.
    pub fn tells(&self, order: OrderId, recipient: &str) -> bool {
        let recipient = (order, recipient.to_owned());
        self.lock().recipients.contains(&recipient)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Known> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for CancelledOrders {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CancelledOrders").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;
    use crate::event::tests::order_cancelled;

    fn cancelled(n: usize) -> Event {
        let mut event = order_cancelled();
        event.order.order_id = OrderId(Uuid::from_u128(n as u128));
        event
    }

    #[test]
    fn whoever_is_in_the_cancellation_is_told_by_it() {
        let orders = CancelledOrders::default();
        let event = cancelled(1);
        let order = event.order_id();
        orders.note(&event);
        for recipient in ["ada@example.net", "bakery", "florist"] {
            assert!(orders.tells(order, recipient), "{recipient}");
        }
        // Whoever cancels may have written another address.
        for other in ["butcher", "ada@example.org"] {
            assert!(!orders.tells(order, other), "{other}");
        }
        assert!(!orders.tells(cancelled(2).order_id(), "bakery"));
    }

    #[test]
    fn the_latest_are_remembered() {
        let orders = CancelledOrders::default();
        let last = MOST / 3 + 1;
        for n in 0..=last {
            orders.note(&cancelled(n));
            orders.note(&cancelled(n));
        }
        let tells = |n| orders.tells(cancelled(n).order_id(), "bakery");
        assert!(!tells(0));
        assert!(tells(10) && tells(last));
    }
}
