//! Random schedules of faults on a simulated pair. The oracle checks I1 to I5 after every event. After the end of all
//! faults both nodes must become members and run their VMs without an operator.
//!
//! `DYAD_CHAOS_SEEDS=n` runs n seeds instead of 25.

mod pair;

use dyad_quorum::mutants::{Mutant, Mutants};
use dyad_quorum::{Event, MS, Nanos, SEC, Timing};
use dyad_testkit::Prng;
use dyad_types::NodeId;
use pair::Pair;
use proptest::prelude::*;

/// One step of a schedule: a fault, or its end.
#[derive(Clone, Copy, Debug)]
enum Fault {
    PowerOff(NodeId),
    PowerOn(NodeId),
    /// The daemon is killed and restarted at once; VMs go on.
    RestartCore(NodeId),
    /// SIGSTOP to the daemon.
    StopCore(NodeId),
    /// SIGCONT to the daemon.
    ContinueCore(NodeId),
    /// All paths between the nodes are cut (`true`) or restored.
    CutAll(bool),
    /// One path between the nodes is cut (`true`) or restored.
    Cut(usize, bool),
    /// All datagrams from this node to the other are lost (`true`) or arrive again.
    CutOneWay(NodeId, bool),
    /// Whether the witness is reachable from this node.
    WitnessReachable(NodeId, bool),
    /// Whether the witness runs.
    WitnessUp(bool),
    /// Round-trip time to the witness in milliseconds.
    WitnessRoundTrip(u64),
    /// Lost replies of the witness, of a thousand.
    WitnessLoss(u64),
    /// Lost datagrams between the nodes, of a thousand.
    Loss(u64),
    /// The pool of this node does not answer (`true`) or answers again.
    StorageStuck(NodeId, bool),
    /// The mirror of this node reports that its peer is stuck.
    PeerStuck(NodeId),
}

fn apply_fault(pair: &mut Pair, fault: Fault) {
    match fault {
        Fault::PowerOff(node) => pair.power_off(node),
        Fault::PowerOn(node) => pair.power_on(node),
        Fault::RestartCore(node) => pair.restart_core(node),
        Fault::StopCore(node) if pair.nodes[node.index()].up => pair.stop_core(node),
        Fault::ContinueCore(node) if pair.nodes[node.index()].stopped => pair.continue_core(node),
        Fault::StopCore(_) | Fault::ContinueCore(_) => {}
        Fault::CutAll(cut) => pair.cut_all(cut),
        Fault::Cut(path, cut) => pair.cut(path, cut),
        Fault::CutOneWay(from, cut) => {
            for path in 0..2 {
                pair.links[path][from.index()].cut = cut;
            }
        }
        Fault::WitnessReachable(node, reachable) => pair.reaches_witness[node.index()] = reachable,
        Fault::WitnessUp(up) => pair.witness_up = up,
        Fault::WitnessRoundTrip(rtt_ms) => pair.witness_rtt = rtt_ms * MS,
        Fault::WitnessLoss(parts) => pair.witness_loss = parts,
        Fault::Loss(parts) => {
            for link in pair.links.iter_mut().flatten() {
                link.loss = parts;
            }
        }
        Fault::StorageStuck(node, stuck) => {
            pair.send_event(node, if stuck { Event::StorageStuck } else { Event::StorageAnswers });
        }
        Fault::PeerStuck(node) => {
            // A mirror that calls the target of a resync stuck ends the session and begins again.
            pair.nodes[node.index()].resyncing = false;
            pair.send_event(node, Event::PeerStuck);
        }
    }
}

/// Restores power, daemons, paths and the witness.
fn end_all_faults(pair: &mut Pair) {
    pair.cut_all(false);
    for fault in [Fault::Loss(0), Fault::WitnessUp(true), Fault::WitnessRoundTrip(50), Fault::WitnessLoss(0)] {
        apply_fault(pair, fault);
    }
    for node in [NodeId::A, NodeId::B] {
        apply_fault(pair, Fault::WitnessReachable(node, true));
        apply_fault(pair, Fault::ContinueCore(node));
        apply_fault(pair, Fault::StorageStuck(node, false));
        pair.power_on(node);
    }
}

/// A time profile whose delays are short where safety does not depend on them, so that one run has many epochs.
fn short_timing() -> Timing {
    Timing {
        readmission_delay: 2 * SEC,
        flapping_readmission_delay: 2 * SEC,
        tie_delegation_delay: 3 * SEC,
        tie_return_delay: 3 * SEC,
        tie_return_interval: 5 * SEC,
        ..Timing::default()
    }
}

