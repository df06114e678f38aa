//! [`Pool`]: each operation is first written to the journal, and then applied in memory by the code that also applies
//! the records when the journal is replayed.

mod lost;
mod metadata;
mod usage;

pub use metadata::MetaEntry;
pub use usage::{Usage, VolumeInfo};

use crate::birth::Birth;
use crate::checkpoint::Checkpoint;
use crate::disk::Device;
use crate::extent_map::ExtentMap;
use crate::index::row::ExtentRow;
use crate::index::{IndexError, Indexes};
use crate::journal::Journal;
use crate::journal::record::JournalRecord;
use crate::label::Label;
use crate::overlay::{ExtentChange, ExtentId, JournalBlock, Overlay, extent_masks};
use crate::space::FreeSlots;
use crate::state::MetadataState;
use crate::sync::{SyncDone, SyncJob};
use crate::{DiskFailed, MAX_DISCARD_BLOCKS, MAX_WRITE_BLOCKS, OVERLAY_LIMIT, Position, StoreError, checksum};
use bytes::Bytes;
use dyad_types::{
    BLOCK, BlockIndex, EXTENT, EXTENT_BLOCKS, ExtentImage, ExtentIndex, IndexRange, Run, Stamp, VolumeId,
};
use std::collections::BTreeSet;
use std::ops::Range;
use std::sync::Arc;

/// The store of one node. One thread calls it; the jobs it returns may run on other threads.
pub struct Pool {
    /// The label of the first disk, as last written.
    pub(crate) label: Label,
    /// The disks, in the order of their numbers.
    pub(crate) devices: Arc<[Arc<Device>]>,
    /// One index per disk, in the same order.
    pub(crate) indexes: Indexes,
    /// Byte offset of slot 0 of each disk.
    pub(crate) extents_start: Vec<u64>,
    pub(crate) journal: Journal,
    pub(crate) state: MetadataState,
    /// Changes since the newest checkpoint began, whether it has finished or not.
    pub(crate) active: Overlay,
    pub(crate) running_checkpoint: Option<Checkpoint>,
    pub(crate) extent_map: ExtentMap,
    pub(crate) space: FreeSlots,
    /// A [`SyncJob`] was given out and its result is missing.
    pub(crate) sync_in_flight: bool,
    /// An operation was refused for lack of space in pool, journal or overlay since the last checkpoint began. Makes
    /// the pool want a checkpoint.
    pub(crate) operation_refused: bool,
    /// Position of the last record when [`Pool::checkpoint_job`] last found no checkpoint to run.
    pub(crate) position_at_idle_check: Position,
    /// Number of data blocks found corrupt in the journal, at open or when a checkpoint copied them to their extents.
    pub(crate) corrupt_blocks: u64,
    /// Extents in which finished checkpoints have met damage that the caller has not taken yet.
    pub(crate) damaged: Vec<(VolumeId, ExtentIndex)>,
    /// Pages of the journal's ring that were counted in `corrupt_blocks` at open; empty once a checkpoint has copied them.
    pub(crate) corrupt_at_open: Arc<BTreeSet<u32>>,
    #[cfg(test)]
    pub(crate) planted: crate::tests::Planted,
}

impl Pool {
    /// Writes whole blocks, at most [`MAX_WRITE_BLOCKS`], to the journal. On return the write survives SIGKILL; it
    /// survives loss of power once the returned position is durable.
    ///
    /// The sequence numbers of the writes of a volume need not ascend: the last call decides the content.
    ///
    /// # Errors
    /// `NoVolume`, `Range`, `NoSpace`, `JournalFull`: the content of the pool is unchanged. `Failed`: from then on
    /// every operation of the pool fails.
    pub fn write(
        &mut self,
        volume: VolumeId,
        stamp: Stamp,
        block: BlockIndex,
        data: Bytes,
    ) -> Result<Position, StoreError> {
        self.write_blocks(volume, stamp, block, data, FreeSlots::can_reserve)
    }

