//! A client that sends exactly what it is told to, and a namespace for it.

use std::time::Duration;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use fe2o3_amqp_types::{
    definitions::{Error, ErrorCondition, Role, SenderSettleMode},
    messaging::{DeliveryState, Source, Target, TargetArchetype},
    performatives::{
        Attach, Begin, Close, Detach, Disposition, End, Flow, Open, Performative, Transfer,
    },
    sasl::SaslInit,
};
use serde_amqp::primitives::Symbol;
use servicebus_emulator::{
    Message, ServiceBus, Topology, amqp,
    rest::{self, SharedAccessPolicy},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::oneshot,
    task::JoinHandle,
};

const TOPOLOGY: &str = r#"{ "UserConfig": { "Namespaces": [ {
    "Name": "sbemulatorns",
    "Queues": [
        { "Name": "work" },
        { "Name": "other" },
        { "Name": "sessions", "Properties": { "RequiresSession": true } }
    ],
    "Topics": [ { "Name": "orders", "Properties": {}, "Subscriptions": [ { "Name": "all" } ] } ]
} ] } }"#;

pub(crate) const AMQP_HEADER: [u8; 8] = *b"AMQP\x00\x01\x00\x00";
pub(crate) const SASL_HEADER: [u8; 8] = *b"AMQP\x03\x01\x00\x00";

/// Longer than any wait of a test that passes.
const TOO_LONG: Duration = Duration::from_secs(20);

pub(crate) struct Namespace {
    pub(crate) bus: ServiceBus,
    pub(crate) port: u16,
    stop: Option<oneshot::Sender<()>>,
    server: JoinHandle<std::io::Result<()>>,
}

impl Drop for Namespace {
    fn drop(&mut self) {
        self.server.abort();
    }
}

impl Namespace {
    pub(crate) async fn start() -> Self {
        Self::with(amqp::Limits::default()).await
    }

    pub(crate) async fn with(limits: amqp::Limits) -> Self {
        let topology = Topology::parse(TOPOLOGY, "test topology").unwrap();
        let bus = ServiceBus::open(&topology, None).unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let policy = SharedAccessPolicy::default();
        let http = rest::router(bus.clone(), policy.clone());
        let (stop, stopped) = oneshot::channel::<()>();
        let stopped = async {
            let _ = stopped.await;
        };
        let server = amqp::serve(listener, bus.clone(), policy, limits, http, stopped);
        Self {
            bus,
            port,
            stop: Some(stop),
            server: tokio::spawn(server),
        }
    }

    /// Stops serving; returns when it has.
    pub(crate) async fn stop(&mut self) {
        drop(self.stop.take());
        within(&mut self.server).await.unwrap().unwrap();
    }

    pub(crate) async fn send(&self, entity: &str, bodies: &[&str]) {
        let messages = bodies.iter().map(|body| Message {
            body: body.as_bytes().to_vec().into(),
            ..Message::default()
        });
        let messages = messages.collect();
        self.bus
            .send(&entity.parse().unwrap(), messages)
            .await
            .unwrap();
    }
}

pub(crate) async fn within<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(TOO_LONG, future)
        .await
        .expect("it takes too long")
}

#[derive(Debug)]
pub(crate) enum Frame {
    Heartbeat,
    Amqp(Box<Performative>, Bytes),
}

pub(crate) struct Client {
    pub(crate) stream: TcpStream,
    input: BytesMut,
}

impl Client {
    /// Connected, and nothing more.
    pub(crate) async fn connect(namespace: &Namespace) -> Self {
        let stream = TcpStream::connect(("127.0.0.1", namespace.port))
            .await
            .unwrap();
        stream.set_nodelay(true).unwrap();
        Self {
            stream,
            input: BytesMut::new(),
        }
    }

    /// With an open connection that may use everything.
    pub(crate) async fn open(namespace: &Namespace) -> Self {
        Self::open_as(namespace, open()).await
    }

