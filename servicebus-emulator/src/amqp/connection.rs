//! One connection: from its first bytes to its last.
//!
//! It has one task, which reads frames, writes frames and drives what the frames have caused, so that none of its state is
//! shared. A client that does not read what it is sent is not listened to either, and so is one that has too much under
//! way: what waits for it is bounded, and TCP holds it back. An error ends the connection with a close that says why, and no
//! other connection notices.

use std::{io, sync::Arc, time::Duration};

use bytes::BytesMut;
use fe2o3_amqp_types::performatives::{Close, Open, Performative};
use serde_amqp::{Value as Amqp, primitives::Symbol};
use tokio::{
    io::AsyncWriteExt,
    net::TcpStream,
    sync::watch,
    time::{Instant, MissedTickBehavior, interval, timeout},
};
use uuid::Uuid;

use super::{
    authorization::Authorization,
    channels::{Channels, Next},
    errors::{CONNECTION_FORCED, NOT_ALLOWED, Refusal},
    frame::{self, FrameBody, MIN_MAX_FRAME_SIZE},
    listener::Shared,
    sasl,
    transport::{self, Transport},
    work::Context,
};

/// How much of what is done already is looked at before the socket is again.
const MOST_DONE_AT_ONCE: usize = 256;
/// How long a client has to read that the connection is closed.
const LAST_WORDS: Duration = Duration::from_secs(1);
/// No client needs to hear from us more often, whatever it says.
const SHORTEST_TIMEOUT: Duration = Duration::from_millis(100);

/// How a connection ends.
enum Ending {
    /// The client has gone, or does not read any more.
    Gone,
    /// Both sides say that it is closed; ours says why, if it was ours to close.
    Closed(Option<Refusal>),
}

/// Serves the client until it goes, or has to.
pub(crate) async fn run(stream: TcpStream, shared: Arc<Shared>, mut stopped: watch::Receiver<()>) {
    let mut transport = Transport::new(stream);
    let limit = shared.limits.handshake;
    let opening = timeout(limit, open(&mut transport, &shared));
    let Ok(Ok(Some(opened))) = opening.await else {
        return;
    };
    let ending = match opened {
        Err(refusal) => Ending::Closed(Some(refusal)),
        Ok((open, authorization)) => {
            serve(&open, authorization, &shared, &mut transport, &mut stopped).await
        }
    };
    if let Ending::Closed(refusal) = ending {
        let error = refusal.map(Into::into);
        let close = Performative::Close(Close { error });
        // It may also not want to hear it.
        let _ = timeout(LAST_WORDS, last_words(&mut transport, &close)).await;
    }
}

/// Takes the connection up to where both sides have opened it. Nothing when it does not come to that.
async fn open(
    transport: &mut Transport,
    shared: &Shared,
) -> io::Result<Option<Result<(Open, Authorization), Refusal>>> {
    let Some(authorization) = sasl::negotiate(transport, &shared.policy).await? else {
        return Ok(None);
    };
    let opened = loop {
        match frame::decode(&mut transport.input, shared.limits.max_frame_size) {
            Err(error) => break Err(error.into()),
            Ok(Some(frame)) => match frame.body {
                FrameBody::Empty => {}
                FrameBody::Amqp {
                    performative: Performative::Open(open),
                    ..
                } => break Ok((open, authorization)),
                FrameBody::Amqp { .. } | FrameBody::SaslInit(_) | FrameBody::SaslResponse => {
                    break Err(Refusal::new(NOT_ALLOWED, "the first frame is not an open"));
                }
            },
            Ok(None) => {
                if transport.read().await? == 0 {
                    return Ok(None);
                }
            }
        }
    };
    let answer = Performative::Open(our_open(shared));
    frame::encode(&mut transport.output, 0, &answer, &[]).map_err(io::Error::other)?;
    Ok(Some(opened))
}

fn our_open(shared: &Shared) -> Open {
    let properties = [
        ("product", env!("CARGO_PKG_NAME")),
        ("version", env!("CARGO_PKG_VERSION")),
    ];
    let properties = properties
        .map(|(name, value)| (Symbol::from(name), Amqp::String(value.to_owned())))
        .into_iter()
        .collect();
    let limits = &shared.limits;
    Open {
        container_id: Uuid::new_v4().simple().to_string(),
        hostname: None,
        max_frame_size: limits.max_frame_size.into(),
        channel_max: limits.max_channel.into(),
        idle_time_out: u32::try_from(limits.idle_timeout.as_millis()).ok(),
        outgoing_locales: None,
        incoming_locales: None,
        offered_capabilities: None,
        desired_capabilities: None,
        properties: Some(properties),
    }
}

