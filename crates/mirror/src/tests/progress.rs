//! Progress of checkpoints: a store whose journal is full is late and not stuck.

use super::clocks::{WRITE, run, steady, storage, stuck};
use super::pair::{Pair, Step::*};
use crate::Phase;

/// Lets this many seconds pass, of which each third begins with a completed checkpoint step of the node's store.
fn run_with_steps(pair: &mut Pair, node: usize, seconds: usize) {
    for second in 0..seconds {
        if second % 3 == 0 {
            pair.step(Progress { node });
        }
        // A step may take almost T_io.
        run(pair, if second % 3 == 2 { 7 } else { 10 });
    }
}

#[test]
fn a_store_whose_full_journal_makes_room_slowly_is_not_stuck() {
    let mut pair = steady();
    pair.step(Hang { node: 0, hangs: true });
    pair.step(WRITE);
    run_with_steps(&mut pair, 0, 45);
    assert_eq!((storage(&pair), stuck(&pair)), ([false, false], [0, 0]));
    pair.heal();
    pair.check_replicas();
}

#[test]
fn a_disk_that_hangs_in_a_checkpoint_is_found_within_t_io() {
    let mut pair = steady();
    pair.step(Hang { node: 0, hangs: true });
    pair.step(WRITE);
    run_with_steps(&mut pair, 0, 12);
    pair.step(Progress { node: 0 });
    run(&mut pair, 28);
    assert_eq!(storage(&pair), [false, false]);
    run(&mut pair, 4);
    assert_eq!((storage(&pair), stuck(&pair)), ([true, false], [0, 0]));
    pair.heal();
}

#[test]
fn a_peer_whose_full_journal_makes_room_slowly_is_not_stuck() {
    let mut pair = steady();
    pair.step(Hang { node: 1, hangs: true });
    pair.step(WRITE);
    pair.step(Create);
    run_with_steps(&mut pair, 1, 45);
    assert_eq!((storage(&pair), stuck(&pair)), ([false, false], [0, 0]));
    pair.heal();
    pair.check_replicas();
}

/// Each command that the peer asks for waits for one step, and is answered before the node may tell of that step.
#[test]
fn a_step_is_told_although_its_command_is_answered_at_once() {
    let mut pair = steady();
    pair.step(Hang { node: 1, hangs: true });
    pair.step(WRITE);
    pair.step(Flush { volume: 0 });
    run(&mut pair, 1);
    for _ in 0..2 {
        // The first of two steps is told at once, so the second is too early for a message, which has to follow.
        pair.step(Progress { node: 1 });
        run(&mut pair, 1);
        pair.step(Progress { node: 1 });
        pair.step(Hang { node: 1, hangs: false });
        pair.step(Store { node: 1, count: 1 });
        pair.step(Hang { node: 1, hangs: true });
        run(&mut pair, 29);
    }
    assert_eq!((storage(&pair), stuck(&pair)), ([false, false], [0, 0]));
    pair.heal();
    pair.check_replicas();
}

#[test]
fn a_peer_whose_disk_hangs_in_a_checkpoint_is_stuck_after_t_io() {
    let mut pair = steady();
    pair.step(Hang { node: 1, hangs: true });
    pair.step(WRITE);
    run_with_steps(&mut pair, 1, 12);
    pair.step(Progress { node: 1 });
    run(&mut pair, 28);
    assert_eq!((storage(&pair), stuck(&pair)), ([false, false], [0, 0]));
    run(&mut pair, 5);
    assert_eq!((storage(&pair), stuck(&pair)), ([false, true], [1, 0]));
    pair.heal();
}