    pub(crate) async fn open_as(namespace: &Namespace, open: Open) -> Self {
        let mut client = Self::connect(namespace).await;
        let mut bytes = BytesMut::new();
        bytes.put_slice(&SASL_HEADER);
        put_sasl(&mut bytes, &plain("SAS_KEY_VALUE"));
        client.write(&bytes).await;
        assert_eq!(client.bytes::<8>().await, SASL_HEADER);
        assert_eq!(client.sasl().await[2], 0x40);
        assert_eq!(
            client.sasl().await,
            [0x00, 0x53, 0x44, 0xc0, 0x03, 0x01, 0x50, 0x00]
        );
        client.write(&AMQP_HEADER).await;
        assert_eq!(client.bytes::<8>().await, AMQP_HEADER);
        client.send(0, Performative::Open(open), &[]).await;
        let Performative::Open(_) = client.next().await else {
            panic!("the connection is not opened");
        };
        client
    }

    /// With a session on channel 0 besides.
    pub(crate) async fn begin(namespace: &Namespace) -> Self {
        let mut client = Self::open(namespace).await;
        client.send(0, Performative::Begin(begin(5000)), &[]).await;
        client.until_begin().await;
        client
    }

    pub(crate) async fn write(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).await.unwrap();
    }

    pub(crate) async fn send(&mut self, channel: u16, performative: Performative, payload: &[u8]) {
        let mut bytes = BytesMut::new();
        put(&mut bytes, channel, &performative, payload);
        self.write(&bytes).await;
    }

    async fn fill(&mut self, length: usize) -> bool {
        while self.input.len() < length {
            let read = within(self.stream.read_buf(&mut self.input)).await;
            if read.unwrap_or(0) == 0 {
                return false;
            }
        }
        true
    }

    pub(crate) async fn bytes<const N: usize>(&mut self) -> [u8; N] {
        assert!(self.fill(N).await, "the connection has ended");
        let mut bytes = [0; N];
        self.input.copy_to_slice(&mut bytes);
        bytes
    }

    /// The body of a SASL frame.
    pub(crate) async fn sasl(&mut self) -> Vec<u8> {
        let [s0, s1, s2, s3, 2, 1, _, _] = self.bytes::<8>().await else {
            panic!("not a SASL frame");
        };
        let size = u32::from_be_bytes([s0, s1, s2, s3]) as usize - 8;
        assert!(self.fill(size).await);
        self.input.split_to(size).to_vec()
    }

    /// The next frame; nothing at the end of the connection.
    pub(crate) async fn frame(&mut self) -> Option<Frame> {
        if !self.fill(8).await {
            assert!(self.input.is_empty(), "it ends within a frame");
            return None;
        }
        let [s0, s1, s2, s3, 2, 0, _, _] = self.bytes::<8>().await else {
            panic!("not a frame");
        };
        let size = u32::from_be_bytes([s0, s1, s2, s3]) as usize - 8;
        assert!(self.fill(size).await, "it ends within a frame");
        let mut body = self.input.split_to(size).freeze();
        if body.is_empty() {
            return Some(Frame::Heartbeat);
        }
        let length = 3 + match body[3] {
            0x45 => 1,
            0xc0 => 2 + usize::from(body[4]),
            0xd0 => 5 + u32::from_be_bytes(body[4..8].try_into().unwrap()) as usize,
            code => panic!("0x{code:x} is no list"),
        };
        let payload = body.split_off(length);
        let performative = serde_amqp::from_slice(&body).unwrap();
        Some(Frame::Amqp(Box::new(performative), payload))
    }

    /// The next performative on any channel.
    pub(crate) async fn next(&mut self) -> Performative {
        self.next_with_payload().await.0
    }

    pub(crate) async fn next_with_payload(&mut self) -> (Performative, Bytes) {
        loop {
            match self.frame().await.expect("the connection has ended") {
                Frame::Heartbeat => {}
                Frame::Amqp(performative, payload) => return (*performative, payload),
            }
        }
    }

    async fn until_begin(&mut self) {
        let Performative::Begin(_) = self.next().await else {
            panic!("no session is begun");
        };
    }

    /// The condition of the close that comes next, and then the end of the connection.
    pub(crate) async fn closed(&mut self) -> String {
        let Performative::Close(Close { error }) = self.next().await else {
            panic!("the connection is not closed");
        };
        assert!(self.frame().await.is_none());
        condition(error)
    }

    /// Attaches a link on channel 0; the answer to it.
    pub(crate) async fn attach(&mut self, attach: Attach) -> Attach {
        self.send(0, Performative::Attach(attach), &[]).await;
        self.attached().await
    }

    pub(crate) async fn attached(&mut self) -> Attach {
        let Performative::Attach(attach) = self.next().await else {
            panic!("no link is attached");
        };
        attach
    }

    /// Attaches a link that the client sends on. Its credit comes with it.
    pub(crate) async fn sender(&mut self, handle: u32, address: &str) {
        let attach = self.attach(sender(handle, address)).await;
        assert_eq!(attach.role, Role::Receiver);
        assert!(attach.target.is_some());
        let flow = self.flow().await;
        assert_eq!(flow.handle, Some(handle.into()));
        assert_eq!(flow.link_credit, Some(1000));
    }

    /// Attaches a link that the client receives on.
    pub(crate) async fn receiver(&mut self, handle: u32, address: &str) {
        let attach = self.attach(receiver(handle, address)).await;
        assert_eq!(attach.role, Role::Sender);
        assert!(attach.source.is_some());
    }

    /// The condition with which the link is detached, next.
    pub(crate) async fn detached(&mut self) -> String {
        let Performative::Detach(Detach { error, closed, .. }) = self.next().await else {
            panic!("no link is detached");
        };
        assert!(closed);
        condition(error)
    }

    /// The condition with which the session is ended, next.
    pub(crate) async fn ended(&mut self) -> String {
        let Performative::End(End { error }) = self.next().await else {
            panic!("no session is ended");
        };
        condition(error)
    }

    pub(crate) async fn flow(&mut self) -> Flow {
        let Performative::Flow(flow) = self.next().await else {
            panic!("no flow");
        };
        flow
    }

    pub(crate) async fn credit(&mut self, handle: u32, delivery_count: u32, credit: u32) {
        let flow = credit_flow(handle, delivery_count, credit);
        self.send(0, Performative::Flow(flow), &[]).await;
    }

    /// The next delivery, whole.
    pub(crate) async fn delivery(&mut self) -> (Transfer, Vec<u8>) {
        let mut first = None;
        let mut whole = Vec::new();
        loop {
            let (Performative::Transfer(transfer), payload) = self.next_with_payload().await else {
                panic!("no transfer");
            };
            whole.extend_from_slice(&payload);
            let more = transfer.more;
            let first = first.get_or_insert(transfer);
            if !more {
                return (first.clone(), whole);
            }
        }
    }

    pub(crate) async fn disposition(&mut self) -> Disposition {
        let disposition = self.any_disposition().await;
        assert!(disposition.settled);
        disposition
    }

    pub(crate) async fn unsettled_disposition(&mut self) -> Disposition {
        let disposition = self.any_disposition().await;
        assert!(!disposition.settled);
        disposition
    }

    async fn any_disposition(&mut self) -> Disposition {
        let Performative::Disposition(disposition) = self.next().await else {
            panic!("no disposition");
        };
        disposition
    }

    pub(crate) async fn settle(&mut self, first: u32, last: u32, state: DeliveryState) {
        let disposition = Disposition {
            role: Role::Receiver,
            first,
            last: Some(last),
            settled: false,
            state: Some(state),
            batchable: false,
        };
        self.send(0, Performative::Disposition(disposition), &[])
            .await;
    }
}

