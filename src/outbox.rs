//! The second place for what happened to an order, while Service Bus does not take it.
//!
//! Checkout and cancel write an event below `outbox/` of the order book when the topic does not take it ([`crate::announce`]). The
//! function `outbox` runs every 15 seconds (see `outbox/function.json`; on one instance at a time, which the host's timer
//! sees to) and puts them onto the topic: the oldest first, some orders at the same time, and what happened to one order one after
//! the other. An entry is removed only after the topic has its event: a process that is killed in between publishes it
//! again, under the same `MessageId`, and beyond the topic's memory the receivers know it by their facts and keys. An entry that
//! cannot be read, published or removed keeps back what else happened to its order, and nothing else.

use std::{
    collections::{BTreeMap, HashSet},
    fmt,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use axum::{body::Bytes, extract::State, http::HeaderMap, response::Response};
use futures_util::{StreamExt, stream};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use time::OffsetDateTime;
use tokio::time::Instant;
use tracing::{Instrument, error, field, info, info_span, warn};
use uuid::Uuid;

use crate::{
    App,
    announce::message,
    book_store::{BookStore, StoreError},
    bus_span::{self, Sending},
    delivery::completed,
    event::{self, Event},
    invocation::{id, millis},
    metrics::{self, Figure},
    order::OrderId,
    order_book::{BookError, OrderBook, published},
    orders_topic::PublishError,
    span::Parent,
    trace::{self, Carried, SpanContext},
};

/// Below it, what waits.
pub const OUTBOX: &str = "outbox/";

/// Below it, what waited and can't be published: a person has to look at it.
pub const UNSENDABLE: &str = "unsendable/";

/// Entries that are listed together.
const LISTED: usize = 500;

/// Orders whose entries are published at the same time.
const ORDERS_AT_ONCE: usize = 16;

/// So many in a row that the bus refuses are no matter of single entries.
const REFUSED: usize = 200;

/// Nor are so many in a row that it does not take for now.
const FAILED: usize = 3;

/// The host ends the process of an invocation that takes five minutes; what is left is for the next one.
const LONGEST_RUN: Duration = Duration::from_secs(4 * 60);

/// What is written of an event.
#[derive(Deserialize)]
struct Entry {
    traceparent: Option<String>,
    tracestate: Option<String>,
    event: Value,
}

/// Writes the event into the outbox. Writing it again, also in another entry, is harmless.
pub async fn keep(book: &OrderBook, event: &Event, carried: &Carried) -> Result<(), BookError> {
    let store = book.store()?;
    let written: Value =
        serde_json::from_str(&event.to_json()).expect("an event's own text is JSON");
    let entry = json!({
        "traceparent": carried.parent.to_string(),
        "tracestate": carried.state,
        "event": written,
    });
    let path = path(event, OffsetDateTime::now_utc());
    // One that is there already is the same event of the same millisecond.
    store.insist(&path, entry.to_string()).await?;
    Ok(())
}

/// The oldest is the first by name.
fn path(event: &Event, now: OffsetDateTime) -> String {
    let millis = now.unix_timestamp_nanos() / 1_000_000;
    let (order, what) = (event.order_id(), event.kind.what());
    format!("{OUTBOX}{millis:013}-{order}-{what}.json")
}

/// Since when an entry of that path waits, of which order it is, and what happened to that.
pub(crate) fn read_path(path: &str) -> Option<(OffsetDateTime, OrderId, &str)> {
    let name = path.strip_prefix(OUTBOX)?.strip_suffix(".json")?;
    let (millis, rest) = name.split_once('-')?;
    let (order, what) = rest.rsplit_once('-')?;
    let nanos = i128::from(millis.parse::<i64>().ok()?) * 1_000_000;
    let since = OffsetDateTime::from_unix_timestamp_nanos(nanos).ok()?;
    Some((since, OrderId(Uuid::try_parse(order).ok()?), what))
}

pub async fn outbox(State(app): State<App>, headers: HeaderMap, _timer: Bytes) -> Response {
    let span = info_span!(
        "invocation",
        function = "outbox",
        invocation.id = id(&headers),
        order.id = field::Empty,
    );
    async {
        let started = Instant::now();
        let mut run = Run::default();
        if let Ok(store) = app.book().store() {
            run.empty(&app, store, started).await;
        }
        run.log(millis(started.into_std()));
        // The next run comes by itself, whatever became of this one.
        completed()
    }
    .instrument(span)
    .await
}

/// Why an entry stays where it is.
#[derive(Debug)]
enum Stays {
    /// It concerns this entry, and with it those after it of the same order.
    Entry(String),
    /// The bus does not take this one, which may concern them all.
    Refused(String),
    /// The bus does not take it now, which most probably concerns them all.
    Failed(String),
    /// It concerns them all.
    All(String),
}

impl From<PublishError> for Stays {
    fn from(error: PublishError) -> Self {
        match error {
            PublishError::Rejected { .. } => Self::Refused(error.to_string()),
            PublishError::TooLarge { .. }
            | PublishError::Unsendable(_)
            | PublishError::Busy { .. }
            | PublishError::Unreachable { .. }
            | PublishError::Unanswered { .. }
            | PublishError::NoToken(_) => Self::Failed(error.to_string()),
        }
    }
}

/// What became of the entries of one order.
#[derive(Default)]
struct Emptied {
    published: usize,
    set_aside: usize,
    left: Vec<String>,
    why: Option<Stays>,
}

#[derive(Default)]
struct Run {
    /// As it found them.
    waiting: usize,
    oldest_s: u64,
    published: usize,
    set_aside: usize,
    /// In a row.
    refused: usize,
    failed: usize,
    /// Entries that stay, and their orders.
    left: HashSet<String>,
    orders: HashSet<OrderId>,
    /// Why the first of them does.
    why: Option<String>,
    /// Why nothing more is begun.
    stopped: Option<String>,
}

impl Run {
    /// Publishes what is there, the oldest first, until nothing is left, the bus takes no more or the time is over.
    async fn empty(&mut self, app: &App, store: &BookStore, started: Instant) {
        let mut is_first = true;
        while self.stopped.is_none() {
            let limit = LISTED + self.left.len();
            let listed = match store.list_first(OUTBOX, limit).await {
                Ok(listed) => listed,
                Err(error) => {
                    self.stopped = Some(error.to_string());
                    break;
                }
            };
            let is_all = listed.len() < limit;
            if std::mem::take(&mut is_first) {
                self.found(
                    listed.len(),
                    listed.first().and_then(|first| read_path(&first.path)),
                );
            }
            let paths: Vec<String> = listed.into_iter().map(|listed| listed.path).collect();
            let orders = self.by_order(paths);
            if orders.is_empty() {
                break;
            }
            let is_stopped = &AtomicBool::new(false);
            let work = orders
                .into_iter()
                .map(|paths| empty_order(app, store, paths, started, is_stopped));
            let mut work = stream::iter(work).buffer_unordered(ORDERS_AT_ONCE);
            // What is under way is finished, also when nothing more is begun.
            while let Some(emptied) = work.next().await {
                self.take_note(emptied);
                is_stopped.store(self.stopped.is_some(), Ordering::Relaxed);
            }
            if is_all {
                break;
            }
        }
    }

    /// Tells how many wait, up to a page of them, and since when the first does. Another instance may make the next run.
    fn found(&mut self, waiting: usize, first: Option<(OffsetDateTime, OrderId, &str)>) {
        let oldest = first.map(|(since, _, _)| OffsetDateTime::now_utc() - since);
        let oldest = oldest.map_or(0.0, |oldest| oldest.as_seconds_f64().max(0.0));
        metrics::set(Figure::OutboxWaiting, waiting as f64, &[]);
        metrics::set(Figure::OutboxOldestAge, oldest, &[]);
        self.waiting = waiting;
        self.oldest_s = oldest as u64;
    }

    /// The entries of each order, the order with the oldest first, without those that stay.
    fn by_order(&mut self, paths: Vec<String>) -> Vec<Vec<String>> {
        let mut orders: Vec<Vec<String>> = Vec::new();
        let mut places: BTreeMap<Uuid, usize> = BTreeMap::new();
        for path in paths {
            let order = read_path(&path).map(|(_, order, _)| order);
            if order.is_some_and(|order| self.orders.contains(&order)) {
                self.left.insert(path);
                continue;
            }
            if self.left.contains(&path) {
                continue;
            }
            match order.and_then(|order| places.get(&order.0)) {
                Some(place) => orders[*place].push(path),
                None => {
                    places.extend(order.map(|order| (order.0, orders.len())));
                    orders.push(vec![path]);
                }
            }
        }
        orders
    }

    fn take_note(&mut self, emptied: Emptied) {
        if emptied.published > 0 {
            (self.refused, self.failed) = (0, 0);
        }
        self.published += emptied.published;
        self.set_aside += emptied.set_aside;
        let left = emptied.left.iter().filter_map(|path| read_path(path));
        self.orders.extend(left.map(|(_, order, _)| order));
        self.left.extend(emptied.left);
        let (why, is_over) = match emptied.why {
            None => return,
            Some(Stays::Entry(why)) => (why, false),
            Some(Stays::Refused(why)) => {
                self.refused += 1;
                (why, self.refused >= REFUSED)
            }
            Some(Stays::Failed(why)) => {
                self.failed += 1;
                (why, self.failed >= FAILED)
            }
            Some(Stays::All(why)) => (why, true),
        };
        let place = if is_over {
            &mut self.stopped
        } else {
            &mut self.why
        };
        place.get_or_insert(why);
    }

    fn log(self, duration_ms: u64) {
        let Self {
            waiting,
            oldest_s,
            published,
            set_aside,
            left,
            why,
            stopped,
            ..
        } = self;
        let left = left.len();
        match (stopped, why) {
            (Some(why), _) => warn!(
                waiting,
                oldest_s, published, set_aside, duration_ms, "events wait in the outbox: {why}"
            ),
            (None, Some(why)) => error!(
                waiting,
                oldest_s,
                published,
                set_aside,
                left,
                duration_ms,
                "entries stay in the outbox, the first of them because: {why}"
            ),
            (None, None) if published + set_aside == 0 => {}
            (None, None) => info!(
                waiting,
                oldest_s, published, set_aside, duration_ms, "emptied the outbox"
            ),
        }
    }
}

/// Publishes what happened to one order, one after the other, as far as possible.
async fn empty_order(
    app: &App,
    store: &BookStore,
    paths: Vec<String>,
    started: Instant,
    is_stopped: &AtomicBool,
) -> Emptied {
    let mut emptied = Emptied::default();
    let mut paths = paths.into_iter();
    while let Some(path) = paths.next() {
        if is_stopped.load(Ordering::Relaxed) {
            break;
        }
        let done = match started.elapsed() {
            elapsed if elapsed > LONGEST_RUN => {
                Err(Stays::All("the time of the invocation is over".to_owned()))
            }
            _ => empty_entry(app, store, &path).await,
        };
        match done {
            Ok(Done::Published) => emptied.published += 1,
            Ok(Done::SetAside) => emptied.set_aside += 1,
            Ok(Done::Gone) => {}
            Err(why) => {
                emptied.why = Some(why);
                emptied.left = std::iter::once(path).chain(paths).collect();
                break;
            }
        }
    }
    emptied
}

enum Done {
    Published,
    SetAside,
    /// Another run has done it.
    Gone,
}

async fn empty_entry(app: &App, store: &BookStore, path: &str) -> Result<Done, Stays> {
    let stays = |error: &dyn fmt::Display| Stays::Entry(format!("{path}: {error}"));
    let body = store.get(path).await.map_err(|error| stays(&error))?;
    let Some(body) = body else {
        return Ok(Done::Gone);
    };
    let Some((event, carried)) = read(&body) else {
        set_aside(store, path, body, "it is no event of ours").await?;
        return Ok(Done::SetAside);
    };
    let (book, order) = (app.book(), event.order_id());
    let fact = published(event.kind.what());
    // By an earlier run, which could not remove the entry.
    let is_known = book.is_known(order, &fact).await;
    if is_known.map_err(|error| stays(&error))? {
        let removed = store.delete(path).await;
        return removed.map(|()| Done::Gone).map_err(|error| stays(&error));
    }
    if !app.unrecorded.contains(&event.id()) {
        let topic = &app.deliverer.topic;
        let message = message(&event, carried.as_ref());
        // Whoever took the order made the context that goes along.
        let origin = carried.map(|carried| carried.parent);
        let sending = Sending::Copy {
            is_scheduled: false,
        };
        let ids = || (message.message_id.clone(), order.to_string());
        let span = bus_span::sending(topic, Parent::Remote(origin), sending, &ids);
        span.note(|recording| {
            recording.set("orderup.function", "outbox").link(origin);
        });
        let published = span.around(topic.publish(&message)).await;
        bus_span::sent(&span, published.as_ref().copied());
        match published {
            Ok(()) => app.bus_rest.end(),
            Err(error @ (PublishError::TooLarge { .. } | PublishError::Unsendable(_))) => {
                set_aside(store, path, body, &error.to_string()).await?;
                return Ok(Done::SetAside);
            }
            Err(error) => return Err(error.into()),
        }
    }
    // Either of the two keeps it from being published again.
    let now = Published { at: event::now() };
    let written = book.write(order, &fact, &now).await;
    match (store.delete(path).await, written) {
        (Ok(()), _) => Ok(Done::Published),
        (Err(error), Ok(_)) => Err(stays(&error)),
        (Err(error), Err(_)) => {
            app.unrecorded.insert(event.id());
            match error {
                StoreError::Refused { .. } => Err(stays(&error)),
                _ => Err(Stays::All(format!("the order book takes nothing: {error}"))),
            }
        }
    }
}

/// What is in a fact that the event was published.
#[derive(Serialize)]
struct Published {
    #[serde(with = "time::serde::rfc3339")]
    at: OffsetDateTime,
}

async fn set_aside(store: &BookStore, path: &str, body: Bytes, why: &str) -> Result<(), Stays> {
    let aside = path.replacen(OUTBOX, UNSENDABLE, 1);
    let moved = async {
        store.put_once(&aside, body).await?;
        store.delete(path).await
    };
    moved.await.map_err(|error: StoreError| {
        Stays::Entry(format!(
            "{path} can't be published ({why}), and not be set aside: {error}"
        ))
    })?;
    error!("{path} can't be published and was set aside below {UNSENDABLE}: {why}");
    Ok(())
}

/// Events that this instance has published and could not record as such: what one run has under way at the same time, and few
/// of them, because that ends the run. Clones share it.
#[derive(Debug, Clone, Default)]
pub struct Unrecorded(Arc<Mutex<HashSet<String>>>);

impl Unrecorded {
    fn contains(&self, event: &str) -> bool {
        self.lock().contains(event)
    }

    fn insert(&self, event: String) {
        self.lock().insert(event);
    }

    fn lock(&self) -> MutexGuard<'_, HashSet<String>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn read(entry: &[u8]) -> Option<(Event, Option<Carried>)> {
    let entry: Entry = serde_json::from_slice(entry).ok()?;
    let event = Event::from_json(entry.event.to_string().as_bytes()).ok()?;
    let parent = entry.traceparent.as_deref().and_then(SpanContext::parse);
    let state = entry.tracestate.as_deref().and_then(trace::state);
    Some((event, parent.map(|parent| Carried { parent, state })))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::tests::{order_cancelled, order_placed};

    const TRACEPARENT: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

    #[tokio::test]
    async fn what_was_kept_is_published_as_it_would_have_been() {
        let folder = std::env::temp_dir().join(format!("orderup-{}", uuid::Uuid::new_v4()));
        let store = BookStore::folder(&folder).unwrap();
        let book = OrderBook::new(Some(store.clone()));
        let carried = Carried {
            parent: SpanContext::parse(TRACEPARENT).unwrap(),
            state: Some("congo=t61rc".to_owned()),
        };
        keep(&book, &order_placed(), &carried).await.unwrap();
        let listed = store.list(OUTBOX).await.unwrap();
        let [entry] = &listed[..] else {
            panic!("{listed:?}");
        };
        let body = store.get(&entry.path).await.unwrap().unwrap();
        let (event, read_back) = read(&body).unwrap();
        let (kept, straight) = (
            message(&event, read_back.as_ref()),
            message(&order_placed(), Some(&carried)),
        );
        assert_eq!(kept.message_id, straight.message_id);
        assert_eq!(kept.body, straight.body);
        assert_eq!(kept.properties, straight.properties);
        assert!(read(b"{}").is_none() && read(b"").is_none());
        std::fs::remove_dir_all(folder).unwrap();
    }

    #[test]
    fn names_are_in_the_order_of_time() {
        let at = |seconds| OffsetDateTime::from_unix_timestamp(seconds).unwrap();
        let names = [
            path(&order_placed(), at(999_999_999)),
            path(&order_cancelled(), at(1_795_376_400)),
            path(&order_placed(), at(1_795_376_401)),
        ];
        assert!(names.is_sorted(), "{names:?}");
        assert_eq!(
            names[1],
            "outbox/1795376400000-01935a1e-9c00-7000-8000-000000000001-cancelled.json"
        );
    }

    #[test]
    fn an_entry_s_path_says_what_waits_since_when() {
        let (since, order, what) =
            read_path("outbox/1795376400123-01935a1e-9c00-7000-8000-000000000001-cancelled.json")
                .unwrap();
        assert_eq!(since.unix_timestamp(), 1_795_376_400);
        assert_eq!(since.millisecond(), 123);
        assert_eq!((order, what), (order_placed().order_id(), "cancelled"));
        for path in [
            "outbox/",
            "outbox/x.json",
            "outbox/x-01935a1e-9c00-7000-8000-000000000001-placed.json",
        ] {
            assert!(read_path(path).is_none(), "{path}");
        }
    }

    #[test]
    fn what_stays_keeps_back_its_own_order_only() {
        let entry = |millis: u32, order: u128, what: &str| {
            format!("outbox/{millis:013}-{}-{what}.json", Uuid::from_u128(order))
        };
        let paths = vec![
            entry(1, 1, "placed"),
            entry(2, 2, "placed"),
            "outbox/0000000000003-else.json".to_owned(),
            entry(4, 1, "cancelled"),
        ];
        let mut run = Run::default();
        let orders = run.by_order(paths.clone());
        assert_eq!(orders.len(), 3);
        assert_eq!(orders[0], [paths[0].clone(), paths[3].clone()]);

        let stays = Emptied {
            left: vec![paths[0].clone()],
            why: Some(Stays::Entry("x".to_owned())),
            ..Emptied::default()
        };
        run.take_note(stays);
        let orders = run.by_order(paths.clone());
        assert_eq!(orders, [[paths[1].clone()], [paths[2].clone()]]);
        assert_eq!(run.left.len(), 2);
    }

    #[test]
    fn a_bus_that_takes_nothing_is_not_asked_for_every_entry() {
        let emptied = |published, why| Emptied {
            published,
            why,
            ..Emptied::default()
        };
        let refused = || Some(Stays::Refused("400".to_owned()));
        let failed = || Some(Stays::Failed("503".to_owned()));
        let stops_after = |why: &dyn Fn() -> Option<Stays>| {
            let mut run = Run::default();
            (1..=1_000).find(|_| {
                run.take_note(emptied(0, why()));
                run.stopped.is_some()
            })
        };
        assert_eq!(stops_after(&refused), Some(REFUSED));
        assert_eq!(stops_after(&failed), Some(FAILED));
        // One that fails among others concerns nobody else.
        let mut run = Run::default();
        for _ in 0..10 {
            run.take_note(emptied(0, failed()));
            run.take_note(emptied(1, None));
        }
        assert!(run.stopped.is_none() && run.why.is_some());
    }
}
