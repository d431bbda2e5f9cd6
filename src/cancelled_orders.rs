//! The orders of which this instance knows that they were cancelled.
//!
//! A notification that was held up may come after the cancellation has overtaken it. Whoever is told that an order was
//! cancelled must not be told afterwards that it was placed. What an instance knows is what it has handled itself, and it
//! forgets it when it ends: the webhooks' `version` is there for the rest.

use std::{
    collections::{HashSet, VecDeque},
    fmt,
    sync::{Arc, Mutex, PoisonError},
};

use crate::order::OrderId;

/// The latest so many are remembered, in about four megabytes at the most. That is the cancellations of some days in a
/// busy shop, and more than what waits on the bus of them.
const MOST: usize = 50_000;

/// Clones share it.
#[derive(Clone, Default)]
pub struct CancelledOrders(Arc<Mutex<Known>>);

#[derive(Default)]
struct Known {
    orders: HashSet<OrderId>,
    oldest_first: VecDeque<OrderId>,
}

impl CancelledOrders {
    /// Remembers it.
    pub fn note(&self, order: OrderId) {
        let mut known = self.lock();
        if !known.orders.insert(order) {
            return;
        }
        known.oldest_first.push_back(order);
        if known.oldest_first.len() > MOST
            && let Some(oldest) = known.oldest_first.pop_front()
        {
            known.orders.remove(&oldest);
        }
    }

    /// Whether the order is known to be cancelled.
    pub fn contains(&self, order: OrderId) -> bool {
        self.lock().orders.contains(&order)
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

    #[test]
    fn the_latest_are_remembered() {
        let orders = CancelledOrders::default();
        let order = |n: usize| OrderId(Uuid::from_u128(n as u128));
        for n in 0..=MOST {
            orders.note(order(n));
            orders.note(order(n));
        }
        assert!(!orders.contains(order(0)));
        assert!(orders.contains(order(1)) && orders.contains(order(MOST)));
        assert!(!orders.contains(order(MOST + 1)));
    }
}
