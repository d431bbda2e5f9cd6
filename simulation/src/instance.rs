//! One instance of the app: the host's pumps and the handler's functions, with what they keep in memory.
//!
//! The handler's own code decides: [`Standing`], [`Channel`], [`decide`], [`Original`], [`publish_patiently`]. Only what stands
//! between it and the outside is written again here: the host that delivers and settles, and the calls. A killed
//! instance loses its memory and everything that it was in the middle of.

use std::{
    cell::{Cell, RefCell},
    collections::BTreeMap,
    future::pending,
    rc::Rc,
    time::Duration,
};

use orderup::{
    cancelled_orders::CancelledOrders,
    channel::Channel,
    delivery::{PUBLISH_UNTIL, publish_patiently},
    event::{Event, EventKind},
    failure::{Class, Failure},
    history::{History, Standing},
    notify::is_late,
    orders_topic::Outgoing,
    outcome::{Attempt, Dead, Outcome, Reason, decide},
    redelivery::{Audience, Original},
};
use servicebus_emulator::{EntityPath, ReceivedMessage};
use tokio::{
    task::{AbortHandle, spawn_local},
    time::Instant,
};
use uuid::Uuid;

use crate::{
    bus::{self, Bus},
    clock::date_time,
    ledger::Notification,
    provider::{Answer, failure},
    scenario::{Semantics, VENDORS},
    world::World,
};

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
    /// Who got it in this delivery, or will hear of a copy that is on the bus: as long as the delivery is not settled, it
    /// may come again all the same.
    unsettled: Vec<Notification>,
}

/// One delivery, as the functions see it.
struct Delivery {
    id: u64,
    event: Event,
    history: History,
    is_redelivery: bool,
}

