//! HTTP towards the handler: always 127.0.0.1, pooled connections, and no header that the host does not send.
//!
//! It also counts what is in flight, so that devhost can let it finish before it stops the handler.

use std::{
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll},
    time::Duration,
};

use axum::{
    body::Body,
    http::{Request, Response, Uri, uri},
};
use bytes::Bytes;
use http_body::Frame;
use hyper_util::{
    client::legacy::{Client, Error, connect::HttpConnector},
    rt::TokioExecutor,
};
use tokio::sync::watch;

/// The longest that invocations in flight may take once devhost stops: the host waits as long.
const DRAIN: Duration = Duration::from_secs(10);

/// A client for the one handler; clones share its connections.
#[derive(Debug, Clone)]
pub struct HandlerClient {
    client: Arc<Mutex<Client<HttpConnector, Body>>>,
    port: u16,
    in_flight: Arc<watch::Sender<usize>>,
}

/// One invocation in flight, until it is dropped.
#[derive(Debug)]
pub struct InFlight(Arc<watch::Sender<usize>>);

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.send_modify(|count| *count -= 1);
    }
}

impl HandlerClient {
    pub fn new(port: u16) -> Self {
        Self {
            client: Arc::new(Mutex::new(new_client())),
            port,
            in_flight: Arc::new(watch::Sender::new(0)),
        }
    }

    /// Makes connections anew: those of a process that has ended may not be known to be closed yet, and a request
    /// on one of them would be lost.
    pub fn forget_connections(&self) {
        *self.lock() = new_client();
    }

    /// A panic elsewhere leaves the client whole.
    fn lock(&self) -> MutexGuard<'_, Client<HttpConnector, Body>> {
        self.client.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts as in flight until the guard is dropped.
    pub fn enter(&self) -> InFlight {
        self.in_flight.send_modify(|count| *count += 1);
        InFlight(Arc::clone(&self.in_flight))
    }

    /// Waits for the event, and then until nothing is in flight or the time for that is over.
    pub async fn drained_after<T>(&self, event: impl Future<Output = T>) {
        event.await;
        let mut in_flight = self.in_flight.subscribe();
        // Either way the handler is stopped now.
        drop(tokio::time::timeout(DRAIN, in_flight.wait_for(|count| *count == 0)).await);
    }

    /// Sends the request, whose URI is a path and query only, to the handler.
    pub async fn send(&self, mut request: Request<Body>) -> Result<Response<Body>, Error> {
        let mut parts = uri::Parts::default();
        parts.scheme = Some(uri::Scheme::HTTP);
        parts.authority = format!("127.0.0.1:{}", self.port).parse().ok();
        parts.path_and_query = request.uri().path_and_query().cloned();
        if parts.path_and_query.is_none() {
            parts.path_and_query = Some(uri::PathAndQuery::from_static("/"));
        }
        if let Ok(uri) = Uri::from_parts(parts) {
            *request.uri_mut() = uri;
        }
        let sent = self.lock().request(request);
        Ok(sent.await?.map(Body::new))
    }
}

fn new_client() -> Client<HttpConnector, Body> {
    Client::builder(TokioExecutor::new()).build_http()
}

/// A body that counts as in flight until it has been passed on.
#[derive(Debug)]
pub struct InFlightBody {
    body: Body,
    _in_flight: InFlight,
}

impl InFlightBody {
    pub fn body(body: Body, in_flight: InFlight) -> Body {
        Body::new(Self {
            body,
            _in_flight: in_flight,
        })
    }
}

impl http_body::Body for InFlightBody {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        Pin::new(&mut self.body).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> http_body::SizeHint {
        self.body.size_hint()
    }
}

/// A body whose length is not told, so that it is sent chunked, as the host in Azure sends it.
#[derive(Debug)]
pub struct Chunked(Option<Bytes>);

impl Chunked {
    pub fn body(bytes: Bytes) -> Body {
        Body::new(Self(Some(bytes)))
    }
}

impl http_body::Body for Chunked {
    type Data = Bytes;
    type Error = std::convert::Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        Poll::Ready(self.0.take().map(|bytes| Ok(Frame::data(bytes))))
    }
}
