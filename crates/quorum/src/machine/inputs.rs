//! State that follows from the daemon's events: the VMs, the state of this node, the peer's replica, requests that a
//! configuration will carry out.

use crate::losses::Losses;
use crate::types::{BootTime, Config, Exception, Members, WitnessId};

/// What the VMs of this node do, as far as the kernel confirmed it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum VmState {
    /// No VM exists.
    None,
    /// They may execute.
    Running,
    /// Asked to freeze; they may execute.
    Freezing,
    /// Confirmed not to execute.
    Frozen,
    /// Being killed; they may execute.
    Killing,
}

/// The VMs of this node.
#[derive(Clone, Copy, Debug)]
pub(super) struct Vms {
    pub state: VmState,
    /// They were reported as running and have not been thawed since: an earlier daemon may have frozen them.
    pub found: bool,
}

/// What this node says of itself in its heartbeats.
#[derive(Clone, Copy, Debug)]
pub(super) struct OwnState {
    /// Disks, QEMU and uplink work.
    pub healthy: bool,
    /// The hardware watchdog was proven.
    pub watchdog: bool,
    /// A planned leave is under way.
    pub leaving: bool,
}

/// How far the peer's replica is, while this node is solo.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Clean {
    /// It lacks acknowledged writes.
    No,
    /// Resync is done; acknowledgements are being moved to both nodes.
    Resynced,
    /// It holds every acknowledged write, and none will be acknowledged without it.
    Acked,
}

/// The peer's replica, as the mirror reports it.
#[derive(Clone, Debug)]
pub(super) struct PeerReplica {
    pub clean: Clean,
    /// First and last time the mirror reported the peer as stuck. A report counts for `Timing::stuck_report_period`.
    pub stuck: Option<(BootTime, BootTime)>,
    /// Removals of the peer that this daemon has seen.
    pub losses: Losses,
}

/// Requests that a configuration will carry out. Each is kept until one does.
#[derive(Clone, Debug, Default)]
pub(super) struct Requests {
    /// Go on alone with a new lineage.
    pub force: bool,
    /// Admit this store of the peer.
    pub admit: Option<u64>,
    /// Enrol this witness, with this store.
    pub enrol: Option<(WitnessId, u64)>,
    /// The whole new list of exceptions.
    pub exceptions: Option<Vec<Exception>>,
}

impl Requests {
    /// `base` is in force: drops the requests it carries out. `peer_store` is the incarnation it names for the peer.
    pub(super) fn drop_done(&mut self, base: &Config, peer_store: u64) {
        if base.members == Members::Both {
            self.admit.take_if(|admit| *admit != 0 && *admit == peer_store);
        }
        self.enrol.take_if(|enrol| *enrol == (base.witness, base.incarnations[2]));
        self.exceptions.take_if(|list| *list == base.exceptions);
    }
}
