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
    event::Event,
    history::{History, Standing},
    invocation::{Invocation, id, millis},
    orders_topic::{OrdersTopic, Outgoing, PublishError},
    outcome::{Attempt, Dead, Outcome, Reason, decide},
    redelivery::{Audience, Original},
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
const COPIES_AT_ONCE: usize = 8;

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
struct Message {
    body: String,
    history: History,
    traceparent: Option<String>,
    is_redelivery: bool,
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
            let (copies, summary) = match self.read(body) {
                Ok(message) => match Event::from_json(message.body.as_bytes()) {
                    Ok(event) => {
                        tracing::Span::current()
                            .record("order.id", field::display(event.order_id()));
                        let delivery = Arc::new(Delivery { event, message });
                        let told = AssertUnwindSafe(tell(Arc::clone(&delivery)))
                            .catch_unwind()
                            .await
                            // A bug must end like any other failure: with an outcome, and a line in the log.
                            .unwrap_or_else(|_| {
                                let why = "the function panicked".to_owned();
                                vec![given_up(delivery.history(), Reason::HandlerFault, why)]
                            });
                        self.settle(audience, &delivery.message, Some(&delivery.event), told)
                    }
                    Err(error) => {
                        let why = error.to_string();
                        let told = vec![given_up(&message.history, Reason::Unreadable, why)];
                        self.settle(audience, &message, None, told)
                    }
                },
                Err(why) => {
                    let duration_ms = millis(started.into_std());
                    info!(
                        outcome = "condemned",
                        duration_ms, "{function} fails the message: {why}"
                    );
                    return failed(StatusCode::UNPROCESSABLE_ENTITY, "dead");
                }
            };
            let published = self.publish_all(copies, started).await;
            let duration_ms = millis(started.into_std());
            match published {
                Ok(()) => {
                    summary.log(function, duration_ms);
                    completed()
                }
                Err(error) => {
                    error!(
                        outcome = "failed",
                        duration_ms,
                        "{function} could not put the message back onto the bus, and fails it: {error}"
                    );
                    failed(StatusCode::SERVICE_UNAVAILABLE, "later")
                }
            }
        }
        .instrument(span)
        .await
    }

    /// The message, or why it is to be failed at once: it is on its way into the dead-letter queue, or no copy can be made
    /// of it.
    fn read(&self, envelope: &Bytes) -> Result<Message, &'static str> {
        let Some(invocation) = Invocation::from_json(envelope) else {
            error!("the host's envelope cannot be read");
            return Err("there is no message in the host's envelope");
        };
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
        let Ok(body) = String::from_utf8(invocation.body) else {
            error!("the message is not text, and is none of ours");
            return Err("no copy can be made of a message that is not text");
        };
        let standing = Standing::read(
            &invocation.properties,
            invocation.enqueued,
            &self.policy,
            OffsetDateTime::now_utc(),
        );
        let Standing::Live(history) = standing else {
            return Err("it was given up, and is on its way into the dead-letter queue");
        };
        span.record("generation", history.generation);
        if history.is_replay {
            info!("the message was re-sent from a dead-letter queue, and starts afresh");
        }
        Ok(Message {
            body,
            history,
            traceparent: invocation.traceparent,
            is_redelivery: invocation.delivery_count.is_some_and(|count| count > 1),
        })
    }

    /// The copies in which the message goes on, and what to say about it.
    fn settle(
        &self,
        audience: Audience,
        message: &Message,
        event: Option<&Event>,
        told: Vec<Told>,
    ) -> (Vec<Outgoing>, Summary) {
        let now = OffsetDateTime::now_utc();
        let original = Original {
            body: &message.body,
            event,
            audience,
            history: &message.history,
            traceparent: message.traceparent.as_deref(),
        };
        let mut summary = Summary::default();
        let mut copies = Vec::new();
        for Told { vendor, attempt } in told {
            let vendor = vendor.as_deref();
            let outcome = decide(
                attempt,
                &message.history,
                &self.policy,
                now,
                retry::chance(),
            );
            summary.add(vendor, &outcome);
            copies.extend(original.copy_for(vendor, &outcome, now));
        }
        (copies, summary)
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
    loop {
        let error = match publish().await {
            Ok(()) => return Ok(()),
            Err(error) => error,
        };
        match error {
            PublishError::Unsendable(_) | PublishError::TooLarge { .. } => return Err(error),
            // A right that is missing is one that somebody may give back in a minute.
            PublishError::Rejected { .. }
            | PublishError::Busy { .. }
            | PublishError::Unreachable { .. }
            | PublishError::Unanswered { .. }
            | PublishError::NoToken(_) => {}
        }
        let pause = retry::backoff(Duration::from_secs(1), LONGEST_PAUSE, retries, random)
            .max(error.retry_after().unwrap_or_default());
        if started.elapsed() + pause + ONE_PUBLISH > until {
            return Err(error);
        }
        warn!(retry = retries, %error, "the bus does not take the copy of a message, whose lock is held meanwhile");
        retries += 1;
        tokio::time::sleep(pause).await;
    }
}

/// The message is given up for all whom it is for.
fn given_up(history: &History, reason: Reason, description: String) -> Told {
    Told {
        vendor: history.vendor.clone(),
        attempt: Attempt::Impossible(Dead {
            reason,
            description,
        }),
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
struct Summary {
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
}
