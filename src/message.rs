//! A message as the host hands it over: read from its envelope, whatever is in it, and before anybody knows whether it is ours.
//!
//! Made once for each delivery ([`crate::delivery`]). It knows its place in its order's trace, and makes what its copies are made of.

use std::time::Duration;

use time::OffsetDateTime;
use tracing::{field, info};

use crate::{
    attempt::Attempt,
    bus_span::{self, Delivered},
    delivery::Told,
    delivery_summary::Summary,
    event::EventError,
    history::{History, Standing},
    invocation::Invocation,
    orders_topic::Outgoing,
    outcome::{Dead, Outcome, Reason},
    redelivery::{Audience, Content, Original},
    retry_policy::RetryPolicy,
    span::Span,
    trace::{Carried, SpanContext},
};

/// A message as it was read, whatever is in it.
#[derive(Debug)]
pub struct Message {
    pub(crate) body: String,
    pub(crate) history: History,
    pub(crate) carried: Option<Carried>,
    /// The delivery of which it is a copy, where that was recorded.
    repeats: Option<SpanContext>,
    /// This one, if it is recorded.
    attempt: Option<SpanContext>,
    message_id: Option<String>,
    delivery_count: Option<u32>,
    pub(crate) is_redelivery: bool,
    /// What it is known by on the bus.
    known_by: String,
}

/// Why a message is failed at once.
#[derive(Debug)]
pub enum Unread {
    /// It is on its way into the dead-letter queue.
    Condemned { is_redelivery: bool },
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
        if let Some(carried) = &invocation.carried {
            span.record("trace.id", field::display(carried.parent.trace()));
        }
        let body = String::from_utf8(invocation.body)
            .map_err(|_| Unread::Unusable("it is not text, and no copy can be made of it"))?;
        let is_redelivery = invocation.delivery_count.is_some_and(|count| count > 1);
        let standing = Standing::read(&invocation.properties, invocation.enqueued, policy, now);
        let Standing::Live(history) = standing else {
            return Err(Unread::Condemned { is_redelivery });
        };
        span.record("generation", history.generation);
        if history.is_replay {
            info!("the message was re-sent from a dead-letter queue, and starts afresh");
        }
        Ok(Self {
            body,
            history,
            carried: invocation.carried,
            repeats: invocation.repeats,
            attempt: None,
            is_redelivery,
            known_by: [invocation.sequence_number, invocation.message_id.clone()]
                .map(Option::unwrap_or_default)
                .join(" "),
            message_id: invocation.message_id,
            delivery_count: invocation.delivery_count,
        })
    }

    /// Begins the span of this delivery, which then is what its copies repeat.
    pub(crate) fn begin(
        &mut self,
        function: &'static str,
        audience: Audience,
        invocation_id: Option<&str>,
    ) -> Span {
        let span = bus_span::delivering(&Delivered {
            function,
            audience,
            invocation_id,
            message_id: self.message_id.as_deref(),
            delivery_count: self.delivery_count,
            parent: self.carried.as_ref().map(|carried| carried.parent),
            repeats: self.repeats,
        });
        if let Some(context) = span.context() {
            let log = tracing::Span::current();
            log.record("trace.id", field::display(context.trace()));
            log.record("span.id", field::display(context.span()));
            self.attempt = context.is_sampled().then_some(context);
            // Of a message that somebody else has sent without one, this is the beginning.
            self.carried.get_or_insert(Carried {
                parent: context,
                state: None,
            });
            span.note(|recording| {
                recording
                    .set("orderup.generation", self.history.generation)
                    .set("orderup.replay", self.history.is_replay);
            });
        }
        span
    }

    /// How long its audience has waited for it.
    pub(crate) fn age(&self) -> Duration {
        let age = OffsetDateTime::now_utc() - self.history.first_seen;
        Duration::try_from(age).unwrap_or_default()
    }

    /// It is for others than those of whom this queue or subscription is: somebody has sent it to the wrong place.
    pub(crate) fn stray(&self, audience: Audience) -> Option<Told> {
        let other = self.history.audience.as_deref();
        let other = other.filter(|other| *other != audience.name())?;
        // It may be anything; ours are few.
        let known = Audience::ALL.map(Audience::name);
        let known = known.into_iter().find(|known| *known == other);
        let description = format!("it is for {}", known.unwrap_or("somebody unknown"));
        Some(Told {
            vendor: self.history.vendor.clone(),
            attempt: Attempt::Impossible(Dead::new(Reason::WrongAudience, description)),
        })
    }

    pub(crate) fn original<'a>(&'a self, content: Content<'a>, audience: Audience) -> Original<'a> {
        Original {
            body: &self.body,
            content,
            audience,
            history: &self.history,
            carried: self.carried.as_ref(),
            attempt: self.attempt,
        }
    }

    /// The copy that is given up because its body is not ours.
    pub(crate) fn condemn(
        &self,
        audience: Audience,
        error: &EventError,
        now: OffsetDateTime,
    ) -> (Vec<Outgoing>, Summary) {
        let dead = Dead::new(Reason::Unreadable, error.to_string());
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
