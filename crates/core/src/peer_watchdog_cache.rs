//! Whether the peer's watchdog is proven, kept over restarts.
//!
//! The peer says so in its heartbeats. When both nodes lost power and only one returns, no heartbeat says it any more; the
//! node that returned may start the peer's VMs after the fence time only if it has kept the fact.

use std::io;
use std::path::{Path, PathBuf};

fn path(state: &Path) -> PathBuf {
    state.join("peer-watchdog-proven")
}

/// Whether the watchdog of the peer with this store was proven when it was last heard.
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

/// Writes it, durably.
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
    fn a_proof_belongs_to_one_store_and_can_be_taken_back() {
        let dir = tempfile::tempdir().unwrap();
        assert!(!load(dir.path(), 7));
        save(dir.path(), 7, true).unwrap();
        assert!(load(dir.path(), 7) && !load(dir.path(), 8) && !load(dir.path(), 0));
        save(dir.path(), 7, false).unwrap();
        save(dir.path(), 7, false).unwrap();
        assert!(!load(dir.path(), 7));
    }
}
