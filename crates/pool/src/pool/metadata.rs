//! Operations on metadata: volumes, dirty marks, confirmations, named values.

use super::Pool;
use crate::journal::record::Record;
use crate::{MAX_VOLUME_BLOCKS, META_KEY_MAX, META_TOTAL_MAX, META_VALUE_MAX, Position, StoreError};
use dyad_types::{BlockIndex, EXTENT_BLOCKS, ExtentIndex, ExtentSet, IndexRange, Seq, Stamp, VolumeId};
use std::ops::Range;

/// A named value for [`Pool::meta_put`].
#[derive(Clone, Copy, Debug)]
pub struct MetaEntry<'a> {
    /// 1 to [`META_KEY_MAX`] bytes.
    pub key: &'a [u8],
    /// At most [`META_VALUE_MAX`] bytes.
    pub value: &'a [u8],
}

/// Number of journal records after which a confirmation of the same volume is journalled again.
const CONFIRM_EVERY: u64 = 256;

impl Pool {
    /// Creates an empty volume of `blocks` blocks. Durable after a sync.
    ///
    /// # Errors
    /// `Exists`, also while an old volume of this id is being deleted; `Range` for 0 or more than [`MAX_VOLUME_BLOCKS`];
    /// `JournalFull`; `Failed`.
    pub fn create_volume(&mut self, volume: VolumeId, blocks: u64) -> Result<Position, StoreError> {
        if self.state.volumes.contains_key(&volume) {
            return Err(StoreError::Exists { volume });
        }
        if blocks == 0 || blocks > MAX_VOLUME_BLOCKS {
            return Err(StoreError::Range { volume, block: BlockIndex(0), count: blocks });
        }
        self.log(&Record::Create { volume, blocks }, &[], 0)
    }

    /// Grows a volume; the new blocks read as zeros. Durable after a sync.
    ///
    /// # Errors
    /// `NoVolume`; `Range` if the volume would shrink or exceed [`MAX_VOLUME_BLOCKS`]; `JournalFull`; `Failed`.
    pub fn resize_volume(&mut self, volume: VolumeId, blocks: u64) -> Result<Position, StoreError> {
        let old = self.state.live(volume).ok_or(StoreError::NoVolume { volume })?.blocks;
        if blocks < old || blocks > MAX_VOLUME_BLOCKS {
            return Err(StoreError::Range { volume, block: BlockIndex(0), count: blocks });
        }
        self.log(&Record::Resize { volume, blocks }, &[], 0)
    }

    /// Deletes a volume. For callers it does not exist from now on; the next checkpoints free its space.
    ///
    /// # Errors
    /// `NoVolume`, `JournalFull`, `Failed`.
    pub fn delete_volume(&mut self, volume: VolumeId) -> Result<Position, StoreError> {
        self.state.live(volume).ok_or(StoreError::NoVolume { volume })?;
        self.log(&Record::Delete { volume }, &[], 0)
    }

    /// Marks extents that have to be copied to the peer. The marks are durable once the returned position is durable.
    ///
    /// # Errors
    /// `NoVolume`; `Range` for extents beyond the volume's end; `JournalFull`; `Failed`.
    pub fn mark_dirty(&mut self, volume: VolumeId, extents: Range<ExtentIndex>) -> Result<Position, StoreError> {
        let v = self.checked_extents(volume, &extents)?;
        if v.dirty.contains_all(&extents) {
            return Ok(Position(v.marked));
        }
        self.log(&Record::Dirty { volume, extents }, &[], 0)
    }

    /// Removes marks. Durable after a sync; if a crash undoes it, extents are copied without need.
    ///
    /// # Errors
    /// `NoVolume`; `Range` for extents beyond the volume's end; `JournalFull`; `Failed`.
    pub fn clear_dirty(&mut self, volume: VolumeId, extents: Range<ExtentIndex>) -> Result<Position, StoreError> {
        let v = self.checked_extents(volume, &extents)?;
        if !v.dirty.contains_any(&extents) {
            return Ok(self.journal.last());
        }
        self.log(&Record::Clean { volume, extents }, &[], 0)
    }

    /// The marked extents of a volume; `None` if there is no such volume.
    pub fn dirty(&self, volume: VolumeId) -> Option<&ExtentSet> {
        Some(&self.state.live(volume)?.dirty)
    }

