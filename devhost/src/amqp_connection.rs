//! One AMQP connection that receives from one entity.
//!
//! Opened as the Functions host's client does: SASL, a token put to `$cbs`, `$management`, and then the link the messages come
//! over, in the settle modes "unsettled" and "second". A task of its own owns that link, because what settles messages does
//! not wait for what receives them. The connection is closed when it is dropped.

use std::{
    collections::HashMap,
    net::SocketAddr,
    sync::{Arc, Mutex as SyncMutex, PoisonError},
    time::Duration,
};

use base64::{Engine, engine::general_purpose::STANDARD};
use fe2o3_amqp::{
    Connection, Delivery, Receiver, Session,
    connection::ConnectionHandle,
    link::{
        RecvError,
        delivery::DeliveryInfo,
        receiver::{CreditMode, TerminalDeliveryState},
    },
    sasl_profile::SaslProfile,
    session::SessionHandle,
};
use fe2o3_amqp_types::{
    definitions::{ReceiverSettleMode, SenderSettleMode},
    messaging::{ApplicationProperties, Body, DeliveryState, Modified},
    primitives::Value,
};
use hmac::{Hmac, Mac};
use jiff::Timestamp;
use servicebus_emulator::{EntityPath, Error, ReceivedMessage, rest::SharedAccessPolicy};
use sha2::Sha256;
use tokio::{
    net::TcpStream,
    sync::{Mutex, mpsc},
    time::{Instant, timeout},
};
use uuid::Uuid;

use crate::{
    amqp_message::received_message,
    amqp_outcomes::{Outcomes, Tapped},
    amqp_request::{Requests, is_message_lock_lost, lost},
    receiver::ReceiverError,
};

/// How long the bus may take to answer anything.
const ANSWER: Duration = Duration::from_secs(30);
/// How long a token is good for; it is replaced in the middle of that.
const TOKEN: Duration = Duration::from_secs(60 * 60);
/// A connection on which nothing comes for as long is dead: the bus sends an empty frame before that.
const IDLE_MILLISECONDS: u32 = 60_000;

#[derive(Debug)]
pub(crate) struct AmqpConnection {
    commands: mpsc::UnboundedSender<Command>,
    incoming: Mutex<Incoming>,
    /// The deliveries by their lock tokens.
    unsettled: Arc<SyncMutex<HashMap<Uuid, DeliveryInfo>>>,
    outcomes: Outcomes,
    management: Arc<Mutex<Requests>>,
    tokens: Mutex<Tokens>,
}

#[derive(Debug)]
struct Incoming {
    deliveries: mpsc::UnboundedReceiver<Result<ReceivedMessage, ReceiverError>>,
    /// How many have been taken from there.
    taken: usize,
    /// How many more the bus may send, as far as it is known here.
    credit: usize,
}

#[derive(Debug)]
struct Tokens {
    cbs: Requests,
    audience: String,
    put_at: Instant,
}

/// What the owner of the link is told.
#[derive(Debug)]
enum Command {
    /// As many messages may be on their way when `taken` have been taken.
    Credit {
        free_calls: usize,
        taken: usize,
    },
    Settle(DeliveryInfo, TerminalDeliveryState),
    Stop,
}

impl AmqpConnection {
    pub(crate) async fn open(
        address: SocketAddr,
        entity: &EntityPath,
        policy: &SharedAccessPolicy,
    ) -> Result<Self, ReceiverError> {
        let failed = |why: String| ReceiverError::Connect(address, why);
        let opened = timeout(ANSWER, Self::open_in_time(address, entity, policy));
        opened
            .await
            .map_err(|_| failed("no answer in time".to_owned()))?
            .map_err(|error| failed(error.to_string()))
    }

