//! Takes back what an order has at Square: what is authorised for it, and the order itself.
//!
//! Called when an order is cancelled, and when a payment has come to nothing. In the first case [`cancel`] decides against the
//! capture, and voids; in the second [`close`] ends the round, so that the order may be cancelled or tried again. Whoever
//! captures asks for `till/abandoned-{n}.json` after the payment is authorised, and whoever writes it voids afterwards: so one of
//! the two always sees the other, and a round that is over is one in which nothing was taken, nor will be.

use tracing::{info, warn};

use crate::{
    order::Order,
    order_book::{Cancelled, Decision},
    outcome::Reason,
    square::{SquareClient, SquareOrderState, SquarePaymentStatus},
    till_error::{TillError, TillFailure},
    till_facts::{
        ASKED, Facts, ORDER, ORDER_CANCELLED, Step, Stop, certain, key, no_business, payment,
        voided,
    },
    till_square::{is_card, is_final, payment_key},
};

/// What a payment has come to.
pub(crate) enum Undone {
    /// Nothing is taken by it.
    Voided,
    /// The money is taken. Square's id of the payment is not known where its answer was lost.
    Taken(Option<String>),
}

/// How a round has ended.
pub(crate) enum Closed {
    /// Nothing was taken, and the next round decides.
    Released,
    Taken(Option<String>),
    /// It was decided to cancel.
    Cancelled(Cancelled),
}

/// Ends a round whose payment has come to nothing, or whose outcome nobody gets to know. Begun by one delivery, it is finished by
/// any other.
pub(crate) async fn close(
    square: &SquareClient,
    facts: &Facts<'_>,
    order: &Order,
    square_order: &str,
) -> Result<Closed, Stop> {
    // Nobody cancels while it is ended: a decision to cancel has to be the last.
    if let Some(cancelled) = facts.charge().await? {
        return Ok(Closed::Cancelled(cancelled));
    }
    let round = facts.round();
    facts.abandon().await?;
    if let Undone::Taken(id) = void_payment(square, facts, round, square_order).await? {
        return Ok(Closed::Taken(id));
    }
    match is_completed(square, square_order).await {
        Ok(false) => {}
        Ok(true) => return Ok(Closed::Taken(None)),
        // It is another account's order, by now, of which nothing was authorised that could have been captured.
        Err(Stop::Dead(_))
            if !is_card(order) || !facts.book.is_known(facts.order, &payment(round)).await? => {}
        Err(stop) => return Err(stop),
    }
    facts.keep(&voided(round), Step::now()).await?;
    facts.release().await?;
    Ok(Closed::Released)
}

/// The order is cancelled, unless it is paid.
pub(crate) enum End {
    /// With the order's id at Square, if it is known there.
    Cancelled(Cancelled, Option<String>),
    /// Square has the money, by the payment of this id if it is known.
    Paid(Option<String>),
}

/// Decides that the order is cancelled, and voids what is authorised for it. A decision to charge that came before is
/// waited for: if nothing comes of it, the order is cancelled all the same.
pub(crate) async fn cancel(
    square: &SquareClient,
    facts: &Facts<'_>,
    order: &Order,
    ours: &Cancelled,
) -> Result<End, Stop> {
    loop {
        let facts = facts.anew().await?;
        if facts.is_paid() {
            return Ok(End::Paid(None));
        }
        if let Decision::Cancel(cancelled) = facts.cancel(ours).await? {
            let id = void(square, &facts, order).await?;
            return Ok(End::Cancelled(cancelled, id));
        }
        // Whoever decided to charge has kept it before, perhaps since the facts were listed.
        let at_square: Option<Step> = facts.book.read(facts.order, ORDER).await?;
        let Some(id) = at_square.and_then(|step| step.id) else {
            return Err(Stop::later(
                "it was to be charged, and the order's id is not known",
            ));
        };
        let closed = close(square, &facts, order, &id).await?;
        if let Closed::Taken(id) = closed {
            return Ok(End::Paid(id));
        }
    }
}

