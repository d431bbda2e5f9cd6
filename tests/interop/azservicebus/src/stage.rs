//! What a step plays on: an emulator of its own, and clients of it.

use std::time::Duration;

use azservicebus::{
    ServiceBusClient, ServiceBusClientOptions, ServiceBusMessage, ServiceBusPeekedMessage,
    ServiceBusReceivedMessage, ServiceBusReceiver, ServiceBusReceiverOptions,
    ServiceBusRetryOptions, ServiceBusSender, SubQueue, core::BasicRetryPolicy,
};

use crate::{
    emulator::{Emulator, KEY, KEY_NAME, PATIENCE},
    forwarder::Forwarder,
};

pub type Client = ServiceBusClient<BasicRetryPolicy>;

pub struct Stage {
    pub emulator: Emulator,
    pub forwarder: Forwarder,
}

impl Stage {
    pub async fn new() -> Self {
        let emulator = Emulator::start().await;
        let forwarder = Forwarder::to(emulator.amqp_port).await;
        Self {
            emulator,
            forwarder,
        }
    }

    pub fn connection_string(&self, key: &str) -> String {
        format!(
            "Endpoint=sb://{};SharedAccessKeyName={KEY_NAME};SharedAccessKey={key};UseDevelopmentEmulator=true;",
            self.forwarder.address()
        )
    }

    pub async fn client(&self) -> Client {
        self.client_with(0, PATIENCE).await
    }

    pub async fn client_with(&self, max_retries: u32, try_timeout: Duration) -> Client {
        let retry_options = ServiceBusRetryOptions {
            max_retries,
            try_timeout,
            ..Default::default()
        };
        let options = ServiceBusClientOptions {
            retry_options,
            ..Default::default()
        };
        ServiceBusClient::unsecured()
            .new_from_connection_string(self.connection_string(KEY), options)
            .await
            .expect("a connection")
    }
}

pub async fn sender(client: &mut Client, entity: &str) -> ServiceBusSender {
    client
        .create_sender(entity, Default::default())
        .await
        .expect("a sender")
}

/// Of a queue, or of `topic/subscription`.
pub async fn receiver(client: &mut Client, entity: &str) -> ServiceBusReceiver {
    receiver_with(client, entity, Default::default()).await
}

pub async fn dead_letters(client: &mut Client, entity: &str) -> ServiceBusReceiver {
    let options = ServiceBusReceiverOptions {
        sub_queue: SubQueue::DeadLetter,
        ..Default::default()
    };
    receiver_with(client, entity, options).await
}

pub async fn receiver_with(
    client: &mut Client,
    entity: &str,
    options: ServiceBusReceiverOptions,
) -> ServiceBusReceiver {
    match entity.split_once('/') {
        Some((topic, subscription)) => {
            client
                .create_receiver_for_subscription(topic, subscription, options)
                .await
        }
        None => client.create_receiver_for_queue(entity, options).await,
    }
    .expect("a receiver")
}

pub async fn send(sender: &mut ServiceBusSender, message: impl Into<ServiceBusMessage>) {
    sender.send_message(message).await.expect("sent");
}

/// That many messages, in the order in which they come.
pub async fn take(receiver: &mut ServiceBusReceiver, count: u32) -> Vec<ServiceBusReceivedMessage> {
    let messages = receiver
        .receive_messages_with_max_wait_time(count, PATIENCE)
        .await
        .expect("messages");
    assert_eq!(messages.len(), count as usize, "messages that came");
    messages
}

pub async fn take_one(receiver: &mut ServiceBusReceiver) -> ServiceBusReceivedMessage {
    take(receiver, 1).await.remove(0)
}

/// Everything that is in the entity: active, locked, deferred and scheduled.
pub async fn everything_in(receiver: &mut ServiceBusReceiver) -> Vec<ServiceBusPeekedMessage> {
    receiver.peek_messages(250, Some(0)).await.expect("a peek")
}

pub async fn assert_empty(receiver: &mut ServiceBusReceiver) {
    let left = everything_in(receiver).await;
    let left: Vec<&[u8]> = left
        .iter()
        .map(|left| left.body().unwrap_or(b"?"))
        .collect();
    assert_eq!(left, Vec::<&[u8]>::new());
}

/// The crate's dispositions are not waited for, so what they have done is asked for until it is seen.
pub async fn until_empty(receiver: &mut ServiceBusReceiver) {
    until_there_are(receiver, 0).await;
}

pub async fn until_there_are(receiver: &mut ServiceBusReceiver, count: usize) {
    let seen = async {
        while everything_in(receiver).await.len() != count {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    let seen = tokio::time::timeout(PATIENCE, seen).await;
    assert!(seen.is_ok(), "there are never {count} messages");
}
