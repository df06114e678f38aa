//! The state of a running checkpoint.

use crate::OVERLAY_LIMIT;
use crate::index::key::Patch;
use crate::journal::RecordBoundary;
use crate::label::JournalTail;
use crate::overlay::{ExtentChange, ExtentId, Overlay};
use dyad_types::{ExtentIndex, VolumeId};
use std::ops::Bound;

/// The phases of a checkpoint, in this order. The comment of [`crate::checkpoint`] says what each does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    Sealing,
    Moving,
    Flushing,
    Committing,
    Labelling,
}

pub(crate) struct Checkpoint {
    /// That of the last finished checkpoint + 1.
    pub(super) number: u64,
    pub(super) phase: Phase,
    /// A job was given out and its result is missing.
    pub(super) job_in_flight: bool,
    /// The journal's tail once the checkpoint has finished: the checkpoint covers each record before it.
    pub(super) new_tail: JournalTail,
    /// End of the journal when the checkpoint began. The sync of the first phase makes the records before it durable.
    pub(super) journal_end: RecordBoundary,
    /// Number of journal bytes that were free for writes when the checkpoint began.
    pub(super) journal_room: u64,
    /// The changes that the checkpoint moves to the extents; newer changes are in the pool's active overlay.
    pub frozen: Overlay,
    /// The last extent that is planned. Extents are planned in ascending order.
    pub(super) planned: Option<ExtentId>,
    /// Number of extents that are planned.
    pub(super) planned_count: usize,
    /// Number of index records of extents whose transaction was given out.
    pub(super) committed_count: usize,
    /// Number of extents that were planned since the disks were last synced.
    pub(super) planned_since_sync: usize,
    /// Changes of the metadata, for the index of disk 0.
    pub(super) metadata: Patch,
    /// Changes of the extents in each disk's index, in the order of the disks.
    pub(super) patches: Vec<Patch>,
    /// For each disk: whether extents on it were written since its last sync, so that it needs another one.
    pub(super) written_disks: Vec<bool>,
    /// Extents of which a block did not match its checksum when it was copied.
    pub(super) damaged: Vec<(VolumeId, ExtentIndex)>,
    /// Slots (disk, slot) that become free when the checkpoint has finished.
    pub(super) freed_slots: Vec<(usize, u64)>,
    /// Changes of the extent map that apply when the checkpoint has finished: the disk of each extent, `None` if the
    /// extent exists no more.
    pub(super) extent_map_changes: Vec<(ExtentId, Option<usize>)>,
}

impl Checkpoint {
    /// The next extent to plan and its change; `None` if all are planned.
    pub(super) fn next(&self) -> Option<(ExtentId, ExtentChange)> {
        let from = self.planned.map_or(Bound::Unbounded, Bound::Excluded);
        let (id, change) = self.frozen.0.range((from, Bound::Unbounded)).next()?;
        Some((*id, (**change).clone()))
    }

    /// The part of `room` that writes must leave free for now. `room` is what was free for them when the checkpoint began.
    ///
    /// A quarter of it is free at once. Four fifths of the rest become free as the extents are copied, the last fifth as
    /// their index records are committed. So a writer that is faster than the checkpoint waits for the next step again and
    /// again, and not once for the whole checkpoint, which takes minutes on a slow disk.
    fn withheld(&self, room: u64) -> u64 {
        let extents = self.frozen.0.len() as u64;
        if extents == 0 || self.phase == Phase::Labelling {
            return 0;
        }
        let left = 4 * (extents - self.planned_count as u64) + extents.saturating_sub(self.committed_count as u64);
        room / 4 * 3 * left / (5 * extents)
    }

    /// Number of journal bytes that writes must leave free for now.
    pub fn withheld_journal(&self) -> u64 {
        self.withheld(self.journal_room)
    }

    /// Number of extents of the active overlay that writes must leave free for now.
    pub fn withheld_overlay(&self) -> usize {
        self.withheld(OVERLAY_LIMIT as u64) as usize
    }

    /// Whether the job under way writes the label.
    pub fn writes_label(&self) -> bool {
        self.phase == Phase::Labelling && self.job_in_flight
    }

    /// The next patch of each disk's index, in the order of the disks, with at most `records` records of extents each. The
    /// first one of disk 0 has the metadata as well, as a whole: the records of a volume and of its sets belong together.
    pub(super) fn take_patches(&mut self, records: usize) -> Vec<Patch> {
        let take = |patch: &mut Patch| patch.drain(..records.min(patch.len())).collect();
        let mut patches: Vec<Patch> = self.patches.iter_mut().map(take).collect();
        self.committed_count += patches.iter().map(Vec::len).sum::<usize>();
        patches[0].splice(..0, std::mem::take(&mut self.metadata));
        patches
    }

    /// Whether changes of an index are not given out yet.
    pub(super) fn has_patches(&self) -> bool {
        !self.metadata.is_empty() || self.patches.iter().any(|patch| !patch.is_empty())
    }

    pub(super) fn all_planned(&self) -> bool {
        self.next().is_none()
    }
}
