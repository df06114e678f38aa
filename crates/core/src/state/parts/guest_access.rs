//! The writers of the volumes, the device servers of this node, and the VMs that may run here.
//!
//! **Invariants.** Writers and permits are set from membership and document at each settling, and nowhere else. Servers are
//! started at a settling only; they are also ended outside of it, before requests of a guest could fail. A volume has a
//! device server only while this node writes it. A VM is permitted only while all its disks have servers, and the quorum
//! thread was told that VMs run (`vms_reported`) before a permit is shown.

use dyad_blockdev::ServerHandle;
use dyad_mirror::Writer;
use dyad_types::VolumeId;
use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::time::Instant;

/// A volume with a device server.
pub(in crate::state) struct ServedVolume {
    /// The server's socket.
    pub(in crate::state) socket: PathBuf,
    /// Ends the server when it is dropped.
    pub(in crate::state) _server: ServerHandle,
}

/// Writers, device servers and permits on this node.
#[derive(Default)]
pub(in crate::state) struct GuestAccess {
    /// The writer of each volume, as the mirror was told. Set by `settle_writers`.
    pub(in crate::state) writers: BTreeMap<VolumeId, Writer>,
    /// The device servers. Started by `settle_servers`. Ended by `settle_servers` and `settle_writers`, all at once when
    /// this node is no longer a member (`set_config`), is decommissioned, or stops.
    pub(in crate::state) servers: BTreeMap<VolumeId, ServedVolume>,
    /// Names of the VMs that may run. Set by `settle_permits`.
    pub(in crate::state) permits: BTreeSet<String>,
    /// Names of the VMs that run. Set by `dyad-node`'s request `Running` (`set_running_vms`).
    pub(in crate::state) running: BTreeSet<String>,
    /// Volumes are served. Set by `settle_servers` while a snapshot of the quorum thread gives this member the right to run
    /// VMs. Reset when this node is no longer a member, leaves, or its VMs are killed, but not by a pause: the servers then
    /// stay, and requests wait.
    pub(in crate::state) serving: bool,
    /// The quorum thread has sent no snapshot since it last killed the VMs.
    pub(in crate::state) killed: bool,
    /// Number of times that the quorum thread has killed the VMs.
    pub(in crate::state) kills: u64,
    /// The number of kills for which the cgroup's thread was told that VMs may start.
    pub(in crate::state) starts_allowed: Option<u64>,
    /// Whether VM processes may exist here, as the quorum thread was last told, and when; `None` = tell it now. Set by
    /// `settle_permits`.
    pub(in crate::state) vms_reported: Option<(bool, Instant)>,
}
