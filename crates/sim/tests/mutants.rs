//! Each planted bug is found within a stated number of seeds: checks that have never failed prove nothing.
//!
//! Some rules of `placement` are covered by other rules, so that no run shows their lack: `NoHold` (the VMs are frozen as well),
//! `ServeWhileLeaving` and `TellVmsAtEdges` (each covers the other), `CleanDuringFailOver` and `DeleteUnassigned` (the moment is a
//! few milliseconds long). The tests of `placement` (`tests/rules.rs`) show them.
//! `NoR1` and `NoD2`, which need three epochs, are left to the model of `quorum`, which finds them in seconds.
//! `SoloAckEarly` has no effect here, because the mirror never completes a write alone while its view has two members.

use dyad_placement::Mutant as PlacementMutant;
use dyad_quorum::mutants::Mutant;
use dyad_sim::{Options, PlantedBug, run};

/// Asserts that one of the seeds shows the bug.
fn assert_found(planted_bug: PlantedBug, from: u64, within: u64) {
    let options = Options { fault_seconds: 60, planted_bug: Some(planted_bug), ..Options::default() };
    assert_found_with(&options, from, within);
}

fn assert_found_with(options: &Options, from: u64, within: u64) {
    let planted_bug = options.planted_bug;
    for seed in from..from + within {
        if let Some(what) = run(seed, options).expect("the scratch space works").violation {
            println!("{planted_bug:?}: seed {seed}: {what}");
            return;
        }
    }
    panic!("{planted_bug:?} was not found within {within} seeds from {from}");
}

#[test]
fn a_skipped_sync_is_found() {
    assert_found(PlantedBug::SkippedSync, 1, 8);
}

#[test]
fn an_unmirrored_write_is_found() {
    assert_found(PlantedBug::UnmirroredWrite, 1, 3);
}

#[test]
fn missing_unconfirmed_extents_are_found() {
    assert_found(PlantedBug::NoUnconfirmed, 1, 20);
}

#[test]
fn an_extent_skipped_by_resync_is_found() {
    assert_found(PlantedBug::SkippedExtent, 1, 8);
}

#[test]
fn vms_that_are_not_frozen_are_found() {
    assert_found(PlantedBug::NoFreeze, 1, 20);
}

#[test]
fn a_stale_document_is_found() {
    assert_found(PlantedBug::Placement(PlacementMutant::KeepDocument), 1, 20);
}

#[test]
fn a_missing_fence_wait_is_found() {
    assert_found(PlantedBug::Quorum(Mutant::NoFenceWait), 1, 15);
}

#[test]
fn a_missing_grace_after_a_restart_is_found() {
    assert_found(PlantedBug::Quorum(Mutant::NoGrace), 11, 20); // Seed 19 is the first that finds it.
}

#[test]
fn acting_on_an_unchosen_configuration_is_found() {
    assert_found(PlantedBug::Quorum(Mutant::ActBeforeChosen), 1, 10);
}

#[test]
fn a_peer_that_is_called_stuck_only_within_a_session_is_found() {
    let planted_bug = Some(PlantedBug::StuckNeedsSession);
    assert_found_with(&Options { planted_bug, partial_faults: true, ..Options::default() }, 1, 8);
}

#[test]
fn a_store_that_does_not_answer_and_is_not_reported_is_found() {
    let planted_bug = Some(PlantedBug::NoStorageReport);
    // Seed 95 is the first that finds it: mostly the peer notices as well.
    assert_found_with(&Options { planted_bug, partial_faults: true, ..Options::default() }, 91, 10);
}

#[test]
fn a_slow_checkpoint_whose_progress_is_not_told_is_found() {
    let planted_bug = Some(PlantedBug::NoStoreProgress);
    assert_found_with(&Options { planted_bug, partial_faults: true, ..Options::default() }, 1, 8);
}

#[test]
fn a_slow_checkpoint_whose_progress_the_peer_does_not_learn_is_found() {
    let planted_bug = Some(PlantedBug::NoPeerProgress);
    assert_found_with(&Options { planted_bug, partial_faults: true, ..Options::default() }, 1, 8);
}

#[test]
fn damage_that_a_checkpoint_finds_and_nobody_repairs_is_found() {
    let planted_bug = Some(PlantedBug::NoDamageReport);
    assert_found_with(&Options { planted_bug, partial_faults: true, ..Options::default() }, 11, 12);
}

#[test]
fn a_watchdog_that_is_always_fed_is_found() {
    assert_found(PlantedBug::BlindWatchdog, 31, 20); // Seed 38 is the first that finds it.
}

#[test]
fn a_change_that_is_decided_before_it_is_durable_is_found() {
    assert_found(PlantedBug::Placement(PlacementMutant::DecideUnflushed), 1, 8);
}

#[test]
fn a_deletion_of_a_vm_of_a_lost_node_is_found() {
    assert_found(PlantedBug::Placement(PlacementMutant::DeleteForeignVm), 1, 15);
}

#[test]
fn a_writer_that_does_not_wait_for_the_old_one_is_found() {
    let planted_bug = Some(PlantedBug::Placement(PlacementMutant::NoHandover));
    assert_found_with(&Options { planted_bug, ..Options::default() }, 321, 20); // Seed 329 is the first that finds it.
}
