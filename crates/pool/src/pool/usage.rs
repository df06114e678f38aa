//! Used and free space, and the table of volumes.

use super::Pool;
use crate::PoolIdentity;
use dyad_types::{EXTENT, Seq, Stamp, VolumeId};

/// Space of one node's pool, in bytes unless said otherwise.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Usage {
    /// Capacity of all extents.
    pub total: u64,
    /// Extents in use, and extents reserved for writes that are still in the journal.
    pub used: u64,
    /// Space that guest writes may still take.
    pub available: u64,
    /// Space that guest writes never take, so that deletions work on a full pool.
    pub reserve: u64,
    pub journal: u64,
    /// Journal bytes that are not yet in extents and indexes.
    pub journal_used: u64,
    /// Number of extents with changes that are only in the journal.
    pub overlay_extents: u64,
    /// Files of all indexes.
    pub index: u64,
    /// Number of blocks found corrupt in the journal since open; a read of such a block fails.
    pub corrupt_blocks: u64,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VolumeInfo {
    pub id: VolumeId,
    pub blocks: u64,
    /// Without extents that are only in the journal.
    pub stored_extents: u64,
    pub dirty_extents: u64,
    /// Epoch and sequence number of the newest write.
    pub last: Stamp,
    /// The last confirmed sequence number.
    pub confirmed: Seq,
}

impl Pool {
    /// The pair and node that the pool belongs to.
    pub fn identity(&self) -> &PoolIdentity {
        &self.label.identity
    }

    /// Used and free space now.
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

    /// All volumes that are not being deleted, ascending by id.
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
