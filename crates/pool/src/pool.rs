//! [`Pool`]: each operation is first written to the journal and then applied in memory by the code that also replays
//! the journal.

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
use crate::journal::record::Record;
use crate::label::Label;
use crate::overlay::{Change, ExtentId, JournalBlock, Overlay, split};
use crate::space::Space;
use crate::state::State;
use crate::sync::{SyncDone, SyncJob};
use crate::{DiskFailed, MAX_DISCARD_BLOCKS, MAX_WRITE_BLOCKS, OVERLAY_LIMIT, Position, StoreError, checksum};
use bytes::Bytes;
use dyad_types::{
    BLOCK, BlockIndex, EXTENT, EXTENT_BLOCKS, ExtentImage, ExtentIndex, IndexRange, Run, Stamp, VolumeId,
};
use std::ops::Range;
use std::sync::Arc;

/// The store of one node. One thread calls it; the jobs it returns may run on other threads.
pub struct Pool {
    /// The label of the first disk, as last written.
    pub(crate) label: Label,
    pub(crate) devices: Arc<[Arc<Device>]>,
    pub(crate) indexes: Indexes,
    /// Byte offset of the first extent of each disk.
    pub(crate) extents_at: Vec<u64>,
    pub(crate) journal: Journal,
    pub(crate) state: State,
    /// Changes since the running checkpoint began, or since the last one.
    pub(crate) active: Overlay,
    pub(crate) running: Option<Checkpoint>,
    pub(crate) extent_map: ExtentMap,
    pub(crate) space: Space,
    pub(crate) syncing: bool,
    /// A write was refused for lack of space or journal: a checkpoint may help.
    pub(crate) out_of_space: bool,
    /// Last operation at the last call of [`Pool::checkpoint_job`] that found nothing to do.
    pub(crate) idle_at: Position,
    /// Data blocks found corrupt in the journal, at open or when they were moved to their extents.
    pub(crate) corrupt_blocks: u64,
    #[cfg(test)]
    pub(crate) planted: crate::tests::Planted,
}

impl Pool {
    /// Writes whole blocks to the journal. On return the write survives SIGKILL; it is durable after a sync.
    ///
    /// The `seq` of the writes of one volume need not ascend; the last call decides the content.
    ///
    /// # Errors
    /// `NoVolume`, `Range`, `NoSpace`, `JournalFull`: the pool is unchanged. `Failed`: the pool is closed to every operation.
    pub fn write(
        &mut self,
        volume: VolumeId,
        stamp: Stamp,
        block: BlockIndex,
        data: Bytes,
    ) -> Result<Position, StoreError> {
        let count = (data.len() / BLOCK) as u64;
        let whole = data.len().is_multiple_of(BLOCK) && count <= MAX_WRITE_BLOCKS;
        let birth = self.checked(volume, block.run(count), whole)?.birth;
        let numbered = block.run(count).each().zip(data.chunks_exact(BLOCK));
        let crcs = numbered.map(|(number, data)| checksum::block(volume, number, birth, data)).collect();
        let new = split(block.run(count)).filter(|(extent, _)| self.wants_slot((volume, *extent))).count() as u64;
        if !self.space.can_reserve(new) {
            self.out_of_space = true;
            return Err(StoreError::NoSpace);
        }
        let record = Record::Write { volume, stamp, block, birth, crcs };
        self.overlay_room(OVERLAY_LIMIT)?;
        let spare = self.write_spare();
        self.log(&record, &data, spare)
    }

    /// Discards blocks: they read as zeros, and their space is freed at the next checkpoint.
    ///
    /// # Errors
    /// As [`Pool::write`], but never `NoSpace`; a discard may use journal space that writes leave free.
    pub fn discard(
        &mut self,
        volume: VolumeId,
        stamp: Stamp,
        blocks: Range<BlockIndex>,
    ) -> Result<Position, StoreError> {
        let count = blocks.length();
        self.checked(volume, blocks.clone(), count <= MAX_DISCARD_BLOCKS)?;
        self.overlay_room(OVERLAY_LIMIT + OVERLAY_LIMIT / 4)?;
        self.log(&Record::Discard { volume, stamp, block: blocks.start, count }, &[], 0)
    }

