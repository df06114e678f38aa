//! The state of a running checkpoint.

use crate::index::key::Patch;
use crate::journal::RecordBoundary;
use crate::label::JournalTail;
use crate::overlay::{ExtentChange, ExtentId, Overlay};
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
    /// The changes that the checkpoint moves to the extents; newer changes are in the pool's active overlay.
    pub frozen: Overlay,
    /// The last extent that is planned. Extents are planned in ascending order.
    pub(super) planned: Option<ExtentId>,
    /// Changes of each disk's index, in the order of the disks.
    pub(super) patches: Vec<Patch>,
    /// For each disk: whether extents on it were written, so that it needs a sync.
    pub(super) written_disks: Vec<bool>,
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

    /// Whether the job under way writes the label.
    pub fn writes_label(&self) -> bool {
        self.phase == Phase::Labelling && self.job_in_flight
    }

    pub(super) fn all_planned(&self) -> bool {
        self.next().is_none()
    }
}