/// A store that makes progress for ever and never answers serves no guest.
#[test]
fn progress_without_an_answer_excuses_neither_node_for_longer_than_the_limit() {
    for node in 0..2 {
        let mut pair = steady();
        pair.step(Hang { node, hangs: true });
        pair.step(WRITE);
        let mut tenths = 0;
        while !storage(&pair)[node] && pair.stuck(0) == 0 {
            assert!(tenths < 660, "node {node} is excused for longer than 60 s and T_io");
            pair.step(Progress { node });
            run(&mut pair, 5);
            tenths += 5;
        }
        assert!(tenths > 580, "after {tenths} tenths of a second");
        pair.heal();
        pair.check_replicas();
    }
}

/// A peer that repeats one number makes no progress.
#[test]
fn the_same_number_of_steps_told_again_excuses_nothing() {
    let mut pair = steady();
    pair.step(Hang { node: 1, hangs: true });
    pair.step(WRITE);
    run(&mut pair, 1);
    for _ in 0..7 {
        pair.step(Progress { node: 1 });
        pair.forget_step(1);
        run(&mut pair, 5);
    }
    assert_eq!(pair.stuck(0), 1);
}

/// Each session ends before the peer has answered, and in each the peer claims progress.
#[test]
fn progress_over_many_sessions_excuses_a_request_within_the_limit_too() {
    let mut pair = steady();
    pair.step(Hang { node: 1, hangs: true });
    pair.step(WRITE);
    for round in 0.. {
        assert!(round < 80, "excused for longer than 60 s and T_io");
        pair.step(LinkDown);
        pair.step(LinkUp);
        pair.step(Progress { node: 1 });
        run(&mut pair, 9);
        if pair.stuck(0) > 0 {
            assert!(round > 50, "after {round} sessions of 0.9 s");
            break;
        }
    }
    pair.heal();
    pair.check_replicas();
}

/// A sync runs beside the checkpoint: steps of the checkpoint say nothing about it.
#[test]
fn a_sync_that_hangs_is_found_although_a_checkpoint_makes_progress() {
    let mut pair = steady();
    pair.step(Flush { volume: 0 });
    pair.step(Hang { node: 0, hangs: true });
    pair.step(WRITE);
    for _ in 0..33 {
        pair.progress_of_newest(0);
        run(&mut pair, 1);
    }
    assert!(pair.storage_stuck(0));
}

/// The peer of a node in a handshake or a reconciliation waits for that node's store.
#[test]
fn a_session_that_begins_while_a_journal_is_full_makes_nobody_stuck() {
    for (steps, node) in (0..12).flat_map(|steps| [(steps, 0), (steps, 1)]) {
        let mut pair = steady();
        pair.step(Write { volume: 1, block: 0, count: 60 });
        pair.step(WRITE);
        pair.step(Store { node: 1, count: 9 });
        pair.step(LinkDown);
        pair.step(LinkUp);
        for _ in 0..steps {
            for node in 0..2 {
                pair.step(Store { node, count: 1 });
                pair.step(Deliver { node, count: 2 });
            }
        }
        pair.step(Hang { node, hangs: true });
        run_with_steps(&mut pair, node, 24);
        assert_eq!((storage(&pair), stuck(&pair)), ([false, false], [0, 0]), "after {steps} steps, node {node}");
        pair.heal();
        pair.check_replicas();
    }
}

#[test]
fn a_target_whose_journal_is_full_keeps_its_resync() {
    let mut pair = steady();
    pair.step(Remove { node: 1 });
    (0..6).for_each(|extent| pair.step(Write { volume: 0, block: extent * 16, count: 1 }));
    run(&mut pair, 3);
    pair.step(Learn { node: 1 });
    while pair.phase(0) != Some(Phase::Source) {
        for node in 0..2 {
            pair.step(Store { node, count: 50 });
            pair.step(Deliver { node, count: 1 });
        }
    }
    pair.step(Hang { node: 1, hangs: true });
    run(&mut pair, 3);
    let session = pair.session();
    run_with_steps(&mut pair, 1, 24);
    assert_eq!((pair.session(), storage(&pair)), (session, [false, false]));
    pair.heal();
    pair.check_replicas();
}
