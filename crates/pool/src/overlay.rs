//! Overlays, in memory: the changes that are newer than the index. For each extent, the changed blocks and their pages
//! in the journal.

use crate::birth::Birth;
use dyad_types::{BlockIndex, EXTENT_BLOCKS, ExtentIndex, Stamp, VolumeId};
use std::collections::BTreeMap;
use std::ops::Range;

/// An extent of the pool. Sorts by volume first, so that the extents of a volume are one range.
pub(crate) type ExtentId = (VolumeId, ExtentIndex);

/// The changes of one extent in an overlay.
#[derive(Clone, Debug, Default)]
pub(crate) struct ExtentChange {
    /// Mask of the blocks that were written or discarded.
    pub touched: u16,
    /// Mask of the touched blocks whose last change was a write or a mark as lost: they need the extent's slot.
    pub present: u16,
    /// Mask of the present blocks that are marked as lost. They have no page and no checksum.
    pub lost: u16,
    /// Ring page of each present block that is not lost.
    pub pages: [u32; EXTENT_BLOCKS as usize],
    /// Checksum of each present block that is not lost.
    pub crcs: [u32; EXTENT_BLOCKS as usize],
    /// Birth of the last change.
    pub birth: Birth,
    /// The highest stamp of these changes.
    pub stamp: Stamp,
    /// A free slot is reserved for the extent.
    pub reserved: bool,
    /// The running checkpoint removes the extent from the index. Set in the frozen overlay only.
    pub removing: bool,
    /// The running checkpoint has chosen the extent's slot. Set in the frozen overlay only.
    pub placed: bool,
}

impl ExtentChange {
    fn raise_stamp(&mut self, stamp: Stamp) {
        self.stamp = stamp.max(self.stamp);
    }
}

/// The place of a block in the journal, and its checksum.
#[derive(Clone, Copy, Debug)]
pub(crate) struct JournalBlock {
    /// Page of the journal's ring.
    pub page: u32,
    /// Checksum that was computed when the block was written.
    pub crc: u32,
}

/// The changes that only the journal holds, by extent. A checkpoint moves them to the extents and the index.
#[derive(Default)]
pub(crate) struct Overlay(pub BTreeMap<ExtentId, Box<ExtentChange>>);

impl Overlay {
    pub fn get(&self, id: ExtentId) -> Option<&ExtentChange> {
        self.0.get(&id).map(|c| &**c)
    }

    /// Records that a block was written and that the journal holds its data. Returns the entry of its extent.
    pub fn record_write(
        &mut self,
        volume: VolumeId,
        block: BlockIndex,
        stamp: Stamp,
        birth: Birth,
        block_in_journal: JournalBlock,
    ) -> &mut ExtentChange {
        let place_in_extent = block.place_in_extent();
        let change = self.0.entry((volume, block.extent())).or_default();
        change.touched |= 1 << place_in_extent;
        change.present |= 1 << place_in_extent;
        change.lost &= !(1 << place_in_extent);
        change.pages[place_in_extent] = block_in_journal.page;
        change.crcs[place_in_extent] = block_in_journal.crc;
        change.birth = birth;
        change.raise_stamp(stamp);
        change
    }

    /// Records that the blocks of `mask` were discarded.
    pub fn record_discard(&mut self, id: ExtentId, mask: u16, stamp: Stamp, birth: Birth) {
        let change = self.0.entry(id).or_default();
        change.touched |= mask;
        change.present &= !mask;
        change.lost &= !mask;
        change.birth = birth;
        change.raise_stamp(stamp);
    }

    /// Records that the blocks of `mask` are lost. Returns the entry of the extent.
    pub fn record_lost(&mut self, id: ExtentId, mask: u16, stamp: Stamp, birth: Birth) -> &mut ExtentChange {
        let change = self.0.entry(id).or_default();
        change.touched |= mask;
        change.present |= mask;
        change.lost |= mask;
        change.birth = birth;
        change.raise_stamp(stamp);
        change
    }

    /// Removes all changes of a volume; returns the number of slots that were reserved for them.
    pub fn remove_volume(&mut self, volume: VolumeId) -> u64 {
        let ids: Vec<ExtentId> =
            self.0.range((volume, ExtentIndex(0))..=(volume, ExtentIndex(u64::MAX))).map(|(p, _)| *p).collect();
        ids.iter().filter_map(|p| self.0.remove(p)).filter(|c| c.reserved).count() as u64
    }
}

/// The extents that a range of at least one block touches, each with the mask of its blocks in the range.
pub(crate) fn extent_masks(blocks: Range<BlockIndex>) -> impl Iterator<Item = (ExtentIndex, u16)> {
    let (start, end) = (blocks.start.0, blocks.end.0);
    (start / EXTENT_BLOCKS..end.div_ceil(EXTENT_BLOCKS)).map(move |extent| {
        let first = extent * EXTENT_BLOCKS;
        let from = start.max(first) - first;
        let to = end.min(first + EXTENT_BLOCKS) - first;
        (ExtentIndex(extent), (((1u32 << to) - 1) & !((1u32 << from) - 1)) as u16)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use dyad_types::{Epoch, Seq};

    fn masks(blocks: Range<u64>) -> Vec<(u64, u16)> {
        extent_masks(BlockIndex::range(blocks)).map(|(extent, mask)| (extent.0, mask)).collect()
    }

    #[test]
    fn a_range_of_blocks_has_one_mask_per_extent() {
        assert_eq!(masks(0..16), [(0, 0xffff)]);
        assert_eq!(masks(15..17), [(0, 0x8000), (1, 1)]);
        assert_eq!(masks(20..50), [(1, 0xfff0), (2, 0xffff), (3, 3)]);
    }

    #[test]
    fn the_last_change_of_a_block_counts() {
        let mut overlay = Overlay::default();
        overlay.record_write(
            VolumeId(1),
            BlockIndex(17),
            Stamp { epoch: Epoch(1), seq: Seq(1) },
            Birth(0),
            JournalBlock { page: 10, crc: 100 },
        );
        overlay.record_write(
            VolumeId(1),
            BlockIndex(17),
            Stamp { epoch: Epoch(1), seq: Seq(2) },
            Birth(0),
            JournalBlock { page: 11, crc: 101 },
        );
        overlay.record_discard((VolumeId(1), ExtentIndex(1)), 1, Stamp { epoch: Epoch(1), seq: Seq(3) }, Birth(0));
        let change = overlay.get((VolumeId(1), ExtentIndex(1))).unwrap();
        assert_eq!((change.touched, change.present, change.pages[1], change.stamp.seq), (3, 2, 11, Seq(3)));
        overlay.0.get_mut(&(VolumeId(1), ExtentIndex(1))).unwrap().reserved = true;
        assert_eq!(overlay.remove_volume(VolumeId(1)), 1);
        assert!(overlay.get((VolumeId(1), ExtentIndex(1))).is_none());
    }
}