/// Makes sure that nothing is, or will be, charged for an order that is cancelled. What was voided before is voided again:
/// something may have been authorised since, by whoever did not know of the cancellation yet.
async fn void(
    square: &SquareClient,
    facts: &Facts<'_>,
    order: &Order,
) -> Result<Option<String>, Stop> {
    // Square never heard of it.
    if !facts.has(ASKED) {
        return Ok(None);
    }
    let id = match facts.step(ORDER).await? {
        Some(step) => step.id.unwrap_or_default(),
        // It may be there all the same: under its key it comes to light.
        None => match square.create_order(order, key(facts.order, "order")).await {
            Ok(created) => created.id,
            // Then there is none, and no payment was ever tried.
            Err(error) if is_final(&error) => return Ok(None),
            Err(error) => return Err(no_business(error)),
        },
    };
    let current = facts.round();
    for round in 1..=current {
        if let Undone::Taken(_) = void_payment(square, facts, round, &id).await? {
            return Err(too_late());
        }
    }
    facts.keep(&voided(current), Step::now()).await?;
    info!("nothing is authorised at the till for the order, which is cancelled");
    Ok(Some(id))
}

/// Whatever was authorised in that round is so no more.
pub(crate) async fn void_payment(
    square: &SquareClient,
    facts: &Facts<'_>,
    round: u32,
    square_order: &str,
) -> Result<Undone, Stop> {
    // Another instance may have kept it just now.
    let step: Option<Step> = facts.book.read(facts.order, &payment(round)).await?;
    let Some(step) = step else {
        let voided = square
            .cancel_payment_by_key(payment_key(facts, round))
            .await;
        return match voided {
            // Completed, or over in another way: the key does not say, and only the order can be asked.
            Err(TillError::Failed(TillFailure::InvalidState { .. })) => {
                Ok(match is_completed(square, square_order).await? {
                    true => Undone::Taken(None),
                    false => Undone::Voided,
                })
            }
            other => certain(other).map(|()| Undone::Voided),
        };
    };
    let id = step.id.unwrap_or_default();
    match square.cancel_payment(&id).await {
        Err(TillError::Failed(TillFailure::InvalidState { .. })) => {
            let known = certain(square.get_payment(&id).await)?;
            match known.status {
                SquarePaymentStatus::Canceled | SquarePaymentStatus::Failed => Ok(Undone::Voided),
                SquarePaymentStatus::Completed => Ok(Undone::Taken(Some(id))),
                SquarePaymentStatus::Approved
                | SquarePaymentStatus::Pending
                | SquarePaymentStatus::Unknown => {
                    Err(Stop::later("the payment can't be voided yet"))
                }
            }
        }
        other => certain(other).map(|_| Undone::Voided),
    }
}

pub(crate) async fn is_completed(square: &SquareClient, square_order: &str) -> Result<bool, Stop> {
    let known = certain(square.get_order(square_order).await)?;
    Ok(known.state == SquareOrderState::Completed)
}

/// Cancels the order at Square, whatever version it has by now. Nobody waits for it: no money depends on it.
pub(crate) async fn cancel_order(
    square: &SquareClient,
    facts: &Facts<'_>,
    id: &str,
) -> Result<(), Stop> {
    if facts.has(ORDER_CANCELLED) {
        return Ok(());
    }
    let known = certain(square.get_order(id).await)?;
    match known.state {
        SquareOrderState::Canceled => {}
        SquareOrderState::Completed => return Err(too_late()),
        SquareOrderState::Open | SquareOrderState::Draft | SquareOrderState::Unknown => {
            let key = key(facts.order, &format!("cancel {}", known.version));
            match square.cancel_order(id, known.version, key).await {
                // It says why when it is asked again.
                Err(TillError::Failed(TillFailure::InvalidState { .. })) => {
                    return Err(Stop::later("the order can't be cancelled at the till yet"));
                }
                other => certain(other)?,
            };
        }
    }
    facts.keep(ORDER_CANCELLED, Step::now()).await?;
    info!("cancelled the order at the till");
    Ok(())
}

/// The same where somebody waits for what comes after it. If it does not succeed, the delivery of the cancellation does it.
pub(crate) async fn try_to_cancel_order(square: &SquareClient, facts: &Facts<'_>, id: &str) {
    if let Err(stop) = cancel_order(square, facts, id).await {
        warn!("the order is not cancelled at the till yet: {stop:?}");
    }
}

pub(crate) fn too_late() -> Stop {
    Stop::dead(
        Reason::CancelledTooLate,
        "the order was cancelled, but the payment was taken at the till; refund it there",
    )
}
