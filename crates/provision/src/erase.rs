//! Erasing: the rules by which a node or a disk may be erased, and the erasing itself.
//!
//! A node is erased in two steps. First its identity file is renamed ([`NodeIdentity::decommission`]), which cannot be
//! undone, and the process ends. The next process, which has no disk open, erases the labels and files of the pair that
//! the renamed file names ([`undo`]). A setup that was interrupted leaves the same file and is undone in the same way.
//!
//! Only labels, indexes, keys, the register and the cached document are erased, which takes seconds. The guests' data
//! on the disks is not erased; it stays until it is overwritten.

use crate::disks::{self, Index, PoolDiskPaths};
use crate::identity::{IdentityError, NodeIdentity};
use crate::paths::NodePaths;
use crate::refusal;
use crate::setup::ReportStep;
use crate::{document_cache, register};
use dyad_control::{DiskCandidate, DiskContent, Refusal, RefusalCode, chain};
use dyad_link::tls;
use std::io;
use std::path::{Path, PathBuf};

/// The way in which a node of a pair is erased.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EraseMode {
    /// After the node has left its pair: the other node has taken over and has confirmed it.
    Leave,
    /// At once. The pair's data may be lost with this copy; a person has confirmed that.
    Abandon,
}

/// The input of [`decide`], besides the confirmation.
#[derive(Debug, Clone, Copy)]
pub struct ErasePrecondition<'a> {
    /// Name of the pair. `pair/node` is the confirmation that data may be lost.
    pub pair: &'a str,
    /// Name of this node. It is the confirmation while the other node holds all data.
    pub node: &'a str,
    /// Whether the other node is in the in-sync set and heard, so that it holds all data of this node.
    pub peer_has_all: bool,
}

/// Decides how this node is erased, if `confirm` suffices.
///
/// # Errors
/// The confirmation is not the text that the refusal names.
pub fn decide(precondition: ErasePrecondition<'_>, confirm: &str) -> Result<EraseMode, Refusal> {
    let ErasePrecondition { pair, node, peer_has_all } = precondition;
    let both = format!("{pair}/{node}");
    match (confirm == node, confirm == both) {
        (true, _) | (_, true) if peer_has_all => Ok(EraseMode::Leave),
        (_, true) => Ok(EraseMode::Abandon),
        _ if peer_has_all => Err(Refusal::new(
            RefusalCode::Confirm,
            format!(
                "Nothing was erased: to erase this node, whose data the other node holds, type exactly \"{node}\"."
            ),
        )),
        _ => Err(Refusal::new(
            RefusalCode::ConfirmLoss,
            format!(
                "Nothing was erased: no other node is known to hold the data of the pair {pair}, so all of it may be lost; \
                 to erase this node all the same, type exactly \"{both}\"."
            ),
        )),
    }
}

/// Begins the erasure of this node: it no longer belongs to its pair. This cannot be undone. Precondition: no VM runs
/// on this node.
///
/// # Errors
/// The identity cannot be renamed: nothing was erased.
pub fn decommission(state: &Path) -> Result<(), Refusal> {
    NodeIdentity::decommission(state)
        .map_err(|e| Refusal::new(RefusalCode::State, format!("Nothing was erased: {}.", chain(&e))))?;
    // The next start generates a new key, so that machines that trusted this node do not trust the erased one.
    if let Err(e) = tls::TlsIdentity::forget(state) {
        tracing::warn!(error = chain(&e), "the key of this node is kept");
    }
    Ok(())
}

/// The refusal to erase a single disk of a node that is set up.
pub fn not_blank() -> Refusal {
    Refusal::new(RefusalCode::AlreadySetUp, "A single disk can be erased only on a node that is not set up.")
}

