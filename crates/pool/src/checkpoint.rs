//! Checkpoints: blocks are copied from the journal to their extents, and the indexes are updated, in small steps.
//!
//! ```text
//! Sealing    sync the journal: a block is written to its extent only after its record is durable
//! Moving     copy blocks from the journal to their extents, `budget` extents per job; sync the disks now and then
//! Flushing   sync each disk on which extents were written
//! Committing commit each index in several transactions; replay repairs the result of a crash between two of them
//! Labelling  write the label of the first disk with the new journal tail; sync
//! ```
//!
//! Writes that arrive while a checkpoint runs go to a new overlay. They get the free room of journal and overlay step by
//! step, as the copying goes on (`Checkpoint::withheld`), so that no write waits for a whole checkpoint. The blocks that the checkpoint covers are read from
//! the journal until the last phase is done; after a crash before that, all their records are replayed.

mod job;
mod plan;
mod running;

use dyad_types::{ExtentIndex, Stamp, VolumeId};
pub use job::{CheckpointDone, CheckpointJob};
pub(crate) use running::Checkpoint;

use crate::birth::Birth;
use crate::disk::Device;
use crate::index::key::Patch;
use crate::journal::record::JournalRecord;
use crate::pool::Pool;
use crate::{OVERLAY_LIMIT, StoreError};
use job::{StepResult, Work};
use running::Phase;
use std::sync::Arc;

/// A checkpoint starts when this many journal bytes are in use, or half of the ring if that is less.
const TRIGGER_BYTES: u64 = 256 << 20;
/// Number of full copying jobs after which the disks are synced. A disk with a write cache of its own may take far more
/// copies than it has written to its medium; without this sync the next sync of a guest would wait for all of them.
const SYNC_JOBS: usize = 8;
/// Number of index records in one transaction, per extent of a copying job's budget.
const COMMIT_RECORDS: usize = 16;
/// Largest number of extents of deleted volumes that one checkpoint frees.
pub(crate) const DELETE_EXTENTS: usize = 16 * 1024;

/// State of the checkpoint after one call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    /// There is no step to run: no checkpoint runs and none is needed, or the result of an earlier job is missing.
    Idle,
    /// One step is done, and the checkpoint has further steps.
    More,
    /// The last step is done: the journal tail has moved.
    Finished,
}

impl Pool {
    /// Whether a checkpoint runs or should start.
    pub fn wants_checkpoint(&self) -> bool {
        self.running_checkpoint.is_some()
            || self.journal.used() >= (self.journal.ring.len / 2).min(TRIGGER_BYTES)
            || self.active.0.len() >= OVERLAY_LIMIT / 2
            || self.operation_refused
            || self.state.volumes.values().any(|v| v.deleting)
    }

    /// Starts a checkpoint even if none is needed. No effect if a checkpoint runs, or if the journal is empty, no
    /// volume is being deleted and no confirmation is only in memory.
    pub fn start_checkpoint(&mut self) {
        self.operation_refused = false;
        let deleting = self.state.volumes.values().any(|v| v.deleting);
        let pending = self.state.volumes.values().any(|v| v.confirm_pending);
        if self.running_checkpoint.is_some() || (self.journal.used() == 0 && !deleting && !pending) {
            return;
        }
        self.reclaim_deleted();
        let disks = self.devices.len();
        self.running_checkpoint = Some(Checkpoint {
            number: self.label.checkpoint + 1,
            phase: Phase::Sealing,
            job_in_flight: false,
            new_tail: self.journal.tail_after_checkpoint(),
            journal_end: self.journal.end(),
            journal_room: self.journal.ring.len.saturating_sub(self.journal.used() + self.write_spare()),
            frozen: std::mem::take(&mut self.active),
            planned: None,
            planned_count: 0,
            committed_count: 0,
            planned_since_sync: 0,
            metadata: self.state.take_patch(),
            patches: vec![Patch::new(); disks],
            written_disks: vec![false; disks],
            damaged: Vec::new(),
            freed_slots: Vec::new(),
            extent_map_changes: Vec::new(),
        });
    }

