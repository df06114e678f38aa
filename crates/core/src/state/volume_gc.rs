//! Garbage collection of orphaned volumes: volumes of the pool that the current document does not name. They were deleted,
//! replaced by an image, or made for an import that was aborted.
//!
//! **Invariant.** The lead deletes a volume only if its number was given out and the authoritative document does not name it.
//! Numbers are never given out twice, so no document of this pair, older or newer, names it again. A number that was not
//! given out yet may be of a volume that is being made.

use super::CoreState;
use super::parts::ReplyReceiver;
use crate::volume_request::VolumeError;
use dyad_mirror::VolumeChange;
use dyad_types::VolumeId;

impl CoreState {
    /// Deletes one orphaned volume. The pool is compared with the document, because a list of dropped volumes would be lost
    /// if this node died before the deletion. Precondition: the writers of this document are settled, so that no request to
    /// the volume follows its deletion.
    pub(super) fn settle_volume_gc(&mut self) {
        if !self.volume_gc.scan_is_due() || !self.leads() {
            return;
        }
        let Some(document) = self.authoritative_document() else { return };
        let (stored, given) = (document.volume_sizes(), VolumeId(1)..document.next_volume);
        let volumes = self.replication.mirror.volumes();
        let left = volumes.iter().find(|volume| given.contains(&volume.id) && !stored.contains_key(&volume.id));
        let Some(id) = left.map(|volume| volume.id) else {
            self.volume_gc.found_nothing();
            return;
        };
        self.volume_gc.deletion_begins();
        self.change_volume_table(VolumeChange::Delete { id }, ReplyReceiver::VolumeGc { id });
    }

    /// Takes the result of the deletion of an orphaned volume.
    pub(super) fn orphan_deleted(&mut self, id: VolumeId, result: Result<(), VolumeError>) {
        self.volume_gc.deletion_ended(result.is_ok());
        if let Err(error) = result {
            tracing::info!(volume = %id, %error, "an orphaned volume still takes room");
        }
    }
}
