//! The receivers that wait for a message, at each entity by order of arrival.
//!
//! A receiver leaves when it is served, when its time is over, or when it has gone away; who has gone is found
//! at the latest when the line at its entity has doubled, so that a line is never mostly of those.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Instant,
};

use crate::{
    EntityPath, ReceiveMode,
    entity::EntityId,
    owner::{Delivery, Reply},
};

/// A line that is shorter than this is not searched for receivers that have gone.
const SHORT_LINE: usize = 16;

pub(crate) struct Waiter {
    pub(crate) from: EntityPath,
    pub(crate) mode: ReceiveMode,
    /// `None` is for ever.
    pub(crate) deadline: Option<Instant>,
    pub(crate) reply: Reply<Option<Delivery>>,
}

#[derive(Default)]
pub(crate) struct Waiting {
    lines: BTreeMap<EntityId, Line>,
    deadlines: BTreeSet<(Instant, EntityId, u64)>,
    last_ticket: u64,
}

#[derive(Default)]
struct Line {
    waiters: BTreeMap<u64, Waiter>,
    /// How many were left when it was last searched for receivers that have gone.
    left: usize,
}

impl Waiting {
    pub(crate) fn add(&mut self, at: EntityId, waiter: Waiter) {
        let line = self.lines.entry(at).or_default();
        if line.waiters.len() >= SHORT_LINE.max(2 * line.left) {
            line.waiters.retain(|ticket, waiter| {
                if waiter.reply.is_closed()
                    && let Some(deadline) = waiter.deadline
                {
                    self.deadlines.remove(&(deadline, at, *ticket));
                }
                !waiter.reply.is_closed()
            });
            line.left = line.waiters.len();
        }
        self.last_ticket += 1;
        if let Some(deadline) = waiter.deadline {
            self.deadlines.insert((deadline, at, self.last_ticket));
        }
        line.waiters.insert(self.last_ticket, waiter);
    }

    /// The entities at which someone waits.
    pub(crate) fn entities(&self) -> Vec<EntityId> {
        self.lines.keys().copied().collect()
    }

    /// Who has waited longest at the entity and is still there.
    pub(crate) fn next(&mut self, at: EntityId) -> Option<Waiter> {
        let line = self.lines.get_mut(&at)?;
        let waiter = loop {
            let Some((ticket, waiter)) = line.waiters.pop_first() else {
                break None;
            };
            if let Some(deadline) = waiter.deadline {
                self.deadlines.remove(&(deadline, at, ticket));
            }
            // Who has gone gets no lock, and no delivery is counted.
            if !waiter.reply.is_closed() {
                break Some(waiter);
            }
        };
        if line.waiters.is_empty() {
            self.lines.remove(&at);
        }
        waiter
    }

    pub(crate) fn first_deadline(&self) -> Option<Instant> {
        self.deadlines.first().map(|(deadline, ..)| *deadline)
    }

    /// One whose time is over.
    pub(crate) fn next_late(&mut self, now: Instant) -> Option<Waiter> {
        let &(deadline, at, ticket) = self.deadlines.first()?;
        if deadline > now {
            return None;
        }
        self.deadlines.pop_first();
        let line = self.lines.get_mut(&at)?;
        let waiter = line.waiters.remove(&ticket);
        if line.waiters.is_empty() {
            self.lines.remove(&at);
        }
        waiter
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::sync::oneshot;

    use super::*;
    use crate::sample::path;

    #[test]
    fn receivers_that_went_away_do_not_stay_in_line() {
        let mut waiting = Waiting::default();
        let at = EntityId(0);
        let mut add = |reply| {
            let deadline = Instant::now().checked_add(Duration::from_secs(600));
            waiting.add(
                at,
                Waiter {
                    from: path("q"),
                    mode: ReceiveMode::PeekLock,
                    deadline,
                    reply,
                },
            );
            (waiting.lines[&at].waiters.len(), waiting.deadlines.len())
        };
        let (stays, _receiver) = oneshot::channel();
        add(stays);
        for _ in 0..1_000 {
            let (goes, _) = oneshot::channel();
            let (waiters, deadlines) = add(goes);
            assert!(waiters <= SHORT_LINE);
            assert_eq!(deadlines, waiters);
        }
        assert!(waiting.next(at).is_some());
        assert!(waiting.next(at).is_none());
        assert!(waiting.entities().is_empty());
        assert_eq!(waiting.first_deadline(), None);
    }
}
