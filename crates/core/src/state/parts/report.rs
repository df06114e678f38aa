//! The status that is shown, the alarms, and the error that makes this node faulty.
//!
//! **Invariant.** The revision of the status is 1 at the first status of this member and grows by one with each change that is
//! shown, and only then.

use dyad_control::Status;
use dyad_quorum::Alarm;
use std::collections::BTreeSet;
use tokio::sync::watch;

/// The shown status, and the values that only the status needs.
pub(in crate::state) struct Report {
    status: watch::Sender<Status>,
    revision: u64,
    /// The alarms of the quorum machine that are in force.
    pub(in crate::state) alarms: BTreeSet<Alarm>,
    /// The failure of the pool, as text for people. It is not cleared before the daemon restarts.
    pub(in crate::state) error: Option<String>,
    /// The reason for which no copy of the document is readable; cleared when one is read.
    pub(in crate::state) document_error: Option<String>,
    /// The reason for which the identity of this node cannot be written; cleared when it is written.
    pub(in crate::state) identity_error: Option<String>,
}

impl Report {
    /// `status` is the channel that the tasks of the control socket read.
    pub(in crate::state) fn new(status: watch::Sender<Status>) -> Self {
        Self { status, revision: 0, alarms: BTreeSet::new(), error: None, document_error: None, identity_error: None }
    }

    /// The gravest error that makes this node faulty.
    pub(in crate::state) fn faulty(&self) -> Option<&String> {
        self.error.as_ref().or(self.document_error.as_ref()).or(self.identity_error.as_ref())
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
