//! Blocks without a content that may be read: the resync source could not read them, and this replica's own content may
//! be older.

use crate::journal::record::JournalRecord;
use crate::label::{self, VERSION};
use crate::overlay::ExtentId;
use crate::pool::Pool;
use crate::{OVERLAY_LIMIT, Position, StoreError};
use dyad_types::{EXTENT_BLOCKS, ExtentIndex, Stamp, VolumeId};

impl Pool {
    /// Marks the blocks of the mask `blocks` of an extent as lost: a read of one fails as for a corrupt block, until the
    /// block is written or discarded. Blocks beyond the end of the volume are ignored. On return the marks survive
    /// SIGKILL; they survive loss of power once the returned position is durable.
    ///
    /// The first call raises the format version in the label, with two syncs of the first disk.
    ///
    /// # Errors
    /// As [`Pool::write`]; `JournalFull` also while the last job of a checkpoint writes the label. `Range` if the whole
    /// extent is beyond the end of the volume.
    pub fn mark_lost(
        &mut self,
        volume: VolumeId,
        stamp: Stamp,
        extent: ExtentIndex,
        blocks: u16,
    ) -> Result<Position, StoreError> {
        let size = self.state.live(volume).ok_or(StoreError::NoVolume { volume })?.blocks;
        let first = extent.first_block();
        if first.0 >= size {
            return Err(StoreError::Range { volume, block: first, count: EXTENT_BLOCKS });
        }
        let inside = (size - first.0).min(EXTENT_BLOCKS) as u32;
        let blocks = blocks & ((1u32 << inside) - 1) as u16;
        if blocks == 0 {
            return Ok(self.journal.last());
        }
        self.check_disks()?;
        if self.needs_slot((volume, extent)) && !self.space.can_reserve(1) {
            self.operation_refused = true;
            return Err(StoreError::NoSpace);
        }
        self.check_overlay_room(OVERLAY_LIMIT)?;
        self.raise_format_version()?;
        let spare = self.write_spare();
        self.append_and_apply(&JournalRecord::MarkLost { volume, stamp, extent, blocks }, &[], spare)
    }

    /// Writes the newest format version into the label of the first disk, unless it has it: a program that does not know
    /// the journal record of lost blocks must refuse the pool.
    fn raise_format_version(&mut self) -> Result<(), StoreError> {
        if self.label.version == VERSION {
            return Ok(());
        }
        self.check_disks()?;
        if self.running_checkpoint.as_ref().is_some_and(crate::checkpoint::Checkpoint::writes_label) {
            // Its label has the old version and would replace this one.
            self.operation_refused = true;
            return Err(StoreError::JournalFull);
        }
        let label = label::Label { version: VERSION, generation: self.label.generation + 1, ..self.label.clone() };
        label::write(&self.devices[0], &label)?;
        self.label = label;
        Ok(())
    }

    /// Records in the overlay that blocks are lost, and reserves a slot for their extent if it has none.
    pub(super) fn record_lost_blocks(&mut self, id: ExtentId, stamp: Stamp, blocks: u16) {
        let needs_slot = self.needs_slot(id);
        let birth = self.state.volumes.get(&id.0).map_or_else(Default::default, |v| v.birth);
        let change = self.active.record_lost(id, blocks, stamp, birth);
        if needs_slot {
            change.reserved = true;
            self.space.reserve(1);
        }
    }
}
