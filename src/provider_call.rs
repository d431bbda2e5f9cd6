//! One call of an email provider, a vendor or a till, as it is told: a span, and its duration among the figures.

use std::{borrow::Cow, time::Instant};

use crate::{
    metrics::{self, Figure},
    span::{Kind, Parent, Span},
    telemetry,
    trace::SpanContext,
};

/// What a call came to that was what it was for. Others are named by their class of failure.
pub(crate) const OK: &str = "ok";

/// Nobody waits for the answer any more: the time of the whole attempt was over, or its function has ended.
const GIVEN_UP: &str = "given-up";

/// Empty where nothing is exported.
pub(crate) struct Call(Option<Told>);

struct Told {
    span: Span,
    provider: Cow<'static, str>,
    started: Instant,
}

impl Call {
    /// `provider` and `action` make its name, as in `POST acs`; `host` is who is called.
    pub(crate) fn begin<P: Into<Cow<'static, str>>>(
        provider: impl FnOnce() -> P,
        action: &str,
        host: Option<&str>,
    ) -> Self {
        if telemetry::is_off() {
            return Self(None);
        }
        let provider = provider().into();
        let span = Span::begin(Kind::Client, Parent::Current, || {
            format!("{action} {provider}")
        });
        span.note(|recording| {
            recording
                .set("orderup.provider", provider.clone())
                .set_some("server.address", host.map(str::to_owned));
            if action.bytes().all(|byte| byte.is_ascii_uppercase()) {
                recording.set("http.request.method", action.to_owned());
            }
        });
        Self(Some(Told {
            span,
            provider,
            started: Instant::now(),
        }))
    }

    /// For a header, by which the other side can go on with the trace.
    pub(crate) fn context(&self) -> Option<SpanContext> {
        self.0.as_ref()?.span.context()
    }

    /// It came to this; `status` is that of an answer over HTTP.
    pub(crate) fn end(mut self, result: &'static str, status: Option<u16>) {
        self.tell(result, status);
    }

    fn tell(&mut self, result: &'static str, status: Option<u16>) {
        let Some(told) = self.0.take() else {
            return;
        };
        let labels = [("provider", &*told.provider), ("result", result)];
        metrics::observe(Figure::ProviderDuration, told.started.elapsed(), &labels);
        told.span.note(|recording| {
            recording
                .set("orderup.result", result)
                .set_some("http.response.status_code", status);
            match status {
                _ if result == OK => {}
                Some(status) if status >= 400 => {
                    recording.fail(status.to_string());
                }
                Some(_) | None => {
                    recording.fail(result);
                }
            }
        });
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        self.tell(GIVEN_UP, None);
    }
}
