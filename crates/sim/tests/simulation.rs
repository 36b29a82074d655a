//! The seeds that every change runs, and the proof that the checkers see what they are for.

use sim::{Bug, Report, Violation, run};

const SEED_COUNT: u64 = 500;
/// A planted bug must show within so many seeds.
const BUG_SEED_MAX: u64 = 60;

#[test]
fn every_seed_holds() {
    println!("SEED 0..{SEED_COUNT}; replay one: cargo run --release -p sim -- --seed SEED");
    let mut total = Report::default();
    for seed in 0..SEED_COUNT {
        let report = run(seed, None).unwrap_or_else(|failure| {
            panic!(
                "SEED {seed}: {}; replay: cargo run --release -p sim -- --seed {seed}",
                failure.violation
            )
        });
        total.add(&report);
    }
    println!("{total:?}");
    // A simulation in which nothing happens holds as well.
    assert!(total.acknowledged > 100_000);
    assert!(total.acknowledged_without_leader > 1_000);
    assert!(total.crashes > 1_000);
    assert!(total.elections > 1_000);
    assert!(total.snapshots_installed > 1_000);
}

#[test]
fn a_seed_repeated_is_the_same_run() {
    for seed in 1_000..1_010 {
        let first = run(seed, None).expect("holds");
        let second = run(seed, None).expect("holds");
        assert_eq!(first, second, "SEED {seed}");
    }
}

#[test]
fn different_seeds_are_different_runs() {
    let first = run(1_000, None).expect("holds");
    let second = run(1_001, None).expect("holds");
    assert_ne!(first.trace_hash, second.trace_hash);
}

#[test]
fn an_early_acknowledgement_is_found() {
    let (seed, found) = find(Bug::EarlyAck);
    println!("SEED {seed}: {found}");
    assert!(
        matches!(found, Violation::AckWithoutMajority { .. } | Violation::DurableLost { .. }),
        "{found}"
    );
}

#[test]
fn hard_state_before_its_entries_is_found() {
    let (seed, found) = find(Bug::StateFirst);
    println!("SEED {seed}: {found}");
    assert!(matches!(found, Violation::Recovery { .. }), "{found}");
}

#[test]
fn a_descriptor_without_its_payload_is_found() {
    let (seed, found) = find(Bug::DescriptorAlone);
    println!("SEED {seed}: {found}");
    assert!(matches!(found, Violation::Recovery { .. }), "{found}");
}

/// The first seed that shows the bug, and what it shows.
fn find(bug: Bug) -> (u64, Violation) {
    for seed in 0..BUG_SEED_MAX {
        if let Err(failure) = run(seed, Some(bug)) {
            return (seed, failure.violation);
        }
    }
    panic!("{bug:?} was not found within {BUG_SEED_MAX} seeds");
}
