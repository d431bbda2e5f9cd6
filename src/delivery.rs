//! One delivery of one message, from the host's envelope to the answer.
//!
//! Runs once per delivery, for every function that a message triggers. A function only says what its attempts came to, one for each
//! recipient; [`decide`] says what becomes of them, and this sees to it that the copies in which the message goes on
//! are on the bus *before* the host is told to complete it. The host knows two answers: a 2xx with a JSON body
//! completes the message, and anything else abandons it, upon which the broker delivers it again within a tenth of a second,
//! and moves it to the dead-letter queue at the maximum delivery count. So a failure is answered only to a condemned copy,
//! or when the bus has not taken a copy for minutes.
//!
//! A process that is killed before the answer leaves the message to be delivered again: attempts are repeated under the
//! same key, and copies are sent again with the same id, which the topic drops.

use std::{
    future::Future,
    panic::AssertUnwindSafe,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use axum::{
    body::Bytes,
    http::{HeaderMap, StatusCode, header},
    response::{IntoResponse, Response},
};
use futures_util::{
    FutureExt, StreamExt, TryStreamExt,
    future::{BoxFuture, join_all},
    stream,
};
use pin_project_lite::pin_project;
use time::OffsetDateTime;
use tokio::time::Instant;
use tracing::{Instrument, error, field, info, info_span};

use crate::{
    attempt::Attempt,
    bus_span::{self, Sending},
    delivery_summary::Summary,
    event::Event,
    failure::Failure,
    history::History,
    invocation::{id, millis},
    message::{Message, Unread},
    metrics::{self, Figure},
    order_book::OrderBook,
    orders_topic::{OrdersTopic, Outgoing, PublishError},
    outcome::{Outcome, decide},
    patience::publish_patiently,
    redelivery::{Audience, Content},
    retry,
    retry_policy::RetryPolicy,
    span::Parent,
    told,
    trace::{Carried, SpanContext},
};

/// What the host takes for success. An empty 2xx would hang the invocation until the host ends the process
/// (Azure/azure-functions-host, `DefaultHttpWorkerService`).
const COMPLETED: &str = r#"{"Outputs":{},"Logs":[],"ReturnValue":null}"#;

/// An order of a hundred vendors that are all down has a hundred copies.
const COPIES_AT_ONCE: usize = 32;

/// What a delivery needs besides the function.
#[derive(Debug, Clone)]
pub struct Deliverer {
    pub topic: OrdersTopic,
    pub policy: RetryPolicy,
    pub book: OrderBook,
    /// How long after its begin an invocation still tries to get its copies onto the bus: [`crate::patience::PUBLISH_UNTIL`].
    pub publish_until: Duration,
}

/// What a function gets.
#[derive(Debug)]
pub struct Delivery {
    pub event: Event,
    message: Message,
    /// How long the one provider or till has taken, in milliseconds, with what the order book was asked for it.
    provider_ms: AtomicU64,
}

impl Delivery {
    pub fn history(&self) -> &History {
        &self.message.history
    }

    /// Where it belongs in the trace of its order.
    pub fn carried(&self) -> Option<&Carried> {
        self.message.carried.as_ref()
    }

    /// The work with the one provider or till, whose time is told in the log: all its calls, and of a till what is read and
    /// written in the order book for them; nothing that goes to the topic. Each of several vendors has a line of its own.
    pub fn timed<F: Future>(&self, call: F) -> Timed<'_, F> {
        Timed {
            began: None,
            spent_ms: &self.provider_ms,
            call,
        }
    }

    /// Whether an earlier attempt may have reached the recipient without our knowing.
    pub fn may_be_there(&self) -> bool {
        let history = self.history();
        self.message.is_redelivery || history.is_replay || history.unconfirmed_since.is_some()
    }

    /// Whether it has been held back before.
    pub fn has_waited(&self) -> bool {
        let history = self.history();
        history.generation > 0 && !history.is_replay
    }
}

pin_project! {
    /// A call that adds its time to others'. Calls are large futures, and an `async` block would hold this one twice.
    pub struct Timed<'a, F> {
        began: Option<Instant>,
        spent_ms: &'a AtomicU64,
        #[pin]
        call: F,
    }
}

impl<F: Future> Future for Timed<'_, F> {
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        let this = self.project();
        let began = this.began.get_or_insert_with(Instant::now);
        let polled = this.call.poll(cx);
        if polled.is_ready() {
            this.spent_ms
                .fetch_add(millis(began.into_std()), Ordering::Relaxed);
        }
        polled
    }
}

