//! Reports of a pool: used and free space, and the table of volumes.

use super::Pool;
use crate::PoolIdentity;
use dyad_types::{EXTENT, Seq, Stamp, VolumeId};

/// Space of one node's pool, in bytes unless said otherwise.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Usage {
    /// Size of all slots.
    pub total: u64,
    /// Slots in use, and slots reserved for writes that are only in the journal.
    pub used: u64,
    /// Slots that guest writes may still take.
    pub available: u64,
    /// Slots that guest writes never take; a reconciliation may ([`Pool::write_from_reserve`]), so that deletions, which
    /// wait for its end, work on a full pool.
    pub reserve: u64,
    /// Length of the journal.
    pub journal: u64,
    /// Journal bytes whose records are not yet in extents and indexes.
    pub journal_used: u64,
    /// Number of extents with changes in the overlays; an extent that both overlays hold is counted twice.
    pub overlay_extents: u64,
    /// Length of the files of all indexes.
    pub index: u64,
    /// Number of blocks found corrupt in the journal since the pool was opened. A read of such a block fails until it
    /// is written again. A block is counted twice if it was found at open and again by a checkpoint.
    pub corrupt_blocks: u64,
}

/// A row of the table of volumes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VolumeInfo {
    pub id: VolumeId,
    /// Size of the volume in blocks.
    pub blocks: u64,
    /// Number of extents that have a slot; those that are only in the journal are not counted.
    pub stored_extents: u64,
    pub dirty_extents: u64,
    /// Stamp of the newest write or discard.
    pub last: Stamp,
    /// Number of the last confirmed write.
    pub confirmed: Seq,
}

impl Pool {
    /// The pair and node that the pool belongs to.
    pub fn identity(&self) -> &PoolIdentity {
        &self.label.identity
    }

    /// Used and free space at this moment.
    pub fn usage(&self) -> Usage {
        let extent = EXTENT as u64;
        let space = &self.space;
        let used = space.total() - space.free() + space.reserved();
        Usage {
            total: space.total() * extent,
            used: used * extent,
            available: space.total().saturating_sub(used + space.held_back()) * extent,
            reserve: space.held_back() * extent,
            journal: self.journal.ring.len,
            journal_used: self.journal.used(),
            overlay_extents: (self.active.0.len() + self.running_checkpoint.as_ref().map_or(0, |r| r.frozen.0.len()))
                as u64,
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

    /// The row of one volume; `None` if the volume does not exist or is being deleted.
    pub fn volume(&self, volume: VolumeId) -> Option<VolumeInfo> {
        self.volumes().into_iter().find(|v| v.id == volume)
    }
}
