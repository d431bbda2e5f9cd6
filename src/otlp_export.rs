//! Sends spans and figures to an OpenTelemetry collector: OTLP over HTTP, with the binary's one HTTP client.
//!
//! One task from start to end, and none where nothing is exported. Neither an order nor a notification ever waits
//! for it: spans come by a queue of bounded length, figures are looked up. A collector that is away costs a line in the log a
//! minute and, after a while, the telemetry of that time; what was lost is counted. Its own requests are not traced.
//!
//! What is retried, and when, is as the OTLP specification says ("OTLP/HTTP Response"). A process that is killed loses what it has
//! not yet sent, which is what happened in the last seconds; one that is told to end sends it first, if that takes no longer than
//! [`FLUSH`].

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, SystemTime},
};

use futures_util::{FutureExt, future::join};
use reqwest::{
    Client,
    header::{CONTENT_TYPE, RETRY_AFTER},
};
use tokio::{
    sync::Notify,
    task::JoinHandle,
    time::{Instant, sleep, timeout},
};
use tracing::{info, warn};

use crate::{
    export_settings::{Endpoint, ExportSettings},
    http_client::{read_at_most, reason},
    metrics::{self, Figure},
    otlp::{self, Resource},
    retry, telemetry,
};

/// How long the end of the process may take for it.
pub const FLUSH: Duration = Duration::from_secs(2);

/// For how long the same is sent again. Meanwhile the queue takes what comes.
const PATIENCE: Duration = Duration::from_secs(60);

const FIRST_BACKOFF: Duration = Duration::from_secs(1);
const LONGEST_BACKOFF: Duration = Duration::from_secs(15);

/// Between two lines in the log about the same trouble.
const BETWEEN_WARNINGS: Duration = Duration::from_secs(60);

/// Of an answer; it says how many were rejected.
const LONGEST_ANSWER: usize = 4096;

/// The task, in which spans and figures go their own ways.
pub struct Exporter {
    stop: Arc<Stop>,
    task: JoinHandle<()>,
}

/// Whether the process is ending.
#[derive(Default)]
struct Stop {
    is_asked: AtomicBool,
    asked: Notify,
}

impl Stop {
    fn ask(&self) {
        self.is_asked.store(true, Ordering::Release);
        self.asked.notify_waiters();
    }

    fn is_asked(&self) -> bool {
        self.is_asked.load(Ordering::Acquire)
    }

    async fn wait(&self) {
        let asked = self.asked.notified();
        if !self.is_asked() {
            asked.await;
        }
    }
}

impl Exporter {
    /// Turns telemetry on, and begins to export it. It connects to nothing before there is something to send.
    pub fn start(settings: ExportSettings, http: &Client) -> Self {
        telemetry::turn_on(&settings);
        let stop = Arc::<Stop>::default();
        let way = |signal, endpoint: Option<Endpoint>| {
            endpoint.map(|endpoint| Way {
                signal,
                endpoint,
                resource: settings.resource.clone(),
                http: http.clone(),
                stop: Arc::clone(&stop),
                trouble: Trouble::default(),
            })
        };
        let spans = way("traces", settings.traces);
        let figures = way("metrics", settings.metrics);
        let export = join(
            export_spans(spans, settings.delay),
            export_figures(figures, settings.interval),
        );
        let task = tokio::spawn(export.map(drop).boxed());
        Self { stop, task }
    }

    /// Sends what there is, and ends.
    pub async fn flush(self) {
        self.stop.ask();
        let why = match timeout(FLUSH, self.task).await {
            Ok(Ok(_)) => return,
            Ok(Err(_)) => "the exporter has panicked",
            Err(_) => "the collector has not answered in time",
        };
        warn!("the last telemetry is lost: {why}");
    }
}

async fn export_spans(way: Option<Way>, delay: Duration) {
    let (Some(mut way), Some(traces)) = (way, telemetry::traces()) else {
        return;
    };
    loop {
        tokio::select! {
            biased;
            () = way.stop.wait() => {}
            () = traces.is_worth_it() => {}
            () = sleep(delay) => {}
        }
        let is_over = way.stop.is_asked();
        loop {
            let (batch, overflown) = traces.take();
            if overflown > 0 {
                way.trouble.say(overflown, "the queue was full");
            }
            if batch.is_empty() {
                break;
            }
            let body = otlp::traces(&way.resource, &batch);
            way.send(body, batch.len() as u64).await;
        }
        if is_over {
            return;
        }
    }
}

