//! Checkpoints: blocks are moved from the journal to their extents, and the indexes are updated, in small steps.
//!
//! ```text
//! Sealing    sync the journal: a block is written in place only after its record is durable
//! Moving     copy blocks from the journal to their extents, `budget` extents per job
//! Flushing   sync every disk that was written
//! Committing commit each index; replay repairs the result of a crash between two commits
//! Labelling  write the labels with the new tail; sync
//! ```
//!
//! Meanwhile writes go to a new overlay. The blocks that the checkpoint covers stay readable from the journal until the
//! last phase is done; after a crash before that, all their records are replayed.

mod job;
mod plan;
mod running;

use dyad_types::{Stamp, VolumeId};
pub use job::{CheckpointDone, CheckpointJob};
pub(crate) use running::Checkpoint;

use crate::birth::Birth;
use crate::index::key::Patch;
use crate::journal::record::Record;
use crate::pool::Pool;
use crate::{OVERLAY_LIMIT, StoreError};
use job::{StepResult, Work};
use running::Phase;

/// Journal bytes in use that start a checkpoint; or half the ring, if that is less.
const TRIGGER_BYTES: u64 = 256 << 20;
/// Extents of deleted volumes that one checkpoint frees at most.
const DELETE_EXTENTS: usize = 16 * 1024;

/// State of a checkpoint after a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    /// No checkpoint runs and none is needed.
    Idle,
    /// A step was done, and further steps follow.
    More,
    /// The last step was done: the journal tail has moved.
    Finished,
}

impl Pool {
    /// Whether a checkpoint runs or should start.
    pub fn wants_checkpoint(&self) -> bool {
        self.running.is_some()
            || self.journal.used() >= (self.journal.ring.len / 2).min(TRIGGER_BYTES)
            || self.active.0.len() >= OVERLAY_LIMIT / 2
            || self.out_of_space
            || self.state.volumes.values().any(|v| v.deleting)
    }

    /// Starts a checkpoint even if none is needed. No effect if one runs or if journal and indexes agree.
    pub fn start_checkpoint(&mut self) {
        self.out_of_space = false;
        let deleting = self.state.volumes.values().any(|v| v.deleting);
        let pending = self.state.volumes.values().any(|v| v.confirm_pending);
        if self.running.is_some() || (self.journal.used() == 0 && !deleting && !pending) {
            return;
        }
        self.reclaim_deleted();
        let disks = self.devices.len();
        let mut patches = vec![Patch::new(); disks];
        patches[0] = self.state.take_patch();
        self.running = Some(Checkpoint {
            number: self.label.checkpoint + 1,
            phase: Phase::Sealing,
            waiting: false,
            cut: self.journal.cut(),
            mark: self.journal.mark(),
            frozen: std::mem::take(&mut self.active),
            planned: None,
            patches,
            written: vec![false; disks],
            freed: Vec::new(),
            moved: Vec::new(),
        });
    }

    /// The next job of the running checkpoint; starts a checkpoint if [`Pool::wants_checkpoint`]. `budget` limits the
    /// extents of one job; each takes at most 64 KiB read and written. `None` if there is nothing to do or the result
    /// of a job is missing.
    ///
    /// # Errors
    /// `Failed`; `IndexDamaged`; `NoSpace` if no slot is free for an extent with a reservation. In each case the pool is
    /// closed, because without checkpoints the journal stays full and writers would wait without limit.
    pub fn checkpoint_job(&mut self, budget: usize) -> Result<Option<CheckpointJob>, StoreError> {
        self.usable().map_err(|failed| StoreError::Failed { disk: failed.disk, source: None })?;
        if self.running.is_none() && self.wants_checkpoint() {
            self.start_checkpoint();
        }
        let Some(running) = &self.running else {
            self.append_note_if_idle()?;
            return Ok(None);
        };
        if running.waiting {
            return Ok(None);
        }
        let work = match self.next_work(budget.max(1)) {
            Ok(work) => work,
            Err(error) => {
                let culprit = match &error {
                    StoreError::IndexDamaged { disk, .. } | StoreError::Failed { disk, .. } => {
                        self.devices.iter().find(|device| device.name == *disk)
                    }
                    _ => None,
                };
                culprit.unwrap_or(&self.devices[0]).fail(std::io::Error::other(error.to_string()));
                return Err(error);
            }
        };
        if let Some(running) = &mut self.running {
            running.waiting = true;
        }
        Ok(Some(CheckpointJob { work }))
    }

