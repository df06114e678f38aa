//! Group commit: one sync, on any thread, makes all records durable that were written before it began.

use crate::disk::{Device, DiskError};
use crate::journal::RecordBoundary;
use std::sync::Arc;

/// A sync of the journal, to be run on any thread. It covers the operations that were written before
/// [`crate::Pool::begin_sync`].
#[must_use = "operations become durable only when the sync runs"]
pub struct SyncJob {
    pub(crate) device: Arc<Device>,
    /// End of the journal when the sync began.
    pub(crate) journal_end: RecordBoundary,
}

impl SyncJob {
    /// Runs the sync; returns when the disk has written all data to stable storage, or has failed.
    pub fn run(self) -> SyncDone {
        let result = self.device.sync();
        SyncDone { journal_end: self.journal_end, result }
    }
}

/// The result of a [`SyncJob`], for [`crate::Pool::complete_sync`].
#[must_use = "the pool needs the result to report operations as durable"]
pub struct SyncDone {
    pub(crate) journal_end: RecordBoundary,
    pub(crate) result: Result<(), DiskError>,
}
