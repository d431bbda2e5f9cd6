//! One delivery of one message, from the host's envelope to the answer.
//!
//! Runs once per delivery, for both triggered functions. A function only says what its attempts came to, one for each
//! recipient; [`decide`] says what becomes of them, and this sees to it that the copies in which the message goes on
//! are on the bus *before* the host is told to complete it. The host knows two answers: a 2xx with a JSON body
//! completes the message, and anything else abandons it, upon which the broker delivers it again within a tenth of a second,
//! and moves it to the dead-letter queue at the maximum delivery count. So a failure is answered only to a condemned copy,
//! or when the bus has not taken a copy for minutes.
//!
//! A process that is killed before the answer leaves the message to be delivered again: attempts are repeated under the
//! same key, and copies are sent again with the same id, which the topic drops.

use std::{future::Future, panic::AssertUnwindSafe, sync::Arc, time::Duration};

use axum::{
    body::Bytes,
    http::{HeaderMap, StatusCode, header},
    response::{IntoResponse, Response},
};
use futures_util::{FutureExt, StreamExt, TryStreamExt, stream};
use time::OffsetDateTime;
use tokio::time::Instant;
use tracing::{Instrument, error, field, info, info_span, warn};

use crate::{
    attempt::Attempt,
    event::{Event, EventError},
    failure::{Class, Failure},
    history::{History, Standing},
    invocation::{Invocation, id, millis},
    orders_topic::{OrdersTopic, Outgoing, PublishError},
    outcome::{Dead, Outcome, Reason, decide},
    redelivery::{Audience, Content, Original},
    retry,
    retry_policy::RetryPolicy,
    trace,
};

/// What the host takes for success. An empty 2xx would hang the invocation until the host ends the process
/// (Azure/azure-functions-host, `DefaultHttpWorkerService`).
const COMPLETED: &str = r#"{"Outputs":{},"Logs":[],"ReturnValue":null}"#;

/// Until when an invocation tries to get its copies onto the bus. The host renews the lock for five minutes, and ends the
/// process of an invocation that takes as long (`host.json`); a failure before that would only bring the message back
/// at once, and burn one of its deliveries.
pub const PUBLISH_UNTIL: Duration = Duration::from_secs(4 * 60);

/// The longest that one [`OrdersTopic::publish`] takes, which has to fit before that.
const ONE_PUBLISH: Duration = Duration::from_secs(24);

const LONGEST_PAUSE: Duration = Duration::from_secs(15);

/// An order of a hundred vendors that are all down has a hundred copies.
const COPIES_AT_ONCE: usize = 32;

/// How many reasons one line of the log has.
const MOST_REASONS: usize = 5;

/// What a delivery needs besides the function.
#[derive(Debug, Clone)]
pub struct Deliverer {
    pub topic: OrdersTopic,
    pub policy: RetryPolicy,
    /// How long after its begin an invocation still tries to get its copies onto the bus: [`PUBLISH_UNTIL`].
    pub publish_until: Duration,
}

/// What a function gets.
#[derive(Debug)]
pub struct Delivery {
    pub event: Event,
    message: Message,
}

/// A message as it was read, whatever is in it.
#[derive(Debug)]
pub struct Message {
    body: String,
    history: History,
    traceparent: Option<String>,
    is_redelivery: bool,
    /// What it is known by on the bus.
    known_by: String,
}

impl Delivery {
    pub fn history(&self) -> &History {
        &self.message.history
    }

    /// Whether an earlier attempt may have reached the recipient without our knowing.
    pub fn may_be_there(&self) -> bool {
        let history = self.history();
        self.message.is_redelivery || history.is_replay || history.unconfirmed_since.is_some()
    }

    /// Whether it has been held back before.
    pub fn has_waited(&self) -> bool {
        self.history().generation > 0
    }
}

/// What a function has to say about one recipient: the vendor, where there is more than one, and the attempt.
#[derive(Debug)]
pub struct Told {
    pub vendor: Option<String>,
    pub attempt: Attempt,
}

