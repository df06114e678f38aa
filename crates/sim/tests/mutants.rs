//! A checker that never failed proves nothing: each planted bug is found within a stated number of seeds.
//!
//! The series begin near the first seed that shows the bug, so that a build need not wait for the ones before it.
//! Bugs that need three epochs (`NoR1`, `NoD2`) are left to the model of `quorum`, which finds them in seconds.

use dyad_quorum::mutants::Mutant;
use dyad_sim::{Options, Sabotage, run};

/// One of the seeds shows the bug.
fn found(sabotage: Sabotage, from: u64, within: u64) {
    let options = Options { chaos: 60, sabotage: Some(sabotage), ..Options::default() };
    for seed in from..from + within {
        if let Some(what) = run(seed, &options).expect("the scratch space works").violation {
            println!("{sabotage:?}: seed {seed}: {what}");
            return;
        }
    }
    panic!("{sabotage:?} was not found within {within} seeds from {from}");
}

#[test]
fn a_skipped_sync_is_found() {
    found(Sabotage::SkippedSync, 1, 5);
}

#[test]
fn an_unmirrored_write_is_found() {
    found(Sabotage::UnmirroredWrite, 1, 3);
}

#[test]
fn a_forgotten_tail_is_found() {
    found(Sabotage::NoTail, 1, 20);
}

#[test]
fn an_extent_skipped_by_resync_is_found() {
    found(Sabotage::SkippedExtent, 1, 3);
}

#[test]
fn vms_that_are_not_frozen_are_found() {
    found(Sabotage::NoFreeze, 1, 30);
}

#[test]
fn a_stale_document_is_found() {
    found(Sabotage::StaleDocument, 1, 8);
}

#[test]
fn a_missing_fence_wait_is_found() {
    found(Sabotage::Quorum(Mutant::NoFenceWait), 1, 8);
}

/// For finding out how soon the rarer ones show: `cargo test --release -p dyad-sim --test mutants -- --ignored --nocapture`.
#[test]
#[ignore = "a survey of a quarter of an hour"]
fn survey() {
    for sabotage in [
        Sabotage::NoTail,
        Sabotage::NoFreeze,
        Sabotage::BlindWatchdog,
        Sabotage::Quorum(Mutant::NoGrace),
        Sabotage::Quorum(Mutant::SoloAckEarly),
        Sabotage::Quorum(Mutant::ActBeforeChosen),
    ] {
        let result = std::panic::catch_unwind(|| found(sabotage, 1, 150));
        println!("{sabotage:?}: {}", if result.is_ok() { "found" } else { "not found" });
    }
}
