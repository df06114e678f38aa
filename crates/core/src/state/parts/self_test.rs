//! The watchdog of this node, and the test that proves it.
//!
//! **Invariant.** While the test runs the watchdog is not fed and no VM is permitted.

use crate::watchdog::WatchdogInfo;
use dyad_control::WatchdogStatus;

/// The watchdog and its test.
#[derive(Debug)]
pub(in crate::state) struct SelfTest {
    /// The watchdog as it was at start; `None` = this node has none.
    watchdog: Option<WatchdogInfo>,
    /// The test runs: the watchdog is not fed.
    pub(in crate::state) running: bool,
}

impl SelfTest {
    /// No test runs.
    pub(in crate::state) fn new(watchdog: Option<WatchdogInfo>) -> Self {
        Self { watchdog, running: false }
    }

    /// Name of the watchdog, if it is not proven.
    pub(in crate::state) fn unproven(&self) -> Option<String> {
        self.watchdog.as_ref().filter(|info| !info.proven).map(|info| info.identity.clone())
    }

    /// `Absent` if this node has no watchdog.
    pub(in crate::state) fn status(&self) -> WatchdogStatus {
        self.watchdog.as_ref().map_or(WatchdogStatus::Absent, WatchdogInfo::status)
    }
}