impl Delivery {
    fn notification(&self, recipient: &str) -> Notification {
        Notification {
            event_id: self.event.id(),
            recipient: recipient.to_owned(),
        }
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
        let channel = |id: &&'static str| (*id, Channel::new(id, &world.policy, None));
        let instance = Rc::new(Self {
            world: Rc::clone(world),
            fleet: Rc::clone(fleet),
            email: Channel::new("email", &world.policy, Some(world.rate_limit())),
            vendors: VENDORS.iter().map(channel).collect(),
            cancelled_orders: CancelledOrders::default(),
            tasks: RefCell::default(),
            in_flight: RefCell::default(),
            deliveries: Cell::new(0),
            emails: RefCell::default(),
        });
        for audience in [Audience::Customers, Audience::Vendors] {
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

    /// A repetition is excused, but not where the provider knows it.
    fn excuse(&self, notification: &Notification) {
        let knows = notification.recipient != "customer"
            || self.world.scenario.semantics == Semantics::Asked;
        if !knows {
            self.world.ledger.borrow_mut().excuse(notification);
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
        self.world.ledger.borrow_mut().totals.deliveries += 1;
        self.world.pause(1, 5).await;
        self.crash_point().await;
        let enqueued = date_time(received.enqueued_time);
        let enqueued = enqueued.replace_nanosecond(0).unwrap_or(enqueued);
        let standing = Standing::read(
            &bus::properties(&received),
            Some(enqueued),
            &self.world.policy,
            self.world.clock.now(),
        );
        let is_settled = match standing {
            Standing::Condemned => false,
            Standing::Live(history) => {
                let body = String::from_utf8_lossy(&received.message.body).into_owned();
                let event = Event::from_json(body.as_bytes()).expect("an event of ours");
                let delivery = Delivery {
                    id,
                    event,
                    history,
                    is_redelivery: received.delivery_count > 1,
                };
                let told = match audience {
                    Audience::Customers => vec![(None, self.tell_customer(&delivery).await)],
                    Audience::Vendors => self.tell_vendors(&delivery).await,
                };
                self.crash_point().await;
                let copies = self.copies(audience, &body, &delivery, told);
                self.publish_all(id, copies, started).await
            }
        };
        self.world.pause(1, 5).await;
        self.crash_point().await;
        let Some(in_flight) = self.in_flight.borrow_mut().remove(&id) else {
            return;
        };
        let excuse = || {
            in_flight
                .unsettled
                .iter()
                .for_each(|told| self.excuse(told))
        };
        if !is_settled {
            excuse();
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
            // The lock was lost: it comes again.
            excuse();
        }
    }

    fn abandon(&self, entity: &EntityPath, lock_token: Uuid) {
        let now = self.world.clock.timestamp();
        let mut bus = self.world.bus.borrow_mut();
        // A lock that has run out is as good.
        let _ = bus.namespace.abandon(now, entity, lock_token);
        bus.changed.notify_waiters();
    }

    /// What becomes of it, as `Deliverer::settle`.
    fn copies(
        &self,
        audience: Audience,
        body: &str,
        delivery: &Delivery,
        told: Vec<(Option<&'static str>, Attempt)>,
    ) -> Vec<(Notification, Outgoing)> {
        let now = self.world.clock.now();
        let original = Original {
            body,
            event: Some(&delivery.event),
            audience,
            history: &delivery.history,
            traceparent: None,
        };
        let mut copies = Vec::new();
        for (vendor, attempt) in told {
            let random = self.world.chance();
            let outcome = decide(attempt, &delivery.history, &self.world.policy, now, random);
            if let Outcome::Dead(dead) = &outcome {
                self.check_death(vendor, dead);
            }
            if let Some(copy) = original.copy_for(vendor, &outcome, now) {
                let generation = delivery.history.generation + 1;
                let what = format!(
                    "{} for {} {vendor:?}, generation {generation}",
                    delivery.event.id(),
                    audience.name()
                );
                self.world.ledger.borrow_mut().sent(&copy.message_id, &what);
                let notification = delivery.notification(vendor.unwrap_or("customer"));
                copies.push((notification, copy));
            }
        }
        copies
    }

    /// Nothing dies for its deadline that could have been delivered: the other side has not worked for long.
    fn check_death(&self, vendor: Option<&str>, dead: &Dead) {
        if dead.reason != Reason::DeadlineExceeded {
            return;
        }
        let now = self.world.elapsed();
        let long = (self.world.policy.deadline() / 2).min(Duration::from_secs(3 * 60 * 60));
        let since = now.saturating_sub(long);
        let has_worked = match vendor {
            Some(vendor) => self.world.vendors[vendor]
                .borrow()
                .has_worked_since(since, now),
            None => self.world.email.borrow().has_worked_since(since, now),
        };
        self.world.ledger.borrow_mut().law(!has_worked, || {
            format!("{vendor:?} had worked for {long:?} when a message died: {dead:?}")
        });
    }

    async fn publish_all(
        self: &Rc<Self>,
        id: u64,
        copies: Vec<(Notification, Outgoing)>,
        started: Instant,
    ) -> bool {
        for (notification, copy) in copies {
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
                let is_bus_s_fault =
                    self.world.bus_is_down() || self.world.scenario.lost_answers > 0.0;
                self.world.ledger.borrow_mut().law(is_bus_s_fault, || {
                    "a delivery was burnt while the bus worked".to_owned()
                });
                return false;
            }
        }
        true
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

    async fn tell_customer(self: &Rc<Self>, delivery: &Delivery) -> Attempt {
        let event = &delivery.event;
        let notification = delivery.notification("customer");
        if self.is_superseded(event, &notification) {
            return Attempt::Told;
        }
        let history = &delivery.history;
        let late = is_late(history, event.time);
        let may_be_there =
            delivery.is_redelivery || history.is_replay || history.unconfirmed_since.is_some();
        let random = self.world.chance();
        self.email
            .attempt(history.generation > 0, random, || {
                self.send_email(delivery, &notification, late, may_be_there)
            })
            .await
    }

    /// As `EmailSender::attempt`.
    async fn send_email(
        self: &Rc<Self>,
        delivery: &Delivery,
        notification: &Notification,
        late: bool,
        may_be_there: bool,
    ) -> Result<(), Failure> {
        let world = &self.world;
        let key = &notification.event_id;
        let is_asked = world.scenario.semantics == Semantics::Asked;
        let ask = async || {
            world.pause(5, 300).await;
            let now = world.elapsed();
            let known = world.random(|rng| world.email.borrow().ask(now, key, rng));
            known.ok_or(failure(Class::Ambiguous, None, false))
        };
        self.emails.borrow_mut().push(world.elapsed());
        self.check_rate();
        if is_asked && may_be_there && ask().await? {
            return Ok(());
        }
        if world.is_refused(&delivery.event) {
            world.pause(5, 300).await;
            return Err(failure(Class::Refused, None, false));
        }
        let body = |late| format!("late: {late}");
        let call = async |late| {
            self.call(delivery, &world.email, notification, key, &body(late))
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
                    format!("{notification:?} was sent with another body under its key")
                });
                Err(failure(Class::Refused, None, false))
            }
            Answer::Failed(Class::Ambiguous, _) if is_asked => match ask().await? {
                true => Ok(()),
                false => Err(failure(Class::Transient, None, true)),
            },
            Answer::Failed(class, retry_after) => Err(failure(class, retry_after, is_asked)),
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

    async fn tell_vendors(
        self: &Rc<Self>,
        delivery: &Delivery,
    ) -> Vec<(Option<&'static str>, Attempt)> {
        let mut told = Vec::new();
        for vendor in VENDORS {
            let is_in_order = delivery
                .event
                .order
                .line_items
                .iter()
                .any(|line| line.vendor_id == vendor);
            let is_meant = delivery
                .history
                .vendor
                .as_ref()
                .is_none_or(|only| only == vendor);
            if is_in_order && is_meant {
                told.push((Some(vendor), self.tell_vendor(delivery, vendor).await));
            }
        }
        told
    }

    async fn tell_vendor(self: &Rc<Self>, delivery: &Delivery, vendor: &'static str) -> Attempt {
        let notification = delivery.notification(vendor);
        if self.is_superseded(&delivery.event, &notification) {
            return Attempt::Told;
        }
        let key = format!("{}:{vendor}", notification.event_id);
        let random = self.world.chance();
        self.vendors[vendor]
            .attempt(delivery.history.generation > 0, random, async || {
                let provider = &self.world.vendors[vendor];
                match self.call(delivery, provider, &notification, &key, "").await {
                    Answer::Taken => Ok(()),
                    Answer::OtherBody => unreachable!("there is one body"),
                    // To a vendor everything can be said twice; 401 is like any other failure.
                    Answer::Failed(Class::Ambiguous | Class::ChannelBroken, retry_after) => {
                        Err(failure(Class::Transient, retry_after, false))
                    }
                    Answer::Failed(class, retry_after) => Err(failure(class, retry_after, false)),
                }
            })
            .await
    }

    fn is_superseded(&self, event: &Event, notification: &Notification) -> bool {
        let order_id = event.order_id();
        if event.kind != EventKind::Placed {
            self.cancelled_orders.note(order_id);
            return false;
        }
        let is_superseded = self.cancelled_orders.contains(order_id);
        if is_superseded {
            self.world.ledger.borrow_mut().superseded(notification);
        }
        is_superseded
    }

    /// One call, whose effect comes in the middle of its time.
    async fn call(
        self: &Rc<Self>,
        delivery: &Delivery,
        provider: &RefCell<crate::provider::Provider>,
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
            let semantics = format!("{:?}", world.scenario.semantics);
            let mut ledger = world.ledger.borrow_mut();
            ledger.reached(notification, &semantics);
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
            if let Some(in_flight) = self.in_flight.borrow_mut().get_mut(&delivery.id) {
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
