//! Puts each order through the inventory system, which also takes the payment: the till.
//!
//! Runs once per delivery of a message from the subscription `till` (see `till/function.json`). An order that was placed is
//! submitted, and what comes of it goes back to the topic: `order.confirmed`, or `order.cancelled` because the till declined. A
//! cancellation releases what the till has reserved. Every step is a fact in the order book, so that a process that is killed
//! at any point is followed by one that goes on from there (`till_square.rs`, `till_pos.rs`). Only a till that says no
//! cancels an order: one that is down, or that answers nonsense, delays it, and after `RETRY_DEADLINE` it is a person's.
//!
//! Where no till is configured the messages are completed, and nothing is done.

use std::sync::{Mutex, PoisonError};

use axum::{body::Bytes, extract::State, http::HeaderMap, response::Response};
use time::OffsetDateTime;
use tokio::time::Instant;
use tracing::{error, info, warn};

use crate::{
    App,
    announce::message,
    attempt::Attempt,
    bus_span::{self, Sending},
    config::{ConfigError, Settings},
    delivery::{Delivery, Told, caught},
    event::{Cancellation, Event, EventKind},
    order_book::{self, CANCELLED, Cancelled},
    outcome::Dead,
    patience::publish_patiently,
    pos::PosClient,
    redelivery::Audience,
    retry,
    span::Parent,
    square::SquareClient,
    till_facts::{Facts, Step, Stop, Verdict},
    till_pos, till_square, told,
    trace::Carried,
};

/// The till that `TILL` names.
#[derive(Debug, Clone)]
pub enum Till {
    Square(SquareClient),
    Pos(PosClient),
}

impl Till {
    /// Whether `TILL` names one, whatever else is set.
    pub fn is_configured(settings: &Settings) -> bool {
        settings
            .optional("TILL")
            .is_some_and(|till| !till.eq_ignore_ascii_case("none"))
    }

    /// As `TILL` has it.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Square(_) => "square",
            Self::Pos(_) => "pos",
        }
    }

    /// Reads the settings of the till that `TILL` names, if it names one. It connects to nothing.
    ///
    /// # Errors
    /// The setting that is missing or wrong. A till needs an order book, which knows what was paid.
    pub fn from_settings(
        settings: &Settings,
        http: &reqwest::Client,
        has_book: bool,
    ) -> Result<Option<Self>, ConfigError> {
        const EXPECTED: &str = "square, pos or none";
        if !Self::is_configured(settings) {
            return Ok(None);
        }
        if !has_book {
            let problem = "a till needs an order book: ORDER_BOOK, or AzureWebJobsStorage";
            return Err(ConfigError::invalid("TILL", problem, EXPECTED));
        }
        let name = settings.required("TILL", EXPECTED)?.to_ascii_lowercase();
        match name.as_str() {
            "square" => SquareClient::from_settings(settings, http).map(Self::Square),
            "pos" => PosClient::from_settings(settings, http).map(Self::Pos),
            _ => {
                let problem = "it names no till that is known";
                Err(ConfigError::invalid("TILL", problem, EXPECTED))
            }
        }
        .map(Some)
    }
}

pub async fn till(State(app): State<App>, headers: HeaderMap, body: Bytes) -> Response {
    let started = Instant::now();
    app.deliverer
        .deliver("till", Audience::Till, &headers, &body, async |delivery| {
            let Some(till) = &app.till else {
                return Vec::new();
            };
            if delivery.event.kind == EventKind::Confirmed {
                return Vec::new();
            }
            let attempt = caught(attempt(&app, till, &delivery, started)).await;
            if attempt == Attempt::Told && delivery.history().generation > 0 {
                // The book has it that the till waits.
                told::keep_told(app.book(), &delivery, Audience::Till).await;
            }
            vec![Told {
                vendor: None,
                attempt,
            }]
        })
        .await
}

async fn attempt(app: &App, till: &Till, delivery: &Delivery, started: Instant) -> Attempt {
    // What a person has to look at says nothing of whether the till works.
    let dead: Mutex<Option<Dead>> = Mutex::default();
    let attempt = app
        .till_channel
        .attempt(delivery.has_waited(), retry::chance(), || {
            Some(async {
                match settle(app, till, delivery, started).await {
                    Ok(()) => Ok(()),
                    Err(Stop::Later(failure)) => Err(failure),
                    Err(Stop::Dead(why)) => {
                        *dead.lock().unwrap_or_else(PoisonError::into_inner) = Some(why);
                        Ok(())
                    }
                }
            })
        })
        .await;
    let dead = dead.into_inner().unwrap_or_else(PoisonError::into_inner);
    dead.map_or(attempt, Attempt::Impossible)
}

