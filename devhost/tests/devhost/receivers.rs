//! Receiving over AMQP: what comes of it is what comes straight from the bus.

use std::{
    net::{Ipv4Addr, SocketAddr},
    time::{Duration, Instant},
};

use axum::Router;
use devhost::{
    amqp_receiver::AmqpReceiver,
    receiver::{Receiver, ReceiverError},
    stand_ins::bus_policy,
};
use jiff::Timestamp;
use servicebus_emulator::{
    EntityPath, Error, Message, MessageState, ReceivedMessage, ServiceBus, Topology, Value, amqp,
};
use tokio::{
    io::copy_bidirectional,
    net::{TcpListener, TcpStream},
    sync::watch,
};
use uuid::Uuid;

use crate::app::GIVE_UP;

/// A bus in this process, with its AMQP behind connections that can be cut.
struct Bus {
    bus: ServiceBus,
    amqp: SocketAddr,
    cut: watch::Sender<()>,
}

impl Bus {
    /// With the queue `work`, whose locks hold for `lock_duration`.
    async fn open(lock_duration: &str) -> Self {
        let topology = format!(
            r#"{{"UserConfig":{{"Namespaces":[{{"Name":"sbemulatorns","Queues":[{{"Name":"work",
                "Properties":{{"LockDuration":"{lock_duration}","MaxDeliveryCount":3}}}}],"Topics":[]}}]}}}}"#
        );
        let topology = Topology::parse(&topology, "servicebus.json").unwrap();
        let bus = ServiceBus::open(&topology, None).unwrap();
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let behind = listener.local_addr().unwrap();
        tokio::spawn(amqp::serve(
            listener,
            bus.clone(),
            bus_policy(),
            amqp::Limits::default(),
            Router::new(),
            std::future::pending(),
        ));
        let (cut, cuts) = watch::channel(());
        let proxy = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let amqp = proxy.local_addr().unwrap();
        tokio::spawn(async move {
            while let Ok((mut client, _)) = proxy.accept().await {
                let mut cuts = cuts.clone();
                cuts.mark_unchanged();
                tokio::spawn(async move {
                    let mut server = TcpStream::connect(behind).await.unwrap();
                    tokio::select! {
                        _ = copy_bidirectional(&mut client, &mut server) => {}
                        _ = cuts.changed() => {}
                    }
                });
            }
        });
        Self { bus, amqp, cut }
    }

    fn over_amqp(&self) -> Receiver {
        Receiver::Amqp(AmqpReceiver::new(self.amqp, work(), bus_policy()))
    }

    fn direct(&self) -> Receiver {
        Receiver::Direct {
            bus: self.bus.clone(),
            entity: work(),
        }
    }

    async fn send(&self, body: &'static str) {
        let message = Message {
            body: body.as_bytes().into(),
            ..Message::default()
        };
        self.bus.send(&work(), vec![message]).await.unwrap();
    }

    async fn count(&self, state: MessageState) -> usize {
        self.bus.browse(&work(), state).await.unwrap().len()
    }

    async fn wait_for_locked(&self, count: usize) {
        let started = Instant::now();
        while self.count(MessageState::Locked).await != count {
            assert!(started.elapsed() < GIVE_UP, "never {count} are locked");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    async fn is_empty(&self) -> bool {
        self.count(MessageState::Active).await + self.count(MessageState::Locked).await == 0
    }
}

fn work() -> EntityPath {
    "work".parse().unwrap()
}

async fn next(receiver: &Receiver) -> ReceivedMessage {
    let received = receiver.receive(1, GIVE_UP).await;
    received.unwrap().expect("a message")
}

fn whole_milliseconds(time: Timestamp) -> Timestamp {
    Timestamp::from_millisecond(time.as_millisecond()).unwrap()
}

#[tokio::test]
async fn a_message_is_the_same_over_amqp() {
    let bus = Bus::open("PT1M").await;
    let properties = [
        ("bool", Value::Bool(true)),
        ("byte", Value::Byte(255)),
        ("char", Value::Char('ß')),
        ("double", Value::Double(-0.5)),
        ("float", Value::Float(1.5)),
        ("int", Value::Int(-7)),
        ("long", Value::Long(i64::MIN)),
        ("null", Value::Null),
        ("sbyte", Value::SByte(-1)),
        ("short", Value::Short(-300)),
        ("string", Value::String("Käse".to_owned())),
        ("symbol", Value::Symbol("x:y".to_owned())),
        ("uint", Value::UInt(u32::MAX)),
        ("ulong", Value::ULong(u64::MAX)),
        ("ushort", Value::UShort(65_535)),
        ("uuid", Value::Uuid(Uuid::max())),
        ("binary", Value::Binary(vec![0, 255].into())),
        (
            "time",
            Value::Timestamp(Timestamp::from_millisecond(1_700_000_000_123).unwrap()),
        ),
    ];
    let whole = Message {
        body: "Käsespätzle".as_bytes().into(),
        content_type: Some("text/plain".to_owned()),
        message_id: Some("m-1".to_owned()),
        correlation_id: Some("c-1".to_owned()),
        partition_key: Some("p-1".to_owned()),
        label: Some("order.placed".to_owned()),
        reply_to: Some("till".to_owned()),
        reply_to_session_id: Some("till-7".to_owned()),
        to: Some("kitchen".to_owned()),
        time_to_live: Some(Duration::from_secs(60)),
        properties: properties
            .into_iter()
            .map(|(name, value)| (name.to_owned(), value))
            .collect(),
        ..Message::default()
    };
    for sent in [whole, Message::default()] {
        bus.bus.send(&work(), vec![sent]).await.unwrap();
        let direct = bus.direct();
        let mut expected = next(&direct).await;
        direct.abandon(expected.lock_token.unwrap()).await.unwrap();
        let over_amqp = bus.over_amqp();
        let received = next(&over_amqp).await;
        assert_ne!(received.lock_token, expected.lock_token);
        assert!(received.locked_until >= expected.locked_until.map(whole_milliseconds));
        // It is another delivery, and AMQP has no more than milliseconds.
        expected.delivery_count = 2;
        expected.lock_token = received.lock_token;
        expected.locked_until = received.locked_until;
        expected.enqueued_time = whole_milliseconds(expected.enqueued_time);
        expected.expires_at = expected.expires_at.map(whole_milliseconds);
        assert_eq!(received, expected);
        over_amqp
            .complete(received.lock_token.unwrap())
            .await
            .unwrap();
        assert!(bus.is_empty().await);
    }
}

#[tokio::test]
async fn no_more_messages_are_locked_than_there_are_free_calls() {
    let bus = Bus::open("PT1M").await;
    for body in ["1", "2", "3", "4", "5"] {
        bus.send(body).await;
    }
    let receiver = bus.over_amqp();
    let first = receiver.receive(3, GIVE_UP).await.unwrap().unwrap();
    bus.wait_for_locked(3).await;
    // One call is busy with the first.
    receiver.receive(2, GIVE_UP).await.unwrap().unwrap();
    receiver.receive(1, GIVE_UP).await.unwrap().unwrap();
    assert_eq!(bus.count(MessageState::Locked).await, 3);
    receiver.complete(first.lock_token.unwrap()).await.unwrap();
    let fourth = receiver.receive(1, GIVE_UP).await.unwrap().unwrap();
    assert_eq!(fourth.message.body.bytes(), "4");
    assert_eq!(bus.count(MessageState::Locked).await, 3);
    receiver.stop().await;
    receiver.complete(fourth.lock_token.unwrap()).await.unwrap();
    let none = receiver.receive(0, Duration::from_millis(100)).await;
    assert_eq!(none.unwrap(), None);
    assert_eq!(bus.count(MessageState::Active).await, 1);
}

#[tokio::test]
async fn nothing_comes_where_there_is_nothing() {
    let bus = Bus::open("PT1M").await;
    let receiver = bus.over_amqp();
    let none = receiver.receive(1, Duration::from_millis(100)).await;
    assert_eq!(none.unwrap(), None);
    bus.send("later").await;
    assert_eq!(next(&receiver).await.message.body.bytes(), "later");
}

#[tokio::test]
async fn an_abandoned_message_comes_again_at_once_and_is_dead_in_the_end() {
    let bus = Bus::open("PT1M").await;
    bus.send("bad").await;
    let receiver = bus.over_amqp();
    for count in 1..=3 {
        let message = next(&receiver).await;
        assert_eq!(message.delivery_count, count);
        receiver.abandon(message.lock_token.unwrap()).await.unwrap();
    }
    let dead_letters = work().dead_letter();
    let dead = bus.bus.browse(&dead_letters, MessageState::Active).await;
    assert_eq!(dead.unwrap().len(), 1);
}

#[tokio::test]
async fn a_lock_is_renewed_or_lost_and_it_is_told() {
    let bus = Bus::open("PT5S").await;
    bus.send("slow").await;
    let receiver = bus.over_amqp();
    let first = next(&receiver).await;
    let (token, until) = (first.lock_token.unwrap(), first.locked_until.unwrap());
    let renewed = receiver.renew_lock(token).await.unwrap();
    assert!(renewed >= until, "{renewed} {until}");
    // Comes again only when the lock has expired.
    let second = next(&receiver).await;
    assert_eq!(second.delivery_count, 2);
    assert!(Timestamp::now() >= renewed);
    for refused in [
        receiver.complete(token).await.unwrap_err(),
        receiver.renew_lock(token).await.unwrap_err(),
    ] {
        assert!(
            matches!(refused, ReceiverError::Bus(Error::MessageLockLost)),
            "{refused:?}"
        );
    }
    receiver.complete(second.lock_token.unwrap()).await.unwrap();
    assert!(bus.is_empty().await);
}

#[tokio::test]
async fn a_connection_that_is_cut_is_made_anew() {
    let bus = Bus::open("PT1M").await;
    bus.send("before").await;
    let receiver = bus.over_amqp();
    let before = next(&receiver).await;
    // One that waits is told, and the next one gets what comes.
    let (waited, ()) = tokio::join!(receiver.receive(1, GIVE_UP), async {
        tokio::time::sleep(Duration::from_millis(50)).await;
        bus.cut.send_replace(());
    });
    assert!(matches!(waited, Err(ReceiverError::Lost(_))), "{waited:?}");
    bus.send("after").await;
    let after = next(&receiver).await;
    assert_eq!(after.message.body.bytes(), "after");
    // What came over the other connection is settled over this one.
    let token = before.lock_token.unwrap();
    assert!(receiver.renew_lock(token).await.unwrap() >= before.locked_until.unwrap());
    receiver.complete(token).await.unwrap();
    receiver.complete(after.lock_token.unwrap()).await.unwrap();
    assert!(bus.is_empty().await);
}

#[tokio::test]
async fn what_is_wrong_is_told_and_can_be_tried_again() {
    let bus = Bus::open("PT1M").await;
    let nowhere: EntityPath = "nowhere".parse().unwrap();
    let receiver = Receiver::Amqp(AmqpReceiver::new(bus.amqp, nowhere, bus_policy()));
    let error = receiver.receive(1, GIVE_UP).await.unwrap_err().to_string();
    assert!(error.contains("nowhere"), "{error}");
    let mut policy = bus_policy();
    policy.key.push('x');
    let receiver = Receiver::Amqp(AmqpReceiver::new(bus.amqp, work(), policy));
    for _ in 0..2 {
        let error = receiver.receive(1, GIVE_UP).await.unwrap_err();
        assert!(matches!(error, ReceiverError::Connect(..)), "{error:?}");
    }
}
