//! Runs many simulations, or one again.

use std::{process::ExitCode, time::Instant};

use clap::Parser;
use simulation::{ledger::Totals, run, scenario::Scenario};

/// Weeks of orders, outages, crashes and replays in virtual time.
#[derive(Parser)]
struct Args {
    /// How many simulations to run.
    #[arg(long, default_value_t = 1000)]
    seeds: u64,
    /// The seed of the first.
    #[arg(long, default_value_t = 0)]
    from: u64,
    /// Runs this one only, and prints it.
    #[arg(long, conflicts_with_all = ["seeds", "from"])]
    seed: Option<u64>,
}

fn main() -> ExitCode {
    let args = Args::parse();
    let started = Instant::now();
    if let Some(seed) = args.seed {
        println!("{:#?}", Scenario::draw(&mut fastrand::Rng::with_seed(seed)));
    }
    let seeds = match args.seed {
        Some(seed) => seed..seed + 1,
        None => args.from..args.from.saturating_add(args.seeds),
    };
    let mut totals = Totals::default();
    let mut broken = 0;
    for seed in seeds {
        let report = run(seed);
        totals.add(&report.totals);
        if !report.violations.is_empty() {
            broken += 1;
            println!(
                "seed {seed} breaks {} laws; run it again with",
                report.violations.len()
            );
            println!("    cargo run --profile simulation -p simulation -- --seed {seed}");
            for violation in report.violations.iter().take(10) {
                println!("  {violation}");
            }
        }
    }
    let days = totals.virtual_time.as_secs() / (24 * 60 * 60);
    println!(
        "{} simulations, {days} virtual days, {} orders, {} notifications: {} told ({} of them repetitions), \
         {} superseded by a cancellation, {} dead with a reason",
        totals.simulations,
        totals.orders,
        totals.notifications,
        totals.reached,
        totals.repeated,
        totals.superseded,
        totals.dead,
    );
    println!(
        "{} deliveries, {} calls, {} copies, {} crashes, {} replays; {} checks, {broken} simulations broke a law; {:.1} s",
        totals.deliveries,
        totals.calls,
        totals.copies,
        totals.crashes,
        totals.replays,
        totals.checks,
        started.elapsed().as_secs_f64(),
    );
    if broken == 0 {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}
