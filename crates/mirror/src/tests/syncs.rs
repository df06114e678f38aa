//! The syncs that flushes, confirmations and the end of a resync wait for.

use super::clocks::{WRITE, run, steady};
use super::pair::{Pair, Step::*};
use crate::Phase;

/// Both nodes work and exchange messages, but no sync is answered.
fn exchange_without_syncs(pair: &mut Pair) {
    for _ in 0..20 {
        for node in 0..2 {
            pair.store_without_syncs(node);
            pair.step(Deliver { node, count: 50 });
        }
    }
}

/// Node 0 is the only member. All extents are copied to node 1, and both stores owe the last sync of the resync.
fn at_the_last_syncs() -> Pair {
    let mut pair = steady();
    pair.step(Remove { node: 1 });
    pair.step(Learn { node: 1 });
    pair.step(WRITE);
    exchange_without_syncs(&mut pair);
    assert_eq!([pair.open_syncs(0), pair.open_syncs(1)], [1, 1]);
    assert_eq!(pair.open_requests(), 0, "the write is complete");
    pair
}

/// The end of the resync confirms the copied extents: if the source could still lose them, no reconciliation would compare
/// them.
#[test]
fn the_peer_is_clean_when_both_stores_have_synced() {
    for last in 0..2 {
        let mut pair = at_the_last_syncs();
        pair.step(Store { node: 1 - last, count: 1 });
        exchange_without_syncs(&mut pair);
        assert!(!pair.clean(0), "the sync of node {last} is missing");
        pair.step(Store { node: last, count: 1 });
        exchange_without_syncs(&mut pair);
        assert!(pair.clean(0));
    }
}

/// A sync covers the commands that were done before it was given, so not the writes of a later session.
#[test]
fn a_sync_of_an_earlier_session_makes_no_peer_clean() {
    let mut pair = at_the_last_syncs();
    pair.step(Store { node: 1, count: 1 });
    pair.step(LinkDown);
    pair.step(LinkUp);
    pair.step(WRITE);
    exchange_without_syncs(&mut pair);
    assert_eq!(
        [pair.open_syncs(0), pair.open_syncs(1)],
        [2, 1],
        "node 0 has not answered the sync of the first session"
    );
    for node in [1, 0] {
        pair.step(Store { node, count: 1 });
        exchange_without_syncs(&mut pair);
        assert!(!pair.clean(0), "the second sync of node 0 is missing");
    }
    pair.step(Store { node: 0, count: 1 });
    assert!(pair.clean(0));
}

/// The configuration that admits the peer may be chosen before this node learns of it. The peer may then continue alone.
#[test]
fn a_flush_waits_for_a_peer_that_is_about_to_be_a_member() {
    let mut pair = at_the_last_syncs();
    run(&mut pair, 5);
    assert!(pair.clean(0));
    for request in [WRITE, Flush { volume: 0 }] {
        pair.step(request);
        run(&mut pair, 5);
        assert_eq!(pair.open_requests(), 0);
    }
    // The first step asks for the admission, the second one is its choice.
    pair.step(Readd);
    pair.step(Readd);
    pair.step(Power { node: 1, keep: 0 });
    pair.step(Start { node: 1 });
    pair.step(Remove { node: 0 });
    pair.step(Kill { node: 0 });
    pair.step(Read { volume: 0, block: 0, count: 1 });
    run(&mut pair, 5);
    assert_eq!(pair.open_requests(), 0, "the read was answered, with the flushed data");
}

/// A write that waits for space at its writer is not in that store, whatever its flushes have synced.
#[test]
fn a_confirmation_leaves_a_write_in_flight_out() {
    let mut pair = steady();
    pair.step(WRITE);
    exchange_without_syncs(&mut pair);
    pair.step(Full { node: 0, full: true });
    pair.step(Write { volume: 0, block: 32, count: 1 });
    pair.step(Flush { volume: 0 });
    run(&mut pair, 5);
    assert_eq!(pair.open_requests(), 1, "the first write and the flush are answered");
    pair.step(Kill { node: 0 });
    pair.heal();
    pair.check_replicas();
}

/// The peer's store may carry out the sync that ends a resync before a write that waits for space.
#[test]
fn the_last_syncs_wait_for_each_write_that_the_peer_was_sent() {
    let mut pair = steady();
    pair.step(Remove { node: 1 });
    pair.step(WRITE);
    exchange_without_syncs(&mut pair);
    pair.step(Learn { node: 1 });
    for node in [0, 0, 1, 0] {
        pair.store_without_syncs(node);
        pair.step(Deliver { node: 1 - node, count: 50 });
    }
    assert_eq!(pair.phase(0), Some(Phase::Source));
    // Far from the extent that is copied.
    pair.step(Write { volume: 0, block: 64, count: 1 });
    pair.store_without_syncs(0);
    pair.step(Deliver { node: 1, count: 50 });
    pair.step(Store { node: 1, count: 1 });
    pair.step(Full { node: 1, full: true });
    exchange_without_syncs(&mut pair);
    assert_eq!(pair.open_syncs(0), 0, "the write waits for space at node 1");
    pair.step(Full { node: 1, full: false });
    exchange_without_syncs(&mut pair);
    assert_eq!([pair.open_syncs(0), pair.open_syncs(1)], [1, 1]);
}

/// The copies of the second reconciliation are not covered by the sync of the first one.
#[test]
fn a_sync_of_an_earlier_session_ends_no_reconciliation() {
    let mut pair = steady();
    for _ in 0..2 {
        pair.step(LinkDown);
        pair.step(LinkUp);
        exchange_without_syncs(&mut pair);
    }
    assert_eq!([pair.open_syncs(0), pair.open_syncs(1)], [2, 2]);
    for node in [1, 1, 0] {
        pair.step(Store { node, count: 1 });
        exchange_without_syncs(&mut pair);
        assert_eq!(pair.phase(0), Some(Phase::Reconcile), "the second sync of node 0 is missing");
    }
    pair.step(Store { node: 0, count: 1 });
    exchange_without_syncs(&mut pair);
    assert_eq!([pair.phase(0), pair.phase(1)], [Some(Phase::Steady); 2]);
}

/// The begin of a session cancels a round. The next one has a flush more, for a write that came after the first sync.
#[test]
fn a_sync_of_an_earlier_round_answers_no_flush() {
    let mut pair = steady();
    pair.step(LinkDown);
    pair.step(Remove { node: 1 });
    pair.step(Flush { volume: 0 });
    pair.step(WRITE);
    exchange_without_syncs(&mut pair);
    pair.step(Flush { volume: 0 });
    assert_eq!((pair.open_syncs(0), pair.open_requests()), (1, 2), "the write is complete");
    pair.step(LinkUp);
    pair.store_without_syncs(0);
    assert_eq!(pair.open_syncs(0), 2);
    pair.step(Store { node: 0, count: 1 });
    assert_eq!(pair.open_requests(), 2, "the sync of the second round is missing");
    pair.step(Store { node: 0, count: 1 });
    assert_eq!(pair.open_requests(), 0);
}
