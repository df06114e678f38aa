//! Numbers that name things, each with a type of its own so that the compiler tells them apart.

use std::fmt;
use std::ops::{Add, Range};

use serde::{Deserialize, Serialize};

use crate::EXTENT_BLOCKS;

/// Number of a volume in the pool. 0 is the document itself; user volumes count from 1, and no number is used twice.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
#[repr(transparent)]
pub struct VolumeId(pub u64);

impl VolumeId {
    /// The volume that holds the document.
    pub const DOCUMENT: VolumeId = VolumeId(0);
}

impl fmt::Display for VolumeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

number! {
    /// Identifies one connection to the peer; given by the peer link, only compared for equality.
    pub struct Session;
}

number! {
    /// Number of a membership of the pair; grows by one at each change. 0: no membership is known.
    pub struct Epoch;
}

number! {
    /// Number of a write within its volume; grows across epochs and is never used twice. 0: no write.
    pub struct Seq;
}

number! {
    /// Number of a block of 4 KiB within its volume; the first is 0.
    pub struct BlockIndex;
}

number! {
    /// Number of an extent of 64 KiB within its volume; the first is 0.
    pub struct ExtentIndex;
}

impl BlockIndex {
    /// The extent that contains the block.
    #[must_use]
    pub const fn extent(self) -> ExtentIndex {
        ExtentIndex(self.0 / EXTENT_BLOCKS)
    }

    /// Place of the block within its extent, below [`EXTENT_BLOCKS`]: its bit in a mask of blocks.
    #[must_use]
    pub const fn place_in_extent(self) -> usize {
        (self.0 % EXTENT_BLOCKS) as usize
    }

    /// The range of `count` blocks that begins with this block; it ends at the largest number at the latest.
    #[must_use]
    pub const fn run(self, count: u64) -> Range<BlockIndex> {
        self..BlockIndex(self.0.saturating_add(count))
    }

    /// For loops over plain numbers: both ends become indices.
    #[must_use]
    pub const fn range(numbers: Range<u64>) -> Range<BlockIndex> {
        BlockIndex(numbers.start)..BlockIndex(numbers.end)
    }
}

impl ExtentIndex {
    /// The first block of the extent; the largest number if the extent lies beyond every volume.
    #[must_use]
    pub const fn first_block(self) -> BlockIndex {
        BlockIndex(self.0.saturating_mul(EXTENT_BLOCKS))
    }

    /// 16 block numbers; fewer only where the numbers end.
    #[must_use]
    pub const fn blocks(self) -> Range<BlockIndex> {
        self.first_block().run(EXTENT_BLOCKS)
    }

    /// The range of `count` extents that begins with this extent; it ends at the largest number at the latest.
    #[must_use]
    pub const fn run(self, count: u64) -> Range<ExtentIndex> {
        self..ExtentIndex(self.0.saturating_add(count))
    }

    /// For loops over plain numbers: both ends become indices.
    #[must_use]
    pub const fn range(numbers: Range<u64>) -> Range<ExtentIndex> {
        ExtentIndex(numbers.start)..ExtentIndex(numbers.end)
    }
}

/// The block `count` blocks after this one.
impl Add<u64> for BlockIndex {
    type Output = Self;

    fn add(self, count: u64) -> Self {
        Self(self.0 + count)
    }
}

/// The extent `count` extents after this one.
impl Add<u64> for ExtentIndex {
    type Output = Self;

    fn add(self, count: u64) -> Self {
        Self(self.0 + count)
    }
}

/// A range of blocks or of extents as a sequence. The standard library iterates only over ranges of its own integers.
pub trait IndexRange {
    /// What the range consists of.
    type Index;

    /// How many blocks or extents the range has; 0 if it is empty.
    fn length(&self) -> u64;

    /// Every block or extent of the range, ascending.
    fn each(self) -> impl DoubleEndedIterator<Item = Self::Index> + Clone;
}

impl IndexRange for Range<BlockIndex> {
    type Index = BlockIndex;

    fn length(&self) -> u64 {
        self.end.0.saturating_sub(self.start.0)
    }

    fn each(self) -> impl DoubleEndedIterator<Item = BlockIndex> + Clone {
        (self.start.0..self.end.0).map(BlockIndex)
    }
}

impl IndexRange for Range<ExtentIndex> {
    type Index = ExtentIndex;

    fn length(&self) -> u64 {
        self.end.0.saturating_sub(self.start.0)
    }

    fn each(self) -> impl DoubleEndedIterator<Item = ExtentIndex> + Clone {
        (self.start.0..self.end.0).map(ExtentIndex)
    }
}

/// The position of a write in the history of its volume. Ordered by epoch first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Stamp {
    /// Membership that the write was made under.
    pub epoch: Epoch,
    /// Number within the volume.
    pub seq: Seq,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_and_extents_contain_each_other() {
        assert_eq!((BlockIndex(35).extent(), BlockIndex(35).place_in_extent()), (ExtentIndex(2), 3));
        assert_eq!(ExtentIndex(2).blocks(), BlockIndex(32)..BlockIndex(48));
        assert!(ExtentIndex(2).blocks().each().all(|block| block.extent() == ExtentIndex(2)));
        assert_eq!(ExtentIndex(u64::MAX).first_block(), BlockIndex(u64::MAX));
        assert!(ExtentIndex(u64::MAX).blocks().is_empty());
    }

    #[test]
    fn a_range_is_a_sequence() {
        assert_eq!(BlockIndex(3).run(2).each().collect::<Vec<_>>(), [BlockIndex(3), BlockIndex(4)]);
        assert_eq!(BlockIndex(u64::MAX - 1).run(7).length(), 1);
        assert_eq!(ExtentIndex(4).run(3), ExtentIndex::range(4..7));
        let reversed = BlockIndex(4)..BlockIndex(1);
        assert_eq!((reversed.length(), reversed.each().count()), (0, 0));
    }
}
