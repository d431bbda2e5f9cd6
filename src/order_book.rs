//! The order book: what is known of each order, as facts that are written once and never changed.
//!
//! A fact is a small JSON object below `orders/{orderId}/`, in a container or a folder ([`crate::book_store`]). Two instances
//! that write the same fact need no lock: the first one's is kept, and whoever has to know which one that is reads it back
//! ([`OrderBook::settle`]). A delivery that is repeated finds its facts there, and changes nothing.
//!
//! ```text
//! placed.json                    the event as it was placed, without its payment token
//! decision.json                  whether the order goes to the till or is cancelled: what came first; once it is certain that the
//!                                till takes nothing for it (till/released-1.json), decision-2.json decides anew
//! confirmed.json cancelled.json  that it was, when, and why
//! published-{event}.json         the topic has that event, which it had not taken at once (crate::outbox, crate::till)
//! till/…                         each step at the till (crate::till)
//! told/{whom}/{event}/…          each notification (crate::told)
//! ```
//!
//! Where no order book is kept, everything works that needs none: [`OrderBook::none`].

use std::{collections::BTreeSet, fmt};

use serde::{Deserialize, Serialize, de::DeserializeOwned};
use thiserror::Error;
use time::OffsetDateTime;

use crate::{
    book_store::{BookStore, Put, StoreError},
    event::{self, Cancellation, Event, EventKind},
    order::OrderId,
};

/// Below it, a folder for each order.
pub const ORDERS: &str = "orders/";

pub const PLACED: &str = "placed.json";
const DECISION: &str = "decision.json";

pub const CONFIRMED: &str = "confirmed.json";
pub const CANCELLED: &str = "cancelled.json";

/// That event could not be published at once, and the topic has it now.
pub fn published(what: &str) -> String {
    format!("published-{what}.json")
}

/// The decision of that round.
pub fn decision(round: u32) -> String {
    match round {
        1 => DECISION.to_owned(),
        round => format!("decision-{round}.json"),
    }
}

/// It was decided to charge in that round, and nothing is, or will be, taken by it.
pub fn released(round: u32) -> String {
    format!("till/released-{round}.json")
}

/// Which decision counts, by the facts that there are.
pub fn round(is_known: impl Fn(&str) -> bool) -> u32 {
    (1..)
        .find(|round| !is_known(&released(*round)))
        .unwrap_or(u32::MAX)
}

/// Why the order book does not say.
#[derive(Debug, Error)]
pub enum BookError {
    #[error("no order book is kept: ORDER_BOOK is none, or there is no AzureWebJobsStorage")]
    NotKept,
    #[error(transparent)]
    Store(#[from] StoreError),
    /// What is in it is not repeated.
    #[error("the order book's object {path} is not what was written there: {reason}")]
    Corrupt { path: String, reason: String },
}

/// Clones share one connection.
#[derive(Clone)]
pub struct OrderBook(Option<BookStore>);

/// Whether an order goes to the till or is cancelled. Whoever writes it first decides, for everybody.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "decision", rename_all = "lowercase")]
pub enum Decision {
    /// From here on money may be taken.
    Charge {
        #[serde(with = "time::serde::rfc3339")]
        at: OffsetDateTime,
    },
    /// No money is taken any more, and what was only reserved is released.
    Cancel(Cancelled),
}

/// The order was confirmed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Confirmed {
    #[serde(with = "time::serde::rfc3339")]
    pub at: OffsetDateTime,
}

/// The order was cancelled.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Cancelled {
    #[serde(with = "time::serde::rfc3339")]
    pub at: OffsetDateTime,
    pub reason: String,
    #[serde(default)]
    pub not_charged: bool,
}

impl Cancelled {
    pub fn now(reason: &str, not_charged: bool) -> Self {
        Self {
            at: event::now(),
            reason: reason.to_owned(),
            not_charged,
        }
    }

    /// The same event whoever publishes it, and however often.
    pub fn event(&self, placed: &Event) -> Event {
        Event {
            kind: EventKind::Cancelled(Cancellation {
                reason: self.reason.clone(),
                not_charged: self.not_charged,
            }),
            time: self.at,
            order: placed.order.without_payment_token(),
        }
    }
}

impl Confirmed {
    /// The same event whoever publishes it, and however often.
    pub fn event(&self, placed: &Event) -> Event {
        Event {
            kind: EventKind::Confirmed,
            time: self.at,
            order: placed.order.without_payment_token(),
        }
    }
}

impl OrderBook {
    pub fn new(store: Option<BookStore>) -> Self {
        Self(store)
    }

    /// No order book is kept.
    pub fn none() -> Self {
        Self(None)
    }

    pub fn is_kept(&self) -> bool {
        self.0.is_some()
    }

