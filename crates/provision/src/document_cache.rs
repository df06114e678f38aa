//! The pair's document as this node read it last, kept beside the pool.
//!
//! A node that is not in sync must not read the document from its volume. The cache lets users log in there all the same and
//! see why. It never decides placement.

use dyad_desired::Document;
use std::io;
use std::path::{Path, PathBuf};

fn path(state: &Path) -> PathBuf {
    state.join("last-document.json")
}

/// What was read last, if that can be read.
pub fn load(state: &Path) -> Option<Document> {
    let bytes = std::fs::read(path(state)).ok()?;
    serde_json::from_slice(&bytes).inspect_err(|e| tracing::warn!(error = %e, "the last document is damaged")).ok()
}

/// Why the cache was not changed.
#[derive(Debug, thiserror::Error)]
pub enum CacheError {
    /// The file cannot be written.
    #[error("{} cannot be written", path.display())]
    Write { path: PathBuf, source: io::Error },
    /// The file cannot be removed.
    #[error("{} cannot be removed", path.display())]
    Remove { path: PathBuf, source: io::Error },
}

/// Writes the document, durably.
///
/// # Errors
/// [`CacheError::Write`].
pub fn save(state: &Path, document: &Document) -> Result<(), CacheError> {
    let path = path(state);
    let saved = serde_json::to_vec(document).map_err(io::Error::from);
    let saved = saved.and_then(|bytes| dyad_atomic_file::replace(&path, &bytes));
    saved.map_err(|source| CacheError::Write { path, source })
}

/// Removes the document, with the password hashes in it.
///
/// # Errors
/// [`CacheError::Remove`].
pub fn remove(state: &Path) -> Result<(), CacheError> {
    let path = path(state);
    dyad_atomic_file::remove(&path).map_err(|source| CacheError::Remove { path, source })
}

#[cfg(test)]
mod tests {
    use super::*;
    use dyad_desired::NodeRecord;

    #[test]
    fn it_is_read_back_and_forgotten() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(load(dir.path()), None);
        let node = NodeRecord { name: "left".into(), addresses: Vec::new(), usable_memory_mib: 0, usable_cpus: 0 };
        let document = Document::new_pair("rig", node, "$argon2id$none").unwrap();
        save(dir.path(), &document).unwrap();
        assert_eq!(load(dir.path()), Some(document));
        std::fs::write(path(dir.path()), "{").unwrap();
        assert_eq!(load(dir.path()), None, "a damaged one is as good as none");
        remove(dir.path()).unwrap();
        assert_eq!(load(dir.path()), None);
    }
}