fn random_fault(prng: &mut Prng) -> Fault {
    let node = if prng.chance(500) { NodeId::A } else { NodeId::B };
    match prng.below(19) {
        0 => Fault::PowerOff(node),
        1..=3 => Fault::PowerOn(node),
        4 => Fault::RestartCore(node),
        5 => Fault::StopCore(node),
        6 => Fault::ContinueCore(node),
        7 => Fault::CutAll(true),
        8 => Fault::CutAll(false),
        9 => Fault::Cut(prng.below(2) as usize, prng.chance(500)),
        10 => Fault::CutOneWay(node, prng.chance(600)),
        11 => Fault::WitnessReachable(node, prng.chance(500)),
        12 => Fault::WitnessUp(prng.chance(500)),
        13 => Fault::WitnessRoundTrip([10, 50, 500, 1500][prng.below(4) as usize]),
        14 => Fault::WitnessLoss([0, 0, 300, 800][prng.below(4) as usize]),
        15 => Fault::Loss([0, 0, 100, 400][prng.below(4) as usize]),
        16 | 17 => Fault::StorageStuck(node, prng.chance(500)),
        _ => Fault::PeerStuck(node),
    }
}

/// Runs one seed: 40 steps of a random schedule, then the end of all faults. Returns the violation of an invariant, if
/// any.
fn violation_of_seed(seed: u64, mutants: Mutants) -> Option<String> {
    let mut pair = Pair::protected_with(seed, short_timing(), mutants);
    let mut prng = Prng::new(seed ^ 0xC4A0);
    for _ in 0..40 {
        apply_fault(&mut pair, random_fault(&mut prng));
        let pause: Nanos = match prng.below(4) {
            0 => prng.below(60),
            1 => prng.below(900),
            2 => prng.below(4000),
            _ => prng.below(12_000),
        };
        pair.run(pause * MS);
        if pair.violation.is_some() {
            return pair.violation;
        }
    }
    end_all_faults(&mut pair);
    if mutants == Mutants::NONE {
        pair.until("healed", 180, |pair| {
            pair.has_shape("D(W)") && pair.node_of(0).is_some() && pair.node_of(1).is_some()
        });
        pair.run(10 * SEC);
    }
    pair.violation
}

#[test]
fn random_faults_break_no_invariant_and_the_pair_heals() {
    let seeds = std::env::var("DYAD_CHAOS_SEEDS").ok().and_then(|text| text.parse().ok()).unwrap_or(25);
    for seed in 0..seeds {
        if let Some(violation) = violation_of_seed(seed, Mutants::NONE) {
            panic!("seed {seed}: {violation}");
        }
    }
}

fn assert_found_within(mutant: Mutant, seeds: u64) {
    let found = (0..seeds).find(|seed| violation_of_seed(*seed, Mutants::plant(mutant)).is_some());
    assert!(found.is_some(), "{mutant:?} was not found within {seeds} seeds");
}

#[test]
fn without_the_fence_wait_a_vm_runs_twice() {
    assert_found_within(Mutant::NoFenceWait, 40);
}

#[test]
fn without_grace_after_a_restart_a_vm_runs_twice() {
    assert_found_within(Mutant::NoGrace, 400);
}

#[test]
fn acting_before_a_configuration_is_chosen_breaks_an_invariant() {
    assert_found_within(Mutant::ActBeforeChosen, 40);
}

#[test]
fn acknowledging_solo_before_the_removal_is_chosen_breaks_an_invariant() {
    assert_found_within(Mutant::SoloAckEarly, 200);
}

fn any_node() -> impl Strategy<Value = NodeId> {
    prop_oneof![Just(NodeId::A), Just(NodeId::B)]
}

fn any_fault() -> impl Strategy<Value = Fault> {
    prop_oneof![
        any_node().prop_map(Fault::PowerOff),
        any_node().prop_map(Fault::PowerOn),
        any_node().prop_map(Fault::RestartCore),
        any_node().prop_map(Fault::StopCore),
        any_node().prop_map(Fault::ContinueCore),
        any::<bool>().prop_map(Fault::CutAll),
        (0..2_usize, any::<bool>()).prop_map(|(path, cut)| Fault::Cut(path, cut)),
        (any_node(), any::<bool>()).prop_map(|(node, cut)| Fault::CutOneWay(node, cut)),
        (any_node(), any::<bool>()).prop_map(|(node, reachable)| Fault::WitnessReachable(node, reachable)),
        any::<bool>().prop_map(Fault::WitnessUp),
        (10..2000_u64).prop_map(Fault::WitnessRoundTrip),
        (0..900_u64).prop_map(Fault::WitnessLoss),
        (0..500_u64).prop_map(Fault::Loss),
        (any_node(), any::<bool>()).prop_map(|(node, stuck)| Fault::StorageStuck(node, stuck)),
        any_node().prop_map(Fault::PeerStuck),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 12, max_shrink_iters: 200, ..ProptestConfig::default() })]

    /// Schedules that proptest draws: it reports a failure as the shortest schedule that it finds.
    #[test]
    fn no_drawn_schedule_breaks_an_invariant(
        seed in any::<u64>(),
        schedule in prop::collection::vec((any_fault(), 0..8000_u64), 1..25),
    ) {
        let mut pair = Pair::protected_with(seed, short_timing(), Mutants::NONE);
        for (fault, pause) in schedule {
            apply_fault(&mut pair, fault);
            pair.run(pause * MS);
        }
        prop_assert_eq!(&pair.violation, &None);
    }
}
