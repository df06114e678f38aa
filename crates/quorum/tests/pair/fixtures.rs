//! Start states and observations shared by the rows of the fault table.

use dyad_quorum::{MS, Nanos, Note, RunState, SEC};
use dyad_types::NodeId;

use super::Pair;

const A: NodeId = NodeId::A;
const B: NodeId = NodeId::B;

/// D + one round trip to the witness + the delays of the simulated disks and network.
pub const DECISION_TIMEOUT: Nanos = 800 * MS;

/// Runs the pair for `length`, and returns the longest time in which the VM did not execute.
pub fn longest_pause(pair: &mut Pair, vm: usize, length: Nanos) -> Nanos {
    let end = pair.now + length;
    let (mut since, mut longest) = (pair.now, 0);
    while pair.now < end {
        pair.run(5 * MS);
        if pair.node_of(vm).is_some() {
            since = pair.now;
        }
        longest = longest.max(pair.now - since);
    }
    longest
}

/// Time of the node's newest timeline entry that `wanted` selects.
pub fn time_of_note(pair: &Pair, node: NodeId, wanted: impl Fn(&Note) -> bool) -> Option<Nanos> {
    pair.nodes[node.index()].notes.iter().rev().find(|(_, note)| wanted(note)).map(|(at, _)| *at)
}

pub fn run_state(pair: &Pair, node: NodeId) -> RunState {
    pair.nodes[node.index()].quorum().run_state()
}

/// By node: the number of times it killed its VMs.
pub fn kills(pair: &Pair) -> [u64; 2] {
    [pair.nodes[0].kills, pair.nodes[1].kills]
}

/// A pair in state D(A): both nodes in sync, the tie at A, the witness away.
pub fn with_tie_at_a(seed: u64) -> Pair {
    let mut pair = Pair::protected(seed);
    pair.witness_up = false;
    pair.until("the tie is delegated", 60, |pair| pair.has_shape("D(A)"));
    pair.run(SEC);
    pair
}

/// A pair in state S(A): A alone in sync, B without power.
pub fn with_a_solo(seed: u64) -> Pair {
    let mut pair = Pair::protected(seed);
    pair.power_off(B);
    pair.until("solo", 5, |pair| pair.has_shape("S(A)"));
    pair.until("all VMs", 10, |pair| pair.node_of(1) == Some(A));
    pair.run(5 * SEC);
    pair
}
