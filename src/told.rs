//! Who was told what, in the order book: each notification as facts below `told/{whom}/{event}/`.
//!
//! ```text
//! intent.json        somebody was about to be told
//! sent.json          they were
//! superseded.json    they need not be told any more: the order was cancelled meanwhile
//! later-{n}.json     the attempt of generation n failed, or was held back, until when and why
//! dead-{n}.json      given up after generation n, and why
//! ```
//!
//! With them a notification is sent as nearly once as possible. What is recorded as sent is not sent again, however often its
//! message comes; an intent without an outcome says that an earlier process may have got as far as the call, so that a
//! provider that can be asked is asked. What is recorded is never more than what happened: a process that is killed between
//! the call and its record leaves the doubt, and two deliveries at the same moment are told apart by the provider's key only.
//! The order book is never a reason not to tell somebody: where it does not answer, the attempt goes on without it, as it
//! does where none is kept, and the log says so.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use tracing::{info, warn};

use crate::{
    attempt::Attempt,
    book_store::Put,
    delivery::Delivery,
    event::{self, Event},
    order::OrderId,
    order_book::{BookError, CONFIRMED, OrderBook, PLACED},
    outcome::Outcome,
    place_order::is_vendor_id,
    redelivery::Audience,
};

/// Below it, the notifications of an order.
pub const TOLD: &str = "told/";

const INTENT: &str = "intent.json";
const SENT: &str = "sent.json";
const SUPERSEDED: &str = "superseded.json";

/// Somebody who is told of one event.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Notification {
    /// An audience's name; of vendors, which one follows.
    pub audience: String,
    pub vendor: Option<String>,
    /// As in an event's id.
    pub what: String,
}

/// How far it got.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Progress {
    Intended,
    Later { generation: u32 },
    Dead { generation: u32 },
    Superseded,
    Sent,
}

/// What a fact about a notification says besides its name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Note {
    #[serde(with = "time::serde::rfc3339")]
    pub at: OffsetDateTime,
    /// When it is tried again.
    #[serde(
        default,
        with = "time::serde::rfc3339::option",
        skip_serializing_if = "Option::is_none"
    )]
    pub due: Option<OffsetDateTime>,
    /// The class of the last failure, or the reason for which it was given up.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    #[serde(default, skip_serializing_if = "is_zero")]
    pub failures: u32,
}

#[expect(
    clippy::trivially_copy_pass_by_ref,
    reason = "serde asks for a reference"
)]
fn is_zero(count: &u32) -> bool {
    *count == 0
}

impl Note {
    fn now() -> Self {
        Self {
            at: event::now(),
            due: None,
            error: None,
            failures: 0,
        }
    }
}

impl Notification {
    pub fn new(audience: Audience, vendor: Option<&str>, event: &Event) -> Self {
        Self {
            audience: audience.name().to_owned(),
            vendor: vendor.map(ToOwned::to_owned),
            what: event.kind.what().to_owned(),
        }
    }

    /// Whether it may be one of ours.
    fn is_plain(&self) -> bool {
        let is_word = |text: &str| text.bytes().all(|byte| byte.is_ascii_lowercase());
        let vendor = self.vendor.as_deref();
        is_word(&self.audience) && is_word(&self.what) && vendor.is_none_or(is_vendor_id)
    }

    /// The name of that fact about it.
    pub fn fact(&self, progress: Progress) -> String {
        let name = match progress {
            Progress::Intended => INTENT.to_owned(),
            Progress::Sent => SENT.to_owned(),
            Progress::Superseded => SUPERSEDED.to_owned(),
            // Ten digits, so that the latest is the last by name.
            Progress::Later { generation } => format!("later-{generation:010}.json"),
            Progress::Dead { generation } => format!("dead-{generation:010}.json"),
        };
        let Self {
            audience,
            vendor,
            what,
        } = self;
        match vendor {
            Some(vendor) => format!("{TOLD}{audience}/{vendor}/{what}/{name}"),
            None => format!("{TOLD}{audience}/{what}/{name}"),
        }
    }

