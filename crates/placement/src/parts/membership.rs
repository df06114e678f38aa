//! Membership as the quorum thread reports it: the configuration, the nodes that must acknowledge writes, the right to run
//! VMs, and the steps by which a lost peer is replaced and comes back.
//!
//! **Invariants.** `config`, `ack_set` and `right` are set only by events of the quorum thread. `peer_vms_allowed` holds only
//! while this node is the only member. The peer is not reported clean while its VMs are being failed over ([`FailOver`]).

use crate::event::RightToRun;
use crate::parts::Readmission;
use dyad_quorum::{Config, Members};
use dyad_types::BootTime;

/// The fail-over of the peer's VMs and volumes to this node, which is one change of the document.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum FailOver {
    /// No change is under way.
    Idle,
    /// The change was asked for and is not decided.
    InFlight,
}

/// The last updates of the quorum thread, with the state of readmission and fail-over.
#[derive(Debug)]
pub(crate) struct Membership {
    /// The configuration in force.
    pub(crate) config: Config,
    /// The nodes that must acknowledge writes.
    pub(crate) ack_set: Members,
    /// The right to run VMs.
    pub(crate) right: RightToRun,
    /// The steps by which the peer comes back into the in-sync set.
    pub(crate) readmission: Readmission,
    /// The fence of the peer is over: its VMs may start here.
    pub(crate) peer_vms_allowed: bool,
    /// Whether the change of the fail-over is under way.
    pub(crate) fail_over: FailOver,
    /// Time at which the change of a fail-over was last decided; `None` = not since the configuration changed.
    pub(crate) fail_over_decided_at: Option<BootTime>,
    /// The mirror has reported the peer clean, and the quorum machine is told when no fail-over is due or in flight.
    pub(crate) clean_deferred: bool,
    /// The mirror was told to hold guests' requests, as this node has no right to run VMs.
    pub(crate) held: bool,
}

impl Membership {
    /// Membership at the start of the daemon, before the quorum thread has reported anything: no VM may run, and the mirror
    /// holds guests' requests.
    pub(crate) fn new(config: Config) -> Self {
        Self {
            ack_set: config.members,
            config,
            right: RightToRun { may_run: false, peer_fence_until: None },
            readmission: Readmission::default(),
            peer_vms_allowed: false,
            fail_over: FailOver::Idle,
            fail_over_decided_at: None,
            clean_deferred: false,
            held: true,
        }
    }
}
