//! An order and its payment at a till of the shop's own, which takes both in one call (`docs/till.openapi.json`).
//!
//! Called for each delivery of an order to the till, and for its cancellation. Because the one call may take money, the decision
//! comes before it: an order that was cancelled before that is never submitted. A till that may have the order is asked, and only
//! if it does not know it gets it again, under the same key. A till that has said no is asked once more after it is written
//! that nobody counts on the order any more ([`Facts::abandon`]): another instance may have had another answer.

use std::time::Duration;

use tracing::{info, warn};

use crate::{
    book_store::Put,
    event::{PAYMENT_DECLINED, REJECTED_BY_VENDOR},
    failure::{Class, Failure},
    order::Order,
    order_book::{Cancelled, Decision},
    outcome::Reason,
    pos::{Found, PosClient, Submitted},
    till_error::{TillError, TillFailure},
    till_facts::{ASKED, Facts, PAID, Step, Stop, Verdict, key, no_business},
};

/// Puts the order through the till, from wherever it is.
pub(crate) async fn ring_up(
    pos: &PosClient,
    facts: &Facts<'_>,
    order: &Order,
) -> Result<Verdict, Stop> {
    if facts.is_paid() {
        return facts.confirm().await;
    }
    if let Some(cancelled) = facts.cancelled().await? {
        return call_off(pos, facts, order, &cancelled, false).await;
    }
    let Some(payment) = &order.payment else {
        let description = "there is no payment in the order";
        return Err(Stop::dead(Reason::TillRefused, description));
    };
    if let Some(cancelled) = facts.charge().await? {
        return Ok(Verdict::Cancelled(cancelled));
    }
    if facts.is_abandoned().await? {
        return go_on(pos, facts, order).await;
    }
    let (reason, not_charged) = match submit(pos, facts, order).await {
        Ok(Submitted::Accepted { external_id, total }) => {
            if is_total(order, total) {
                return accepted(pos, facts, &external_id, total).await;
            }
            warn!("the till has another total, and is told to cancel the order");
            take_back(pos, &external_id).await?;
            (REJECTED_BY_VENDOR, false)
        }
        Ok(Submitted::Pending { retry_after, .. }) => return Err(pending(retry_after)),
        Err(No::Declined(code)) => {
            info!(code, "the till declines the payment");
            (PAYMENT_DECLINED, !payment.is_external())
        }
        Err(No::Rejected(code)) => {
            info!(code, "the till does not take the order");
            (REJECTED_BY_VENDOR, !payment.is_external())
        }
        Err(No::Cancelled) => {
            info!("the order was cancelled at the till");
            // Whether it has charged and given back, or never charged, only the till knows.
            (REJECTED_BY_VENDOR, false)
        }
        Err(No::Stop(stop)) => return Err(stop),
    };
    let cancelled = Cancelled::now(reason, not_charged);
    call_off(pos, facts, order, &cancelled, true).await
}

/// Another delivery has begun to end the round, and perhaps not come to its end.
async fn go_on(pos: &PosClient, facts: &Facts<'_>, order: &Order) -> Result<Verdict, Stop> {
    match pos.find(facts.order).await.map_err(no_business)? {
        Some(Found::Submitted(Submitted::Accepted { external_id, total }))
            if is_total(order, total) =>
        {
            accepted(pos, facts, &external_id, total).await
        }
        Some(Found::Submitted(Submitted::Accepted { external_id, .. })) => {
            take_back(pos, &external_id).await?;
            let cancelled = Cancelled::now(REJECTED_BY_VENDOR, false);
            call_off(pos, facts, order, &cancelled, true).await
        }
        Some(Found::Submitted(Submitted::Pending { retry_after, .. })) => Err(pending(retry_after)),
        Some(Found::Declined { .. } | Found::Rejected { .. } | Found::Cancelled) | None => {
            facts.release().await?;
            Err(Stop::later("it is to be submitted once more"))
        }
    }
}

fn is_total(order: &Order, total: Option<i64>) -> bool {
    total.is_none_or(|total| total == order.total.amount)
}

fn pending(retry_after: Option<Duration>) -> Stop {
    Stop::Later(Failure {
        class: Class::Deferred,
        retry_after,
        answer: "the till has not decided yet".to_owned(),
        nothing_taken: false,
    })
}

/// The till has the order. Others may have been told meanwhile that it has not, and the order be cancelled since.
async fn accepted(
    pos: &PosClient,
    facts: &Facts<'_>,
    external_id: &str,
    total: Option<i64>,
) -> Result<Verdict, Stop> {
    if let Some(cancelled) = facts.stand().await? {
        warn!("the order was cancelled meanwhile, and the till is told to cancel it");
        take_back(pos, external_id).await?;
        return Ok(Verdict::Cancelled(cancelled));
    }
    facts.keep(PAID, Step::of(external_id, total)).await?;
    facts.confirm().await
}

