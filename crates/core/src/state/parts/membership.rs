//! Membership as the quorum thread reports it: the configuration, the nodes that must acknowledge writes, and the right to
//! run VMs.
//!
//! **Invariants.** After the start, `config`, `ack_set` and `snapshot` are set only by updates of the quorum thread. `peer_vms_allowed` holds only while this node is the only member. The peer is not reported clean while its VMs
//! are being failed over ([`FailOver`]).

use crate::quorum_update::QuorumSnapshot;
use dyad_quorum::{Config, Members};
use dyad_replica::Readmission;
use dyad_types::NodeId;

/// The fail-over of the peer's VMs and volumes to this node, which is one change of the document.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::state) enum FailOver {
    /// No change is under way.
    Idle,
    /// The change was asked for and is not decided.
    InFlight {
        /// The mirror has reported the peer clean meanwhile: the quorum machine is told when the change is decided.
        clean_deferred: bool,
    },
}

/// The last updates of the quorum thread, with the state of readmission and fail-over.
#[derive(Debug)]
pub(in crate::state) struct Membership {
    me: NodeId,
    /// The configuration in force.
    pub(in crate::state) config: Config,
    /// The nodes that must acknowledge writes.
    pub(in crate::state) ack_set: Members,
    /// The state of the quorum machine.
    pub(in crate::state) snapshot: QuorumSnapshot,
    /// The steps by which the peer comes back into the in-sync set.
    pub(in crate::state) readmission: Readmission,
    /// The fence of the peer is over: its VMs may start here.
    pub(in crate::state) peer_vms_allowed: bool,
    /// Whether the change of the fail-over is under way.
    pub(in crate::state) fail_over: FailOver,
    /// The mirror was told to hold guests' requests, as this node has no right to run VMs.
    pub(in crate::state) held: bool,
}

impl Membership {
    /// Membership of the node `me` at start. `config` is the configuration that the register holds.
    pub(in crate::state) fn new(me: NodeId, config: Config) -> Self {
        Self {
            me,
            ack_set: config.members,
            config,
            snapshot: QuorumSnapshot::default(),
            readmission: Readmission::default(),
            peer_vms_allowed: false,
            fail_over: FailOver::Idle,
            held: true,
        }
    }

    /// Whether this node is in the in-sync set. `false` for a node that was never admitted to its pair.
    pub(in crate::state) fn is_member(&self) -> bool {
        self.config.exists() && self.config.members.has(self.me)
    }

    /// Whether this node leads the pair: it writes the document and applies its changes.
    pub(in crate::state) fn leads(&self) -> bool {
        self.config.lead == self.me && self.config.members.has(self.me)
    }

    /// Incarnation of the peer's store in the configuration; 0 = no peer was admitted.
    pub(in crate::state) fn peer_incarnation(&self) -> u64 {
        self.config.incarnations[self.me.peer().index()]
    }
}
