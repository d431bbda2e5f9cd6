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

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use fe2o3_amqp_types::{
        messaging::{Accepted, Released},
        performatives::Detach,
    };
    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt},
        net::TcpListener,
    };

    use super::*;

    fn frame(kind: u8, body: &[u8]) -> Vec<u8> {
        let size = u32::try_from(HEADER + body.len()).unwrap();
        [&size.to_be_bytes()[..], &[2, kind, 0, 0], body].concat()
    }

    fn disposition(role: Role, first: u32, last: Option<u32>, settled: bool) -> Vec<u8> {
        let disposition = Disposition {
            role,
            first,
            last,
            settled,
            state: Some(DeliveryState::Accepted(Accepted {})),
            batchable: false,
        };
        frame(0, &serde_amqp::to_vec(&disposition).unwrap())
    }

    #[tokio::test]
    async fn answers_are_seen_however_the_bytes_come_and_nothing_else_is() {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let stream = TcpStream::connect(address).await.unwrap();
        let (mut bus, _) = listener.accept().await.unwrap();
        let outcomes = Outcomes::new();
        let mut tapped = Tapped::new(stream, outcomes.clone());
        let mut answers: Vec<_> = (0..7).map(|id| outcomes.expect(id).unwrap()).collect();
        let another = Detach {
            handle: 0.into(),
            closed: true,
            error: None,
        };
        let bytes = [
            b"AMQP\x03\x01\x00\x00".to_vec(),
            // A SASL frame, an empty one, another performative.
            frame(1, b"anything"),
            b"AMQP\x00\x01\x00\x00".to_vec(),
            frame(0, b""),
            frame(0, &serde_amqp::to_vec(&another).unwrap()),
            disposition(Role::Sender, 0, None, true),
            disposition(Role::Sender, 2, Some(4), true),
            // Not the bus's about what it sent, and not the last word.
            disposition(Role::Receiver, 1, None, true),
            disposition(Role::Sender, 5, None, false),
        ]
        .concat();
        let mut read = vec![0; bytes.len()];
        for (one, place) in bytes.iter().zip(&mut read) {
            bus.write_all(&[*one]).await.unwrap();
            *place = tapped.read_u8().await.unwrap();
        }
        assert_eq!(read, bytes);
        for id in [0, 2, 3, 4] {
            let outcome = answers[id].try_recv().unwrap();
            assert_eq!(outcome, Some(DeliveryState::Accepted(Accepted {})), "{id}");
        }
        for id in [1, 5, 6] {
            assert!(answers[id].try_recv().is_err(), "{id}");
        }
        // All at once is as good.
        let mut both = disposition(Role::Sender, 1, None, true);
        both.extend(disposition(Role::Sender, 5, Some(6), true));
        bus.write_all(&both).await.unwrap();
        tapped.read_exact(&mut vec![0; both.len()]).await.unwrap();
        for id in [1, 5, 6] {
            assert!(answers[id].try_recv().is_ok(), "{id}");
        }
    }

    #[tokio::test]
    async fn whoever_waits_is_told_of_the_end() {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let stream = TcpStream::connect(address).await.unwrap();
        let outcomes = Outcomes::new();
        let mut tapped = Tapped::new(stream, outcomes.clone());
        let answer = outcomes.expect(1).unwrap();
        drop(listener.accept().await.unwrap());
        assert_eq!(tapped.read(&mut [0; 8]).await.unwrap(), 0);
        assert!(outcomes.has_ended());
        assert!(answer.await.is_err());
        assert!(outcomes.expect(2).is_none());
    }

    #[test]
    fn the_outcome_is_handed_on_as_it_came() {
        let outcomes = Outcomes::new();
        let mut answer = outcomes.expect(3).unwrap();
        outcomes.settle(&Disposition {
            role: Role::Sender,
            first: 3,
            last: Some(u32::MAX),
            settled: true,
            state: Some(DeliveryState::Released(Released {})),
            batchable: false,
        });
        assert_eq!(
            answer.try_recv().unwrap(),
            Some(DeliveryState::Released(Released {}))
        );
    }
}
