//! Everything that the tasks of one simulation share.

use std::{cell::RefCell, collections::BTreeMap, rc::Rc, time::Duration};

use fastrand::Rng;
use orderup::{config::Settings, event::Event, rate_limit::RateLimit, retry_policy::RetryPolicy};

use crate::{
    bus::Bus,
    clock::Clock,
    ledger::Ledger,
    provider::Provider,
    scenario::{Scenario, Semantics, VENDORS},
};

pub struct World {
    pub clock: Clock,
    began: tokio::time::Instant,
    pub scenario: Scenario,
    pub policy: RetryPolicy,
    pub bus: RefCell<Bus>,
    pub email: RefCell<Provider>,
    pub vendors: BTreeMap<&'static str, RefCell<Provider>>,
    pub ledger: RefCell<Ledger>,
    rng: RefCell<Rng>,
    /// Addresses that the provider never takes.
    pub refused: RefCell<std::collections::BTreeSet<String>>,
}

impl World {
    pub fn new(scenario: Scenario, mut rng: Rng) -> Rc<Self> {
        let settings = Settings::from_pairs([("RETRY_DEADLINE", scenario.deadline.as_str())]);
        let vendors = VENDORS.iter().zip(&scenario.vendor_outages);
        Rc::new(Self {
            clock: Clock::start(),
            began: tokio::time::Instant::now(),
            policy: RetryPolicy::from_settings(&settings).expect("usable settings"),
            bus: RefCell::new(Bus::new(&mut rng)),
            email: RefCell::new(Provider::new(&scenario.email_outages, scenario.semantics)),
            // A vendor knows a webhook by its id.
            vendors: vendors
                .map(|(id, outages)| (*id, RefCell::new(Provider::new(outages, Semantics::Asked))))
                .collect(),
            ledger: RefCell::default(),
            rng: RefCell::new(rng),
            refused: RefCell::default(),
            scenario,
        })
    }

    pub fn elapsed(&self) -> Duration {
        self.began.elapsed()
    }

    pub fn rate_limit(&self) -> RateLimit {
        RateLimit::from_settings(&Settings::from_pairs([]), &self.scenario.rate_limit)
            .expect("a usable limit")
    }

    pub fn random<T>(&self, draw: impl FnOnce(&mut Rng) -> T) -> T {
        draw(&mut self.rng.borrow_mut())
    }

    pub fn chance(&self) -> f64 {
        self.random(Rng::f64)
    }

    /// For so many milliseconds.
    pub async fn pause(&self, least: u64, most: u64) {
        let pause = self.random(|rng| rng.u64(least..=most));
        tokio::time::sleep(Duration::from_millis(pause)).await;
    }

    pub fn bus_is_down(&self) -> bool {
        let now = self.elapsed();
        let outages = &self.scenario.bus_outages;
        outages.iter().any(|(from, to)| (*from..*to).contains(&now))
    }

    /// At some moment of so long, up to now.
    pub fn bus_was_down(&self, long: Duration) -> bool {
        let now = self.elapsed();
        let outages = &self.scenario.bus_outages;
        outages
            .iter()
            .any(|(from, to)| *from <= now && now.saturating_sub(long) < *to)
    }

    pub fn is_refused(&self, event: &Event) -> bool {
        self.refused
            .borrow()
            .contains(&event.order_id().to_string())
    }
}
