//! Sequences of steps that once broke a guarantee.

use super::pair::{Pair, Step::*};

fn run(steps: impl IntoIterator<Item = super::pair::Step>) -> Pair {
    let mut pair = Pair::new();
    for step in steps {
        pair.step(step);
    }
    pair.heal();
    pair.check_replicas();
    pair
}

/// A creation queued behind a copy that waited for space was dropped with the session, although the table in memory
/// had it.
#[test]
fn a_creation_survives_the_end_of_its_session() {
    run([
        Kill { node: 0 },
        Full { node: 1, full: true },
        Start { node: 0 },
        Create,
        Write { volume: 0, block: 0, count: 1 },
        Remove { node: 1 },
        Write { volume: 0, block: 0, count: 1 },
        Write { volume: 0, block: 16, count: 1 },
        Learn { node: 1 },
        LinkUp,
        Store { node: 1, count: 4 },
        Deliver { node: 0, count: 2 },
        Store { node: 0, count: 6 },
        Deliver { node: 1, count: 3 },
        Store { node: 1, count: 1 },
        Store { node: 0, count: 3 },
        Deliver { node: 1, count: 2 },
        Kill { node: 0 },
    ]);
}

/// A creation was in flight at the store when its node was removed; the table in memory lacked it.
#[test]
fn a_creation_in_flight_at_a_removal_is_not_forgotten() {
    run([
        Create,
        Store { node: 0, count: 2 },
        Store { node: 1, count: 2 },
        Deliver { node: 1, count: 2 },
        Deliver { node: 0, count: 3 },
        Store { node: 0, count: 1 },
        Deliver { node: 1, count: 1 },
        Store { node: 1, count: 1 },
        Deliver { node: 0, count: 1 },
        Write { volume: 0, block: 0, count: 1 },
        Remove { node: 0 },
    ]);
}

/// A copy was read while a write to its extent waited for space: the write was in no copy and was never sent.
#[test]
fn a_copy_waits_for_the_writes_in_flight_to_its_extent() {
    run([
        Remove { node: 0 },
        Write { volume: 0, block: 0, count: 1 },
        LinkUp,
        Full { node: 1, full: true },
        Store { node: 0, count: 2 },
        Deliver { node: 1, count: 2 },
        Store { node: 1, count: 8 },
    ]);
}

/// A write of the removed node waited for space at the survivor and was applied after the survivor's guests had read.
#[test]
fn a_write_of_an_older_epoch_that_waits_for_space_is_dropped() {
    run([
        Store { node: 0, count: 2 },
        Store { node: 1, count: 2 },
        Deliver { node: 0, count: 9 },
        Deliver { node: 1, count: 9 },
        Store { node: 0, count: 2 },
        Store { node: 1, count: 2 },
        Deliver { node: 0, count: 9 },
        Deliver { node: 1, count: 9 },
        Store { node: 0, count: 9 },
        Store { node: 1, count: 9 },
        Deliver { node: 0, count: 9 },
        Deliver { node: 1, count: 9 },
        Full { node: 0, full: true },
        Write { volume: 1, block: 0, count: 15 },
        Deliver { node: 0, count: 1 },
        Store { node: 0, count: 9 },
        Remove { node: 1 },
        Read { volume: 1, block: 0, count: 1 },
    ]);
}

/// A write made while both nodes were members waited for space when the peer was removed; the resync did not copy it.
#[test]
fn a_write_in_flight_before_the_session_is_part_of_the_resync() {
    run([
        Store { node: 1, count: 2 },
        Write { volume: 1, block: 0, count: 1 },
        Store { node: 0, count: 2 },
        Deliver { node: 0, count: 2 },
        Deliver { node: 1, count: 3 },
        Deliver { node: 0, count: 1 },
        Full { node: 1, full: true },
        Store { node: 0, count: 1 },
        Store { node: 1, count: 1 },
        Deliver { node: 1, count: 1 },
        Kill { node: 0 },
        Remove { node: 0 },
        Start { node: 0 },
        Store { node: 1, count: 1 },
        LinkUp,
        Store { node: 0, count: 2 },
        Deliver { node: 1, count: 2 },
        Store { node: 1, count: 2 },
    ]);
}

/// The link failed during a repair; the read was then requested as a whole from the peer, whose copy had another bad
/// block.
#[test]
fn each_copy_may_be_bad_in_another_block() {
    let mut pair = Pair::new();
    pair.heal();
    pair.step(Write { volume: 1, block: 8, count: 16 });
    pair.heal();
    for step in [
        Rot { node: 0, volume: 1, block: 15 },
        Rot { node: 1, volume: 1, block: 16 },
        Read { volume: 1, block: 12, count: 5 },
        LinkDown,
    ] {
        pair.step(step);
    }
    pair.heal();
    pair.check_replicas();
    assert_eq!(pair.healed, 1);
}

