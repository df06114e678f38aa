//! Changes newer than the index: for each extent, the changed blocks and their pages in the journal.

use crate::birth::Birth;
use dyad_types::{BlockIndex, EXTENT_BLOCKS, ExtentIndex, Stamp, VolumeId};
use std::collections::BTreeMap;
use std::ops::Range;

/// Sorted by volume first, so that a volume's extents are one range.
pub(crate) type ExtentId = (VolumeId, ExtentIndex);

/// The newest changes of one extent.
#[derive(Clone, Debug, Default)]
pub(crate) struct Change {
    /// Mask of the blocks written or discarded since the index was committed.
    pub touched: u16,
    /// Mask of the touched blocks that hold data.
    pub present: u16,
    /// Ring page of each present block.
    pub pages: [u32; EXTENT_BLOCKS as usize],
    /// Checksum of each present block.
    pub crcs: [u32; EXTENT_BLOCKS as usize],
    pub birth: Birth,
    pub stamp: Stamp,
    /// A free slot is reserved for this extent.
    pub reserved: bool,
    /// The running checkpoint removes the extent from the index.
    pub removing: bool,
    /// The running checkpoint has chosen the extent's slot.
    pub placed: bool,
}

impl Change {
    fn stamp(&mut self, stamp: Stamp) {
        self.stamp = stamp.max(self.stamp);
    }
}

/// Where the journal holds a block.
#[derive(Clone, Copy, Debug)]
pub(crate) struct JournalBlock {
    /// Page of the journal's ring.
    pub page: u32,
    /// Checksum of the block.
    pub crc: u32,
}

/// The blocks that only the journal holds; emptied by checkpoints.
#[derive(Default)]
pub(crate) struct Overlay(pub BTreeMap<ExtentId, Box<Change>>);

impl Overlay {
    pub fn get(&self, place: ExtentId) -> Option<&Change> {
        self.0.get(&place).map(|c| &**c)
    }

    /// Records that the newest data of a block is at a journal page.
    pub fn put(
        &mut self,
        volume: VolumeId,
        block: BlockIndex,
        stamp: Stamp,
        birth: Birth,
        block_in_journal: JournalBlock,
    ) -> &mut Change {
        let inside = block.place_in_extent();
        let change = self.0.entry((volume, block.extent())).or_default();
        change.touched |= 1 << inside;
        change.present |= 1 << inside;
        change.pages[inside] = block_in_journal.page;
        change.crcs[inside] = block_in_journal.crc;
        change.birth = birth;
        change.stamp(stamp);
        change
    }

    /// Records that the blocks of `mask` were discarded.
    pub fn clear(&mut self, place: ExtentId, mask: u16, stamp: Stamp, birth: Birth) {
        let change = self.0.entry(place).or_default();
        change.touched |= mask;
        change.present &= !mask;
        change.birth = birth;
        change.stamp(stamp);
    }

    /// Removes a volume; returns how many slots were reserved for it.
    pub fn forget(&mut self, volume: VolumeId) -> u64 {
        let places: Vec<ExtentId> =
            self.0.range((volume, ExtentIndex(0))..=(volume, ExtentIndex(u64::MAX))).map(|(p, _)| *p).collect();
        places.iter().filter_map(|p| self.0.remove(p)).filter(|c| c.reserved).count() as u64
    }
}

/// The extents of a block range of at least one block, each with the mask of its blocks in the range.
pub(crate) fn split(blocks: Range<BlockIndex>) -> impl Iterator<Item = (ExtentIndex, u16)> {
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
        split(BlockIndex::range(blocks)).map(|(extent, mask)| (extent.0, mask)).collect()
    }

    #[test]
    fn ranges_split_into_masks() {
        assert_eq!(masks(0..16), [(0, 0xffff)]);
        assert_eq!(masks(15..17), [(0, 0x8000), (1, 1)]);
        assert_eq!(masks(20..50), [(1, 0xfff0), (2, 0xffff), (3, 3)]);
    }

    #[test]
    fn last_change_wins() {
        let mut overlay = Overlay::default();
        overlay.put(
            VolumeId(1),
            BlockIndex(17),
            Stamp { epoch: Epoch(1), seq: Seq(1) },
            Birth(0),
            JournalBlock { page: 10, crc: 100 },
        );
        overlay.put(
            VolumeId(1),
            BlockIndex(17),
            Stamp { epoch: Epoch(1), seq: Seq(2) },
            Birth(0),
            JournalBlock { page: 11, crc: 101 },
        );
        overlay.clear((VolumeId(1), ExtentIndex(1)), 1, Stamp { epoch: Epoch(1), seq: Seq(3) }, Birth(0));
        let change = overlay.get((VolumeId(1), ExtentIndex(1))).unwrap();
        assert_eq!((change.touched, change.present, change.pages[1], change.stamp.seq), (3, 2, 11, Seq(3)));
        overlay.0.get_mut(&(VolumeId(1), ExtentIndex(1))).unwrap().reserved = true;
        assert_eq!(overlay.forget(VolumeId(1)), 1);
        assert!(overlay.get((VolumeId(1), ExtentIndex(1))).is_none());
    }
}
