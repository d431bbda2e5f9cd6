//! The second place for what happened to an order, while Service Bus does not take it.
//!
//! Checkout and cancel write an event below `outbox/` of the order book when the topic does not take it ([`crate::announce`]). The
//! function `outbox` runs every 15 seconds (see `outbox/function.json`; on one instance at a time, which the host's timer
//! sees to) and puts them onto the topic, the oldest first. An entry is removed only after the topic has its event: a
//! process that is killed in between publishes it again, under the same `MessageId`, and beyond the topic's memory the
//! receivers know it by their facts and keys.

use std::time::Duration;

use axum::{body::Bytes, extract::State, http::HeaderMap, response::Response};
use serde::Deserialize;
use serde_json::{Value, json};
use time::OffsetDateTime;
use tokio::time::Instant;
use tracing::{Instrument, error, field, info, info_span, warn};

use crate::{
    App,
    announce::message,
    book_store::BookStore,
    delivery::completed,
    event::Event,
    invocation::{id, millis},
    order_book::{BookError, OrderBook},
    orders_topic::{Outgoing, PublishError},
};

/// Below it, what waits.
pub const OUTBOX: &str = "outbox/";

/// Below it, what waited and can't be published: a person has to look at it.
pub const UNSENDABLE: &str = "unsendable/";

/// Entries that are listed together.
const LISTED: usize = 200;

/// The host ends the process of an invocation that takes five minutes; what is left is for the next one.
const LONGEST_RUN: Duration = Duration::from_secs(4 * 60);

/// What is written of an event.
#[derive(Deserialize)]
struct Entry {
    traceparent: Option<String>,
    event: Value,
}

/// Writes the event into the outbox. Writing it again, also in another entry, is harmless.
pub async fn keep(book: &OrderBook, event: &Event, traceparent: &str) -> Result<(), BookError> {
    let store = book.store()?;
    let written: Value =
        serde_json::from_str(&event.to_json()).expect("an event's own text is JSON");
    let entry = json!({ "traceparent": traceparent, "event": written });
    let path = path(event, OffsetDateTime::now_utc());
    // One that is there already is the same event of the same millisecond.
    store.put_once(&path, entry.to_string()).await?;
    Ok(())
}

/// The oldest is the first by name.
fn path(event: &Event, now: OffsetDateTime) -> String {
    let millis = now.unix_timestamp_nanos() / 1_000_000;
    let (order, what) = (event.order_id(), event.kind.what());
    format!("{OUTBOX}{millis:013}-{order}-{what}.json")
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
        let stopped = match app.book().store() {
            Ok(store) => run.empty(&app, store, started).await,
            Err(_) => Ok(()),
        };
        let duration_ms = millis(started.into_std());
        let Run {
            published,
            set_aside,
        } = run;
        match stopped {
            Ok(()) if published + set_aside == 0 => {}
            Ok(()) => info!(published, set_aside, duration_ms, "emptied the outbox"),
            Err(why) => warn!(
                published,
                set_aside, duration_ms, "events wait in the outbox: {why}"
            ),
        }
        // The next run comes by itself, whatever became of this one.
        completed()
    }
    .instrument(span)
    .await
}

#[derive(Default)]
struct Run {
    published: usize,
    set_aside: usize,
}

impl Run {
    /// Publishes what is there, the oldest first, until nothing is left, the bus takes no more or the time is over.
    async fn empty(
        &mut self,
        app: &App,
        store: &BookStore,
        started: Instant,
    ) -> Result<(), String> {
        loop {
            let listed = store.list_first(OUTBOX, LISTED).await;
            let listed = listed.map_err(|error| error.to_string())?;
            for entry in &listed {
                if started.elapsed() > LONGEST_RUN {
                    return Err("the time of the invocation is over".to_owned());
                }
                self.publish(app, store, &entry.path).await?;
            }
            if listed.len() < LISTED {
                return Ok(());
            }
        }
    }

    async fn publish(&mut self, app: &App, store: &BookStore, path: &str) -> Result<(), String> {
        let body = store.get(path).await.map_err(|error| error.to_string())?;
        // Another run has published it.
        let Some(body) = body else {
            return Ok(());
        };
        let refused = match read(&body) {
            Some(message) => match app.deliverer.topic.publish(&message).await {
                Ok(()) => None,
                Err(error @ (PublishError::TooLarge { .. } | PublishError::Unsendable(_))) => {
                    Some(error.to_string())
                }
                Err(error) => return Err(error.to_string()),
            },
            None => Some("it is no event of ours".to_owned()),
        };
        if let Some(why) = refused {
            error!("{path} can't be published and is set aside below {UNSENDABLE}: {why}");
            let aside = path.replacen(OUTBOX, UNSENDABLE, 1);
            let moved = store.put_once(&aside, body).await;
            moved.map_err(|error| error.to_string())?;
            self.set_aside += 1;
        } else {
            app.bus_rest.end();
            self.published += 1;
        }
        store.delete(path).await.map_err(|error| error.to_string())
    }
}

fn read(entry: &[u8]) -> Option<Outgoing> {
    let entry: Entry = serde_json::from_slice(entry).ok()?;
    let event = Event::from_json(entry.event.to_string().as_bytes()).ok()?;
    Some(message(&event, entry.traceparent.as_deref()))
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
        keep(&book, &order_placed(), TRACEPARENT).await.unwrap();
        let listed = store.list(OUTBOX).await.unwrap();
        let [entry] = &listed[..] else {
            panic!("{listed:?}");
        };
        let body = store.get(&entry.path).await.unwrap().unwrap();
        let (kept, straight) = (
            read(&body).unwrap(),
            message(&order_placed(), Some(TRACEPARENT)),
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
}
