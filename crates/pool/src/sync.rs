//! Group commit: one sync at a time, on any thread.

use crate::disk::{Device, Fault};
use crate::journal::Mark;
use std::sync::Arc;

/// A sync to run. It covers the operations written before it was begun.
#[must_use = "operations become durable only when the sync runs"]
pub struct SyncJob {
    pub(crate) device: Arc<Device>,
    pub(crate) mark: Mark,
}

impl SyncJob {
    /// Runs the sync; blocks until the disk has flushed.
    pub fn run(self) -> SyncDone {
        let result = self.device.sync();
        SyncDone { mark: self.mark, result }
    }
}

/// The result of a [`SyncJob`], for [`crate::Pool::complete_sync`].
#[must_use = "the pool needs the result to report operations as durable"]
pub struct SyncDone {
    pub(crate) mark: Mark,
    pub(crate) result: Result<(), Fault>,
}
