//! The directories and disks that provisioning writes to.

use std::path::PathBuf;

/// The directories of a node, and its candidates for pool disks.
#[derive(Debug, Clone)]
pub struct NodePaths {
    /// The directory of identity, keys, one register file and the cached document, on the state partition.
    pub state: PathBuf,
    /// The directory of sockets and of mounted indexes, such as `/run/dyad`.
    pub run: PathBuf,
    /// The candidates for pool disks; empty: all disks of the system.
    pub disks: Vec<PathBuf>,
}
