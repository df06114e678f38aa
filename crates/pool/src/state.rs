//! Metadata: volumes, dirty maps, unconfirmed extents, named values. All of it is in memory, journalled on
//! change, and stored in the first disk's index at checkpoints.

use crate::birth::Birth;
use crate::index::key::{self, Patch};
use crate::index::row::{self, VolumeRow};
use dyad_types::{CHUNK_EXTENTS, ExtentIndex, ExtentSet, IndexRange, Seq, Stamp, VolumeId};
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

/// Number of groups of the unconfirmed extents of a volume. A confirmation frees the groups that it covers wholly.
const UNCONFIRMED_SETS: usize = 4;

/// The extents written since the last common flush, grouped by the highest sequence number of the group.
///
/// A superset is safe: its extents are copied without need. So an extent is removed together with its group.
#[derive(Clone, Debug, Default)]
pub(crate) struct UnconfirmedExtents {
    /// Oldest first; new extents join the last one.
    groups: Vec<(Seq, ExtentSet)>,
}

impl UnconfirmedExtents {
    pub fn touch(&mut self, extent: ExtentIndex, stamp: Stamp) {
        let seq = stamp.seq;
        if self.groups.is_empty() {
            self.groups.push((seq, ExtentSet::default()));
        }
        let (highest, set) = self.groups.last_mut().expect("one was pushed");
        *highest = seq.max(*highest);
        set.insert(extent.run(1));
    }

    /// Both nodes hold everything up to `seq` on stable storage.
    pub fn confirm(&mut self, seq: Seq) {
        self.groups.retain(|(highest, _)| *highest > seq);
        if self.groups.len() < UNCONFIRMED_SETS && self.groups.last().is_some_and(|(_, set)| !set.is_empty()) {
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

    pub fn restore(set: ExtentSet, highest: Seq) -> Self {
        if set.is_empty() { Self::default() } else { Self { groups: vec![(highest, set)] } }
    }

    fn highest(&self) -> Seq {
        self.groups.iter().map(|(highest, _)| *highest).max().unwrap_or_default()
    }
}

/// Metadata of one volume.
#[derive(Clone, Debug, Default)]
pub(crate) struct Volume {
    pub blocks: u64,
    /// Recorded with each write.
    pub birth: Birth,
    pub last: Stamp,
    pub confirmed: Seq,
    pub unconfirmed: UnconfirmedExtents,
    pub dirty: ExtentSet,
    /// Journal record of the newest mark; once it is durable, all marks are.
    pub marked: u64,
    /// Journal record of the last confirmation that was journalled.
    pub confirm_logged: u64,
    /// `confirmed` is newer than the value in journal and index.
    pub confirm_pending: bool,
    pub deleting: bool,
}

/// Metadata of the pool.
#[derive(Default)]
pub(crate) struct State {
    pub volumes: BTreeMap<VolumeId, Volume>,
    meta: BTreeMap<Vec<u8>, Vec<u8>>,
    meta_bytes: usize,
    changed_meta: BTreeSet<Vec<u8>>,
    changed_dirty: BTreeSet<(VolumeId, u64)>,
    /// Chunks of unconfirmed extents in the index.
    stored_unconfirmed: BTreeSet<(VolumeId, u64)>,
    /// Volumes with a row in the index.
    stored_volumes: BTreeSet<VolumeId>,
}

impl State {
    /// The volume, if it exists and is not being deleted.
    pub fn live(&self, volume: VolumeId) -> Option<&Volume> {
        self.volumes.get(&volume).filter(|v| !v.deleting)
    }

    pub fn create(&mut self, volume: VolumeId, blocks: u64) {
        self.drop_marks(volume);
        self.volumes.insert(volume, Volume { blocks, ..Volume::default() });
    }

    /// From now on the volume does not exist for callers; the next checkpoints free its extents.
    pub fn delete(&mut self, volume: VolumeId) {
        self.drop_marks(volume);
        if let Some(v) = self.volumes.get_mut(&volume) {
            v.deleting = true;
            v.unconfirmed = UnconfirmedExtents::default();
        }
    }

    /// Removes a deleted volume that has no extent any more.
    pub fn forget(&mut self, volume: VolumeId) {
        self.volumes.remove(&volume);
    }

    fn drop_marks(&mut self, volume: VolumeId) {
        if let Some(v) = self.volumes.get_mut(&volume) {
            let chunks: Vec<u64> = v.dirty.chunk_numbers().collect();
            self.changed_dirty.extend(chunks.into_iter().map(|chunk| (volume, chunk)));
            v.dirty = ExtentSet::default();
        }
    }

    pub fn mark(&mut self, volume: VolumeId, extents: Range<ExtentIndex>, dirty: bool, record: u64) {
        let Some(v) = self.volumes.get_mut(&volume) else { return };
        if dirty {
            v.marked = record;
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

    /// Bytes of all keys and values if this one were set.
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

    /// The changes that make the index equal to the present state. Clears the record of changes: the caller must commit
    /// the patch or close the pool.
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

    /// Adds one row of the index. `None`: the row is invalid. The row of a volume precedes the rows of its sets.
    pub fn restore(&mut self, row: row::Row) -> Option<()> {
        match row {
            row::Row::Volume(id, r) => {
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
            row::Row::Dirty(id, chunk, bits) => {
                self.volumes.get_mut(&id)?.dirty.set_chunk(chunk, &bits);
            }
            row::Row::Unconfirmed(id, chunk, bits, highest) => {
                let volume = self.volumes.get_mut(&id)?;
                let mut all = volume.unconfirmed.all();
                all.set_chunk(chunk, &bits);
                volume.unconfirmed = UnconfirmedExtents::restore(all, highest);
                self.stored_unconfirmed.insert((id, chunk));
            }
            row::Row::Meta(name, value) => {
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
    fn unconfirmed_extents_stay_few_under_steady_load() {
        let mut unconfirmed = UnconfirmedExtents::default();
        for seq in 1..1000u64 {
            unconfirmed.touch(ExtentIndex(seq), Stamp { epoch: Epoch(1), seq: Seq(seq) });
            if seq % 10 == 0 {
                unconfirmed.confirm(Seq(seq - 5));
            }
            assert!(unconfirmed.groups.len() <= UNCONFIRMED_SETS);
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
    fn meta_is_counted() {
        let mut state = State::default();
        state.set_meta(b"ab", Some(b"123"));
        assert_eq!(state.meta_bytes_with(b"ab", Some(b"1")), 3);
        assert_eq!(state.meta_bytes_with(b"c", Some(b"1")), 7);
        state.set_meta(b"ab", None);
        assert_eq!((state.meta(b"ab"), state.meta_bytes_with(b"c", None)), (None, 0));
    }
}
