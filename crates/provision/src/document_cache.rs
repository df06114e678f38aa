//! A copy of the pair's document as this node read it last, in a file on the state partition.
//!
//! A node that is not in sync must not read the document from its volume 0, which may be old. With the cache users can
//! still log in at that node and see its state. The cache decides nothing else, in particular not where VMs run.

use dyad_desired::Document;
use std::io;
use std::path::{Path, PathBuf};

fn path(state: &Path) -> PathBuf {
    state.join("last-document.json")
}

/// The cached document; `None` if there is none or it is damaged.
pub fn load(state: &Path) -> Option<Document> {
    let bytes = std::fs::read(path(state)).ok()?;
    serde_json::from_slice(&bytes).inspect_err(|e| tracing::warn!(error = %e, "the last document is damaged")).ok()
}

/// The errors of changing the cache.
#[derive(Debug, thiserror::Error)]
pub enum CacheError {
    /// The file cannot be written.
    #[error("{} cannot be written", path.display())]
    Write { path: PathBuf, source: io::Error },
    /// The file cannot be removed.
    #[error("{} cannot be removed", path.display())]
    Remove { path: PathBuf, source: io::Error },
}

/// Replaces the cached document, durably.
///
/// # Errors
/// [`CacheError::Write`] if the file cannot be written; the old document stays.
pub fn save(state: &Path, document: &Document) -> Result<(), CacheError> {
    let path = path(state);
    let saved = serde_json::to_vec(document).map_err(io::Error::from);
    let saved = saved.and_then(|bytes| dyad_atomic_file::replace(&path, &bytes));
    saved.map_err(|source| CacheError::Write { path, source })
}

/// Removes the cached document, which holds password hashes. Without effect if there is none.
///
/// # Errors
/// [`CacheError::Remove`] if the file exists and cannot be removed.
pub fn remove(state: &Path) -> Result<(), CacheError> {
    let path = path(state);
    dyad_atomic_file::remove(&path).map_err(|source| CacheError::Remove { path, source })
}

#[cfg(test)]
mod tests {
    use super::*;
    use dyad_desired::NodeRecord;

    #[test]
    fn a_saved_document_is_loaded_until_it_is_damaged_or_removed() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(load(dir.path()), None);
        let node = NodeRecord { name: "left".into(), addresses: Vec::new(), usable_memory_mib: 0, usable_cpus: 0 };
        let document = Document::new_pair("rig", node, "$argon2id$none").unwrap();
        save(dir.path(), &document).unwrap();
        assert_eq!(load(dir.path()), Some(document));
        std::fs::write(path(dir.path()), "{").unwrap();
        assert_eq!(load(dir.path()), None, "a damaged document is none");
        remove(dir.path()).unwrap();
        assert_eq!(load(dir.path()), None);
    }
}