    /// As [`Pool::write`], but also takes the slots that guest writes never take ([`Usage::reserve`]): for data of a
    /// reconciliation, for whose end the deletions wait that make room.
    ///
    /// # Errors
    /// As [`Pool::write`]; `NoSpace` only if no slot is free at all.
    pub fn write_from_reserve(
        &mut self,
        volume: VolumeId,
        stamp: Stamp,
        block: BlockIndex,
        data: Bytes,
    ) -> Result<Position, StoreError> {
        self.write_blocks(volume, stamp, block, data, FreeSlots::can_reserve_all)
    }

    /// Writes blocks if `has_room` says that the free slots suffice for the new extents.
    fn write_blocks(
        &mut self,
        volume: VolumeId,
        stamp: Stamp,
        block: BlockIndex,
        data: Bytes,
        has_room: fn(&FreeSlots, u64) -> bool,
    ) -> Result<Position, StoreError> {
        let count = (data.len() / BLOCK) as u64;
        let whole = data.len().is_multiple_of(BLOCK) && count <= MAX_WRITE_BLOCKS;
        self.check_disks()?;
        let birth = self.writable_volume(volume, block.run(count), whole)?.birth;
        let numbered = block.run(count).each().zip(data.chunks_exact(BLOCK));
        let crcs = numbered.map(|(number, data)| checksum::block(volume, number, birth, data)).collect();
        let new =
            extent_masks(block.run(count)).filter(|(extent, _)| self.needs_slot((volume, *extent))).count() as u64;
        if !has_room(&self.space, new) {
            self.operation_refused = true;
            return Err(StoreError::NoSpace);
        }
        let record = JournalRecord::Write { volume, stamp, block, birth, crcs };
        self.check_overlay_room(OVERLAY_LIMIT)?;
        let spare = self.write_spare();
        if let Some(running) = &self.running_checkpoint {
            let journal = self.journal.has_room(&record, data.len(), spare + running.withheld_journal());
            // The steps of this checkpoint give the room: the refusal is no reason for another one.
            if !journal || self.active.0.len() + running.withheld_overlay() >= OVERLAY_LIMIT {
                return Err(StoreError::JournalFull);
            }
        }
        self.append_and_apply(&record, &data, spare)
    }

    /// Discards blocks: they read as zeros from then on. The next checkpoint frees the slot of an extent without
    /// blocks.
    ///
    /// # Errors
    /// As [`Pool::write`], but never `NoSpace`. A discard may use the journal space that writes leave free.
    pub fn discard(
        &mut self,
        volume: VolumeId,
        stamp: Stamp,
        blocks: Range<BlockIndex>,
    ) -> Result<Position, StoreError> {
        let count = blocks.length();
        self.check_disks()?;
        self.writable_volume(volume, blocks.clone(), count <= MAX_DISCARD_BLOCKS)?;
        self.check_overlay_room(OVERLAY_LIMIT + OVERLAY_LIMIT / 4)?;
        self.append_and_apply(&JournalRecord::Discard { volume, stamp, block: blocks.start, count }, &[], 0)
    }

    /// Makes an extent equal to `image`, with `stamp` for each change: writes the present blocks, discards the absent
    /// blocks, and does not change the bad blocks. Blocks beyond the end of the volume are ignored.
    ///
    /// This takes several journal records. A crash between them leaves a mix of old and new blocks, so the extent must
    /// stay dirty at its source until the returned position is durable.
    ///
    /// # Errors
    /// As [`Pool::write`]; after an error a part of the image may be written. `Range` also if the image is not valid or
    /// the whole extent is beyond the end of the volume.
    pub fn write_extent(
        &mut self,
        volume: VolumeId,
        stamp: Stamp,
        extent: ExtentIndex,
        image: &ExtentImage,
    ) -> Result<Position, StoreError> {
        let first = extent.first_block();
        let blocks = self.state.live(volume).ok_or(StoreError::NoVolume { volume })?.blocks;
        if !image.is_valid() || first.0 >= blocks {
            return Err(StoreError::Range { volume, block: first, count: EXTENT_BLOCKS });
        }
        let mut position = self.journal.last();
        for run in image.runs(extent, u16::MAX, blocks) {
            position = match run {
                Run::Data(block, data) => self.write(volume, stamp, block, data)?,
                Run::Absent(blocks) => self.discard(volume, stamp, blocks)?,
            };
        }
        Ok(position)
    }