async fn export_figures(way: Option<Way>, interval: Duration) {
    let (Some(mut way), Some(registry)) = (way, telemetry::metrics()) else {
        return;
    };
    loop {
        let _ = timeout(interval, way.stop.wait()).await;
        let is_over = way.stop.is_asked();
        let snapshot = registry.collect();
        if !snapshot.points.is_empty() {
            let body = otlp::metrics(&way.resource, &snapshot);
            way.send(body, snapshot.points.len() as u64).await;
        }
        if is_over {
            return;
        }
    }
}

/// The way of one kind to the collector.
struct Way {
    signal: &'static str,
    endpoint: Endpoint,
    resource: Resource,
    http: Client,
    stop: Arc<Stop>,
    trouble: Trouble,
}

/// What a request came to.
enum Sent {
    /// The collector has it, but for so many.
    Taken {
        rejected: u64,
    },
    Again {
        why: String,
        wait: Option<Duration>,
    },
    Never {
        why: String,
    },
}

impl Way {
    /// Sends it until the collector has it, or does not want it, or the patience is over. A collector that asks for more time
    /// than this one has left does not get the next at once either.
    async fn send(&mut self, body: Vec<u8>, count: u64) {
        let body = bytes::Bytes::from(body);
        let started = Instant::now();
        let mut retries = 0;
        loop {
            let (why, wait) = match self.attempt(body.clone()).await {
                Sent::Taken { rejected: 0 } => return self.trouble.end(),
                Sent::Taken { rejected } => {
                    // It cannot have rejected more than it got.
                    return self.lost(rejected.min(count), "the collector rejected them");
                }
                Sent::Never { why } => return self.lost(count, &why),
                Sent::Again { why, wait } => (why, wait),
            };
            let backoff = retry::backoff(FIRST_BACKOFF, LONGEST_BACKOFF, retries, retry::chance());
            let pause = wait.unwrap_or_default().max(backoff);
            retries += 1;
            let is_last = self.stop.is_asked() || started.elapsed() + pause > PATIENCE;
            if is_last {
                self.lost(count, &why);
            } else {
                self.trouble.say(0, &why);
            }
            // At the end of the process it, or the next, is tried once more, at once.
            let _ = timeout(pause.min(PATIENCE), self.stop.wait()).await;
            if is_last {
                return;
            }
        }
    }

    async fn attempt(&self, body: bytes::Bytes) -> Sent {
        let request = self
            .http
            .post(self.endpoint.url.clone())
            .headers(self.endpoint.headers.clone())
            .header(CONTENT_TYPE, "application/x-protobuf")
            .timeout(self.endpoint.timeout)
            .body(body);
        let mut answer = match request.send().await {
            Ok(answer) => answer,
            Err(error) if error.is_builder() => {
                return Sent::Never {
                    why: reason(&error),
                };
            }
            Err(error) => {
                return Sent::Again {
                    why: reason(&error),
                    wait: None,
                };
            }
        };
        let status = answer.status();
        let wait = answer
            .headers()
            .get(RETRY_AFTER)
            .and_then(|value| value.to_str().ok())
            .and_then(|value| retry::retry_after(value, SystemTime::now()));
        // Reading to the end gives the connection back to the pool.
        let body = read_at_most(&mut answer, LONGEST_ANSWER)
            .await
            .unwrap_or_default();
        let why = format!("the collector answered {}", status.as_u16());
        match status.as_u16() {
            200..300 => Sent::Taken {
                rejected: otlp::rejected(&body),
            },
            429 | 502..=504 => Sent::Again { why, wait },
            _ => Sent::Never { why },
        }
    }

    fn lost(&mut self, count: u64, why: &str) {
        metrics::add(Figure::Dropped, count, &[("signal", self.signal)]);
        self.trouble.say(count, why);
    }
}

/// What is wrong with the way, told now and then.
#[derive(Default)]
struct Trouble {
    said: Option<Instant>,
    /// Not yet told.
    lost: u64,
    is_on: bool,
}

impl Trouble {
    fn say(&mut self, lost: u64, why: &str) {
        self.is_on = true;
        self.lost += lost;
        if self
            .said
            .is_some_and(|said| said.elapsed() < BETWEEN_WARNINGS)
        {
            return;
        }
        self.said = Some(Instant::now());
        let lost = std::mem::take(&mut self.lost);
        warn!(lost, "telemetry does not reach the collector: {why}");
    }

    fn end(&mut self) {
        if std::mem::take(&mut self.is_on) {
            let lost = std::mem::take(&mut self.lost);
            info!(lost, "telemetry reaches the collector");
        }
    }
}