pub(crate) fn condition(error: Option<Error>) -> String {
    let condition = error.map(|error| error.condition);
    match condition {
        None => String::new(),
        Some(ErrorCondition::Custom(symbol)) => symbol.as_str().to_owned(),
        Some(condition) => {
            let bytes = serde_amqp::to_vec(&condition).unwrap();
            String::from_utf8(bytes[2..].to_vec()).unwrap()
        }
    }
}

pub(crate) fn put(bytes: &mut BytesMut, channel: u16, performative: &Performative, payload: &[u8]) {
    put_frame(
        bytes,
        0,
        channel,
        &serde_amqp::to_vec(performative).unwrap(),
        payload,
    );
}

pub(crate) fn put_sasl(bytes: &mut BytesMut, init: &SaslInit) {
    put_frame(bytes, 1, 0, &serde_amqp::to_vec(init).unwrap(), &[]);
}

pub(crate) fn put_frame(bytes: &mut BytesMut, kind: u8, channel: u16, body: &[u8], payload: &[u8]) {
    bytes.put_u32(u32::try_from(8 + body.len() + payload.len()).unwrap());
    bytes.put_slice(&[2, kind]);
    bytes.put_u16(channel);
    bytes.put_slice(body);
    bytes.put_slice(payload);
}

pub(crate) fn plain(key: &str) -> SaslInit {
    let response = format!("\0RootManageSharedAccessKey\0{key}");
    mechanism("PLAIN", Some(response.as_bytes()))
}