    /// Checks that the journal has room for all of `runs`, the changes of one extent, if no other record comes between. A
    /// caller that has to repeat a refused series of writes as a whole asks this first: else each repetition would write
    /// the first records again and use up the room for which the last one waits.
    ///
    /// # Errors
    /// `JournalFull`; `Failed`.
    pub fn check_journal_room(&mut self, runs: &[Run]) -> Result<(), StoreError> {
        self.check_disks()?;
        let data = |run: &Run| if let Run::Data(_, data) = run { data.len() } else { 0 };
        // Each record has a header of one block, and at the end of the ring a filler is smaller than the largest record.
        let bytes: usize = runs.iter().map(|run| BLOCK + data(run)).sum();
        let filler = BLOCK + EXTENT;
        let writes = runs.iter().any(|run| matches!(run, Run::Data(..)));
        let withheld = self.running_checkpoint.as_ref().map_or(0, Checkpoint::withheld_journal);
        let spare = if writes { self.write_spare() + withheld } else { 0 };
        if self.journal.used() + (bytes + filler) as u64 + spare > self.journal.ring.len {
            self.operation_refused |= self.running_checkpoint.is_none();
            return Err(StoreError::JournalFull);
        }
        Ok(())
    }

    /// A sync of all records written so far, to run on any thread. `None` if the result of an earlier sync is missing,
    /// or if all records are durable.
    pub fn begin_sync(&mut self) -> Option<SyncJob> {
        if self.sync_in_flight || self.journal.last() <= self.journal.durable() {
            return None;
        }
        self.sync_in_flight = true;
        Some(SyncJob { device: self.devices[0].clone(), journal_end: self.journal.end() })
    }

    /// Takes the result of a sync from [`Pool::begin_sync`]; returns the position up to which all operations are
    /// durable.
    ///
    /// # Errors
    /// `Failed`: the disk refused the sync; from then on every operation of the pool fails.
    pub fn complete_sync(&mut self, done: SyncDone) -> Result<Position, StoreError> {
        self.sync_in_flight = false;
        done.result?;
        self.journal.set_synced(done.journal_end);
        Ok(self.journal.durable())
    }

    /// Syncs all records on the calling thread; returns the position of the last one.
    ///
    /// # Errors
    /// `Failed`: a disk failed now or earlier.
    ///
    /// # Panics
    /// The result of a [`SyncJob`] is missing.
    pub fn sync(&mut self) -> Result<Position, StoreError> {
        self.check_disks()?;
        assert!(!self.sync_in_flight, "complete_sync comes before the next sync");
        match self.begin_sync() {
            Some(job) => self.complete_sync(job.run()),
            None => Ok(self.journal.durable()),
        }
    }

    /// The position up to which all operations survive loss of power.
    pub fn durable(&self) -> Position {
        self.journal.durable()
    }

    /// The position of the last journal record.
    pub fn last_position(&self) -> Position {
        self.journal.last()
    }

    /// Checks that no disk has failed, so that the pool takes operations.
    ///
    /// # Errors
    /// The disk that has failed.
    pub fn usable(&self) -> Result<(), DiskFailed> {
        match self.devices.iter().find(|d| d.failed()) {
            Some(device) => Err(DiskFailed { disk: device.name.clone() }),
            None => Ok(()),
        }
    }

