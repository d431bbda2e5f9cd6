//! Which traces are recorded: a decision that is made once for a trace, without asking anybody, and travels with it.

use crate::{
    config::{ConfigError, Settings},
    trace::SpanContext,
};

/// Which traces are recorded: `OTEL_TRACES_SAMPLER`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Sampler {
    /// Whoever begins a trace decides for all.
    follows_parent: bool,
    /// Also if that is the caller of an HTTP function. Not unless it was asked for: senders with Application Insights are reported
    /// to say of every request that it is not recorded (microsoft/ApplicationInsights-dotnet#2835).
    follows_caller: bool,
    /// Of 2^63, how many random numbers are.
    threshold: u64,
}

const ALL: u64 = 1 << 63;

impl Sampler {
    /// Reads the settings.
    ///
    /// # Errors
    /// If there is no such sampler, or its share is none.
    pub fn from_settings(settings: &Settings) -> Result<Self, ConfigError> {
        const SAMPLER: &str = "OTEL_TRACES_SAMPLER";
        const ARGUMENT: &str = "OTEL_TRACES_SAMPLER_ARG";
        let asked = settings.optional(SAMPLER);
        let name = asked.as_deref().unwrap_or("parentbased_always_on");
        let (follows_parent, what) = match name.strip_prefix("parentbased_") {
            Some(what) => (true, what),
            None => (false, name),
        };
        let ratio = match what {
            "always_on" => 1.0,
            "always_off" => 0.0,
            "traceidratio" => match settings.optional(ARGUMENT) {
                None => 1.0,
                Some(text) => text
                    .parse()
                    .ok()
                    .filter(|ratio| (0.0..=1.0).contains(ratio))
                    .ok_or_else(|| {
                        ConfigError::invalid(ARGUMENT, "it is no share", "a number from 0 to 1")
                    })?,
            },
            _ => {
                let expected =
                    "always_on, always_off or traceidratio, each also with parentbased_ before it";
                return Err(ConfigError::invalid(
                    SAMPLER,
                    "that sampler is not known",
                    expected,
                ));
            }
        };
        // In range, as just checked.
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
        let threshold = (ratio * ALL as f64) as u64;
        Ok(Self {
            follows_parent,
            follows_caller: asked.is_some(),
            threshold,
        })
    }

    /// The context with the decision in it. That of a request's span has the caller's as its parent.
    pub fn sampled(
        self,
        context: SpanContext,
        parent: Option<SpanContext>,
        is_request: bool,
    ) -> SpanContext {
        let is_followed = self.follows_parent && (self.follows_caller || !is_request);
        let is_sampled = match parent {
            Some(parent) if is_followed => parent.is_sampled(),
            // The last 64 bits, as in the SDKs of Go, Java and Rust: whoever else samples by the same ratio takes the same traces.
            Some(_) | None => (context.trace_id as u64) >> 1 < self.threshold,
        };
        context.sampled(is_sampled)
    }
}