    async fn open_in_time(
        address: SocketAddr,
        entity: &EntityPath,
        policy: &SharedAccessPolicy,
    ) -> Result<Self, ReceiverError> {
        let stream = TcpStream::connect(address).await.map_err(lost)?;
        stream.set_nodelay(true).map_err(lost)?;
        let outcomes = Outcomes::new();
        let mut connection = Connection::builder()
            .container_id(format!("devhost-{}", Uuid::new_v4()))
            .hostname("localhost")
            .idle_time_out(IDLE_MILLISECONDS)
            .sasl_profile(SaslProfile::Anonymous)
            .open_with_stream(Tapped::new(stream, outcomes.clone()))
            .await
            .map_err(lost)?;
        let mut session = Session::begin(&mut connection).await.map_err(lost)?;
        let audience = format!("amqp://localhost:{}/{entity}", address.port());
        let mut cbs = Requests::attach(&mut session, "$cbs").await?;
        put_token(&mut cbs, &audience, policy).await?;
        let management = Requests::attach(&mut session, &format!("{entity}/$management")).await?;
        let receiver = Receiver::builder()
            .name(format!("{entity}-{}", Uuid::new_v4()))
            .source(entity.to_string())
            .sender_settle_mode(SenderSettleMode::Unsettled)
            .receiver_settle_mode(ReceiverSettleMode::Second)
            .credit_mode(CreditMode::Manual)
            .attach(&mut session)
            .await
            .map_err(|error| ReceiverError::Refused(error.to_string()))?;
        let (commands, orders) = mpsc::unbounded_channel();
        let (received, deliveries) = mpsc::unbounded_channel();
        let unsettled = Arc::new(SyncMutex::new(HashMap::new()));
        let link = Link {
            connection,
            session,
            receiver,
            orders,
            received,
            unsettled: Arc::clone(&unsettled),
            count: 0,
        };
        tokio::spawn(link.run());
        Ok(Self {
            commands,
            incoming: Mutex::new(Incoming {
                deliveries,
                taken: 0,
                credit: 0,
            }),
            unsettled,
            outcomes,
            management: Arc::new(Mutex::new(management)),
            tokens: Mutex::new(Tokens {
                cbs,
                audience,
                put_at: Instant::now(),
            }),
        })
    }

    pub(crate) fn has_ended(&self) -> bool {
        self.outcomes.has_ended()
    }

    /// The next message; in all `free_calls` may be on their way.
    pub(crate) async fn receive(
        &self,
        free_calls: usize,
        wait: Duration,
    ) -> Result<Option<ReceivedMessage>, ReceiverError> {
        let mut incoming = self.incoming.lock().await;
        if incoming.credit < free_calls {
            let taken = incoming.taken;
            // Where nobody listens any more the deliveries have ended, too.
            let _ = self.commands.send(Command::Credit { free_calls, taken });
            incoming.credit = free_calls;
        }
        match timeout(wait, incoming.deliveries.recv()).await {
            Ok(Some(received)) => {
                incoming.taken += 1;
                incoming.credit = incoming.credit.saturating_sub(1);
                received.map(Some)
            }
            Ok(None) => Err(lost("its end was not explained")),
            Err(_) => Ok(None),
        }
    }

    pub(crate) fn stop(&self) {
        let _ = self.commands.send(Command::Stop);
    }

    /// Settles a message that came over this connection and waits for what the bus says; `None` if it did not come over it.
    pub(crate) async fn settle(
        &self,
        lock_token: Uuid,
        outcome: TerminalDeliveryState,
    ) -> Option<Result<(), ReceiverError>> {
        let delivery = lock(&self.unsettled).remove(&lock_token)?;
        Some(self.dispose(delivery, outcome).await)
    }

    async fn dispose(
        &self,
        delivery: DeliveryInfo,
        outcome: TerminalDeliveryState,
    ) -> Result<(), ReceiverError> {
        let ended = || lost("it ended before the message was settled");
        let answer = self
            .outcomes
            .expect(delivery.delivery_id())
            .ok_or_else(ended)?;
        self.commands
            .send(Command::Settle(delivery, outcome))
            .map_err(|_| ended())?;
        match timeout(ANSWER, answer).await {
            Ok(Ok(Some(DeliveryState::Rejected(rejected)))) => match rejected.error {
                Some(error) if is_message_lock_lost(&error.condition) => {
                    Err(Error::MessageLockLost.into())
                }
                error => Err(ReceiverError::Refused(
                    error.map_or_else(String::new, |error| error.to_string()),
                )),
            },
            Ok(Ok(_)) => Ok(()),
            Ok(Err(_)) => Err(ended()),
            Err(_) => Err(lost("a settlement was not answered in time")),
        }
    }

    /// Asks the entity's `$management`. A task of its own sees it through, also when the caller gives up.
    pub(crate) async fn manage(
        &self,
        properties: ApplicationProperties,
        body: Value,
    ) -> Result<Value, ReceiverError> {
        let management = Arc::clone(&self.management);
        let asked =
            tokio::spawn(async move { management.lock().await.ask(properties, body).await });
        match timeout(ANSWER, asked).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(panicked)) => Err(lost(panicked)),
            Err(_) => Err(lost("$management did not answer in time")),
        }
    }

    /// Puts a new token when the last one is old.
    pub(crate) async fn renew_token(
        &self,
        policy: &SharedAccessPolicy,
    ) -> Result<(), ReceiverError> {
        let mut tokens = self.tokens.lock().await;
        if tokens.put_at.elapsed() < TOKEN / 2 {
            return Ok(());
        }
        let Tokens {
            cbs,
            audience,
            put_at,
        } = &mut *tokens;
        timeout(ANSWER, put_token(cbs, audience, policy))
            .await
            .map_err(|_| lost("$cbs did not answer in time"))??;
        *put_at = Instant::now();
        Ok(())
    }
}

