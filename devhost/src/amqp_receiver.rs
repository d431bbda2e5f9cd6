//! Receives one entity's messages over AMQP, as the Functions host does in Azure.
//!
//! The connection is made when something is asked for, and anew when it was lost. Credit is given for as many messages as there are
//! free calls. Messages are settled by dispositions; those that came over a connection which was lost meanwhile, by
//! `$management`, which also renews locks.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use fe2o3_amqp::link::receiver::TerminalDeliveryState;
use fe2o3_amqp_types::{
    messaging::{Accepted, ApplicationProperties, Modified},
    primitives::{Array, OrderedMap, Uuid as AmqpUuid, Value},
};
use jiff::Timestamp;
use servicebus_emulator::{EntityPath, ReceivedMessage, rest::SharedAccessPolicy};
use tokio::sync::Mutex;
use uuid::Uuid;

use crate::{amqp_connection::AmqpConnection, receiver::ReceiverError};

/// Receives over a connection of its own.
pub struct AmqpReceiver {
    address: SocketAddr,
    entity: EntityPath,
    policy: SharedAccessPolicy,
    connection: Mutex<Option<Arc<AmqpConnection>>>,
}

impl AmqpReceiver {
    pub fn new(address: SocketAddr, entity: EntityPath, policy: SharedAccessPolicy) -> Self {
        Self {
            address,
            entity,
            policy,
            connection: Mutex::new(None),
        }
    }

    pub(crate) async fn receive(
        &self,
        free_calls: usize,
        wait: Duration,
    ) -> Result<Option<ReceivedMessage>, ReceiverError> {
        let connection = self.connected().await?;
        let received = match connection.renew_token(&self.policy).await {
            Ok(()) => connection.receive(free_calls, wait).await,
            Err(error) => Err(error),
        };
        if !matches!(received, Ok(_) | Err(ReceiverError::Unreadable(_))) {
            self.forget(&connection).await;
        }
        received
    }

    pub(crate) async fn stop(&self) {
        if let Some(connection) = &*self.connection.lock().await {
            connection.stop();
        }
    }

    pub(crate) async fn complete(&self, lock_token: Uuid) -> Result<(), ReceiverError> {
        let outcome = TerminalDeliveryState::Accepted(Accepted {});
        self.settle(lock_token, outcome, "completed").await
    }

    pub(crate) async fn abandon(&self, lock_token: Uuid) -> Result<(), ReceiverError> {
        let outcome = TerminalDeliveryState::Modified(Modified {
            delivery_failed: None,
            undeliverable_here: None,
            message_annotations: None,
        });
        self.settle(lock_token, outcome, "abandoned").await
    }

    /// `status` is the outcome in the words of `$management`.
    async fn settle(
        &self,
        lock_token: Uuid,
        outcome: TerminalDeliveryState,
        status: &str,
    ) -> Result<(), ReceiverError> {
        let settled = self.connected().await?.settle(lock_token, outcome).await;
        match settled {
            Some(Err(ReceiverError::Lost(_))) | None => {
                let body = [("disposition-status", Value::String(status.to_owned()))];
                self.manage("com.microsoft:update-disposition", lock_token, body)
                    .await?;
                Ok(())
            }
            Some(settled) => settled,
        }
    }

    pub(crate) async fn renew_lock(&self, lock_token: Uuid) -> Result<Timestamp, ReceiverError> {
        let reply = self.manage("com.microsoft:renew-lock", lock_token, []);
        expiration(&reply.await?)
            .ok_or_else(|| ReceiverError::Unreadable("no time until which it is locked".to_owned()))
    }

    async fn manage<const N: usize>(
        &self,
        operation: &str,
        lock_token: Uuid,
        more: [(&str, Value); N],
    ) -> Result<Value, ReceiverError> {
        let properties = ApplicationProperties::builder()
            .insert("operation", operation)
            .build();
        let lock_tokens = Array::from(vec![Value::Uuid(AmqpUuid::from(lock_token.into_bytes()))]);
        let mut body = OrderedMap::new();
        body.insert(
            Value::String("lock-tokens".to_owned()),
            Value::Array(lock_tokens),
        );
        for (name, value) in more {
            body.insert(Value::String(name.to_owned()), value);
        }
        let connection = self.connected().await?;
        connection.manage(properties, Value::Map(body)).await
    }

    /// The connection there is, or a new one.
    async fn connected(&self) -> Result<Arc<AmqpConnection>, ReceiverError> {
        let mut current = self.connection.lock().await;
        if let Some(connection) = &*current
            && !connection.has_ended()
        {
            return Ok(Arc::clone(connection));
        }
        let connection = AmqpConnection::open(self.address, &self.entity, &self.policy).await?;
        Ok(Arc::clone(current.insert(Arc::new(connection))))
    }

    /// A link may end by itself, on a connection that goes on.
    async fn forget(&self, connection: &Arc<AmqpConnection>) {
        let mut current = self.connection.lock().await;
        if current
            .as_ref()
            .is_some_and(|known| Arc::ptr_eq(known, connection))
        {
            *current = None;
        }
    }
}

/// The first of `expirations` in the reply to a renewal.
fn expiration(reply: &Value) -> Option<Timestamp> {
    let Value::Map(reply) = reply else {
        return None;
    };
    let expirations = reply.get(&Value::String("expirations".to_owned()))?;
    let first = match expirations {
        Value::Array(times) => times.0.first(),
        Value::List(times) => times.first(),
        _ => None,
    };
    match first? {
        Value::Timestamp(time) => Timestamp::from_millisecond(time.milliseconds()).ok(),
        _ => None,
    }
}
