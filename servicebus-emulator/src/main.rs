//! Runs the namespace by itself.
//!
//! It reads the topology, opens the store, listens on 127.0.0.1 and says so on stdout, until SIGINT or SIGTERM.
//! A failure is one line on stderr and exit code 1; that nothing can be stored any more, and that it can again, is one
//! line on stderr each.

use std::{
    fmt::{Display, Write as _},
    io::{self, ErrorKind, Write as _},
    net::{Ipv4Addr, SocketAddr},
    path::PathBuf,
    process::ExitCode,
    time::Duration,
};

use clap::Parser;
use servicebus_emulator::{
    Limits, MAX_MESSAGE_SIZE, OpenError, ServiceBus, Topology, TopologyError, amqp,
    rest::{self, SharedAccessPolicy},
};
use tokio::{
    net::TcpListener,
    signal::unix::{SignalKind, signal},
    sync::watch,
};

/// A local, durable Azure Service Bus namespace: AMQP, the REST data plane and the management API.
#[derive(Parser)]
#[command(version)]
struct Arguments {
    /// The entities, in the format of the official emulator's Config.json.
    #[arg(long, value_name = "FILE", default_value = "servicebus.json")]
    config: PathBuf,

    /// The folder that keeps messages between runs; without it they are kept in memory.
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,

    /// The port of the REST data plane; 0 takes any free one.
    #[arg(long, value_name = "PORT", default_value_t = 5300)]
    http_port: u16,

    /// The port of AMQP, which takes HTTP as well; 0 takes any free one.
    #[arg(long, value_name = "PORT", default_value_t = 5672)]
    amqp_port: u16,

    /// The largest message, in bytes: 256 KB as in the Standard tier, or up to 100 MB as in Premium.
    #[arg(long, value_name = "BYTES", default_value_t = MAX_MESSAGE_SIZE, value_parser = message_size)]
    max_message_size: usize,
}

/// The largest that Azure takes, in bytes.
const LARGEST_MESSAGE: usize = 104_857_600;

fn message_size(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(size) if (1_024..=LARGEST_MESSAGE).contains(&size) => Ok(size),
        _ => Err(format!(
            "it must be a number from 1024 to {LARGEST_MESSAGE}"
        )),
    }
}

#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error("{0}; name the file that has the entities with --config")]
    Config(TopologyError),
    #[error(transparent)]
    Topology(TopologyError),
    #[error(transparent)]
    Open(#[from] OpenError),
    #[error("port {0} is in use: choose another one with {1}")]
    PortInUse(u16, &'static str),
    #[error("cannot listen on 127.0.0.1:{0}: {1}")]
    Listen(u16, io::Error),
    #[error("the entities cannot be listed: {0}")]
    Entities(#[from] servicebus_emulator::Error),
    #[error("the namespace has ended through a fault of its own")]
    Ended,
    #[error("{0}")]
    Io(#[from] io::Error),
}

/// How long the last answers may take after a signal.
const LAST_ANSWERS: Duration = Duration::from_secs(1);

#[tokio::main]
async fn main() -> ExitCode {
    match run(Arguments::parse()).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            say(&failure);
            ExitCode::FAILURE
        }
    }
}

async fn run(arguments: Arguments) -> Result<(), Failure> {
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let topology = Topology::read(&arguments.config).map_err(|error| match error {
        TopologyError::Unreadable { .. } => Failure::Config(error),
        TopologyError::Invalid { .. } => Failure::Topology(error),
    })?;
    let http = listen(arguments.http_port, "--http-port").await?;
    let amqp = listen(arguments.amqp_port, "--amqp-port").await?;
    let limits = Limits {
        max_message_size: arguments.max_message_size,
        ..Limits::default()
    };
    let bus = ServiceBus::open_with(&topology, arguments.data.as_deref(), limits)?;
    let policy = SharedAccessPolicy::default();
    announce(&bus, &policy, http.local_addr()?, amqp.local_addr()?).await?;

    let router = rest::router(bus.clone(), policy.clone());
    let (stop, stopped) = watch::channel(());
    let stopping = |mut stopped: watch::Receiver<()>| async move {
        // A dropped sender means the same.
        let _ = stopped.changed().await;
    };
    let http = axum::serve(http, router.clone()).with_graceful_shutdown(stopping(stopped.clone()));
    let amqp = amqp::serve(
        amqp,
        bus.clone(),
        policy,
        amqp::Limits::default(),
        router,
        stopping(stopped),
    );
    let mut server = std::pin::pin!(async { tokio::try_join!(http.into_future(), amqp) });
    let mut store_failure = bus.store_failure();
    loop {
        tokio::select! {
            result = &mut server => return Ok(result.map(drop)?),
            _ = interrupt.recv() => break,
            _ = terminate.recv() => break,
            () = bus.closed() => return Err(Failure::Ended),
            Ok(()) = store_failure.changed() => report(store_failure.borrow_and_update().as_deref()),
        }
    }
    drop(stop);
    // Ends the receives that wait.
    bus.close().await;
    match tokio::time::timeout(LAST_ANSWERS, server).await {
        Ok(result) => Ok(result.map(drop)?),
        Err(_) => Ok(()),
    }
}

async fn listen(port: u16, flag: &'static str) -> Result<TcpListener, Failure> {
    TcpListener::bind((Ipv4Addr::LOCALHOST, port))
        .await
        .map_err(|error| match error.kind() {
            ErrorKind::AddrInUse => Failure::PortInUse(port, flag),
            _ => Failure::Listen(port, error),
        })
}

fn report(store_failure: Option<&str>) {
    match store_failure {
        Some(reason) => say(&format_args!("changes cannot be stored: {reason}")),
        None => say(&"changes are stored again"),
    }
}

/// One line on stderr; when nobody reads it, there is nobody to tell.
fn say(what: &dyn Display) {
    let _ = writeln!(io::stderr(), "servicebus-emulator: {what}");
}

async fn announce(
    bus: &ServiceBus,
    policy: &SharedAccessPolicy,
    http: SocketAddr,
    amqp: SocketAddr,
) -> Result<(), Failure> {
    let SharedAccessPolicy { name, key } = policy;
    let port = amqp.port();
    let mut text = format!(
        "Service Bus emulator ready: REST data plane at http://{http}, AMQP at {amqp}\n\
         Endpoint=sb://localhost:{port};SharedAccessKeyName={name};SharedAccessKey={key};UseDevelopmentEmulator=true;\n"
    );
    for entity in bus.entities().await? {
        // Writing to a string cannot fail.
        let _ = writeln!(text, "  {}", entity.name);
    }
    let mut stdout = io::stdout();
    stdout.write_all(text.as_bytes())?;
    stdout.flush()?;
    Ok(())
}
