//! The I/O of a checkpoint as jobs that hold no reference to the pool, so that another thread may run them.

use crate::birth::Birth;
use crate::buffer::AlignedBuffer;
use crate::checksum;
use crate::disk::{Access, Device, Fault};
use crate::index::Index;
use crate::index::key::Patch;
use crate::journal::Ring;
use crate::label::{self, Label};
use dyad_types::{BLOCK, BlockIndex, EXTENT, VolumeId};
use std::io;
use std::sync::Arc;

/// I/O of one step of a checkpoint.
#[must_use = "the checkpoint waits for its result"]
pub struct CheckpointJob {
    pub(super) work: Work,
}

/// The result of a [`CheckpointJob`], for [`crate::Pool::complete_checkpoint_job`].
#[must_use = "the checkpoint waits for its result"]
pub struct CheckpointDone {
    pub(super) result: Result<StepResult, Fault>,
}

pub(super) enum Work {
    Seal(Arc<Device>),
    Move { ring: Ring, moves: Vec<Move> },
    Flush(Vec<Arc<Device>>),
    Commit { checkpoint: u64, commits: Vec<(Arc<Device>, Arc<Index>, Patch)> },
    Label { device: Arc<Device>, label: Box<Label> },
}

pub(super) enum StepResult {
    Sealed,
    Moved { corrupt_blocks: u64 },
    Flushed,
    Committed,
    Labelled(Box<Label>),
}

/// Blocks of one extent to copy from the journal.
pub(super) struct Move {
    pub device: Arc<Device>,
    /// Byte offset of the extent on its disk.
    pub offset: u64,
    pub volume: VolumeId,
    /// First block of the extent.
    pub first: BlockIndex,
    pub birth: Birth,
    /// In ascending order of the block.
    pub blocks: Vec<MovedBlock>,
}

pub(super) struct MovedBlock {
    pub inside: usize,
    pub page: u32,
    pub crc: u32,
}

impl CheckpointJob {
    /// Runs the job; blocks for its I/O.
    pub fn run(self) -> CheckpointDone {
        CheckpointDone { result: self.work.run() }
    }
}

impl Work {
    fn run(self) -> Result<StepResult, Fault> {
        match self {
            Work::Seal(device) => device.sync().map(|()| StepResult::Sealed),
            Work::Move { ring, moves } => {
                let mut corrupt_blocks = 0;
                for extent in moves {
                    corrupt_blocks += extent.run(&ring)?;
                }
                Ok(StepResult::Moved { corrupt_blocks })
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

impl Move {
    /// Copies the blocks; returns how many did not match their checksums.
    ///
    /// A block that is damaged in the journal is moved as it is: the index gets the checksum of the data that was
    /// written, so that a read still fails and the block is repaired from the peer.
    fn run(self, ring: &Ring) -> Result<u64, Fault> {
        let mut buffer = AlignedBuffer::zeroed(EXTENT);
        let bytes = buffer.as_mut_slice();
        let mut corrupt_blocks = 0;
        for run in self.blocks.chunk_by(|a, b| a.inside + 1 == b.inside && a.page + 1 == b.page) {
            let into = &mut bytes[run[0].inside * BLOCK..(run[0].inside + run.len()) * BLOCK];
            if ring.read_pages(run[0].page, into).is_err() {
                self.read_single_blocks(ring, run, into);
            }
            for (block, data) in run.iter().zip(into.chunks_exact(BLOCK)) {
                let number = self.first + block.inside as u64;
                corrupt_blocks += u64::from(checksum::block(self.volume, number, self.birth, data) != block.crc);
            }
        }
        for run in self.blocks.chunk_by(|a, b| a.inside + 1 == b.inside) {
            let from = run[0].inside * BLOCK;
            let part = &bytes[from..from + run.len() * BLOCK];
            self.device.write(Access::Direct, self.offset + from as u64, part)?;
        }
        Ok(corrupt_blocks)
    }

    /// Reads a run block by block. Blocks that cannot be read are filled with zeros and do not match their checksums.
    fn read_single_blocks(&self, ring: &Ring, run: &[MovedBlock], into: &mut [u8]) {
        for (block, data) in run.iter().zip(into.chunks_exact_mut(BLOCK)) {
            if ring.read_pages(block.page, data).is_err() {
                data.fill(0);
            }
        }
    }
}
