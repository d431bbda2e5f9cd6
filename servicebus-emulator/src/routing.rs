//! The way of a message through the namespace: into a queue, through a topic to its subscriptions, on to where
//! its entity forwards it, or into a dead-letter queue.
//!
//! All of it happens at once, when a message is enqueued, and in the same transaction: a message is never
//! between two entities. A move that is not possible ends in a dead-letter queue, so that nothing is lost.

use std::{sync::Arc, time::Duration};

use jiff::Timestamp;

use crate::{
    Message, Value,
    broker::Broker,
    entity::{EntityId, Record, Role, Stored, copies},
};

/// How often a message may be forwarded.
/// <https://learn.microsoft.com/azure/service-bus-messaging/service-bus-auto-forwarding#considerations>
const MAX_HOPS: u32 = 4;

/// Why a message is dead-lettered: the two application properties that a dead letter carries.
pub(crate) struct DeadLetterCause {
    pub(crate) reason: String,
    pub(crate) description: String,
}

impl DeadLetterCause {
    fn new(reason: &str, description: impl Into<String>) -> Self {
        Self {
            reason: reason.to_owned(),
            description: description.into(),
        }
    }

    /// Reason and wording are those of Azure, as are the following two.
    /// <https://learn.microsoft.com/azure/service-bus-messaging/service-bus-dead-letter-queues>
    pub(crate) fn max_delivery_count(deliveries: u32) -> Self {
        Self::new(
            "MaxDeliveryCountExceeded",
            format!("Message could not be consumed after {deliveries} delivery attempts."),
        )
    }

    pub(crate) fn expired() -> Self {
        Self::new(
            "TTLExpiredException",
            "The message expired and was dead lettered.",
        )
    }

    /// As documented, and for an entity that came to require sessions later.
    pub(crate) fn session_id_is_null() -> Self {
        Self::new(
            "Session ID is null",
            "Session-enabled entity doesn't allow a message whose session identifier is null.",
        )
    }

    fn max_hops() -> Self {
        Self::new(
            "MaxTransferHopCountExceeded",
            format!(
                "The maximum number of allowed hops when forwarding between queues. The value is set to {MAX_HOPS}."
            ),
        )
    }

    /// Azure documents that such a message is dead-lettered, but not with which reason; the name of the
    /// exception is its way in similar cases.
    fn target_not_found(target: &str) -> Self {
        Self::new(
            "MessagingEntityNotFoundException",
            format!(
                "The messaging entity `{target}`, to which messages are forwarded, could not be found."
            ),
        )
    }

    /// As above: the reason is not documented.
    fn target_disabled(target: &str) -> Self {
        Self::new(
            "MessagingEntityDisabledException",
            format!("`{target}`, to which messages are forwarded, is disabled."),
        )
    }

    /// As above: the reason is not documented.
    fn target_full(target: &str) -> Self {
        Self::new(
            "QuotaExceededException",
            format!("`{target}`, to which messages are forwarded, has reached its maximum size."),
        )
    }
}

/// A message on its way into an entity.
#[derive(Clone)]
pub(crate) struct Arrival {
    pub(crate) message: Arc<Message>,
    /// The number it got where it was sent to.
    enqueued_sequence: Option<i64>,
    /// Only a dead letter keeps the time at which it was first enqueued, and its delivery count.
    enqueued_time: Option<Timestamp>,
    delivery_count: u32,
    hops: u32,
    dead_letter_source: Option<String>,
}

impl Arrival {
    pub(crate) fn new(message: Arc<Message>) -> Self {
        Self {
            message,
            enqueued_sequence: None,
            enqueued_time: None,
            delivery_count: 0,
            hops: 0,
            dead_letter_source: None,
        }
    }
}

impl From<Record> for Arrival {
    fn from(record: Record) -> Self {
        Self {
            message: record.message,
            enqueued_sequence: Some(record.enqueued_sequence),
            enqueued_time: Some(record.enqueued_time),
            delivery_count: record.delivery_count,
            hops: record.hops,
            dead_letter_source: record.dead_letter_source,
        }
    }
}

impl Broker {
    /// Enqueues the message, or hands it on where the entity does not keep messages itself.
    pub(crate) fn enqueue(&mut self, now: Timestamp, at: EntityId, mut arrival: Arrival) {
        let entity = &self.entities[at.0];
        if let Some(target) = entity.settings.forward_to.clone() {
            self.forward(now, at, &target, arrival);
            return;
        }
        let Role::Topic { subscriptions } = &entity.role else {
            self.keep(now, at, arrival);
            return;
        };
        let subscriptions = subscriptions.clone();
        limit_time_to_live(&mut arrival.message, entity.settings.time_to_live);
        let sequence = self.next_sequence(at);
        arrival.enqueued_sequence.get_or_insert(sequence);
        for subscription in subscriptions {
            let Role::Subscription { rules } = &self.entities[subscription.0].role else {
                continue;
            };
            for message in copies(rules, &arrival.message) {
                let copy = Arrival {
                    message,
                    ..arrival.clone()
                };
                self.enqueue(now, subscription, copy);
            }
        }
    }

