//! An order and its payment at Square, step by step: create the order, authorise the payment, decide, capture.
//!
//! Called for each delivery of an order to the till, and for its cancellation. Each step's result is in the order book before
//! the next call ([`crate::till_facts`]), and each call has a key of the order and the step, so that a delivery that is repeated,
//! after a kill at any point or on two instances at once, changes nothing that was done. Money is only ever taken by the
//! capture, which comes after `decision.json` says `charge`: an order that was cancelled before that is never charged, and
//! what was authorised for it is voided, here or when its cancellation comes by.

use time::{Duration, OffsetDateTime};
use tracing::{info, warn};

use crate::{
    event::{PAYMENT_DECLINED, REJECTED_BY_VENDOR},
    order::{Order, Payment},
    order_book::{CONFIRMED, Cancelled, Confirmed},
    outcome::Reason,
    square::{SquareClient, SquareOrder, SquareOrderState, SquarePaymentStatus},
    till_error::{TillError, TillFailure},
    till_facts::{
        ASKED, Facts, ORDER, ORDER_CANCELLED, PAID, Step, Stop, Verdict, key, payment, voided,
    },
};

/// How long a payment whose answer was lost is asked for again under its key. Square does not say how long it remembers a key;
/// after this time the payment is cancelled by its key, and another attempt has another one.
const KEY_LIFETIME: Duration = Duration::hours(24);

/// A payment token that is used up or has expired so long after the order was placed was good when the customer gave it.
const LAPSE: Duration = Duration::minutes(10);

/// What the till is told of a delivery.
pub(crate) struct Submission<'a> {
    pub(crate) order: &'a Order,
    /// When the order was placed.
    pub(crate) placed_at: OffsetDateTime,
    /// Since when an attempt may have got further than the order book knows.
    pub(crate) unconfirmed_since: Option<OffsetDateTime>,
    /// It may have been worked on before.
    pub(crate) is_repeated: bool,
    pub(crate) now: OffsetDateTime,
}

/// Puts the order through the till, from wherever it is.
pub(crate) async fn ring_up(
    square: &SquareClient,
    facts: &Facts<'_>,
    submission: &Submission<'_>,
) -> Result<Verdict, Stop> {
    let order = submission.order;
    if let Some(cancelled) = facts.cancelled().await? {
        void(square, facts, order, submission.is_repeated).await?;
        return Ok(Verdict::Cancelled(cancelled));
    }
    if facts.has(CONFIRMED) || facts.has(PAID) {
        return confirmed(facts).await;
    }
    // What costs nothing has nothing to authorise.
    let is_free = order.total.amount == 0;
    let Some(source) = &order.payment else {
        let description = "there is no payment in the order";
        return Err(Stop::dead(Reason::TillRefused, description));
    };
    let at_square = match at_square(square, facts, order).await? {
        Ok(order) => order,
        Err(code) => return refused(square, facts, order, REJECTED_BY_VENDOR, &code).await,
    };
    if at_square.amount != Some(order.total.amount) {
        return refused(square, facts, order, REJECTED_BY_VENDOR, "another total").await;
    }
    let id = at_square.id.unwrap_or_default();
    if is_free {
        return give(square, facts, order, &id).await;
    }
    match source.is_external() {
        true => record(square, facts, order, &id).await,
        false => charge(square, facts, submission, &id, source).await,
    }
}

/// Makes sure that nothing is, or will be, charged for an order that is cancelled, and cancels it at Square. `again` says that
/// something may have been authorised since it was done before, by whoever did not know of the cancellation yet.
pub(crate) async fn void(
    square: &SquareClient,
    facts: &Facts<'_>,
    order: &Order,
    again: bool,
) -> Result<(), Stop> {
    // Square never heard of it, or has done it already.
    if !facts.has(ASKED) || (facts.has(ORDER_CANCELLED) && !again) {
        return Ok(());
    }
    let id = match facts.step(ORDER).await? {
        Some(step) => step.id.unwrap_or_default(),
        // It may be there all the same: under its key it comes to light.
        None => match square.create_order(order, key(facts.order, "order")).await {
            Ok(created) => created.id,
            Err(TillError::Failed(failure)) => return Err(failure.into()),
            // Then there is none.
            Err(TillError::Rejected { .. } | TillError::Declined { .. }) => return Ok(()),
        },
    };
    let current = attempt(facts);
    let first = if again { 1 } else { current };
    for attempt in first..=current {
        void_payment(square, facts, attempt).await?;
    }
    facts.keep(&voided(current), Step::now()).await?;
    cancel_order(square, facts, &id).await?;
    facts.keep(ORDER_CANCELLED, Step::now()).await?;
    info!("voided the payment, and cancelled the order at the till");
    Ok(())
}

