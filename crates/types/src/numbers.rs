//! Numbers that identify something, each with a type of its own, so that the compiler refuses to mix them up.

use std::fmt;
use std::ops::{Add, Range};

use serde::{Deserialize, Serialize};

use crate::EXTENT_BLOCKS;

/// Number of a volume in the pool. Volume 0 holds the document; users' volumes have numbers from 1 on. No number is
/// used twice.
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
    /// Number of one connection to the peer, given by the peer link. It is only compared for equality.
    pub struct Session;
}

number! {
    /// Number of a configuration of the pair; grows by one at each change. 0: no configuration is known.
    pub struct Epoch;
}

number! {
    /// Number of a write within its volume. It goes on growing when the epoch changes, and is never used twice. 0: no
    /// write.
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

    /// Place of the block within its extent, from 0 to [`EXTENT_BLOCKS`] - 1. It is the block's bit in a mask of
    /// blocks.
    #[must_use]
    pub const fn place_in_extent(self) -> usize {
        (self.0 % EXTENT_BLOCKS) as usize
    }

    /// The range of `count` blocks that begins with this block. It is shorter if numbers would exceed `u64::MAX`.
    #[must_use]
    pub const fn run(self, count: u64) -> Range<BlockIndex> {
        self..BlockIndex(self.0.saturating_add(count))
    }

    /// Turns a range of plain numbers into a range of blocks.
    #[must_use]
    pub const fn range(numbers: Range<u64>) -> Range<BlockIndex> {
        BlockIndex(numbers.start)..BlockIndex(numbers.end)
    }
}

impl ExtentIndex {
    /// The first block of the extent; `u64::MAX` if its number would exceed that.
    #[must_use]
    pub const fn first_block(self) -> BlockIndex {
        BlockIndex(self.0.saturating_mul(EXTENT_BLOCKS))
    }

    /// The 16 blocks of the extent; fewer if their numbers would exceed `u64::MAX`.
    #[must_use]
    pub const fn blocks(self) -> Range<BlockIndex> {
        self.first_block().run(EXTENT_BLOCKS)
    }

    /// The range of `count` extents that begins with this extent. It is shorter if numbers would exceed `u64::MAX`.
    #[must_use]
    pub const fn run(self, count: u64) -> Range<ExtentIndex> {
        self..ExtentIndex(self.0.saturating_add(count))
    }

    /// Turns a range of plain numbers into a range of extents.
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

/// Length of, and iteration over, a range of blocks or of extents. The standard library offers both only for ranges of
/// its own integers.
pub trait IndexRange {
    /// The type of the range's elements: block or extent.
    type Index;

    /// Number of blocks or extents in the range; 0 if its end is not above its start.
    fn length(&self) -> u64;

    /// Iterates over the blocks or extents of the range, ascending.
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

/// The position of a write in the history of its volume. Stamps are compared by epoch first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Stamp {
    /// Configuration under which the write was made.
    pub epoch: Epoch,
    /// Number of the write within the volume.
    pub seq: Seq,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_block_knows_its_extent_and_an_extent_its_blocks() {
        assert_eq!((BlockIndex(35).extent(), BlockIndex(35).place_in_extent()), (ExtentIndex(2), 3));
        assert_eq!(ExtentIndex(2).blocks(), BlockIndex(32)..BlockIndex(48));
        assert!(ExtentIndex(2).blocks().each().all(|block| block.extent() == ExtentIndex(2)));
        assert_eq!(ExtentIndex(u64::MAX).first_block(), BlockIndex(u64::MAX));
        assert!(ExtentIndex(u64::MAX).blocks().is_empty());
    }

    #[test]
    fn a_range_has_a_length_and_iterates() {
        assert_eq!(BlockIndex(3).run(2).each().collect::<Vec<_>>(), [BlockIndex(3), BlockIndex(4)]);
        assert_eq!(BlockIndex(u64::MAX - 1).run(7).length(), 1);
        assert_eq!(ExtentIndex(4).run(3), ExtentIndex::range(4..7));
        let reversed = BlockIndex(4)..BlockIndex(1);
        assert_eq!((reversed.length(), reversed.each().count()), (0, 0));
    }
}
