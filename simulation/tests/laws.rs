//! A few simulations with every `cargo test`; the gate runs thousands.

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