/// The same with what has become known in this delivery.
async fn void_now(square: &SquareClient, facts: &Facts<'_>, order: &Order) -> Result<(), Stop> {
    let facts = Facts::of(facts.book, facts.order).await?;
    void(square, &facts, order, true).await
}

async fn void_payment(square: &SquareClient, facts: &Facts<'_>, attempt: u32) -> Result<(), Stop> {
    let Some(step) = facts.step(&payment(attempt)).await? else {
        let key = payment_key(facts, attempt);
        return match square.cancel_payment_by_key(key).await {
            Err(TillError::Failed(TillFailure::InvalidState { .. })) => Err(too_late()),
            other => failed(other),
        };
    };
    let id = step.id.unwrap_or_default();
    match square.cancel_payment(&id).await {
        Err(TillError::Failed(TillFailure::InvalidState { .. })) => {
            let known = failed(square.get_payment(&id).await)?;
            match known.status {
                SquarePaymentStatus::Canceled | SquarePaymentStatus::Failed => Ok(()),
                SquarePaymentStatus::Completed => Err(too_late()),
                SquarePaymentStatus::Approved
                | SquarePaymentStatus::Pending
                | SquarePaymentStatus::Unknown => {
                    Err(Stop::later("the payment can't be voided yet"))
                }
            }
        }
        other => failed(other).map(|_| ()),
    }
}

fn too_late() -> Stop {
    Stop::dead(
        Reason::CancelledTooLate,
        "the order was cancelled, but the payment was taken at the till; refund it there",
    )
}

/// Whatever version the order has by now.
async fn cancel_order(square: &SquareClient, facts: &Facts<'_>, id: &str) -> Result<(), Stop> {
    let known: SquareOrder = failed(square.get_order(id).await)?;
    match known.state {
        SquareOrderState::Canceled => Ok(()),
        SquareOrderState::Completed => Err(too_late()),
        SquareOrderState::Open | SquareOrderState::Draft | SquareOrderState::Unknown => {
            let key = key(facts.order, &format!("cancel {}", known.version));
            failed(square.cancel_order(id, known.version, key).await).map(|_| ())
        }
    }
}

/// The order as Square has it, or the code with which it is not taken.
async fn at_square(
    square: &SquareClient,
    facts: &Facts<'_>,
    order: &Order,
) -> Result<Result<Step, String>, Stop> {
    if let Some(step) = facts.step(ORDER).await? {
        return Ok(Ok(step));
    }
    facts.keep(ASKED, Step::now()).await?;
    match square.create_order(order, key(facts.order, "order")).await {
        Ok(created) => {
            let amount =
                (created.total.currency == order.total.currency).then_some(created.total.amount);
            Ok(Ok(facts.keep(ORDER, Step::of(&created.id, amount)).await?))
        }
        Err(TillError::Rejected { code, .. } | TillError::Declined { code, .. }) => Ok(Err(code)),
        Err(TillError::Failed(failure)) => Err(failure.into()),
    }
}