async fn put_token(
    cbs: &mut Requests,
    audience: &str,
    policy: &SharedAccessPolicy,
) -> Result<(), ReceiverError> {
    let resource: String = form_urlencoded::byte_serialize(audience.as_bytes()).collect();
    let expires_at = Timestamp::now() + TOKEN;
    let expiry = expires_at.as_second();
    // A key of any length will do.
    let signature = Hmac::<Sha256>::new_from_slice(policy.key.as_bytes())
        .map_err(lost)?
        .chain_update(format!("{resource}\n{expiry}"))
        .finalize()
        .into_bytes();
    let signature: String =
        form_urlencoded::byte_serialize(STANDARD.encode(signature).as_bytes()).collect();
    let token = format!(
        "SharedAccessSignature sr={resource}&sig={signature}&se={expiry}&skn={}",
        policy.name
    );
    let properties = ApplicationProperties::builder()
        .insert("operation", "put-token")
        .insert("type", "servicebus.windows.net:sastoken")
        .insert("name", audience)
        .insert(
            "expiration",
            fe2o3_amqp_types::primitives::Timestamp::from_milliseconds(expires_at.as_millisecond()),
        )
        .build();
    cbs.ask(properties, Value::String(token)).await?;
    Ok(())
}

/// The link that messages come over, and what it stands on.
struct Link {
    connection: ConnectionHandle<()>,
    session: SessionHandle<()>,
    receiver: Receiver,
    orders: mpsc::UnboundedReceiver<Command>,
    received: mpsc::UnboundedSender<Result<ReceivedMessage, ReceiverError>>,
    unsettled: Arc<SyncMutex<HashMap<Uuid, DeliveryInfo>>>,
    /// How many have been handed on.
    count: usize,
}

impl Link {
    /// Until the connection is dropped, or lost.
    async fn run(mut self) {
        loop {
            let done = tokio::select! {
                order = self.orders.recv() => match order {
                    Some(order) => self.carry_out(order).await,
                    None => break,
                },
                received = self.receiver.recv::<Body<Value>>() => self.hand_on(received).await,
            };
            if let Err(error) = done {
                // Nobody may be waiting any more.
                let _ = self.received.send(Err(error));
                return;
            }
        }
        // What fails here is at its end already.
        let _ = self.receiver.close().await;
        let _ = self.session.end().await;
        let _ = self.connection.close().await;
    }

    async fn carry_out(&mut self, order: Command) -> Result<(), ReceiverError> {
        match order {
            Command::Credit { free_calls, taken } => {
                let waiting = self.count - taken;
                let credit = free_calls.saturating_sub(waiting);
                let credit = u32::try_from(credit).unwrap_or(u32::MAX);
                self.receiver.set_credit(credit).await.map_err(lost)
            }
            Command::Settle(delivery, outcome) => {
                self.receiver.dispose(delivery, outcome).await.map_err(lost)
            }
            Command::Stop => self.receiver.set_credit(0).await.map_err(lost),
        }
    }

    async fn hand_on(
        &mut self,
        received: Result<Delivery<Body<Value>>, RecvError>,
    ) -> Result<(), ReceiverError> {
        let (delivery, message) = match received {
            Ok(delivery) => (DeliveryInfo::from(&delivery), received_message(delivery)),
            Err(RecvError::MessageDecode(error)) => (
                error.info,
                Err(ReceiverError::Unreadable(error.source.to_string())),
            ),
            Err(error) => return Err(lost(error)),
        };
        match &message {
            Ok(ReceivedMessage {
                lock_token: Some(lock_token),
                ..
            }) => {
                lock(&self.unsettled).insert(*lock_token, delivery);
            }
            // It is dead-lettered in the end.
            Ok(_) | Err(_) => {
                let back = Modified {
                    delivery_failed: None,
                    undeliverable_here: None,
                    message_annotations: None,
                };
                self.receiver.dispose(delivery, back).await.map_err(lost)?;
            }
        }
        self.count += 1;
        // Whoever would take it has gone away; the lock expires.
        let _ = self.received.send(message);
        Ok(())
    }
}

/// A panic elsewhere leaves the map whole.
fn lock(
    unsettled: &SyncMutex<HashMap<Uuid, DeliveryInfo>>,
) -> std::sync::MutexGuard<'_, HashMap<Uuid, DeliveryInfo>> {
    unsettled.lock().unwrap_or_else(PoisonError::into_inner)
}
