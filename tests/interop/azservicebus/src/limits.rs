//! Steps: large messages, many receivers, and what is refused.

use std::{
    collections::BTreeSet,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use azservicebus::{
    ServiceBusClient, ServiceBusClientOptions, ServiceBusMessage, amqp::error::TryAddMessageError,
};

use crate::{
    messages::{message, text},
    stage::{Stage, receiver, send, sender, take_one, until_empty},
};

pub async fn large_message(stage: Stage) {
    let mut client = stage.client().await;
    let mut large = sender(&mut client, "large").await;
    let body: Vec<u8> = (0..200 * 1024_u32)
        .map(|number| (number % 251) as u8)
        .collect();
    send(&mut large, body.clone()).await;
    let mut receiver = receiver(&mut client, "large").await;
    let message = take_one(&mut receiver).await;
    assert!(message.body().unwrap() == body, "another body");
    receiver.complete_message(&message).await.unwrap();
    until_empty(&mut receiver).await;
}

pub async fn message_too_large(stage: Stage) {
    let mut client = stage.client_with(0, Duration::from_secs(2)).await;
    let mut large = sender(&mut client, "large").await;
    let body = vec![b'x'; 300 * 1024];
    let mut batch = large.create_message_batch(Default::default()).unwrap();
    let full = batch.try_add_message(body.clone()).unwrap_err();
    assert!(matches!(full, TryAddMessageError::BatchFull(_)), "{full:?}");
    // Sent without a batch it makes the crate break off a delivery at the maximum size and go on under another id, which ends the
    // link; the crate waits for an answer all the same.
    large.send_message(body).await.unwrap_err();
    let mut again = sender(&mut client, "large").await;
    send(&mut again, "small").await;
    let mut receiver = receiver(&mut client, "large").await;
    assert_eq!(text(&take_one(&mut receiver).await), "small");
}

const RECEIVERS: usize = 100;
const CONNECTIONS: usize = 10;
const MESSAGES: usize = 1_000;

pub async fn hundred_receivers(stage: Stage) {
    let mut client = stage.client().await;
    let mut receivers = Vec::new();
    let mut clients = Vec::new();
    for _ in 0..CONNECTIONS {
        let mut client = stage.client().await;
        for _ in 0..RECEIVERS / CONNECTIONS {
            receivers.push(receiver(&mut client, "many").await);
        }
        clients.push(client);
    }
    let got = Arc::new(Mutex::new(Vec::new()));
    let busy = Arc::new(AtomicUsize::new(0));
    let mut tasks = Vec::new();
    for mut receiver in receivers {
        let (got, busy) = (Arc::clone(&got), Arc::clone(&busy));
        tasks.push(tokio::spawn(async move {
            let mut is_first = true;
            while got.lock().unwrap().len() < MESSAGES {
                let wait = Duration::from_millis(200);
                let received = receiver.receive_message_with_max_wait_time(wait).await;
                if let Some(message) = received.unwrap() {
                    if std::mem::take(&mut is_first) {
                        busy.fetch_add(1, Ordering::Relaxed);
                    }
                    receiver.complete_message(&message).await.unwrap();
                    got.lock().unwrap().push(text(&message).to_owned());
                }
            }
            receiver
        }));
    }
    let mut many = sender(&mut client, "many").await;
    for hundred in 0..MESSAGES / 100 {
        let numbers = hundred * 100..(hundred + 1) * 100;
        let messages = numbers.map(|number| message(&format!("{number}"), &format!("{number}")));
        many.send_messages(messages.collect::<Vec<ServiceBusMessage>>())
            .await
            .unwrap();
    }
    let mut receivers = Vec::new();
    for task in tasks {
        receivers.push(task.await.unwrap());
    }
    let got = std::mem::take(&mut *got.lock().unwrap());
    assert_eq!(got.len(), MESSAGES, "each was received once");
    assert_eq!(got.iter().collect::<BTreeSet<_>>().len(), MESSAGES);
    let busy = busy.load(Ordering::Relaxed);
    assert!(busy > RECEIVERS / 2, "{busy} receivers got something");
    let mut receiver = receiver(&mut client, "many").await;
    until_empty(&mut receiver).await;
}

pub async fn unknown_entity(stage: Stage) {
    let mut client = stage.client().await;
    let no_sender = client
        .create_sender("no-such-queue", Default::default())
        .await;
    let no_receiver = client
        .create_receiver_for_queue("no-such-queue", Default::default())
        .await;
    let no_subscription = client
        .create_receiver_for_subscription("fan", "no-such-subscription", Default::default())
        .await;
    for (what, error) in [
        ("sender", no_sender.err()),
        ("receiver", no_receiver.err()),
        ("subscription", no_subscription.err()),
    ] {
        let error = format!("{:?}", error.unwrap_or_else(|| panic!("there is a {what}")));
        assert!(
            error.contains("could not be found") || error.contains("404"),
            "{what}: {error}"
        );
    }
    // The connection has not suffered.
    let mut plain = sender(&mut client, "plain").await;
    send(&mut plain, "still here").await;
}

pub async fn bad_key(stage: Stage) {
    let options = ServiceBusClientOptions::default();
    let client = ServiceBusClient::unsecured()
        .new_from_connection_string(stage.connection_string("not the key"), options)
        .await;
    // Nothing is shown to the bus before an entity is named.
    let mut client = client.unwrap();
    for error in [
        client
            .create_sender("plain", Default::default())
            .await
            .err(),
        client
            .create_receiver_for_queue("plain", Default::default())
            .await
            .err(),
    ] {
        let error = format!("{:?}", error.expect("refused"));
        assert!(error.contains("401"), "{error}");
    }
}