    /// Both nodes hold every write up to `seq` on stable storage: removes these writes from the list of unconfirmed extents.
    ///
    /// Not every confirmation is journalled: after a crash the list may contain confirmed extents again, and never
    /// lacks an unconfirmed one.
    ///
    /// # Errors
    /// `NoVolume`, `Failed`.
    pub fn confirm(&mut self, volume: VolumeId, seq: Seq) -> Result<(), StoreError> {
        self.usable().map_err(|failed| StoreError::Failed { disk: failed.disk, source: None })?;
        let next = self.journal.last().0;
        let v = self.state.live(volume).ok_or(StoreError::NoVolume { volume })?;
        if seq <= v.confirmed {
            return Ok(());
        }
        let log_later = next < v.confirm_logged + CONFIRM_EVERY;
        self.apply_confirm(volume, seq);
        if let Some(v) = self.state.volumes.get_mut(&volume) {
            v.confirm_pending = true;
        }
        if log_later { Ok(()) } else { self.journal_confirm(volume) }
    }

    /// Journals the confirmations that are only in memory. Called when the pool is idle.
    pub(crate) fn journal_confirms(&mut self) -> Result<(), StoreError> {
        let pending = self.state.volumes.iter().filter(|(_, v)| v.confirm_pending && !v.deleting).map(|(id, _)| *id);
        for volume in pending.collect::<Vec<_>>() {
            self.journal_confirm(volume)?;
        }
        Ok(())
    }

    /// Journals a volume's newest confirmation if the journal has room as for a write; otherwise the next checkpoint
    /// stores it.
    fn journal_confirm(&mut self, volume: VolumeId) -> Result<(), StoreError> {
        let Some(v) = self.state.live(volume) else { return Ok(()) };
        let record = Record::Confirm { volume, seq: v.confirmed };
        if !self.journal.has_room(&record, 0, self.write_spare()) {
            return Ok(());
        }
        let position = self.log(&record, &[], 0)?;
        if let Some(v) = self.state.volumes.get_mut(&volume) {
            v.confirm_logged = position.0;
            v.confirm_pending = false;
        }
        Ok(())
    }

    pub(super) fn apply_confirm(&mut self, volume: VolumeId, seq: Seq) {
        if let Some(v) = self.state.volumes.get_mut(&volume) {
            v.confirmed = seq.max(v.confirmed);
            v.unconfirmed.confirm(seq);
        }
    }

    /// Extents that may differ from the peer's: all that were written or discarded after the last confirmed
    /// sequence number, and possibly others. `None` if there is no such volume.
    pub fn unconfirmed(&self, volume: VolumeId) -> Option<ExtentSet> {
        Some(self.state.live(volume)?.unconfirmed.all())
    }

    /// Epoch and sequence number of the newest write. `None` if there is no such volume.
    pub fn last(&self, volume: VolumeId) -> Option<Stamp> {
        Some(self.state.live(volume)?.last)
    }

    /// The last confirmed sequence number; after a crash it may be an older one. `None` if there is no such volume.
    pub fn confirmed(&self, volume: VolumeId) -> Option<Seq> {
        Some(self.state.live(volume)?.confirmed)
    }

    /// Stores a named value. Durable after a sync.
    ///
    /// # Errors
    /// `TooLong` beyond [`META_KEY_MAX`], [`META_VALUE_MAX`] or [`META_TOTAL_MAX`]; `JournalFull`; `Failed`.
    pub fn meta_put(&mut self, entry: MetaEntry<'_>) -> Result<Position, StoreError> {
        let MetaEntry { key, value } = entry;
        let total = self.state.meta_bytes_with(key, Some(value));
        if key.is_empty() || key.len() > META_KEY_MAX || value.len() > META_VALUE_MAX || total > META_TOTAL_MAX {
            return Err(StoreError::TooLong);
        }
        self.log(&Record::Meta { key: key.to_vec(), value: Some(value.to_vec()) }, &[], 0)
    }

    /// Deletes a value. Durable after a sync.
    ///
    /// # Errors
    /// `JournalFull`, `Failed`.
    pub fn meta_delete(&mut self, key: &[u8]) -> Result<Position, StoreError> {
        if self.state.meta(key).is_none() {
            return Ok(self.journal.last());
        }
        self.log(&Record::Meta { key: key.to_vec(), value: None }, &[], 0)
    }

    /// A value stored by [`Pool::meta_put`].
    pub fn meta_get(&self, key: &[u8]) -> Option<&[u8]> {
        self.state.meta(key)
    }

    /// The keys of all values, ascending.
    pub fn meta_keys(&self) -> impl Iterator<Item = &[u8]> {
        self.state.meta_keys()
    }

    fn checked_extents(
        &self,
        volume: VolumeId,
        extents: &Range<ExtentIndex>,
    ) -> Result<&crate::state::Volume, StoreError> {
        let v = self.state.live(volume).ok_or(StoreError::NoVolume { volume })?;
        if extents.is_empty() || extents.end.0 > v.blocks.div_ceil(EXTENT_BLOCKS) {
            let count = extents.length().saturating_mul(EXTENT_BLOCKS);
            return Err(StoreError::Range { volume, block: extents.start.first_block(), count });
        }
        Ok(v)
    }
}