    /// What the facts are kept in.
    ///
    /// # Errors
    /// [`BookError::NotKept`]
    pub fn store(&self) -> Result<&BookStore, BookError> {
        self.0.as_ref().ok_or(BookError::NotKept)
    }

    /// The names of all facts about the order, as in `till/order.json`.
    pub async fn names(&self, order: OrderId) -> Result<BTreeSet<String>, BookError> {
        let folder = path(order, "");
        let listed = self.store()?.list(&folder).await?;
        let mut names = BTreeSet::new();
        // `collect` would bring a sort for this type into the program, 5 KB, and the names come in order.
        names.extend(
            listed
                .into_iter()
                .filter_map(|listed| listed.path.strip_prefix(&folder).map(ToOwned::to_owned)),
        );
        Ok(names)
    }

    /// The fact of that name, if there is one.
    pub async fn read<T: DeserializeOwned>(
        &self,
        order: OrderId,
        name: &str,
    ) -> Result<Option<T>, BookError> {
        let path = path(order, name);
        let Some(body) = self.store()?.get(&path).await? else {
            return Ok(None);
        };
        serde_json::from_slice(&body).map(Some).map_err(|error| {
            // Its text would repeat what was found.
            let reason = format!("{:?} error in line {}", error.classify(), error.line());
            BookError::Corrupt { path, reason }
        })
    }

    /// Whether there is a fact of that name.
    pub async fn is_known(&self, order: OrderId, name: &str) -> Result<bool, BookError> {
        let found = self.store()?.get(&path(order, name)).await?;
        Ok(found.is_some())
    }

    /// Writes the fact, unless it is known.
    pub async fn write<T: Serialize>(
        &self,
        order: OrderId,
        name: &str,
        fact: &T,
    ) -> Result<Put, BookError> {
        let body = serde_json::to_vec(fact).expect("a fact is made of plain values");
        Ok(self.store()?.put_once(&path(order, name), body).await?)
    }

    /// Writes the fact, unless it is known, and gives the one that counts: whoever was first wrote it.
    pub async fn settle<T: Serialize + DeserializeOwned>(
        &self,
        order: OrderId,
        name: &str,
        ours: T,
    ) -> Result<T, BookError> {
        match self.write(order, name, &ours).await? {
            Put::Created => Ok(ours),
            Put::Existed => self.read(order, name).await?.ok_or(BookError::Corrupt {
                path: path(order, name),
                reason: "it was there, and is gone".to_owned(),
            }),
        }
    }

    /// Keeps that the order was placed. Its payment token is for the till only, and is left out.
    pub async fn keep_placed(&self, placed: &Event) -> Result<Put, BookError> {
        let kept = Event {
            order: placed.order.without_payment_token(),
            ..placed.clone()
        };
        let path = path(placed.order_id(), PLACED);
        Ok(self
            .store()?
            .put_once(&path, kept.to_json().into_bytes())
            .await?)
    }

    /// The order as it was placed, if the book has it.
    pub async fn placed(&self, order: OrderId) -> Result<Option<Event>, BookError> {
        let path = path(order, PLACED);
        let Some(body) = self.store()?.get(&path).await? else {
            return Ok(None);
        };
        match Event::from_json(&body) {
            Ok(placed) if placed.order_id() == order => Ok(Some(placed)),
            Ok(_) => Err(BookError::Corrupt {
                path,
                reason: "it is about another order".to_owned(),
            }),
            Err(error) => Err(BookError::Corrupt {
                path,
                reason: error.to_string(),
            }),
        }
    }
}

impl fmt::Debug for OrderBook {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("OrderBook").field(&self.is_kept()).finish()
    }
}

/// Where the fact is.
pub fn path(order: OrderId, name: &str) -> String {
    format!("{ORDERS}{order}/{name}")
}

#[cfg(test)]
pub(crate) mod tests {
    use std::{ops::Deref, path::PathBuf};

    use super::*;
    use crate::config::Settings;

    /// A book of this test's own, in a folder that is removed when it is dropped.
    pub(crate) struct TestBook {
        book: OrderBook,
        folder: PathBuf,
    }

    impl TestBook {
        pub(crate) fn new() -> Self {
            let folder = std::env::temp_dir().join(format!("orderup-{}", uuid::Uuid::new_v4()));
            std::fs::create_dir_all(&folder).unwrap();
            let setting = format!("{}/", folder.display());
            let settings = Settings::from_pairs([("ORDER_BOOK", setting.as_str())]);
            let store = BookStore::from_settings(&settings, &reqwest::Client::new()).unwrap();
            Self {
                book: OrderBook::new(store),
                folder,
            }
        }
    }

    impl Deref for TestBook {
        type Target = OrderBook;

        fn deref(&self) -> &OrderBook {
            &self.book
        }
    }

    impl Drop for TestBook {
        fn drop(&mut self) {
            let _ = std::fs::remove_dir_all(&self.folder);
        }
    }
}
