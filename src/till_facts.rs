//! What the order book knows of an order at the till: each step's result, written before the next call.
//!
//! ```text
//! till/asked.json            the till is about to hear of the order
//! till/order.json            the order as the till has it
//! till/payment-{n}.json      what is authorised, at the attempt n
//! till/voided-{n}.json       nothing is authorised by the attempt n any more
//! till/paid.json             the money is taken, or recorded as taken
//! till/order-cancelled.json  the till's order is cancelled
//! till/released-{n}.json     nothing is taken by the n-th decision: whether to charge or to cancel may be decided anew
//! ```
//!
//! A delivery that is repeated, on this instance or another, goes on after the last one.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use uuid::Uuid;

use crate::{
    attempt::Attempt,
    book, event,
    failure::{Class, Failure},
    order::OrderId,
    order_book::{self, BookError, CANCELLED, Cancelled, Confirmed, Decision, OrderBook},
    outcome::{Dead, Reason},
    till_error::TillFailure,
};

pub(crate) const ASKED: &str = "till/asked.json";
pub(crate) const ORDER: &str = "till/order.json";
pub(crate) const PAID: &str = "till/paid.json";
pub(crate) const ORDER_CANCELLED: &str = "till/order-cancelled.json";

pub(crate) fn payment(attempt: u32) -> String {
    format!("till/payment-{attempt}.json")
}

pub(crate) fn voided(attempt: u32) -> String {
    format!("till/voided-{attempt}.json")
}

/// Names the space of the keys towards a till. Another one would order and pay everything under way twice.
const KEYS: Uuid = Uuid::from_u128(0x0f3a_51c7_9be2_4d60_8a17_c2d4_6e95_b018);

/// The idempotency key of a step: of the order and the step, never of the try.
pub(crate) fn key(order: OrderId, step: &str) -> Uuid {
    Uuid::new_v5(&KEYS, format!("{order}\n{step}").as_bytes())
}

/// Something that happened at the till.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Step {
    #[serde(with = "time::serde::rfc3339")]
    pub(crate) at: OffsetDateTime,
    /// The till's own id of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) id: Option<String>,
    /// The amount by the till, in minor units.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) amount: Option<i64>,
}

impl Step {
    pub(crate) fn now() -> Self {
        Self {
            at: event::now(),
            id: None,
            amount: None,
        }
    }

    pub(crate) fn of(id: &str, amount: Option<i64>) -> Self {
        Self {
            id: Some(id.to_owned()),
            amount,
            ..Self::now()
        }
    }
}

/// What has become of the order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Verdict {
    Confirmed(Confirmed),
    Cancelled(Cancelled),
}

/// Why the order is not settled in this delivery.
#[derive(Debug)]
pub(crate) enum Stop {
    /// The same later.
    Later(Failure),
    /// A person has to look at it.
    Dead(Dead),
}

impl Stop {
    pub(crate) fn dead(reason: Reason, description: impl Into<String>) -> Self {
        Self::Dead(Dead::new(reason, description.into()))
    }

    pub(crate) fn later(answer: &str) -> Self {
        Self::Later(Failure {
            class: Class::Deferred,
            retry_after: None,
            answer: answer.to_owned(),
            nothing_taken: false,
        })
    }
}

impl From<BookError> for Stop {
    fn from(error: BookError) -> Self {
        Self::Later(book::failure(&error))
    }
}

impl From<TillFailure> for Stop {
    fn from(failure: TillFailure) -> Self {
        let failure = failure.failure();
        match failure.class {
            Class::Refused | Class::KnownOtherwise => {
                Self::dead(Reason::TillRefused, failure.answer)
            }
            Class::Transient
            | Class::RateLimited
            | Class::Ambiguous
            | Class::Deferred
            | Class::ChannelBroken
            | Class::Gone
            | Class::HandlerFault => Self::Later(failure),
        }
    }
}

impl From<Stop> for Attempt {
    fn from(stop: Stop) -> Self {
        match stop {
            Stop::Later(failure) => Self::Failed(failure),
            Stop::Dead(dead) => Self::Impossible(dead),
        }
    }
}

/// The facts that are there when a delivery begins.
pub(crate) struct Facts<'a> {
    pub(crate) book: &'a OrderBook,
    pub(crate) order: OrderId,
    names: BTreeSet<String>,
}

impl<'a> Facts<'a> {
    pub(crate) async fn of(book: &'a OrderBook, order: OrderId) -> Result<Self, BookError> {
        let names = book.names(order).await?;
        Ok(Self { book, order, names })
    }

    pub(crate) fn has(&self, name: &str) -> bool {
        self.names.contains(name)
    }

    pub(crate) async fn step(&self, name: &str) -> Result<Option<Step>, BookError> {
        match self.has(name) {
            true => self.book.read(self.order, name).await,
            false => Ok(None),
        }
    }

    /// Keeps the step's result, and gives the one that counts.
    pub(crate) async fn keep(&self, name: &str, step: Step) -> Result<Step, BookError> {
        self.book.settle(self.order, name, step).await
    }

    /// The cancellation that stands, or that has been decided.
    pub(crate) async fn cancelled(&self) -> Result<Option<Cancelled>, BookError> {
        if self.has(CANCELLED) {
            return self.book.read(self.order, CANCELLED).await;
        }
        let name = self.decision();
        if !self.has(&name) {
            return Ok(None);
        }
        let decision = self.book.read(self.order, &name).await?;
        Ok(match decision {
            Some(Decision::Cancel(cancelled)) => Some(cancelled),
            Some(Decision::Charge { .. }) | None => None,
        })
    }

    /// The decision that counts.
    pub(crate) fn decision(&self) -> String {
        order_book::decision(order_book::round(&self.names))
    }

    /// It is certain that the till takes nothing by the decision that counts: somebody may cancel the order now, or have it
    /// tried again.
    pub(crate) async fn release(&self) -> Result<(), BookError> {
        let name = order_book::released(order_book::round(&self.names));
        self.keep(&name, Step::now()).await?;
        Ok(())
    }

    /// Decides that the order goes to the till, unless it is decided otherwise: then the cancellation comes back.
    pub(crate) async fn charge(&self) -> Result<Option<Cancelled>, BookError> {
        let ours = Decision::Charge { at: event::now() };
        let name = self.decision();
        match self.book.settle(self.order, &name, ours).await? {
            Decision::Charge { .. } => Ok(None),
            Decision::Cancel(cancelled) => Ok(Some(cancelled)),
        }
    }

    /// Decides that the order is cancelled because the till said no. A decision to charge that came before stands, and the
    /// charge has come to nothing.
    pub(crate) async fn refuse(
        &self,
        reason: &str,
        not_charged: bool,
    ) -> Result<Cancelled, BookError> {
        let cancelled = Cancelled::now(reason, not_charged);
        let ours = Decision::Cancel(cancelled.clone());
        let name = self.decision();
        match self.book.settle(self.order, &name, ours).await? {
            Decision::Charge { .. } => Ok(cancelled),
            Decision::Cancel(cancelled) => Ok(cancelled),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_of_the_order_and_the_step() {
        let order = OrderId(Uuid::from_u128(7));
        assert_eq!(key(order, "order"), key(order, "order"));
        assert_ne!(key(order, "order"), key(order, "payment 1"));
        assert_ne!(
            key(order, "order"),
            key(OrderId(Uuid::from_u128(8)), "order")
        );
        // Square takes 45 characters for a payment.
        assert!(key(order, "payment 1").to_string().len() <= 45);
    }
}
