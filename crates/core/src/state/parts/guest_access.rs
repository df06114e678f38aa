//! Which volumes this node writes and serves, and which VMs may run here.
//!
//! **Invariants.** All of it follows from membership and document at each settling; nothing else sets it. A volume has a
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
    /// Who writes each volume, as the mirror was told.
    pub(in crate::state) writers: BTreeMap<VolumeId, Writer>,
    /// The device servers.
    pub(in crate::state) servers: BTreeMap<VolumeId, Served>,
    /// Names of the VMs that may run.
    pub(in crate::state) permits: BTreeSet<String>,
    /// Names of the VMs that run, as the supervisor said last.
    pub(in crate::state) running: BTreeSet<String>,
    /// This node has had the right to run VMs since it last became a member or killed its VMs: volumes are served.
    pub(in crate::state) serving: bool,
    /// What the quorum thread was told: VMs run here or may start.
    pub(in crate::state) vms_known: bool,
}