    /// The next job of the running checkpoint; starts a checkpoint if [`Pool::wants_checkpoint`]. A job copies at most
    /// `budget` extents, each with up to 64 KiB of reads and as much of writes, or commits at most 16 times as many index
    /// records besides the metadata. `None` if there is nothing to do, or if
    /// the result of the last job was not passed to [`Pool::complete_checkpoint_job`] yet.
    ///
    /// # Errors
    /// `Failed`; `IndexDamaged`; `NoSpace` if no slot is free for an extent with a reservation. After each of them
    /// every operation of the pool fails: without checkpoints the journal stays full, and writers would wait without
    /// limit.
    pub fn checkpoint_job(&mut self, budget: usize) -> Result<Option<CheckpointJob>, StoreError> {
        self.check_disks()?;
        if self.running_checkpoint.is_none() && self.wants_checkpoint() {
            self.start_checkpoint();
        }
        let Some(running) = &self.running_checkpoint else {
            self.append_note_if_idle()?;
            return Ok(None);
        };
        if running.job_in_flight {
            return Ok(None);
        }
        let work = match self.next_work(budget.max(1)) {
            Ok(work) => work,
            Err(error) => {
                let disk_to_fail = match &error {
                    StoreError::IndexDamaged { disk, .. } | StoreError::Failed { disk, .. } => {
                        self.devices.iter().find(|device| device.name == *disk)
                    }
                    _ => None,
                };
                disk_to_fail.unwrap_or(&self.devices[0]).fail(std::io::Error::other(error.to_string()));
                return Err(error);
            }
        };
        if let Some(running) = &mut self.running_checkpoint {
            running.job_in_flight = true;
        }
        Ok(Some(CheckpointJob { work }))
    }

    /// Takes the result of a job from [`Pool::checkpoint_job`].
    ///
    /// # Errors
    /// `Failed`: a disk failed; from then on every operation of the pool fails.
    pub fn complete_checkpoint_job(&mut self, done: CheckpointDone) -> Result<Progress, StoreError> {
        let Some(running) = &mut self.running_checkpoint else { return Ok(Progress::Idle) };
        running.job_in_flight = false;
        match done.result? {
            StepResult::Sealed => {
                self.journal.set_synced(running.journal_end);
                running.phase = Phase::Moving;
            }
            StepResult::Moved { corrupt_blocks, damaged } => {
                self.corrupt_blocks += corrupt_blocks;
                running.damaged.extend(damaged);
            }
            StepResult::Flushed if running.phase == Phase::Moving => {}
            StepResult::Flushed => running.phase = Phase::Committing,
            StepResult::Committed if running.has_patches() => {}
            StepResult::Committed => running.phase = Phase::Labelling,
            StepResult::Labelled(label) => {
                self.label = *label;
                self.finish();
                return Ok(Progress::Finished);
            }
        }
        Ok(Progress::More)
    }

    /// Runs one step, with its I/O, on the calling thread.
    ///
    /// # Errors
    /// As [`Pool::checkpoint_job`].
    pub fn checkpoint_step(&mut self, budget: usize) -> Result<Progress, StoreError> {
        match self.checkpoint_job(budget)? {
            Some(job) => self.complete_checkpoint_job(job.run()),
            None => Ok(Progress::Idle),
        }
    }

    /// Runs the checkpoint that is under way to its end, if there is one, and then a further whole one, unless there is
    /// nothing to write. All I/O is done on the calling thread, also the copying of blocks.
    ///
    /// # Errors
    /// As [`Pool::checkpoint_job`].
    pub fn checkpoint(&mut self) -> Result<(), StoreError> {
        while self.running_checkpoint.is_some() {
            self.checkpoint_step(usize::MAX)?;
        }
        self.start_checkpoint();
        while self.running_checkpoint.is_some() {
            self.checkpoint_step(usize::MAX)?;
        }
        Ok(())
    }

    /// Takes the extents of which a finished checkpoint has copied blocks that did not match their checksums, or that could not be
    /// read. A read of such a block fails, also if the disk gave an error only once: the journal has the block no more.
    pub fn take_damaged(&mut self) -> Vec<(VolumeId, ExtentIndex)> {
        std::mem::take(&mut self.damaged)
    }

