//! The imports into volumes of this node, and the garbage collection of orphaned volumes.
//!
//! **Invariants.** At most one import runs into a volume: its name is in `running` from the request until the change of the
//! document that ends the import is decided. At most one orphaned volume is being deleted at a time.

use dyad_types::BootTime;
use std::collections::BTreeSet;

/// Minimum interval between two drops of aborted imports, which are dropped one at a time, as the lead may refuse. In
/// nanoseconds.
pub(crate) const DROP_IMPORT_INTERVAL: u64 = 1_000_000_000;

/// Interval of scans without a new document, in nanoseconds: a node that becomes the lead may have read the document before.
const ORPHAN_SCAN_INTERVAL: u64 = 1_000_000_000;

/// The imports into volumes of this node.
#[derive(Debug, Default)]
pub(crate) struct Imports {
    pub(crate) running: BTreeSet<String>,
    pub(crate) last_drop: Option<BootTime>,
}

/// Timing of the garbage collection of orphaned volumes.
#[derive(Debug, Default)]
pub(crate) struct VolumeGc {
    /// A deletion was asked for and has not ended.
    pub(crate) deleting: bool,
    /// Time at which a scan last found nothing or a deletion was refused; `None` = scan at the next settling.
    pub(crate) idle_since: Option<BootTime>,
}

impl VolumeGc {
    /// Has the next settling scan, as the document was read or changed.
    pub(crate) fn scan_now(&mut self) {
        self.idle_since = None;
    }

    pub(crate) fn scan_is_due(&self, now: BootTime) -> bool {
        !self.deleting && self.idle_since.is_none_or(|last| now.since(last) >= ORPHAN_SCAN_INTERVAL)
    }

    /// Records the end of a deletion. After a refusal the next scan comes after [`ORPHAN_SCAN_INTERVAL`].
    pub(crate) fn deletion_ended(&mut self, now: BootTime, deleted: bool) {
        self.deleting = false;
        if !deleted {
            self.idle_since = Some(now);
        }
    }
}
