//! One instance of the app: the host's pumps and the handler's functions, with what they keep in memory.
//!
//! The handler's own code decides: [`Message::read`], [`Channel`], [`Delivery::settle`], [`publish_patiently`]. Only what stands
//! between it and the outside is written again here: the host that delivers and settles, the calls, and the few lines of
//! the two functions. A killed instance loses its memory and everything that it was in the middle of.

use std::{
    cell::{Cell, RefCell},
    collections::BTreeMap,
    future::pending,
    rc::Rc,
    time::Duration,
};

use orderup::{
    attempt::Attempt,
    cancelled_orders::CancelledOrders,
    channel::Channel,
    delivery::{Delivery, Told},
    event::Event,
    failure::{Class, Failure},
    message::{Message, Unread},
    notify::{self, is_late},
    orders_topic::Outgoing,
    patience::{PUBLISH_UNTIL, publish_patiently},
    properties::{DEAD_LETTER_REASON, VENDOR},
    redelivery::Audience,
    vendor_notify,
};
use servicebus_emulator::{EntityPath, ReceivedMessage};
use tokio::{
    task::{AbortHandle, spawn_local},
    time::Instant,
};
use uuid::Uuid;

use crate::{
    bus::{self, Bus},
    ledger::Notification,
    provider::{Answer, Provider, failure},
    scenario::{Semantics, VENDORS},
    world::World,
};

/// More than any simulation has by far.
const MOST_DELIVERIES: u64 = 2_000_000;

/// How long a killed instance is gone.
const RESTART: Duration = Duration::from_secs(1);

pub struct Fleet {
    world: Rc<World>,
    instances: RefCell<Vec<Rc<Instance>>>,
    wanted: Cell<usize>,
    is_over: Cell<bool>,
}

struct Instance {
    world: Rc<World>,
    fleet: Rc<Fleet>,
    email: Channel,
    vendors: BTreeMap<&'static str, Channel>,
    cancelled_orders: CancelledOrders,
    tasks: RefCell<Vec<AbortHandle>>,
    in_flight: RefCell<BTreeMap<u64, InFlight>>,
    deliveries: Cell<u64>,
    /// When the email provider was given an email.
    emails: RefCell<Vec<Duration>>,
}

/// A delivery that is not settled yet.
struct InFlight {
    entity: EntityPath,
    lock_token: Uuid,
    message_id: String,
    /// Who got it in this delivery, or will hear of a copy that is on the bus: as long as the delivery is not settled, it
    /// may come again all the same.
    unsettled: Vec<Notification>,
}

fn notification(delivery: &Delivery, recipient: &str) -> Notification {
    Notification {
        event_id: delivery.event.id(),
        recipient: recipient.to_owned(),
    }
}

impl Fleet {
    pub fn new(world: &Rc<World>) -> Rc<Self> {
        Rc::new(Self {
            world: Rc::clone(world),
            instances: RefCell::default(),
            wanted: Cell::new(0),
            is_over: Cell::new(false),
        })
    }

    /// Scales to that many.
    pub fn scale(self: &Rc<Self>, wanted: usize) {
        self.wanted.set(wanted);
        while self.instances.borrow().len() < wanted {
            let instance = Instance::start(self);
            self.instances.borrow_mut().push(instance);
        }
        while self.instances.borrow().len() > wanted {
            let instance = self.instances.borrow_mut().pop();
            if let Some(instance) = instance {
                instance.end();
            }
        }
    }

    /// Nothing is killed any more.
    pub fn calm(&self) {
        self.is_over.set(true);
    }

    /// Kills it, and starts another one a little later.
    fn crash(self: &Rc<Self>, instance: &Rc<Instance>) {
        self.world.ledger.borrow_mut().totals.crashes += 1;
        self.instances
            .borrow_mut()
            .retain(|known| !Rc::ptr_eq(known, instance));
        instance.end();
        let fleet = Rc::clone(self);
        spawn_local(async move {
            tokio::time::sleep(RESTART).await;
            fleet.scale(fleet.wanted.get());
        });
    }
}

