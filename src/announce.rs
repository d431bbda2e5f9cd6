//! Puts what happened to an order where it cannot be lost, and tells the caller when that was not possible.
//!
//! Runs in checkout and cancel. The first place is the topic. When it does not take the event within a few seconds, the second
//! is the outbox of the order book, from which the function `outbox` puts it onto the topic later. The order book is not
//! touched as long as the topic takes events. Killed between the two, the process has answered nobody: the caller tries again.

use std::{
    fmt,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use axum::http::HeaderMap;
use tokio::time::{Instant, timeout};
use tracing::{error, info, warn};

use crate::{
    App,
    bus_span::{self, Sending},
    event::{self, Event, EventKind},
    metrics::{self, Figure},
    orders_topic::{Outgoing, PropertyValue, PublishError},
    outbox,
    problem::Problem,
    problem_type::ProblemType,
    properties::GENERATION,
    request::{LONGEST_BODY, too_large},
    span::{Parent, Span},
    trace::{self, Carried, SpanContext},
};

/// What the broker's own properties and ours take of a message, generously.
const PROPERTIES: usize = 4 * 1024;

/// When a storefront should try again if the broker did not say.
const TRY_AGAIN: Duration = Duration::from_secs(5);

/// How long a caller waits for the topic where there is a second place: some attempts of a request that takes a few
/// milliseconds. What comes to light afterwards as sent all the same has the same `MessageId` in the outbox.
const PATIENCE: Duration = Duration::from_secs(4);

/// After an event that the topic did not take, the others go to the outbox at once for so long; then one tries again.
const REST: Duration = Duration::from_secs(10);

/// Who has taken an event, in the log and among the figures.
const TOPIC: &str = "topic";
const OUTBOX: &str = "outbox";

/// As [`PublishError`] calls it.
const UNANSWERED: &str = "unanswered";

/// Until when the topic is not tried, in the memory of one instance. Clones share it.
#[derive(Clone, Default)]
pub struct BusRest(Arc<Mutex<Option<Instant>>>);

impl BusRest {
    /// Whether the topic may be tried. Of those who ask after a rest, one may, and the others only if that goes well.
    fn admits(&self, now: Instant) -> bool {
        let mut until = self.lock();
        match *until {
            Some(end) if now < end => false,
            Some(_) => {
                *until = Some(now + PATIENCE);
                true
            }
            None => true,
        }
    }

    fn begin(&self, now: Instant) {
        *self.lock() = Some(now + REST);
    }

    /// The topic has taken something.
    pub fn end(&self) {
        *self.lock() = None;
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Option<Instant>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for BusRest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BusRest").finish_non_exhaustive()
    }
}

/// Answers once the topic or the outbox has the event. The same event has the same message id, however often it is
/// announced.
pub async fn announce(app: &App, event: &Event, headers: &HeaderMap) -> Result<(), Problem> {
    let topic = &app.deliverer.topic;
    let ids = || (event.id(), event.order_id().to_string());
    let span = bus_span::sending(topic, Parent::Current, Sending::First, &ids);
    let incoming = SpanContext::of_request(headers);
    let carried = Carried {
        parent: span
            .context()
            .unwrap_or_else(|| SpanContext::next(incoming)),
        state: incoming.and_then(|_| trace::state_of_request(headers)),
    };
    let log = tracing::Span::current();
    log.record("trace.id", tracing::field::display(carried.parent.trace()));
    let announced = span.around(place(app, event, &carried, &span)).await;
    if let Ok(sink) = announced {
        if sink != TOPIC {
            log.record("sink", sink);
        }
        if event.kind == EventKind::Placed {
            metrics::add(Figure::Accepted, 1, &[("sink", sink)]);
        }
        span.note(|recording| {
            recording.set("orderup.sink", sink);
        });
    }
    announced.map(|_| ())
}

/// Answers which of the two has it.
async fn place(
    app: &App,
    event: &Event,
    carried: &Carried,
    span: &Span,
) -> Result<&'static str, Problem> {
    let message = message(event, Some(carried));
    if message.body.len() + PROPERTIES > LONGEST_BODY {
        return Err(too_large());
    }
    let topic = &app.deliverer.topic;
    let publish = async || {
        let published = topic.publish(&message).await;
        bus_span::sent(span, published.as_ref().copied());
        published.map(|()| TOPIC)
    };
    if !app.book().is_kept() {
        return publish().await.map_err(|error| not_taken(&error));
    }
    let refused = if app.bus_rest.admits(Instant::now()) {
        match timeout(PATIENCE, publish()).await {
            Ok(Ok(sink)) => {
                app.bus_rest.end();
                return Ok(sink);
            }
            Ok(Err(error @ (PublishError::TooLarge { .. } | PublishError::Unsendable(_)))) => {
                return Err(not_taken(&error));
            }
            Ok(Err(error)) => {
                app.bus_rest.begin(Instant::now());
                error!("the topic does not take events, which go to the outbox: {error}");
                Some(error)
            }
            Err(_) => {
                app.bus_rest.begin(Instant::now());
                // Nobody else counts what was given up.
                let labels = [("result", UNANSWERED)];
                metrics::observe(Figure::BusSendDuration, PATIENCE, &labels);
                span.note(|recording| {
                    recording.fail(UNANSWERED);
                });
                error!(
                    "the topic has not taken an event within {} s: events go to the outbox",
                    PATIENCE.as_secs()
                );
                None
            }
        }
    } else {
        bus_span::becomes(span, "create", topic);
        None
    };
    match outbox::keep(app.book(), event, carried).await {
        Ok(()) => {
            info!("the event waits in the outbox");
            keep_placed(app, event).await;
            Ok(OUTBOX)
        }
        Err(book) => {
            error!("the outbox does not take the event either: {book}");
            match refused {
                Some(error) => Err(not_taken(&error)),
                // The topic was not tried, or was not given the time that it has where there is no second place.
                None => {
                    bus_span::becomes(span, "send", topic);
                    publish().await.map_err(|error| not_taken(&error))
                }
            }
        }
    }
}

