//! Metadata: volumes, their dirty and unconfirmed extents, named values. All of it is in memory. Changes are
//! journalled, except some confirmations, and checkpoints store the metadata in the index of disk 0.

use crate::birth::Birth;
use crate::index::key::{self, Patch};
use crate::index::row::{self, VolumeRow};
use dyad_types::{CHUNK_EXTENTS, ExtentIndex, ExtentSet, IndexRange, Seq, Stamp, VolumeId};
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

/// Largest number of groups of the unconfirmed extents of a volume. A confirmation removes the groups that it covers
/// wholly.
const UNCONFIRMED_GROUPS_MAX: usize = 4;

/// The extents that were written since the last confirmation, in groups. An extent leaves the set together with its
/// group, so the set may contain further extents: these are compared with the peer's without need.
#[derive(Clone, Debug, Default)]
pub(crate) struct UnconfirmedExtents {
    /// The groups, oldest first, each with the highest sequence number of its writes. New writes are added to the last
    /// group.
    groups: Vec<(Seq, ExtentSet)>,
}

impl UnconfirmedExtents {
    pub fn add(&mut self, extent: ExtentIndex, stamp: Stamp) {
        let seq = stamp.seq;
        if self.groups.is_empty() {
            self.groups.push((seq, ExtentSet::default()));
        }
        let (highest, set) = self.groups.last_mut().expect("there is a group");
        *highest = seq.max(*highest);
        set.insert(extent.run(1));
    }

    /// Both nodes hold all writes up to `seq` durably: removes the groups without a later write.
    pub fn confirm(&mut self, seq: Seq) {
        self.groups.retain(|(highest, _)| *highest > seq);
        if self.groups.len() < UNCONFIRMED_GROUPS_MAX && self.groups.last().is_some_and(|(_, set)| !set.is_empty()) {
            self.groups.push((seq, ExtentSet::default()));
        }
    }

    pub fn all(&self) -> ExtentSet {
        let mut all = ExtentSet::default();
        for (_, set) in &self.groups {
            all.union(set);
        }
        all
    }

    /// A set with one group, from the index.
    pub fn restore(set: ExtentSet, highest: Seq) -> Self {
        if set.is_empty() { Self::default() } else { Self { groups: vec![(highest, set)] } }
    }

    /// The highest sequence number of all groups; 0 if there is no group.
    fn highest(&self) -> Seq {
        self.groups.iter().map(|(highest, _)| *highest).max().unwrap_or_default()
    }
}

/// The metadata of one volume in memory.
#[derive(Clone, Debug, Default)]
pub(crate) struct Volume {
    /// Size of the volume in blocks.
    pub blocks: u64,
    /// The birth that each block written now gets.
    pub birth: Birth,
    /// Stamp of the newest write or discard.
    pub last: Stamp,
    /// Both nodes hold the writes up to this one durably.
    pub confirmed: Seq,
    pub unconfirmed: UnconfirmedExtents,
    pub dirty: ExtentSet,
    /// Number of the journal record that marked extents as dirty last. Once it is durable, all dirty marks are.
    pub dirty_record: u64,
    /// Number of the journal record with the last confirmation that was journalled.
    pub confirm_record: u64,
    /// `confirmed` is newer than the value in journal and index.
    pub confirm_pending: bool,
    /// The volume was deleted and still has stored extents. Callers do not see it.
    pub deleting: bool,
}

/// The metadata of the pool in memory, and the record of changes for the next checkpoint.
#[derive(Default)]
pub(crate) struct MetadataState {
    pub volumes: BTreeMap<VolumeId, Volume>,
    /// The named values.
    meta: BTreeMap<Vec<u8>, Vec<u8>>,
    /// Sum of the lengths of all keys and values of `meta`.
    meta_bytes: usize,
    /// Keys of the named values that changed since the last patch.
    changed_meta: BTreeSet<Vec<u8>>,
    /// Chunks of dirty extents that changed since the last patch, by volume and number of the chunk.
    changed_dirty: BTreeSet<(VolumeId, u64)>,
    /// Chunks of unconfirmed extents that the index holds, by volume and number of the chunk.
    stored_unconfirmed: BTreeSet<(VolumeId, u64)>,
    /// Volumes that have a record in the index.
    stored_volumes: BTreeSet<VolumeId>,
}

