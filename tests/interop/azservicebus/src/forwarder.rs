//! Lets a client that always dials port 5672 reach an emulator on another port.
//!
//! All of 127.0.0.0/8 is this machine's on Linux, so each emulator gets an address of its own on which 5672 is free. Answers are
//! held back for a moment, as a network does: fe2o3-amqp notes what it has sent only after sending it (until 0.18.2), and
//! waits for ever for the outcome that came before.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    time::Duration,
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, copy},
    net::{
        TcpListener, TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
    task::{AbortHandle, JoinSet},
};
use uuid::Uuid;

/// The port that the client dials.
const AMQP: u16 = 5672;
/// How much later what the emulator says arrives.
const LATENCY: Duration = Duration::from_millis(2);

/// Forwards until it is dropped.
pub struct Forwarder {
    address: Ipv4Addr,
    task: AbortHandle,
}

impl Forwarder {
    pub async fn to(port: u16) -> Self {
        // Two emulators seldom choose the same address; the next choice is as good.
        let listener = loop {
            let [.., second, third, fourth] = *Uuid::new_v4().as_bytes();
            let address = Ipv4Addr::new(127, second, third, fourth.clamp(2, 254));
            if let Ok(listener) = TcpListener::bind((address, AMQP)).await {
                break listener;
            }
        };
        let address = match listener.local_addr().expect("it listens").ip() {
            IpAddr::V4(address) => address,
            IpAddr::V6(_) => unreachable!("it was bound to a v4 address"),
        };
        let target = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let task = tokio::spawn(forward(listener, target)).abort_handle();
        Self { address, task }
    }

    pub fn address(&self) -> Ipv4Addr {
        self.address
    }
}

impl Drop for Forwarder {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn forward(listener: TcpListener, target: SocketAddr) {
    let mut connections = JoinSet::new();
    while let Ok((client, _)) = listener.accept().await {
        connections.spawn(async move {
            // While the emulator is down, the client's connection ends as soon as it begins.
            if let Ok(server) = TcpStream::connect(target).await {
                let _ = (client.set_nodelay(true), server.set_nodelay(true));
                let (mut from_client, to_client) = client.into_split();
                let (from_server, mut to_server) = server.into_split();
                // Whichever side ends, ends the other.
                tokio::select! {
                    _ = copy(&mut from_client, &mut to_server) => {}
                    _ = copy_later(from_server, to_client) => {}
                }
            }
        });
        while connections.try_join_next().is_some() {}
    }
}

async fn copy_later(mut from: OwnedReadHalf, mut to: OwnedWriteHalf) -> io::Result<()> {
    let mut buffer = vec![0; 65_536];
    loop {
        let read = from.read(&mut buffer).await?;
        if read == 0 {
            return Ok(());
        }
        tokio::time::sleep(LATENCY).await;
        to.write_all(&buffer[..read]).await?;
    }
}
