//! Invocations: their log lines, their time limit, and the default exchange with the handler.
//!
//! Every invocation, whatever its trigger, goes through [`Invoker::run`], which prints what `func start` prints and
//! enforces `functionTimeout`. At the limit the host kills the handler, and with it every other invocation in
//! flight. An answer that would leave the host waiting for that limit is treated so at once.

use std::{
    sync::{
        OnceLock,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use axum::{
    body::Body,
    http::{Request, header},
};
use bytes::Bytes;
use serde_json::Value;
use uuid::Uuid;

use crate::{
    answer::{Answer, HandlerResult, interpret},
    console,
    handler_client::{Chunked, HandlerClient},
    time_span,
    worker::Worker,
};

/// What devhost says it is, in the place of the host's version.
pub const HOST_VERSION: &str = "4.1052.200.0";

/// The largest answer that is read.
const MOST_BYTES: usize = 200 * 1024 * 1024;

/// Invokes functions of the one handler.
#[derive(Debug)]
pub struct Invoker {
    pub worker: Worker,
    pub client: HandlerClient,
    /// `None` is without bound.
    pub function_timeout: Option<Duration>,
    chunked: AtomicBool,
}

/// Why an invocation failed, in the host's words.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Failure {
    /// It failed by itself.
    Failed(String),
    /// It never ended (or never would have): the handler has to be killed.
    NeverEnds(String),
}

/// An invocation that runs; when it is dropped before its end, nobody waits for the answer any more.
struct Running<'a> {
    function: &'a str,
    id: Uuid,
    started: Instant,
    worker: &'a Worker,
    has_ended: bool,
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        // At devhost's own end everything is dropped.
        if !self.has_ended && !self.worker.is_stopping() {
            console::error(format_args!(
                "Executed 'Functions.{}' (Failed, the caller went away, Id={}, Duration={}ms)",
                self.function,
                self.id,
                self.started.elapsed().as_millis()
            ));
        }
    }
}

impl Failure {
    pub fn words(&self) -> &str {
        match self {
            Self::Failed(words) | Self::NeverEnds(words) => words,
        }
    }
}

impl Invoker {
    pub fn new(worker: Worker, client: HandlerClient, function_timeout: Option<Duration>) -> Self {
        Self {
            worker,
            client,
            function_timeout,
            chunked: AtomicBool::new(true),
        }
    }

    /// Runs one invocation: waits for the handler, logs, and watches the time. `details` is a further line about
    /// the trigger, or empty.
    pub async fn run<T, F: Future<Output = Result<T, Failure>>>(
        &self,
        function: &str,
        reason: &str,
        details: &str,
        invoke: impl FnOnce(Uuid) -> F,
    ) -> Result<T, Failure> {
        let id = Uuid::new_v4();
        let _in_flight = self.client.enter();
        let mut running = Running {
            function,
            id,
            started: Instant::now(),
            worker: &self.worker,
            has_ended: false,
        };
        console::info(format_args!(
            "Executing 'Functions.{function}' (Reason='{reason}', Id={id})"
        ));
        if !details.is_empty() {
            console::info(format_args!("Trigger Details: {details}"));
        }
        let mut generation = None;
        let result = match self.worker.ready().await {
            Err(words) => Err(Failure::Failed(words)),
            Ok(ready) => {
                generation = Some(ready);
                match self.function_timeout {
                    None => invoke(id).await,
                    Some(limit) => tokio::time::timeout(limit, invoke(id))
                        .await
                        .unwrap_or_else(|_| Err(self.timed_out(function, id, limit))),
                }
            }
        };
        running.has_ended = true;
        let took = running.started.elapsed().as_millis();
        if let (Err(Failure::NeverEnds(words)), Some(generation)) = (&result, generation) {
            console::error(format_args!(
                "{words}\nA function timeout has occurred. Restarting worker process executing invocationId '{id}'. \
                 Every other invocation in flight fails with it."
            ));
            self.worker.kill_and_restart(generation).await;
        }
        match &result {
            Ok(_) => console::info(format_args!(
                "Executed 'Functions.{function}' (Succeeded, Id={id}, Duration={took}ms)"
            )),
            Err(Failure::Failed(words)) => console::error(format_args!(
                "Executed 'Functions.{function}' (Failed, Id={id}, Duration={took}ms)\n{words}"
            )),
            Err(Failure::NeverEnds(_)) => console::error(format_args!(
                "Executed 'Functions.{function}' (Failed, Id={id}, Duration={took}ms)"
            )),
        }
        result
    }

