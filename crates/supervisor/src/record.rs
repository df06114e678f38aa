//! What is written down about a VM's process, to find it again after `dyad-node` was restarted.
//!
//! One JSON file per VM in its run directory, which lives as long as the node is up. It is replaced by
//! rename, so it is always whole. It also outlives the process until the VM is forgotten, so that a guest's
//! own shutdown is not taken for a crash by a `dyad-node` that was just restarted.

use std::io;
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::{Phase, Time};

/// The record of one VM.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Record {
    /// Where it is in its life.
    pub phase: Phase,
    /// Since when.
    pub since: Time,
    /// When its process was started.
    pub started: Time,
    /// The process, once it exists: pid and start time in clock ticks.
    pub process: Option<(u32, u64)>,
    /// Its `changed` generation at the start.
    pub started_for: u64,
    /// Crashes in a row before this run.
    pub crashes: u32,
    /// When a guest that was asked to shut down is killed.
    pub deadline: Option<Time>,
    /// How it ended.
    pub note: Option<String>,
}

impl Record {
    pub fn save(&self, path: &Path) -> io::Result<()> {
        dyad_atomic_file::replace_with_mode(path, &serde_json::to_vec(self)?, dyad_atomic_file::PUBLIC)
    }

    /// Read the file at `path`. `None` if there is none or it is not a record.
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