    /// Closes the pool and its disks. Syncs first, and writes into the label that all journal records are durable.
    ///
    /// # Errors
    /// `Failed`. The pool is closed in this case, too, and can be opened again.
    ///
    /// # Panics
    /// The result of a [`SyncJob`] is missing.
    pub fn close(mut self) -> Result<(), StoreError> {
        self.sync()?;
        self.label.generation += 1;
        self.label.floor = self.journal.durable().0;
        Ok(crate::label::write(&self.devices[0], &self.label)?)
    }

    /// Writes a record to the journal and applies it in memory. The caller has checked the record's fields. `spare` is
    /// the number of journal bytes that must stay free.
    pub(crate) fn append_and_apply(
        &mut self,
        record: &JournalRecord,
        data: &[u8],
        spare: u64,
    ) -> Result<Position, StoreError> {
        self.check_disks()?;
        if !self.journal.has_room(record, data.len(), spare) {
            self.operation_refused = true;
            return Err(StoreError::JournalFull);
        }
        let page = self.journal.append(record, data)?;
        let position = self.journal.last();
        self.apply(record, page, position.0);
        Ok(position)
    }

    /// Applies a record in memory. `page` is the ring page of the first data block, `number` the number of the record.
    /// Replay calls it, too, so it must be idempotent.
    pub(crate) fn apply(&mut self, record: &JournalRecord, page: u32, number: u64) {
        match record {
            JournalRecord::Note | JournalRecord::Filler => {}
            JournalRecord::Write { volume, stamp, block, birth, crcs } => {
                if self.add_unconfirmed(*volume, *stamp, block.run(crcs.len() as u64)) {
                    for (i, crc) in crcs.iter().enumerate() {
                        let in_journal = JournalBlock { page: page + i as u32, crc: *crc };
                        self.record_written_block(*volume, *block + i as u64, *stamp, *birth, in_journal);
                    }
                }
            }
            JournalRecord::Discard { volume, stamp, block, count } => {
                let blocks = block.run(*count);
                if self.add_unconfirmed(*volume, *stamp, blocks.clone()) {
                    self.record_discarded_blocks(*volume, *stamp, blocks);
                }
            }
            JournalRecord::Confirm { volume, seq } => self.apply_confirm(*volume, *seq),
            JournalRecord::Dirty { volume, extents } => self.state.set_dirty(*volume, extents.clone(), true, number),
            JournalRecord::Clean { volume, extents } => self.state.set_dirty(*volume, extents.clone(), false, number),
            JournalRecord::Meta { key, value } => self.state.set_meta(key, value.as_deref()),
            JournalRecord::Create { volume, blocks } => self.state.create(*volume, *blocks),
            JournalRecord::Resize { volume, blocks } => {
                if let Some(v) = self.state.volumes.get_mut(volume) {
                    v.blocks = *blocks;
                }
            }
            JournalRecord::MarkLost { volume, stamp, extent, blocks } => {
                if self.add_unconfirmed(*volume, *stamp, extent.blocks()) {
                    self.record_lost_blocks((*volume, *extent), *stamp, *blocks);
                }
            }
            JournalRecord::Delete { volume } => {
                self.state.delete(*volume);
                let slots = self.active.remove_volume(*volume);
                self.space.release_reservation(slots);
            }
        }
    }

    /// Adds the extents of a block range to the volume's unconfirmed extents, and raises the volume's newest stamp.
    /// False if the volume does not exist.
    fn add_unconfirmed(&mut self, volume: VolumeId, stamp: Stamp, blocks: Range<BlockIndex>) -> bool {
        let Some(v) = self.state.volumes.get_mut(&volume).filter(|v| !v.deleting) else { return false };
        v.last = v.last.max(stamp);
        for (extent, _) in extent_masks(blocks) {
            v.unconfirmed.add(extent, stamp);
        }
        true
    }

    /// Records in the overlay that a block was written, and reserves a slot for its extent if it has none.
    fn record_written_block(
        &mut self,
        volume: VolumeId,
        block: BlockIndex,
        stamp: Stamp,
        birth: Birth,
        in_journal: JournalBlock,
    ) {
        let needs_slot = self.needs_slot((volume, block.extent()));
        let change = self.active.record_write(volume, block, stamp, birth, in_journal);
        if needs_slot {
            change.reserved = true;
            self.space.reserve(1);
        }
    }

