//! Where a node stands, for the one sentence a person reads.

use serde::{Deserialize, Serialize};

use crate::types::{Acceptor, Time};
use dyad_types::NodeId;

/// Why this node can or cannot run VMs. Derived from epoch, leases and reachability together, never from one alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum RunState {
    /// No pair was set up on this node.
    NotSetUp,
    /// This store was never admitted, or was replaced: it has no vote until the peer admits it.
    UnadmittedStore,
    /// The register of this node cannot be written: it votes no more and hands over.
    RegisterFailed,
    /// A planned leave is under way.
    Leaving,
    /// Both replicas are in sync and this node may run VMs.
    InSync {
        /// Who holds the tie vote.
        tie: Acceptor,
        /// The peer is heard in both directions.
        peer_alive: bool,
        /// The witness answers this node or its peer.
        witness_alive: bool,
    },
    /// In sync, but without the right to run: VMs pause until one of the named votes comes.
    Paused {
        /// What would help.
        needs: Need,
    },
    /// This node alone is in sync and runs VMs.
    Solo {
        /// Whether VMs of the peer may run here.
        fence: Fence,
        /// The peer is heard in both directions, for example while it resyncs.
        peer_alive: bool,
    },
    /// This node is out of sync: the other one holds newer data.
    OutOfSync {
        /// Who holds the newest data.
        holder: NodeId,
        /// It is heard, so a resync can run.
        holder_alive: bool,
    },
}

/// Which vote is missing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Need {
    /// The peer or the witness.
    PeerOrWitness,
    /// Only this node can help: it holds the tie.
    Node(NodeId),
    /// An answer is on its way: the peer is alive, or the witness was just asked.
    Moment,
}

/// Whether the VMs of a removed peer may run here.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Fence {
    /// The peer surely runs nothing.
    Over,
    /// It may run something until this time.
    Until(Time),
    /// Its watchdog is not proven: only proof of death helps.
    NeedsProof,
}