    /// Takes the result of a job.
    ///
    /// # Errors
    /// `Failed`: a disk failed; the pool is closed to every operation.
    pub fn complete_checkpoint_job(&mut self, done: CheckpointDone) -> Result<Progress, StoreError> {
        let Some(running) = &mut self.running else { return Ok(Progress::Idle) };
        running.waiting = false;
        match done.result? {
            StepResult::Sealed => {
                self.journal.synced(running.mark);
                running.phase = Phase::Moving;
            }
            StepResult::Moved { corrupt_blocks } => self.corrupt_blocks += corrupt_blocks,
            StepResult::Flushed => running.phase = Phase::Committing,
            StepResult::Committed => running.phase = Phase::Labelling,
            StepResult::Labelled(label) => {
                self.label = *label;
                self.finish();
                return Ok(Progress::Finished);
            }
        }
        Ok(Progress::More)
    }

    /// Runs one step on the calling thread.
    ///
    /// # Errors
    /// As [`Pool::checkpoint_job`].
    pub fn checkpoint_step(&mut self, budget: usize) -> Result<Progress, StoreError> {
        match self.checkpoint_job(budget)? {
            Some(job) => self.complete_checkpoint_job(job.run()),
            None => Ok(Progress::Idle),
        }
    }

    /// Ends a running checkpoint, then runs a whole one, on the calling thread.
    ///
    /// # Errors
    /// As [`Pool::checkpoint_job`].
    pub fn checkpoint(&mut self) -> Result<(), StoreError> {
        while self.running.is_some() {
            self.checkpoint_step(usize::MAX)?;
        }
        self.start_checkpoint();
        while self.running.is_some() {
            self.checkpoint_step(usize::MAX)?;
        }
        Ok(())
    }

    fn next_work(&mut self, budget: usize) -> Result<Work, StoreError> {
        loop {
            let running = self.running.as_mut().expect("a checkpoint runs");
            match running.phase {
                Phase::Sealing => return Ok(Work::Seal(self.devices[0].clone())),
                Phase::Moving => {
                    let moves = self.plan_moves(budget)?;
                    if !moves.is_empty() {
                        return Ok(Work::Move { ring: self.journal.ring.clone(), moves });
                    }
                    if let Some(running) = self.running.as_mut().filter(|r| r.all_planned()) {
                        running.phase = Phase::Flushing;
                    }
                }
                Phase::Flushing => {
                    let written = std::mem::take(&mut running.written);
                    let disks = self.devices.iter().zip(written).filter(|(_, w)| *w).map(|(d, _)| d.clone());
                    let disks = disks.collect();
                    #[cfg(test)]
                    let disks = if self.planted.skipped_sync { Vec::new() } else { disks };
                    return Ok(Work::Flush(disks));
                }
                Phase::Committing => {
                    let patches = std::mem::take(&mut running.patches);
                    let disks = self.devices.iter().cloned().zip(self.indexes.iter().cloned()).zip(patches);
                    // Replay repairs the result of a crash between two commits, so their order does not matter.
                    let commits = disks.map(|((device, index), patch)| (device, index, patch)).collect();
                    return Ok(Work::Commit { checkpoint: running.number, commits });
                }
                Phase::Labelling => {
                    let mut label = self.label.clone();
                    label.generation += 1;
                    label.checkpoint = running.number;
                    label.tail = running.cut;
                    label.floor = self.journal.durable().0;
                    return Ok(Work::Label { device: self.devices[0].clone(), label: Box::new(label) });
                }
            }
        }
    }

    fn finish(&mut self) {
        let running = self.running.take().expect("a label job belongs to a checkpoint");
        self.journal.advance(&running.cut);
        for ((volume, extent), disk) in running.moved {
            self.extent_map.set(volume, extent, disk);
        }
        for (disk, slot) in running.freed {
            self.space.release(disk, slot);
        }
    }

    /// Discards extents of deleted volumes, and removes volumes that have no extent any more.
    fn reclaim_deleted(&mut self) {
        let deleting: Vec<VolumeId> =
            self.state.volumes.iter().filter(|(_, v)| v.deleting).map(|(id, _)| *id).collect();
        let mut budget = DELETE_EXTENTS;
        for volume in deleting {
            let extents = self.extent_map.first(volume, budget);
            budget -= extents.len();
            if extents.is_empty() && budget > 0 {
                self.state.forget(volume);
            }
            for extent in extents {
                self.active.clear((volume, extent), u16::MAX, Stamp::default(), Birth::default());
            }
        }
    }

    /// If the pool is idle: journals the pending confirmations, then appends a [`Record::Note`] whose `synced` field
    /// proves that the records before it are durable, so that `open` can tell damage to them from a torn end.
    ///
    /// Idle means that no operation came since the last call: a guest that flushes every write must not cause an
    /// additional record for each flush.
    fn append_note_if_idle(&mut self) -> Result<(), StoreError> {
        let idle = self.idle_at == self.journal.last();
        self.idle_at = self.journal.last();
        if !idle {
            return Ok(());
        }
        self.journal_confirms()?;
        if self.journal.needs_note() && self.journal.has_room(&Record::Note, 0, self.journal.ring.len / 4) {
            self.log(&Record::Note, &[], 0)?;
        }
        Ok(())
    }
}