/// A creation ran only at the source's store while the tables were compared, and the target never received it. With two
/// members the volume counted as an unanswered creation and was deleted.
#[test]
fn a_creation_in_flight_when_a_resync_begins_reaches_the_target() {
    let pair = run([
        Remove { node: 1 },
        Learn { node: 1 },
        LinkDown,
        Tick { millis: 10 },
        LinkUp,
        Store { node: 0, count: 9 },
        Store { node: 1, count: 9 },
        Deliver { node: 1, count: 9 },
        Create,
        Deliver { node: 0, count: 9 },
        Store { node: 0, count: 9 },
    ]);
    assert_eq!(pair.tables()[0].len(), 3);
}

/// A copy was stored under the receiver's old stamp and was unconfirmed nowhere; its source then lost the original.
#[test]
fn a_copied_extent_is_unconfirmed_at_the_receiver() {
    run([
        Store { node: 0, count: 2 },
        Store { node: 1, count: 2 },
        Deliver { node: 1, count: 2 },
        Deliver { node: 0, count: 3 },
        Store { node: 0, count: 1 },
        Deliver { node: 1, count: 2 },
        Write { volume: 1, block: 0, count: 1 },
        Store { node: 1, count: 1 },
        Write { volume: 0, block: 0, count: 1 },
        Power { node: 0, keep: 0 },
        Start { node: 0 },
        LinkUp,
        Store { node: 0, count: 2 },
        Deliver { node: 1, count: 2 },
        Store { node: 1, count: 6 },
        Deliver { node: 0, count: 4 },
        Write { volume: 0, block: 0, count: 1 },
        Power { node: 1, keep: 0 },
    ]);
}

/// The peer answered a fetch although a write to the extent waited for space there; the repair overwrote that write.
#[test]
fn a_fetch_waits_for_the_writes_before_it() {
    let mut pair = Pair::new();
    pair.heal();
    for step in [
        Rot { node: 1, volume: 1, block: 76 },
        Full { node: 0, full: true },
        Read { volume: 1, block: 57, count: 20 },
        Write { volume: 1, block: 72, count: 5 },
        Store { node: 1, count: 1 },
        Deliver { node: 0, count: 2 },
        Store { node: 0, count: 1 },
    ] {
        pair.step(step);
    }
    pair.heal();
    pair.check_replicas();
}

/// When no request is open, both stores have no unconfirmed extents: the next reconciliation has nothing to copy.
#[test]
fn nothing_is_unconfirmed_when_no_request_is_open() {
    let pair = run([
        Store { node: 0, count: 9 },
        Write { volume: 0, block: 3, count: 30 },
        Kill { node: 1 },
        Write { volume: 0, block: 40, count: 3 },
        Start { node: 1 },
        LinkUp,
    ]);
    assert_eq!(pair.unconfirmed(), 0);
}

/// A read whose blocks go bad one after the other, here and on the peer, while it is repaired: each block is good on one
/// node, so the read succeeds. Found by `a_damaged_block_is_never_read`: after two repairs of the read it was answered from
/// the peer's copy alone, which had damage of its own.
#[test]
fn each_new_damage_during_a_repair_is_repaired() {
    let mut pair = Pair::new();
    pair.heal();
    for step in [
        Rot { node: 0, volume: 1, block: 40 },
        Read { volume: 1, block: 39, count: 22 },
        Rot { node: 1, volume: 1, block: 39 },
        Store { node: 1, count: 1 },
        Rot { node: 1, volume: 1, block: 41 },
        Deliver { node: 0, count: 1 },
        Store { node: 0, count: 1 },
        Deliver { node: 1, count: 1 },
        Store { node: 1, count: 2 },
        Rot { node: 1, volume: 1, block: 42 },
    ] {
        pair.step(step);
    }
    pair.heal();
}

/// After a flush either node may be lost.
#[test]
fn a_flush_is_answered_when_the_write_is_durable_on_the_other_node_as_well() {
    let mut pair = Pair::new();
    pair.heal();
    for request in [Write { volume: 0, block: 5, count: 1 }, Flush { volume: 0 }] {
        pair.step(request);
        super::clocks::run(&mut pair, 5);
        assert_eq!(pair.open_requests(), 0);
    }
    pair.step(Power { node: 1, keep: 0 });
    pair.step(Start { node: 1 });
    pair.step(Remove { node: 0 });
    pair.step(Kill { node: 0 });
    pair.step(Read { volume: 0, block: 5, count: 1 });
    for _ in 0..50 {
        pair.step(Store { node: 1, count: 50 });
        pair.step(Tick { millis: 100 });
    }
    assert_eq!(pair.open_requests(), 0, "the read was answered, with the flushed data");
}
