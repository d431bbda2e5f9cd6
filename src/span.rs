//! Spans: what one step of an order's story was, how long it took, and what came of it.
//!
//! Where nothing is exported ([`crate::telemetry`]) a span is empty, and all that is asked of it costs a comparison. Otherwise it ends
//! when the last that holds it lets go, also when the step is given up in the middle, and is put into the exporter's queue. The
//! step that is under way is known to whatever it calls in the same task ([`Span::current`]).
//!
//! Attributes are ids, counts, and words from lists that the code or the settings hold. Never anything that a customer wrote, and
//! nothing that another server said but its status.

use std::{
    borrow::Cow,
    cell::RefCell,
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll},
    time::{Instant, SystemTime},
};

use pin_project_lite::pin_project;

use crate::{telemetry, trace::SpanContext};

thread_local! {
    /// Of the task that is being polled.
    static CURRENT: RefCell<Option<Arc<Active>>> = const { RefCell::new(None) };
}

fn current() -> Option<Arc<Active>> {
    CURRENT.with_borrow(Clone::clone)
}

/// Clones are the same span.
#[derive(Debug, Clone, Default)]
pub struct Span(Option<Arc<Active>>);

/// The values are those of OTLP.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Server = 2,
    Client = 3,
    Producer = 4,
    Consumer = 5,
}

/// What a span is a part of.
#[derive(Debug, Clone, Copy)]
pub enum Parent {
    /// The step that is under way here.
    Current,
    /// One in another process, or none: then a trace begins.
    Remote(Option<SpanContext>),
}

#[derive(Debug)]
struct Active {
    context: SpanContext,
    /// None if its trace is not sampled.
    recording: Option<Mutex<Recording>>,
}

/// What is exported of a span.
#[derive(Debug)]
pub struct Recording {
    pub context: SpanContext,
    pub parent: Option<u64>,
    pub kind: Kind,
    pub name: Cow<'static, str>,
    /// Nanoseconds since 1970.
    pub started: u64,
    pub ended: u64,
    pub attributes: Vec<(&'static str, Value)>,
    pub links: Vec<SpanContext>,
    pub has_failed: bool,
    began: Instant,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Value {
    Text(Cow<'static, str>),
    Integer(i64),
    Bool(bool),
}

impl Span {
    /// Begins one; its name is made only if it is recorded.
    pub fn begin<N: Into<Cow<'static, str>>>(
        kind: Kind,
        parent: Parent,
        name: impl FnOnce() -> N,
    ) -> Self {
        let Some(traces) = telemetry::traces() else {
            return Self(None);
        };
        let parent = match parent {
            Parent::Current => current().map(|current| current.context),
            Parent::Remote(parent) => parent,
        };
        let is_request = kind == Kind::Server;
        let next = SpanContext::next(parent);
        let context = traces.sampler.sampled(next, parent, is_request);
        let recording = context.is_sampled().then(|| {
            Mutex::new(Recording {
                context,
                parent: parent.map(|parent| parent.span_id),
                kind,
                name: name().into(),
                started: unix_nanos(SystemTime::now()),
                ended: 0,
                attributes: Vec::with_capacity(12),
                links: Vec::new(),
                has_failed: false,
                began: Instant::now(),
            })
        });
        Self(Some(Arc::new(Active { context, recording })))
    }

    /// The step that is under way here; an empty one if there is none.
    pub fn current() -> Self {
        if telemetry::traces().is_none() {
            return Self(None);
        }
        Self(current())
    }

    /// Where it stands, if anything is exported.
    pub fn context(&self) -> Option<SpanContext> {
        self.0.as_ref().map(|active| active.context)
    }

    /// Adds to it, if it is recorded.
    pub fn note(&self, note: impl FnOnce(&mut Recording)) {
        let recording = self.0.as_ref().and_then(|active| active.recording.as_ref());
        if let Some(recording) = recording {
            // No `.await` happens under it; a panic elsewhere leaves it whole.
            note(&mut recording.lock().unwrap_or_else(PoisonError::into_inner));
        }
    }

    /// The future as this step, which ends with it at the earliest.
    pub fn around<F: Future>(&self, future: F) -> Around<F> {
        Around {
            span: self.clone(),
            future,
        }
    }
}

impl Recording {
    /// Instead of what was set under that name before.
    pub fn set(&mut self, name: &'static str, value: impl Into<Value>) -> &mut Self {
        self.push(name, value.into());
        self
    }

    // Called from everywhere, and only while something is exported: once in the binary is enough.
    #[inline(never)]
    fn push(&mut self, name: &'static str, value: Value) {
        match self.attributes.iter_mut().find(|(set, _)| *set == name) {
            Some((_, set)) => *set = value,
            None => self.attributes.push((name, value)),
        }
    }

    pub fn set_some(&mut self, name: &'static str, value: Option<impl Into<Value>>) -> &mut Self {
        match value {
            Some(value) => self.set(name, value),
            None => self,
        }
    }

    /// It did not come to what it was for; `error` is from a list.
    pub fn fail(&mut self, error: impl Into<Value>) -> &mut Self {
        self.has_failed = true;
        self.set("error.type", error)
    }

    /// A later try did.
    pub fn succeed(&mut self) {
        self.has_failed = false;
        self.attributes.retain(|(name, _)| *name != "error.type");
    }

    /// It repeats that one, or is about it.
    pub fn link(&mut self, to: Option<SpanContext>) -> &mut Self {
        self.links.extend(to);
        self
    }
}

impl Drop for Active {
    fn drop(&mut self) {
        if let (Some(recording), Some(traces)) = (self.recording.take(), telemetry::traces()) {
            let mut recording = recording
                .into_inner()
                .unwrap_or_else(PoisonError::into_inner);
            let took = u64::try_from(recording.began.elapsed().as_nanos()).unwrap_or(u64::MAX);
            recording.ended = recording.started.saturating_add(took);
            traces.enqueue(recording);
        }
    }
}

pub(crate) fn unix_nanos(time: SystemTime) -> u64 {
    let since = time
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap_or_default();
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}

impl From<&'static str> for Value {
    fn from(text: &'static str) -> Self {
        Self::Text(Cow::Borrowed(text))
    }
}

impl From<String> for Value {
    fn from(text: String) -> Self {
        Self::Text(Cow::Owned(text))
    }
}

impl From<Cow<'static, str>> for Value {
    fn from(text: Cow<'static, str>) -> Self {
        Self::Text(text)
    }
}

impl From<u16> for Value {
    fn from(number: u16) -> Self {
        Self::Integer(number.into())
    }
}

impl From<u32> for Value {
    fn from(number: u32) -> Self {
        Self::Integer(number.into())
    }
}

impl From<i64> for Value {
    fn from(number: i64) -> Self {
        Self::Integer(number)
    }
}

impl From<bool> for Value {
    fn from(flag: bool) -> Self {
        Self::Bool(flag)
    }
}

pin_project! {
    /// A future that is a step.
    pub struct Around<F> {
        span: Span,
        #[pin]
        future: F,
    }
}

impl<F: Future> Future for Around<F> {
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        let this = self.project();
        let _entered = this.span.0.clone().map(Entered::new);
        this.future.poll(cx)
    }
}

/// As long as it lives, its span is the current one of the thread, and then whichever was before.
struct Entered(Option<Arc<Active>>);

impl Entered {
    fn new(active: Arc<Active>) -> Self {
        Self(CURRENT.replace(Some(active)))
    }
}

impl Drop for Entered {
    fn drop(&mut self) {
        CURRENT.set(self.0.take());
    }
}
