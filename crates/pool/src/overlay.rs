//! What is newer than the index: for each extent, which blocks changed and where the journal has them.

use dyad_types::{EXTENT_BLOCKS, Stamp, VolumeId};
use std::collections::BTreeMap;
use std::ops::Range;

/// An extent's name in the overlay.
pub(crate) type ExtentId = (VolumeId, u64);

/// The newest changes of one extent.
#[derive(Clone, Debug, Default)]
pub(crate) struct Change {
    /// Blocks written or discarded since the index.
    pub touched: u16,
    /// Of those, the blocks that hold data.
    pub present: u16,
    /// Ring page of each present block.
    pub pages: [u32; EXTENT_BLOCKS as usize],
    /// Checksum of each present block.
    pub crcs: [u32; EXTENT_BLOCKS as usize],
    pub birth: u64,
    pub stamp: Stamp,
    /// A free slot is set aside for this extent.
    pub reserved: bool,
    /// The running checkpoint removes the extent from the index.
    pub removing: bool,
    /// The running checkpoint has given it its place.
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
    /// Ring page.
    pub page: u32,
    /// Checksum of the block.
    pub crc: u32,
}

/// Changes in address order.
#[derive(Default)]
pub(crate) struct Overlay(pub BTreeMap<ExtentId, Box<Change>>);

impl Overlay {
    pub fn get(&self, place: ExtentId) -> Option<&Change> {
        self.0.get(&place).map(|c| &**c)
    }

    /// A block now holds the data at a journal page.
    pub fn put(
        &mut self,
        volume: VolumeId,
        block: u64,
        stamp: Stamp,
        birth: u64,
        block_in_journal: JournalBlock,
    ) -> &mut Change {
        let inside = (block % EXTENT_BLOCKS) as usize;
        let change = self.0.entry((volume, block / EXTENT_BLOCKS)).or_default();
        change.touched |= 1 << inside;
        change.present |= 1 << inside;
        change.pages[inside] = block_in_journal.page;
        change.crcs[inside] = block_in_journal.crc;
        change.birth = birth;
        change.stamp(stamp);
        change
    }

    /// The blocks of `mask` hold nothing any more.
    pub fn clear(&mut self, place: ExtentId, mask: u16, stamp: Stamp, birth: u64) {
        let change = self.0.entry(place).or_default();
        change.touched |= mask;
        change.present &= !mask;
        change.birth = birth;
        change.stamp(stamp);
    }

    /// Forgets a volume; gives back how many slots were set aside for it.
    pub fn forget(&mut self, volume: VolumeId) -> u64 {
        let places: Vec<ExtentId> = self.0.range((volume, 0)..=(volume, u64::MAX)).map(|(p, _)| *p).collect();
        places.iter().filter_map(|p| self.0.remove(p)).filter(|c| c.reserved).count() as u64
    }
}

/// The extents a block range (of at least one block) touches, each with the mask of its touched blocks.
pub(crate) fn split(blocks: Range<u64>) -> impl Iterator<Item = (u64, u16)> {
    let Range { start, end } = blocks;
    (start / EXTENT_BLOCKS..end.div_ceil(EXTENT_BLOCKS)).map(move |extent| {
        let first = extent * EXTENT_BLOCKS;
        let from = start.max(first) - first;
        let to = end.min(first + EXTENT_BLOCKS) - first;
        (extent, (((1u32 << to) - 1) & !((1u32 << from) - 1)) as u16)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_split_into_masks() {
        assert_eq!(split(0..16).collect::<Vec<_>>(), [(0, 0xffff)]);
        assert_eq!(split(15..17).collect::<Vec<_>>(), [(0, 0x8000), (1, 1)]);
        assert_eq!(split(20..50).collect::<Vec<_>>(), [(1, 0xfff0), (2, 0xffff), (3, 3)]);
    }

    #[test]
    fn last_change_wins() {
        let mut overlay = Overlay::default();
        overlay.put(VolumeId(1), 17, Stamp { epoch: 1, seq: 1 }, 0, JournalBlock { page: 10, crc: 100 });
        overlay.put(VolumeId(1), 17, Stamp { epoch: 1, seq: 2 }, 0, JournalBlock { page: 11, crc: 101 });
        overlay.clear((VolumeId(1), 1), 1, Stamp { epoch: 1, seq: 3 }, 0);
        let change = overlay.get((VolumeId(1), 1)).unwrap();
        assert_eq!((change.touched, change.present, change.pages[1], change.stamp.seq), (3, 2, 11, 3));
        overlay.0.get_mut(&(VolumeId(1), 1)).unwrap().reserved = true;
        assert_eq!(overlay.forget(VolumeId(1)), 1);
        assert!(overlay.get((VolumeId(1), 1)).is_none());
    }
}
