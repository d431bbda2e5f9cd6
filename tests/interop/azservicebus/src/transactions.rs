//! Step: transactions, with a newer version of the AMQP client that the crate is built on, for the crate itself has none.
//! It shows its key as a user does (SASL PLAIN), where the crate puts tokens.
//!
//! Each shows with the crate, on another connection, what others see before and after.

use azservicebus::ServiceBusReceiver;
use fe2o3_amqp::{
    Connection, Receiver, Sendable, Sender, Session,
    connection::ConnectionHandle,
    link::delivery::Delivery,
    sasl_profile::SaslProfile,
    session::SessionHandle,
    transaction::{
        Controller, Transaction, TransactionDischarge, TransactionPosting, TransactionRetirement,
    },
    types::{
        definitions::{self, ErrorCondition, Fields, ReceiverSettleMode},
        messaging::{Body, Data, Message, Modified, Outcome},
        primitives::{Binary, Symbol, Value},
    },
};

use crate::{
    emulator::{KEY, KEY_NAME},
    stage::{
        Stage, assert_empty, dead_letters, everything_in, receiver, send, sender, take_one,
        until_empty, until_there_are,
    },
};

/// To the emulator itself.
pub async fn connect(stage: &Stage) -> ConnectionHandle<()> {
    Connection::builder()
        .container_id("fe2o3-amqp")
        .sasl_profile(SaslProfile::Plain {
            username: KEY_NAME.to_owned(),
            password: KEY.to_owned(),
        })
        .open(format!("amqp://127.0.0.1:{}", stage.emulator.amqp_port).as_str())
        .await
        .unwrap()
}

struct Bare {
    session: SessionHandle<()>,
    controller: Controller,
    // What the session stands on.
    _connection: ConnectionHandle<()>,
}

impl Bare {
    async fn connect(stage: &Stage) -> Self {
        let mut connection = connect(stage).await;
        let mut session = Session::begin(&mut connection).await.unwrap();
        let controller = Controller::attach(&mut session, "controller")
            .await
            .unwrap();
        Self {
            session,
            controller,
            _connection: connection,
        }
    }

    async fn sender(&mut self, entity: &str) -> Sender {
        let name = format!("sends-to-{entity}");
        Sender::attach(&mut self.session, name, entity)
            .await
            .unwrap()
    }

    async fn receiver(&mut self, entity: &str) -> Receiver {
        Receiver::builder()
            .name(format!("receives-from-{entity}"))
            .source(entity)
            .receiver_settle_mode(ReceiverSettleMode::Second)
            .attach(&mut self.session)
            .await
            .unwrap()
    }

    async fn declare(&self) -> Transaction<'_> {
        Transaction::declare(&self.controller, None).await.unwrap()
    }
}

fn of(body: &str) -> Sendable<Data> {
    let message = Message::builder()
        .data(Binary::from(body.as_bytes()))
        .build();
    Sendable::builder().message(message).build()
}

async fn post(transaction: &Transaction<'_>, sender: &mut Sender, body: &str) {
    let outcome = transaction.post(sender, of(body)).await.unwrap();
    assert!(matches!(outcome, Outcome::Accepted(_)), "{outcome:?}");
}

async fn receive(receiver: &mut Receiver) -> Delivery<Body<Value>> {
    receiver.recv().await.unwrap()
}

fn earlier_deliveries(delivery: &Delivery<Body<Value>>) -> Option<u32> {
    let header = delivery.message().header.as_ref()?;
    Some(header.delivery_count)
}

async fn bodies_in(receiver: &mut ServiceBusReceiver) -> Vec<String> {
    let all = everything_in(receiver).await;
    let body = |one: &[u8]| String::from_utf8(one.to_vec()).unwrap();
    all.iter().map(|one| body(one.body().unwrap())).collect()
}

pub async fn sends(stage: Stage) {
    let mut client = stage.client().await;
    let mut seen_in_a = receiver(&mut client, "txn-a").await;
    let mut seen_in_b = receiver(&mut client, "txn-b").await;
    let mut bare = Bare::connect(&stage).await;
    let mut a = bare.sender("txn-a").await;
    let mut b = bare.sender("txn-b").await;

    let transaction = bare.declare().await;
    post(&transaction, &mut a, "rolled back a").await;
    post(&transaction, &mut b, "rolled back b").await;
    transaction.rollback().await.unwrap();
    assert_empty(&mut seen_in_a).await;
    assert_empty(&mut seen_in_b).await;

    let transaction = bare.declare().await;
    post(&transaction, &mut a, "a1").await;
    post(&transaction, &mut b, "b1").await;
    post(&transaction, &mut a, "a2").await;
    // Nobody sees anything of it before it is committed.
    assert_empty(&mut seen_in_a).await;
    assert_empty(&mut seen_in_b).await;
    transaction.commit().await.unwrap();
    assert_eq!(bodies_in(&mut seen_in_a).await, ["a1", "a2"]);
    assert_eq!(bodies_in(&mut seen_in_b).await, ["b1"]);
}

