//! The handler's process: starting it, knowing when it is ready, and starting it again when it ends.
//!
//! One task owns the process. It polls `GET /` until something answers, passes the handler's output on, and judges
//! each end as the Functions host does: exit 0 and 200 and a kill after a timeout restart it without counting;
//! any other end, and not getting ready in time, count, and the third within half an hour of the one
//! before stops the host. Restarts use the same port.

use std::{
    io,
    process::ExitStatus,
    time::{Duration, Instant},
};

use axum::body::Body;
use tokio::{
    process::Child,
    sync::{mpsc, watch},
};
use uuid::Uuid;

use crate::{
    console,
    handler_client::HandlerClient,
    handler_process::{Launch, Spawner, pass_output_on},
    stopping::{Reason, Stopping},
};

/// How often the host tries `GET /`.
const POLL: Duration = Duration::from_millis(25);
/// A gap this long between two errors makes the host forget the earlier ones.
const ERRORS_FORGOTTEN_AFTER: Duration = Duration::from_secs(30 * 60);
/// At this many errors the host stops.
const MOST_ERRORS: usize = 3;
/// The host restarts a handler that exits with 0 at once and for ever; this keeps such a loop readable.
const PAUSE_AFTER_EXIT_0: Duration = Duration::from_millis(250);

/// What the process is doing. The number tells one process from the next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    Starting,
    Ready(u64),
    Restarting,
    /// It will not come back.
    Ended,
}

/// A handle to the running handler.
#[derive(Debug, Clone)]
pub struct Worker {
    state: watch::Receiver<State>,
    kills: mpsc::UnboundedSender<u64>,
    initialization_timeout: Duration,
    stopping: Stopping,
}

impl Worker {
    /// Starts the handler and the task that looks after it.
    pub fn start(launch: Launch, client: HandlerClient, stopping: Stopping) -> io::Result<Self> {
        let (state_sender, state) = watch::channel(State::Starting);
        let (kills, kills_receiver) = mpsc::unbounded_channel();
        let worker = Self {
            state,
            kills,
            initialization_timeout: launch.initialization_timeout,
            stopping: stopping.clone(),
        };
        let supervisor = Supervisor {
            spawner: Spawner::start()?,
            launch,
            client,
            state: state_sender,
            kills: kills_receiver,
            stopping,
            generation: 0,
            was_ready: false,
        };
        tokio::spawn(supervisor.run());
        Ok(worker)
    }

    /// Waits until the handler is ready, as an invocation does: four times as long as it may take to start, and
    /// then the host stops. Gives the number of the process that is ready.
    pub async fn ready(&self) -> Result<u64, String> {
        let mut state = self.state.clone();
        let waited = tokio::time::timeout(
            4 * self.initialization_timeout,
            state.wait_for(|state| matches!(state, State::Ready(_) | State::Ended)),
        )
        .await;
        match waited.map(|state| state.map(|state| *state)) {
            Ok(Ok(State::Ready(generation))) => Ok(generation),
            Ok(_) => Err("the handler has ended and the host is stopping".to_owned()),
            Err(_) => {
                let words = format!(
                    "Final functionDispatcher state: {:?}. Initialization timed out and host is shutting down",
                    *self.state.borrow()
                );
                console::error(&words);
                self.stopping.stop(Reason::HostStopped(words.clone()));
                Err(words)
            }
        }
    }

    /// Whether the handler answers now.
    pub fn is_ready(&self) -> bool {
        matches!(*self.state.borrow(), State::Ready(_))
    }

    /// Whether devhost is about to end, and the handler with it.
    pub fn is_stopping(&self) -> bool {
        self.stopping.is_stopping()
    }

    /// Kills that process, if it still runs, and starts the next one; this does not count as an error. Afterwards
    /// nobody takes the killed process for one that is ready.
    pub async fn kill_and_restart(&self, generation: u64) {
        let mut state = self.state.clone();
        // Without a receiver the handler has ended for good.
        if self.kills.send(generation).is_ok() {
            drop(
                state
                    .wait_for(|state| *state != State::Ready(generation))
                    .await,
            );
        }
    }

    /// Waits until the process is gone for good, after devhost began to stop.
    pub async fn ended(&self) {
        let mut state = self.state.clone();
        drop(state.wait_for(|state| *state == State::Ended).await);
    }
}

struct Supervisor {
    spawner: Spawner,
    launch: Launch,
    client: HandlerClient,
    state: watch::Sender<State>,
    kills: mpsc::UnboundedReceiver<u64>,
    stopping: Stopping,
    generation: u64,
    was_ready: bool,
}

/// How one process ended.
enum End {
    Exited(u32, ExitStatus),
    NotStarted(io::Error),
    NotReady,
    Killed,
    Stopping,
}

impl Supervisor {
    async fn run(mut self) {
        let mut errors = ErrorCount::default();
        loop {
            self.generation += 1;
            let end = self.run_once().await;
            if matches!(end, End::Stopping) || self.stopping.is_stopping() {
                break;
            }
            self.state.send_replace(State::Restarting);
            if self.counts_as_error(end).await && errors.add(Instant::now()) {
                console::error(
                    "Exceeded http worker restart retry count. Shutting down Functions Host",
                );
                self.stopping.stop(Reason::HostStopped(
                    "the handler ended three times; its last lines are above".to_owned(),
                ));
                break;
            }
        }
        self.state.send_replace(State::Ended);
    }

