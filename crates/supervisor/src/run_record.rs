//! The stored record of a VM's run, by which a restarted `dyad-node` finds the process.
//!
//! One JSON file for each VM in its run directory, which a reboot of the node empties. The file is replaced by rename,
//! so that a reader never finds a partial one. It remains after the process has ended until the VM is forgotten, so
//! that a restarted `dyad-node` does not take a guest's shutdown for a crash.

use std::io;
use std::path::Path;

use dyad_types::BootTime;
use serde::{Deserialize, Serialize};

use crate::Phase;

/// One run of a VM: its process, and how it ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct VmRunRecord {
    pub phase: Phase,
    /// The time at which the phase began.
    pub since: BootTime,
    /// The time at which the process was started.
    pub started: BootTime,
    /// Pid, and start time in clock ticks since boot; `None` until the process exists.
    pub process: Option<(u32, u64)>,
    /// The value of `changed` of the VM in the document from which it was started.
    #[serde(rename = "started_for")]
    pub started_generation: u64,
    /// Number of crashes in a row: before this run, and with this run once it has ended.
    pub crashes: u32,
    /// The time at which SIGKILL is sent if the process has not ended: set when the guest is asked to shut down, when it
    /// has shut itself down, and by each SIGKILL for the next one.
    pub deadline: Option<BootTime>,
    /// Cause of the end of the run, as one sentence for people; `None` while it lasts, except after a panic.
    pub note: Option<String>,
}

impl VmRunRecord {
    /// Replaces the whole file at `path` and syncs it.
    pub fn save(&self, path: &Path) -> io::Result<()> {
        dyad_atomic_file::replace_with_mode(path, &serde_json::to_vec(self)?, dyad_atomic_file::PUBLIC)
    }

    /// Reads the file at `path`. `None` if there is none or it is not a record.
    pub fn load(path: &Path) -> Option<Self> {
        let bytes = std::fs::read(path).ok()?;
        match serde_json::from_slice(&bytes) {
            Ok(record) => Some(record),
            Err(error) => {
                tracing::warn!(path = %path.display(), %error, "a VM's record cannot be read and is ignored");
                None
            }
        }
    }
}
