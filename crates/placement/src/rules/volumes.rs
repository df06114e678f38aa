//! Clears volumes that are no longer used: those of aborted imports, and those that the document no longer names because they
//! were deleted, replaced by an image, or made for an import that was dropped.
//!
//! **Invariant.** The lead deletes a volume only if its number was given out and the authoritative document does not name it.
//! Numbers are never given out twice, so no document of this pair, older or newer, names it again. A number that was not
//! given out yet may be of a volume that is being made.

use super::Placement;
use crate::event::{Action, LocalState};
use crate::mutants::Mutant;
use crate::parts::DROP_IMPORT_INTERVAL;
use dyad_types::VolumeId;

impl Placement {
    /// Begins an import into the volume with this name. `false` = one runs already.
    pub fn begin_import(&mut self, volume: &str) -> bool {
        self.imports.running.insert(volume.to_owned())
    }

    /// Records the end of the import into the volume with this name.
    pub fn end_import(&mut self, volume: &str) {
        self.imports.running.remove(volume);
    }

    /// Drops one aborted import: the document names a volume for it, and no import into it runs here. It began in an
    /// earlier run of this daemon, or on a node that was lost.
    pub(crate) fn settle_imports(&mut self, local: &LocalState<'_>, actions: &mut Vec<Action>) {
        let due = self.imports.last_drop.is_none_or(|last| local.now.since(last) >= DROP_IMPORT_INTERVAL);
        let can_ask = self.leads() || self.peer_knowledge.connected;
        let Some(document) = self.authoritative_document().filter(|_| due && can_ask) else { return };
        let left = document.volumes.iter().find_map(|(name, volume)| {
            let ended = volume.primary == self.me && !self.imports.running.contains(name);
            volume.incoming.filter(|_| ended).map(|id| (name.clone(), id))
        });
        if let Some((name, id)) = left {
            self.imports.last_drop = Some(local.now);
            actions.push(Action::DropImport { name, id });
        }
    }

    /// Deletes one orphaned volume. The pool is compared with the document, because a list of dropped volumes would be lost
    /// if this node died before the deletion. The writers of this document are settled before, so that no request to the
    /// volume follows its deletion.
    pub(crate) fn settle_volume_gc(&mut self, local: &LocalState<'_>, actions: &mut Vec<Action>) {
        if !self.volume_gc.scan_is_due(local.now) || !self.leads() {
            return;
        }
        let Some(document) = self.authoritative_document() else { return };
        let given = match self.mutants.has(Mutant::DeleteUnassigned) {
            true => VolumeId(1)..VolumeId(u64::MAX),
            false => VolumeId(1)..document.next_volume,
        };
        let stored = document.volume_sizes();
        let held = local.mirror.volumes().into_iter().map(|info| info.id);
        match held.filter(|id| given.contains(id)).find(|id| !stored.contains_key(id)) {
            Some(orphan) => {
                self.volume_gc.deleting = true;
                actions.push(Action::DeleteOrphan(orphan));
            }
            None => self.volume_gc.idle_since = Some(local.now),
        }
    }
}
