//! A block of the resync source that cannot be read: the pair gets in sync again, and no node gives an older content.

use super::clocks::run;
use super::pair::{Pair, Step::*};
use crate::*;

const VOLUME: VolumeId = VolumeId(1);

/// Volume 1 is written, node 1 is removed, and node 0 writes blocks 3 and 4 alone.
fn with_a_survivor() -> Pair {
    let mut pair = Pair::new();
    pair.heal();
    pair.step(Write { volume: 0, block: 0, count: 60 });
    pair.heal();
    pair.step(Remove { node: 1 });
    pair.step(Write { volume: 0, block: 3, count: 2 });
    for _ in 0..4 {
        pair.step(Store { node: 0, count: 9 });
    }
    pair
}

/// Reads blocks 0 to 7; returns whether the read failed.
fn read_fails(pair: &mut Pair) -> bool {
    let before = pair.failed_reads;
    pair.step(Read { volume: 0, block: 0, count: 8 });
    pair.heal();
    pair.failed_reads > before
}

#[test]
fn one_unreadable_block_of_the_survivor_does_not_stop_the_resync() {
    let mut pair = with_a_survivor();
    pair.step(RotOnMember { volume: 0, block: 7 });
    pair.heal();
    pair.check_replicas();
    assert_eq!(pair.lost, [(VOLUME, ExtentIndex(0), LostReason::PeerOutOfDate)], "reported once");
    assert!(read_fails(&mut pair), "on the node that was the source");
    assert_eq!(pair.lost.len(), 1, "a read of the guest reports nothing new");
    // Node 1 goes on alone: its own content of the block is not given.
    pair.step(Learn { node: 1 });
    pair.step(Remove { node: 0 });
    pair.step(Read { volume: 0, block: 7, count: 1 });
    pair.step(Store { node: 1, count: 9 });
    assert_eq!(pair.failed_reads, 2, "on the node that was the target");
}

#[test]
fn a_write_of_the_guest_makes_a_lost_block_readable_on_both_nodes() {
    let mut pair = with_a_survivor();
    pair.step(RotOnMember { volume: 0, block: 7 });
    pair.heal();
    pair.step(Write { volume: 0, block: 7, count: 1 });
    pair.heal();
    pair.check_replicas();
    assert!(!read_fails(&mut pair));
    pair.step(Remove { node: 0 });
    pair.step(Read { volume: 0, block: 0, count: 60 });
    pair.heal();
    assert_eq!(pair.failed_reads, 0);
}

/// A write in a resync goes to the extent although its copy waits for a further read.
#[test]
fn a_write_before_the_last_read_saves_the_block() {
    let mut pair = with_a_survivor();
    pair.step(RotOnMember { volume: 0, block: 7 });
    pair.step(Learn { node: 1 });
    pair.step(LinkUp);
    for _ in 0..6 {
        for node in 0..2 {
            pair.step(Store { node, count: 50 });
            pair.step(Deliver { node, count: 50 });
        }
    }
    assert_eq!(pair.phase(0), Some(Phase::Source));
    pair.step(Write { volume: 0, block: 7, count: 1 });
    pair.heal();
    pair.check_replicas();
    assert_eq!(pair.lost, []);
    assert!(!read_fails(&mut pair));
}

/// An error of the disk that is over at the next read costs nothing.
#[test]
fn a_block_that_becomes_readable_is_copied() {
    let mut pair = with_a_survivor();
    pair.step(RotOnMember { volume: 0, block: 7 });
    pair.step(Learn { node: 1 });
    pair.step(LinkUp);
    for _ in 0..6 {
        for node in 0..2 {
            pair.step(Store { node, count: 50 });
            pair.step(Deliver { node, count: 50 });
        }
    }
    pair.make_readable(0);
    pair.heal();
    pair.check_replicas();
    assert_eq!(pair.lost, []);
    assert!(!read_fails(&mut pair));
}

/// The mark is on the target's disk before the pair counts as in sync.
#[test]
fn a_lost_block_stays_lost_when_the_target_loses_power() {
    let mut pair = with_a_survivor();
    pair.step(RotOnMember { volume: 0, block: 7 });
    pair.heal();
    pair.step(Power { node: 1, keep: 0 });
    pair.heal();
    pair.check_replicas();
    assert!(read_fails(&mut pair));
}

/// The other node was replaced: its empty copy must not be read as zeros.
#[test]
fn a_whole_extent_that_cannot_be_read_is_lost_and_not_zero() {
    let mut pair = with_a_survivor();
    for block in 0..16 {
        pair.step(RotOnMember { volume: 0, block });
    }
    pair.heal();
    pair.check_replicas();
    assert_eq!(pair.lost.len(), 1);
    assert!(read_fails(&mut pair));
}

/// Each replica lacks another block, and both lack a third one: only the third one is lost.
#[test]
fn a_reconciliation_repairs_each_block_that_one_replica_can_read() {
    let mut pair = Pair::new();
    pair.heal();
    pair.step(Write { volume: 0, block: 0, count: 16 });
    pair.heal();
    // The extent is compared, because a write to it is not confirmed.
    pair.step(Write { volume: 0, block: 0, count: 1 });
    for node in [0, 1, 0, 1] {
        pair.step(Store { node, count: 50 });
        pair.step(Deliver { node, count: 50 });
    }
    pair.rot_anywhere(0, VOLUME, [5, 9]);
    pair.rot_anywhere(1, VOLUME, [9, 12]);
    pair.step(LinkDown);
    pair.heal();
    assert_eq!(pair.lost, [(VOLUME, ExtentIndex(0), LostReason::UnreadableOnBoth)]);
    assert_eq!(pair.unreadable_blocks(VOLUME), [[9], [9]]);
    pair.step(Read { volume: 0, block: 0, count: 9 });
    pair.heal();
    assert_eq!(pair.failed_reads, 0);
}

