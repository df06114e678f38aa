//! The imports into volumes of this node.
//!
//! **Invariant.** At most one import runs into a volume: its name is in `running` from the request until the change of the
//! document that ends the import is decided.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

/// Minimum interval between two `DropImport` changes. Aborted imports are dropped one at a time, and the lead may refuse.
const DROP_IMPORT_INTERVAL: Duration = Duration::from_secs(1);

/// The imports of this node.
#[derive(Debug, Default)]
pub(in crate::state) struct Imports {
    running: BTreeSet<String>,
    last_drop: Option<Instant>,
}

impl Imports {
    /// Begins an import into the volume. `false` = one runs already.
    pub(in crate::state) fn begin(&mut self, volume: &str) -> bool {
        self.running.insert(volume.to_owned())
    }

    /// Records the end of the import into the volume.
    pub(in crate::state) fn end(&mut self, volume: &str) {
        self.running.remove(volume);
    }

    /// Whether an import into the volume runs.
    pub(in crate::state) fn runs(&self, volume: &str) -> bool {
        self.running.contains(volume)
    }

    /// Whether [`DROP_IMPORT_INTERVAL`] has passed since the last `DropImport` of an aborted import.
    pub(in crate::state) fn drop_is_due(&self) -> bool {
        self.last_drop.is_none_or(|last| last.elapsed() >= DROP_IMPORT_INTERVAL)
    }

    /// Records that the drop of an aborted import is requested now.
    pub(in crate::state) fn note_drop_time(&mut self) {
        self.last_drop = Some(Instant::now());
    }
}
