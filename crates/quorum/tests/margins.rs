//! The bounds of leases, fences and the watchdog, each at its edge.

mod pair;

use dyad_quorum::mutants::Mutants;
use dyad_quorum::{AcceptorRecord, Event, MS, Nanos, SEC, Timing};
use dyad_types::NodeId;
use pair::Pair;
use pair::fixtures::*;

const A: NodeId = NodeId::A;
const B: NodeId = NodeId::B;
/// The time that the kernel takes to freeze the VMs, and that of a message.
const FREEZE_DELAY: Nanos = 25 * MS;

/// Cuts A off from its peer and from the witness.
fn isolate_a(pair: &mut Pair) {
    pair.cut_all(true);
    pair.reaches_witness[0] = false;
}

/// The grantor counts from the heartbeat that it answers: a grant that lay in a queue is worth less.
#[test]
fn a_lease_counts_from_the_heartbeat_also_if_its_grant_is_read_late() {
    let protected = Pair::protected(500);
    // The daemon is stopped at each moment between two heartbeats: at some of them a grant is on its way.
    for step in 0..200 {
        let mut pair = protected.clone();
        pair.run(step * MS / 2);
        let stopped = pair.now;
        pair.stop_core(A);
        // Shorter than D: the peer does not remove the node.
        pair.run(250 * MS);
        isolate_a(&mut pair);
        pair.continue_core(A);
        pair.run(stopped + pair.timing.lease_period + FREEZE_DELAY - pair.now);
        assert!(!pair.nodes[0].executes(0), "{}", pair.describe());
    }
}

/// A node that is asleep at the end of its lease freezes its VMs too late.
#[test]
fn a_node_wakes_up_at_the_end_of_its_lease() {
    for timing in [Timing::standard(), Timing::fast()] {
        let mut pair = Pair::protected_with(510, timing, Mutants::NONE);
        isolate_a(&mut pair);
        let mut held = true;
        for _ in 0..800 {
            let core = pair.nodes[0].quorum();
            let clock = pair.nodes[0].clock(pair.now);
            held = core.may_run(clock);
            if held {
                let wake = core.next_wakeup().max(clock + 1);
                assert!(core.may_run(wake - 1), "the lease ends before the node wakes up");
            }
            pair.run(5 * MS);
        }
        assert!(!held, "the lease ended");
    }
}

/// The watchdog is what stops VMs that the kernel does not kill.
#[test]
fn no_watchdog_is_fed_while_a_kill_is_not_confirmed() {
    let mut looked_at = 0;
    for seed in 0..20 {
        let mut pair = Pair::protected(520 + seed);
        pair.cut_all(true);
        pair.until("B kills", 5, |pair| pair.nodes[1].kills == 1);
        let machine = &pair.nodes[1];
        if machine.executes(1) {
            assert!(!machine.quorum().may_feed_watchdog(machine.clock(pair.now)), "{}", pair.describe());
            looked_at += 1;
        }
    }
    assert!(looked_at > 0, "the VMs were frozen before each kill");
}

/// A new store at the place of the peer says nothing of the machine that it replaces, which may still run.
#[test]
fn a_new_store_ends_no_fence_of_the_machine_before_it() {
    for seed in 0..10 {
        let mut pair = Pair::protected(540 + seed);
        pair.power_off(B);
        let lost = pair.now;
        pair.nodes[1].disk.record = AcceptorRecord::fresh(999);
        pair.power_on(B);
        pair.until("B's VM runs on A", 20, |pair| pair.node_of(1) == Some(A));
        let (waited, fence) = (pair.now - lost, pair.timing.fence_period());
        assert!(waited >= fence - SEC / 2, "B's VM starts after {waited} ns, the fence lasts {fence} ns");
    }
}

/// Nor does it say that the watchdog of that machine works.
#[test]
fn a_new_store_does_not_prove_the_watchdog_of_the_machine_before_it() {
    let mut pair = Pair::protected(560);
    pair.send_event(B, Event::WatchdogProven(false));
    pair.run(SEC);
    pair.power_off(B);
    pair.nodes[1].disk.record = AcceptorRecord::fresh(999);
    pair.power_on(B);
    pair.run(60 * SEC);
    assert!(pair.has_shape("S(A)"), "{}", pair.describe());
    assert_eq!(pair.node_of(1), None, "{}", pair.describe());
    assert_eq!(kills(&pair)[0], 0);
}