    /// What a fact of that name is about, if it is about a notification.
    pub fn of_fact(name: &str) -> Option<(Self, Progress)> {
        let parts: Vec<&str> = name.strip_prefix(TOLD)?.split('/').collect();
        let (audience, vendor, what, file) = match parts[..] {
            [audience, what, file] => (audience, None, what, file),
            [audience, vendor, what, file] => (audience, Some(vendor), what, file),
            _ => return None,
        };
        let generation = |prefix: &str| {
            let digits = file.strip_prefix(prefix)?.strip_suffix(".json")?;
            digits.parse().ok()
        };
        let progress = match file {
            INTENT => Progress::Intended,
            SENT => Progress::Sent,
            SUPERSEDED => Progress::Superseded,
            _ => match (generation("later-"), generation("dead-")) {
                (Some(generation), _) => Progress::Later { generation },
                (_, Some(generation)) => Progress::Dead { generation },
                (None, None) => return None,
            },
        };
        let notification = Self {
            audience: audience.to_owned(),
            vendor: vendor.map(ToOwned::to_owned),
            what: what.to_owned(),
        };
        Some((notification, progress))
    }
}

/// What the book has about one notification, by the names of its facts.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Trail {
    pub intended: bool,
    pub superseded: bool,
    pub sent: bool,
    /// The last generation of which there is such a fact.
    pub later: Option<u32>,
    pub dead: Option<u32>,
}

impl Trail {
    /// How far it got; nothing if nobody has tried. Generations rise, in every life of a dead letter that is replayed.
    pub fn last(&self) -> Option<Progress> {
        if self.sent {
            return Some(Progress::Sent);
        }
        if self.superseded {
            return Some(Progress::Superseded);
        }
        match (self.later, self.dead) {
            (Some(later), dead) if dead.is_none_or(|dead| dead < later) => {
                Some(Progress::Later { generation: later })
            }
            (_, Some(generation)) => Some(Progress::Dead { generation }),
            (_, None) => self.intended.then_some(Progress::Intended),
        }
    }

    fn add(&mut self, progress: Progress) {
        match progress {
            Progress::Intended => self.intended = true,
            Progress::Superseded => self.superseded = true,
            Progress::Sent => self.sent = true,
            Progress::Later { generation } => self.later = self.later.max(Some(generation)),
            Progress::Dead { generation } => self.dead = self.dead.max(Some(generation)),
        }
    }
}

/// Each notification that facts of these names are about. Names of another kind say nothing, and those that the book would
/// not give are none of ours.
pub fn trails<'a>(names: impl IntoIterator<Item = &'a str>) -> BTreeMap<Notification, Trail> {
    let mut trails: BTreeMap<Notification, Trail> = BTreeMap::new();
    for (notification, progress) in names.into_iter().filter_map(Notification::of_fact) {
        if notification.is_plain() {
            trails.entry(notification).or_default().add(progress);
        }
    }
    trails
}

/// What the book says before somebody is told.
enum Before {
    /// Nobody has tried.
    First,
    /// Somebody has, and the outcome is not known.
    Intended,
    /// It is over.
    Over,
    Unknown(BookError),
}

async fn before(book: &OrderBook, order: OrderId, notification: &Notification) -> Before {
    let intent = notification.fact(Progress::Intended);
    let written = book.write(order, &intent, &Note::now()).await;
    let unwritten = match written {
        Ok(Put::Created) => return Before::First,
        Ok(Put::Existed) => None,
        // One that takes nothing may still be read.
        Err(error) => Some(error),
    };
    // That it is there is all that counts.
    for progress in [Progress::Sent, Progress::Superseded] {
        match book.is_known(order, &notification.fact(progress)).await {
            Ok(true) => return Before::Over,
            Ok(false) => {}
            Err(error) => return Before::Unknown(error),
        }
    }
    unwritten.map_or(Before::Intended, Before::Unknown)
}