/// As long as the topic does not have the order, nobody else writes it into the order book, where a caller may look for it
/// or cancel it.
async fn keep_placed(app: &App, event: &Event) {
    if event.kind != EventKind::Placed {
        return;
    }
    if let Err(error) = app.book().keep_placed(event).await {
        warn!("the order is not in the order book before it comes out of the outbox: {error}");
    }
}

/// The first copy of what happened.
pub fn message(event: &Event, carried: Option<&Carried>) -> Outgoing {
    let mut properties = vec![(GENERATION.to_owned(), PropertyValue::Integer(0))];
    properties.extend(carried.into_iter().flat_map(Carried::properties));
    Outgoing {
        message_id: event.id(),
        label: event.kind.name().to_owned(),
        correlation_id: event.order_id().to_string(),
        content_type: event::CONTENT_TYPE.into(),
        body: event.to_json(),
        scheduled_enqueue_time: None,
        properties,
    }
}

fn not_taken(error: &PublishError) -> Problem {
    match error {
        PublishError::TooLarge { .. } => too_large(),
        // Ours to mend, like a missing right, or the bus's; the caller can only come again either way.
        PublishError::Unsendable(_)
        | PublishError::Rejected { .. }
        | PublishError::Busy { .. }
        | PublishError::Unreachable { .. }
        | PublishError::Unanswered { .. }
        | PublishError::NoToken(_) => Problem::try_again(
            ProblemType::NotTaken,
            "This could not be taken just now. Please send the same request again; with the same \
             `Idempotency-Key` an order is not taken twice within ten minutes.",
            error.retry_after().unwrap_or(TRY_AGAIN),
            error.to_string(),
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bus_that_took_nothing_is_left_alone_and_then_tried_by_one() {
        let rest = BusRest::default();
        let now = Instant::now();
        assert!(rest.admits(now) && rest.admits(now));
        rest.begin(now);
        assert!(!rest.admits(now));
        assert!(!rest.admits(now + REST / 2));
        assert!(rest.admits(now + REST));
        assert!(!rest.admits(now + REST));
        // Whoever tried has gone without a word.
        assert!(rest.admits(now + REST + PATIENCE));
        rest.end();
        assert!(rest.admits(now) && rest.admits(now));
    }
}
