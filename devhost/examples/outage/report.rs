//! What [`super::Seen`] comes to: the report, and whether all is well.

use jiff::Timestamp;

use super::{Args, CUSTOMER, Checkout, LONGEST_RECOVERY, POLL, ROWS, Seen};

fn seconds(from: Timestamp, to: Timestamp) -> f64 {
    to.duration_since(from).as_secs_f64()
}

impl Seen {
    /// Prints everything; whether all is well.
    pub(crate) fn report(&self, args: &Args) -> bool {
        println!(
            "{} orders at {}/s while the email provider answers {}; EMAIL_RATE_LIMIT={} RETRY_SCHEDULE={}\n",
            args.orders, args.rate, args.fault, args.email_limit, args.retry_schedule
        );
        println!("checkout (ms)  orders     p50     p90     p99     max  not 202");
        let before = checkouts("before", &self.before);
        let during = checkouts("outage", &self.during);
        let ratio = during / before;
        println!("the p99 during the outage is {ratio:.2} times the one before\n");
        self.backlog();
        self.recovery(&args.email_limit);
        let dead = self.dead_letters();

        // Of the customers, and of the vendors.
        let told = |is_it: fn(u64) -> bool| {
            [true, false].map(|customers| {
                let told = self.told.iter();
                told.filter(|(who, times)| (*who == CUSTOMER) == customers && is_it(*times))
                    .count()
            })
        };
        let (lost, repeated) = (told(|times| times == 0), told(|times| times > 1));
        println!(
            "never told:          {} customers, {} vendors",
            lost[0], lost[1]
        );
        println!(
            "told more than once: {} customers, {} vendors",
            repeated[0], repeated[1]
        );
        let mut all = self.before.iter().chain(&self.during);
        self.is_idle
            && dead == 0
            && lost == [0; 2]
            && repeated == [0; 2]
            && all.all(|one| one.order.is_ok())
    }

    fn backlog(&self) {
        println!("seconds  phase     active  locked  scheduled  deadLetter  emails so far");
        let step = self.samples.len().div_ceil(ROWS).max(1);
        let last = self.samples.len().saturating_sub(1);
        let rows = self.samples.iter().enumerate();
        for (_, sample) in rows.filter(|(at, _)| at % step == 0 || *at == last) {
            let is_down = sample.at < self.recovered;
            let phase = if is_down { "outage" } else { "recovery" };
            let [active, locked, scheduled, dead] = sample.emails;
            let emails = self.emails.partition_point(|at| *at <= sample.at);
            println!(
                "{:>7.1}  {phase:<8}  {active:>6}  {locked:>6}  {scheduled:>9}  {dead:>10}  {emails:>13}",
                seconds(self.began, sample.at),
            );
        }
        println!();
    }

    fn recovery(&self, limit: &str) {
        let late = &self.emails[self.emails.partition_point(|at| *at < self.recovered)..];
        let count = late.len();
        if let [first, .., last] = late {
            let from_first = seconds(*first, *last);
            let (first, last) = (
                seconds(self.recovered, *first),
                seconds(self.recovered, *last),
            );
            println!(
                "{count} emails after the recovery, the first after {first:.1} s and the last after {last:.1} s"
            );
            println!(
                "emails in a second: {:.1} from the recovery on, {:.1} from the first one on, {} in the busiest; limit {limit}",
                count as f64 / last,
                (count - 1) as f64 / from_first,
                busiest_second(late),
            );
        } else {
            println!("{count} emails after the recovery");
        }
        if let Some(last) = self.samples.last().filter(|_| !self.is_idle) {
            let [active, locked, scheduled, _] = last.all;
            let time = LONGEST_RECOVERY;
            println!(
                "STILL THERE after {time:?}: {active} active, {locked} locked, {scheduled} scheduled"
            );
        }
    }

    /// How many there are at the end.
    fn dead_letters(&self) -> u64 {
        let dead = self.samples.last().map_or(0, |sample| sample.dead());
        println!("dead letters: {dead}");
        let mut seen = 0;
        let mut times = Vec::new();
        for sample in &self.samples {
            if sample.dead() > seen {
                times.push(seconds(self.began, sample.at));
            }
            seen = sample.dead();
        }
        if let (Some(first), Some(last)) = (times.first(), times.last()) {
            println!(
                "    the first {first:.1} s and the last {last:.1} s after the outage began, looked for every {POLL:?}"
            );
        }
        dead
    }
}

/// Prints one row, and gives the p99.
fn checkouts(phase: &str, checkouts: &[Checkout]) -> f64 {
    let latencies = checkouts.iter().map(|one| one.latency.as_secs_f64() * 1e3);
    let mut latencies: Vec<f64> = latencies.collect();
    latencies.sort_by(f64::total_cmp);
    // The nearest rank.
    let percentile = |percent: usize| latencies[(latencies.len() * percent).div_ceil(100) - 1];
    let [p50, p90, p99, max] = [50, 90, 99, 100].map(percentile);
    let refused = checkouts.iter().filter_map(|one| one.order.as_ref().err());
    let refused: Vec<_> = refused.collect();
    println!(
        "{phase:<13}  {:>6}  {p50:>6.1}  {p90:>6.1}  {p99:>6.1}  {max:>6.1}  {:>7}",
        checkouts.len(),
        refused.len(),
    );
    if let Some(why) = refused.first() {
        println!("    the first that was refused: {why}");
    }
    p99
}

/// The most that came within any second.
fn busiest_second(times: &[Timestamp]) -> usize {
    let counts = times
        .iter()
        .enumerate()
        .map(|(first, begin)| times[first..].partition_point(|at| seconds(*begin, *at) < 1.0));
    counts.max().unwrap_or(0)
}
