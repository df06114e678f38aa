//! The slow parts of a checkpoint, detached from the pool so that they may run on another thread.

use crate::buffer::AlignedBuffer;
use crate::checksum;
use crate::disk::{Access, Device, Fault};
use crate::index::Index;
use crate::index::key::Patch;
use crate::journal::Ring;
use crate::label::{self, Label};
use dyad_types::{BLOCK, EXTENT, VolumeId};
use std::io;
use std::sync::Arc;

/// One step of a checkpoint to run.
#[must_use = "the checkpoint waits for it"]
pub struct CheckpointJob {
    pub(super) work: Work,
}

/// The outcome of a [`CheckpointJob`], for [`crate::Pool::complete_checkpoint_job`].
#[must_use = "the checkpoint waits for it"]
pub struct CheckpointDone {
    pub(super) result: Result<Outcome, Fault>,
}

pub(super) enum Work {
    Seal(Arc<Device>),
    Move { ring: Ring, moves: Vec<Move> },
    Flush(Vec<Arc<Device>>),
    Commit { checkpoint: u64, commits: Vec<(Arc<Device>, Arc<Index>, Patch)> },
    Label { device: Arc<Device>, label: Box<Label> },
}

pub(super) enum Outcome {
    Sealed,
    Moved { corrupt_blocks: u64 },
    Flushed,
    Committed,
    Labelled(Box<Label>),
}

/// Blocks of one extent on their way from the journal.
pub(super) struct Move {
    pub device: Arc<Device>,
    /// Of the extent on its disk.
    pub offset: u64,
    pub volume: VolumeId,
    /// First block of the extent.
    pub first: u64,
    pub birth: u64,
    /// In ascending order.
    pub blocks: Vec<MovedBlock>,
}

pub(super) struct MovedBlock {
    pub inside: usize,
    pub page: u32,
    pub crc: u32,
}

impl CheckpointJob {
    /// Runs it; blocks for its I/O.
    pub fn run(self) -> CheckpointDone {
        CheckpointDone { result: self.work.run() }
    }
}

impl Work {
    fn run(self) -> Result<Outcome, Fault> {
        match self {
            Work::Seal(device) => device.sync().map(|()| Outcome::Sealed),
            Work::Move { ring, moves } => {
                let mut corrupt_blocks = 0;
                for one in moves {
                    corrupt_blocks += one.run(&ring)?;
                }
                Ok(Outcome::Moved { corrupt_blocks })
            }
            Work::Flush(devices) => {
                for device in devices {
                    device.sync()?;
                }
                Ok(Outcome::Flushed)
            }
            Work::Commit { checkpoint, commits } => {
                for (device, index, patch) in commits {
                    index.commit(&device, checkpoint, &patch).map_err(|e| device.fail(io::Error::other(e.text())))?;
                }
                Ok(Outcome::Committed)
            }
            Work::Label { device, label } => {
                label::write(&device, &label)?;
                Ok(Outcome::Labelled(label))
            }
        }
    }
}

impl Move {
    /// Copies the blocks; says how many did not match their checksums.
    ///
    /// A block that rotted in the journal is moved as it is: the index gets the checksum of what was written, so
    /// that reading it goes on being an error and the peer heals it.
    fn run(self, ring: &Ring) -> Result<u64, Fault> {
        let mut buffer = AlignedBuffer::zeroed(EXTENT);
        let bytes = buffer.as_mut_slice();
        let mut corrupt_blocks = 0;
        for run in self.blocks.chunk_by(|a, b| a.inside + 1 == b.inside && a.page + 1 == b.page) {
            let into = &mut bytes[run[0].inside * BLOCK..(run[0].inside + run.len()) * BLOCK];
            if ring.read_pages(run[0].page, into).is_err() {
                self.salvage(ring, run, into);
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

    /// Reads block by block what could not be read as a whole; what cannot be read at all stays zero and is corrupt_blocks.
    fn salvage(&self, ring: &Ring, run: &[MovedBlock], into: &mut [u8]) {
        for (block, data) in run.iter().zip(into.chunks_exact_mut(BLOCK)) {
            if ring.read_pages(block.page, data).is_err() {
                data.fill(0);
            }
        }
    }
}
