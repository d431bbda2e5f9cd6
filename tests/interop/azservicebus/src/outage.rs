//! Step: `kill -9` of the emulator in the middle, and its return.

use std::collections::BTreeSet;

use azservicebus::ServiceBusSender;

use crate::{
    emulator::PATIENCE,
    messages::{message, text},
    stage::{Stage, receiver, sender, take, take_one, until_there_are},
};

/// Sends until it is known to have been taken; whether it took more than one attempt.
async fn send_at_last(sender: &mut ServiceBusSender, number: usize) -> bool {
    for attempt in 0..20 {
        let sent = message(&format!("{number}"), &format!("m-{number}"));
        match sender.send_message(sent).await {
            Ok(()) => return attempt > 0,
            Err(error) => eprintln!("{number}: {error}"),
        }
    }
    panic!("{number} was never sent");
}

pub async fn reconnect_after_kill(mut stage: Stage) {
    let mut client = stage.client_with(5, PATIENCE).await;
    let mut sending = sender(&mut client, "reconnect").await;
    let mut receiving = receiver(&mut client, "reconnect").await;
    let mut repeated = BTreeSet::new();
    for number in 0..50 {
        assert!(!send_at_last(&mut sending, number).await);
    }
    for message in take(&mut receiving, 10).await {
        receiving.complete_message(&message).await.unwrap();
    }
    until_there_are(&mut receiving, 40).await;
    // Neither settled nor forgotten.
    assert_eq!(text(&take_one(&mut receiving).await), "10");

    stage.emulator.kill().await;
    stage.emulator.start_again().await;

    // The sender and the receiver of before find their way back.
    for number in 50..100 {
        if send_at_last(&mut sending, number).await {
            repeated.insert(number);
        }
    }
    let mut got: Vec<usize> = Vec::new();
    while got.iter().collect::<BTreeSet<_>>().len() < 90 {
        let message = take_one(&mut receiving).await;
        receiving.complete_message(&message).await.unwrap();
        got.push(text(&message).parse().unwrap());
    }
    let unique: BTreeSet<usize> = got.iter().copied().collect();
    assert_eq!(
        unique,
        (10..100).collect(),
        "nothing is lost, and nothing completed comes back"
    );
    let doubled = got.len() - unique.len();
    assert!(
        doubled <= repeated.len(),
        "{doubled} doubled, {repeated:?} were sent again"
    );
}
