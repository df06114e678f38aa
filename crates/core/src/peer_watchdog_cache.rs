//! A file that says whether the peer's watchdog is proven, kept over restarts.
//!
//! The peer says so in its heartbeats. If both nodes lose power and only one returns, no heartbeat says it; the node that
//! returned may start the peer's VMs after the fence time only if it has stored that the watchdog is proven.

use std::io;
use std::path::{Path, PathBuf};

fn path(state: &Path) -> PathBuf {
    state.join("peer-watchdog-proven")
}

/// Whether the watchdog of the peer with this store was proven when the peer was last heard. `false` if the file is missing
/// or names another store.
pub fn load(state: &Path, incarnation: u64) -> bool {
    let known = std::fs::read_to_string(path(state)).ok();
    incarnation != 0 && known.is_some_and(|text| text.trim() == incarnation.to_string())
}

/// The file cannot be written or removed.
#[derive(Debug, thiserror::Error)]
#[error("{} cannot be written or removed", path.display())]
pub struct SaveError {
    pub path: PathBuf,
    pub source: io::Error,
}

/// Stores durably whether the watchdog of the peer with this store is proven.
///
/// # Errors
/// The file cannot be written or removed.
pub fn save(state: &Path, incarnation: u64, proven: bool) -> Result<(), SaveError> {
    let path = path(state);
    let saved = if proven {
        dyad_atomic_file::replace(&path, incarnation.to_string().as_bytes())
    } else {
        dyad_atomic_file::remove(&path)
    };
    saved.map_err(|source| SaveError { path, source })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_proof_counts_for_one_store_only_and_can_be_removed() {
        let dir = tempfile::tempdir().unwrap();
        assert!(!load(dir.path(), 7));
        save(dir.path(), 7, true).unwrap();
        assert!(load(dir.path(), 7) && !load(dir.path(), 8) && !load(dir.path(), 0));
        save(dir.path(), 7, false).unwrap();
        save(dir.path(), 7, false).unwrap();
        assert!(!load(dir.path(), 7));
    }
}
