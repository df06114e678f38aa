//! The device servers of this node, and the VMs that run here.
//!
//! **Invariant.** Servers are started and ended only as placement asks for it, and all ended when this daemon stops.

use dyad_blockdev::ServerHandle;
use dyad_types::VolumeId;
use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

/// A volume with a device server.
pub(in crate::state) struct ServedVolume {
    /// The server's socket.
    pub(in crate::state) socket: PathBuf,
    /// Ends the server when it is dropped.
    pub(in crate::state) _server: ServerHandle,
}

/// Device servers, and the VMs that use them.
#[derive(Default)]
pub(in crate::state) struct GuestAccess {
    /// The device servers.
    pub(in crate::state) servers: BTreeMap<VolumeId, ServedVolume>,
    /// Names of the VMs that run. Set by `dyad-node`'s request `Running` (`set_running_vms`).
    pub(in crate::state) running: BTreeSet<String>,
}