/// Authorises, decides and captures.
async fn charge(
    square: &SquareClient,
    facts: &Facts<'_>,
    submission: &Submission<'_>,
    square_order: &str,
    source: &Payment,
) -> Result<Verdict, Stop> {
    let order = submission.order;
    let mut attempt = attempt(facts);
    let authorised = match facts.step(&payment(attempt)).await? {
        Some(step) => step,
        None => {
            let is_stale = submission
                .unconfirmed_since
                .is_some_and(|since| submission.now - since > KEY_LIFETIME);
            if is_stale && facts.has(ORDER) {
                warn!(
                    "whether the payment was authorised is not known for too long; it is cancelled by its key"
                );
                failed(
                    square
                        .cancel_payment_by_key(payment_key(facts, attempt))
                        .await,
                )?;
                facts.keep(&voided(attempt), Step::now()).await?;
                attempt += 1;
            }
            let key = payment_key(facts, attempt);
            let made = square
                .create_payment(order, square_order, key, &source.source)
                .await;
            match made {
                Ok(made) => match made.status {
                    SquarePaymentStatus::Approved | SquarePaymentStatus::Completed => {
                        let amount = Some(made.amount.amount);
                        let name = payment(attempt);
                        facts.keep(&name, Step::of(&made.id, amount)).await?
                    }
                    _ => return Err(Stop::later("the payment is not authorised yet")),
                },
                Err(TillError::Declined { code, .. }) => {
                    return declined(square, facts, submission, attempt, &code).await;
                }
                Err(TillError::Rejected { code, .. }) => {
                    return refused(square, facts, order, REJECTED_BY_VENDOR, &code).await;
                }
                Err(TillError::Failed(TillFailure::InvalidState { .. })) => {
                    return Err(lapsed(facts, attempt).await?);
                }
                Err(TillError::Failed(failure)) => return Err(failure.into()),
            }
        }
    };
    if let Some(cancelled) = facts.charge().await? {
        void_now(square, facts, order).await?;
        return Ok(Verdict::Cancelled(cancelled));
    }
    let id = authorised.id.unwrap_or_default();
    let key = key(facts.order, &format!("pay {attempt}"));
    match square.pay_order(square_order, &id, key).await {
        Ok(_) => {}
        Err(TillError::Failed(
            failure @ (TillFailure::InvalidState { .. }
            | TillFailure::NotFound { .. }
            | TillFailure::Refused { .. }
            | TillFailure::KeyReused { .. }),
        )) => not_captured(square, facts, attempt, square_order, &id, failure).await?,
        // What an earlier call authorised was taken back meanwhile.
        Err(TillError::Declined { .. } | TillError::Rejected { .. }) => {
            return Err(lapsed(facts, attempt).await?);
        }
        Err(TillError::Failed(failure)) => return Err(failure.into()),
    }
    facts.keep(PAID, Step::of(&id, authorised.amount)).await?;
    confirmed(facts).await
}

/// Square does not capture, which it says too of what it has captured already: only asking tells.
async fn not_captured(
    square: &SquareClient,
    facts: &Facts<'_>,
    attempt: u32,
    square_order: &str,
    payment: &str,
    failure: TillFailure,
) -> Result<(), Stop> {
    let known = failed(square.get_payment(payment).await)?;
    match known.status {
        SquarePaymentStatus::Completed => Ok(()),
        SquarePaymentStatus::Canceled | SquarePaymentStatus::Failed => {
            Err(lapsed(facts, attempt).await?)
        }
        SquarePaymentStatus::Approved
        | SquarePaymentStatus::Pending
        | SquarePaymentStatus::Unknown => {
            let order = failed(square.get_order(square_order).await)?;
            if order.state == SquareOrderState::Completed {
                // It is paid by another attempt, on another instance. This one must not be captured as well.
                failed(square.cancel_payment(payment).await)?;
                return Ok(());
            }
            Err(failure.into())
        }
    }
}

/// Records that the shop has the money. Square takes such a payment for completed at once, so that the decision comes first.
async fn record(
    square: &SquareClient,
    facts: &Facts<'_>,
    order: &Order,
    square_order: &str,
) -> Result<Verdict, Stop> {
    if let Some(cancelled) = facts.charge().await? {
        void_now(square, facts, order).await?;
        return Ok(Verdict::Cancelled(cancelled));
    }
    let key = payment_key(facts, 1);
    let recorded = square
        .record_external_payment(order, square_order, key, None)
        .await;
    let step = match recorded {
        Ok(recorded) => Step::of(&recorded.id, Some(recorded.amount.amount)),
        Err(TillError::Failed(failure @ TillFailure::InvalidState { .. })) => {
            completed(square, square_order, failure).await?;
            Step::of(square_order, Some(order.total.amount))
        }
        Err(error) => return Err(no_business(error)),
    };
    facts.keep(PAID, step).await?;
    confirmed(facts).await
}