    /// Makes an extent equal to `image` with `stamp`: writes the present blocks, discards the absent blocks, and does not
    /// change the bad blocks.
    ///
    /// Takes several records: a crash between them leaves a mix of old and new blocks, so the extent must stay dirty
    /// at its source until the returned position is durable. Blocks beyond the end of the volume are ignored.
    ///
    /// # Errors
    /// As [`Pool::write`]; after an error part of the image may be written. `Range` also if the image is not sound.
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

    /// A sync of everything written so far, to run on any thread. `None` while another sync runs or if all is durable.
    pub fn begin_sync(&mut self) -> Option<SyncJob> {
        if self.syncing || self.journal.last() <= self.journal.durable() {
            return None;
        }
        self.syncing = true;
        Some(SyncJob { device: self.devices[0].clone(), mark: self.journal.mark() })
    }

    /// Takes the result of a sync; returns the position up to which all operations are durable.
    ///
    /// # Errors
    /// `Failed`: the disk refused the sync; the pool is closed to every operation.
    pub fn complete_sync(&mut self, done: SyncDone) -> Result<Position, StoreError> {
        self.syncing = false;
        done.result?;
        self.journal.synced(done.mark);
        Ok(self.journal.durable())
    }

    /// Syncs on the calling thread.
    ///
    /// # Errors
    /// `Failed`: a disk failed now or earlier.
    ///
    /// # Panics
    /// A [`SyncJob`] was begun and not completed.
    pub fn sync(&mut self) -> Result<Position, StoreError> {
        self.usable().map_err(|failed| StoreError::Failed { disk: failed.disk, source: None })?;
        assert!(!self.syncing, "complete_sync comes before the next sync");
        match self.begin_sync() {
            Some(job) => self.complete_sync(job.run()),
            None => Ok(self.journal.durable()),
        }
    }

    /// Position up to which every operation survives loss of power.
    pub fn durable(&self) -> Position {
        self.journal.durable()
    }

    /// Position of the last operation.
    pub fn last_position(&self) -> Position {
        self.journal.last()
    }

    /// Whether the pool takes operations.
    ///
    /// # Errors
    /// A disk has failed; every operation then fails.
    pub fn usable(&self) -> Result<(), DiskFailed> {
        match self.devices.iter().find(|d| d.failed()) {
            Some(device) => Err(DiskFailed { disk: device.name.clone() }),
            None => Ok(()),
        }
    }

    /// Syncs, writes to the label up to which record the journal is durable, and closes the disks.
    ///
    /// # Errors
    /// `Failed`. The pool is closed also then and can be opened again.
    pub fn close(mut self) -> Result<(), StoreError> {
        self.sync()?;
        self.label.generation += 1;
        self.label.floor = self.journal.durable().0;
        Ok(crate::label::write(&self.devices[0], &self.label)?)
    }

    /// Writes a record to the journal and applies it. The caller has checked its fields.
    pub(crate) fn log(&mut self, record: &Record, data: &[u8], spare: u64) -> Result<Position, StoreError> {
        self.usable().map_err(|failed| StoreError::Failed { disk: failed.disk, source: None })?;
        if !self.journal.has_room(record, data.len(), spare) {
            self.out_of_space = true;
            return Err(StoreError::JournalFull);
        }
        let page = self.journal.append(record, data)?;
        let position = self.journal.last();
        self.apply(record, page, position.0);
        Ok(position)
    }

