//! Reads in two steps: the pool looks up the source of each block, then a job does the I/O and verifies the checksums.
//! The job may run on any thread.

use crate::birth::Birth;
use crate::buffer::AlignedBuffer;
use crate::disk::{Access, Device, DiskError};
use crate::index::IndexError;
use crate::journal::Ring;
use crate::pool::Pool;
use crate::{MAX_READ_BLOCKS, ReadError, checksum};
use bytes::Bytes;
use dyad_types::{
    BLOCK, BlockIndex, BlockMasks, EXTENT, EXTENT_BLOCKS, ExtentImage, ExtentIndex, IndexRange, VolumeId,
};
use std::ops::Range;
use std::sync::Arc;

/// The place of the newest content of a block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum BlockSource {
    /// The block was never written, or was discarded.
    Zeros,
    /// The block is marked as lost: the read fails.
    Lost,
    /// The block is in a page of the journal's ring.
    Journal { page: u32, crc: u32, birth: Birth },
    /// The block is at a byte offset of a disk.
    Extent { disk: usize, offset: u64, crc: u32, birth: Birth },
}

impl BlockSource {
    /// Whether `next` directly follows this source on the disk, so that one I/O reads both.
    fn continues(&self, next: &BlockSource) -> bool {
        match (self, next) {
            (BlockSource::Zeros, BlockSource::Zeros) => true,
            (BlockSource::Journal { page, .. }, BlockSource::Journal { page: next, .. }) => page + 1 == *next,
            (BlockSource::Extent { disk, offset, .. }, BlockSource::Extent { disk: d, offset: o, .. }) => {
                disk == d && offset + BLOCK as u64 == *o
            }
            _ => false,
        }
    }
}

/// A planned read. It may run on another thread while the pool takes further operations.
///
/// If the pool overwrites or frees a source before the job reads it, the checksum does not match and the job returns
/// `Corrupt`. The caller must repeat the read with [`Pool::read`] before it treats the block as damaged.
#[must_use = "a read job returns data only when it runs"]
pub struct ReadJob {
    pub(crate) devices: Arc<[Arc<Device>]>,
    pub(crate) ring: Ring,
    pub(crate) volume: VolumeId,
    /// The first block.
    pub(crate) block: BlockIndex,
    /// One source per block.
    pub(crate) sources: Vec<BlockSource>,
    /// The planted bug [`crate::tests::Planted::unchecked_checksum`].
    #[cfg(test)]
    pub(crate) unchecked: bool,
}

impl ReadJob {
    /// Reads and verifies all blocks on the calling thread.
    ///
    /// # Errors
    /// [`ReadError::Corrupt`] with all blocks that do not match their checksums; [`ReadError::Io`];
    /// [`ReadError::Failed`].
    pub fn run(self) -> Result<Bytes, ReadError> {
        let mut buffer = AlignedBuffer::zeroed(self.sources.len() * BLOCK);
        let bytes = buffer.as_mut_slice();
        let mut from = 0;
        while from < self.sources.len() {
            let mut to = from + 1;
            while to < self.sources.len() && self.sources[to - 1].continues(&self.sources[to]) {
                to += 1;
            }
            self.fetch(self.sources[from], &mut bytes[from * BLOCK..to * BLOCK])
                .map_err(|error| self.read_error(error))?;
            from = to;
        }
        let corrupt: Vec<BlockIndex> = (self.block.0..)
            .map(BlockIndex)
            .zip(bytes.chunks_exact(BLOCK).zip(&self.sources))
            .filter(|(number, (data, source))| !self.matches(*number, data, source))
            .map(|(number, _)| number)
            .collect();
        if corrupt.is_empty() {
            return Ok(buffer.into_bytes());
        }
        Err(ReadError::Corrupt { volume: self.volume, blocks: corrupt })
    }

    fn fetch(&self, source: BlockSource, into: &mut [u8]) -> Result<(), DiskError> {
        match source {
            BlockSource::Zeros | BlockSource::Lost => Ok(()),
            BlockSource::Journal { page, .. } => self.ring.read_pages(page, into),
            BlockSource::Extent { disk, offset, .. } => self.devices[disk].read(Access::Direct, offset, into),
        }
    }

    fn matches(&self, number: BlockIndex, data: &[u8], source: &BlockSource) -> bool {
        #[cfg(test)]
        if self.unchecked {
            return true;
        }
        match *source {
            BlockSource::Zeros => true,
            BlockSource::Lost => false,
            BlockSource::Journal { crc, birth, .. } | BlockSource::Extent { crc, birth, .. } => {
                checksum::block(self.volume, number, birth, data) == crc
            }
        }
    }

    /// `Failed` if the disk failed earlier, `Io` if only this read failed.
    fn read_error(&self, error: DiskError) -> ReadError {
        if self.devices.iter().any(|d| d.name == error.disk && d.failed()) {
            return ReadError::Failed { disk: error.disk };
        }
        ReadError::Io { disk: error.disk, source: error.source }
    }
}