/// Tells somebody, if the order book does not say that they were told. `tell` gets whether an earlier attempt may have
/// reached them without our knowing.
///
/// Killed before the call, the process leaves an intent that is a doubt at the next delivery; killed after it, the same. Only
/// a call that is known to have been taken is recorded as sent.
pub async fn once<F, Fut>(
    book: &OrderBook,
    notification: &Notification,
    delivery: &Delivery,
    tell: F,
) -> Attempt
where
    F: FnOnce(bool) -> Fut,
    Fut: Future<Output = Attempt>,
{
    let may_be_there = delivery.may_be_there();
    if !book.is_kept() {
        return tell(may_be_there).await;
    }
    let order = delivery.event.order_id();
    let mut is_intended = true;
    let may_be_there = match before(book, order, notification).await {
        Before::First => may_be_there,
        // A copy knows what became of the attempts before it; a first message that comes a second time does not.
        Before::Intended => may_be_there || delivery.history().generation == 0,
        Before::Over => {
            info!("the order book has it that this was told, and so it is not told again");
            return Attempt::Overtaken;
        }
        Before::Unknown(error) => {
            warn!("told without asking the order book whether it was told before: {error}");
            is_intended = false;
            may_be_there
        }
    };
    let attempt = tell(may_be_there).await;
    // An outcome is only looked for behind an intent, and whoever was asked may know of the order.
    if !is_intended
        && !matches!(attempt, Attempt::Held(_))
        && !record(book, order, notification, Progress::Intended, &Note::now()).await
    {
        return attempt;
    }
    let progress = match attempt {
        Attempt::Told => Progress::Sent,
        Attempt::Overtaken => Progress::Superseded,
        Attempt::Held(_) | Attempt::Failed(_) | Attempt::Impossible(_) => return attempt,
    };
    record(book, order, notification, progress, &Note::now()).await;
    attempt
}

/// Keeps that somebody need not be told any more, where nobody asks the book before ([`once`]).
pub async fn keep_superseded(book: &OrderBook, notification: &Notification, event: &Event) {
    let (progress, note) = (Progress::Superseded, Note::now());
    record(book, event.order_id(), notification, progress, &note).await;
}

/// Keeps what became of a notification that goes on in a copy, or was given up.
pub async fn keep(
    book: &OrderBook,
    delivery: &Delivery,
    audience: Audience,
    vendor: Option<&str>,
    outcome: &Outcome,
) {
    let generation = delivery.history().generation;
    let (progress, note) = match outcome {
        Outcome::Delivered => return,
        Outcome::Later(later) => (
            Progress::Later { generation },
            Note {
                due: Some(later.due),
                error: Some(later.class().to_owned()),
                failures: later.failures,
                ..Note::now()
            },
        ),
        Outcome::Dead(dead) => (
            Progress::Dead { generation },
            Note {
                error: Some(dead.reason.name().to_owned()),
                failures: dead.failures,
                ..Note::now()
            },
        ),
    };
    let notification = Notification::new(audience, vendor, &delivery.event);
    record(
        book,
        delivery.event.order_id(),
        &notification,
        progress,
        &note,
    )
    .await;
}

/// Keeps that somebody who has waited was told in the end, where nobody asks the book before ([`once`]).
pub async fn keep_told(book: &OrderBook, delivery: &Delivery, audience: Audience) {
    let notification = Notification::new(audience, None, &delivery.event);
    let order = delivery.event.order_id();
    record(book, order, &notification, Progress::Sent, &Note::now()).await;
}

/// Whether it is in the book.
async fn record(
    book: &OrderBook,
    order: OrderId,
    notification: &Notification,
    progress: Progress,
    note: &Note,
) -> bool {
    if !book.is_kept() {
        return false;
    }
    let written = book.write(order, &notification.fact(progress), note).await;
    if let Err(error) = &written {
        warn!("the order book does not know what became of this notification: {error}");
    }
    written.is_ok()
}

