//! Transactions over the coordinator.

use fe2o3_amqp_types::{
    definitions::Role,
    messaging::{Accepted, DeliveryState, Outcome, TargetArchetype},
    performatives::{Attach, Performative, Transfer},
    transaction::{Coordinator, TransactionalState},
};

use crate::client::{Client, Namespace, condition, data, sender, transfer};

/// The handle of the coordinator's link, and that of a link to `other`.
const COORDINATOR: u32 = 10;
const OTHER: u32 = 11;

struct Controller {
    client: Client,
    delivery: u32,
}

impl Controller {
    async fn new(namespace: &Namespace) -> Self {
        let mut client = Client::begin(namespace).await;
        let attach = Attach {
            target: Some(Box::new(TargetArchetype::Coordinator(Coordinator::new(
                None,
            )))),
            ..sender(COORDINATOR, "")
        };
        let attached = client.attach(attach).await;
        assert!(matches!(
            attached.target.as_deref(),
            Some(TargetArchetype::Coordinator(_))
        ));
        assert_eq!(client.flow().await.link_credit, Some(1000));
        client.sender(OTHER, "other").await;
        Self {
            client,
            delivery: 0,
        }
    }

    /// Sends this; the state that it comes to.
    async fn send(
        &mut self,
        handle: u32,
        state: Option<DeliveryState>,
        payload: &[u8],
    ) -> DeliveryState {
        let transfer = Transfer {
            state,
            ..transfer(handle, self.delivery, false)
        };
        self.client
            .send(0, Performative::Transfer(transfer), payload)
            .await;
        let disposition = self.client.disposition().await;
        assert_eq!(disposition.role, Role::Receiver);
        assert_eq!(disposition.first, self.delivery);
        self.delivery += 1;
        disposition.state.unwrap()
    }

    async fn declare(&mut self) -> Vec<u8> {
        let declare = [0x00, 0x53, 0x77, 0x00, 0x53, 0x31, 0x45];
        match self.send(COORDINATOR, None, &declare).await {
            DeliveryState::Declared(declared) => declared.txn_id.to_vec(),
            other => panic!("{other:?}"),
        }
    }

    async fn discharge(&mut self, id: &[u8], fail: bool) -> DeliveryState {
        let length = u8::try_from(id.len()).unwrap();
        let mut discharge = vec![
            0x00,
            0x53,
            0x77,
            0x00,
            0x53,
            0x32,
            0xc0,
            length + 4,
            2,
            0xa0,
            length,
        ];
        discharge.extend_from_slice(id);
        discharge.push(if fail { 0x41 } else { 0x42 });
        self.send(COORDINATOR, None, &discharge).await
    }

    async fn send_in(&mut self, id: &[u8], body: &str) -> DeliveryState {
        self.send(
            OTHER,
            Some(in_transaction(id, None)),
            &data(body.as_bytes()),
        )
        .await
    }
}

fn in_transaction(id: &[u8], outcome: Option<Outcome>) -> DeliveryState {
    DeliveryState::TransactionalState(TransactionalState {
        txn_id: id.to_vec().into(),
        outcome,
    })
}

fn accepted() -> Outcome {
    Accepted {}.into()
}

fn rejected(state: DeliveryState) -> String {
    match state {
        DeliveryState::Rejected(rejected) => condition(rejected.error),
        other => panic!("{other:?} is no rejection"),
    }
}

async fn active(namespace: &Namespace, queue: &str) -> usize {
    let entities = namespace.bus.entities().await.unwrap();
    let counts = entities.iter().find(|counts| counts.name == queue);
    counts.unwrap().active
}

#[tokio::test]
async fn sends_and_settlements_happen_when_the_transaction_is_discharged() {
    let namespace = Namespace::start().await;
    namespace.send("work", &["a", "b"]).await;
    let mut controller = Controller::new(&namespace).await;
    controller.client.receiver(0, "work").await;
    controller.client.credit(0, 0, 2).await;
    for _ in 0..2 {
        controller.client.delivery().await;
    }
    let id = controller.declare().await;
    for body in ["one", "two"] {
        let state = controller.send_in(&id, body).await;
        assert_eq!(state, in_transaction(&id, Some(accepted())));
    }
    controller
        .client
        .settle(0, 0, in_transaction(&id, Some(accepted())))
        .await;
    // It is not settled before the transaction is.
    let disposition = controller.client.unsettled_disposition().await;
    assert_eq!(disposition.role, Role::Sender);
    assert_eq!(
        disposition.state,
        Some(in_transaction(&id, Some(accepted())))
    );
    // Nothing of it is to be seen yet.
    assert_eq!(active(&namespace, "other").await, 0);
    let queue = "work".parse().unwrap();
    let peeked = namespace.bus.peek_batch(&queue, 0, 9, None).await.unwrap();
    assert_eq!(peeked.len(), 2);

    assert_eq!(controller.discharge(&id, false).await, Accepted {}.into());
    assert_eq!(active(&namespace, "other").await, 2);
    let peeked = namespace.bus.peek_batch(&queue, 0, 9, None).await.unwrap();
    assert_eq!(peeked.len(), 1);
}

#[tokio::test]
async fn a_transaction_that_fails_or_is_rolled_back_changes_nothing() {
    let namespace = Namespace::start().await;
    namespace.send("work", &["a"]).await;
    let mut controller = Controller::new(&namespace).await;
    let id = controller.declare().await;
    controller.send_in(&id, "rolled back").await;
    assert_eq!(controller.discharge(&id, true).await, Accepted {}.into());

    // A lock that is lost when it comes to it.
    controller.client.receiver(0, "work").await;
    controller.client.credit(0, 0, 1).await;
    let (delivered, _) = controller.client.delivery().await;
    let id = controller.declare().await;
    controller.send_in(&id, "with a lost lock").await;
    controller
        .client
        .settle(0, 0, in_transaction(&id, Some(accepted())))
        .await;
    controller.client.unsettled_disposition().await;
    let tag = delivered.delivery_tag.unwrap();
    let token = uuid::Uuid::from_bytes_le(tag.as_ref().try_into().unwrap());
    namespace
        .bus
        .complete(&"work".parse().unwrap(), token)
        .await
        .unwrap();
    let state = controller.discharge(&id, false).await;
    assert_eq!(rejected(state), "com.microsoft:message-lock-lost");
    assert_eq!(active(&namespace, "other").await, 0);
}

#[tokio::test]
async fn a_transaction_that_there_is_not_is_refused() {
    let namespace = Namespace::start().await;
    let mut controller = Controller::new(&namespace).await;
    let unknown = "amqp:transaction:unknown-id";
    let state = controller.send_in(b"nobody", "x").await;
    assert_eq!(rejected(state), unknown);
    let state = controller.discharge(b"nobody", false).await;
    assert_eq!(rejected(state), unknown);
    let id = controller.declare().await;
    assert_eq!(controller.discharge(&id, false).await, Accepted {}.into());
    let state = controller.discharge(&id, false).await;
    assert_eq!(rejected(state), unknown);
    let state = controller.send(COORDINATOR, None, &data(b"neither")).await;
    assert_eq!(rejected(state), "amqp:decode-error");
    assert_eq!(active(&namespace, "other").await, 0);
}
