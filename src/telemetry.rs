//! Whether anything is exported, and the ways of spans and figures to the exporter.
//!
//! Off unless [`crate::export_settings`] has an endpoint, and then there is nothing of it but the comparison by which everybody finds that out. What is
//! counted and recorded anywhere in the process comes together here, as the lines of the log do in `tracing`.

use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};

use tokio::sync::Notify;

use crate::{
    export_settings::ExportSettings,
    metrics::{self, Figure, Registry},
    sampler::Sampler,
    span::Recording,
};

static TELEMETRY: OnceLock<Telemetry> = OnceLock::new();

#[derive(Debug)]
struct Telemetry {
    traces: Option<Traces>,
    metrics: Option<Registry>,
}

/// Whether nothing is exported.
pub fn is_off() -> bool {
    TELEMETRY.get().is_none()
}

/// Where spans go; nothing if they go nowhere.
pub fn traces() -> Option<&'static Traces> {
    TELEMETRY.get()?.traces.as_ref()
}

/// Where figures go; nothing if they go nowhere.
pub fn metrics() -> Option<&'static Registry> {
    TELEMETRY.get()?.metrics.as_ref()
}

/// Turns it on, for the whole process and its life. A second call changes nothing.
pub(crate) fn turn_on(settings: &ExportSettings) {
    let traces = settings.traces.is_some().then(|| Traces {
        sampler: settings.sampler,
        queue: Mutex::default(),
        room: settings.queue,
        batch: settings.batch,
        is_worth_it: Notify::new(),
    });
    let metrics = settings
        .metrics
        .is_some()
        .then(|| Registry::new(settings.is_delta));
    let _ = TELEMETRY.set(Telemetry { traces, metrics });
}

/// The way of spans into the exporter.
#[derive(Debug)]
pub struct Traces {
    pub sampler: Sampler,
    queue: Mutex<Queue>,
    room: usize,
    batch: usize,
    /// There are as many as go into one request.
    is_worth_it: Notify,
}

#[derive(Debug, Default)]
struct Queue {
    ended: Vec<Recording>,
    overflown: u64,
}

impl Traces {
    /// Never waits: what finds no room is counted, and gone.
    pub(crate) fn enqueue(&self, recording: Recording) {
        let mut queue = self.lock();
        if queue.ended.len() >= self.room {
            queue.overflown += 1;
            drop(queue);
            metrics::add(Figure::Dropped, 1, &[("signal", "traces")]);
            return;
        }
        queue.ended.push(recording);
        if queue.ended.len() >= self.batch {
            self.is_worth_it.notify_one();
        }
    }

    /// Ends when a request could be filled.
    pub(crate) async fn is_worth_it(&self) {
        self.is_worth_it.notified().await;
    }

    /// As many as go into one request, the oldest first, and how many have found no room since this was asked last.
    pub(crate) fn take(&self) -> (Vec<Recording>, u64) {
        let mut queue = self.lock();
        let end = queue.ended.len().min(self.batch);
        let rest = queue.ended.split_off(end);
        let batch = std::mem::replace(&mut queue.ended, rest);
        (batch, std::mem::take(&mut queue.overflown))
    }

    /// No `.await` happens under it; a panic elsewhere leaves it whole.
    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