impl Instance {
    fn start(fleet: &Rc<Fleet>) -> Rc<Self> {
        let world = &fleet.world;
        let channel = |id: &&'static str| (*id, Channel::new(id, id, &world.policy, None));
        let instance = Rc::new(Self {
            world: Rc::clone(world),
            fleet: Rc::clone(fleet),
            email: Channel::new("email", "email", &world.policy, Some(world.rate_limit())),
            vendors: VENDORS.iter().map(channel).collect(),
            cancelled_orders: CancelledOrders::default(),
            tasks: RefCell::default(),
            in_flight: RefCell::default(),
            deliveries: Cell::new(0),
            emails: RefCell::default(),
        });
        for audience in bus::AUDIENCES {
            let pump = Rc::clone(&instance).pump(audience);
            instance.spawn(pump);
        }
        instance
    }

    fn spawn(&self, task: impl Future<Output = ()> + 'static) {
        let mut tasks = self.tasks.borrow_mut();
        tasks.retain(|task| !task.is_finished());
        tasks.push(spawn_local(task).abort_handle());
    }

    /// The end of the process. Either the host lives and abandons what was in flight, or it is gone as well and the locks
    /// run out.
    fn end(&self) {
        for task in self.tasks.take() {
            task.abort();
        }
        let host_lives = self.world.random(fastrand::Rng::bool);
        for (_, delivery) in self.in_flight.take() {
            self.world.ledger.borrow_mut().burnt(&delivery.message_id);
            for notification in &delivery.unsettled {
                self.excuse(notification);
            }
            if host_lives {
                self.abandon(&delivery.entity, delivery.lock_token);
            }
        }
        // The bus looks again when the locks end.
        self.world.bus.borrow().changed.notify_waiters();
    }

    /// It was told, or goes on in a copy, and comes again all the same. Whoever knows it by its key must not be told twice.
    fn excuse(&self, notification: &Notification) {
        let is_keyless = self.world.scenario.semantics == Semantics::Keyless;
        let mut ledger = self.world.ledger.borrow_mut();
        ledger.split(notification);
        if is_keyless && notification.recipient == "customer" {
            ledger.excuse(notification);
        }
    }

    /// Here the process may be killed.
    async fn crash_point(self: &Rc<Self>) {
        let is_over = self.fleet.is_over.get();
        if !is_over && self.world.chance() < self.world.scenario.crash {
            self.fleet.crash(self);
            pending().await
        }
    }

    async fn pump(self: Rc<Self>, audience: Audience) {
        let entity = Bus::entity(audience);
        let calls = Rc::new(Cell::new(0));
        let changed = Rc::clone(&self.world.bus.borrow().changed);
        loop {
            let notified = changed.notified();
            let received = if calls.get() < self.world.scenario.calls {
                let now = self.world.clock.timestamp();
                let received = self.world.bus.borrow_mut().namespace.receive(now, &entity);
                received.expect("the entity exists")
            } else {
                None
            };
            let Some(received) = received else {
                notified.await;
                continue;
            };
            let id = self.deliveries.replace(self.deliveries.get() + 1);
            let lock_token = received.lock_token.expect("it is locked");
            self.in_flight.borrow_mut().insert(
                id,
                InFlight {
                    entity: entity.clone(),
                    lock_token,
                    message_id: received.message.message_id.clone().unwrap_or_default(),
                    unsettled: Vec::new(),
                },
            );
            calls.set(calls.get() + 1);
            let (instance, calls) = (Rc::clone(&self), Rc::clone(&calls));
            let changed = Rc::clone(&changed);
            self.spawn(async move {
                instance.deliver(audience, received, id).await;
                calls.set(calls.get() - 1);
                changed.notify_waiters();
            });
        }
    }