async fn serve(
    open: &Open,
    authorization: Authorization,
    shared: &Arc<Shared>,
    transport: &mut Transport,
    stopped: &mut watch::Receiver<()>,
) -> Ending {
    let output = std::mem::take(&mut transport.output);
    let max_frame_size = open.max_frame_size.0.max(MIN_MAX_FRAME_SIZE);
    let context = Context::new(Arc::clone(shared), authorization, max_frame_size, output);
    let mut channels = Channels::new(context);
    let mut idle = Idle::new(open, shared.limits.idle_timeout);
    let ending = go_on(&mut channels, transport, &mut idle, stopped).await;
    channels.close();
    transport.output = std::mem::take(&mut channels.context.output);
    // The client has gone.
    ending.unwrap_or(Ending::Gone)
}

async fn go_on(
    channels: &mut Channels,
    transport: &mut Transport,
    idle: &mut Idle,
    stopped: &mut watch::Receiver<()>,
) -> io::Result<Ending> {
    let max_frame_size = channels.context.shared.limits.max_frame_size;
    let mut ticks = interval(idle.period());
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        while !channels.context.is_full() && !channels.context.work.is_too_much() {
            match frame::decode(&mut transport.input, max_frame_size) {
                Ok(None) => break,
                Ok(Some(frame)) => match channels.take(frame) {
                    Next::Frame => {}
                    Next::Close(refusal) => return Ok(Ending::Closed(refusal)),
                },
                Err(error) => return Ok(Ending::Closed(Some(error.into()))),
            }
        }
        channels.flush();
        let context = &mut channels.context;
        if let Some(failure) = context.failure.take() {
            return Ok(Ending::Closed(Some(failure)));
        }
        let is_full = context.is_full();
        let listens = !is_full && !context.work.is_too_much();
        let writes = !context.output.is_empty();
        tokio::select! {
            read = transport::read(&mut transport.reader, &mut transport.input), if listens => {
                if read? == 0 {
                    return Ok(Ending::Gone);
                }
                idle.heard = Instant::now();
            }
            written = transport.writer.write_buf(&mut context.output), if writes => {
                if written? == 0 {
                    return Ok(Ending::Gone);
                }
                idle.wrote();
                channels.go_on();
            }
            done = context.work.next(), if !is_full => {
                channels.done(done);
                for _ in 1..MOST_DONE_AT_ONCE {
                    if channels.context.is_full() {
                        break;
                    }
                    let Some(done) = channels.context.work.next_now() else { break };
                    channels.done(done);
                }
            }
            _ = ticks.tick() => {
                if !listens {
                    idle.heard = Instant::now();
                }
                match idle.check(&mut channels.context.output) {
                    None => {}
                    Some(ending) => return Ok(ending),
                }
            }
            _ = stopped.changed() => {
                let refusal = Refusal::new(CONNECTION_FORCED, "the emulator stops");
                return Ok(Ending::Closed(Some(refusal)));
            }
        }
    }
}

/// Who has been silent for how long.
struct Idle {
    /// How long the client lets us be silent.
    client: Option<Duration>,
    /// Half of how long we let the client be silent: what it has been told.
    ours: Duration,
    heard: Instant,
    written: Instant,
    /// Since when the client has not read what it is sent.
    stuck: Option<Instant>,
}

impl Idle {
    fn new(open: &Open, ours: Duration) -> Self {
        let now = Instant::now();
        let client = open
            .idle_time_out
            .filter(|milliseconds| *milliseconds > 0)
            .map(|milliseconds| Duration::from_millis(milliseconds.into()).max(SHORTEST_TIMEOUT));
        Self {
            client,
            ours,
            heard: now,
            written: now,
            stuck: None,
        }
    }

    /// How often to check.
    fn period(&self) -> Duration {
        let shortest = self
            .client
            .map_or(self.ours, |client| client.min(self.ours));
        (shortest / 4).max(Duration::from_millis(1))
    }

    fn wrote(&mut self) {
        self.written = Instant::now();
        self.stuck = None;
    }

    /// Sends a heartbeat when it is time for one, half of the client's time after the last frame. Says how the connection
    /// ends when the client has been silent, or has not read, for too long.
    fn check(&mut self, output: &mut BytesMut) -> Option<Ending> {
        let now = Instant::now();
        if output.is_empty() {
            self.stuck = None;
            if self
                .client
                .is_some_and(|client| now >= self.written + client / 4)
            {
                frame::encode_empty(output);
            }
        } else if now > *self.stuck.get_or_insert(now) + 2 * self.ours {
            return Some(Ending::Gone);
        }
        (now > self.heard + 2 * self.ours).then(|| {
            let limit = (2 * self.ours).as_millis();
            Ending::Closed(Some(Refusal::new(
                CONNECTION_FORCED,
                format!(
                    "the connection was inactive for more than the allowed {limit} milliseconds"
                ),
            )))
        })
    }
}

/// Closes the connection for the client to see.
async fn last_words(transport: &mut Transport, close: &Performative) -> io::Result<()> {
    frame::encode(&mut transport.output, 0, close, &[]).map_err(io::Error::other)?;
    transport.flush().await?;
    transport.writer.shutdown().await?;
    // A socket that is closed with something unread takes back what was written last.
    loop {
        transport.input.clear();
        if transport.read().await? == 0 {
            return Ok(());
        }
    }
}
