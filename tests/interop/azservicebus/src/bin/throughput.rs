//! How many messages the local Service Bus takes and gives, with `fe2o3-amqp`.
//!
//! The emulator stores what it answers; it and this client share the machine. `azservicebus` itself is built on a version of
//! that client which cannot do without latency (see `forwarder`), so what it would show is the latency. Arguments: how many
//! messages, and the size of each body in bytes (20000 and 100). To be built with `--release`, and the emulator too.

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

use azservicebus_interop::{
    stage::{Stage, until_empty},
    transactions::connect,
};
use fe2o3_amqp::{
    Receiver, Sendable, Sender, Session,
    link::receiver::CreditMode,
    types::{
        definitions::ReceiverSettleMode,
        messaging::{Batch, Body, Data, Message, Outcome},
        primitives::{Binary, Value},
    },
};

const BATCH: usize = 100;
const IN_FLIGHT: usize = 100;
const CREDIT: u32 = 500;
/// The message format of a batch, each section of which is a message.
const BATCH_FORMAT: u32 = 0x8001_3700;

#[tokio::main]
async fn main() {
    let mut arguments = std::env::args().skip(1);
    let mut number = |default: usize| {
        let given = arguments.next();
        given.map_or(default, |given| given.parse().expect("a number"))
    };
    let (count, size) = (number(20_000), number(100));
    let count = count.next_multiple_of(BATCH);
    println!("{count} messages with {size} bytes");
    let stage = Stage::new().await;
    let mut connection = connect(&stage).await;
    let mut session = Session::begin(&mut connection).await.expect("a session");
    let mut sender = Sender::attach(&mut session, "throughput", "load")
        .await
        .expect("a sender");
    let message = || Message::from(Data::from(Binary::from(vec![b'x'; size])));

    let started = Instant::now();
    for _ in 0..count {
        accepted(sender.send(message())).await;
    }
    report("send, one after the other", count, started.elapsed());

    let started = Instant::now();
    let mut in_flight = VecDeque::new();
    for _ in 0..count {
        if in_flight.len() == IN_FLIGHT
            && let Some(first) = in_flight.pop_front()
        {
            accepted(first).await;
        }
        in_flight.push_back(sender.send_batchable(message()).await.expect("sent"));
    }
    for sent in in_flight {
        accepted(sent).await;
    }
    report("send, 100 in flight", count, started.elapsed());

    let started = Instant::now();
    let section = Data::from(Binary::from(encoded(size)));
    for _ in 0..count / BATCH {
        let batch = Batch::new(vec![section.clone(); BATCH]);
        let batch = Message::builder().body(batch).build();
        let batch = Sendable::builder()
            .message(batch)
            .message_format(BATCH_FORMAT);
        accepted(sender.send(batch.build())).await;
    }
    report("send, batches of 100", count, started.elapsed());
    let resident = stage.emulator.resident_kilobytes();
    println!("emulator: {resident} kB resident with all of them");

    let mut receiver = Receiver::builder()
        .name("throughput-receiver")
        .source("load")
        .receiver_settle_mode(ReceiverSettleMode::Second)
        .credit_mode(CreditMode::Auto(CREDIT))
        .attach(&mut session)
        .await
        .expect("a receiver");
    let started = Instant::now();
    for _ in 0..3 * count {
        let delivery = receiver.recv::<Body<Value>>().await.expect("a message");
        receiver.accept(&delivery).await.expect("completed");
    }
    let mut client = stage.client().await;
    until_empty(&mut azservicebus_interop::stage::receiver(&mut client, "load").await).await;
    report("receive and complete", 3 * count, started.elapsed());
    let resident = stage.emulator.resident_kilobytes();
    println!("emulator: {resident} kB resident in the end");
}

async fn accepted<E: std::fmt::Debug>(sending: impl Future<Output = Result<Outcome, E>>) {
    let outcome = sending.await.expect("sent");
    assert!(matches!(outcome, Outcome::Accepted(_)), "{outcome:?}");
}

/// A message with a body of that size and nothing else.
fn encoded(size: usize) -> Vec<u8> {
    let length = u32::try_from(size).expect("a small body").to_be_bytes();
    [&[0x00, 0x53, 0x75, 0xb0], &length[..], &vec![b'x'; size]].concat()
}

fn report(what: &str, count: usize, time: Duration) {
    let seconds = time.as_secs_f64();
    let rate = count as f64 / seconds;
    println!("{what}: {count} in {seconds:.2} s, {rate:.0} messages per second");
}