    /// Records in the overlay that blocks were discarded; extents that do not exist are skipped.
    fn record_discarded_blocks(&mut self, volume: VolumeId, stamp: Stamp, blocks: Range<BlockIndex>) {
        let birth = self.state.volumes.get(&volume).map_or(Birth::default(), |v| v.birth);
        for (extent, mask) in extent_masks(blocks) {
            let id = (volume, extent);
            let exists = self.extent_map.get(volume, extent).is_some()
                || self.active.get(id).is_some()
                || self.frozen_change(id).is_some();
            if exists {
                self.active.record_discard(id, mask, stamp, birth);
            }
        }
    }

    /// Whether a write to this extent needs a free slot and none is reserved for it yet.
    fn needs_slot(&self, id: ExtentId) -> bool {
        if self.active.get(id).is_some_and(|c| c.reserved) {
            return false;
        }
        let stored = self.extent_map.get(id.0, id.1).is_some();
        match self.frozen_change(id) {
            Some(change) => change.removing || !(stored || change.reserved || change.placed),
            None => !stored,
        }
    }

    /// The change of an extent that the running checkpoint covers.
    pub(crate) fn frozen_change(&self, id: ExtentId) -> Option<&ExtentChange> {
        self.running_checkpoint.as_ref()?.frozen.get(id)
    }

    /// An extent's record in the index of `disk`, which the extent map names. `None` if the running checkpoint has
    /// removed the record; in each other case a missing record is an error. An error comes with the number of the disk.
    pub(crate) fn stored_row(
        &self,
        volume: VolumeId,
        extent: ExtentIndex,
        disk: usize,
    ) -> Result<Option<(Birth, ExtentRow)>, (usize, IndexError)> {
        let row = self.indexes[disk].extent(volume, extent).map_err(|e| (disk, e))?;
        if row.is_none() && !self.frozen_change((volume, extent)).is_some_and(|c| c.removing) {
            let what = format!("the record of extent {extent} of volume {volume} is missing");
            return Err((disk, IndexError::Damaged(what)));
        }
        Ok(row)
    }

    /// [`Pool::usable`] as the error of an operation. An operation asks this before it looks for room: after a failed
    /// checkpoint no room comes any more, and the caller must learn of the failure instead of waiting.
    pub(crate) fn check_disks(&self) -> Result<(), StoreError> {
        self.usable().map_err(|failed| StoreError::Failed { disk: failed.disk, source: None })
    }

    /// Byte offset of a slot on its disk.
    pub(crate) fn slot_offset(&self, disk: usize, slot: u64) -> u64 {
        self.extents_start[disk] + slot * EXTENT as u64
    }

    /// The volume, after a check that it exists, that `blocks` is not empty and lies inside, and that the caller's own
    /// condition `allowed` holds.
    fn writable_volume(
        &self,
        volume: VolumeId,
        blocks: Range<BlockIndex>,
        allowed: bool,
    ) -> Result<&crate::state::Volume, StoreError> {
        let v = self.state.live(volume).ok_or(StoreError::NoVolume { volume })?;
        if blocks.is_empty() || !allowed || blocks.end.0 > v.blocks {
            return Err(StoreError::Range { volume, block: blocks.start, count: blocks.length() });
        }
        Ok(v)
    }

    /// Refuses the operation if the active overlay has `limit` extents or more.
    fn check_overlay_room(&mut self, limit: usize) -> Result<(), StoreError> {
        if self.active.0.len() >= limit {
            self.operation_refused = true;
            return Err(StoreError::JournalFull);
        }
        Ok(())
    }

    /// Number of journal bytes that writes leave free for discards, dirty marks and named values.
    pub(crate) fn write_spare(&self) -> u64 {
        (self.journal.ring.len / 8).min(16 << 20)
    }
}
