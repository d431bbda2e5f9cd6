//! Weeks of orders, outages, crashes and replays in virtual time, to see whether the promise holds.
//!
//! A simulation is drawn from a seed and runs the same way each time. In it meet the bus's core, the handler's decisions
//! and a scripted outside; what really happened is held against the laws in [`ledger`]. In the end all outages are over,
//! and everything that was accepted has to be told, superseded by a cancellation, or dead with a reason.

pub mod bus;
pub mod clock;
pub mod instance;
pub mod ledger;
pub mod operator;
pub mod provider;
pub mod scenario;
pub mod world;

use std::{rc::Rc, time::Duration};

use fastrand::Rng;
use orderup::{
    event::{Cancellation, Event, EventKind},
    order::OrderId,
    place_order::PlaceOrder,
    properties::DEAD_LETTER_REASON,
};
use serde_json::json;
use servicebus_emulator::{Message, Value};
use tokio::task::{LocalSet, spawn_local};
use uuid::Uuid;

use instance::Fleet;
use ledger::Totals;
use scenario::{PlannedOrder, Scenario};
use world::World;

/// As in `servicebus.json`.
const MAX_DELIVERY_COUNT: u32 = 10;

/// What became of one simulation.
#[derive(Debug)]
pub struct Report {
    pub totals: Totals,
    /// The laws that were broken; none, if the promise holds.
    pub violations: Vec<String>,
}

/// Runs the simulation of that seed.
pub fn run(seed: u64) -> Report {
    let mut rng = Rng::with_seed(seed);
    let scenario = Scenario::draw(&mut rng);
    run_scenario(scenario, rng)
}

/// Runs that scenario.
pub fn run_scenario(scenario: Scenario, rng: Rng) -> Report {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .expect("a runtime without input and output");
    LocalSet::new().block_on(&runtime, simulate(scenario, rng))
}

async fn simulate(scenario: Scenario, rng: Rng) -> Report {
    let world = World::new(scenario, rng);
    let fleet = Fleet::new(&world);
    spawn_local(bus::run(Rc::clone(&world)));
    for order in world.scenario.orders.clone() {
        spawn_local(place(Rc::clone(&world), order));
    }
    for (at, count) in world.scenario.instances.clone() {
        let fleet = Rc::clone(&fleet);
        spawn_local(async move {
            tokio::time::sleep(at).await;
            fleet.scale(count);
        });
    }
    for at in world.scenario.replays.clone() {
        let world = Rc::clone(&world);
        spawn_local(async move {
            tokio::time::sleep(at).await;
            operator::replay(&world);
        });
    }
    tokio::time::sleep(world.scenario.end + Duration::from_secs(60)).await;

    fleet.calm();
    fleet.scale(1);
    let latest = world.elapsed() + Duration::from_secs(3 * 24 * 60 * 60);
    while is_busy(&world) && world.elapsed() < latest {
        tokio::time::sleep(Duration::from_secs(60)).await;
    }
    report(&world)
}

/// Whether anything is on its way.
fn is_busy(world: &World) -> bool {
    let entities = world.bus.borrow().namespace.entities();
    entities
        .iter()
        .any(|entity| entity.active + entity.locked + entity.scheduled > 0)
}

async fn place(world: Rc<World>, planned: PlannedOrder) {
    tokio::time::sleep(planned.at).await;
    let order_id = OrderId(world.random(|rng| Uuid::from_u128(rng.u128(..))));
    let lines: Vec<_> = planned
        .vendors
        .iter()
        .map(|vendor| {
            json!({ "vendorId": vendor, "sku": "1", "name": "x", "quantity": 1,
                    "unitPrice": { "amount": 100, "currency": "EUR" } })
        })
        .collect();
    let body = json!({
        "customer": { "name": "Ada", "email": "ada@example.net" }, "lineItems": lines,
        "payment": { "source": "token" },
    });
    let time = world.clock.now();
    let order = PlaceOrder::from_request(&body)
        .expect("a valid order")
        .place(order_id, Some(time));
    if planned.is_refused {
        world.refused.borrow_mut().insert(order_id.to_string());
    }
    let placed = Event {
        kind: EventKind::Placed,
        time,
        order,
    };
    if !announce(&world, &planned, &placed) {
        return;
    }
    world.ledger.borrow_mut().totals.orders += 1;
    if let Some(after) = planned.cancelled_after {
        tokio::time::sleep(after).await;
        let cancelled = Event {
            kind: EventKind::Cancelled(Cancellation {
                reason: "changed their mind".to_owned(),
                not_charged: false,
            }),
            time: world.clock.now(),
            ..placed
        };
        announce(&world, &planned, &cancelled);
    }
}

/// As checkout and cancel do it; the answer is whether the caller got a 202.
fn announce(world: &World, planned: &PlannedOrder, event: &Event) -> bool {
    if world.bus_is_down() {
        return false;
    }
    let recipients = planned.vendors.iter().map(|vendor| (*vendor).to_owned());
    let recipients = recipients.chain(["customer".to_owned()]);
    let mut ledger = world.ledger.borrow_mut();
    ledger.accepted(&event.id(), recipients);
    ledger.sent(&event.id(), &event.id());
    drop(ledger);
    let message = Message {
        body: event.to_json().into(),
        message_id: Some(event.id()),
        label: Some(event.kind.name().to_owned()),
        correlation_id: Some(event.order_id().to_string()),
        properties: [("generation".to_owned(), Value::Long(0))].into(),
        ..Message::default()
    };
    bus::send(world, message);
    true
}

fn report(world: &World) -> Report {
    let mut dead = Vec::new();
    let mut ledger = world.ledger.borrow_mut();
    for audience in bus::AUDIENCES {
        for letter in operator::dead_letters(world, audience) {
            dead.extend(operator::notifications(audience, &letter));
            // Ten kills, or ten times four minutes without the bus, use up a delivery count as well.
            let message_id = letter.message.message_id.clone().unwrap_or_default();
            let is_explained = letter.message.properties.contains_key(DEAD_LETTER_REASON)
                || ledger.was_burnt(&message_id, MAX_DELIVERY_COUNT);
            ledger.law(is_explained, || {
                format!("a dead letter without a reason: {letter:?}")
            });
        }
    }
    let is_busy = is_busy(world);
    ledger.law(!is_busy, || "something is on its way for ever".to_owned());
    if !is_busy {
        ledger.settle(&dead);
    }
    let mut totals = ledger.totals.clone();
    totals.simulations = 1;
    totals.dead = dead.len() as u64;
    totals.virtual_time = world.elapsed();
    Report {
        totals,
        violations: ledger.violations.clone(),
    }
}
