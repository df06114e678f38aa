//! Volumes that are no longer used: those of aborted imports, and those that the document no longer names because they were
//! deleted, replaced by an image, or made for an import that was dropped.
//!
//! **Invariants.** At most one import runs into a volume: its name is in `running` from the request until the change of the
//! document that ends the import is decided. At most one orphaned volume is being deleted at a time. The lead deletes a volume
//! only if its number was given out and the authoritative document does not name it. Numbers are never given out twice, so no
//! document of this pair, older or newer, names it again. A number that was not given out yet may be of a volume that is
//! being made.

use crate::Placement;
use crate::event::{Action, Surroundings};
use crate::mutants::Mutant;
use dyad_types::{BootTime, VolumeId};
use std::collections::BTreeSet;

/// Minimum interval between two drops of aborted imports, which are dropped one at a time, as the lead may refuse. In
/// nanoseconds.
const DROP_IMPORT_INTERVAL: u64 = 1_000_000_000;

/// Interval of scans without a new document, in nanoseconds: a node that becomes the lead may have read the document before.
const ORPHAN_SCAN_INTERVAL: u64 = 1_000_000_000;

/// The imports into volumes of this node.
#[derive(Debug, Default)]
pub(crate) struct Imports {
    running: BTreeSet<String>,
    last_drop: Option<BootTime>,
}

/// Timing of the garbage collection of orphaned volumes.
#[derive(Debug, Default)]
pub(crate) struct VolumeGc {
    /// A deletion was asked for and has not ended.
    deleting: bool,
    /// Time at which a scan last found nothing or a deletion was refused; `None` = scan at the next settling.
    idle_since: Option<BootTime>,
}

impl VolumeGc {
    /// Has the next settling scan, as the document was read or changed.
    pub(crate) fn scan_now(&mut self) {
        self.idle_since = None;
    }

    fn scan_is_due(&self, now: BootTime) -> bool {
        !self.deleting && self.idle_since.is_none_or(|last| now.since(last) >= ORPHAN_SCAN_INTERVAL)
    }

    /// Records the end of a deletion. After a refusal the next scan comes after [`ORPHAN_SCAN_INTERVAL`].
    pub(crate) fn deletion_ended(&mut self, now: BootTime, deleted: bool) {
        self.deleting = false;
        if !deleted {
            self.idle_since = Some(now);
        }
    }
}

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
    pub(crate) fn settle_imports(&mut self, around: &Surroundings<'_>, actions: &mut Vec<Action>) {
        let due = self.imports.last_drop.is_none_or(|last| around.now.since(last) >= DROP_IMPORT_INTERVAL);
        let can_ask = self.leads() || self.peer_knowledge.connected;
        let Some(document) = self.authoritative_document().filter(|_| due && can_ask) else { return };
        let left = document.volumes.iter().find_map(|(name, volume)| {
            let ended = volume.primary == self.me && !self.imports.running.contains(name);
            volume.incoming.filter(|_| ended).map(|id| (name.clone(), id))
        });
        if let Some((name, id)) = left {
            self.imports.last_drop = Some(around.now);
            actions.push(Action::DropImport { name, id });
        }
    }

    /// Deletes one orphaned volume. The pool is compared with the document, because a list of dropped volumes would be lost
    /// if this node died before the deletion. The writers of this document are settled before, so that no request to the
    /// volume follows its deletion.
    pub(crate) fn settle_volume_gc(&mut self, around: &Surroundings<'_>, actions: &mut Vec<Action>) {
        if !self.volume_gc.scan_is_due(around.now) || !self.leads() {
            return;
        }
        let Some(document) = self.authoritative_document() else { return };
        let given = match self.mutants.has(Mutant::DeleteUnassigned) {
            true => VolumeId(1)..VolumeId(u64::MAX),
            false => VolumeId(1)..document.next_volume,
        };
        let stored = document.volume_sizes();
        let held = around.mirror.volumes().into_iter().map(|info| info.id);
        match held.filter(|id| given.contains(id)).find(|id| !stored.contains_key(id)) {
            Some(orphan) => {
                self.volume_gc.deleting = true;
                actions.push(Action::DeleteOrphan(orphan));
            }
            None => self.volume_gc.idle_since = Some(around.now),
        }
    }
}
