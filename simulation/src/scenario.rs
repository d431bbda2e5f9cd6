//! What happens in one simulation, drawn from its seed: orders, outages, crashes, scale-out and operators.

use std::time::Duration;

use fastrand::Rng;

pub const VENDORS: [&str; 3] = ["bakery", "florist", "grocer"];

const MINUTE: f64 = 60.0;
const HOUR: f64 = 60.0 * MINUTE;
const DAY: f64 = 24.0 * HOUR;

/// How the email provider treats a repetition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Semantics {
    /// Knows an email by its key, refuses another body under it, and can be asked: ACS.
    Asked,
    /// Knows an email by its key for a day and refuses another body under it: Resend.
    Keyed,
    /// Sends whatever comes: SendGrid, SMTP.
    Keyless,
}

/// What goes wrong at a provider or vendor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// 503, and nothing taken.
    Down,
    /// 429.
    Throttled,
    /// 401.
    Refusing,
    /// It takes it, and the answer is lost.
    AnswerLost,
    /// Nothing is taken, and the answer is lost.
    RequestLost,
    /// It takes ten seconds.
    Slow,
    /// 410; of vendors only.
    Gone,
}

/// A time in which a share of the calls meets a fault.
#[derive(Debug, Clone)]
pub struct Outage {
    pub from: Duration,
    pub to: Duration,
    pub fault: Fault,
    pub share: f64,
}

#[derive(Debug, Clone)]
pub struct PlannedOrder {
    pub at: Duration,
    pub vendors: Vec<&'static str>,
    /// The provider will never take this customer's address.
    pub is_refused: bool,
    pub cancelled_after: Option<Duration>,
}

#[derive(Debug, Clone)]
pub struct Scenario {
    pub semantics: Semantics,
    pub deadline: String,
    pub rate_limit: String,
    /// Concurrent calls of one instance and function.
    pub calls: usize,
    /// When there are how many instances.
    pub instances: Vec<(Duration, usize)>,
    pub orders: Vec<PlannedOrder>,
    pub email_outages: Vec<Outage>,
    pub vendor_outages: Vec<Vec<Outage>>,
    /// In these times the bus takes nothing over REST; what it has it still delivers.
    pub bus_outages: Vec<(Duration, Duration)>,
    /// How likely a send is taken without an answer.
    pub lost_answers: f64,
    /// How likely an instance is killed at any one point of a delivery.
    pub crash: f64,
    /// When an operator re-sends dead letters.
    pub replays: Vec<Duration>,
    /// When all of it is over.
    pub end: Duration,
}

impl Scenario {
    pub fn draw(rng: &mut Rng) -> Self {
        let semantics = pick(
            rng,
            &[Semantics::Asked, Semantics::Keyed, Semantics::Keyless],
        );
        let span = seconds(log_uniform(rng, 10.0 * MINUTE, 3.0 * DAY));
        let orders: Vec<_> = (0..rng.usize(3..25)).map(|_| order(rng, span)).collect();
        let email_outages = outages(rng, span, false);
        let vendor_outages: Vec<_> = VENDORS.iter().map(|_| outages(rng, span, true)).collect();
        let bus_outages: Vec<_> = (0..rng.usize(0..3))
            .map(|_| {
                let from = span.mul_f64(rng.f64());
                (from, from + seconds(log_uniform(rng, 1.0, 20.0 * MINUTE)))
            })
            .collect();
        let all_outages = email_outages.iter().chain(vendor_outages.iter().flatten());
        let end = all_outages
            .map(|outage| outage.to)
            .chain(bus_outages.iter().map(|(_, to)| *to))
            .chain([span * 2])
            .max()
            .unwrap_or(span);
        Self {
            semantics,
            deadline: pick(rng, &["72h", "72h", "72h", "1h", "14d"]).to_owned(),
            rate_limit: pick(rng, &["none", "30/m,100/h", "5/m", "1/s,20/h"]).to_owned(),
            calls: rng.usize(1..9),
            instances: (0..rng.usize(1..6))
                .map(|change| match change {
                    0 => (Duration::ZERO, 1),
                    _ => (end.mul_f64(rng.f64()), rng.usize(1..5)),
                })
                .collect(),
            orders,
            email_outages,
            vendor_outages,
            bus_outages,
            lost_answers: pick(rng, &[0.0, 0.0, 0.05, 0.3]),
            crash: pick(rng, &[0.0, 0.0, 0.001, 0.01]),
            // What dies again at once is re-sent again within the topic's memory.
            replays: (0..rng.usize(0..6))
                .map(|_| end.mul_f64(rng.f64()))
                .flat_map(|at| [0, 120, 240].map(|later| at + Duration::from_secs(later)))
                .collect(),
            end,
        }
    }
}

impl Scenario {
    /// So many orders in half an hour, during which and for another the provider is down; then nothing is in the way but
    /// ACS's rate limit.
    pub fn backlog(orders: u32) -> Self {
        let half_an_hour = Duration::from_secs(30 * 60);
        let order = |n| PlannedOrder {
            at: half_an_hour / orders * n,
            vendors: vec![VENDORS[0]],
            is_refused: false,
            cancelled_after: None,
        };
        Self {
            semantics: Semantics::Keyless,
            deadline: "72h".to_owned(),
            rate_limit: "30/m,100/h".to_owned(),
            calls: 16,
            instances: vec![(Duration::ZERO, 1)],
            orders: (0..orders).map(order).collect(),
            email_outages: vec![Outage {
                from: Duration::ZERO,
                to: half_an_hour * 2,
                fault: Fault::Down,
                share: 1.0,
            }],
            vendor_outages: vec![Vec::new(); VENDORS.len()],
            bus_outages: Vec::new(),
            lost_answers: 0.0,
            crash: 0.0,
            replays: Vec::new(),
            end: half_an_hour * 2,
        }
    }
}

fn order(rng: &mut Rng, span: Duration) -> PlannedOrder {
    let mut vendors = VENDORS.to_vec();
    rng.shuffle(&mut vendors);
    vendors.truncate(rng.usize(1..=VENDORS.len()));
    PlannedOrder {
        at: span.mul_f64(rng.f64()),
        vendors,
        is_refused: rng.f64() < 0.03,
        cancelled_after: (rng.f64() < 0.25).then(|| seconds(log_uniform(rng, 1.0, 2.0 * DAY))),
    }
}

fn outages(rng: &mut Rng, span: Duration, is_vendor: bool) -> Vec<Outage> {
    (0..rng.usize(0..4))
        .map(|_| {
            let from = span.mul_f64(rng.f64());
            let faults = [
                Fault::Down,
                Fault::Down,
                Fault::Throttled,
                Fault::Refusing,
                Fault::AnswerLost,
                Fault::RequestLost,
                Fault::Slow,
                if is_vendor { Fault::Gone } else { Fault::Down },
            ];
            Outage {
                from,
                // From a second to ten days.
                to: from + seconds(log_uniform(rng, 1.0, 10.0 * DAY)),
                fault: pick(rng, &faults),
                // Flapping, or all of it.
                share: pick(rng, &[0.2, 0.5, 0.9, 1.0, 1.0, 1.0]),
            }
        })
        .collect()
}

fn pick<T: Copy>(rng: &mut Rng, choices: &[T]) -> T {
    choices[rng.usize(0..choices.len())]
}

fn seconds(seconds: f64) -> Duration {
    Duration::from_secs_f64(seconds)
}

/// Between the two, as likely in each power of ten.
fn log_uniform(rng: &mut Rng, least: f64, most: f64) -> f64 {
    (least.ln() + rng.f64() * (most.ln() - least.ln())).exp()
}
