//! Timing of the garbage collection of orphaned volumes.
//!
//! **Invariant.** At most one orphaned volume is being deleted at a time.

use std::time::{Duration, Instant};

/// Interval of scans without a new document: a node that becomes the lead may have read the document before.
const ORPHAN_SCAN_INTERVAL: Duration = Duration::from_secs(1);

/// The state of the garbage collection.
#[derive(Debug, Default)]
pub(in crate::state) struct VolumeGc {
    /// The mirror has not answered a deletion yet.
    deleting: bool,
    /// Time at which a scan last found nothing or a deletion was refused; `None` = scan at the next settling.
    idle_since: Option<Instant>,
}

impl VolumeGc {
    /// Has the next settling scan, as the document was read or changed.
    pub(in crate::state) fn scan_now(&mut self) {
        self.idle_since = None;
    }

    /// Whether no deletion runs and [`ORPHAN_SCAN_INTERVAL`] has passed or a scan was requested.
    pub(in crate::state) fn scan_is_due(&self) -> bool {
        !self.deleting && self.idle_since.is_none_or(|last| last.elapsed() >= ORPHAN_SCAN_INTERVAL)
    }

    /// Records that a scan found no orphaned volume.
    pub(in crate::state) fn found_nothing(&mut self) {
        self.idle_since = Some(Instant::now());
    }

    /// Records the start of a deletion.
    pub(in crate::state) fn deletion_begins(&mut self) {
        self.deleting = true;
    }

    /// Records the end of a deletion. After a refusal the next scan comes after [`ORPHAN_SCAN_INTERVAL`].
    pub(in crate::state) fn deletion_ended(&mut self, deleted: bool) {
        self.deleting = false;
        if !deleted {
            self.found_nothing();
        }
    }
}
