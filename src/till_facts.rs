//! What the order book knows of an order at the till: each step's result, written before the next call.
//!
//! ```text
//! till/asked.json            the till is about to hear of the order
//! till/order.json            the order as the till has it
//! till/payment-{n}.json      what is authorised, in the round n
//! till/abandoned-{n}.json    nobody takes what was authorised in the round n any more
//! till/voided-{n}.json       nothing is authorised by it any more
//! till/released-{n}.json     the round n is over, and nothing was taken in it: the next one decides anew
//! till/paid.json             the money is taken, or recorded as taken
//! till/order-cancelled.json  the till's order is cancelled
//! ```
//!
//! A delivery that is repeated, on this instance or another, goes on after the last one.
//!
//! A round is one decision, whether to charge or to cancel, and one attempt at the payment. It is over only after a decision to
//! charge that has come to nothing: a decision to cancel is the last one.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use uuid::Uuid;

use crate::{
    attempt::Attempt,
    book, event,
    failure::{Class, Failure},
    order::OrderId,
    order_book::{
        self, BookError, CANCELLED, CONFIRMED, Cancelled, Confirmed, Decision, OrderBook,
    },
    outcome::{Dead, Reason},
    till_error::{TillError, TillFailure},
};

pub(crate) const ASKED: &str = "till/asked.json";
pub(crate) const ORDER: &str = "till/order.json";
pub(crate) const PAID: &str = "till/paid.json";
pub(crate) const ORDER_CANCELLED: &str = "till/order-cancelled.json";

pub(crate) fn payment(round: u32) -> String {
    format!("till/payment-{round}.json")
}

fn abandoned(round: u32) -> String {
    format!("till/abandoned-{round}.json")
}

pub(crate) fn voided(round: u32) -> String {
    format!("till/voided-{round}.json")
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

/// What a call came to, to which nobody can say no for reasons of business.
pub(crate) fn certain<T>(answer: Result<T, TillError>) -> Result<T, Stop> {
    answer.map_err(no_business)
}

pub(crate) fn no_business(error: TillError) -> Stop {
    match error {
        TillError::Failed(failure) => failure.into(),
        TillError::Declined { code, .. } | TillError::Rejected { code, .. } => {
            Stop::dead(Reason::TillRefused, code)
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

    /// The facts that there are now.
    pub(crate) async fn anew(&self) -> Result<Self, BookError> {
        Self::of(self.book, self.order).await
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.names.is_empty()
    }

    pub(crate) fn has(&self, name: &str) -> bool {
        self.names.contains(name)
    }

    /// The till has the money, or has recorded who has it.
    pub(crate) fn is_paid(&self) -> bool {
        self.has(CONFIRMED) || self.has(PAID)
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

    /// Whether the round that counts is decided.
    pub(crate) fn is_decided(&self) -> bool {
        self.has(&order_book::decision(self.round()))
    }

    /// Somebody has begun to end this round, perhaps since the facts were listed.
    pub(crate) async fn is_abandoned(&self) -> Result<bool, BookError> {
        let name = abandoned(self.round());
        self.book.is_known(self.order, &name).await
    }

    /// The round that counts.
    pub(crate) fn round(&self) -> u32 {
        order_book::round(|name| self.has(name))
    }

    /// The cancellation that was decided; else the one that somebody has published who had no order book to decide in.
    pub(crate) async fn cancelled(&self) -> Result<Option<Cancelled>, BookError> {
        let name = order_book::decision(self.round());
        if self.has(&name)
            && let Some(Decision::Cancel(cancelled)) = self.book.read(self.order, &name).await?
        {
            return Ok(Some(cancelled));
        }
        match self.has(CANCELLED) {
            true => self.book.read(self.order, CANCELLED).await,
            false => Ok(None),
        }
    }

    /// Decides that the order goes to the till, unless it is decided otherwise: then the cancellation comes back.
    pub(crate) async fn charge(&self) -> Result<Option<Cancelled>, BookError> {
        match self.decide(Decision::Charge { at: event::now() }).await? {
            Decision::Charge { .. } => Ok(None),
            Decision::Cancel(cancelled) => Ok(Some(cancelled)),
        }
    }

    /// Decides that the order is cancelled, unless it is decided otherwise, and gives what counts.
    pub(crate) async fn cancel(&self, ours: &Cancelled) -> Result<Decision, BookError> {
        self.decide(Decision::Cancel(ours.clone())).await
    }

    async fn decide(&self, ours: Decision) -> Result<Decision, BookError> {
        let name = order_book::decision(self.round());
        self.book.settle(self.order, &name, ours).await
    }

    /// Nobody may take anything by the decision to charge any more. Whoever has taken something, or had it taken, asks afterwards
    /// whether this was written, and whoever writes it asks the till afterwards: one of the two sees the other.
    pub(crate) async fn abandon(&self) -> Result<(), BookError> {
        self.keep(&abandoned(self.round()), Step::now()).await?;
        Ok(())
    }

    /// Something was taken in this round that could not have been voided before. If others have ended the round meanwhile, the one
    /// that counts decides: a cancellation that came since comes back.
    pub(crate) async fn stand(&self) -> Result<Option<Cancelled>, BookError> {
        let mut latest = None;
        loop {
            let facts = latest.as_ref().unwrap_or(self);
            if !facts.is_abandoned().await? {
                return Ok(None);
            }
            facts.release().await?;
            let now = facts.anew().await?;
            if now.is_paid() {
                return Ok(None);
            }
            if let Some(cancelled) = now.charge().await? {
                return Ok(Some(cancelled));
            }
            latest = Some(now);
        }
    }

    /// The order is paid, and with that confirmed, unless it was cancelled in a round that others have begun meanwhile: then a person
    /// has to look at it. Whoever cancels later hears that it is paid.
    pub(crate) async fn confirm(&self) -> Result<Verdict, Stop> {
        if !self.has(CONFIRMED) {
            let now = self.anew().await?;
            let decision = order_book::decision(now.round());
            if let Some(Decision::Cancel(_)) = self.book.read(self.order, &decision).await? {
                return Err(Stop::dead(
                    Reason::CancelledTooLate,
                    "the till has taken the order, which was cancelled meanwhile; cancel and refund it there",
                ));
            }
        }
        let ours = Confirmed { at: event::now() };
        let confirmed = self.book.settle(self.order, CONFIRMED, ours).await?;
        Ok(Verdict::Confirmed(confirmed))
    }

    /// The decision to charge has come to nothing, and it is certain that it will: somebody may cancel the order now, or have
    /// it tried again.
    pub(crate) async fn release(&self) -> Result<(), BookError> {
        let name = order_book::released(self.round());
        self.keep(&name, Step::now()).await?;
        Ok(())
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