    /// From the delivery to its settlement, as the host and `Deliverer::deliver` do it.
    async fn deliver(self: &Rc<Self>, audience: Audience, received: ReceivedMessage, id: u64) {
        let started = Instant::now();
        let deliveries = {
            let mut ledger = self.world.ledger.borrow_mut();
            ledger.totals.deliveries += 1;
            ledger.totals.deliveries
        };
        assert!(deliveries < MOST_DELIVERIES, "the messages go in circles");
        self.world.pause(1, 5).await;
        self.crash_point().await;
        let envelope = bus::envelope(&received);
        let message = Message::read(&envelope, &self.world.policy, self.world.clock.now());
        let is_settled = match message {
            Err(Unread::Condemned { .. }) => false,
            Err(Unread::Unusable(why)) => unreachable!("{why}"),
            Ok(message) => {
                let event =
                    Event::from_json(received.message.body.bytes()).expect("an event of ours");
                let delivery = Delivery::new(event, message);
                let told = match audience {
                    Audience::Customers => vec![Told {
                        vendor: None,
                        attempt: self.tell_customer(&delivery, id).await,
                    }],
                    Audience::Vendors => self.tell_vendors(&delivery, id).await,
                    Audience::Till | Audience::Book => Vec::new(),
                };
                self.crash_point().await;
                let (policy, now) = (&self.world.policy, self.world.clock.now());
                let (copies, _, _) =
                    delivery.settle(audience, told, policy, now, || self.world.chance());
                self.publish_all(id, &received, &delivery, copies, started)
                    .await
            }
        };
        self.world.pause(1, 5).await;
        self.crash_point().await;
        let Some(in_flight) = self.in_flight.borrow_mut().remove(&id) else {
            return;
        };
        let may_come_again = || {
            self.world.ledger.borrow_mut().burnt(&in_flight.message_id);
            in_flight
                .unsettled
                .iter()
                .for_each(|told| self.excuse(told));
        };
        if !is_settled {
            may_come_again();
            self.abandon(&in_flight.entity, in_flight.lock_token);
            return;
        }
        let now = self.world.clock.timestamp();
        let completed = self.world.bus.borrow_mut().namespace.complete(
            now,
            &in_flight.entity,
            in_flight.lock_token,
        );
        if completed.is_err() {
            // The lock was lost.
            may_come_again();
        }
    }

    fn abandon(&self, entity: &EntityPath, lock_token: Uuid) {
        let now = self.world.clock.timestamp();
        let mut bus = self.world.bus.borrow_mut();
        // A lock that has run out is as good.
        let _ = bus.namespace.abandon(now, entity, lock_token);
        bus.changed.notify_waiters();
    }

    async fn publish_all(
        self: &Rc<Self>,
        id: u64,
        source: &ReceivedMessage,
        delivery: &Delivery,
        copies: Vec<Outgoing>,
        started: Instant,
    ) -> bool {
        for copy in copies {
            self.check_copy(source, delivery, &copy);
            let recipient = bus::text_property(&copy, VENDOR).unwrap_or("customer");
            let notification = notification(delivery, recipient);
            let random = self.world.chance();
            let published = publish_patiently(started, PUBLISH_UNTIL, random, async || {
                self.renew_lock(id);
                if let Some(in_flight) = self.in_flight.borrow_mut().get_mut(&id) {
                    in_flight.unsettled.push(notification.clone());
                }
                let published = bus::publish(&self.world, &copy).await;
                self.crash_point().await;
                published
            })
            .await;
            if published.is_err() {
                let was_down = self.world.bus_was_down(PUBLISH_UNTIL);
                self.world.ledger.borrow_mut().law(was_down, || {
                    "a delivery was burnt while the bus worked".to_owned()
                });
                return false;
            }
        }
        true
    }

