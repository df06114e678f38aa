//! The run state of a node: why it can or cannot run VMs. The status screen makes one sentence of it.

use serde::{Deserialize, Serialize};

use crate::types::{Acceptor, BootTime};
use dyad_types::NodeId;

/// The reason for which this node can or cannot run VMs, derived from configuration, leases and reachability together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum RunState {
    /// No pair was set up on this node.
    NotSetUp,
    /// The configuration does not admit this store: it is new or was replaced. It has no vote until it is admitted.
    UnadmittedStore,
    /// The register of this node cannot be written, or a write of it hangs: the node does not vote, and its peer
    /// removes it.
    RegisterFailed,
    /// A planned leave is under way.
    Leaving,
    /// Both replicas are in sync and this node may run VMs.
    InSync {
        /// Holder of the tie vote.
        tie: Acceptor,
        /// Heartbeats pass in both directions on at least one path.
        peer_alive: bool,
        /// The witness answers this node or its peer.
        witness_alive: bool,
    },
    /// In sync, but without the right to run: VMs stay frozen until the missing vote comes.
    Paused { missing: MissingVote },
    /// This node alone is in sync and may run VMs.
    Solo {
        fence: Fence,
        /// The peer is heard in both directions, for example while it resyncs.
        peer_alive: bool,
    },
    /// This node is out of sync: the other node holds newer data.
    OutOfSync {
        /// The node with the newest data.
        holder: NodeId,
        /// The holder is heard, so a resync can run.
        holder_alive: bool,
    },
}

/// The vote that a paused node waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum MissingVote {
    /// The vote of the peer or of the witness: either is a quorum with this node's own vote.
    PeerOrWitness,
    /// The vote of the named node, which holds the tie. No other vote suffices.
    Node(NodeId),
    /// No vote is known to be missing: the peer is alive, the witness answers, the record is being written, or it is
    /// too early to judge the peer.
    InProgress,
}

/// The state of a removed peer's fence: whether the peer's VMs may run here.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Fence {
    /// They may run here: the peer runs no VM.
    Over,
    /// They may run here from this time on, unless a [`crate::Proof`] comes earlier: the peer may run VMs until then.
    Until(BootTime),
    /// They may run here only after a [`crate::Proof`]: the peer's watchdog is not proven.
    NeedsProof,
}
