//! What the log and the figures say of one delivery, though its recipients may have fared differently.

use std::{fmt::Write, time::Duration};

use tracing::{error, info, warn};

use crate::{
    metrics::{self, Figure},
    outcome::Outcome,
    span::Span,
};

/// How many reasons one line of the log has.
const MOST_REASONS: usize = 5;

/// One line.
#[derive(Debug, Default)]
pub struct Summary {
    reasons: Vec<String>,
    delivered: usize,
    later: Counts,
    dead: Counts,
    was_tried: bool,
}

/// How many there were of each.
#[derive(Debug, Default)]
struct Counts(Vec<(String, usize)>);

impl Counts {
    fn add(&mut self, name: &str) {
        match self.0.iter_mut().find(|(known, _)| known == name) {
            Some((_, count)) => *count += 1,
            None => self.0.push((name.to_owned(), 1)),
        }
    }

    fn all(&self) -> usize {
        self.0.iter().map(|(_, count)| count).sum()
    }

    /// As in `transient:2,paused:1`; nothing if there are none.
    fn written(&self) -> Option<String> {
        let mut written = String::new();
        for (name, count) in &self.0 {
            let comma = if written.is_empty() { "" } else { "," };
            let _ = write!(written, "{comma}{name}:{count}");
        }
        (!written.is_empty()).then_some(written)
    }
}

impl Summary {
    /// One recipient, the vendor where there is more than one.
    pub fn add(&mut self, vendor: Option<&str>, outcome: &Outcome) {
        let reason = match outcome {
            Outcome::Delivered => {
                self.delivered += 1;
                return;
            }
            Outcome::Later(later) => {
                self.later.add(later.class());
                self.was_tried |= later.was_tried;
                later.error.clone()
            }
            Outcome::Dead(dead) => {
                self.dead.add(dead.reason.name());
                format!("{}: {}", dead.reason.name(), dead.description)
            }
        };
        self.reasons.push(match vendor {
            Some(vendor) => format!("the vendor {vendor}: {reason}"),
            None => reason,
        });
    }

    fn outcome(&self) -> &'static str {
        match (self.dead.0.is_empty(), self.later.0.is_empty()) {
            (false, _) => "dead",
            (true, false) => "later",
            (true, true) => "delivered",
        }
    }

    /// Adds to the figures and to the delivery's span; to be called once the message is safe.
    pub fn count(&self, function: &'static str, span: &Span) {
        let notified = |outcome, class: Option<&str>, count: usize| {
            let mut labels = vec![("function", function), ("outcome", outcome)];
            labels.extend(class.map(|class| ("class", class)));
            metrics::add(Figure::Notifications, count as u64, &labels);
        };
        if self.delivered > 0 {
            notified("delivered", None, self.delivered);
        }
        for (class, count) in &self.later.0 {
            notified("later", Some(class), *count);
        }
        for (reason, count) in &self.dead.0 {
            let labels = [("function", function), ("reason", reason)];
            metrics::add(Figure::Dead, *count as u64, &labels);
        }
        if !self.dead.0.is_empty() {
            notified("dead", None, self.dead.all());
        }
        span.note(|recording| {
            recording
                .set("orderup.outcome", self.outcome())
                .set_some("orderup.classes", self.later.written());
            if let Some(reasons) = self.dead.written() {
                recording.fail(reasons);
            }
        });
    }

    /// Writes the line; to be called once the message is safe. `provider_ms` is how long the provider or till took
    /// ([`crate::delivery::Delivery::timed`]), where there is one, and `age` how long its audience has waited for it.
    pub fn log(mut self, function: &str, duration_ms: u64, provider_ms: u64, age: Duration) {
        let more = self.reasons.len().saturating_sub(MOST_REASONS);
        self.reasons.truncate(MOST_REASONS);
        let mut reasons = self.reasons.join("; ");
        if more > 0 {
            reasons.push_str(&format!("; and {more} more"));
        }
        let (outcome, age_s) = (self.outcome(), age.as_secs());
        let (delivered, later, dead) = (self.delivered, self.later.all(), self.dead.all());
        let (classes, why_dead) = (self.later.written(), self.dead.written());
        match outcome {
            "delivered" => info!(
                outcome,
                delivered, age_s, provider_ms, duration_ms, "{function} delivered"
            ),
            // What was only held back is told where the channel was closed, once.
            "later" if !self.was_tried => info!(
                outcome,
                delivered,
                later,
                classes,
                age_s,
                provider_ms,
                duration_ms,
                "{function} delivers later: {reasons}"
            ),
            "later" => warn!(
                outcome,
                delivered,
                later,
                classes,
                age_s,
                provider_ms,
                duration_ms,
                "{function} delivers later: {reasons}"
            ),
            _ => error!(
                outcome,
                delivered,
                later,
                classes,
                dead,
                reasons = why_dead,
                age_s,
                provider_ms,
                duration_ms,
                "{function} gives up: {reasons}"
            ),
        }
    }
}
