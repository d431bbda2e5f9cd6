//! The receivers that wait for a message or a session, in lines by order of arrival: one for the messages of each entity,
//! one for its sessions, and one for each session that is held.
//!
//! A receiver leaves when it is served, when its time is over, or when it has gone away; who has gone is found
//! at the latest when its line has doubled, so that a line is never mostly of those.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Instant,
};

use uuid::Uuid;

use crate::{
    EntityPath, Error, ReceiveMode,
    entity::EntityId,
    owner::{Accepted, Answer, Delivery, Reply, answer},
};

/// A line that is shorter than this is not searched for receivers that have gone.
const SHORT_LINE: usize = 16;

pub(crate) struct Waiter {
    pub(crate) from: EntityPath,
    /// `None` is for ever.
    pub(crate) deadline: Option<Instant>,
    pub(crate) wants: Wants,
}

pub(crate) enum Wants {
    Messages {
        mode: ReceiveMode,
        /// What holds the session, where the entity has sessions.
        session: Option<Uuid>,
        most: usize,
        reply: Reply<Option<Delivery>>,
    },
    /// The next session that is free.
    Session { reply: Reply<Option<Accepted>> },
}

impl Waiter {
    fn has_gone(&self) -> bool {
        match &self.wants {
            Wants::Messages { reply, .. } => reply.is_closed(),
            Wants::Session { reply } => reply.is_closed(),
        }
    }

    /// Will answer that it waits in vain, once that is certain.
    pub(crate) fn refused(self, error: Error) -> Answer {
        match self.wants {
            Wants::Messages { reply, .. } => answer(reply, Err(error)),
            Wants::Session { reply } => answer(reply, Err(error)),
        }
    }

    /// Answers that there is nothing, or why nobody can tell.
    pub(crate) fn send_away(self, error: Option<Error>) {
        // The one who asked may have gone.
        match self.wants {
            Wants::Messages { reply, .. } => drop(reply.send(error.map_or(Ok(None), Err))),
            Wants::Session { reply } => drop(reply.send(error.map_or(Ok(None), Err))),
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum For {
    Messages(Option<Uuid>),
    Session,
}

type Place = (EntityId, For);

#[derive(Default)]
pub(crate) struct Waiting {
    lines: BTreeMap<Place, Line>,
    deadlines: BTreeSet<(Instant, Place, u64)>,
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
        let place = (
            at,
            match waiter.wants {
                Wants::Messages { session, .. } => For::Messages(session),
                Wants::Session { .. } => For::Session,
            },
        );
        let line = self.lines.entry(place).or_default();
        if line.waiters.len() >= SHORT_LINE.max(2 * line.left) {
            line.waiters.retain(|ticket, waiter| {
                if waiter.has_gone()
                    && let Some(deadline) = waiter.deadline
                {
                    self.deadlines.remove(&(deadline, place, *ticket));
                }
                !waiter.has_gone()
            });
            line.left = line.waiters.len();
        }
        self.last_ticket += 1;
        if let Some(deadline) = waiter.deadline {
            self.deadlines.insert((deadline, place, self.last_ticket));
        }
        line.waiters.insert(self.last_ticket, waiter);
    }

    /// The lines in which someone waits.
    pub(crate) fn places(&self) -> Vec<Place> {
        self.lines.keys().copied().collect()
    }

    /// Who has waited longest in that line and is still there.
    pub(crate) fn next(&mut self, place: Place) -> Option<Waiter> {
        let line = self.lines.get_mut(&place)?;
        let waiter = loop {
            let Some((ticket, waiter)) = line.waiters.pop_first() else {
                break None;
            };
            if let Some(deadline) = waiter.deadline {
                self.deadlines.remove(&(deadline, place, ticket));
            }
            // Who has gone gets no lock, and no delivery is counted.
            if !waiter.has_gone() {
                break Some(waiter);
            }
        };
        if line.waiters.is_empty() {
            self.lines.remove(&place);
        }
        waiter
    }

    pub(crate) fn first_deadline(&self) -> Option<Instant> {
        self.deadlines.first().map(|(deadline, ..)| *deadline)
    }

    /// One whose time is over.
    pub(crate) fn next_late(&mut self, now: Instant) -> Option<Waiter> {
        let &(deadline, place, ticket) = self.deadlines.first()?;
        if deadline > now {
            return None;
        }
        self.deadlines.pop_first();
        let line = self.lines.get_mut(&place)?;
        let waiter = line.waiters.remove(&ticket);
        if line.waiters.is_empty() {
            self.lines.remove(&place);
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
        let place = (at, For::Messages(None));
        let mut add = |reply| {
            let deadline = Instant::now().checked_add(Duration::from_secs(600));
            waiting.add(
                at,
                Waiter {
                    from: path("q"),
                    deadline,
                    wants: Wants::Messages {
                        mode: ReceiveMode::PeekLock,
                        session: None,
                        most: 1,
                        reply,
                    },
                },
            );
            (waiting.lines[&place].waiters.len(), waiting.deadlines.len())
        };
        let (stays, _receiver) = oneshot::channel();
        add(stays);
        for _ in 0..1_000 {
            let (goes, _) = oneshot::channel();
            let (waiters, deadlines) = add(goes);
            assert!(waiters <= SHORT_LINE);
            assert_eq!(deadlines, waiters);
        }
        assert!(waiting.next(place).is_some());
        assert!(waiting.next(place).is_none());
        assert!(waiting.places().is_empty());
        assert_eq!(waiting.first_deadline(), None);
    }
}