    /// A copy has a name that no other message can have, and nothing dies that could have been delivered.
    fn check_copy(&self, source: &ReceivedMessage, delivery: &Delivery, copy: &Outgoing) {
        let event_id = delivery.event.id();
        let mut ledger = self.world.ledger.borrow_mut();
        ledger.totals.copies += 1;
        let vendor = bus::text_property(copy, VENDOR);
        let notification = notification(delivery, vendor.unwrap_or("customer"));
        if !ledger.was_split(&notification) {
            let source = format!("{} of {event_id}", source.sequence_number);
            ledger.sent(&copy.message_id, &source);
        }
        if bus::text_property(copy, DEAD_LETTER_REASON) == Some("DeadlineExceeded") {
            // As long as the longest pause of a breaker, and who is spread over the time after it.
            let long = Duration::from_secs(40 * 60);
            let now = self.world.elapsed();
            let since = now.saturating_sub(long);
            let provider = vendor.map_or(&self.world.email, |vendor| &self.world.vendors[vendor]);
            let has_worked = now > long && provider.borrow().has_worked_since(since, now);
            ledger.law(!has_worked, || {
                format!("{vendor:?} had worked for {long:?} when {event_id} died")
            });
        }
    }

    /// The host does it all the time.
    fn renew_lock(&self, id: u64) {
        if let Some(in_flight) = self.in_flight.borrow().get(&id) {
            let now = self.world.clock.timestamp();
            let mut bus = self.world.bus.borrow_mut();
            // A lock that has run out is found out when the message is settled.
            let _ = bus
                .namespace
                .renew_lock(now, &in_flight.entity, in_flight.lock_token);
        }
    }

    async fn tell_customer(self: &Rc<Self>, delivery: &Delivery, id: u64) -> Attempt {
        let told = notification(delivery, "customer");
        let event = &delivery.event;
        let late = is_late(event.time, self.world.clock.now());
        self.email
            .attempt(delivery.has_waited(), self.world.chance(), || {
                if notify::is_overtaken(&self.cancelled_orders, event) {
                    self.world.ledger.borrow_mut().superseded(&told);
                    return None;
                }
                Some(self.send_email(delivery, id, &told, late))
            })
            .await
    }

    /// As `EmailSender::attempt`, over the three ways to treat a repetition.
    async fn send_email(
        self: &Rc<Self>,
        delivery: &Delivery,
        id: u64,
        told: &Notification,
        late: bool,
    ) -> Result<(), Failure> {
        let world = &self.world;
        let is_asked = world.scenario.semantics == Semantics::Asked;
        let ask = async || {
            world.pause(5, 300).await;
            let now = world.elapsed();
            let known = world.random(|rng| world.email.borrow().ask(now, &told.event_id, rng));
            known.ok_or(failure(Class::Ambiguous, None, false))
        };
        self.emails.borrow_mut().push(world.elapsed());
        self.check_rate();
        if is_asked && delivery.may_be_there() && ask().await? {
            return Ok(());
        }
        if world.is_refused(&delivery.event) {
            world.pause(5, 300).await;
            return Err(failure(Class::Refused, None, false));
        }
        let call = async |late: bool| {
            let body = format!("late: {late}");
            self.call(delivery, id, &world.email, told, &told.event_id, &body)
                .await
        };
        let mut answer = call(late).await;
        if answer == Answer::OtherBody && !is_asked {
            answer = call(!late).await;
        }
        match answer {
            Answer::Taken => Ok(()),
            Answer::OtherBody if is_asked && ask().await? => Ok(()),
            Answer::OtherBody => {
                world.ledger.borrow_mut().law(false, || {
                    format!("{told:?} is known under another text than both of ours")
                });
                Err(failure(Class::KnownOtherwise, None, false))
            }
            Answer::Failed(Class::Ambiguous, _) if is_asked && ask().await? => Ok(()),
            Answer::Failed(class, retry_after) => {
                let was_asked = is_asked && delivery.may_be_there();
                let nothing_taken = was_asked && class != Class::Ambiguous;
                Err(failure(class, retry_after, nothing_taken))
            }
        }
    }

    /// In no window has this instance sent more than the limit.
    fn check_rate(&self) {
        let windows: &[(usize, u64)] = match self.world.scenario.rate_limit.as_str() {
            "none" => &[],
            "30/m,100/h" => &[(30, 60), (100, 3600)],
            "5/m" => &[(5, 60)],
            "1/s,20/h" => &[(1, 1), (20, 3600)],
            other => unreachable!("{other} is no limit of a scenario"),
        };
        let emails = self.emails.borrow();
        let now = self.world.elapsed();
        for (count, seconds) in windows {
            let window = Duration::from_secs(*seconds);
            let in_window = emails
                .iter()
                .rev()
                .take_while(|at| now - **at < window)
                .count();
            self.world.ledger.borrow_mut().law(in_window <= *count, || {
                format!("{in_window} emails in {seconds} s, of {count}")
            });
        }
    }

