//! Group commit: one sync at a time, on whatever thread the owner likes.

use crate::disk::{Device, Fault};
use crate::journal::Mark;
use std::sync::Arc;

/// A sync to run. Holds what had been written when it was made; later writes are not claimed.
#[must_use = "a sync that is not run makes nothing durable"]
pub struct SyncJob {
    pub(crate) device: Arc<Device>,
    pub(crate) mark: Mark,
}

impl SyncJob {
    /// Runs it; blocks for as long as the disk needs to flush.
    pub fn run(self) -> SyncDone {
        let result = self.device.sync();
        SyncDone { mark: self.mark, result }
    }
}

/// The outcome of a [`SyncJob`], for [`crate::Pool::complete_sync`].
#[must_use = "the pool learns of durability only when it is given back"]
pub struct SyncDone {
    pub(crate) mark: Mark,
    pub(crate) result: Result<(), Fault>,
}
