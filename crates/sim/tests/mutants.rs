//! A checker that never failed proves nothing: each planted bug is found within a stated number of seeds.
//!
//! Bugs that need three epochs (`NoR1`, `NoD2`) are left to the model of `quorum`, which finds them in seconds. Its
//! `SoloAckEarly` cannot show here: the mirror itself never completes a write alone while the view has two members.

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
    found(Sabotage::SkippedSync, 1, 8);
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
    found(Sabotage::SkippedExtent, 1, 8);
}

#[test]
fn vms_that_are_not_frozen_are_found() {
    found(Sabotage::NoFreeze, 31, 40); // the first to show it is the 38th
}

#[test]
fn a_stale_document_is_found() {
    found(Sabotage::StaleDocument, 1, 20);
}

#[test]
fn a_missing_fence_wait_is_found() {
    found(Sabotage::Quorum(Mutant::NoFenceWait), 1, 15);
}

#[test]
fn a_missing_grace_after_a_restart_is_found() {
    found(Sabotage::Quorum(Mutant::NoGrace), 1, 25);
}

#[test]
fn acting_on_an_unchosen_configuration_is_found() {
    found(Sabotage::Quorum(Mutant::ActBeforeChosen), 1, 20);
}

#[test]
fn a_watchdog_fed_blindly_is_found() {
    found(Sabotage::BlindWatchdog, 61, 20); // the first to show is the 65th
}
