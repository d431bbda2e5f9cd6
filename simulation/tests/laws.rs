//! A few simulations with every `cargo test`; the gate runs thousands.

use std::time::Duration;

use simulation::scenario::Scenario;

#[test]
fn the_first_seeds_break_no_law() {
    for seed in 0..40 {
        let report = simulation::run(seed);
        assert!(
            report.violations.is_empty(),
            "run it again with\n    cargo run --profile simulation -p simulation -- --seed {seed}\n{:#?}",
            report.violations
        );
        assert!(report.totals.checks > 0);
    }
}

#[test]
fn a_seed_runs_the_same_way_each_time() {
    for seed in [5, 8, 86] {
        let (one, other) = (simulation::run(seed), simulation::run(seed));
        assert_eq!(format!("{one:?}"), format!("{other:?}"));
    }
}

/// After an outage the limit, and nothing else, says how long a backlog takes: 400 emails at 100 an hour.
#[test]
fn a_backlog_drains_at_the_pace_of_the_limit_without_going_in_circles() {
    let orders = 400;
    let scenario = Scenario::backlog(orders);
    let recovery = scenario.end;
    let report = simulation::run_scenario(scenario, fastrand::Rng::with_seed(7));
    assert!(report.violations.is_empty(), "{:#?}", report.violations);
    let totals = report.totals;
    assert_eq!((totals.reached, totals.dead), (800, 0));
    let took = totals.virtual_time - recovery;
    let hour = Duration::from_secs(60 * 60);
    assert!(took > 3 * hour && took < 5 * hour, "{took:?}");
    let copies = totals.copies / u64::from(orders);
    assert!(copies < 25, "{copies} copies of each email");
}
