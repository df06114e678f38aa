//! Checkpoints: moving what the journal holds into extents and indexes, in small steps.
//!
//! ```text
//! Sealing    sync the journal: nothing is written in place whose record could still be lost
//! Moving     copy blocks from the journal to their extents, `budget` extents per job
//! Flushing   sync every disk that was written
//! Committing commit each index; replay heals a crash between two
//! Labelling  write the labels with the new tail; sync
//! ```
//!
//! Writes go on meanwhile into a fresh overlay. What the checkpoint covers stays readable from the journal
//! until the last phase is done, and a crash anywhere before that replays it all.

mod job;
mod plan;

use dyad_types::{Stamp, VolumeId};
pub use job::{CheckpointDone, CheckpointJob};

use crate::index::key::Patch;
use crate::journal::Mark;
use crate::journal::record::Record;
use crate::label::JournalTail;
use crate::overlay::{ExtentId, Overlay};
use crate::pool::Pool;
use crate::{OVERLAY_LIMIT, StoreError};
use job::{Outcome, Work};

/// Journal bytes that start a checkpoint by themselves, if half the ring is not less.
const TRIGGER_BYTES: u64 = 256 << 20;
/// Extents of deleted volumes one checkpoint frees.
const DELETE_EXTENTS: usize = 16 * 1024;

/// How a checkpoint is getting on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    /// None is running and none is needed.
    Idle,
    /// A step was done; there is more.
    More,
    /// The last step was done: the journal tail has moved.
    Finished,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    Sealing,
    Moving,
    Flushing,
    Committing,
    Labelling,
}

/// A running checkpoint.
pub(crate) struct Checkpoint {
    number: u64,
    phase: Phase,
    /// A job is out.
    waiting: bool,
    /// What it covers: everything before this.
    cut: JournalTail,
    mark: Mark,
    pub frozen: Overlay,
    /// Extents up to here are planned.
    planned: Option<ExtentId>,
    /// Changes of each disk's index.
    patches: Vec<Patch>,
    /// Disks that were written and need a sync.
    written: Vec<bool>,
    /// Slots that become free when it is done.
    freed: Vec<(usize, u64)>,
    /// ExtentMap that change when it is done.
    moved: Vec<(ExtentId, Option<usize>)>,
}

impl Pool {
    /// Whether a checkpoint is running or should be.
    pub fn wants_checkpoint(&self) -> bool {
        self.running.is_some()
            || self.journal.used() >= (self.journal.ring.len / 2).min(TRIGGER_BYTES)
            || self.active.0.len() >= OVERLAY_LIMIT / 2
            || self.out_of_space
            || self.state.volumes.values().any(|v| v.deleting)
    }

    /// Starts a checkpoint even if none is needed. Nothing happens if one is running or there is nothing to do.
    pub fn start_checkpoint(&mut self) {
        self.out_of_space = false;
        let deleting = self.state.volumes.values().any(|v| v.deleting);
        let owed = self.state.volumes.values().any(|v| v.confirm_owed);
        if self.running.is_some() || (self.journal.used() == 0 && !deleting && !owed) {
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

    /// The next job of the running checkpoint; starts one if it is wanted. `budget` bounds the extents of one
    /// job, each at most 64 KiB read and written. `None` if there is nothing to do or a job is out.
    ///
    /// # Errors
    /// `Failed`; `IndexDamaged`, or `NoSpace` if extents that were promised a slot find none: the pool is closed then, because
    /// a journal that is never emptied would let its writers wait for ever.
    pub fn checkpoint_job(&mut self, budget: usize) -> Result<Option<CheckpointJob>, StoreError> {
        self.usable().map_err(|disk| StoreError::Failed { disk, source: None })?;
        if self.running.is_none() && self.wants_checkpoint() {
            self.start_checkpoint();
        }
        let Some(running) = &self.running else {
            self.append_sync_note()?;
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

    /// Takes a job's outcome.
    ///
    /// # Errors
    /// `Failed`: a disk refused; nothing works any more.
    pub fn complete_checkpoint_job(&mut self, done: CheckpointDone) -> Result<Progress, StoreError> {
        let Some(running) = &mut self.running else { return Ok(Progress::Idle) };
        running.waiting = false;
        match done.result? {
            Outcome::Sealed => {
                self.journal.synced(running.mark);
                running.phase = Phase::Moving;
            }
            Outcome::Moved { corrupt_blocks } => self.corrupt_blocks += corrupt_blocks,
            Outcome::Flushed => running.phase = Phase::Committing,
            Outcome::Committed => running.phase = Phase::Labelling,
            Outcome::Labelled(label) => {
                self.label = *label;
                self.finish();
                return Ok(Progress::Finished);
            }
        }
        Ok(Progress::More)
    }

    /// Does one step here and now.
    ///
    /// # Errors
    /// As [`Pool::checkpoint_job`].
    pub fn checkpoint_step(&mut self, budget: usize) -> Result<Progress, StoreError> {
        match self.checkpoint_job(budget)? {
            Some(job) => self.complete_checkpoint_job(job.run()),
            None => Ok(Progress::Idle),
        }
    }

    /// Runs a whole checkpoint here and now, finishing a running one first.
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
            let running = self.running.as_mut().expect("the caller looked");
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
                    // A crash between two commits is healed by replay, so their order does not matter.
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

    /// Discards extents of deleted volumes, and forgets volumes that have none left.
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
                self.active.clear((volume, extent), u16::MAX, Stamp::default(), 0);
            }
        }
    }

    /// When all is quiet: what was only remembered in memory, and a record that tells that the ones before it
    /// are durable, so that damage to them is told apart from a torn end.
    ///
    /// Quiet means that nothing was written since the last time this was asked: a guest that flushes
    /// every write must not pay a record more for each.
    fn append_sync_note(&mut self) -> Result<(), StoreError> {
        let quiet = self.quiet_at == self.journal.last();
        self.quiet_at = self.journal.last();
        if !quiet {
            return Ok(());
        }
        self.log_confirms()?;
        if self.journal.owes_note() && self.journal.has_room(&Record::Note, 0, self.journal.ring.len / 4) {
            self.log(&Record::Note, &[], 0)?;
        }
        Ok(())
    }
}
