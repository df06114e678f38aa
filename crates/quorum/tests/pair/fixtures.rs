//! Start states and observations shared by the rows of the fault table.

use dyad_quorum::{MS, Nanos, Note, RunState, SEC};
use dyad_types::NodeId;

use super::Pair;

const A: NodeId = NodeId::A;
const B: NodeId = NodeId::B;

/// D + one round trip to the witness + what the simulated disks and network take.
pub const DECISION_TIMEOUT: Nanos = 800 * MS;

/// Longest time a VM did not execute while `run` ran.
pub fn longest_pause(pair: &mut Pair, vm: usize, length: Nanos) -> Nanos {
    let end = pair.now + length;
    let (mut since, mut longest) = (pair.now, 0);
    while pair.now < end {
        pair.run(5 * MS);
        if pair.runner(vm).is_some() {
            since = pair.now;
        }
        longest = longest.max(pair.now - since);
    }
    longest
}

/// When a node last wrote a note that `wanted` selects.
pub fn noted(pair: &Pair, node: NodeId, wanted: impl Fn(&Note) -> bool) -> Option<Nanos> {
    pair.nodes[node.index()].notes.iter().rev().find(|(_, note)| wanted(note)).map(|(at, _)| *at)
}

pub fn run_state(pair: &Pair, node: NodeId) -> RunState {
    pair.nodes[node.index()].q().run_state()
}

/// How often each node killed its VMs.
pub fn kills(pair: &Pair) -> [u64; 2] {
    [pair.nodes[0].kills, pair.nodes[1].kills]
}

/// D(A), the witness away.
pub fn delegated(seed: u64) -> Pair {
    let mut pair = Pair::protected(seed);
    pair.witness_up = false;
    pair.until("the tie is delegated", 60, |pair| pair.is("D(A)"));
    pair.run(SEC);
    pair
}

/// S(A), B without power.
pub fn solo(seed: u64) -> Pair {
    let mut pair = Pair::protected(seed);
    pair.power_off(B);
    pair.until("solo", 5, |pair| pair.is("S(A)"));
    pair.until("all VMs", 10, |pair| pair.runner(1) == Some(A));
    pair.run(5 * SEC);
    pair
}
