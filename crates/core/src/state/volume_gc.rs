//! Volumes of the pool that the document names no more: deleted ones, what an image replaced, what came of one that failed.
//!
//! **Invariant.** The lead deletes a volume only if its number was given and the document that rules has it no more. Numbers
//! are never given twice, so that is final: no document of this pair, older or newer, will bring it back. A number not given
//! yet may be of a volume that is just being made.

use super::{CoreState, Origin};
use crate::volume_request::VolumeError;
use dyad_mirror::{VolumeChange, VolumeId};
use std::time::{Duration, Instant};

/// Between two looks that nothing gave a reason for. Whoever leads now may have read the document before it did.
const ORPHAN_SCAN_INTERVAL: Duration = Duration::from_secs(1);

/// Where the deletion of what is left over stands.
#[derive(Debug, Default)]
pub(super) struct VolumeGc {
    /// One is being deleted.
    deleting: bool,
    /// When there was last nothing to delete, or a deletion was refused.
    idle_since: Option<Instant>,
}

impl VolumeGc {
    /// The document was read or changed.
    pub(super) fn look_now(&mut self) {
        self.idle_since = None;
    }
}

impl CoreState {
    /// Deletes them one after the other, whoever dropped them and whenever: a node may die between the change of the
    /// document and the deletion. By now the writers of this very document are settled: no request follows a deletion into
    /// the store.
    pub(super) fn settle_volume_gc(&mut self) {
        let due = !self.volume_gc.deleting
            && self.volume_gc.idle_since.is_none_or(|last| last.elapsed() >= ORPHAN_SCAN_INTERVAL);
        if !due || !self.leads() {
            return;
        }
        let Some(document) = self.authoritative_document() else { return };
        let (stored, given) = (document.stored(), 1..document.next_volume);
        let volumes = self.deps.mirror.volumes();
        let left = volumes.iter().find(|volume| given.contains(&volume.id) && !stored.contains_key(&volume.id));
        let Some(id) = left.map(|volume| volume.id) else {
            self.volume_gc.idle_since = Some(Instant::now());
            return;
        };
        self.volume_gc.deleting = true;
        self.change_volume_table(VolumeChange::Delete { id }, Origin::VolumeGc { id });
    }

    pub(super) fn orphan_deleted(&mut self, id: VolumeId, result: Result<(), VolumeError>) {
        self.volume_gc.deleting = false;
        if let Err(error) = result {
            self.volume_gc.idle_since = Some(Instant::now());
            tracing::info!(volume = id, %error, "a volume that nobody can reach any more still takes room");
        }
    }
}
