//! The port of AMQP, on which HTTP is spoken as well.
//!
//! The first bytes of a connection say which of the two it is: the administration clients of the SDKs connect to the host
//! and port of the connection string, which are those of AMQP. Connections beyond the limit are closed at once.

use std::{io, net::SocketAddr, sync::Arc, time::Duration};

use axum::{Router, serve::Listener};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{Semaphore, mpsc, watch},
    task::JoinSet,
    time::{sleep, timeout},
};

use super::connection;
use crate::{ServiceBus, rest::SharedAccessPolicy};

/// How much a client of AMQP may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// How many connections there may be at a time; those of HTTP do not count.
    pub connections: usize,
    /// The largest frame that a client may send, in bytes.
    pub max_frame_size: u32,
    /// The highest channel: how many sessions a connection may have, less one.
    pub max_channel: u16,
    /// What clients are told; one that is silent for twice as long is disconnected.
    pub idle_timeout: Duration,
    /// How long a connection may take to be opened.
    pub handshake: Duration,
}

impl Default for Limits {
    /// Frames and sessions as in Azure.
    fn default() -> Self {
        Self {
            connections: 1000,
            max_frame_size: 65_536,
            max_channel: 4999,
            idle_timeout: Duration::from_secs(120),
            handshake: Duration::from_secs(10),
        }
    }
}

/// What all connections share.
pub(crate) struct Shared {
    pub(crate) bus: ServiceBus,
    pub(crate) policy: SharedAccessPolicy,
    pub(crate) limits: Limits,
}

/// After an error of the system's (no file descriptors, for one), how long until the next try.
const RETRY: Duration = Duration::from_millis(100);

/// Serves AMQP, and HTTP with the router, until `stop` is ready. Then all connections are closed, and it returns.
pub async fn serve(
    listener: TcpListener,
    bus: ServiceBus,
    policy: SharedAccessPolicy,
    limits: Limits,
    http: Router,
    stop: impl Future<Output = ()>,
) -> io::Result<()> {
    let address = listener.local_addr()?;
    let shared = Arc::new(Shared {
        bus,
        policy,
        limits,
    });
    let permits = Arc::new(Semaphore::new(limits.connections));
    let (stopping, stopped) = watch::channel(());
    let (sniffed, streams) = mpsc::channel(1);
    let mut tasks = JoinSet::new();
    let mut web_stopped = stopped.clone();
    tasks.spawn(async move {
        let web = axum::serve(Sniffed { streams, address }, http);
        let ended = web.with_graceful_shutdown(async move {
            // A dropped sender means the same.
            let _ = web_stopped.changed().await;
        });
        // It cannot fail: it has no socket of its own.
        let _ = ended.await;
    });
    let mut stop = std::pin::pin!(stop);
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            Some(_) = tasks.join_next() => continue,
            () = &mut stop => break,
        };
        let Ok((stream, client)) = accepted else {
            sleep(RETRY).await;
            continue;
        };
        let Ok(permit) = Arc::clone(&permits).try_acquire_owned() else {
            // Dropped, it is closed.
            continue;
        };
        // Frames are small, and someone waits for each.
        let _ = stream.set_nodelay(true);
        let (shared, sniffed, stopped) = (Arc::clone(&shared), sniffed.clone(), stopped.clone());
        tasks.spawn(async move {
            match timeout(shared.limits.handshake, is_amqp(&stream)).await {
                Ok(Ok(true)) => {
                    connection::run(stream, shared, stopped).await;
                    drop(permit);
                }
                Ok(Ok(false)) => {
                    // An error means that HTTP has stopped.
                    let _ = sniffed.send((stream, client)).await;
                }
                // It has gone, or says nothing.
                Ok(Err(_)) | Err(_) => {}
            }
        });
    }
    drop(sniffed);
    drop(stopping);
    while tasks.join_next().await.is_some() {}
    Ok(())
}

/// Whether the client speaks AMQP; every method of HTTP differs from it in the first four bytes.
async fn is_amqp(stream: &TcpStream) -> io::Result<bool> {
    let mut first = [0; 4];
    loop {
        let seen = stream.peek(&mut first).await?;
        if seen == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        if !b"AMQP".starts_with(&first[..seen]) {
            return Ok(false);
        }
        if seen == first.len() {
            return Ok(true);
        }
        // What has been peeked at is there at once the next time.
        sleep(Duration::from_millis(1)).await;
    }
}

/// The connections that turned out to speak HTTP.
struct Sniffed {
    streams: mpsc::Receiver<(TcpStream, SocketAddr)>,
    address: SocketAddr,
}

impl Listener for Sniffed {
    type Io = TcpStream;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Self::Io, Self::Addr) {
        match self.streams.recv().await {
            Some(accepted) => accepted,
            None => std::future::pending().await,
        }
    }

    fn local_addr(&self) -> io::Result<Self::Addr> {
        Ok(self.address)
    }
}