    /// The default exchange: `POST /{function}` with the envelope. To be called inside [`Invoker::run`].
    ///
    /// The body is chunked, as in Azure, and every other time has a length, as under Core Tools: a handler
    /// has to take both.
    pub async fn exchange(
        &self,
        function: &str,
        id: Uuid,
        envelope: &Value,
    ) -> Result<HandlerResult, Failure> {
        self.exchange_noting_status(function, id, envelope, &OnceLock::new())
            .await
    }

    /// The default exchange, for a caller who wants to know the status that the handler answered, if it did.
    pub async fn exchange_noting_status(
        &self,
        function: &str,
        id: Uuid,
        envelope: &Value,
        answered: &OnceLock<u16>,
    ) -> Result<HandlerResult, Failure> {
        let body = Bytes::from(envelope.to_string());
        let body = if self.chunked.fetch_xor(true, Ordering::Relaxed) {
            Chunked::body(body)
        } else {
            Body::from(body)
        };
        let request = Request::post(format!("/{function}"))
            .header("X-Azure-Functions-HostVersion", HOST_VERSION)
            .header("X-Azure-Functions-InvocationId", id.to_string())
            .header(
                header::USER_AGENT,
                format!("Azure-Functions-Host/{HOST_VERSION}"),
            )
            .header(header::CONTENT_TYPE, "application/json; charset=utf-8")
            .body(body)
            .map_err(|error| Failure::Failed(error.to_string()))?;
        let response = self
            .client
            .send(request)
            .await
            .map_err(|error| broken(&error))?;
        let status = response.status();
        answered.get_or_init(|| status.as_u16());
        let content_type = response
            .headers()
            .get(header::CONTENT_TYPE)
            .and_then(|value| value.to_str().ok())
            .map(str::to_owned);
        let body = axum::body::to_bytes(response.into_body(), MOST_BYTES)
            .await
            .map_err(|error| broken(&error))?;
        match interpret(status, content_type.as_deref(), &body) {
            Answer::Result(result) => {
                for line in &result.logs {
                    console::info(line);
                }
                Ok(result)
            }
            Answer::Failed(words) => Err(Failure::Failed(words)),
            Answer::Hang(what) => Err(self.would_hang(function, &what)),
        }
    }

    fn timed_out(&self, function: &str, id: Uuid, limit: Duration) -> Failure {
        Failure::NeverEnds(format!(
            "Microsoft.Azure.WebJobs.Host.FunctionTimeoutException: Timeout value of {} was exceeded by function: \
             Functions.{function} (Id: '{id}')",
            time_span::format(limit)
        ))
    }

    fn would_hang(&self, function: &str, what: &str) -> Failure {
        let limit = match self.function_timeout {
            Some(limit) => format!(
                "until functionTimeout ({}), and then",
                time_span::format(limit)
            ),
            None => "for ever, because functionTimeout is unbounded; with a limit".to_owned(),
        };
        Failure::NeverEnds(format!(
            "Functions.{function} answered {what}. In Azure this invocation HANGS {limit} the host kills the handler \
             and every other invocation in flight. devhost does that at once instead of waiting. \
             Answer at least {{}} with Content-Type: application/json."
        ))
    }
}

/// The connection broke before the answer was complete.
fn broken(error: &dyn std::error::Error) -> Failure {
    let mut words = format!("System.Net.Http.HttpRequestException: {error}");
    let mut source = error.source();
    while let Some(cause) = source {
        words.push_str(&format!(" ({cause})"));
        source = cause.source();
    }
    Failure::Failed(words)
}
