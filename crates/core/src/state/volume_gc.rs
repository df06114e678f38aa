//! Volumes of the pool that the document names no more: deleted ones, what an image replaced, what came of one that failed.
//!
//! **Invariant.** The lead deletes a volume only if its number was given and the document that rules has it no more. Numbers
//! are never given twice, so that is final: no document of this pair, older or newer, will bring it back. A number not given
//! yet may be of a volume that is just being made.

use super::CoreState;
use super::parts::Origin;
use crate::volume_request::VolumeError;
use dyad_mirror::VolumeChange;
use dyad_types::VolumeId;

impl CoreState {
    /// Deletes them one after the other, whoever dropped them and whenever: a node may die between the change of the
    /// document and the deletion. By now the writers of this very document are settled: no request follows a deletion into
    /// the store.
    pub(super) fn settle_volume_gc(&mut self) {
        if !self.volume_gc.scan_is_due() || !self.leads() {
            return;
        }
        let Some(document) = self.authoritative_document() else { return };
        let (stored, given) = (document.stored(), VolumeId(1)..document.next_volume);
        let volumes = self.replication.mirror.volumes();
        let left = volumes.iter().find(|volume| given.contains(&volume.id) && !stored.contains_key(&volume.id));
        let Some(id) = left.map(|volume| volume.id) else {
            self.volume_gc.found_nothing();
            return;
        };
        self.volume_gc.deletion_begins();
        self.change_volume_table(VolumeChange::Delete { id }, Origin::VolumeGc { id });
    }

    pub(super) fn orphan_deleted(&mut self, id: VolumeId, result: Result<(), VolumeError>) {
        self.volume_gc.deletion_ended(result.is_ok());
        if let Err(error) = result {
            tracing::info!(volume = %id, %error, "a volume that nobody can reach any more still takes room");
        }
    }
}