/// The errors of [`undo`], which is tried again at the next start and before the next setup.
#[derive(Debug, thiserror::Error)]
pub enum UndoError {
    /// A file of the pair cannot be removed.
    #[error("{} cannot be removed", file.display())]
    Remove { file: PathBuf, source: io::Error },
    /// The cached document cannot be removed.
    #[error(transparent)]
    Document(#[from] document_cache::CacheError),
    /// The file that names the pair cannot be removed.
    #[error(transparent)]
    Identity(#[from] IdentityError),
}

/// Erases labels and files that an interrupted setup or an erasure has left. Without effect on a node without
/// `unfinished.json`.
///
/// A disk that cannot be erased is skipped: otherwise a failing disk would prevent each later setup of the node. Its
/// label then names a pair that has no node, and setup refuses the disk. If `unfinished.json` cannot be read, all disks
/// are skipped.
///
/// # Errors
/// A file of the pair cannot be removed.
pub fn undo(paths: &NodePaths, step: ReportStep<'_>) -> Result<(), UndoError> {
    let identity = match NodeIdentity::unfinished(&paths.state) {
        Ok(None) => return Ok(()),
        Ok(Some(identity)) => identity,
        Err(e) => {
            tracing::error!(error = chain(&e), "what setup has left is not known: disks keep their labels");
            return Ok(NodeIdentity::remove_unfinished(&paths.state)?);
        }
    };
    for parts in disks::find_pool_disks(&paths.disks, &paths.run, identity.pair_number(), identity.me) {
        step(&format!("Erasing {}", parts.disk.display()));
        if let Err(e) = disks::erase(&parts, paths) {
            tracing::error!(error = chain(&e), "a disk keeps its label");
        }
    }
    let file = register::path(&paths.state);
    dyad_atomic_file::remove(&file).map_err(|source| UndoError::Remove { file, source })?;
    document_cache::remove(&paths.state)?;
    Ok(NodeIdentity::remove_unfinished(&paths.state)?)
}

/// The text that the operator typed to confirm an erasure.
#[derive(Debug, Clone, Copy)]
pub struct Confirmation<'a>(pub &'a str);

/// Erases one disk that carries labels of a pair. Precondition: this node is blank.
///
/// # Errors
/// There is no such disk, it belongs to no pair, the confirmation is wrong, or the disk cannot be written.
pub fn disk(paths: &NodePaths, name: &str, confirm: Confirmation<'_>) -> Result<(), Refusal> {
    let candidates = disks::list(&paths.disks, &paths.run);
    let found = decide_disk(&candidates, name, confirm)?;
    let path = Path::new(&found.path);
    let parts = disks::parts(path).unwrap_or_else(|| PoolDiskPaths {
        disk: path.into(),
        raw: path.into(),
        index: Index::Directory(path.with_extension("index")),
    });
    disks::erase(&parts, paths).map_err(|e| refusal::of_error(RefusalCode::Disk, &e))
}

/// Finds the disk `name` among `candidates`, and checks that it may be erased with this confirmation.
///
/// # Errors
/// There is no such disk, it belongs to no pair, or the confirmation is wrong.
pub fn decide_disk<'a>(
    candidates: &'a [DiskCandidate],
    name: &str,
    Confirmation(confirm): Confirmation<'_>,
) -> Result<&'a DiskCandidate, Refusal> {
    let short = |path: &str| path.rsplit('/').next().unwrap_or(path).to_owned();
    let Some(found) = candidates.iter().find(|disk| disk.path == name || short(&disk.path) == name) else {
        return Err(Refusal::new(RefusalCode::UnknownDisk, format!("There is no disk {} here.", printable(name))));
    };
    let short = short(&found.path);
    let DiskContent::Pool { pair, node, .. } = &found.content else {
        let text = format!("The disk {short} belongs to no pair: setup takes it as it is.");
        return Err(Refusal::new(RefusalCode::NoPoolDisk, text));
    };
    if confirm != short {
        let text = format!(
            "Nothing was erased: the disk {short} holds data of the node {node} of the pair {pair}; to erase it, type exactly \
             \"{short}\"."
        );
        return Err(Refusal::new(RefusalCode::Confirm, text));
    }
    Ok(found)
}

/// A typed text without control characters, at most 64 characters, for a sentence on a screen.
fn printable(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).take(64).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn code(answer: Result<EraseMode, Refusal>) -> Result<EraseMode, RefusalCode> {
        answer.map_err(|refusal| refusal.code)
    }

    #[test]
    fn erasing_what_may_be_the_last_copy_needs_the_names_of_pair_and_node() {
        let ask = |peer_has_all, confirm| {
            code(decide(ErasePrecondition { pair: "office", node: "left", peer_has_all }, confirm))
        };
        assert_eq!(ask(true, "left"), Ok(EraseMode::Leave));
        // The confirmation of a possible loss also suffices without a loss; the node still leaves its pair first.
        assert_eq!(ask(true, "office/left"), Ok(EraseMode::Leave));
        assert_eq!(ask(false, "left"), Err(RefusalCode::ConfirmLoss));
        assert_eq!(ask(false, "office/left"), Ok(EraseMode::Abandon));
        for wrong in ["", "office", "Left", "left ", "office/", "/left", "right", "yes"] {
            assert_eq!(ask(true, wrong), Err(RefusalCode::Confirm), "{wrong}");
            assert_eq!(ask(false, wrong), Err(RefusalCode::ConfirmLoss), "{wrong}");
        }
    }

    #[test]
    fn the_node_name_alone_is_not_enough_if_it_equals_the_pair_name() {
        let precondition = ErasePrecondition { pair: "box", node: "box", peer_has_all: false };
        assert_eq!(code(decide(precondition, "box")), Err(RefusalCode::ConfirmLoss));
    }
}
