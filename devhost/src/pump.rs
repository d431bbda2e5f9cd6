//! The listener of one Service Bus function: receives, invokes, settles.
//!
//! Peek-lock with up to `maxConcurrentCalls` in flight. The lock of a message is renewed while its invocation runs,
//! for up to `maxAutoLockRenewalDuration`; success completes the message, failure abandons it at once, and
//! the bus delivers it again immediately until the maximum delivery count dead-letters it.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use jiff::Timestamp;
use servicebus_emulator::{EntityPath, Error, ReceivedMessage};
use tokio::sync::Semaphore;
use uuid::Uuid;

use crate::{
    console,
    envelope::service_bus_envelope,
    function_json::ServiceBusTrigger,
    host_json::ServiceBusOptions,
    invocation::Invoker,
    receiver::{Receiver, ReceiverError},
    stopping::Stopping,
};

/// How long one receive waits; the next follows at once.
const RECEIVE_WAIT: Duration = Duration::from_secs(60);
/// The pause after a receive that failed.
const AFTER_ERROR: Duration = Duration::from_secs(1);
/// Locks are renewed when this much of them is left, or half of a short one.
const RENEW_BEFORE: Duration = Duration::from_secs(10);

/// What one listener needs.
pub struct Pump {
    pub function: String,
    pub trigger: ServiceBusTrigger,
    pub max_delivery_count: u32,
    pub options: ServiceBusOptions,
    pub receiver: Receiver,
    pub invoker: Arc<Invoker>,
    pub stopping: Stopping,
}

impl Pump {
    /// Listens until devhost stops.
    pub async fn run(self) {
        let pump = Arc::new(self);
        let calls = Arc::new(Semaphore::new(
            pump.options
                .max_concurrent_calls
                .min(Semaphore::MAX_PERMITS),
        ));
        loop {
            let Ok(call) = Arc::clone(&calls).acquire_owned().await else {
                return;
            };
            let free_calls = calls.available_permits() + 1;
            let received = tokio::select! {
                received = pump.receiver.receive(free_calls, RECEIVE_WAIT) => received,
                _ = pump.stopping.stopped() => return pump.receiver.stop().await,
            };
            match received {
                Ok(None) => {}
                Ok(Some(message)) => {
                    let pump = Arc::clone(&pump);
                    tokio::spawn(async move {
                        pump.deliver(message).await;
                        drop(call);
                    });
                }
                Err(ReceiverError::Bus(Error::Closed)) => return,
                Err(error) => {
                    console::error(format_args!(
                        "Functions.{}: receiving failed: {error}",
                        pump.function
                    ));
                    tokio::time::sleep(AFTER_ERROR).await;
                }
            }
        }
    }

    async fn deliver(&self, message: ReceivedMessage) {
        let Some(lock_token) = message.lock_token else {
            return;
        };
        let details = format!(
            "MessageId: {}, SequenceNumber: {}, DeliveryCount: {}, EnqueuedTimeUtc: {}, LockedUntilUtc: {}",
            message.message.message_id.as_deref().unwrap_or("(null)"),
            message.sequence_number,
            message.delivery_count,
            message.enqueued_time,
            message
                .locked_until
                .map(|until| until.to_string())
                .unwrap_or_default(),
        );
        let delivered = &message;
        // One more than the invocation itself: the settlement, too, comes before the handler is stopped.
        let _settling = self.invoker.client.enter();
        let invoked = self
            .invoker
            .run(&self.function, "(null)", &details, |id| async move {
                let envelope = service_bus_envelope(
                    &self.function,
                    &self.trigger,
                    delivered,
                    Timestamp::now(),
                );
                self.invoker.exchange(&self.function, id, &envelope).await
            });
        let outcome = tokio::select! {
            outcome = invoked => outcome,
            never = self.renew(lock_token, message.locked_until) => match never {},
        };
        let entity = &self.trigger.entity;
        match outcome {
            Ok(_) if self.options.auto_complete_messages => {
                if let Err(error) = self.receiver.complete(lock_token).await {
                    self.report_settlement("completed", &message, &error);
                }
            }
            Ok(_) => console::warning(format_args!(
                "{}: not completed, because host.json sets autoCompleteMessages to false; it comes back when \
                 its lock expires",
                describe(entity, &message)
            )),
            Err(_) => match self.receiver.abandon(lock_token).await {
                Ok(()) => console::warning(self.what_comes_next(&message)),
                Err(error) => self.report_settlement("abandoned", &message, &error),
            },
        }
    }

    /// Never ends: it is given up together with the invocation.
    async fn renew(
        &self,
        lock_token: Uuid,
        locked_until: Option<Timestamp>,
    ) -> std::convert::Infallible {
        let started = Instant::now();
        let mut locked_until = locked_until.unwrap_or_else(Timestamp::now);
        loop {
            let left = Duration::try_from(locked_until.duration_since(Timestamp::now()))
                .unwrap_or_default();
            let wait = left.saturating_sub(RENEW_BEFORE.min(left / 2));
            if started.elapsed() + wait >= self.options.max_auto_lock_renewal_duration {
                break;
            }
            tokio::time::sleep(wait).await;
            match self.receiver.renew_lock(lock_token).await {
                Ok(until) => locked_until = until,
                Err(error) => {
                    console::error(format_args!(
                        "Functions.{}: the lock could not be renewed: {error}",
                        self.function
                    ));
                    break;
                }
            }
        }
        std::future::pending().await
    }

    /// What Service Bus does with the message that has just been abandoned.
    fn what_comes_next(&self, message: &ReceivedMessage) -> String {
        let (count, most) = (message.delivery_count, self.max_delivery_count);
        let what = describe(&self.trigger.entity, message);
        if count >= most {
            format!(
                "{what}: abandoned, delivery {count} of {most}: dead-lettered (MaxDeliveryCountExceeded)"
            )
        } else {
            format!(
                "{what}: abandoned, delivery {count} of {most}: Service Bus delivers it again at once"
            )
        }
    }

    fn report_settlement(&self, wanted: &str, message: &ReceivedMessage, error: &ReceiverError) {
        console::error(format_args!(
            "{}: could not be {wanted}: {error}",
            describe(&self.trigger.entity, message)
        ));
    }
}

fn describe(entity: &EntityPath, message: &ReceivedMessage) -> String {
    format!("Message {} of {entity}", message.sequence_number)
}
