//! The process that the Functions host starts: settings, listener, serve until a signal. With arguments it is the
//! operator's command instead.

use std::{
    ffi::OsString,
    io::{self, Write},
    net::{Ipv4Addr, SocketAddr},
    process::ExitCode,
    time::Duration,
};

use orderup::{
    App, audit,
    command_line::{self, Command},
    config::{ConfigError, Settings},
    dead_letters,
    export_settings::ExportSettings,
    otlp_export::Exporter,
    router,
};
use tokio::{
    net::TcpListener,
    signal::unix::{SignalKind, signal},
    sync::oneshot,
};
use tracing::{Metadata, Subscriber, error, info, warn};
use tracing_subscriber::{
    Layer,
    layer::{Context, SubscriberExt},
    util::SubscriberInitExt,
};

/// With [`orderup::otlp_export::FLUSH`] below the 30 seconds after which Kubernetes kills; no invocation of ours takes so long
/// unless somebody stalls.
const LONGEST_STOP: Duration = Duration::from_secs(27);

const PORT: &str = "FUNCTIONS_CUSTOMHANDLER_PORT";

#[tokio::main]
async fn main() -> ExitCode {
    let mut arguments = std::env::args_os().skip(1).peekable();
    if arguments.peek().is_some() {
        return command(arguments).await;
    }
    // The host takes each line on stdout for information and each on stderr for an error, so the level is in the line.
    tracing_subscriber::fmt()
        .json()
        .flatten_event(true)
        .with_current_span(true)
        .with_span_list(false)
        .with_target(false)
        .with_writer(io::stdout)
        .finish()
        .with(OwnLines)
        .init();
    // The message of a panic may hold anything, a customer's name for one; its place is enough to find it.
    std::panic::set_hook(Box::new(|panic| {
        let place = panic.location().map(ToString::to_string);
        error!(place, "a function panicked");
    }));
    match serve().await {
        Ok(()) => ExitCode::SUCCESS,
        Err(problems) => {
            for problem in problems {
                eprintln!("orderup cannot start: {problem}");
            }
            ExitCode::FAILURE
        }
    }
}

/// Only what we say ourselves: a dependency's line may hold a URL, a header or a name.
struct OwnLines;

impl<S: Subscriber> Layer<S> for OwnLines {
    fn enabled(&self, metadata: &Metadata<'_>, _: Context<'_, S>) -> bool {
        metadata.target().starts_with("orderup")
    }
}

/// What an operator asks for, who reads stderr and not a log.
async fn command(arguments: impl Iterator<Item = OsString>) -> ExitCode {
    std::panic::set_hook(Box::new(|panic| {
        let place = panic.location().map(ToString::to_string);
        eprintln!(
            "orderup: a fault of its own at {}",
            place.unwrap_or_default()
        );
    }));
    let (text, code) = match command_line::parse(arguments) {
        Ok(Command::DeadLetters(command)) => return dead_letters::run(command).await,
        Ok(Command::Audit(command)) => return audit::run(command).await,
        Ok(Command::Help) => (command_line::USAGE.to_owned(), ExitCode::SUCCESS),
        Ok(Command::Version) => {
            let version = concat!("orderup ", env!("CARGO_PKG_VERSION"), "\n");
            (version.to_owned(), ExitCode::SUCCESS)
        }
        Err(error) => {
            eprintln!("orderup: {error}; see `orderup --help`");
            return ExitCode::from(2);
        }
    };
    // Whoever closed the pipe has read enough.
    let _ = io::stdout().write_all(text.as_bytes());
    code
}

async fn serve() -> Result<(), Vec<String>> {
    let settings = Settings::from_env();
    let port = port(&settings);
    let app = App::from_settings(&settings);
    let export = ExportSettings::from_settings(&settings);
    let (port, app, export) = match (port, app, export) {
        (Ok(port), Ok(app), Ok(export)) => (port, app, export),
        (port, app, export) => {
            let errors = port
                .err()
                .into_iter()
                .chain(app.err().into_iter().flatten())
                .chain(export.err().into_iter().flatten());
            return Err(errors.map(|error| error.to_string()).collect());
        }
    };
    // The host connects to 127.0.0.1, never to ::1.
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let listener = TcpListener::bind(address).await.map_err(|error| {
        vec![format!(
            "{address}, from {PORT}, cannot be listened on: {error}"
        )]
    })?;
    let (stopping, stopped) = oneshot::channel();
    let stop =
        stop(stopping).map_err(|error| vec![format!("signals cannot be received: {error}")])?;
    let exporter = export.map(|export| Exporter::start(export, &app.http));
    info!("listening on {address}");
    app.announce_what_is_off();
    tokio::select! {
        served = axum::serve(listener, router(app)).with_graceful_shutdown(stop) => {
            served.map_err(|error| vec![error.to_string()])?;
            info!("stopped");
        }
        () = grace(stopped) => warn!("stopped with requests in flight; the broker delivers theirs again"),
    }
    if let Some(exporter) = exporter {
        exporter.flush().await;
    }
    Ok(())
}

/// Ends when a stop has taken too long.
async fn grace(stopped: oneshot::Receiver<()>) {
    match stopped.await {
        Ok(()) => tokio::time::sleep(LONGEST_STOP).await,
        Err(_) => std::future::pending().await,
    }
}

fn port(settings: &Settings) -> Result<u16, ConfigError> {
    let expected = "the port to listen on, which the Functions host sets";
    settings
        .required(PORT, expected)?
        .parse()
        .ok()
        .filter(|port| *port != 0)
        .ok_or_else(|| ConfigError::invalid(PORT, "it is not a port number", expected))
}

/// Ends with the first SIGTERM or SIGINT; requests in flight are then finished.
fn stop(stopping: oneshot::Sender<()>) -> io::Result<impl Future<Output = ()>> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    Ok(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        info!("finishing the requests in flight");
        // Nobody listens when everything has ended already.
        let _ = stopping.send(());
    })
}
