//! An order and its payment at Square, step by step: create the order, authorise the payment, decide, capture.
//!
//! Called for each delivery of an order to the till, and for its cancellation. Each step's result is in the order book before
//! the next call ([`crate::till_facts`]), and each call has a key of the order and the step, so that a delivery that is repeated,
//! after a kill at any point or on two instances at once, repeats at most one call. Money is only ever taken by the
//! capture (or recorded, where the shop has it), which comes after `decision.json` says `charge`: an order that was cancelled
//! before that is never charged, and what was authorised for it is voided ([`crate::till_square_undo`]).
//!
//! Where Square says for certain that it will not do what was decided, the round is ended: nothing is left authorised, and the
//! order may be cancelled, or tried again by whoever replays its dead letter.

use time::{Duration, OffsetDateTime};
use tracing::{error, info, warn};

use crate::{
    book_store::Put,
    event::{PAYMENT_DECLINED, REJECTED_BY_VENDOR},
    order::{Order, Payment},
    order_book::Cancelled,
    outcome::Reason,
    square::{SquareClient, SquareOrderState, SquarePaymentStatus},
    till_error::{TillError, TillFailure},
    till_facts::{
        ASKED, Facts, ORDER, PAID, Step, Stop, Verdict, certain, key, no_business, payment, voided,
    },
    till_square_undo::{
        self as undo, Closed, End, Undone, cancel_order, too_late, try_to_cancel_order,
        void_payment,
    },
};

/// How long a payment whose answer was lost is asked for again under its key. Square does not say how long it remembers a key;
/// after this time the payment is cancelled by its key, and the next round has another one.
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
    pub(crate) now: OffsetDateTime,
}

/// Puts the order through the till, from wherever it is.
pub(crate) async fn ring_up(
    square: &SquareClient,
    facts: &Facts<'_>,
    submission: &Submission<'_>,
) -> Result<Verdict, Stop> {
    let order = submission.order;
    if facts.is_paid() {
        return facts.confirm().await;
    }
    let sale = Sale {
        square,
        facts,
        submission,
        square_order: "",
        was_asked: true,
    };
    if let Some(cancelled) = facts.cancelled().await? {
        return sale.cancel(&cancelled).await;
    }
    let Some(source) = &order.payment else {
        let description = "there is no payment in the order";
        return Err(Stop::dead(Reason::TillRefused, description));
    };
    let asked = facts.book.write(facts.order, ASKED, &Step::now()).await?;
    let at_square = match at_square(square, facts, order).await? {
        Ok(order) => order,
        Err(code) => return sale.refused(REJECTED_BY_VENDOR, &code).await,
    };
    if at_square.amount != Some(order.total.amount) {
        return sale.refused(REJECTED_BY_VENDOR, "another total").await;
    }
    let id = at_square.id.unwrap_or_default();
    let sale = Sale {
        square_order: &id,
        was_asked: asked == Put::Existed,
        ..sale
    };
    let is_begun = facts.is_abandoned().await?;
    if !is_begun && !is_stale(facts, submission).await? {
        return sale.take(source).await;
    }
    if !is_begun {
        warn!("whether the payment was authorised is not known for too long; it is cancelled");
    }
    if let Some(end) = sale.close().await? {
        return Ok(end);
    }
    let facts = &facts.anew().await?;
    Sale { facts, ..sale }.take(source).await
}

