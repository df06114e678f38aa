//! The run state of a node: why it can or cannot run VMs. The status screen makes one sentence of it.

use serde::{Deserialize, Serialize};

use crate::types::{Acceptor, BootTime};
use dyad_types::NodeId;

/// Why this node can or cannot run VMs. Derived from configuration, leases and reachability together, never from one alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum RunState {
    /// No pair was set up on this node.
    NotSetUp,
    /// The configuration does not admit this store: it is new or was replaced. It has no vote until it is admitted.
    UnadmittedStore,
    /// The register of this node cannot be written: the node does not vote and hands over.
    RegisterFailed,
    /// A planned leave is under way.
    Leaving,
    /// Both replicas are in sync and this node may run VMs.
    InSync {
        /// Holder of the tie vote.
        tie: Acceptor,
        /// The peer is heard in both directions.
        peer_alive: bool,
        /// The witness answers this node or its peer.
        witness_alive: bool,
    },
    /// In sync, but without the right to run: VMs pause until the missing vote comes.
    Paused { missing: MissingVote },
    /// This node alone is in sync and runs VMs.
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

/// Which vote a paused node waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum MissingVote {
    /// Either suffices: with this node's own vote it is a quorum.
    PeerOrWitness,
    /// That of this node, and no other: it holds the tie.
    Node(NodeId),
    /// A decision is under way: the peer is alive, the witness answers, or it is too early to judge the peer.
    InProgress,
}

/// Whether the VMs of a removed peer may run here.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Fence {
    /// Yes: the peer runs no VM.
    Over,
    /// Not before this time: the peer may run VMs until then.
    Until(BootTime),
    /// Not without a [`crate::Proof`]: the peer's watchdog is not proven.
    NeedsProof,
}
