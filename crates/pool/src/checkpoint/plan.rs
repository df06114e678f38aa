//! Chooses a slot for each changed extent.

use super::job::{Move, MovedBlock};
use super::running::Checkpoint;
use crate::StoreError;
use crate::index::key;
use crate::index::row::ExtentRow;
use crate::overlay::{Change, ExtentId};
use crate::pool::Pool;
use dyad_types::{EXTENT_BLOCKS, Stamp};

impl Pool {
    /// Plans the next extents, at most `budget`. Empty when no block has to move: all extents are planned, or the
    /// planned ones are only removed.
    pub(super) fn plan_moves(&mut self, budget: usize) -> Result<Vec<Move>, StoreError> {
        let mut moves = Vec::new();
        for _ in 0..budget {
            let Some((place, change)) = self.running.as_ref().and_then(Checkpoint::next) else { break };
            moves.extend(self.plan_one(place, &change)?);
            if let Some(running) = &mut self.running {
                running.planned = Some(place);
            }
        }
        Ok(moves)
    }

    fn plan_one(&mut self, place: ExtentId, change: &Change) -> Result<Option<Move>, StoreError> {
        let (volume, extent) = place;
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
        // A newer write has no reservation and will use this extent's slot, so the slot is kept even if the extent is
        // empty.
        let slot_in_use = self.active.get(place).is_some_and(|c| !c.reserved) && (stored.is_some() || change.reserved);
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
            self.space.put_back(1);
        }
        let running = self.running.as_mut().expect("only a running checkpoint plans");
        if let Some(frozen) = running.frozen.0.get_mut(&place) {
            frozen.reserved = false;
            frozen.removing = placed.is_none();
            frozen.placed = placed.is_some();
        }
        let Some((disk, slot, birth)) = placed else {
            if let Some((disk, birth, row)) = stored {
                running.patches[disk].push((key::extent(volume, extent, birth), None));
                running.freed.push((disk, row.slot));
                running.moved.push((place, None));
            }
            return Ok(None);
        };
        let mut row =
            stored.map_or(ExtentRow { slot, present: 0, crcs: [0; 16], last: Stamp::default() }, |(_, _, row)| row);
        row.present = kept | change.present;
        row.last = row.last.max(change.stamp);
        let mut blocks = Vec::new();
        for inside in (0..EXTENT_BLOCKS as usize).filter(|i| change.touched & 1 << i != 0) {
            let there = change.present & 1 << inside != 0;
            row.crcs[inside] = if there { change.crcs[inside] } else { 0 };
            if there {
                blocks.push(MovedBlock { inside, page: change.pages[inside], crc: change.crcs[inside] });
            }
        }
        running.patches[disk].push((key::extent(volume, extent, birth), Some(row.encode())));
        if stored_on.is_none() {
            running.moved.push((place, Some(disk)));
        }
        if blocks.is_empty() {
            return Ok(None);
        }
        running.written[disk] = true;
        let device = self.devices[disk].clone();
        let offset = self.slot_offset(disk, slot);
        Ok(Some(Move { device, offset, volume, first: extent.first_block(), birth, blocks }))
    }
}
