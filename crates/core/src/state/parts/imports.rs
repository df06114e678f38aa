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
    /// An import into the volume begins. `false` = one runs already.
    pub(in crate::state) fn begin(&mut self, volume: &str) -> bool {
        self.running.insert(volume.to_owned())
    }

    /// The import into the volume has ended.
    pub(in crate::state) fn end(&mut self, volume: &str) {
        self.running.remove(volume);
    }

    /// Whether an import into the volume runs.
    pub(in crate::state) fn runs(&self, volume: &str) -> bool {
        self.running.contains(volume)
    }

    /// Whether an aborted import may be dropped now.
    pub(in crate::state) fn drop_is_due(&self) -> bool {
        self.last_drop.is_none_or(|last| last.elapsed() >= DROP_IMPORT_INTERVAL)
    }

    /// An aborted import is dropped now.
    pub(in crate::state) fn note_drop_time(&mut self) {
        self.last_drop = Some(Instant::now());
    }
}
