//! The garbage collection of orphaned volumes: when it looks, and whether it deletes.
//!
//! **Invariant.** At most one orphaned volume is being deleted at a time.

use std::time::{Duration, Instant};

/// Interval between two scans without a cause. A node that becomes the lead may have read the document before it did.
const ORPHAN_SCAN_INTERVAL: Duration = Duration::from_secs(1);

/// The state of the garbage collection.
#[derive(Debug, Default)]
pub(in crate::state) struct VolumeGc {
    /// A volume is being deleted.
    deleting: bool,
    /// When a scan last found nothing, or a deletion was refused.
    idle_since: Option<Instant>,
}

impl VolumeGc {
    /// The document was read or changed: scan at the next settling.
    pub(in crate::state) fn look_now(&mut self) {
        self.idle_since = None;
    }

    /// Whether a scan is due.
    pub(in crate::state) fn scan_is_due(&self) -> bool {
        !self.deleting && self.idle_since.is_none_or(|last| last.elapsed() >= ORPHAN_SCAN_INTERVAL)
    }

    /// The scan found nothing.
    pub(in crate::state) fn found_nothing(&mut self) {
        self.idle_since = Some(Instant::now());
    }

    /// A volume is being deleted.
    pub(in crate::state) fn deletion_begins(&mut self) {
        self.deleting = true;
    }

    /// The deletion has ended. If it was refused, the next scan for orphaned volumes comes after `ORPHAN_SCAN_INTERVAL`.
    pub(in crate::state) fn deletion_ended(&mut self, deleted: bool) {
        self.deleting = false;
        if !deleted {
            self.found_nothing();
        }
    }
}
