//! An order and its payment at a till of the shop's own, which takes both in one call (`docs/till.openapi.json`).
//!
//! Called for each delivery of an order to the till. Because the one call may take money, the decision comes before it: an order
//! that was cancelled before that is never submitted. A till that may have the order is asked, and only if it does not know it
//! gets it again, under the same key.

use tracing::{info, warn};

use crate::{
    book_store::Put,
    event::{self, PAYMENT_DECLINED, REJECTED_BY_VENDOR},
    failure::{Class, Failure},
    order::{Order, Payment},
    order_book::{CONFIRMED, Confirmed},
    outcome::Reason,
    pos::{Found, PosClient, Submitted},
    till_error::{TillError, TillFailure},
    till_facts::{ASKED, Facts, PAID, Step, Stop, Verdict, key},
};

/// Puts the order through the till, from wherever it is.
pub(crate) async fn ring_up(
    pos: &PosClient,
    facts: &Facts<'_>,
    order: &Order,
) -> Result<Verdict, Stop> {
    if let Some(cancelled) = facts.cancelled().await? {
        return Ok(Verdict::Cancelled(cancelled));
    }
    if facts.has(CONFIRMED) || facts.has(PAID) {
        return confirmed(facts).await;
    }
    let Some(payment) = &order.payment else {
        let description = "there is no payment in the order";
        return Err(Stop::dead(Reason::TillRefused, description));
    };
    if let Some(cancelled) = facts.charge().await? {
        return Ok(Verdict::Cancelled(cancelled));
    }
    match submit(pos, facts, order).await {
        Ok(Submitted::Accepted { external_id, total }) => {
            if total.is_some_and(|total| total != order.total.amount) {
                warn!("the till has another total, and is told to cancel the order");
                return withdraw(pos, facts, &external_id).await;
            }
            facts.keep(PAID, Step::of(&external_id, total)).await?;
            confirmed(facts).await
        }
        Ok(Submitted::Pending { retry_after, .. }) => Err(Stop::Later(Failure {
            class: Class::Deferred,
            retry_after,
            answer: "the till has not decided yet".to_owned(),
            nothing_taken: false,
        })),
        Err(No::Declined(code)) => refused(facts, payment, PAYMENT_DECLINED, &code).await,
        Err(No::Rejected(code)) => refused(facts, payment, REJECTED_BY_VENDOR, &code).await,
        Err(No::Stop(stop)) => Err(stop),
    }
}

/// Why the till has not taken the order.
enum No {
    Declined(String),
    Rejected(String),
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
            Some(Found::Cancelled) => return Err(No::Rejected("cancelled".to_owned())),
            None => {}
        }
    }
    match pos.submit(order, key(facts.order, "submit")).await {
        // It has nothing of the order, and never will as it is written.
        Err(TillError::Failed(failure @ TillFailure::Refused { .. })) => {
            let released = facts.release().await;
            released.map_err(|error| No::Stop(error.into()))?;
            Err(No::Stop(failure.into()))
        }
        other => Ok(other?),
    }
}

async fn confirmed(facts: &Facts<'_>) -> Result<Verdict, Stop> {
    let ours = Confirmed { at: event::now() };
    let confirmed = facts.book.settle(facts.order, CONFIRMED, ours).await?;
    Ok(Verdict::Confirmed(confirmed))
}

async fn refused(
    facts: &Facts<'_>,
    payment: &Payment,
    reason: &str,
    code: &str,
) -> Result<Verdict, Stop> {
    info!(code, "the till does not take the order: {reason}");
    let cancelled = facts.refuse(reason, !payment.is_external()).await?;
    Ok(Verdict::Cancelled(cancelled))
}

/// Takes back an order that the till has sold at another price.
async fn withdraw(pos: &PosClient, facts: &Facts<'_>, external_id: &str) -> Result<Verdict, Stop> {
    match pos.cancel(external_id).await {
        Ok(()) | Err(TillError::Declined { .. } | TillError::Rejected { .. }) => {}
        Err(TillError::Failed(failure)) => return Err(failure.into()),
    }
    // Whether it has charged and given back, or never charged, only the till knows.
    let cancelled = facts.refuse(REJECTED_BY_VENDOR, false).await?;
    Ok(Verdict::Cancelled(cancelled))
}
