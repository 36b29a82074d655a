//! The seeds of the broker that offloads, and the proof that its checkers see what they are for.

use sim::offload::{Bug, Report, Violation, run};

const SEED_COUNT: u64 = 80;
/// A planted bug must show within so many seeds.
const BUG_SEED_MAX: u64 = 40;

#[test]
fn every_seed_holds() {
    let replay = "cargo run --release -p sim -- --scenario offload --seed";
    println!("SEED 0..{SEED_COUNT}; replay one: {replay} SEED");
    let mut total = Report::default();
    for seed in 0..SEED_COUNT {
        let report = run(seed, None).unwrap_or_else(|failure| {
            panic!("SEED {seed}: {}; replay: {replay} {seed}", failure.violation)
        });
        total.add(&report);
    }
    // A simulation in which nothing happens holds as well.
    for (name, count) in total.counts() {
        println!("{count:>12}  {name}");
        let is_rare = ["timed_out", "offload_failures"].contains(&name);
        assert!(count > 0 || is_rare, "{name} never happened");
    }
    assert!(total.acknowledged > 10_000);
    assert!(total.power_cuts > 100 && total.compactions > 100 && total.objects > 1_000);
}

#[test]
fn a_seed_repeated_is_the_same_run() {
    for seed in 1_000..1_005 {
        let first = run(seed, None).expect("holds");
        assert_eq!(first, run(seed, None).expect("holds"), "SEED {seed}");
        assert_ne!(first.trace_hash, run(seed + 100, None).expect("holds").trace_hash);
    }
}

#[test]
fn a_log_that_is_given_up_too_early_is_found() {
    let found = find(Bug::TrimBeforeEdit);
    assert!(matches!(found, Violation::Uncovered { .. }), "{found}");
}

#[test]
fn the_deletion_of_what_the_newest_manifest_names_is_found() {
    let found = find(Bug::DeleteNamed);
    assert!(matches!(found, Violation::Missing { .. }), "{found}");
}

#[test]
fn a_deletion_without_grace_is_found() {
    let found = find(Bug::DeleteWithoutGrace);
    assert!(matches!(found, Violation::NoGrace { .. }), "{found}");
}

#[test]
fn a_name_that_is_used_again_is_found() {
    let found = find(Bug::ReuseName);
    println!("{found}");
    let seen = matches!(
        found,
        Violation::Unreadable { .. }
            | Violation::Lost { .. }
            | Violation::Missing { .. }
            | Violation::Stuck { .. }
    );
    assert!(seen, "{found}");
}

/// What the first seed shows that shows the bug.
fn find(bug: Bug) -> Violation {
    for seed in 0..BUG_SEED_MAX {
        if let Err(failure) = run(seed, Some(bug)) {
            return failure.violation;
        }
    }
    panic!("{bug:?} was not found within {BUG_SEED_MAX} seeds");
}
