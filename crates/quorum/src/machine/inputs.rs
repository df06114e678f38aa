//! State that the daemon's events set: the VMs, the health of this node, the peer's replica, requests for a change of
//! the configuration.

use crate::removal_history::RemovalHistory;
use crate::types::{BootTime, Config, Exception, Members, WitnessId};

/// The state of all VMs of this node, as far as the kernel has confirmed it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum VmState {
    /// No VM exists.
    None,
    /// They may execute.
    Running,
    /// A freeze was ordered and is not confirmed: they may execute.
    Freezing,
    /// The kernel has confirmed that none executes.
    Frozen,
    /// A kill was ordered and is not confirmed: they may execute.
    Killing,
}

/// The VMs of this node.
#[derive(Clone, Copy, Debug)]
pub(super) struct Vms {
    pub state: VmState,
    /// This daemon has not thawed them since they were reported: an earlier daemon may have frozen them.
    pub maybe_frozen: bool,
}

/// The health of this node, which its heartbeats report.
#[derive(Clone, Copy, Debug)]
pub(super) struct OwnState {
    /// Disks, QEMU and uplink work.
    pub healthy: bool,
    /// The pool answers its commands.
    pub storage_answers: bool,
    /// Time of the last [`Event::StorageAnswers`], or of the start.
    pub storage_answers_since: BootTime,
    /// The hardware watchdog is proven.
    pub watchdog_proven: bool,
    /// A planned leave is under way.
    pub leaving: bool,
}

/// The progress of the peer's replica towards readmission, while this node is solo.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ReplicaProgress {
    /// It lacks acknowledged writes.
    Incomplete,
    /// Resync is done ([`crate::Event::PeerClean`]); the mirror was told to acknowledge with both nodes only.
    Resynced,
    /// It holds every acknowledged write, and none will be acknowledged without it ([`crate::Event::PeerInAckSet`]).
    InAckSet,
}

/// The peer's replica, as the mirror reports it.
#[derive(Clone, Debug)]
pub(super) struct PeerReplica {
    pub progress: ReplicaProgress,
    /// Times of the first and the newest report that the peer is stuck; `None` once the newest is older than
    /// [`crate::Timing::stuck_report_period`].
    pub stuck: Option<(BootTime, BootTime)>,
    /// Removals of the peer since the start of this daemon.
    pub removals: RemovalHistory,
}

/// Requests for a change of the configuration. Each is kept until a configuration contains the change.
#[derive(Clone, Debug, Default)]
pub(super) struct Requests {
    /// Go on alone with a new lineage.
    pub force: bool,
    /// Admit the peer's store with this incarnation.
    pub admit: Option<u64>,
    /// Enrol this witness; the number is the incarnation of its record of this pair.
    pub enrol: Option<(WitnessId, u64)>,
    /// Replace the list of exceptions.
    pub exceptions: Option<Vec<Exception>>,
}

impl Requests {
    /// Drops the requests that `base`, which is in force, contains. `peer_store` is the incarnation that it names for
    /// the peer.
    pub(super) fn drop_done(&mut self, base: &Config, peer_store: u64) {
        if base.members == Members::Both {
            self.admit.take_if(|admit| *admit != 0 && *admit == peer_store);
        }
        self.enrol.take_if(|enrol| *enrol == (base.witness, base.incarnations[2]));
        self.exceptions.take_if(|list| *list == base.exceptions);
    }
}