impl MetadataState {
    /// The volume, if it exists and is not being deleted.
    pub fn live(&self, volume: VolumeId) -> Option<&Volume> {
        self.volumes.get(&volume).filter(|v| !v.deleting)
    }

    /// Adds a volume of `blocks` blocks.
    pub fn create(&mut self, volume: VolumeId, blocks: u64) {
        self.clear_all_dirty(volume);
        self.volumes.insert(volume, Volume { blocks, ..Volume::default() });
    }

    /// Marks a volume as being deleted: from now on it does not exist for callers. The next checkpoints free its
    /// extents.
    pub fn delete(&mut self, volume: VolumeId) {
        self.clear_all_dirty(volume);
        if let Some(v) = self.volumes.get_mut(&volume) {
            v.deleting = true;
            v.unconfirmed = UnconfirmedExtents::default();
        }
    }

    /// Removes a volume that is being deleted and has no stored extent any more.
    pub fn remove_deleted(&mut self, volume: VolumeId) {
        self.volumes.remove(&volume);
    }

    fn clear_all_dirty(&mut self, volume: VolumeId) {
        if let Some(v) = self.volumes.get_mut(&volume) {
            let chunks: Vec<u64> = v.dirty.chunk_numbers().collect();
            self.changed_dirty.extend(chunks.into_iter().map(|chunk| (volume, chunk)));
            v.dirty = ExtentSet::default();
        }
    }

    /// Sets or clears the dirty marks of extents. `record` is the number of the journal record that does so.
    pub fn set_dirty(&mut self, volume: VolumeId, extents: Range<ExtentIndex>, dirty: bool, record: u64) {
        let Some(v) = self.volumes.get_mut(&volume) else { return };
        if dirty {
            v.dirty_record = record;
        }
        for extent in extents.each() {
            let changed = if dirty { v.dirty.insert(extent.run(1)) } else { v.dirty.remove(extent.run(1)) };
            if changed > 0 {
                self.changed_dirty.insert((volume, extent.0 / CHUNK_EXTENTS));
            }
        }
    }

    pub fn meta(&self, key: &[u8]) -> Option<&[u8]> {
        self.meta.get(key).map(Vec::as_slice)
    }

    pub fn meta_keys(&self) -> impl Iterator<Item = &[u8]> {
        self.meta.keys().map(Vec::as_slice)
    }

    /// Sum of the lengths of all keys and values once `key` has this value, or none.
    pub fn meta_bytes_with(&self, key: &[u8], value: Option<&[u8]>) -> usize {
        let cost = |v: &[u8]| key.len() + v.len();
        self.meta_bytes + value.map_or(0, cost) - self.meta.get(key).map_or(0, |v| cost(v))
    }

    pub fn set_meta(&mut self, key: &[u8], value: Option<&[u8]>) {
        self.meta_bytes = self.meta_bytes_with(key, value);
        match value {
            Some(value) => self.meta.insert(key.to_vec(), value.to_vec()),
            None => self.meta.remove(key),
        };
        self.changed_meta.insert(key.to_vec());
    }

