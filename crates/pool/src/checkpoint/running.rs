//! The state of a running checkpoint.

use crate::index::key::Patch;
use crate::journal::Mark;
use crate::label::JournalTail;
use crate::overlay::{Change, ExtentId, Overlay};
use std::ops::Bound;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    Sealing,
    Moving,
    Flushing,
    Committing,
    Labelling,
}

pub(crate) struct Checkpoint {
    pub(super) number: u64,
    pub(super) phase: Phase,
    /// A job was given out and its result is missing.
    pub(super) waiting: bool,
    /// The checkpoint covers every record before this.
    pub(super) cut: JournalTail,
    pub(super) mark: Mark,
    pub frozen: Overlay,
    /// Extents up to here are planned.
    pub(super) planned: Option<ExtentId>,
    /// Changes of each disk's index.
    pub(super) patches: Vec<Patch>,
    /// Disks that were written and need a sync.
    pub(super) written: Vec<bool>,
    /// Slots (disk, slot) that become free at the end.
    pub(super) freed: Vec<(usize, u64)>,
    /// Changes of the extent map at the end.
    pub(super) moved: Vec<(ExtentId, Option<usize>)>,
}

impl Checkpoint {
    /// The next extent to plan, with its change.
    pub(super) fn next(&self) -> Option<(ExtentId, Change)> {
        let from = self.planned.map_or(Bound::Unbounded, Bound::Excluded);
        let (place, change) = self.frozen.0.range((from, Bound::Unbounded)).next()?;
        Some((*place, (**change).clone()))
    }

    pub(super) fn all_planned(&self) -> bool {
        self.next().is_none()
    }
}
