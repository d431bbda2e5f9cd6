//! How many messages the local Service Bus takes and gives, with `azservicebus`.
//!
//! The emulator stores what it answers; it and this client share the machine. Prints messages per second of sending one by one, sending
//! batches of 100, and receiving and completing, then the emulator's memory. Arguments: how many messages, and the size of each
//! body in bytes (20000 and 100). To be built with `--release`, and the emulator too.

use std::time::{Duration, Instant};

use azservicebus::{ServiceBusMessage, ServiceBusReceiverOptions};
use azservicebus_interop::stage::{Stage, receiver_with, sender, until_empty};

const BATCH: usize = 100;
/// More than the crate's acknowledgements need to keep up.
const PREFETCH: u32 = 500;

#[tokio::main]
async fn main() {
    let mut arguments = std::env::args().skip(1);
    let mut number = |default: usize| {
        let given = arguments.next();
        given.map_or(default, |given| given.parse().expect("a number"))
    };
    let (count, size) = (number(20_000), number(100));
    let count = count.next_multiple_of(BATCH);
    let body = vec![b'x'; size];
    let stage = Stage::new().await;
    let mut client = stage.client().await;
    let mut load = sender(&mut client, "load").await;
    println!("{count} messages with {size} bytes");

    let started = Instant::now();
    for _ in 0..count {
        load.send_message(body.clone()).await.expect("sent");
    }
    report("single send", count, started.elapsed());

    let started = Instant::now();
    for _ in 0..count / BATCH {
        let batch = std::iter::repeat_n(body.clone(), BATCH).map(ServiceBusMessage::from);
        load.send_messages(batch.collect::<Vec<_>>())
            .await
            .expect("sent");
    }
    report("batches of 100", count, started.elapsed());
    println!(
        "emulator: {} kB resident with all of them",
        stage.emulator.resident_kilobytes()
    );

    let options = ServiceBusReceiverOptions {
        prefetch_count: PREFETCH,
        ..Default::default()
    };
    let mut receiver = receiver_with(&mut client, "load", options).await;
    let started = Instant::now();
    for _ in 0..2 * count {
        let message = receiver.receive_message().await.expect("a message");
        receiver
            .complete_message(&message)
            .await
            .expect("completed");
    }
    until_empty(&mut receiver).await;
    report("receive and complete", 2 * count, started.elapsed());
    println!(
        "emulator: {} kB resident in the end",
        stage.emulator.resident_kilobytes()
    );
}

fn report(what: &str, count: usize, time: Duration) {
    let rate = count as f64 / time.as_secs_f64();
    println!(
        "{what}: {count} in {:.2} s, {rate:.0} messages per second",
        time.as_secs_f64()
    );
}
