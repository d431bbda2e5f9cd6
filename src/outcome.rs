//! What becomes of a delivery: the one place where a triggered function's result turns into what the host sees.
//!
//! The host knows two answers. A 2xx with a JSON body completes the message. Anything else abandons it: the broker
//! delivers it again at once, and dead-letters it at the maximum delivery count.

use axum::{
    http::{StatusCode, header},
    response::{IntoResponse, Response},
};

/// The result of a delivery. The texts are for the log: they hold no personal data and no secrets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// Everyone who should know was told, or gave an answer that settles it.
    Delivered,
    /// It did not work this time and can work later: an outage, a rate limit, a broken credential.
    Later(String),
    /// It can never work: the message cannot be read, or the recipient is refused for good.
    Dead(String),
}

/// What the host takes for success. An empty 2xx would hang the invocation until the host ends the process
/// (Azure/azure-functions-host, `DefaultHttpWorkerService`).
const COMPLETED: &str = r#"{"Outputs":{},"Logs":[],"ReturnValue":null}"#;

/// How many reasons one line of the log has.
const MOST_REASONS: usize = 5;

impl Outcome {
    /// The outcome of several deliveries that belong to one message.
    pub fn of_all(outcomes: impl IntoIterator<Item = Self>) -> Self {
        let mut can_work_later = false;
        let mut reasons = Vec::new();
        for outcome in outcomes {
            match outcome {
                Self::Delivered => {}
                Self::Later(reason) => {
                    can_work_later = true;
                    reasons.push(reason);
                }
                Self::Dead(reason) => reasons.push(reason),
            }
        }
        let more = reasons.len().saturating_sub(MOST_REASONS);
        reasons.truncate(MOST_REASONS);
        let mut reason = reasons.join("; ");
        if more > 0 {
            reason.push_str(&format!("; and {more} more"));
        }
        match (reason.is_empty(), can_work_later) {
            (true, _) => Self::Delivered,
            // What can work later must not be given up for what never can.
            (false, true) => Self::Later(reason),
            (false, false) => Self::Dead(reason),
        }
    }
}

/// The answer to the host. Both failures abandon the message; the broker's delivery count ends what never works.
impl IntoResponse for Outcome {
    fn into_response(self) -> Response {
        let (status, body) = match self {
            Self::Delivered => (StatusCode::OK, COMPLETED),
            // The host throws the body of a failure away; this one is for people with curl.
            Self::Later(_) => (StatusCode::SERVICE_UNAVAILABLE, r#"{"outcome":"later"}"#),
            Self::Dead(_) => (StatusCode::UNPROCESSABLE_ENTITY, r#"{"outcome":"dead"}"#),
        };
        (status, [(header::CONTENT_TYPE, "application/json")], body).into_response()
    }
}

#[cfg(test)]
mod tests {
    use super::Outcome::{self, Dead, Delivered, Later};

    #[test]
    fn one_failure_among_several_is_not_forgotten() {
        let later = || Later("a".to_owned());
        let dead = || Dead("b".to_owned());
        assert_eq!(Outcome::of_all([]), Delivered);
        assert_eq!(Outcome::of_all([Delivered, Delivered]), Delivered);
        assert_eq!(Outcome::of_all([Delivered, later(), Delivered]), later());
        assert_eq!(Outcome::of_all([dead(), Delivered]), dead());
        assert_eq!(Outcome::of_all([dead(), later()]), Later("b; a".to_owned()));
        assert_eq!(
            Outcome::of_all(vec![dead(); 500]),
            Dead("b; b; b; b; b; and 495 more".to_owned())
        );
    }
}
