//! What is used and what is left.

use super::Pool;
use crate::Identity;
use dyad_types::{EXTENT, Seq, Stamp, VolumeId};

/// Space of one node's pool, in bytes unless said otherwise.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Usage {
    /// All extents.
    pub total: u64,
    /// Extents taken, and those set aside for writes that are still in the journal.
    pub used: u64,
    /// What guests may still fill.
    pub available: u64,
    /// Kept back so that deletions always work.
    pub reserve: u64,
    /// The journal ring.
    pub journal: u64,
    /// Of it, not yet in extents and indexes.
    pub journal_used: u64,
    /// Extents with changes that are only in the journal (a count).
    pub overlay_extents: u64,
    /// The files of all indexes.
    pub index: u64,
    /// Blocks found corrupt in the journal since open; reading them is an error (a count).
    pub corrupt_blocks: u64,
}

/// One volume.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VolumeInfo {
    /// Its id.
    pub id: VolumeId,
    /// Its size in blocks.
    pub blocks: u64,
    /// Extents stored, without those only in the journal.
    pub stored_extents: u64,
    /// Extents marked dirty.
    pub dirty_extents: u64,
    /// Epoch and sequence number of the newest write.
    pub last: Stamp,
    /// The last confirmed sequence number.
    pub confirmed: Seq,
}

impl Pool {
    /// Whose pool this is.
    pub fn identity(&self) -> &Identity {
        &self.label.identity
    }

    /// How much is used and left.
    pub fn usage(&self) -> Usage {
        let extent = EXTENT as u64;
        let space = &self.space;
        let used = space.total() - space.free() + space.reserved();
        Usage {
            total: space.total() * extent,
            used: used * extent,
            available: space.total().saturating_sub(used + space.reserve()) * extent,
            reserve: space.reserve() * extent,
            journal: self.journal.ring.len,
            journal_used: self.journal.used(),
            overlay_extents: (self.active.0.len() + self.running.as_ref().map_or(0, |r| r.frozen.0.len())) as u64,
            index: self.indexes.iter().map(|i| i.bytes()).sum(),
            corrupt_blocks: self.corrupt_blocks,
        }
    }

    /// All volumes that are not being deleted, by id.
    pub fn volumes(&self) -> Vec<VolumeInfo> {
        let live = self.state.volumes.iter().filter(|(_, v)| !v.deleting);
        live.map(|(id, v)| VolumeInfo {
            id: *id,
            blocks: v.blocks,
            stored_extents: self.extent_map.count(*id),
            dirty_extents: v.dirty.len(),
            last: v.last,
            confirmed: v.confirmed,
        })
        .collect()
    }

    /// One volume; `None` if there is no such volume.
    pub fn volume(&self, volume: VolumeId) -> Option<VolumeInfo> {
        self.volumes().into_iter().find(|v| v.id == volume)
    }
}