/// Completes an order that costs nothing.
async fn give(
    square: &SquareClient,
    facts: &Facts<'_>,
    order: &Order,
    square_order: &str,
) -> Result<Verdict, Stop> {
    if let Some(cancelled) = facts.charge().await? {
        void_now(square, facts, order).await?;
        return Ok(Verdict::Cancelled(cancelled));
    }
    match square
        .pay_free_order(square_order, key(facts.order, "pay 0"))
        .await
    {
        Err(TillError::Failed(failure @ TillFailure::InvalidState { .. })) => {
            let known = failed(square.get_order(square_order).await)?;
            if known.state != SquareOrderState::Completed {
                return Err(failure.into());
            }
        }
        other => {
            failed(other)?;
        }
    }
    facts.keep(PAID, Step::of(square_order, Some(0))).await?;
    confirmed(facts).await
}

async fn confirmed(facts: &Facts<'_>) -> Result<Verdict, Stop> {
    let ours = Confirmed {
        at: crate::event::now(),
    };
    let confirmed = facts.book.settle(facts.order, CONFIRMED, ours).await?;
    Ok(Verdict::Confirmed(confirmed))
}

/// The payment was declined. What an earlier call may have authorised is voided before anybody is told that nothing was.
async fn declined(
    square: &SquareClient,
    facts: &Facts<'_>,
    submission: &Submission<'_>,
    attempt: u32,
    code: &str,
) -> Result<Verdict, Stop> {
    let is_used_up = code.ends_with("_USED") || code.ends_with("_EXPIRED");
    let was_late = submission.now - submission.placed_at > LAPSE;
    if is_used_up && (was_late || attempt > 1) {
        let description = format!(
            "{code}: the payment token was good when the order was placed; ask the customer for another, or cancel"
        );
        return Err(Stop::dead(Reason::PaymentLapsed, description));
    }
    if Facts::of(facts.book, facts.order)
        .await?
        .has(&payment(attempt))
    {
        // Two had the order at once, and the other one's payment was taken.
        return Err(Stop::later(
            "the payment was authorised on another instance",
        ));
    }
    refused(square, facts, submission.order, PAYMENT_DECLINED, code).await
}

async fn refused(
    square: &SquareClient,
    facts: &Facts<'_>,
    order: &Order,
    reason: &str,
    code: &str,
) -> Result<Verdict, Stop> {
    info!(code, "the till does not take the order: {reason}");
    let is_external = order.payment.as_ref().is_some_and(Payment::is_external);
    let cancelled: Cancelled = facts.refuse(reason, !is_external).await?;
    void_now(square, facts, order).await?;
    Ok(Verdict::Cancelled(cancelled))
}

/// What was authorised is so no more. Another attempt would need another token, which only the customer can give.
async fn lapsed(facts: &Facts<'_>, attempt: u32) -> Result<Stop, Stop> {
    facts.keep(&voided(attempt), Step::now()).await?;
    facts.release().await?;
    Ok(Stop::dead(
        Reason::PaymentLapsed,
        "the payment was cancelled at the till before it was taken; ask the customer for another, or cancel",
    ))
}

/// Which attempt at the payment is the current one.
fn attempt(facts: &Facts<'_>) -> u32 {
    (1..).find(|n| !facts.has(&voided(*n))).unwrap_or(u32::MAX)
}

fn payment_key(facts: &Facts<'_>, attempt: u32) -> uuid::Uuid {
    key(facts.order, &format!("payment {attempt}"))
}

/// Whether the order is completed already, where Square does not do it once more.
async fn completed(
    square: &SquareClient,
    square_order: &str,
    failure: TillFailure,
) -> Result<(), Stop> {
    let known = failed(square.get_order(square_order).await)?;
    match known.state {
        SquareOrderState::Completed => Ok(()),
        SquareOrderState::Open
        | SquareOrderState::Canceled
        | SquareOrderState::Draft
        | SquareOrderState::Unknown => Err(failure.into()),
    }
}

fn failed<T>(answer: Result<T, TillError>) -> Result<T, Stop> {
    answer.map_err(no_business)
}

/// Of calls to which nobody can say no for reasons of business.
fn no_business(error: TillError) -> Stop {
    match error {
        TillError::Failed(failure) => failure.into(),
        TillError::Declined { code, .. } | TillError::Rejected { code, .. } => {
            Stop::dead(Reason::TillRefused, code)
        }
    }
}
