//! Checks the rules exhaustively within bounds: stateright steps the shipped acceptor, proposer and rules.
//!
//! Two nodes, a witness, one VM. Messages are lost, repeated and late; nodes lose power; daemons restart under a
//! running VM; leases, grants and fences are flags without a time, and each may end at any step that the order of F and
//! F′ allows. I1 to I5 are checked in every state. Each planted bug must be found.
//!
//! `DYAD_MODEL_EPOCHS=4 DYAD_MODEL_STATES=40000000 cargo test --release -p dyad-quorum --test model -- --nocapture`
//! searches further than an ordinary run, which takes seconds.

#[path = "model_parts/pair.rs"]
mod pair;

use dyad_quorum::Acceptor;
use dyad_quorum::mutants::{Mutant, Mutants};
use dyad_types::NodeId;
use pair::{Change, PairModel, Step};
use stateright::{Checker, Model};

/// A bound of the search from the environment variable `name`.
fn from_environment(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

fn threads() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

#[test]
fn no_state_within_the_bounds_breaks_an_invariant() {
    let epochs = from_environment("DYAD_MODEL_EPOCHS", 3);
    let states = from_environment("DYAD_MODEL_STATES", 60_000) as usize;
    let model = PairModel { epochs, ..PairModel::default() };
    let checker = model.checker().threads(threads()).target_state_count(states).spawn_bfs().join();
    println!(
        "{} states, {} unique, depth {}",
        checker.state_count(),
        checker.unique_state_count(),
        checker.max_depth()
    );
    checker.assert_properties();
    assert!(checker.unique_state_count() >= states.min(10_000) / 2, "the search must visit many states");
}

#[test]
fn no_long_random_walk_breaks_an_invariant() {
    // A breadth-first search does not reach the third epoch within seconds; random walks do.
    let walks = from_environment("DYAD_MODEL_WALKS", 200_000) as usize;
    let model = PairModel { epochs: from_environment("DYAD_MODEL_EPOCHS", 4), ..PairModel::default() };
    assert_eq!(pair::random_walk(&model, 1, walks), None);
}

/// Asserts that random walks over the model find the bug. The seed makes the walks the same in every run.
fn assert_finds(model: PairModel) {
    let found = pair::random_walk(&model, 7, 3_000_000);
    assert!(found.is_some(), "{model:?} was not found");
    println!("{model:?}\n{}", found.unwrap_or_default());
}

fn planted(mutant: Mutant) -> PairModel {
    PairModel { epochs: 4, mutants: Mutants::plant(mutant), ..PairModel::default() }
}

#[test]
fn a_missing_fence_wait_is_found() {
    assert_finds(planted(Mutant::NoFenceWait));
}

#[test]
fn a_solo_acknowledgement_before_the_removal_is_chosen_is_found() {
    assert_finds(planted(Mutant::SoloAckEarly));
}

#[test]
fn a_missing_grace_after_a_restart_is_found() {
    assert_finds(planted(Mutant::NoGrace));
}

#[test]
fn acting_before_a_configuration_is_chosen_is_found() {
    assert_finds(planted(Mutant::ActBeforeChosen));
}

#[test]
fn a_witness_that_loses_its_record_is_found() {
    assert_finds(PairModel { epochs: 4, witness_forgets: true, ..PairModel::default() });
}

/// Steps after which A holds the tie and runs its VM without a lease, so that R1 and D2 matter.
const TIE_AT_A: [Step; 5] = [
    Step::Propose(NodeId::A, Change::Tie(Acceptor::A), Acceptor::W),
    Step::Deliver(NodeId::A, false, false),
    Step::Conclude(NodeId::A),
    Step::SendBase(Acceptor::A, Acceptor::B),
    Step::Start(NodeId::A),
];

/// Visits all states that follow [`TIE_AT_A`] without a fault: only decisions overlap. Returns the path to a broken
/// invariant.
fn all_fault_free_states(mutants: Mutants) -> Option<String> {
    let model =
        PairModel { epochs: 3, rounds: 2, mutants, fault_free: true, prefix: &TIE_AT_A, ..PairModel::default() };
    let checker = model.checker().threads(threads()).spawn_bfs().join();
    println!("{mutants:?}: {} states, depth {}", checker.unique_state_count(), checker.max_depth());
    checker.discovery("I1 to I5").map(|path| path.to_string())
}

#[test]
fn all_fault_free_states_keep_the_invariants() {
    assert_eq!(all_fault_free_states(Mutants::NONE), None);
}

#[test]
fn a_missing_r1_is_found() {
    assert!(all_fault_free_states(Mutants::plant(Mutant::NoR1)).is_some());
}

#[test]
fn a_missing_d2_is_found() {
    assert!(all_fault_free_states(Mutants::plant(Mutant::NoD2)).is_some());
}
