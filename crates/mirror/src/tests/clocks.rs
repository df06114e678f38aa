//! The clocks of requests: who is called stuck, and when.

use super::pair::{Pair, Step, Step::*};
use crate::Phase;

pub const WRITE: Step = Write { volume: 0, block: 0, count: 1 };

/// A pair in sync without an open request. Node 0 writes volume 0, node 1 volume 1.
pub fn steady() -> Pair {
    let mut pair = Pair::new();
    pair.heal();
    pair
}

/// Lets this many tenths of a second pass; the stores and the session work unless a step before broke them.
pub fn run(pair: &mut Pair, tenths: usize) {
    for _ in 0..tenths {
        for node in 0..2 {
            pair.step(Store { node, count: 50 });
            pair.step(Deliver { node, count: 50 });
        }
        pair.step(Tick { millis: 100 });
    }
}

pub fn stuck(pair: &Pair) -> [usize; 2] {
    [pair.stuck(0), pair.stuck(1)]
}

pub fn storage(pair: &Pair) -> [bool; 2] {
    [pair.storage_stuck(0), pair.storage_stuck(1)]
}

#[test]
fn a_request_without_a_session_makes_the_peer_stuck() {
    let mut pair = steady();
    pair.step(LinkDown);
    run(&mut pair, 100);
    assert_eq!(stuck(&pair), [0, 0], "no request waits");
    pair.step(WRITE);
    run(&mut pair, 28);
    assert_eq!(stuck(&pair), [0, 0]);
    run(&mut pair, 4);
    assert_eq!(stuck(&pair), [1, 0]);
    run(&mut pair, 90);
    assert_eq!(stuck(&pair), [4, 0], "it is told again every 3 s");
    pair.heal();
    pair.check_replicas();
}

#[test]
fn a_change_without_a_session_makes_the_peer_stuck() {
    let mut pair = steady();
    pair.step(LinkDown);
    pair.step(Create);
    run(&mut pair, 32);
    assert_eq!(stuck(&pair), [1, 0]);
    pair.heal();
}

/// A path that loses large frames: each session ends before the reconciliation does.
#[test]
fn a_request_over_sessions_that_end_early_makes_the_peer_stuck() {
    let mut pair = steady();
    pair.step(WRITE);
    pair.step(Store { node: 0, count: 9 });
    for _ in 0..6 {
        pair.step(LinkDown);
        pair.step(LinkUp);
        for _ in 0..8 {
            for node in 0..2 {
                pair.step(Store { node, count: 9 });
                pair.deliver_small(node);
            }
            pair.step(Tick { millis: 100 });
        }
    }
    assert!(pair.stuck(0) > 0, "{:?}", stuck(&pair));
    pair.heal();
    pair.check_replicas();
}

#[test]
fn a_store_of_the_writer_that_does_not_answer_is_reported_and_its_peer_is_not() {
    let mut pair = steady();
    pair.step(Hang { node: 0, hangs: true });
    pair.step(WRITE);
    run(&mut pair, 28);
    assert_eq!(storage(&pair), [false, false]);
    run(&mut pair, 5);
    assert_eq!((storage(&pair), stuck(&pair)), ([true, false], [0, 0]));
    run(&mut pair, 200);
    assert_eq!((storage(&pair), stuck(&pair)), ([true, false], [0, 0]));
    pair.step(Hang { node: 0, hangs: false });
    run(&mut pair, 3);
    assert_eq!((storage(&pair), pair.open_requests()), ([false, false], 0));
}

#[test]
fn a_sync_that_is_never_answered_is_reported_although_other_commands_are() {
    let mut pair = steady();
    pair.step(Flush { volume: 0 });
    pair.step(Hang { node: 0, hangs: true });
    for round in 0..33 {
        pair.step(Read { volume: 0, block: round % 8, count: 1 });
        pair.store_without_syncs(0);
        run(&mut pair, 1);
    }
    assert_eq!((storage(&pair), stuck(&pair)), ([true, false], [0, 0]));
}

#[test]
fn a_store_that_does_not_answer_the_peer_is_reported_by_both() {
    let mut pair = steady();
    pair.step(Hang { node: 1, hangs: true });
    pair.step(WRITE);
    run(&mut pair, 34);
    assert_eq!((storage(&pair), stuck(&pair)), ([false, true], [1, 0]));
    pair.heal();
    pair.check_replicas();
}

