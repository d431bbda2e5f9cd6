//! What the log says of one delivery, in one line, though its recipients may have fared differently.

use tracing::{error, info, warn};

use crate::outcome::Outcome;

/// How many reasons one line of the log has.
const MOST_REASONS: usize = 5;

#[derive(Debug, Default)]
pub struct Summary {
    reasons: Vec<String>,
    later: usize,
    dead: usize,
    was_tried: bool,
}

impl Summary {
    /// One recipient, the vendor where there is more than one.
    pub fn add(&mut self, vendor: Option<&str>, outcome: &Outcome) {
        let reason = match outcome {
            Outcome::Delivered => return,
            Outcome::Later(later) => {
                self.later += 1;
                self.was_tried |= later.was_tried;
                later.error.clone()
            }
            Outcome::Dead(dead) => {
                self.dead += 1;
                format!("{}: {}", dead.reason.name(), dead.description)
            }
        };
        self.reasons.push(match vendor {
            Some(vendor) => format!("the vendor {vendor}: {reason}"),
            None => reason,
        });
    }

    /// Writes the line; to be called once the message is safe.
    pub fn log(mut self, function: &str, duration_ms: u64) {
        let more = self.reasons.len().saturating_sub(MOST_REASONS);
        self.reasons.truncate(MOST_REASONS);
        let mut reasons = self.reasons.join("; ");
        if more > 0 {
            reasons.push_str(&format!("; and {more} more"));
        }
        let (later, dead) = (self.later, self.dead);
        match (dead, later) {
            (0, 0) => info!(outcome = "delivered", duration_ms, "{function} delivered"),
            // What was only held back is told where the channel was closed, once.
            (0, _) if !self.was_tried => {
                info!(
                    outcome = "later",
                    later, duration_ms, "{function} delivers later: {reasons}"
                );
            }
            (0, _) => warn!(
                outcome = "later",
                later, duration_ms, "{function} delivers later: {reasons}"
            ),
            _ => error!(
                outcome = "dead",
                dead, later, duration_ms, "{function} gives up: {reasons}"
            ),
        }
    }
}