    fn next_work(&mut self, budget: usize) -> Result<Work, StoreError> {
        loop {
            let running = self.running_checkpoint.as_mut().expect("a checkpoint runs");
            match running.phase {
                Phase::Sealing => return Ok(Work::Seal(self.devices[0].clone())),
                Phase::Moving if running.planned_since_sync >= budget.saturating_mul(SYNC_JOBS) => {
                    running.planned_since_sync = 0;
                    return Ok(Work::Flush(self.take_written_disks()));
                }
                Phase::Moving => {
                    let moves = self.plan_moves(budget)?;
                    if !moves.is_empty() {
                        return Ok(Work::Move {
                            ring: self.journal.ring.clone(),
                            moves,
                            counted: self.corrupt_at_open.clone(),
                        });
                    }
                    if let Some(running) = self.running_checkpoint.as_mut().filter(|r| r.all_planned()) {
                        running.phase = Phase::Flushing;
                    }
                }
                Phase::Flushing => return Ok(Work::Flush(self.take_written_disks())),
                Phase::Committing => {
                    let patches = running.take_patches(budget.saturating_mul(COMMIT_RECORDS));
                    let disks = self.devices.iter().cloned().zip(self.indexes.iter().cloned()).zip(patches);
                    // Replay repairs the result of a crash between two commits, so their order does not matter.
                    let commits = disks.map(|((device, index), patch)| (device, index, patch)).collect();
                    return Ok(Work::Commit { checkpoint: running.number, commits });
                }
                Phase::Labelling => {
                    let mut label = self.label.clone();
                    label.generation += 1;
                    label.checkpoint = running.number;
                    label.tail = running.new_tail;
                    label.floor = self.journal.durable().0;
                    return Ok(Work::Label { device: self.devices[0].clone(), label: Box::new(label) });
                }
            }
        }
    }

    /// The disks on which extents were written since their last sync. Precondition: a checkpoint runs.
    fn take_written_disks(&mut self) -> Vec<Arc<Device>> {
        let running = self.running_checkpoint.as_mut().expect("a checkpoint runs");
        let written = running.written_disks.iter_mut().map(std::mem::take);
        let disks = self.devices.iter().zip(written).filter(|(_, written)| *written).map(|(disk, _)| disk.clone());
        let disks: Vec<_> = disks.collect();
        #[cfg(test)]
        let disks = if self.planted.skipped_sync { Vec::new() } else { disks };
        disks
    }

    /// Frees the journal records, and the slots, that the finished checkpoint made obsolete.
    fn finish(&mut self) {
        let running = self.running_checkpoint.take().expect("a label job belongs to a checkpoint");
        self.journal.move_tail(&running.new_tail);
        self.damaged.extend(running.damaged);
        // The first checkpoint after open covers all records that were replayed. From now on their pages are used again.
        self.corrupt_at_open = Default::default();
        for ((volume, extent), disk) in running.extent_map_changes {
            self.extent_map.set(volume, extent, disk);
        }
        for (disk, slot) in running.freed_slots {
            self.space.release(disk, slot);
        }
    }

    /// Discards up to [`DELETE_EXTENTS`] extents of deleted volumes, and removes deleted volumes without a stored
    /// extent.
    fn reclaim_deleted(&mut self) {
        let deleting: Vec<VolumeId> =
            self.state.volumes.iter().filter(|(_, v)| v.deleting).map(|(id, _)| *id).collect();
        let mut budget = DELETE_EXTENTS;
        for volume in deleting {
            let extents = self.extent_map.first(volume, budget);
            budget -= extents.len();
            if extents.is_empty() && budget > 0 {
                self.state.remove_deleted(volume);
            }
            for extent in extents {
                self.active.record_discard((volume, extent), u16::MAX, Stamp::default(), Birth::default());
            }
        }
    }

    /// If the pool is idle: journals the confirmations that are only in memory, then appends a [`JournalRecord::Note`].
    /// Its `synced` field proves that the records up to that number are durable, so that `open` can tell damage to them
    /// from a torn end.
    ///
    /// The pool is idle if no record was written since the last call. Without this condition, a guest that flushes
    /// after every write would cause an additional record for each flush.
    fn append_note_if_idle(&mut self) -> Result<(), StoreError> {
        let idle = self.position_at_idle_check == self.journal.last();
        self.position_at_idle_check = self.journal.last();
        if !idle {
            return Ok(());
        }
        self.journal_confirms()?;
        if self.journal.needs_note() && self.journal.has_room(&JournalRecord::Note, 0, self.journal.ring.len / 4) {
            self.append_and_apply(&JournalRecord::Note, &[], 0)?;
        }
        Ok(())
    }
}
