//! What a client says about a delivery, and what it is told in return.
//!
//! Clients compare the outcome that they get with the one they asked for: it is echoed, settled. An error inside a rejected
//! outcome means that the request failed, so the echo of a rejection, which asks for dead-lettering, has none.

use fe2o3_amqp_types::messaging::{Accepted, DeliveryState, Modified, Outcome, Rejected};

use super::{errors::Refusal, value};
use crate::{Changes, Settlement};

const REASON: &str = "DeadLetterReason";
const DESCRIPTION: &str = "DeadLetterErrorDescription";

/// What an outcome asks for; nothing when it is none of a receiver's.
pub(crate) fn settlement(outcome: &Outcome) -> Option<Settlement> {
    Some(match outcome {
        Outcome::Accepted(_) => Settlement::Complete,
        Outcome::Released(_) => Settlement::Release,
        Outcome::Modified(modified) => {
            let changes = match &modified.message_annotations {
                Some(annotations) => value::symbol_properties(annotations).into_iter().collect(),
                None => Changes::new(),
            };
            if modified.undeliverable_here == Some(true) {
                Settlement::Defer { changes }
            } else {
                Settlement::Abandon { changes }
            }
        }
        Outcome::Rejected(rejected) => {
            let info = rejected
                .error
                .as_ref()
                .and_then(|error| error.info.as_ref());
            let mut changes: Changes = match info {
                Some(info) => value::symbol_properties(info).into_iter().collect(),
                None => Changes::new(),
            };
            let mut text = |name| match changes.remove(name) {
                Some(crate::Value::String(text)) => Some(text),
                _ => None,
            };
            Settlement::DeadLetter {
                reason: text(REASON),
                description: text(DESCRIPTION),
                changes,
            }
        }
        Outcome::Declared(_) => return None,
    })
}

/// What is said when the outcome has been carried out.
pub(crate) fn echo(outcome: Outcome) -> Outcome {
    match outcome {
        Outcome::Rejected(_) => Rejected { error: None }.into(),
        Outcome::Modified(modified) => Modified {
            message_annotations: None,
            ..modified
        }
        .into(),
        outcome => outcome,
    }
}

pub(crate) fn accepted() -> DeliveryState {
    Accepted {}.into()
}

pub(crate) fn rejected(refusal: Refusal) -> DeliveryState {
    Rejected {
        error: Some(refusal.into()),
    }
    .into()
}

/// The outcome in a delivery state that is not one of a transaction.
pub(crate) fn outcome(state: DeliveryState) -> Option<Outcome> {
    Some(match state {
        DeliveryState::Accepted(accepted) => accepted.into(),
        DeliveryState::Rejected(rejected) => rejected.into(),
        DeliveryState::Released(released) => released.into(),
        DeliveryState::Modified(modified) => modified.into(),
        DeliveryState::Received(_)
        | DeliveryState::Declared(_)
        | DeliveryState::TransactionalState(_) => return None,
    })
}