    /// Says what happened, and whether the host counts it.
    async fn counts_as_error(&self, end: End) -> bool {
        match end {
            End::Stopping | End::Killed => false,
            End::NotStarted(error) => {
                console::error(format_args!(
                    "Failed to start http worker process: {}: {error}",
                    self.launch.paths()
                ));
                true
            }
            End::NotReady => {
                console::error(format_args!(
                    "Failed to start http worker process. TimeoutException: Initializing HttpWorker timed out. \
                     (Nothing answered GET http://127.0.0.1:{}/; a handler listens on 127.0.0.1 at \
                     FUNCTIONS_CUSTOMHANDLER_PORT.)",
                    self.launch.port
                ));
                true
            }
            End::Exited(process, status) => match exit_code(status) {
                0 => {
                    console::warning(format_args!(
                        "The handler (pid {process}) exited with code 0. New hosts restart it, for ever and without \
                         a pause; hosts before 2026 never notice, and every invocation fails from then on."
                    ));
                    tokio::time::sleep(PAUSE_AFTER_EXIT_0).await;
                    false
                }
                200 => {
                    console::info("Language Worker Process exited and needs to be restarted.");
                    false
                }
                code => {
                    console::error(format_args!(
                        "Language Worker Process exited. Pid={process}.\n{} exited with code {code} (0x{code:X})",
                        self.launch.name()
                    ));
                    true
                }
            },
        }
    }

    async fn run_once(&mut self) -> End {
        let worker_id = Uuid::new_v4();
        if let Err(error) = self.launch.make_working_directory() {
            return End::NotStarted(error);
        }
        self.client.forget_connections();
        let mut child = match self.spawner.spawn(self.launch.command(worker_id)).await {
            Ok(child) => child,
            Err(error) => return End::NotStarted(error),
        };
        let process = child.id().unwrap_or_default();
        let output = pass_output_on(&mut child, self.launch.std_error_is_errors_only);
        let stopping = self.stopping.clone();
        let ready = tokio::select! {
            status = child.wait() => {
                output.ended().await;
                return exited(process, status);
            }
            () = wait_until_ready(&self.client, &self.launch) => true,
            () = tokio::time::sleep(self.launch.initialization_timeout) => false,
            _ = stopping.stopped() => false,
        };
        if !ready {
            kill(&mut child).await;
            return if self.stopping.is_stopping() {
                End::Stopping
            } else {
                End::NotReady
            };
        }
        self.state.send_replace(State::Ready(self.generation));
        // At the first time the line with the URL says so.
        if self.was_ready {
            console::info("Worker process started and initialized.");
        }
        self.was_ready = true;
        let client = self.client.clone();
        let drained = client.drained_after(async {
            if stopping.stopped().await == Reason::Signal {
                console::plain("Invocations in flight may finish.");
            }
        });
        tokio::pin!(drained);
        loop {
            tokio::select! {
                status = child.wait() => {
                    self.state.send_replace(State::Restarting);
                    output.ended().await;
                    return exited(process, status);
                }
                Some(generation) = self.kills.recv() => {
                    if generation == self.generation {
                        self.state.send_replace(State::Restarting);
                        kill(&mut child).await;
                        return End::Killed;
                    }
                }
                () = &mut drained => {
                    // As the host does: no SIGTERM, no word; the invocations in flight had their time.
                    kill(&mut child).await;
                    return End::Stopping;
                }
            }
        }
    }
}

fn exited(process: u32, status: io::Result<ExitStatus>) -> End {
    match status {
        Ok(status) => End::Exited(process, status),
        Err(error) => End::NotStarted(error),
    }
}

async fn kill(child: &mut Child) {
    // It fails only when the process has ended already.
    drop(child.kill().await);
}

/// Any status is an answer, and so is a broken one; only a connection that cannot be made is not.
async fn wait_until_ready(client: &HandlerClient, launch: &Launch) {
    let started = Instant::now();
    let mut next_word = Duration::from_secs(5);
    loop {
        let request = axum::http::Request::get("/").body(Body::empty());
        if let Ok(request) = request {
            match client.send(request).await {
                Err(error) if error.is_connect() => {}
                Ok(_) | Err(_) => return,
            }
        }
        if started.elapsed() >= next_word {
            next_word += Duration::from_secs(5);
            console::info(format_args!(
                "Waiting for HttpWorker to be initialized. Request to: http://127.0.0.1:{}/ failing with exception \
                 message: Connection refused",
                launch.port
            ));
        }
        tokio::time::sleep(POLL).await;
    }
}

/// .NET's exit code: 128 and the signal's number for a process that was killed.
fn exit_code(status: ExitStatus) -> i32 {
    #[cfg(unix)]
    if let Some(signal) = std::os::unix::process::ExitStatusExt::signal(&status) {
        return 128 + signal;
    }
    status.code().unwrap_or(-1)
}

/// The errors that have not been forgotten.
#[derive(Debug, Default)]
pub struct ErrorCount {
    count: usize,
    last: Option<Instant>,
}

impl ErrorCount {
    /// Adds one; true when there are now too many.
    pub fn add(&mut self, now: Instant) -> bool {
        if self
            .last
            .is_some_and(|last| now.duration_since(last) > ERRORS_FORGOTTEN_AFTER)
        {
            self.count = 0;
        }
        self.last = Some(now);
        self.count += 1;
        self.count >= MOST_ERRORS
    }
}
