//! The I/O of a checkpoint, as jobs without a reference to the pool, so that another thread may run them.

use crate::birth::Birth;
use crate::buffer::AlignedBuffer;
use crate::checksum;
use crate::disk::{Access, Device, DiskError};
use crate::index::Index;
use crate::index::key::Patch;
use crate::journal::Ring;
use crate::label::{self, Label};
use dyad_types::{BLOCK, BlockIndex, EXTENT, ExtentIndex, VolumeId};
use std::collections::BTreeSet;
use std::io;
use std::sync::Arc;

/// The I/O of one step of a checkpoint, to be run on any thread.
#[must_use = "the checkpoint waits for its result"]
pub struct CheckpointJob {
    pub(super) work: Work,
}

/// The result of a [`CheckpointJob`], for [`crate::Pool::complete_checkpoint_job`].
#[must_use = "the checkpoint waits for its result"]
pub struct CheckpointDone {
    pub(super) result: Result<StepResult, DiskError>,
}

pub(super) enum Work {
    Seal(Arc<Device>),
    Move {
        ring: Ring,
        moves: Vec<ExtentMove>,
        /// Pages of the ring whose blocks are known to be corrupt, and are not counted again.
        counted: Arc<BTreeSet<u32>>,
    },
    Flush(Vec<Arc<Device>>),
    Commit {
        checkpoint: u64,
        commits: Vec<(Arc<Device>, Arc<Index>, Patch)>,
    },
    Label {
        device: Arc<Device>,
        label: Box<Label>,
    },
}

pub(super) enum StepResult {
    Sealed,
    Moved {
        /// Number of blocks that did not match their checksums, without those that were counted at open.
        corrupt_blocks: u64,
        /// The extents of all blocks that did not match their checksums.
        damaged: Vec<(VolumeId, ExtentIndex)>,
    },
    Flushed,
    Committed,
    Labelled(Box<Label>),
}

/// The blocks of one extent that a checkpoint copies from the journal to the extent's slot.
pub(super) struct ExtentMove {
    pub device: Arc<Device>,
    /// Byte offset of the extent's slot on `device`.
    pub offset: u64,
    pub volume: VolumeId,
    /// First block of the extent, numbered within the volume.
    pub first: BlockIndex,
    pub birth: Birth,
    /// The blocks to copy, ascending by their place in the extent.
    pub blocks: Vec<MovedBlock>,
}

pub(super) struct MovedBlock {
    /// 0 to 15.
    pub place_in_extent: usize,
    pub source: MovedSource,
}

/// The origin of a block that is copied.
#[derive(Clone, Copy)]
pub(super) enum MovedSource {
    Journal {
        /// Page of the journal's ring that holds the block.
        page: u32,
        /// Checksum that was computed when the block was written.
        crc: u32,
    },
    /// The block is marked as lost. Zeros are written, which the index's checksum of a lost block does not match.
    Lost,
}

impl MovedSource {
    /// Whether `next` directly follows this source in the ring, so that one I/O reads both.
    fn continues(self, next: MovedSource) -> bool {
        match (self, next) {
            (MovedSource::Lost, MovedSource::Lost) => true,
            (MovedSource::Journal { page, .. }, MovedSource::Journal { page: next, .. }) => page + 1 == next,
            _ => false,
        }
    }
}

impl CheckpointJob {
    /// Runs the I/O of the job on the calling thread.
    pub fn run(self) -> CheckpointDone {
        CheckpointDone { result: self.work.run() }
    }
}

impl Work {
    fn run(self) -> Result<StepResult, DiskError> {
        match self {
            Work::Seal(device) => device.sync().map(|()| StepResult::Sealed),
            Work::Move { ring, moves, counted } => {
                let (mut corrupt_blocks, mut damaged) = (0, Vec::new());
                for extent in moves {
                    let id = (extent.volume, extent.first.extent());
                    let found = extent.run(&ring)?;
                    damaged.extend((!found.is_empty()).then_some(id));
                    corrupt_blocks += found.iter().filter(|page| !counted.contains(page)).count() as u64;
                }
                Ok(StepResult::Moved { corrupt_blocks, damaged })
            }
            Work::Flush(devices) => {
                for device in devices {
                    device.sync()?;
                }
                Ok(StepResult::Flushed)
            }
            Work::Commit { checkpoint, commits } => {
                for (device, index, patch) in commits {
                    index.commit(&device, checkpoint, &patch).map_err(|e| device.fail(io::Error::other(e.text())))?;
                }
                Ok(StepResult::Committed)
            }
            Work::Label { device, label } => {
                label::write(&device, &label)?;
                Ok(StepResult::Labelled(label))
            }
        }
    }
}

impl ExtentMove {
    /// Copies the blocks; returns the pages of the blocks that did not match their checksums.
    ///
    /// A block that is damaged in the journal is copied as it is. The index gets the checksum that was computed when
    /// the block was written, so a read still fails, and the caller repairs the block from the peer.
    fn run(self, ring: &Ring) -> Result<Vec<u32>, DiskError> {
        let mut buffer = AlignedBuffer::zeroed(EXTENT);
        let bytes = buffer.as_mut_slice();
        let mut corrupt_pages = Vec::new();
        let adjacent =
            |a: &MovedBlock, b: &MovedBlock| a.place_in_extent + 1 == b.place_in_extent && a.source.continues(b.source);
        for run in self.blocks.chunk_by(adjacent) {
            let MovedSource::Journal { page, .. } = run[0].source else { continue };
            let into = &mut bytes[run[0].place_in_extent * BLOCK..(run[0].place_in_extent + run.len()) * BLOCK];
            if ring.read_pages(page, into).is_err() {
                self.read_single_blocks(ring, run, into);
            }
            for (block, data) in run.iter().zip(into.chunks_exact(BLOCK)) {
                let MovedSource::Journal { page, crc } = block.source else { continue };
                let number = self.first + block.place_in_extent as u64;
                if checksum::block(self.volume, number, self.birth, data) != crc {
                    corrupt_pages.push(page);
                }
            }
        }
        for run in self.blocks.chunk_by(|a, b| a.place_in_extent + 1 == b.place_in_extent) {
            let from = run[0].place_in_extent * BLOCK;
            let part = &bytes[from..from + run.len() * BLOCK];
            self.device.write(Access::Direct, self.offset + from as u64, part)?;
        }
        Ok(corrupt_pages)
    }

    /// Reads a run block by block. A block that cannot be read is filled with zeros, so it does not match its checksum
    /// unless its content was zeros.
    fn read_single_blocks(&self, ring: &Ring, run: &[MovedBlock], into: &mut [u8]) {
        for (block, data) in run.iter().zip(into.chunks_exact_mut(BLOCK)) {
            let read = match block.source {
                MovedSource::Journal { page, .. } => ring.read_pages(page, data).is_ok(),
                MovedSource::Lost => false,
            };
            if !read {
                data.fill(0);
            }
        }
    }
}