/// Whether the vendor was told, or may have been, that the order goes on; unknown counts as yes.
pub async fn may_know_of(book: &OrderBook, vendor: &str, cancelled: &Event) -> bool {
    match book.names(cancelled.order_id()).await {
        // Who was told before there was a book, or of whom it has lost everything, is in none of it.
        Ok(names) if !names.contains(PLACED) => true,
        Ok(names) => knows_of(|name| names.contains(name), vendor),
        Err(error) => {
            warn!(
                "the order book does not say whether the vendor {vendor} knows of the order: {error}"
            );
            true
        }
    }
}

/// The same by the facts that there are, where vendors are told of orders that are confirmed.
pub fn knows_of(is_known: impl Fn(&str) -> bool, vendor: &str) -> bool {
    let was_intended = |what: &str| {
        let notification = Notification {
            audience: Audience::Vendors.name().to_owned(),
            vendor: Some(vendor.to_owned()),
            what: what.to_owned(),
        };
        is_known(&notification.fact(Progress::Intended))
    };
    // They may have been told of it while the book did not take that.
    is_known(CONFIRMED) || was_intended("placed") || was_intended("confirmed")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_generation_says_how_far_a_notification_got() {
        let last = |files: &[&str]| {
            let names: Vec<_> = files
                .iter()
                .map(|file| format!("told/vendors/bakery/placed/{file}.json"))
                .collect();
            let trails = trails(names.iter().map(String::as_str));
            assert!(trails.len() <= 1, "{trails:?}");
            trails.into_values().next().and_then(|trail| trail.last())
        };
        let (later, dead) = ("later-0000000004", "dead-0000000005");
        for (files, progress) in [
            (&[][..], None),
            (&["intent"], Some(Progress::Intended)),
            (
                &["intent", "later-0000000003", later],
                Some(Progress::Later { generation: 4 }),
            ),
            (
                &["intent", later, dead],
                Some(Progress::Dead { generation: 5 }),
            ),
            // It was replayed.
            (
                &[dead, "later-1795376400"],
                Some(Progress::Later {
                    generation: 1_795_376_400,
                }),
            ),
            (
                &[later, "dead-0000000004"],
                Some(Progress::Dead { generation: 4 }),
            ),
            (&["intent", later, dead, "sent"], Some(Progress::Sent)),
            (&["superseded", "sent"], Some(Progress::Sent)),
            (&["intent", "superseded"], Some(Progress::Superseded)),
            (&["later-x", "else", "dead-"], None),
        ] {
            assert_eq!(last(files), progress, "{files:?}");
        }
        let others = [
            "told/vendors/a b/placed/sent.json",
            "told/a b/placed/sent.json",
        ];
        assert!(trails(others).is_empty());
    }

    #[test]
    fn a_fact_s_name_is_read_as_it_was_written() {
        for (vendor, audience) in [(Some("bakery"), "vendors"), (None, "customers")] {
            let notification = Notification {
                audience: audience.to_owned(),
                vendor: vendor.map(str::to_owned),
                what: "placed".to_owned(),
            };
            for progress in [
                Progress::Intended,
                Progress::Sent,
                Progress::Superseded,
                Progress::Later { generation: 0 },
                Progress::Dead {
                    generation: 1_795_376_400,
                },
            ] {
                let name = notification.fact(progress);
                assert_eq!(
                    Notification::of_fact(&name),
                    Some((notification.clone(), progress)),
                    "{name}"
                );
            }
        }
        for name in [
            "placed.json",
            "told/x",
            "told/a/b/c/d/sent.json",
            "till/order.json",
        ] {
            assert_eq!(Notification::of_fact(name), None, "{name}");
        }
    }
}