    /// The changes that make the index equal to this state. Clears the record of changes, so the caller must commit the
    /// patch or close the pool.
    pub fn take_patch(&mut self) -> Patch {
        let mut patch = Patch::default();
        for (id, v) in &mut self.volumes {
            v.confirm_pending = false;
            let row = VolumeRow {
                blocks: v.blocks,
                birth: v.birth,
                last: v.last,
                confirmed: v.confirmed,
                unconfirmed_highest: v.unconfirmed.highest(),
                deleting: v.deleting,
            };
            patch.push((key::volume(*id), Some(row.encode())));
        }
        let volumes = self.volumes.keys().copied().collect();
        for gone in self.stored_volumes.difference(&volumes) {
            patch.push((key::volume(*gone), None));
        }
        self.stored_volumes = volumes;
        for (volume, chunk) in std::mem::take(&mut self.changed_dirty) {
            let bits = self.volumes.get(&volume).and_then(|v| v.dirty.chunk(chunk));
            patch.push((key::dirty(volume, chunk), bits.map(|b| b.to_vec())));
        }
        let mut unconfirmed = BTreeSet::new();
        for (id, v) in &self.volumes {
            let all = v.unconfirmed.all();
            for chunk in all.chunk_numbers() {
                unconfirmed.insert((*id, chunk));
                patch.push((key::unconfirmed(*id, chunk), all.chunk(chunk).map(|b| b.to_vec())));
            }
        }
        for (volume, chunk) in self.stored_unconfirmed.difference(&unconfirmed) {
            patch.push((key::unconfirmed(*volume, *chunk), None));
        }
        self.stored_unconfirmed = unconfirmed;
        for name in std::mem::take(&mut self.changed_meta) {
            patch.push((key::meta(&name), self.meta.get(&name).cloned()));
        }
        patch
    }

    /// Adds one record of the index. `None` if the record is invalid: the record of a volume must precede the records
    /// of its sets.
    pub fn restore(&mut self, row: row::MetadataRow) -> Option<()> {
        match row {
            row::MetadataRow::Volume(id, r) => {
                let volume = Volume {
                    blocks: r.blocks,
                    birth: r.birth,
                    last: r.last,
                    confirmed: r.confirmed,
                    deleting: r.deleting,
                    unconfirmed: UnconfirmedExtents::restore(ExtentSet::default(), Seq(0)),
                    ..Volume::default()
                };
                self.volumes.insert(id, volume);
                self.stored_volumes.insert(id);
            }
            row::MetadataRow::Dirty(id, chunk, bits) => {
                self.volumes.get_mut(&id)?.dirty.set_chunk(chunk, &bits);
            }
            row::MetadataRow::Unconfirmed(id, chunk, bits, highest) => {
                let volume = self.volumes.get_mut(&id)?;
                let mut all = volume.unconfirmed.all();
                all.set_chunk(chunk, &bits);
                volume.unconfirmed = UnconfirmedExtents::restore(all, highest);
                self.stored_unconfirmed.insert((id, chunk));
            }
            row::MetadataRow::Meta(name, value) => {
                self.set_meta(&name, Some(&value));
                self.changed_meta.remove(&name);
            }
        }
        Some(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use dyad_types::Epoch;

    #[test]
    fn confirmations_under_steady_load_keep_the_set_small_and_complete() {
        let mut unconfirmed = UnconfirmedExtents::default();
        for seq in 1..1000u64 {
            unconfirmed.add(ExtentIndex(seq), Stamp { epoch: Epoch(1), seq: Seq(seq) });
            if seq % 10 == 0 {
                unconfirmed.confirm(Seq(seq - 5));
            }
            assert!(unconfirmed.groups.len() <= UNCONFIRMED_GROUPS_MAX);
            let all = unconfirmed.all();
            let confirmed = (seq / 10 * 10).saturating_sub(5);
            assert!(
                (confirmed + 1..=seq).all(|s| all.contains(ExtentIndex(s))),
                "nothing unconfirmed is missing at {seq}"
            );
            assert!(all.len() < 60, "{} extents for at most 15 unconfirmed", all.len());
        }
        unconfirmed.confirm(Seq(999));
        assert!(unconfirmed.all().is_empty());
    }

    #[test]
    fn the_lengths_of_named_values_are_summed_up() {
        let mut state = MetadataState::default();
        state.set_meta(b"ab", Some(b"123"));
        assert_eq!(state.meta_bytes_with(b"ab", Some(b"1")), 3);
        assert_eq!(state.meta_bytes_with(b"c", Some(b"1")), 7);
        state.set_meta(b"ab", None);
        assert_eq!((state.meta(b"ab"), state.meta_bytes_with(b"c", None)), (None, 0));
    }
}
