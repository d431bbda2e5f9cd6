//! A listener whose connections can be closed without an answer, and the serving of a router on it.
//!
//! A fault that drops a connection must leave the client with nothing: no status line, no body. hyper writes the
//! head of a response as soon as the handler returns one, so the refusal sits below it: once [`Cut::close`] has
//! been called, every write to that connection fails and hyper gives the connection up.

use std::{
    io,
    net::{Ipv4Addr, SocketAddr},
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll},
};

use axum::{
    Router,
    extract::connect_info::Connected,
    serve::{IncomingStream, Listener},
};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::{TcpListener, TcpStream},
};

/// Takes the port on 127.0.0.1; `flag` is the command-line flag that the error names.
pub async fn bind(port: u16, flag: &str) -> Result<CuttableListener, String> {
    TcpListener::bind((Ipv4Addr::LOCALHOST, port))
        .await
        .map(CuttableListener)
        .map_err(|error| match error.kind() {
            io::ErrorKind::AddrInUse => format!(
                "port {port} is already in use; stop what listens on it, or choose another port with {flag}"
            ),
            _ => format!("cannot listen on port {port} ({flag}): {error}"),
        })
}

/// Takes any free port on 127.0.0.1; the error says for whom.
pub async fn bind_any(whom: &str) -> Result<CuttableListener, String> {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
        .await
        .map(CuttableListener)
        .map_err(|error| format!("no free port for {whom}: {error}"))
}

/// Serves the router until `stopped` is ready; requests in flight are answered first.
pub async fn serve(
    listener: CuttableListener,
    router: Router,
    stopped: impl Future<Output = ()> + Send + 'static,
) {
    // Serving ends only by the shutdown: axum retries a failed accept itself.
    drop(
        axum::serve(
            listener,
            router.into_make_service_with_connect_info::<Cut>(),
        )
        .with_graceful_shutdown(stopped)
        .await,
    );
}

/// The power to close one connection without an answer.
#[derive(Debug, Clone, Default)]
pub struct Cut(Arc<AtomicBool>);

impl Cut {
    /// From now on nothing is written to the connection; whatever response follows closes it instead.
    pub fn close(&self) {
        self.0.store(true, Ordering::Release);
    }

    fn check(&self) -> io::Result<()> {
        if self.0.load(Ordering::Acquire) {
            Err(io::ErrorKind::ConnectionAborted.into())
        } else {
            Ok(())
        }
    }
}

impl Connected<IncomingStream<'_, CuttableListener>> for Cut {
    fn connect_info(stream: IncomingStream<'_, CuttableListener>) -> Self {
        stream.io().cut.clone()
    }
}

/// A TCP listener whose connections can be [`Cut`].
#[derive(Debug)]
pub struct CuttableListener(TcpListener);

impl CuttableListener {
    /// The listener, for connections that are not cut.
    pub fn into_inner(self) -> TcpListener {
        self.0
    }

    /// The port it really listens on.
    pub fn port(&self) -> u16 {
        self.0.local_addr().map_or(0, |address| address.port())
    }
}

impl Listener for CuttableListener {
    type Io = CuttableStream;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Self::Io, Self::Addr) {
        let (stream, address) = Listener::accept(&mut self.0).await;
        let cut = Cut::default();
        (CuttableStream { stream, cut }, address)
    }

    fn local_addr(&self) -> io::Result<Self::Addr> {
        self.0.local_addr()
    }
}

/// A TCP stream that refuses to write once it has been cut.
#[derive(Debug)]
pub struct CuttableStream {
    stream: TcpStream,
    cut: Cut,
}

impl AsyncRead for CuttableStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl AsyncWrite for CuttableStream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.cut.check()?;
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.cut.check()?;
        Pin::new(&mut self.stream).poll_write_vectored(context, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}
