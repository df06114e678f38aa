//! Where a node keeps what provisioning makes.

use std::path::PathBuf;

/// The folders and disks of a node.
#[derive(Debug, Clone)]
pub struct NodePaths {
    /// Where identity, keys and the register are kept.
    pub state: PathBuf,
    /// Where sockets and mounts are made.
    pub run: PathBuf,
    /// Candidates for pool disks; empty = all disks of the system.
    pub disks: Vec<PathBuf>,
}