pub async fn settlements(stage: Stage) {
    let mut client = stage.client().await;
    let mut plain = sender(&mut client, "txn-a").await;
    plain
        .send_messages(["complete", "abandon", "dead-letter", "defer"])
        .await
        .unwrap();
    let mut seen = receiver(&mut client, "txn-a").await;
    let mut bare = Bare::connect(&stage).await;
    let mut receiver = bare.receiver("txn-a").await;
    let mut deliveries = Vec::new();
    for _ in 0..4 {
        deliveries.push(receive(&mut receiver).await);
    }

    let transaction = bare.declare().await;
    transaction
        .accept(&mut receiver, &deliveries[0])
        .await
        .unwrap();
    let modified = |undeliverable_here| Modified {
        delivery_failed: None,
        undeliverable_here,
        message_annotations: None,
    };
    transaction
        .modify(&mut receiver, &deliveries[1], modified(None))
        .await
        .unwrap();
    let mut info = Fields::new();
    info.insert(Symbol::from("DeadLetterReason"), Value::from("Tired"));
    let condition = ErrorCondition::Custom(Symbol::from("com.microsoft:dead-letter"));
    let error = definitions::Error::new(condition, None, info);
    transaction
        .reject(&mut receiver, &deliveries[2], Some(error))
        .await
        .unwrap();
    transaction
        .modify(&mut receiver, &deliveries[3], modified(Some(true)))
        .await
        .unwrap();
    assert_eq!(everything_in(&mut seen).await.len(), 4);
    transaction.commit().await.unwrap();
    until_there_are(&mut seen, 2).await;
    assert_eq!(bodies_in(&mut seen).await, ["abandon", "defer"]);
    let again = receive(&mut receiver).await;
    assert_eq!(earlier_deliveries(&again), Some(1));
    receiver.accept(&again).await.unwrap();
    let deferred = seen.receive_deferred_message(4).await.unwrap().unwrap();
    seen.complete_message(&deferred).await.unwrap();
    until_empty(&mut seen).await;
    let mut dead_letters = dead_letters(&mut client, "txn-a").await;
    let dead = take_one(&mut dead_letters).await;
    assert_eq!(dead.dead_letter_reason(), Some("Tired"));
}

/// What a transaction is mostly for: a message is done exactly when what follows from it is sent.
pub async fn across_entities(stage: Stage) {
    let mut client = stage.client().await;
    let mut plain = sender(&mut client, "txn-short-lock").await;
    let mut seen_before = receiver(&mut client, "txn-short-lock").await;
    let mut seen_after = receiver(&mut client, "txn-b").await;
    let mut bare = Bare::connect(&stage).await;
    let mut from = bare.receiver("txn-short-lock").await;
    let mut to = bare.sender("txn-b").await;
    send(&mut plain, "step 1").await;
    let delivery = receive(&mut from).await;

    let transaction = bare.declare().await;
    post(&transaction, &mut to, "step 2, in vain").await;
    transaction.accept(&mut from, &delivery).await.unwrap();
    transaction.rollback().await.unwrap();
    assert_eq!(bodies_in(&mut seen_before).await, ["step 1"]);
    assert_empty(&mut seen_after).await;

    // For its link the delivery is settled; the message comes again with the end of its lock.
    let delivery = receive(&mut from).await;
    assert_eq!(earlier_deliveries(&delivery), Some(1));
    let transaction = bare.declare().await;
    post(&transaction, &mut to, "step 2").await;
    transaction.accept(&mut from, &delivery).await.unwrap();
    transaction.commit().await.unwrap();
    assert_empty(&mut seen_before).await;
    assert_eq!(bodies_in(&mut seen_after).await, ["step 2"]);
}

/// What is left open when its connection ends never was.
pub async fn left_open(stage: Stage) {
    let mut client = stage.client().await;
    let mut seen = receiver(&mut client, "txn-a").await;
    let mut bare = Bare::connect(&stage).await;
    let mut a = bare.sender("txn-a").await;
    let transaction = bare.declare().await;
    post(&transaction, &mut a, "left open").await;
    drop(transaction);
    drop(a);
    drop(bare);
    let mut other = Bare::connect(&stage).await;
    let mut a = other.sender("txn-a").await;
    let transaction = other.declare().await;
    post(&transaction, &mut a, "committed").await;
    transaction.commit().await.unwrap();
    assert_eq!(bodies_in(&mut seen).await, ["committed"]);
}