/// In a handshake and in a reconciliation both wait for the node whose store does not answer.
#[test]
fn a_node_whose_own_store_does_not_answer_does_not_call_its_peer_stuck() {
    for steps in 0..12 {
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
        pair.step(Hang { node: 0, hangs: true });
        pair.step(Read { volume: 0, block: 3, count: 1 });
        pair.step(Flush { volume: 0 });
        run(&mut pair, 100);
        assert_eq!(pair.stuck(0), 0, "after {steps} steps: {:?}", pair.phase(0));
        assert!(pair.storage_stuck(0) && !pair.storage_stuck(1), "after {steps} steps: {:?}", pair.phase(0));
        pair.heal();
        pair.check_replicas();
    }
}

#[test]
fn a_request_that_is_held_makes_nobody_stuck() {
    let mut pair = steady();
    pair.hold(0, true);
    pair.step(LinkDown);
    pair.step(WRITE);
    run(&mut pair, 200);
    assert_eq!(stuck(&pair), [0, 0]);
    pair.hold(0, false);
    run(&mut pair, 28);
    assert_eq!(stuck(&pair), [0, 0], "its clock begins when it is no longer held");
    run(&mut pair, 4);
    assert_eq!(stuck(&pair), [1, 0]);
}

#[test]
fn a_full_peer_is_not_stuck_also_not_when_it_has_just_got_space() {
    for flap in [false, true] {
        let mut pair = steady();
        pair.step(Full { node: 1, full: true });
        pair.step(WRITE);
        run(&mut pair, 100);
        if flap {
            pair.step(LinkDown);
            pair.step(LinkUp);
            run(&mut pair, 100);
        }
        pair.step(Full { node: 1, full: false });
        for _ in 0..3 {
            // The news reach node 0 before the answers do.
            pair.step(Deliver { node: 0, count: 1 });
            pair.step(Tick { millis: 100 });
        }
        run(&mut pair, 20);
        assert_eq!((stuck(&pair), storage(&pair)), ([0, 0], [false, false]), "flap {flap}");
        pair.heal();
    }
}

#[test]
fn a_node_that_was_not_scheduled_calls_nobody_stuck() {
    let mut pair = steady();
    pair.step(WRITE);
    pair.step(Write { volume: 1, block: 40, count: 1 });
    pair.step(Tick { millis: 100 });
    pair.step(Tick { millis: 60_000 });
    assert_eq!((stuck(&pair), storage(&pair)), ([0, 0], [false, false]));
    run(&mut pair, 20);
    assert_eq!((stuck(&pair), pair.open_requests()), ([0, 0], 0));
}

/// `Pair` asserts that no store is reported that is not hung.
#[test]
fn a_store_with_a_long_queue_that_moves_is_not_stuck() {
    let mut pair = steady();
    (0..90).for_each(|_| pair.step(Read { volume: 0, block: 0, count: 1 }));
    for _ in 0..80 {
        pair.step(Store { node: 0, count: 1 });
        pair.step(Tick { millis: 100 });
    }
    pair.heal();
}

#[test]
fn a_reconciliation_that_makes_progress_may_take_long() {
    let mut pair = steady();
    (0..6).for_each(|extent| pair.step(Write { volume: 0, block: extent * 16, count: 1 }));
    pair.step(Store { node: 0, count: 9 });
    pair.step(Deliver { node: 1, count: 9 });
    pair.step(LinkDown);
    pair.step(LinkUp);
    pair.step(Read { volume: 0, block: 0, count: 1 });
    while pair.phase(0) != Some(Phase::Reconcile) {
        for node in 0..2 {
            pair.step(Store { node, count: 50 });
            pair.step(Deliver { node, count: 1 });
        }
    }
    let mut tenths = 0;
    while pair.phase(0) != Some(Phase::Steady) {
        for node in 0..2 {
            pair.step(Store { node, count: 50 });
            pair.step(Deliver { node, count: 1 });
        }
        (0..8).for_each(|_| pair.step(Tick { millis: 100 }));
        tenths += 8;
    }
    assert!(tenths > 40, "the reconciliation took {tenths} tenths of a second");
    assert_eq!(stuck(&pair), [0, 0]);
    pair.heal();
}

#[test]
fn a_lone_node_reports_its_store_and_no_peer() {
    let mut pair = steady();
    pair.step(Remove { node: 1 });
    pair.step(LinkDown);
    pair.step(Hang { node: 0, hangs: true });
    pair.step(WRITE);
    run(&mut pair, 34);
    assert_eq!((storage(&pair), stuck(&pair)), ([true, false], [0, 0]));
    pair.heal();
    pair.check_replicas();
}