/// Makes the attempt, in which a bug must end like any other failure: with an outcome, and a line in the log.
pub async fn caught(attempt: impl Future<Output = Attempt>) -> Attempt {
    let attempt = AssertUnwindSafe(attempt).catch_unwind().await;
    attempt.unwrap_or_else(|_| {
        Attempt::Failed(Failure {
            class: Class::HandlerFault,
            retry_after: None,
            answer: "the function panicked".to_owned(),
            nothing_taken: false,
        })
    })
}

impl Deliverer {
    /// Runs one delivery of `function` to that audience: reads the envelope and the event, hands them to `tell`, puts
    /// what is not settled back onto the bus, logs the outcome once, answers.
    pub async fn deliver<F, Fut>(
        &self,
        function: &'static str,
        audience: Audience,
        headers: &HeaderMap,
        body: &Bytes,
        tell: F,
    ) -> Response
    where
        F: FnOnce(Arc<Delivery>) -> Fut,
        Fut: Future<Output = Vec<Told>>,
    {
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
        );
        async {
            let duration_ms = || millis(started.into_std());
            let message = match Message::read(body, &self.policy, OffsetDateTime::now_utc()) {
                Ok(message) => message,
                Err(Unread::Condemned) => {
                    info!(
                        outcome = "condemned",
                        duration_ms = duration_ms(),
                        "{function} fails the message, which was given up, into the dead-letter queue"
                    );
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
            let policy = &self.policy;
            let (copies, summary) = match Event::from_json(message.body.as_bytes()) {
                Ok(event) => {
                    tracing::Span::current()
                        .record("order.id", field::display(event.order_id()));
                    let delivery = Arc::new(Delivery { event, message });
                    let told = tell(Arc::clone(&delivery)).await;
                    let now = OffsetDateTime::now_utc();
                    delivery.settle(audience, told, policy, now, retry::chance)
                }
                Err(error) => message.condemn(audience, &error, OffsetDateTime::now_utc()),
            };
            let published = self.publish_all(copies, started).await;
            match published {
                Ok(()) => {
                    summary.log(function, duration_ms());
                    completed()
                }
                Err(error) => {
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

    async fn publish_all(
        &self,
        copies: Vec<Outgoing>,
        started: Instant,
    ) -> Result<(), PublishError> {
        stream::iter(copies)
            .map(async |copy| {
                publish_patiently(started, self.publish_until, retry::chance(), || {
                    self.topic.publish(&copy)
                })
                .await
            })
            .buffer_unordered(COPIES_AT_ONCE)
            .try_collect()
            .await
    }
}

/// Why a message is failed at once.
#[derive(Debug)]
pub enum Unread {
    /// It is on its way into the dead-letter queue.
    Condemned,
    /// No copy can be made of it.
    Unusable(&'static str),
}

impl Message {
    /// Reads the host's envelope at `now`, and tells the log's span what it is about.
    ///
    /// # Errors
    /// If the message is to be failed at once.
    pub fn read(
        envelope: &[u8],
        policy: &RetryPolicy,
        now: OffsetDateTime,
    ) -> Result<Self, Unread> {
        let invocation = Invocation::from_json(envelope).ok_or(Unread::Unusable(
            "there is no message in the host's envelope",
        ))?;
        let span = tracing::Span::current();
        if let Some(message_id) = &invocation.message_id {
            span.record("message.id", message_id);
        }
        if let Some(count) = invocation.delivery_count {
            span.record("delivery_count", count);
        }
        if let Some(trace_id) = invocation.traceparent.as_deref().and_then(trace::trace_id) {
            span.record("trace.id", trace_id);
        }
        let body = String::from_utf8(invocation.body)
            .map_err(|_| Unread::Unusable("it is not text, and no copy can be made of it"))?;
        let standing = Standing::read(&invocation.properties, invocation.enqueued, policy, now);
        let Standing::Live(history) = standing else {
            return Err(Unread::Condemned);
        };
        span.record("generation", history.generation);
        if history.is_replay {
            info!("the message was re-sent from a dead-letter queue, and starts afresh");
        }
        Ok(Self {
            body,
            history,
            traceparent: invocation.traceparent,
            is_redelivery: invocation.delivery_count.is_some_and(|count| count > 1),
            known_by: [invocation.sequence_number, invocation.message_id]
                .map(Option::unwrap_or_default)
                .join(" "),
        })
    }

    fn original<'a>(&'a self, content: Content<'a>, audience: Audience) -> Original<'a> {
        Original {
            body: &self.body,
            content,
            audience,
            history: &self.history,
            traceparent: self.traceparent.as_deref(),
        }
    }

    /// The copy that is given up because its body is not ours.
    fn condemn(
        &self,
        audience: Audience,
        error: &EventError,
        now: OffsetDateTime,
    ) -> (Vec<Outgoing>, Summary) {
        let dead = Dead {
            reason: Reason::Unreadable,
            description: error.to_string(),
        };
        let content = Content::Unreadable {
            known_by: &self.known_by,
        };
        let vendor = self.history.vendor.as_deref();
        let copy = self
            .original(content, audience)
            .condemned(vendor, &dead, now);
        let mut summary = Summary::default();
        summary.add(vendor, &Outcome::Dead(dead));
        (vec![copy], summary)
    }
}

impl Delivery {
    /// What a function gets of a message with that event.
    pub fn new(event: Event, message: Message) -> Self {
        Self { event, message }
    }

    /// The copies in which the message goes on, and what to say about it. `chance` gives numbers from 0 to 1.
    pub fn settle(
        &self,
        audience: Audience,
        told: Vec<Told>,
        policy: &RetryPolicy,
        now: OffsetDateTime,
        chance: impl Fn() -> f64,
    ) -> (Vec<Outgoing>, Summary) {
        let original = self.message.original(Content::Event(&self.event), audience);
        let mut summary = Summary::default();
        let mut copies = Vec::new();
        for Told { vendor, attempt } in told {
            let vendor = vendor.as_deref();
            let outcome = decide(attempt, self.history(), policy, now, chance());
            summary.add(vendor, &outcome);
            copies.extend(original.copy_for(vendor, &outcome, now));
        }
        (copies, summary)
    }
}

/// Tries for minutes: as long as the copy is not on the bus, the original must not be completed. No attempt begins that
/// could outlast `until` after `started`; `random`, from 0 to 1, is for the pauses.
///
/// # Errors
/// The last one, or the first that no later attempt can mend.
pub async fn publish_patiently<F, Fut>(
    started: Instant,
    until: Duration,
    random: f64,
    publish: F,
) -> Result<(), PublishError>
where
    F: Fn() -> Fut,
    Fut: Future<Output = Result<(), PublishError>>,
{
    let mut retries = 0;
    let mut error = PublishError::Unreachable {
        reason: "the time of the invocation is over".to_owned(),
    };
    loop {
        let left = until.saturating_sub(started.elapsed() + ONE_PUBLISH);
        if left.is_zero() {
            return Err(error);
        }
        if retries > 0 {
            // Who asks for more time than there is gets all that there is: a failure would come back at once.
            let pause = retry::backoff(Duration::from_secs(1), LONGEST_PAUSE, retries - 1, random)
                .max(error.retry_after().unwrap_or_default())
                .min(left);
            warn!(retry = retries, %error, "the bus does not take the copy of a message, whose lock is held meanwhile");
            tokio::time::sleep(pause).await;
        }
        retries += 1;
        error = match publish().await {
            Ok(()) => return Ok(()),
            // No later attempt is another.
            Err(error @ (PublishError::Unsendable(_) | PublishError::TooLarge { .. })) => {
                return Err(error);
            }
            // A right that is missing is one that somebody may give back in a minute.
            Err(
                error @ (PublishError::Rejected { .. }
                | PublishError::Busy { .. }
                | PublishError::Unreachable { .. }
                | PublishError::Unanswered { .. }
                | PublishError::NoToken(_)),
            ) => error,
        };
    }
}

fn completed() -> Response {
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

/// What the log says of one delivery, whose recipients may have fared differently.
#[derive(Debug, Default)]
pub struct Summary {
    reasons: Vec<String>,
    later: usize,
    dead: usize,
    was_tried: bool,
}

impl Summary {
    fn add(&mut self, vendor: Option<&str>, outcome: &Outcome) {
        let reason = match outcome {
            Outcome::Delivered => return,
            Outcome::Later(later) => {
                self.later += 1;
                self.was_tried |= later.was_tried;
                later.error.clone()
            }
            Outcome::Dead(dead) => {
                self.dead += 1;
                format!("{}: {}", dead.reason.name(), dead.description)
            }
        };
        self.reasons.push(match vendor {
            Some(vendor) => format!("the vendor {vendor}: {reason}"),
            None => reason,
        });
    }

    fn log(mut self, function: &str, duration_ms: u64) {
        let more = self.reasons.len().saturating_sub(MOST_REASONS);
        self.reasons.truncate(MOST_REASONS);
        let mut reasons = self.reasons.join("; ");
        if more > 0 {
            reasons.push_str(&format!("; and {more} more"));
        }
        let (later, dead) = (self.later, self.dead);
        match (dead, later) {
            (0, 0) => info!(outcome = "delivered", duration_ms, "{function} delivered"),
            // What was only held back is told where the channel was closed, once.
            (0, _) if !self.was_tried => {
                info!(
                    outcome = "later",
                    later, duration_ms, "{function} delivers later: {reasons}"
                );
            }
            (0, _) => warn!(
                outcome = "later",
                later, duration_ms, "{function} delivers later: {reasons}"
            ),
            _ => error!(
                outcome = "dead",
                dead, later, duration_ms, "{function} gives up: {reasons}"
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_invocation_ends_before_the_host_ends_the_process() {
        let host: serde_json::Value = serde_json::from_str(include_str!("../host.json")).unwrap();
        assert_eq!(host["functionTimeout"], "00:05:00");
        assert_eq!(
            host["extensions"]["serviceBus"]["maxAutoLockRenewalDuration"],
            "00:05:00"
        );
        assert!(PUBLISH_UNTIL < Duration::from_secs(5 * 60));
        assert!(crate::data_plane::SendLimits::default().total <= ONE_PUBLISH);
    }

    /// However long the bus asks to be left alone, and however quickly it says so.
    #[tokio::test(start_paused = true)]
    async fn a_bus_that_says_no_at_once_holds_the_message_for_minutes() {
        for retry_after in [None, Some(Duration::ZERO), Some(Duration::from_secs(300))] {
            let started = Instant::now();
            let calls = std::cell::Cell::new(0);
            let published = publish_patiently(started, PUBLISH_UNTIL, 0.5, async || {
                calls.set(calls.get() + 1);
                Err(PublishError::Busy {
                    status: 503,
                    detail: String::new(),
                    retry_after,
                })
            })
            .await;
            assert!(published.is_err());
            assert!(calls.get() >= 2);
            let took = started.elapsed();
            assert!(
                took >= PUBLISH_UNTIL - ONE_PUBLISH && took < PUBLISH_UNTIL,
                "{took:?}"
            );
        }
    }

    #[tokio::test(start_paused = true)]
    async fn no_publish_begins_that_the_host_would_not_let_end() {
        let started = Instant::now();
        tokio::time::advance(PUBLISH_UNTIL - ONE_PUBLISH).await;
        let never = async || panic!("it is too late");
        assert!(
            publish_patiently(started, PUBLISH_UNTIL, 0.5, never)
                .await
                .is_err()
        );
    }

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
