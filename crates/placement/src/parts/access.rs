//! The writers of the volumes, the device servers of this node, and the VMs that may run here.
//!
//! **Invariants.** Writers and permits are derived from membership and document: the writers also before a document is read,
//! the permits at each settling, and they are withdrawn by a decommission. Servers are
//! started at a settling only; they are also ended outside of it, before requests of a guest could fail. A volume has a
//! device server only while this node writes it. A VM is permitted only while all its disks have servers, and the quorum
//! thread was told that VMs run (`vms_reported`) before a permit is given.

use dyad_mirror::Writer;
use dyad_types::{BootTime, VolumeId};
use std::collections::{BTreeMap, BTreeSet};

/// The level "VM processes may exist here" that the quorum thread was told.
#[derive(Debug, Clone, Copy)]
pub(crate) struct VmsReport {
    pub(crate) vms: bool,
    pub(crate) at: BootTime,
}

/// Writers, device servers and permits on this node.
#[derive(Debug, Default)]
pub(crate) struct Access {
    /// The writer of each volume, as the mirror was told.
    pub(crate) writers: BTreeMap<VolumeId, Writer>,
    /// The volumes with a device server that runs.
    pub(crate) served: BTreeSet<VolumeId>,
    /// Names of the VMs that may run.
    pub(crate) permits: BTreeSet<String>,
    /// Volumes are served: since this node became a member it had the right to run VMs. Reset when it is no longer a member,
    /// leaves, or its VMs are killed, but not by a pause: the servers then stay, and requests wait.
    pub(crate) serving: bool,
    /// The quorum thread has killed the VMs and has not reported the right to run since.
    pub(crate) killed: bool,
    /// Number of kills since the start of this daemon.
    pub(crate) kills: u64,
    /// The number of kills for which starts were allowed last.
    pub(crate) starts_allowed: Option<u64>,
    /// What the quorum thread was told last; `None` = tell it now.
    pub(crate) vms_reported: Option<VmsReport>,
}

impl Access {
    pub(crate) fn server_started(&mut self, volume: VolumeId) {
        self.served.insert(volume);
    }
}
