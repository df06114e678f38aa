//! Operations of the pool on metadata: volumes, dirty marks, confirmations, named values.

use super::Pool;
use crate::journal::record::JournalRecord;
use crate::{MAX_VOLUME_BLOCKS, META_KEY_MAX, META_TOTAL_MAX, META_VALUE_MAX, Position, StoreError};
use dyad_types::{BlockIndex, EXTENT_BLOCKS, ExtentIndex, ExtentSet, IndexRange, Seq, Stamp, VolumeId};
use std::ops::Range;

/// A named value for [`Pool::meta_put`]; the pool does not interpret it.
#[derive(Clone, Copy, Debug)]
pub struct MetaEntry<'a> {
    /// 1 to [`META_KEY_MAX`] bytes.
    pub key: &'a [u8],
    /// At most [`META_VALUE_MAX`] bytes.
    pub value: &'a [u8],
}

/// A confirmation is journalled if the last one of its volume was journalled at least this many records before.
const CONFIRM_INTERVAL_RECORDS: u64 = 256;

impl Pool {
    /// Creates a volume of `blocks` blocks, which read as zeros. Durable after a sync.
    ///
    /// # Errors
    /// `Exists`, also while an old volume of this id is being deleted; `Range` for 0 or more than
    /// [`MAX_VOLUME_BLOCKS`]; `JournalFull`; `Failed`.
    pub fn create_volume(&mut self, volume: VolumeId, blocks: u64) -> Result<Position, StoreError> {
        if self.state.volumes.contains_key(&volume) {
            return Err(StoreError::Exists { volume });
        }
        if blocks == 0 || blocks > MAX_VOLUME_BLOCKS {
            return Err(StoreError::Range { volume, block: BlockIndex(0), count: blocks });
        }
        self.append_and_apply(&JournalRecord::Create { volume, blocks }, &[], 0)
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
        self.append_and_apply(&JournalRecord::Resize { volume, blocks }, &[], 0)
    }

    /// Deletes a volume. Reads and writes of it fail from now on; the next checkpoints free its space. Until they have
    /// done so, no volume with this id can be created.
    ///
    /// # Errors
    /// `NoVolume`, `JournalFull`, `Failed`.
    pub fn delete_volume(&mut self, volume: VolumeId) -> Result<Position, StoreError> {
        self.state.live(volume).ok_or(StoreError::NoVolume { volume })?;
        self.append_and_apply(&JournalRecord::Delete { volume }, &[], 0)
    }

    /// Marks extents as dirty: the peer may lack data of them. The marks are durable once the returned position is
    /// durable, also if all extents were marked before.
    ///
    /// # Errors
    /// `NoVolume`; `Range` for extents beyond the volume's end; `JournalFull`; `Failed`.
    pub fn mark_dirty(&mut self, volume: VolumeId, extents: Range<ExtentIndex>) -> Result<Position, StoreError> {
        let v = self.volume_with_extents(volume, &extents)?;
        if v.dirty.contains_all(&extents) {
            return Ok(Position(v.dirty_record));
        }
        self.append_and_apply(&JournalRecord::Dirty { volume, extents }, &[], 0)
    }

    /// Removes the dirty marks of extents. Durable after a sync; if a crash undoes it, these extents are copied to the
    /// peer without need.
    ///
    /// # Errors
    /// `NoVolume`; `Range` for extents beyond the volume's end; `JournalFull`; `Failed`.
    pub fn clear_dirty(&mut self, volume: VolumeId, extents: Range<ExtentIndex>) -> Result<Position, StoreError> {
        let v = self.volume_with_extents(volume, &extents)?;
        if !v.dirty.contains_any(&extents) {
            return Ok(self.journal.last());
        }
        self.append_and_apply(&JournalRecord::Clean { volume, extents }, &[], 0)
    }

    /// The dirty extents of a volume; `None` if the volume does not exist.
    pub fn dirty(&self, volume: VolumeId) -> Option<&ExtentSet> {
        Some(&self.state.live(volume)?.dirty)
    }