    fn keep(&mut self, now: Timestamp, at: EntityId, mut arrival: Arrival) {
        let sequence = self.next_sequence(at);
        let entity = &self.entities[at.0];
        if entity.settings.requires_session && arrival.message.session_id.is_none() {
            arrival.enqueued_sequence.get_or_insert(sequence);
            self.dead_letter_arrival(now, at, arrival, DeadLetterCause::session_id_is_null());
            return;
        }
        // Time to live is not observed in a dead-letter queue.
        let expires_at = if matches!(entity.role, Role::DeadLetterQueue) {
            None
        } else {
            limit_time_to_live(&mut arrival.message, entity.settings.time_to_live);
            arrival
                .message
                .time_to_live
                .and_then(|time_to_live| now.checked_add(time_to_live).ok())
        };
        let record = Record {
            message: arrival.message,
            enqueued_sequence: arrival.enqueued_sequence.unwrap_or(sequence),
            enqueued_time: arrival.enqueued_time.unwrap_or(now),
            expires_at,
            scheduled: None,
            delivery_count: arrival.delivery_count,
            hops: arrival.hops,
            dead_letter_source: arrival.dead_letter_source,
            deferred: false,
        };
        self.put(at, sequence, Some(Stored::new(record)));
    }

    fn forward(&mut self, now: Timestamp, from: EntityId, target: &str, mut arrival: Arrival) {
        match self.destination(target, &arrival) {
            Ok(to) => {
                // Documented as set only here, on a dead letter that its dead-letter queue forwards.
                // <https://learn.microsoft.com/azure/service-bus-messaging/service-bus-messages-payloads>
                let path = &self.entities[from.0].path;
                if path.is_dead_letter() {
                    arrival.dead_letter_source = Some(path.entity().to_owned());
                }
                if arrival.enqueued_sequence.is_none() {
                    arrival.enqueued_sequence = Some(self.next_sequence(from));
                }
                arrival.enqueued_time = None;
                arrival.delivery_count = 0;
                arrival.hops += 1;
                if !self.is_duplicate(now, to, &arrival.message) {
                    self.enqueue(now, to, arrival);
                }
            }
            // A dead letter that cannot be forwarded stays where it is.
            Err(_) if matches!(self.entities[from.0].role, Role::DeadLetterQueue) => {
                self.keep(now, from, arrival);
            }
            Err(cause) => {
                if arrival.enqueued_sequence.is_none() {
                    arrival.enqueued_sequence = Some(self.next_sequence(from));
                }
                self.dead_letter_arrival(now, from, arrival, cause);
            }
        }
    }

    /// Where a forwarded message goes.
    pub(crate) fn destination(
        &self,
        target: &str,
        arrival: &Arrival,
    ) -> Result<EntityId, DeadLetterCause> {
        if arrival.hops >= MAX_HOPS {
            return Err(DeadLetterCause::max_hops());
        }
        let to = self
            .named(target)
            .filter(|to| matches!(self.entities[to.0].role, Role::Queue | Role::Topic { .. }))
            .ok_or_else(|| DeadLetterCause::target_not_found(target))?;
        if !self.entities[to.0].settings.status.takes_messages() {
            return Err(DeadLetterCause::target_disabled(target));
        }
        if self.has_room(to, arrival.message.size() as u64) {
            Ok(to)
        } else {
            Err(DeadLetterCause::target_full(target))
        }
    }

    fn dead_letter_arrival(
        &mut self,
        now: Timestamp,
        from: EntityId,
        mut arrival: Arrival,
        cause: DeadLetterCause,
    ) {
        let entity = &self.entities[from.0];
        let Some(dead_letters) = entity.dead_letters else {
            // Nothing is dead-lettered from a topic or a dead-letter queue.
            self.keep(now, from, arrival);
            return;
        };
        let properties = &mut Arc::make_mut(&mut arrival.message).properties;
        for (name, text) in [
            ("DeadLetterReason", cause.reason),
            ("DeadLetterErrorDescription", cause.description),
        ] {
            // Those of an earlier life would contradict this one.
            properties.remove(name);
            if !text.is_empty() {
                properties.insert(name.to_owned(), Value::String(text));
            }
        }
        self.enqueue(now, dead_letters, arrival);
    }

    /// Moves a message that the entity holds into its dead-letter queue.
    pub(crate) fn move_to_dead_letters(
        &mut self,
        now: Timestamp,
        from: EntityId,
        sequence: i64,
        cause: DeadLetterCause,
    ) {
        if let Some(stored) = self.entities[from.0].get(sequence).cloned() {
            self.put(from, sequence, None);
            self.dead_letter_arrival(now, from, stored.record.into(), cause);
        }
    }

    /// Moves a message that the entity holds to where the entity forwards to.
    pub(crate) fn move_on(&mut self, now: Timestamp, from: EntityId, sequence: i64) {
        if let Some(stored) = self.entities[from.0].get(sequence).cloned() {
            self.put(from, sequence, None);
            self.enqueue(now, from, stored.record.into());
        }
    }
}

/// An entity's default time to live is also the ceiling: a longer one is silently lowered.
fn limit_time_to_live(message: &mut Arc<Message>, limit: Option<Duration>) {
    if let Some(limit) = limit
        && message.time_to_live.is_none_or(|own| own > limit)
    {
        Arc::make_mut(message).time_to_live = Some(limit);
    }
}