impl Pool {
    /// The newest content of a range of 1 to [`MAX_READ_BLOCKS`] blocks; absent blocks are zeros. The I/O is done on
    /// the calling thread.
    ///
    /// # Errors
    /// See [`ReadError`].
    pub fn read(&self, volume: VolumeId, blocks: Range<BlockIndex>) -> Result<Bytes, ReadError> {
        self.begin_read(volume, blocks)?.run()
    }

    /// Plans a read that any thread may run. The planning takes at most one index lookup per extent.
    ///
    /// # Errors
    /// As [`Pool::read`], without `Corrupt` and `Io`.
    pub fn begin_read(&self, volume: VolumeId, blocks: Range<BlockIndex>) -> Result<ReadJob, ReadError> {
        self.usable().map_err(|failed| ReadError::Failed { disk: failed.disk })?;
        let size = self.state.live(volume).ok_or(ReadError::NoVolume { volume })?.blocks;
        let count = blocks.length();
        if count == 0 || count > MAX_READ_BLOCKS || blocks.end.0 > size {
            return Err(ReadError::Range { volume, block: blocks.start, count });
        }
        self.plan_read(volume, blocks)
    }

    /// The content of one extent, with the mask of its present blocks. Blocks beyond the end of the volume are absent.
    ///
    /// # Errors
    /// As [`Pool::read`]; `Range` if the whole extent is beyond the end of the volume.
    pub fn read_extent(&self, volume: VolumeId, extent: ExtentIndex) -> Result<ExtentImage, ReadError> {
        let first = extent.first_block();
        let blocks = self.state.live(volume).ok_or(ReadError::NoVolume { volume })?.blocks;
        let count = blocks.saturating_sub(first.0).min(EXTENT_BLOCKS);
        let job = self.begin_read(volume, first.run(count))?;
        let present =
            job.sources.iter().enumerate().filter(|(_, s)| **s != BlockSource::Zeros).fold(0, |m, (i, _)| m | 1 << i);
        let mut data = job.run()?;
        if data.len() < EXTENT {
            let mut whole = data.to_vec();
            whole.resize(EXTENT, 0);
            data = whole.into();
        }
        Ok(ExtentImage::pack(BlockMasks { present, bad: 0 }, data))
    }

    fn plan_read(&self, volume: VolumeId, blocks: Range<BlockIndex>) -> Result<ReadJob, ReadError> {
        let mut sources = Vec::with_capacity(blocks.length() as usize);
        for (extent, mask) in crate::overlay::extent_masks(blocks.clone()) {
            self.plan_extent(volume, extent, mask, &mut sources).map_err(|(disk, e)| ReadError::IndexDamaged {
                disk: self.devices[disk].name.clone(),
                what: e.text(),
            })?;
        }
        Ok(ReadJob {
            devices: self.devices.clone(),
            ring: self.journal.ring.clone(),
            volume,
            block: blocks.start,
            sources,
            #[cfg(test)]
            unchecked: self.planted.unchecked_checksum,
        })
    }

    /// Appends the sources of the blocks in `mask`. An error comes with the number of the disk whose index is damaged.
    fn plan_extent(
        &self,
        volume: VolumeId,
        extent: ExtentIndex,
        mask: u16,
        sources: &mut Vec<BlockSource>,
    ) -> Result<(), (usize, IndexError)> {
        let layers = [self.active.get((volume, extent)), self.frozen_change((volume, extent))];
        let covered = layers.iter().flatten().fold(0, |m, change| m | change.touched);
        let stored = match self.extent_map.get(volume, extent) {
            Some(disk) if mask & !covered != 0 => {
                self.stored_row(volume, extent, disk)?.map(|(birth, row)| (disk, birth, row))
            }
            _ => None,
        };
        for place in (0..EXTENT_BLOCKS as usize).filter(|i| mask & 1 << i != 0) {
            let bit = 1u16 << place;
            let newest = layers.iter().flatten().find(|change| change.touched & bit != 0);
            sources.push(match (newest, &stored) {
                (Some(change), _) if change.lost & bit != 0 => BlockSource::Lost,
                (Some(change), _) if change.present & bit != 0 => {
                    BlockSource::Journal { page: change.pages[place], crc: change.crcs[place], birth: change.birth }
                }
                (Some(_), _) => BlockSource::Zeros,
                (None, Some((disk, birth, row))) if row.present & bit != 0 => BlockSource::Extent {
                    disk: *disk,
                    offset: self.slot_offset(*disk, row.slot) + (place * BLOCK) as u64,
                    crc: row.crcs[place],
                    birth: *birth,
                },
                (None, _) => BlockSource::Zeros,
            });
        }
        Ok(())
    }
}
