//! Why the till did not do what it was asked, whichever till it is.
//!
//! Two of the answers are business and no failures: the payment was declined, or the shop does not take the order. They
//! are final, and the customer is told. All others are a [`TillFailure`], which has a [`Failure`] in the words of all
//! clients. No text of a till is in any of them, because that may quote the customer or the payment: only statuses,
//! and codes.

use std::time::Duration;

use thiserror::Error;

use crate::{
    failure::{Class, Failure},
    provider_http::{Answer, NoAnswer, plain_code},
};

#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum TillError {
    /// The payment method was declined: nothing was paid, and nothing will be with the same token.
    #[error("{till} says that the payment was declined: {code}")]
    Declined { till: &'static str, code: String },
    /// The shop or one of its vendors does not take the order: sold out, closed.
    #[error("{till} says that the shop does not take the order: {code}")]
    Rejected { till: &'static str, code: String },
    #[error(transparent)]
    Failed(#[from] TillFailure),
}

impl TillError {
    /// For codes of the till; one that may be something else is not kept.
    pub(crate) fn declined(till: &'static str, code: Option<&str>) -> Self {
        let code = plain_code_of(code);
        Self::Declined { till, code }
    }

    pub(crate) fn rejected(till: &'static str, code: Option<&str>) -> Self {
        let code = plain_code_of(code);
        Self::Rejected { till, code }
    }
}

/// The till's code, or what stands for one that it did not give or that may be something else than a code.
pub(crate) fn plain_code_of(code: Option<&str>) -> String {
    code.and_then(plain_code)
        .unwrap_or("unspecified")
        .to_owned()
}

/// Why it is not known or not done, with what it means for the same request at a later time.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum TillFailure {
    /// Nothing was sent: no connection could be made.
    #[error("could not reach {till}: {reason}")]
    Unreachable { till: &'static str, reason: String },
    /// The request was written and no answer came that settles it: the till may have done it. The same request with the
    /// same key brings it to light.
    #[error("{till} did not say whether it did it: {reason}")]
    Unanswered {
        till: &'static str,
        reason: String,
        retry_after: Option<Duration>,
    },
    /// The till is overloaded or down: 3xx, 408, 425, 503. It did nothing.
    #[error("{till} could not do it now: {answer}")]
    Busy {
        till: &'static str,
        answer: String,
        retry_after: Option<Duration>,
    },
    /// Not this request and not now, which says nothing of others: one with the same key is still being worked on.
    #[error("{till} does not do this now: {answer}")]
    Deferred {
        till: &'static str,
        answer: String,
        retry_after: Option<Duration>,
    },
    /// The till took no more for now (429).
    #[error("{till} limits the rate: {answer}")]
    RateLimited {
        till: &'static str,
        answer: String,
        retry_after: Option<Duration>,
    },
    /// The till refuses us, not this order: the token, the location, the address of the API.
    #[error("{till} does not accept our credentials, our location or our address of it: {answer}")]
    Unauthorized { till: &'static str, answer: String },
    /// The till knows another request under this one's key.
    #[error("{till} knows another request under the same key: {answer}")]
    KeyReused { till: &'static str, answer: String },
    /// What the request names is not there.
    #[error("{till} has no such order or payment: {answer}")]
    NotFound { till: &'static str, answer: String },
    /// The order has changed since the version that the request names. It can be read again, and the request be
    /// made for the version it has now.
    #[error("{till} has another version of the order: {answer}")]
    Outdated { till: &'static str, answer: String },
    /// The order or payment is in a state that does not allow it, such as one to which it was done already. Reading it
    /// tells which.
    #[error("{till} says that its state does not allow it: {answer}")]
    InvalidState { till: &'static str, answer: String },
    /// The till will never take this request.
    #[error("{till} refused it: {answer}")]
    Refused { till: &'static str, answer: String },
}

impl TillFailure {
    pub(crate) fn of_no_answer(till: &'static str, no_answer: NoAnswer) -> Self {
        match no_answer {
            NoAnswer::Unreachable(reason) => Self::Unreachable { till, reason },
            NoAnswer::Unanswered(reason) => Self::Unanswered {
                till,
                reason,
                retry_after: None,
            },
        }
    }

    /// What the status alone stands for; `code` is the till's own, if it gave one.
    ///
    /// It is for statuses that do not mean success.
    pub(crate) fn of_status(
        answer: &Answer,
        code: Option<&str>,
        retry_after: Option<Duration>,
    ) -> Self {
        Self::of_class(answer, answer.class(), code, retry_after)
    }

    /// As [`Self::of_status`], with the class told by something else than the status.
    pub(crate) fn of_class(
        answer: &Answer,
        class: Class,
        code: Option<&str>,
        retry_after: Option<Duration>,
    ) -> Self {
        let till = answer.provider;
        let told = answer.told(code);
        match class {
            Class::Transient => Self::Busy {
                till,
                answer: told,
                retry_after,
            },
            Class::RateLimited => Self::RateLimited {
                till,
                answer: told,
                retry_after,
            },
            Class::Deferred => Self::Deferred {
                till,
                answer: told,
                retry_after,
            },
            Class::ChannelBroken | Class::Gone => Self::Unauthorized { till, answer: told },
            Class::KnownOtherwise => Self::KeyReused { till, answer: told },
            Class::Refused => Self::Refused { till, answer: told },
            Class::Ambiguous | Class::HandlerFault => Self::Unanswered {
                till,
                reason: format!("the answer was {told}"),
                retry_after,
            },
        }
    }

    /// A success that could not be read, or that is not about what was asked: it may have been done.
    pub(crate) fn unreadable(answer: &Answer) -> Self {
        Self::Unanswered {
            till: answer.provider,
            reason: format!("its answer {} could not be read", answer.status),
            retry_after: None,
        }
    }

    /// The till may have done what it was asked. After every other failure it has not, at least not at this request.
    pub fn may_be_done(&self) -> bool {
        matches!(self, Self::Unanswered { .. })
    }

    /// The same in the words of all clients.
    pub fn failure(&self) -> Failure {
        let (class, retry_after) = match self {
            Self::Unreachable { .. } => (Class::Transient, None),
            Self::Unanswered { retry_after, .. } => (Class::Ambiguous, *retry_after),
            Self::Busy { retry_after, .. } => (Class::Transient, *retry_after),
            Self::Deferred { retry_after, .. } => (Class::Deferred, *retry_after),
            Self::RateLimited { retry_after, .. } => (Class::RateLimited, *retry_after),
            Self::Unauthorized { .. } => (Class::ChannelBroken, None),
            Self::KeyReused { .. } => (Class::KnownOtherwise, None),
            // Whoever reads the order again can go on.
            Self::Outdated { .. } => (Class::Deferred, None),
            Self::NotFound { .. } | Self::InvalidState { .. } | Self::Refused { .. } => {
                (Class::Refused, None)
            }
        };
        Failure {
            class,
            retry_after,
            answer: self.to_string(),
            nothing_taken: false,
        }
    }
}

#[cfg(test)]
mod tests {
    use reqwest::header::HeaderMap;

    use super::*;

    fn of_status(status: u16) -> TillFailure {
        let answer = Answer {
            provider: "the till",
            status,
            headers: HeaderMap::new(),
            body: Vec::new(),
        };
        TillFailure::of_status(&answer, Some("CODE"), Some(Duration::from_secs(7)))
    }

    #[test]
    fn every_status_has_one_class() {
        for (class, statuses) in [
            (Class::Transient, &[302, 307, 408, 425, 503][..]),
            (Class::Deferred, &[409]),
            (Class::RateLimited, &[429]),
            (Class::ChannelBroken, &[401, 403, 404, 405, 406, 410, 415]),
            (Class::Refused, &[400, 402, 413, 422]),
            (Class::Ambiguous, &[200, 204, 500, 501, 502, 504, 599]),
        ] {
            for status in statuses {
                let failure = of_status(*status);
                assert_eq!(failure.failure().class, class, "{status}");
                assert_eq!(failure.may_be_done(), class == Class::Ambiguous, "{status}");
                assert!(failure.to_string().ends_with(&format!("{status} CODE")));
            }
        }
    }

    #[test]
    fn what_the_till_asks_for_is_handed_on() {
        for status in [503, 409, 429, 500] {
            let failure = of_status(status).failure();
            assert_eq!(failure.retry_after, Some(Duration::from_secs(7)));
        }
    }

    #[test]
    fn only_codes_are_kept_of_a_decline() {
        let told = |code| TillError::declined("the till", code).to_string();
        assert!(told(Some("CARD_DECLINED")).ends_with(": CARD_DECLINED"));
        for other in [
            None,
            Some(""),
            Some("Ada's card"),
            Some("cnon:card-nonce-ok"),
        ] {
            assert!(told(other).ends_with(": unspecified"), "{other:?}");
        }
    }
}