/// Brings the order to its end, and tells the topic of it.
async fn settle(app: &App, till: &Till, delivery: &Delivery, started: Instant) -> Result<(), Stop> {
    let event = &delivery.event;
    let verdict = match &event.kind {
        EventKind::Placed => delivery.timed(place(app, till, delivery)).await?,
        EventKind::Cancelled(cancellation) => {
            let released = release(app, till, event, cancellation);
            return delivery.timed(released).await;
        }
        EventKind::Confirmed => return Ok(()),
    };
    let outcome = match verdict {
        Verdict::Confirmed(confirmed) => confirmed.event(event),
        Verdict::Cancelled(cancelled) => {
            let order = event.order_id();
            let cancelled = app.book().settle(order, CANCELLED, cancelled).await?;
            cancelled.event(event)
        }
    };
    // Under the same id as whoever has published it before. The lock of this message is held meanwhile.
    let topic = &app.deliverer.topic;
    let ids = || (outcome.id(), outcome.order_id().to_string());
    let span = bus_span::sending(topic, Parent::Current, Sending::First, &ids);
    let carried = delivery.carried().cloned();
    let carried = match span.context() {
        Some(parent) => Some(Carried {
            parent,
            state: carried.and_then(|carried| carried.state),
        }),
        None => carried,
    };
    let message = message(&outcome, carried.as_ref());
    let published = span
        .around(publish_patiently(
            started,
            app.deliverer.publish_until,
            retry::chance(),
            || topic.publish(&message),
        ))
        .await;
    bus_span::sent(&span, published.as_ref().copied());
    published.map_err(|error| {
        Stop::later(&format!(
            "the till has settled it, and the bus does not know: {error}"
        ))
    })?;
    if delivery.has_waited() {
        // What came of it is told from now on, and not since it was decided.
        let fact = order_book::published(outcome.kind.what());
        let published = Step::now();
        let written = app.book().write(event.order_id(), &fact, &published).await;
        if let Err(error) = written {
            warn!("the order book does not know since when the topic has it: {error}");
        }
    }
    info!("the order is settled: {}", outcome.kind.name());
    Ok(())
}

async fn place(app: &App, till: &Till, delivery: &Delivery) -> Result<Verdict, Stop> {
    let event = &delivery.event;
    let facts = Facts::of(app.book(), event.order_id()).await?;
    let is_repeated = delivery.may_be_there() || delivery.has_waited();
    if is_repeated && facts.is_empty() {
        // Whether it was paid or cancelled would be there.
        return Err(Stop::later(
            "the order book has nothing of this order, which has been here before: is its container or folder another one?",
        ));
    }
    match till {
        Till::Square(square) => {
            let submission = till_square::Submission {
                order: &event.order,
                placed_at: event.time,
                unconfirmed_since: delivery.history().unconfirmed_since,
                now: OffsetDateTime::now_utc(),
            };
            till_square::ring_up(square, &facts, &submission).await
        }
        Till::Pos(pos) => till_pos::ring_up(pos, &facts, &event.order).await,
    }
}

/// Releases what the till has reserved for an order that is cancelled. Whoever published the cancellation may have had no order
/// book to decide in: then it is decided here.
async fn release(
    app: &App,
    till: &Till,
    event: &Event,
    cancellation: &Cancellation,
) -> Result<(), Stop> {
    let heard = Cancelled {
        at: event.time,
        reason: cancellation.reason.clone(),
        not_charged: cancellation.not_charged,
    };
    let facts = Facts::of(app.book(), event.order_id()).await?;
    let released = match till {
        Till::Square(square) => till_square::release(square, &facts, &event.order, &heard).await,
        Till::Pos(pos) => till_pos::release(pos, &facts, &event.order, &heard).await,
    };
    if let Err(Stop::Dead(why)) = &released {
        error!(
            "the order was cancelled, and a person has to undo it at the till: {}",
            why.description
        );
    }
    released
}