/// What a function has to say about one recipient: the vendor, where there is more than one, and the attempt.
#[derive(Debug)]
pub struct Told {
    pub vendor: Option<String>,
    pub attempt: Attempt,
}

/// A function's part in a delivery. It is boxed, so that the rest is in the program once and not for each function.
type Tell<'a> = Box<dyn FnOnce(Arc<Delivery>) -> BoxFuture<'a, Vec<Told>> + Send + 'a>;

/// What becomes of the message for each recipient.
pub type Outcomes = Vec<(Option<String>, Outcome)>;

/// Makes the attempt, in which a bug must end like any other failure: with an outcome, and a line in the log.
pub async fn caught(attempt: impl Future<Output = Attempt>) -> Attempt {
    let attempt = AssertUnwindSafe(attempt).catch_unwind().await;
    attempt.unwrap_or_else(|_| Attempt::Failed(Failure::handler_fault()))
}

impl Deliverer {
    /// Runs one delivery of `function` to that audience: reads the envelope and the event, hands them to `tell`, puts
    /// what is not settled back onto the bus, logs the outcome once, answers.
    pub fn deliver<'a, F, Fut>(
        &'a self,
        function: &'static str,
        audience: Audience,
        headers: &'a HeaderMap,
        body: &'a Bytes,
        tell: F,
    ) -> impl Future<Output = Response> + Send + 'a
    where
        F: FnOnce(Arc<Delivery>) -> Fut + Send + 'a,
        Fut: Future<Output = Vec<Told>> + Send + 'a,
    {
        let tell: Tell<'a> = Box::new(move |delivery| tell(delivery).boxed());
        self.deliver_by(function, audience, headers, body, tell)
    }

    async fn deliver_by(
        &self,
        function: &'static str,
        audience: Audience,
        headers: &HeaderMap,
        body: &Bytes,
        tell: Tell<'_>,
    ) -> Response {
        let started = Instant::now();
        let span = info_span!(
            "invocation",
            function,
            invocation.id = id(headers),
            order.id = field::Empty,
            message.id = field::Empty,
            generation = field::Empty,
            delivery_count = field::Empty,
            trace.id = field::Empty,
            span.id = field::Empty,
        );
        async {
            let duration_ms = || millis(started.into_std());
            let mut message = match Message::read(body, &self.policy, OffsetDateTime::now_utc()) {
                Ok(message) => message,
                Err(Unread::Condemned { is_redelivery }) => {
                    // It comes as often as it may be delivered, within a second.
                    if !is_redelivery {
                        info!(
                            outcome = "condemned",
                            duration_ms = duration_ms(),
                            "{function} fails the message, which was given up, into the dead-letter queue"
                        );
                    }
                    return failed(StatusCode::UNPROCESSABLE_ENTITY, "dead");
                }
                Err(Unread::Unusable(why)) => {
                    error!(
                        outcome = "failed",
                        duration_ms = duration_ms(),
                        "{function} fails the message: {why}"
                    );
                    return failed(StatusCode::UNPROCESSABLE_ENTITY, "dead");
                }
            };
            let span = message.begin(function, audience, id(headers));
            let origin = message.carried.as_ref().map(|carried| carried.parent);
            let age = message.age();
            metrics::observe(Figure::NotificationAge, age, &[("function", function)]);
            let policy = &self.policy;
            let mut settled = None;
            let (copies, summary) = match Event::from_json(message.body.as_bytes()) {
                Ok(event) => {
                    let order_id = event.order_id();
                    tracing::Span::current().record("order.id", field::display(order_id));
                    span.note(|recording| {
                        recording.set("orderup.order.id", order_id.to_string());
                    });
                    let delivery = Arc::new(Delivery::new(event, message));
                    let told = match delivery.message.stray(audience) {
                        Some(told) => vec![told],
                        None => span.around(tell(Arc::clone(&delivery))).await,
                    };
                    let now = OffsetDateTime::now_utc();
                    let (copies, summary, outcomes) =
                        delivery.settle(audience, told, policy, now, retry::chance);
                    settled = Some((delivery, outcomes));
                    (copies, summary)
                }
                Err(error) => message.condemn(audience, &error, OffsetDateTime::now_utc()),
            };
            let published = span.around(self.publish_all(copies, origin, started)).await;
            match published {
                Ok(()) => {
                    let mut provider_ms = 0;
                    if let Some((delivery, outcomes)) = settled {
                        self.keep(audience, &delivery, &outcomes).await;
                        provider_ms = delivery.provider_ms.load(Ordering::Relaxed);
                    }
                    summary.count(function, &span);
                    summary.log(function, duration_ms(), provider_ms, age);
                    completed()
                }
                Err(error) => {
                    span.note(|recording| {
                        recording.set("orderup.outcome", "failed").fail(error.name());
                    });
                    error!(
                        outcome = "failed",
                        duration_ms = duration_ms(),
                        "{function} could not put the message back onto the bus, and fails it: {error}"
                    );
                    failed(StatusCode::SERVICE_UNAVAILABLE, "later")
                }
            }
        }
        .instrument(span)
        .await
    }

    /// Tells the order book what goes on in copies, or was given up. It is kept once the copies are on the bus: a process that
    /// is killed in between repeats it all.
    async fn keep(&self, audience: Audience, delivery: &Delivery, outcomes: &Outcomes) {
        if audience == Audience::Book {
            return;
        }
        let kept = outcomes.iter().map(|(vendor, outcome)| {
            told::keep(&self.book, delivery, audience, vendor.as_deref(), outcome)
        });
        join_all(kept).await;
    }

    async fn publish_all(
        &self,
        copies: Vec<Outgoing>,
        origin: Option<SpanContext>,
        started: Instant,
    ) -> Result<(), PublishError> {
        stream::iter(copies)
            .map(async |copy| {
                let is_scheduled = copy.scheduled_enqueue_time.is_some();
                let sending = Sending::Copy { is_scheduled };
                let ids = || (copy.message_id.clone(), copy.correlation_id.clone());
                let span = bus_span::sending(&self.topic, Parent::Current, sending, &ids);
                span.note(|recording| {
                    recording.link(origin);
                });
                let publish = || self.topic.publish(&copy);
                let chance = retry::chance();
                let published = publish_patiently(started, self.publish_until, chance, publish);
                let published = span.around(published).await;
                bus_span::sent(&span, published.as_ref().copied());
                published
            })
            .buffer_unordered(COPIES_AT_ONCE)
            .try_collect()
            .await
    }
}

