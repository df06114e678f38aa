//! Which volumes this node writes and serves, and which VMs may run here.
//!
//! **Invariants.** Writers and permits are set from membership and document at each settling, and nowhere else. Servers are
//! started at a settling only; they are also ended outside of it, before requests of a guest could fail. A volume has a
//! device server only while this node writes it. A VM is permitted only while all its disks have servers, and the quorum
//! thread was told that VMs run (`vms_known`) before a permit is shown.

use dyad_blockdev::Handle;
use dyad_mirror::Writer;
use dyad_types::VolumeId;
use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

/// A volume with a device server.
pub(in crate::state) struct Served {
    /// The server's socket.
    pub(in crate::state) socket: PathBuf,
    /// Ends the server when it is dropped.
    pub(in crate::state) _server: Handle,
}

/// What guests may do on this node.
#[derive(Default)]
pub(in crate::state) struct GuestAccess {
    /// Who writes each volume, as the mirror was told. Set by `settle_writers`.
    pub(in crate::state) writers: BTreeMap<VolumeId, Writer>,
    /// The device servers. Started by `settle_servers`. Ended by `settle_servers` and `settle_writers`, all at once when this
    /// node is no longer a member (`config_is`), is decommissioned, or stops.
    pub(in crate::state) servers: BTreeMap<VolumeId, Served>,
    /// Names of the VMs that may run. Set by `settle_permits`.
    pub(in crate::state) permits: BTreeSet<String>,
    /// Names of the VMs that run. Set by the supervisor's request `Running` (`running_are`).
    pub(in crate::state) running: BTreeSet<String>,
    /// This node has had the right to run VMs since it last became a member or killed its VMs: volumes are served.
    /// Set and reset by updates of the quorum thread: snapshot, configuration, `Kill`.
    pub(in crate::state) serving: bool,
    /// What the quorum thread was told: VMs run here or may start. Set by `settle_permits`.
    pub(in crate::state) vms_known: bool,
}
