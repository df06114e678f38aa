//! What people are shown: the status, the alarms, and the error that makes this node faulty.
//!
//! **Invariant.** The revision of the status grows by one with each change that is shown, and only then.

use dyad_control::Status;
use dyad_quorum::Alarm;
use std::collections::BTreeSet;
use tokio::sync::watch;

/// The status and what only the status needs.
pub(in crate::state) struct Report {
    status: watch::Sender<Status>,
    revision: u64,
    /// Lasting conditions of the quorum machine.
    pub(in crate::state) alarms: BTreeSet<Alarm>,
    /// Why this node is faulty, one sentence.
    pub(in crate::state) error: Option<String>,
}

impl Report {
    /// Shows on this channel.
    pub(in crate::state) fn new(status: watch::Sender<Status>) -> Self {
        Self { status, revision: 0, alarms: BTreeSet::new(), error: None }
    }

    /// Shows a status if it differs from the one shown; its revision is set here.
    pub(in crate::state) fn show(&mut self, mut status: Status) {
        let revision = self.revision;
        let changed = self.status.send_if_modified(|shown| {
            status.revision = shown.revision;
            let changed = *shown != status;
            if changed {
                status.revision = revision + 1;
                *shown = status;
            }
            changed
        });
        if changed {
            self.revision += 1;
        }
    }

    #[cfg(test)]
    pub(in crate::state) fn shown(&self) -> Status {
        self.status.borrow().clone()
    }
}