    /// Applies a record to the state in memory. Also used by replay, so it must be idempotent.
    pub(crate) fn apply(&mut self, record: &Record, page: u32, number: u64) {
        match record {
            Record::Note | Record::Filler => {}
            Record::Write { volume, stamp, block, birth, crcs } => {
                if self.touch(*volume, *stamp, block.run(crcs.len() as u64)) {
                    for (i, crc) in crcs.iter().enumerate() {
                        let place = JournalBlock { page: page + i as u32, crc: *crc };
                        self.put(*volume, *block + i as u64, *stamp, *birth, place);
                    }
                }
            }
            Record::Discard { volume, stamp, block, count } => {
                let blocks = block.run(*count);
                if self.touch(*volume, *stamp, blocks.clone()) {
                    self.clear(*volume, *stamp, blocks);
                }
            }
            Record::Confirm { volume, seq } => self.apply_confirm(*volume, *seq),
            Record::Dirty { volume, extents } => self.state.mark(*volume, extents.clone(), true, number),
            Record::Clean { volume, extents } => self.state.mark(*volume, extents.clone(), false, number),
            Record::Meta { key, value } => self.state.set_meta(key, value.as_deref()),
            Record::Create { volume, blocks } => self.state.create(*volume, *blocks),
            Record::Resize { volume, blocks } => {
                if let Some(v) = self.state.volumes.get_mut(volume) {
                    v.blocks = *blocks;
                }
            }
            Record::Delete { volume } => {
                self.state.delete(*volume);
                let slots = self.active.forget(*volume);
                self.space.put_back(slots);
            }
        }
    }

    /// Adds a range to the volume's unconfirmed extents and updates its newest stamp; false if the volume does not exist.
    fn touch(&mut self, volume: VolumeId, stamp: Stamp, blocks: Range<BlockIndex>) -> bool {
        let Some(v) = self.state.volumes.get_mut(&volume).filter(|v| !v.deleting) else { return false };
        v.last = v.last.max(stamp);
        for (extent, _) in split(blocks) {
            v.unconfirmed.touch(extent, stamp);
        }
        true
    }

    /// Records in the overlay that a block was written, and sets a slot aside for its extent if it has none.
    fn put(&mut self, volume: VolumeId, block: BlockIndex, stamp: Stamp, birth: Birth, place: JournalBlock) {
        let wants = self.wants_slot((volume, block.extent()));
        let change = self.active.put(volume, block, stamp, birth, place);
        if wants {
            change.reserved = true;
            self.space.set_aside(1);
        }
    }

    /// Records in the overlay that blocks were discarded; extents that do not exist are skipped.
    fn clear(&mut self, volume: VolumeId, stamp: Stamp, blocks: Range<BlockIndex>) {
        let birth = self.state.volumes.get(&volume).map_or(Birth::default(), |v| v.birth);
        for (extent, mask) in split(blocks) {
            let place = (volume, extent);
            let exists = self.extent_map.get(volume, extent).is_some()
                || self.active.get(place).is_some()
                || self.frozen_change(place).is_some();
            if exists {
                self.active.clear(place, mask, stamp, birth);
            }
        }
    }

    /// Whether a write to this extent needs a free slot that is not set aside for it yet.
    fn wants_slot(&self, place: ExtentId) -> bool {
        if self.active.get(place).is_some_and(|c| c.reserved) {
            return false;
        }
        let stored = self.extent_map.get(place.0, place.1).is_some();
        match self.frozen_change(place) {
            Some(change) => change.removing || !(stored || change.reserved || change.placed),
            None => !stored,
        }
    }

    pub(crate) fn frozen_change(&self, place: ExtentId) -> Option<&Change> {
        self.running.as_ref()?.frozen.get(place)
    }

    /// An extent's record in the index of `disk`. Absent only if the running checkpoint removes it.
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

    pub(crate) fn slot_offset(&self, disk: usize, slot: u64) -> u64 {
        self.extents_at[disk] + slot * EXTENT as u64
    }

    fn checked(
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

    fn overlay_room(&mut self, limit: usize) -> Result<(), StoreError> {
        if self.active.0.len() >= limit {
            self.out_of_space = true;
            return Err(StoreError::JournalFull);
        }
        Ok(())
    }

    /// Journal bytes that writes leave free for discards, marks and named values.
    fn write_spare(&self) -> u64 {
        (self.journal.ring.len / 8).min(16 << 20)
    }
}