/// The order is cancelled: because the till has said no, or by somebody who may have had no order book to decide in. It goes to
/// the till no more. If it is there already it stays, unless it came there after the decision to cancel.
async fn call_off(
    pos: &PosClient,
    facts: &Facts<'_>,
    order: &Order,
    cancelled: &Cancelled,
    mut has_said_no: bool,
) -> Result<Verdict, Stop> {
    let mut was_released = false;
    loop {
        let facts = facts.anew().await?;
        if facts.is_paid() {
            return facts.confirm().await;
        }
        let decision = facts.cancel(cancelled).await?;
        let is_charge = matches!(decision, Decision::Charge { .. });
        if is_charge {
            facts.abandon().await?;
        }
        let is_asked = facts.book.is_known(facts.order, ASKED).await?;
        let found = match is_asked && (is_charge || !was_released) {
            true => pos.find(facts.order).await.map_err(no_business)?,
            false => None,
        };
        if let Some(Found::Submitted(Submitted::Pending { retry_after, .. })) = found {
            return Err(pending(retry_after));
        }
        match (decision, found) {
            (Decision::Cancel(cancelled), found) => {
                if let Some(Found::Submitted(Submitted::Accepted { external_id, .. })) = found {
                    take_back(pos, &external_id).await?;
                }
                return Ok(Verdict::Cancelled(cancelled));
            }
            (
                Decision::Charge { .. },
                Some(Found::Submitted(Submitted::Accepted { external_id, total })),
            ) => {
                if is_total(order, total) {
                    return accepted(pos, &facts, &external_id, total).await;
                }
                take_back(pos, &external_id).await?;
                has_said_no = true;
            }
            // A 404 may come from somebody else: that alone is no reason to say that nothing was taken.
            (Decision::Charge { .. }, None) if is_asked && !has_said_no => {
                return Err(Stop::dead(
                    Reason::CancelledTooLate,
                    "the order may have gone to the till before it was cancelled, which does not know it; refund it there if it has",
                ));
            }
            (Decision::Charge { .. }, _) => {}
        }
        facts.release().await?;
        was_released = true;
    }
}

/// Why the till has not taken the order.
enum No {
    Declined(String),
    Rejected(String),
    Cancelled,
    Stop(Stop),
}

impl From<TillError> for No {
    fn from(error: TillError) -> Self {
        match error {
            TillError::Declined { code, .. } => Self::Declined(code),
            TillError::Rejected { code, .. } => Self::Rejected(code),
            TillError::Failed(failure) => Self::Stop(failure.into()),
        }
    }
}

async fn submit(pos: &PosClient, facts: &Facts<'_>, order: &Order) -> Result<Submitted, No> {
    let asked = facts.book.write(facts.order, ASKED, &Step::now()).await;
    if asked.map_err(|error| No::Stop(error.into()))? == Put::Existed {
        match pos.find(facts.order).await? {
            Some(Found::Submitted(submitted)) => return Ok(submitted),
            Some(Found::Declined { code }) => return Err(No::Declined(code)),
            Some(Found::Rejected { code }) => return Err(No::Rejected(code)),
            Some(Found::Cancelled) => return Err(No::Cancelled),
            None => {}
        }
    }
    match pos.submit(order, key(facts.order, "submit")).await {
        // So it says to a repetition.
        Err(TillError::Failed(TillFailure::InvalidState { .. })) => Err(No::Cancelled),
        // It has nothing of the order, and never will as it is written; or it remembers what it refused, written in another way.
        Err(TillError::Failed(
            failure @ (TillFailure::Refused { .. } | TillFailure::KeyReused { .. }),
        )) => {
            give_up(pos, facts).await?;
            Err(No::Stop(failure.into()))
        }
        other => Ok(other?),
    }
}

/// Ends the round of an order of which the till has nothing: it can be cancelled, or tried again by whoever replays its dead letter.
async fn give_up(pos: &PosClient, facts: &Facts<'_>) -> Result<(), No> {
    let abandoned = facts.abandon().await;
    abandoned.map_err(|error| No::Stop(error.into()))?;
    // Another instance may have had more luck.
    if pos.find(facts.order).await?.is_some() {
        return Err(No::Stop(Stop::later("the till has it after all")));
    }
    let released = facts.release().await;
    released.map_err(|error| No::Stop(error.into()))
}

/// What happens when somebody has cancelled the order, whoever decided it and where: it must not go to the till any more.
pub(crate) async fn release(
    pos: &PosClient,
    facts: &Facts<'_>,
    order: &Order,
    heard: &Cancelled,
) -> Result<(), Stop> {
    let verdict = match facts.is_paid() {
        true => facts.confirm().await?,
        false => call_off(pos, facts, order, heard, false).await?,
    };
    match verdict {
        Verdict::Cancelled(_) => Ok(()),
        Verdict::Confirmed(_) => Err(Stop::dead(
            Reason::CancelledTooLate,
            "the till had taken the order when it was cancelled; cancel and refund it there",
        )),
    }
}

/// Has the till cancel an order that it has accepted.
async fn take_back(pos: &PosClient, external_id: &str) -> Result<(), Stop> {
    match pos.cancel(external_id).await.map_err(no_business) {
        Err(Stop::Dead(why)) => {
            let description = format!(
                "the till keeps an order that is cancelled here: {}; refund it there",
                why.description
            );
            Err(Stop::dead(Reason::CancelledTooLate, description))
        }
        other => other,
    }
}