impl Delivery {
    /// What a function gets of a message with that event.
    pub fn new(event: Event, message: Message) -> Self {
        Self {
            event,
            message,
            provider_ms: AtomicU64::new(0),
        }
    }

    /// The copies in which the message goes on, and what to say and to keep about it. `chance` gives numbers from 0 to 1.
    pub fn settle(
        &self,
        audience: Audience,
        told: Vec<Told>,
        policy: &RetryPolicy,
        now: OffsetDateTime,
        chance: impl Fn() -> f64,
    ) -> (Vec<Outgoing>, Summary, Outcomes) {
        let original = self.message.original(Content::Event(&self.event), audience);
        let mut summary = Summary::default();
        let mut copies = Vec::new();
        let mut outcomes = Vec::new();
        for Told { vendor, attempt } in told {
            let outcome = decide(attempt, self.history(), policy, now, chance());
            summary.add(vendor.as_deref(), &outcome);
            copies.extend(original.copy_for(vendor.as_deref(), &outcome, now));
            outcomes.push((vendor, outcome));
        }
        (copies, summary, outcomes)
    }
}

/// What completes the host's invocation.
pub fn completed() -> Response {
    let content_type = [(header::CONTENT_TYPE, "application/json")];
    (StatusCode::OK, content_type, COMPLETED).into_response()
}

/// The host throws the body of a failure away; this one is for people with curl.
fn failed(status: StatusCode, outcome: &str) -> Response {
    let content_type = [(header::CONTENT_TYPE, "application/json")];
    (
        status,
        content_type,
        format!(r#"{{"outcome":"{outcome}"}}"#),
    )
        .into_response()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::failure::Class;

    #[tokio::test]
    async fn a_panic_is_a_failure_that_comes_again() {
        let attempt = caught(async { panic!("ada@example.net") }).await;
        let Attempt::Failed(failure) = attempt else {
            panic!("{attempt:?}");
        };
        assert_eq!(failure.class, Class::HandlerFault);
        assert!(!failure.answer.contains("ada"));
    }
}