/// What happens at Square when somebody has cancelled the order, whoever decided it and where.
pub(crate) async fn release(
    square: &SquareClient,
    facts: &Facts<'_>,
    order: &Order,
    heard: &Cancelled,
) -> Result<(), Stop> {
    if facts.is_paid() {
        return Err(too_late());
    }
    match undo::cancel(square, facts, order, heard).await? {
        End::Paid(_) => Err(too_late()),
        End::Cancelled(_, Some(id)) => cancel_order(square, facts, &id).await,
        End::Cancelled(_, None) => Ok(()),
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

/// Whether the payment's answer was lost so long ago that its key may be forgotten.
async fn is_stale(facts: &Facts<'_>, submission: &Submission<'_>) -> Result<bool, Stop> {
    let round = facts.round();
    let Some(mut since) = submission.unconfirmed_since else {
        return Ok(false);
    };
    if !is_card(submission.order) || !facts.has(ORDER) || facts.has(&payment(round)) {
        return Ok(false);
    }
    // The round before has taken the doubt with it.
    if let Some(before) = facts.step(&voided(round - 1)).await? {
        since = since.max(before.at);
    }
    Ok(submission.now - since > KEY_LIFETIME)
}

/// An order on its way through Square, in one delivery.
#[derive(Clone, Copy)]
struct Sale<'a> {
    square: &'a SquareClient,
    facts: &'a Facts<'a>,
    submission: &'a Submission<'a>,
    /// Square's id of the order, once it has one.
    square_order: &'a str,
    /// An earlier delivery, or another one, may have asked Square for the payment.
    was_asked: bool,
}

impl Sale<'_> {
    /// The order is there: what is left is its money.
    async fn take(self, source: &Payment) -> Result<Verdict, Stop> {
        let Self {
            square,
            facts,
            submission,
            square_order,
            ..
        } = self;
        // What costs nothing has nothing to authorise, and what the shop has already neither.
        if submission.order.total.amount == 0 {
            let key = key(facts.order, &format!("pay {}", facts.round()));
            let given = async || {
                let given = square.pay_free_order(square_order, key).await?;
                match given.state {
                    SquareOrderState::Completed => Ok(None),
                    // It says why when it is asked.
                    _ => Err(TillFailure::InvalidState {
                        till: "Square",
                        answer: "it is not completed".to_owned(),
                    }
                    .into()),
                }
            };
            return self.complete(given).await;
        }
        if source.is_external() {
            let key = payment_key(facts, facts.round());
            let order = submission.order;
            let recorded = async || {
                let recorded = square.record_external_payment(order, square_order, key, None);
                let recorded = recorded.await;
                recorded.map(|payment| Some(payment.id))
            };
            return self.complete(recorded).await;
        }
        match self.authorise(source).await? {
            Ok(payment) => self.capture(&payment).await,
            Err(end) => Ok(end),
        }
    }

    /// The id of the payment that is authorised in this round, or what has become of the order instead.
    async fn authorise(self, source: &Payment) -> Result<Result<String, Verdict>, Stop> {
        let Self {
            square,
            facts,
            submission,
            square_order,
            ..
        } = self;
        let round = facts.round();
        if let Some(step) = facts.step(&payment(round)).await? {
            return Ok(Ok(step.id.unwrap_or_default()));
        }
        let key = payment_key(facts, round);
        let made = square
            .create_payment(submission.order, square_order, key, &source.source)
            .await;
        let end = match made {
            Ok(made) => match made.status {
                SquarePaymentStatus::Approved | SquarePaymentStatus::Completed => {
                    let step = Step::of(&made.id, Some(made.amount.amount));
                    let kept = facts.keep(&payment(round), step).await?;
                    return Ok(Ok(kept.id.unwrap_or_default()));
                }
                SquarePaymentStatus::Canceled | SquarePaymentStatus::Failed => {
                    self.give_up(lapsed()).await
                }
                SquarePaymentStatus::Pending | SquarePaymentStatus::Unknown => {
                    Err(Stop::later("the payment is not authorised yet"))
                }
            },
            Err(TillError::Declined { code, .. }) => self.declined(&code).await,
            Err(TillError::Rejected { code, .. }) => self.refused(REJECTED_BY_VENDOR, &code).await,
            Err(failure) if is_final(&failure) => self.give_up(no_business(failure)).await,
            Err(failure) => Err(no_business(failure)),
        };
        end.map(Err)
    }

    /// Decides, and captures what is authorised.
    async fn capture(self, payment: &str) -> Result<Verdict, Stop> {
        let Self {
            square,
            facts,
            square_order,
            ..
        } = self;
        let round = facts.round();
        if facts.is_abandoned().await? {
            // It was not there yet, perhaps, when the others were voided.
            return match void_payment(square, facts, round, square_order).await? {
                Undone::Voided => Err(elsewhere()),
                Undone::Taken(id) => self.paid(id).await,
            };
        }
        if let Some(cancelled) = facts.charge().await? {
            return self.cancel(&cancelled).await;
        }
        let key = key(facts.order, &format!("pay {round}"));
        match square.pay_order(square_order, payment, key).await {
            Ok(order) if order.state == SquareOrderState::Completed => {
                self.paid(Some(payment.to_owned())).await
            }
            Ok(_) => match certain(square.get_payment(payment).await)?.status {
                SquarePaymentStatus::Completed => self.paid(Some(payment.to_owned())).await,
                _ => Err(Stop::later("the order is not paid yet")),
            },
            Err(error) if is_final(&error) => self.not_captured(payment, error).await,
            Err(error) => Err(no_business(error)),
        }
    }

    /// Square does not capture, which it says too of what it has captured already: only asking tells.
    async fn not_captured(self, payment: &str, error: TillError) -> Result<Verdict, Stop> {
        let known = certain(self.square.get_payment(payment).await)?;
        match (known.status, error) {
            (SquarePaymentStatus::Completed, _) => self.paid(Some(payment.to_owned())).await,
            // What an earlier call authorised was taken back meanwhile.
            (SquarePaymentStatus::Canceled | SquarePaymentStatus::Failed, _)
            | (_, TillError::Declined { .. }) => self.give_up(lapsed()).await,
            (_, error) => self.give_up(no_business(error)).await,
        }
    }

    /// Decides, and has Square complete the order by `call`, which gives the payment's id. Nothing is authorised
    /// before, so that there is nothing to void either (see [`Self::paid`]).
    async fn complete(
        self,
        call: impl AsyncFnOnce() -> Result<Option<String>, TillError>,
    ) -> Result<Verdict, Stop> {
        let facts = self.facts;
        if facts.is_abandoned().await? {
            return Err(elsewhere());
        }
        if let Some(cancelled) = facts.charge().await? {
            return self.cancel(&cancelled).await;
        }
        match call().await {
            Ok(id) => self.paid(id).await,
            // Which it says too of what it has completed already.
            Err(error) if is_final(&error) => self.give_up(no_business(error)).await,
            Err(error) => Err(no_business(error)),
        }
    }

    /// Nothing comes of the decision to charge: it is ended, and a person has to look at the order, for the reason given.
    async fn give_up(self, why: Stop) -> Result<Verdict, Stop> {
        let facts = self.facts;
        let now = facts.anew().await?;
        if now.is_paid() || now.round() != facts.round() {
            return Err(elsewhere());
        }
        if let Some(end) = self.close().await? {
            return Ok(end);
        }
        let now = facts.anew().await?;
        if now.is_paid() || now.round() != facts.round() + 1 || now.is_decided() {
            return Err(elsewhere());
        }
        Err(why)
    }

    /// Ends the round; nothing comes back if the next one may begin.
    async fn close(self) -> Result<Option<Verdict>, Stop> {
        let end = match undo::close(
            self.square,
            self.facts,
            self.submission.order,
            self.square_order,
        )
        .await?
        {
            Closed::Released => return Ok(None),
            Closed::Taken(payment) => self.paid(payment).await,
            Closed::Cancelled(cancelled) => self.cancel(&cancelled).await,
        };
        end.map(Some)
    }

    /// The order is cancelled, here or elsewhere, unless the money is taken already.
    async fn cancel(self, cancelled: &Cancelled) -> Result<Verdict, Stop> {
        let (square, facts) = (self.square, self.facts);
        match undo::cancel(square, facts, self.submission.order, cancelled).await? {
            End::Paid(payment) => self.paid(payment).await,
            End::Cancelled(cancelled, id) => {
                if let Some(id) = id {
                    try_to_cancel_order(square, facts, &id).await;
                }
                Ok(Verdict::Cancelled(cancelled))
            }
        }
    }

    /// The payment was declined. What an earlier call may have authorised is voided before anybody is told that nothing was.
    async fn declined(self, code: &str) -> Result<Verdict, Stop> {
        let (facts, submission) = (self.facts, self.submission);
        let round = facts.round();
        let now = facts.anew().await?;
        if now.has(&payment(round)) || now.is_paid() || now.round() != round {
            // Two had the order at once, and the other one's payment was taken.
            return Err(elsewhere());
        }
        let was_late = submission.now - submission.placed_at > LAPSE;
        let is_ours = match code {
            // An earlier call of ours may have used it up, whatever that was answered.
            "CARD_TOKEN_USED" | "CARD_TOKEN_EXPIRED" | "SOURCE_USED" | "SOURCE_EXPIRED" => {
                was_late || round > 1 || self.was_asked
            }
            "NOT_FOUND" => {
                error!(
                    "the till knows nothing of the payment token: if that happens with every order, the shop's page makes \
                     tokens for another Square application, or for the sandbox"
                );
                was_late
            }
            // It was good in an earlier round.
            _ => round > 1,
        };
        if is_ours {
            let description = format!(
                "{code}: the payment token was good when the order was placed; ask the customer for another, or cancel"
            );
            let why = Stop::dead(Reason::PaymentLapsed, description);
            return self.give_up(why).await;
        }
        self.refused(PAYMENT_DECLINED, code).await
    }

    async fn refused(self, reason: &str, code: &str) -> Result<Verdict, Stop> {
        info!(code, "the till does not take the order: {reason}");
        let payment = self.submission.order.payment.as_ref();
        let not_charged = !payment.is_some_and(Payment::is_external);
        self.cancel(&Cancelled::now(reason, not_charged)).await
    }

    /// By the payment of that id, if it is known.
    ///
    /// Where nothing was authorised, others may have found nothing to void, and ended the round: then the one that counts decides
    /// whether the order was cancelled since.
    async fn paid(self, id: Option<String>) -> Result<Verdict, Stop> {
        if !is_card(self.submission.order) && self.facts.stand().await?.is_some() {
            return Err(too_late());
        }
        let step = Step {
            id,
            amount: Some(self.submission.order.total.amount),
            ..Step::now()
        };
        self.facts.keep(PAID, step).await?;
        self.facts.confirm().await
    }
}

/// Whether something is authorised for the order before it is captured.
pub(crate) fn is_card(order: &Order) -> bool {
    order.total.amount != 0 && !order.payment.as_ref().is_some_and(Payment::is_external)
}

fn elsewhere() -> Stop {
    Stop::later("another instance has got further with the order meanwhile")
}

/// Another attempt would need another token, which only the customer can give.
fn lapsed() -> Stop {
    Stop::dead(
        Reason::PaymentLapsed,
        "what was authorised is so no more, and was not taken; ask the customer for another payment, or cancel",
    )
}

pub(crate) fn payment_key(facts: &Facts<'_>, round: u32) -> uuid::Uuid {
    key(facts.order, &format!("payment {round}"))
}

/// The same call would get the same answer again.
pub(crate) fn is_final(error: &TillError) -> bool {
    match error {
        TillError::Declined { .. } | TillError::Rejected { .. } => true,
        TillError::Failed(failure) => matches!(
            failure,
            TillFailure::InvalidState { .. }
                | TillFailure::NotFound { .. }
                | TillFailure::Refused { .. }
                | TillFailure::KeyReused { .. }
        ),
    }
}
