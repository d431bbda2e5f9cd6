//! What the bus answers to settlements, read off the stream.
//!
//! In the receiver's settle mode "second" a settlement counts when the bus's own disposition says so, and with what outcome: a lock
//! that was lost is refused there and nowhere else. The client library takes these answers in without handing them on,
//! so the bytes pass by here on their way to it. One session per connection is understood: delivery ids are a session's.

use std::{
    collections::HashMap,
    io,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll},
};

use bytes::{Buf, BytesMut};
use fe2o3_amqp_types::{
    definitions::{DeliveryNumber, Role},
    messaging::DeliveryState,
    performatives::Disposition,
};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
    sync::oneshot,
};

/// A protocol header, and also the least size of a frame.
const HEADER: usize = 8;

/// Who waits for the outcome of which delivery; `None` once the connection has ended.
#[derive(Debug, Clone)]
pub(crate) struct Outcomes(Arc<Mutex<Option<Waiting>>>);

type Waiting = HashMap<DeliveryNumber, oneshot::Sender<Option<DeliveryState>>>;

impl Outcomes {
    pub(crate) fn new() -> Self {
        Self(Arc::new(Mutex::new(Some(HashMap::new()))))
    }

    /// To be called before the settlement is sent; `None` when the connection has ended. What is returned fails when
    /// the connection ends before the answer.
    pub(crate) fn expect(
        &self,
        delivery: DeliveryNumber,
    ) -> Option<oneshot::Receiver<Option<DeliveryState>>> {
        let (answer, outcome) = oneshot::channel();
        self.lock().as_mut()?.insert(delivery, answer);
        Some(outcome)
    }

    pub(crate) fn has_ended(&self) -> bool {
        self.lock().is_none()
    }

    fn settle(&self, disposition: &Disposition) {
        let first = disposition.first;
        let last = disposition.last.unwrap_or(first);
        let mut waiting = self.lock();
        let Some(waiting) = waiting.as_mut() else {
            return;
        };
        let settled: Vec<DeliveryNumber> = waiting
            .keys()
            .copied()
            .filter(|delivery| (first..=last).contains(delivery))
            .collect();
        for delivery in settled {
            if let Some(answer) = waiting.remove(&delivery) {
                // Whoever asked may have gone away.
                let _ = answer.send(disposition.state.clone());
            }
        }
    }

    fn end(&self) {
        *self.lock() = None;
    }

    /// A panic elsewhere leaves the map whole.
    fn lock(&self) -> MutexGuard<'_, Option<Waiting>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The connection's stream; what is read from it is looked at first.
#[derive(Debug)]
pub(crate) struct Tapped {
    stream: TcpStream,
    /// The beginning of a frame that is still to come.
    unread: BytesMut,
    outcomes: Outcomes,
}

impl Tapped {
    pub(crate) fn new(stream: TcpStream, outcomes: Outcomes) -> Self {
        Self {
            stream,
            unread: BytesMut::new(),
            outcomes,
        }
    }

    fn look_at(&mut self, bytes: &[u8]) {
        self.unread.extend_from_slice(bytes);
        while let Some(start) = self.unread.first_chunk::<HEADER>() {
            if start.starts_with(b"AMQP") {
                self.unread.advance(HEADER);
                continue;
            }
            let [a, b, c, d, data_offset, kind, ..] = *start;
            // A frame that is shorter than its header ends the connection, which is the client library's to do.
            let size = usize::try_from(u32::from_be_bytes([a, b, c, d]))
                .unwrap_or(usize::MAX)
                .max(HEADER);
            if self.unread.len() < size {
                return;
            }
            let frame = self.unread.split_to(size);
            let body = frame.get(usize::from(data_offset) * 4..);
            // Anything but a disposition has another descriptor, and is not one.
            if kind == 0
                && let Some(body) = body
                && let Ok(disposition) = serde_amqp::from_slice::<Disposition>(body)
                && matches!(disposition.role, Role::Sender)
                && disposition.settled
            {
                self.outcomes.settle(&disposition);
            }
        }
    }
}

impl Drop for Tapped {
    fn drop(&mut self) {
        self.outcomes.end();
    }
}

impl AsyncRead for Tapped {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let polled = Pin::new(&mut self.stream).poll_read(context, buffer);
        match &polled {
            Poll::Ready(Ok(())) if buffer.filled().len() > before => {
                self.look_at(&buffer.filled()[before..]);
            }
            Poll::Ready(_) => self.outcomes.end(),
            Poll::Pending => {}
        }
        polled
    }
}

impl AsyncWrite for Tapped {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}
