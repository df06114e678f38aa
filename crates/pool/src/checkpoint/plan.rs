//! Plans the copies of a checkpoint: chooses the slot of each changed extent and the blocks to copy into it.

use super::job::{ExtentMove, MovedBlock, MovedSource};
use super::running::Checkpoint;
use crate::StoreError;
use crate::checksum;
use crate::index::key;
use crate::index::row::ExtentRow;
use crate::overlay::{ExtentChange, ExtentId};
use crate::pool::Pool;
use dyad_types::{EXTENT_BLOCKS, Stamp};

impl Pool {
    /// Plans the next extents, at most `budget`. The result is empty if no block has to be copied: all extents are
    /// planned already, or the extents planned now have only discarded blocks.
    pub(super) fn plan_moves(&mut self, budget: usize) -> Result<Vec<ExtentMove>, StoreError> {
        let mut moves = Vec::new();
        for _ in 0..budget {
            let Some((id, change)) = self.running_checkpoint.as_ref().and_then(Checkpoint::next) else { break };
            moves.extend(self.plan_extent_move(id, &change)?);
            if let Some(running) = &mut self.running_checkpoint {
                running.planned = Some(id);
                running.planned_count += 1;
                running.planned_since_sync += 1;
            }
        }
        Ok(moves)
    }

    fn plan_extent_move(&mut self, id: ExtentId, change: &ExtentChange) -> Result<Option<ExtentMove>, StoreError> {
        let (volume, extent) = id;
        let stored_on = self.extent_map.get(volume, extent);
        let stored = match stored_on {
            Some(disk) => self
                .stored_row(volume, extent, disk)
                .map_err(|(disk, e)| StoreError::IndexDamaged {
                    disk: self.devices[disk].name.clone(),
                    what: e.text(),
                })?
                .map(|(birth, row)| (disk, birth, row)),
            None => None,
        };
        let kept = stored.as_ref().map_or(0, |(_, _, row)| row.present & !change.touched);
        // A write in the active overlay has no reservation of its own and relies on this extent's slot. So the slot is
        // kept even if no block of this change is present.
        let slot_in_use = self.active.get(id).is_some_and(|c| !c.reserved) && (stored.is_some() || change.reserved);
        let placed = if (kept | change.present) == 0 && !slot_in_use {
            None
        } else {
            match &stored {
                Some((disk, birth, row)) => Some((*disk, row.slot, *birth)),
                None => {
                    let (disk, slot) = self.space.allocate().ok_or(StoreError::NoSpace)?;
                    Some((disk, slot, change.birth))
                }
            }
        };
        if change.reserved {
            self.space.release_reservation(1);
        }
        let running = self.running_checkpoint.as_mut().expect("only a running checkpoint plans");
        if let Some(frozen) = running.frozen.0.get_mut(&id) {
            frozen.reserved = false;
            frozen.removing = placed.is_none();
            frozen.placed = placed.is_some();
        }
        let Some((disk, slot, birth)) = placed else {
            if let Some((disk, birth, row)) = stored {
                running.patches[disk].push((key::extent(volume, extent, birth), None));
                running.freed_slots.push((disk, row.slot));
                running.extent_map_changes.push((id, None));
            }
            return Ok(None);
        };
        let mut row =
            stored.map_or(ExtentRow { slot, present: 0, crcs: [0; 16], last: Stamp::default() }, |(_, _, row)| row);
        row.present = kept | change.present;
        row.last = row.last.max(change.stamp);
        let mut blocks = Vec::new();
        for place_in_extent in (0..EXTENT_BLOCKS as usize).filter(|i| change.touched & 1 << i != 0) {
            let bit = 1u16 << place_in_extent;
            row.crcs[place_in_extent] = if change.lost & bit != 0 {
                blocks.push(MovedBlock { place_in_extent, source: MovedSource::Lost });
                checksum::lost_block(volume, extent.first_block() + place_in_extent as u64, birth)
            } else if change.present & bit != 0 {
                let (page, crc) = (change.pages[place_in_extent], change.crcs[place_in_extent]);
                blocks.push(MovedBlock { place_in_extent, source: MovedSource::Journal { page, crc } });
                crc
            } else {
                0
            };
        }
        running.patches[disk].push((key::extent(volume, extent, birth), Some(row.encode())));
        if stored_on.is_none() {
            running.extent_map_changes.push((id, Some(disk)));
        }
        if blocks.is_empty() {
            return Ok(None);
        }
        running.written_disks[disk] = true;
        let device = self.devices[disk].clone();
        let offset = self.slot_offset(disk, slot);
        Ok(Some(ExtentMove { device, offset, volume, first: extent.first_block(), birth, blocks }))
    }
}