#[test]
fn a_read_of_a_block_that_is_unreadable_on_both_members_fails_and_is_reported_once() {
    let mut pair = Pair::new();
    pair.heal();
    pair.step(Write { volume: 0, block: 0, count: 16 });
    pair.heal();
    pair.rot_anywhere(0, VOLUME, [3]);
    pair.rot_anywhere(1, VOLUME, [3, 5]);
    assert!(read_fails(&mut pair));
    assert!(read_fails(&mut pair));
    assert_eq!(pair.lost, [(VOLUME, ExtentIndex(0), LostReason::UnreadableOnBoth)]);
}

/// Found by `a_damaged_block_is_never_read`: the block was reported as lost while this node had it.
#[test]
fn a_block_that_a_write_makes_good_during_its_repair_is_not_lost() {
    let mut pair = Pair::new();
    pair.heal();
    pair.step(Write { volume: 0, block: 0, count: 16 });
    pair.heal();
    for step in [
        Rot { node: 0, volume: 0, block: 9 },
        Read { volume: 0, block: 9, count: 1 },
        Write { volume: 0, block: 9, count: 1 },
        // The read finds the damage, then the write is carried out, on the other node as well.
        Store { node: 0, count: 2 },
        Deliver { node: 1, count: 1 },
        Store { node: 1, count: 1 },
        // The answer to the request for the block comes after this.
        Rot { node: 1, volume: 0, block: 9 },
    ] {
        pair.step(step);
    }
    pair.heal();
    assert_eq!((pair.lost.len(), pair.failed_reads), (0, 0));
}

/// The daemon of a lone node ends and opens its pool again: until then a guest waits, and gets no error.
#[test]
fn a_read_waits_while_the_pool_of_a_lone_node_has_failed() {
    let mut pair = with_a_survivor();
    pair.step(LinkDown);
    pair.step(Fail { node: 0 });
    pair.step(Read { volume: 0, block: 0, count: 1 });
    pair.step(Write { volume: 0, block: 9, count: 1 });
    for _ in 0..50 {
        pair.step(Store { node: 0, count: 9 });
        pair.step(Tick { millis: 100 });
    }
    assert_eq!(pair.open_requests(), 2);
}

/// The peer has lost power and with it an acknowledged write, of which this node cannot read a block.
#[test]
fn a_reconciliation_takes_no_block_of_a_replica_that_misses_writes() {
    let mut pair = Pair::new();
    pair.heal();
    pair.step(Write { volume: 0, block: 0, count: 16 });
    pair.heal();
    pair.step(Write { volume: 0, block: 5, count: 1 });
    // Without ticks: the background confirmations would make the write durable.
    for node in (0..16).map(|step| step % 2) {
        pair.step(Store { node, count: 50 });
        pair.step(Deliver { node, count: 50 });
    }
    assert_eq!(pair.open_requests(), 0);
    pair.step(Power { node: 1, keep: 0 });
    pair.rot_anywhere(0, VOLUME, [5]);
    pair.heal();
    assert_eq!(pair.lost, [(VOLUME, ExtentIndex(0), LostReason::PeerOutOfDate)]);
    assert_eq!(pair.unreadable_blocks(VOLUME), [[5], [5]]);
    assert!(read_fails(&mut pair));
}

/// The store has met the damage of a block that no guest reads. The session may end at each step of the repair.
#[test]
fn reported_damage_is_repaired_on_either_node_also_over_sessions() {
    for (node, steps) in (0..2).flat_map(|node| (0..10).map(move |steps| (node, steps))) {
        let mut pair = Pair::new();
        pair.heal();
        pair.step(Write { volume: 0, block: 0, count: 16 });
        pair.heal();
        pair.rot_anywhere(node, VOLUME, [5, 9]);
        pair.step(Damaged { node, volume: 0, block: 5 });
        pair.step(Tick { millis: 100 });
        for step in 0..steps {
            pair.step(if step % 2 == 0 {
                Store { node: step / 2 % 2, count: 1 }
            } else {
                Deliver { node: step / 2 % 2, count: 1 }
            });
        }
        pair.step(LinkDown);
        pair.step(LinkUp);
        run(&mut pair, 20);
        assert_eq!(pair.unreadable_blocks(VOLUME), [vec![], vec![]], "node {node}, {steps} steps");
        assert_eq!(pair.lost, []);
    }
}

#[test]
fn reported_damage_that_neither_node_can_repair_is_lost_and_told_once() {
    let mut pair = Pair::new();
    pair.heal();
    pair.step(Write { volume: 0, block: 0, count: 16 });
    pair.heal();
    pair.rot_anywhere(0, VOLUME, [5]);
    pair.rot_anywhere(1, VOLUME, [5]);
    pair.step(Damaged { node: 0, volume: 0, block: 5 });
    run(&mut pair, 50);
    assert_eq!(pair.lost, [(VOLUME, ExtentIndex(0), LostReason::UnreadableOnBoth)]);
}
