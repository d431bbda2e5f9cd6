//! What really happened, and the laws that it must not break.

use std::{collections::BTreeMap, time::Duration};

use crate::{provider::KEYED_FOR, scenario::Semantics};

/// One event for one recipient: the customer, or a vendor.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Notification {
    pub event_id: String,
    pub recipient: String,
}

#[derive(Debug, Default)]
struct Fate {
    /// How often the recipient got it.
    reached: u32,
    last_reached: Duration,
    /// How often it may be repeated: a process was killed after the recipient got it, its answer was lost, or an operator
    /// re-sent what was not dead.
    excused: u32,
    is_superseded: bool,
    /// A delivery and the copy that it went on in were both on the bus, or an operator re-sent it: it may go on twice, and
    /// where the names meet, either will do.
    is_split: bool,
}

/// What all of a simulation adds up to.
#[derive(Debug, Default, Clone)]
pub struct Totals {
    pub simulations: u64,
    pub virtual_time: Duration,
    pub orders: u64,
    pub notifications: u64,
    pub reached: u64,
    pub superseded: u64,
    pub dead: u64,
    pub repeated: u64,
    pub copies: u64,
    pub deliveries: u64,
    pub calls: u64,
    pub crashes: u64,
    pub replays: u64,
    pub checks: u64,
}

impl Totals {
    pub fn add(&mut self, other: &Self) {
        self.simulations += other.simulations;
        self.virtual_time += other.virtual_time;
        self.orders += other.orders;
        self.notifications += other.notifications;
        self.reached += other.reached;
        self.superseded += other.superseded;
        self.dead += other.dead;
        self.repeated += other.repeated;
        self.copies += other.copies;
        self.deliveries += other.deliveries;
        self.calls += other.calls;
        self.crashes += other.crashes;
        self.replays += other.replays;
        self.checks += other.checks;
    }
}

#[derive(Debug, Default)]
pub struct Ledger {
    fates: BTreeMap<Notification, Fate>,
    /// How many deliveries of each message were in vain.
    burnt: BTreeMap<String, u32>,
    /// What each message id was given to: the message that a copy was made of.
    message_ids: BTreeMap<String, String>,
    /// The highest version of each order that each recipient got, and when.
    versions: BTreeMap<(String, String), (u32, Duration)>,
    pub totals: Totals,
    pub violations: Vec<String>,
}

impl Ledger {
    pub fn law(&mut self, holds: bool, broken: impl FnOnce() -> String) {
        self.totals.checks += 1;
        if !holds {
            self.violations.push(broken());
        }
    }

    /// An event was accepted, for these recipients.
    pub fn accepted(&mut self, event_id: &str, recipients: impl IntoIterator<Item = String>) {
        for recipient in recipients {
            let notification = Notification {
                event_id: event_id.to_owned(),
                recipient,
            };
            self.fates.entry(notification).or_default();
        }
    }

    /// The recipient got it, at `now`.
    pub fn reached(&mut self, notification: &Notification, semantics: Semantics, now: Duration) {
        self.totals.reached += 1;
        let Some(fate) = self.fates.get_mut(notification) else {
            self.violations.push(format!(
                "{notification:?} was told, though nobody accepted it"
            ));
            return;
        };
        fate.reached += 1;
        let since = now - fate.last_reached;
        fate.last_reached = now;
        if semantics == Semantics::Keyed && since >= KEYED_FOR {
            // The provider has forgotten the key.
            fate.excused += 1;
        }
        if fate.reached > 1 {
            self.totals.repeated += 1;
        }
        let (reached, excused) = (fate.reached, fate.excused);
        self.law(reached <= 1 + excused, || {
            format!(
                "{notification:?} was told {reached} times by {semantics:?}, with {excused} excuses"
            )
        });
    }

    /// The recipient may get it once more.
    pub fn excuse(&mut self, notification: &Notification) {
        if let Some(fate) = self.fates.get_mut(notification) {
            fate.excused += 1;
        }
    }

    /// A delivery of that message was in vain.
    pub fn burnt(&mut self, message_id: &str) {
        *self.burnt.entry(message_id.to_owned()).or_default() += 1;
    }

    /// Whether so many deliveries of it were in vain.
    pub fn was_burnt(&self, message_id: &str, deliveries: u32) -> bool {
        self.burnt
            .get(message_id)
            .is_some_and(|burnt| *burnt >= deliveries)
    }

    /// There may be more than one message of it on the bus.
    pub fn split(&mut self, notification: &Notification) {
        if let Some(fate) = self.fates.get_mut(notification) {
            fate.is_split = true;
        }
    }

    pub fn was_split(&self, notification: &Notification) -> bool {
        self.fates
            .get(notification)
            .is_some_and(|fate| fate.is_split)
    }

    pub fn superseded(&mut self, notification: &Notification) {
        if let Some(fate) = self.fates.get_mut(notification) {
            fate.is_superseded = true;
        }
    }

    /// Whether the recipient had heard of a later version of the order before this call began, at `began`.
    pub fn is_overtaken(
        &mut self,
        order: &str,
        recipient: &str,
        version: u32,
        began: Duration,
        now: Duration,
    ) -> bool {
        let known = self
            .versions
            .entry((order.to_owned(), recipient.to_owned()))
            .or_default();
        if known.0 > version {
            return known.1 < began;
        }
        *known = (version, now);
        false
    }

    /// A message of ours was sent under that id.
    pub fn sent(&mut self, message_id: &str, what: &str) {
        let known = self
            .message_ids
            .entry(message_id.to_owned())
            .or_insert_with(|| what.to_owned())
            .clone();
        self.law(known == what, || {
            format!("{message_id} is the id of {known} and of {what}")
        });
    }

    /// In the end, every notification was told, is dead, or was superseded by a cancellation.
    pub fn settle(&mut self, dead: &[Notification]) {
        let lost: Vec<_> = self
            .fates
            .iter()
            .filter(|(notification, fate)| {
                fate.reached == 0 && !fate.is_superseded && !dead.contains(notification)
            })
            .map(|(notification, _)| format!("{notification:?} is lost"))
            .collect();
        self.totals.notifications += self.fates.len() as u64;
        self.totals.superseded += self
            .fates
            .values()
            .filter(|fate| fate.is_superseded)
            .count() as u64;
        self.totals.checks += self.fates.len() as u64;
        self.violations.extend(lost);
    }
}
