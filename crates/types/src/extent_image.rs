//! The content of one extent, as a resync sends it to the peer.

use std::ops::Range;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::{BLOCK, BlockIndex, EXTENT, EXTENT_BLOCKS, ExtentIndex};

/// The content of one extent.
///
/// In both masks bit `i` stands for block `i` of the extent. `data` holds the present blocks in ascending order, each
/// of [`BLOCK`] bytes. A block that is neither present nor bad reads as zeros.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct ExtentImage {
    /// Mask of the blocks that were written and not discarded since, and that could be read.
    pub present: u16,
    /// Mask of the blocks that could not be read; a receiver does not change its own copy of them.
    pub bad: u16,
    /// The content of the present blocks.
    pub data: Bytes,
}

/// The masks of an [`ExtentImage`]; bit `i` stands for block `i` of the extent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct BlockMasks {
    /// The mask for [`ExtentImage::present`].
    pub present: u16,
    /// The mask for [`ExtentImage::bad`].
    pub bad: u16,
}

/// Consecutive blocks of an [`ExtentImage`] of one kind. Blocks are numbered within the volume.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Run {
    /// Blocks to write: the first block, and the content of all.
    Data(BlockIndex, Bytes),
    /// Blocks to discard.
    Absent(Range<BlockIndex>),
}

impl ExtentImage {
    /// Makes an image from the bytes of all 16 blocks. The bytes of bad and absent blocks are ignored.
    ///
    /// # Panics
    /// If `blocks` is not 64 KiB, or a block is both present and bad.
    #[must_use]
    pub fn pack(masks: BlockMasks, blocks: Bytes) -> ExtentImage {
        let BlockMasks { present, bad } = masks;
        assert!(blocks.len() == EXTENT && present & bad == 0, "an extent has 16 blocks, each of one kind");
        if present == u16::MAX {
            return ExtentImage { present, bad, data: blocks };
        }
        let kept = blocks.chunks_exact(BLOCK).enumerate().filter(|(bit, _)| present & 1 << bit != 0);
        let data: Vec<u8> = kept.flat_map(|(_, block)| block.iter().copied()).collect();
        ExtentImage { present, bad, data: data.into() }
    }

    /// Whether the masks and the length of the data agree. An image that was received must be checked with this.
    #[must_use]
    pub fn is_valid(&self) -> bool {
        self.present & self.bad == 0 && self.data.len() == self.present.count_ones() as usize * BLOCK
    }

    /// The good blocks in the mask `wanted`, as runs to write or discard in a volume of `blocks` blocks. `extent` is
    /// the place of the image in the volume.
    #[must_use]
    pub fn runs(&self, extent: ExtentIndex, wanted: u16, blocks: u64) -> Vec<Run> {
        if extent.first_block().0 >= blocks {
            return Vec::new();
        }
        let mut runs: Vec<Run> = Vec::new();
        // Offset in `data` of the next present block.
        let mut at = 0;
        for bit in 0..EXTENT_BLOCKS {
            let block = extent.first_block() + bit;
            let mask = 1u16 << bit;
            let here = at;
            if self.present & mask != 0 {
                at += BLOCK;
            }
            if self.bad & mask != 0 || wanted & mask == 0 || block.0 >= blocks {
                continue;
            }
            if self.present & mask != 0 {
                match runs.last_mut() {
                    Some(Run::Data(first, data)) if *first + (data.len() / BLOCK) as u64 == block => {
                        let start = here - data.len();
                        *data = self.data.slice(start..here + BLOCK);
                    }
                    _ => runs.push(Run::Data(block, self.data.slice(here..here + BLOCK))),
                }
            } else {
                match runs.last_mut() {
                    Some(Run::Absent(run)) if run.end == block => run.end = block.next(),
                    _ => runs.push(Run::Absent(block.run(1))),
                }
            }
        }
        runs
    }

    /// The content of block `bit` (0 to 15) of the extent: zeros if it is absent, `None` if it is bad.
    #[must_use]
    pub fn block(&self, bit: usize) -> Option<Bytes> {
        let mask = 1u16 << bit;
        if self.bad & mask != 0 {
            return None;
        }
        if self.present & mask == 0 {
            return Some(Bytes::from_static(&[0; BLOCK]));
        }
        let before = (self.present & (mask - 1)).count_ones() as usize * BLOCK;
        Some(self.data.slice(before..before + BLOCK))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::IndexRange;

    #[test]
    fn an_image_gives_one_run_for_consecutive_blocks_of_one_kind() {
        let data: Vec<u8> = [1u8, 2, 3].iter().flat_map(|&b| vec![b; BLOCK]).collect();
        let image = ExtentImage { present: 0b1011, bad: 0b100_0000, data: Bytes::from(data) };
        assert!(image.is_valid());
        let runs = image.runs(ExtentIndex(2), u16::MAX, 32 + 9);
        let seen: Vec<(u64, usize, bool)> = runs
            .iter()
            .map(|run| match run {
                Run::Data(block, data) => (block.0, data.len() / BLOCK, true),
                Run::Absent(run) => (run.start.0, run.length() as usize, false),
            })
            .collect();
        assert_eq!(seen, [(32, 2, true), (34, 1, false), (35, 1, true), (36, 2, false), (39, 2, false)]);
        assert_eq!(runs[0], Run::Data(BlockIndex(32), Bytes::from([vec![1u8; BLOCK], vec![2; BLOCK]].concat())));
        assert_eq!(image.block(3).unwrap()[0], 3);
        assert_eq!(image.block(2).unwrap()[0], 0);
        assert_eq!(image.block(6), None);
    }

    #[test]
    fn an_extent_beyond_the_volume_has_no_runs() {
        let image = ExtentImage { present: u16::MAX, bad: 0, data: Bytes::from(vec![1; EXTENT]) };
        assert_eq!(image.runs(ExtentIndex(3), u16::MAX, 48), []);
        assert_eq!(image.runs(ExtentIndex(u64::MAX), u16::MAX, u64::MAX), []);
    }

    #[test]
    fn an_image_holds_the_present_blocks_only() {
        let blocks: Vec<u8> = (0..16).flat_map(|block| vec![block; BLOCK]).collect();
        let image = ExtentImage::pack(BlockMasks { present: 0b1010, bad: 0b1 }, blocks.clone().into());
        assert!(image.is_valid());
        assert_eq!(image.block(3).unwrap()[..], [3; BLOCK]);
        assert_eq!((image.block(0), image.block(2).unwrap()[0]), (None, 0));
        let whole = BlockMasks { present: u16::MAX, bad: 0 };
        assert_eq!(ExtentImage::pack(whole, blocks.clone().into()).data, blocks);
    }
}
