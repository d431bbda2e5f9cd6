//! The port that the handler listens on: chosen once, and used again for every restart.
//!
//! Azure's host looks for a free port, lets it go and hopes that nobody takes it before the handler does. devhost
//! does the same, except on Linux, where it keeps the port: a socket that is bound with `SO_REUSEADDR` but does not listen refuses connections, lets a handler
//! that sets the same option listen (Rust's, Go's and Node's servers all do), and keeps the port from being given
//! to anyone who asks for any.

use std::{io, net::Ipv4Addr};

use tokio::net::TcpSocket;

/// The port, held on Linux as long as this lives.
#[derive(Debug)]
pub struct HandlerPort {
    // Elsewhere a bound socket would keep the handler from listening, whatever its options are.
    #[cfg(target_os = "linux")]
    _held: TcpSocket,
    pub number: u16,
}

impl HandlerPort {
    /// Takes the port that `customHandler.port` names, or any free one.
    pub fn take(fixed: Option<u16>) -> Result<Self, String> {
        Self::bind(fixed.unwrap_or(0)).map_err(|error| match fixed {
            Some(port) => format!(
                "host.json: Unable to bind to port {port} specified in configuration (`customHandler.port`): {error}"
            ),
            None => format!("no free port for the handler: {error}"),
        })
    }

    fn bind(port: u16) -> io::Result<Self> {
        let socket = TcpSocket::new_v4()?;
        socket.set_reuseaddr(true)?;
        socket.bind((Ipv4Addr::LOCALHOST, port).into())?;
        let number = socket.local_addr()?.port();
        Ok(Self {
            #[cfg(target_os = "linux")]
            _held: socket,
            number,
        })
    }
}