pub(crate) fn mechanism(name: &str, response: Option<&[u8]>) -> SaslInit {
    SaslInit {
        mechanism: Symbol::from(name),
        initial_response: response.map(|response| response.to_vec().into()),
        hostname: None,
    }
}

pub(crate) fn open() -> Open {
    Open {
        container_id: "test".to_owned(),
        hostname: Some("localhost".to_owned()),
        max_frame_size: 65_536.into(),
        channel_max: 100.into(),
        idle_time_out: None,
        outgoing_locales: None,
        incoming_locales: None,
        offered_capabilities: None,
        desired_capabilities: None,
        properties: None,
    }
}

pub(crate) fn begin(incoming_window: u32) -> Begin {
    Begin {
        remote_channel: None,
        next_outgoing_id: 0,
        incoming_window,
        outgoing_window: 5000,
        handle_max: 255.into(),
        offered_capabilities: None,
        desired_capabilities: None,
        properties: None,
    }
}

pub(crate) fn sender(handle: u32, address: &str) -> Attach {
    let target = Target::builder().address(address).build();
    Attach {
        role: Role::Sender,
        source: Some(Box::default()),
        target: Some(Box::new(TargetArchetype::Target(target))),
        initial_delivery_count: Some(0),
        ..link(handle)
    }
}

pub(crate) fn receiver(handle: u32, address: &str) -> Attach {
    let source = Source::builder().address(address).build();
    Attach {
        role: Role::Receiver,
        source: Some(Box::new(source)),
        target: Some(Box::new(TargetArchetype::Target(Target::default()))),
        ..link(handle)
    }
}

fn link(handle: u32) -> Attach {
    Attach {
        name: format!("link-{handle}"),
        handle: handle.into(),
        role: Role::Sender,
        snd_settle_mode: SenderSettleMode::Unsettled,
        rcv_settle_mode: Default::default(),
        source: None,
        target: None,
        unsettled: None,
        incomplete_unsettled: false,
        initial_delivery_count: None,
        max_message_size: None,
        offered_capabilities: None,
        desired_capabilities: None,
        properties: None,
    }
}

pub(crate) fn credit_flow(handle: u32, delivery_count: u32, credit: u32) -> Flow {
    Flow {
        handle: Some(handle.into()),
        delivery_count: Some(delivery_count),
        link_credit: Some(credit),
        ..session_flow(0, 5000)
    }
}

pub(crate) fn session_flow(next_incoming_id: u32, incoming_window: u32) -> Flow {
    Flow {
        next_incoming_id: Some(next_incoming_id),
        incoming_window,
        next_outgoing_id: 0,
        outgoing_window: 5000,
        handle: None,
        delivery_count: None,
        link_credit: None,
        available: None,
        drain: false,
        echo: false,
        properties: None,
    }
}

pub(crate) fn transfer(handle: u32, delivery: u32, more: bool) -> Transfer {
    Transfer {
        handle: handle.into(),
        delivery_id: Some(delivery),
        delivery_tag: Some(delivery.to_be_bytes().to_vec().into()),
        message_format: Some(0),
        settled: None,
        more,
        rcv_settle_mode: None,
        state: None,
        resume: false,
        aborted: false,
        batchable: false,
    }
}

/// A message with nothing but a body.
pub(crate) fn data(body: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0x00, 0x53, 0x75, 0xb0];
    bytes.put_u32(u32::try_from(body.len()).unwrap());
    bytes.put_slice(body);
    bytes
}

impl Client {
    /// Whether the connection ends before the broker has sent its header.
    pub(crate) async fn ends_without_a_header(&mut self) -> bool {
        !self.fill(8).await
    }
}