    async fn tell_vendors(self: &Rc<Self>, delivery: &Delivery, id: u64) -> Vec<Told> {
        let mut told = Vec::new();
        for vendor in VENDORS {
            let lines = &delivery.event.order.line_items;
            let is_in_order = lines.iter().any(|line| line.vendor_id == vendor);
            let only = delivery.history().vendor.as_deref();
            if is_in_order && only.is_none_or(|only| only == vendor) {
                told.push(Told {
                    vendor: Some(vendor.to_owned()),
                    attempt: self.tell_vendor(delivery, id, vendor).await,
                });
            }
        }
        told
    }

    async fn tell_vendor(
        self: &Rc<Self>,
        delivery: &Delivery,
        id: u64,
        vendor: &'static str,
    ) -> Attempt {
        let told = notification(delivery, vendor);
        self.vendors[vendor]
            .attempt(delivery.has_waited(), self.world.chance(), || {
                if vendor_notify::is_overtaken(&self.cancelled_orders, &delivery.event, vendor) {
                    self.world.ledger.borrow_mut().superseded(&told);
                    return None;
                }
                Some(self.send_webhook(delivery, id, &told, vendor))
            })
            .await
    }

    async fn send_webhook(
        self: &Rc<Self>,
        delivery: &Delivery,
        id: u64,
        told: &Notification,
        vendor: &'static str,
    ) -> Result<(), Failure> {
        let key = format!("{}:{vendor}", told.event_id);
        let provider = &self.world.vendors[vendor];
        match self.call(delivery, id, provider, told, &key, "").await {
            Answer::Taken => Ok(()),
            Answer::OtherBody => unreachable!("there is one body"),
            // To a vendor everything can be said twice; 401 is like any other failure.
            Answer::Failed(Class::Ambiguous | Class::ChannelBroken, retry_after) => {
                Err(failure(Class::Transient, retry_after, false))
            }
            Answer::Failed(class, retry_after) => Err(failure(class, retry_after, false)),
        }
    }

    /// One call, whose effect comes in the middle of its time.
    async fn call(
        self: &Rc<Self>,
        delivery: &Delivery,
        id: u64,
        provider: &RefCell<Provider>,
        notification: &Notification,
        key: &str,
        body: &str,
    ) -> Answer {
        let world = &self.world;
        world.ledger.borrow_mut().totals.calls += 1;
        let began = world.elapsed();
        let latency = world.random(|rng| provider.borrow().latency(began, rng));
        tokio::time::sleep(latency / 2).await;
        self.crash_point().await;
        let now = world.elapsed();
        let call = world.random(|rng| provider.borrow_mut().call(now, key, body, rng));
        if call.has_reached {
            let mut ledger = world.ledger.borrow_mut();
            ledger.reached(notification, world.scenario.semantics, now);
            let version = delivery.event.kind.version();
            let order = delivery.event.order_id().to_string();
            let was_overtaken =
                ledger.is_overtaken(&order, &notification.recipient, version, began, now);
            // One instance that nobody kills knows what it has told.
            let knows = world.scenario.crash == 0.0 && world.scenario.instances.len() == 1;
            ledger.law(!was_overtaken || !knows, || {
                format!("{notification:?} came after a later version")
            });
            drop(ledger);
            if let Some(in_flight) = self.in_flight.borrow_mut().get_mut(&id) {
                in_flight.unsettled.push(notification.clone());
            }
            if call.answer != Answer::Taken {
                self.excuse(notification);
            }
        }
        self.crash_point().await;
        tokio::time::sleep(latency / 2).await;
        self.crash_point().await;
        call.answer
    }
}