    /// Records that both nodes hold all writes up to `seq` durably. Extents without a later write leave the set of
    /// unconfirmed extents, not always at once.
    ///
    /// Not every confirmation is journalled: after a crash the set may contain confirmed extents again. It never lacks
    /// an unconfirmed extent.
    ///
    /// # Errors
    /// `NoVolume`, `Failed`.
    pub fn confirm(&mut self, volume: VolumeId, seq: Seq) -> Result<(), StoreError> {
        self.check_disks()?;
        let last = self.journal.last().0;
        let v = self.state.live(volume).ok_or(StoreError::NoVolume { volume })?;
        if seq <= v.confirmed {
            return Ok(());
        }
        let journal_later = last < v.confirm_record + CONFIRM_INTERVAL_RECORDS;
        self.apply_confirm(volume, seq);
        if let Some(v) = self.state.volumes.get_mut(&volume) {
            v.confirm_pending = true;
        }
        if journal_later { Ok(()) } else { self.journal_confirm(volume) }
    }

    /// Journals the confirmations that are only in memory, so that an idle pool has none.
    pub(crate) fn journal_confirms(&mut self) -> Result<(), StoreError> {
        let pending = self.state.volumes.iter().filter(|(_, v)| v.confirm_pending && !v.deleting).map(|(id, _)| *id);
        for volume in pending.collect::<Vec<_>>() {
            self.journal_confirm(volume)?;
        }
        Ok(())
    }

    /// Journals a volume's newest confirmation, unless the journal is so full that writes are refused; then the next
    /// checkpoint stores it in the index.
    fn journal_confirm(&mut self, volume: VolumeId) -> Result<(), StoreError> {
        let Some(v) = self.state.live(volume) else { return Ok(()) };
        let record = JournalRecord::Confirm { volume, seq: v.confirmed };
        if !self.journal.has_room(&record, 0, self.write_spare()) {
            return Ok(());
        }
        let position = self.append_and_apply(&record, &[], 0)?;
        if let Some(v) = self.state.volumes.get_mut(&volume) {
            v.confirm_record = position.0;
            v.confirm_pending = false;
        }
        Ok(())
    }

    /// Applies a confirmation in memory.
    pub(super) fn apply_confirm(&mut self, volume: VolumeId, seq: Seq) {
        if let Some(v) = self.state.volumes.get_mut(&volume) {
            v.confirmed = seq.max(v.confirmed);
            v.unconfirmed.confirm(seq);
        }
    }

    /// The extents that may differ from the peer's: all extents that were written or discarded after the last confirmed
    /// write, and possibly others. `None` if the volume does not exist.
    pub fn unconfirmed(&self, volume: VolumeId) -> Option<ExtentSet> {
        Some(self.state.live(volume)?.unconfirmed.all())
    }

    /// The stamp of the newest write or discard of a volume. `None` if the volume does not exist.
    pub fn last(&self, volume: VolumeId) -> Option<Stamp> {
        Some(self.state.live(volume)?.last)
    }

    /// The number of the last confirmed write of a volume; after a crash it may be an older one. `None` if the volume
    /// does not exist.
    pub fn confirmed(&self, volume: VolumeId) -> Option<Seq> {
        Some(self.state.live(volume)?.confirmed)
    }

    /// Stores a named value, replacing the value with the same key. Durable after a sync.
    ///
    /// # Errors
    /// `TooLong` for an empty key, or beyond [`META_KEY_MAX`], [`META_VALUE_MAX`] or [`META_TOTAL_MAX`]; `JournalFull`;
    /// `Failed`.
    pub fn meta_put(&mut self, entry: MetaEntry<'_>) -> Result<Position, StoreError> {
        let MetaEntry { key, value } = entry;
        let total = self.state.meta_bytes_with(key, Some(value));
        if key.is_empty() || key.len() > META_KEY_MAX || value.len() > META_VALUE_MAX || total > META_TOTAL_MAX {
            return Err(StoreError::TooLong);
        }
        self.append_and_apply(&JournalRecord::Meta { key: key.to_vec(), value: Some(value.to_vec()) }, &[], 0)
    }

    /// Deletes the named value with this key, if there is one. Durable after a sync.
    ///
    /// # Errors
    /// `JournalFull`, `Failed`.
    pub fn meta_delete(&mut self, key: &[u8]) -> Result<Position, StoreError> {
        if self.state.meta(key).is_none() {
            return Ok(self.journal.last());
        }
        self.append_and_apply(&JournalRecord::Meta { key: key.to_vec(), value: None }, &[], 0)
    }

    /// The value that [`Pool::meta_put`] stored under this key.
    pub fn meta_get(&self, key: &[u8]) -> Option<&[u8]> {
        self.state.meta(key)
    }

    /// The keys of all named values, ascending.
    pub fn meta_keys(&self) -> impl Iterator<Item = &[u8]> {
        self.state.meta_keys()
    }

    /// The volume, after a check that it exists and that `extents` is not empty and lies inside.
    fn volume_with_extents(
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
