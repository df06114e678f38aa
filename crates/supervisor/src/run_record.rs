//! The stored record of a VM's run, by which a restarted `dyad-node` finds the process.
//!
//! One JSON file for each VM in its run directory, which a reboot of the node empties. The file is replaced by rename,
//! so that a reader never finds a partial one. It remains after the process has ended until the VM is forgotten, so
//! that a restarted `dyad-node` does not take a guest's shutdown for a crash.

use std::io;
use std::path::Path;

use dyad_types::BootTime;
use serde::{Deserialize, Serialize};

use crate::Phase;
use crate::lifecycle::VmEvent;

/// A run of at least this many nanoseconds ends a series of crashes: a crash at its end counts as the first of a new
/// series. Ten minutes are longer than a guest takes to boot and to fail again.
const STABLE_RUN_PERIOD: u64 = 600 * 1_000_000_000;

/// One run of a VM: its process, and how it ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct VmRunRecord {
    pub phase: Phase,
    /// The time at which the phase began.
    pub since: BootTime,
    /// The time at which the process was started.
    pub started: BootTime,
    /// Pid, and start time in clock ticks since boot; `None` until the process exists.
    pub process: Option<(u32, u64)>,
    /// The value of `changed` of the VM in the document from which it was started.
    #[serde(rename = "started_for")]
    pub started_generation: u64,
    /// Number of crashes in a row: before this run, and with this run once it has ended.
    pub crashes: u32,
    /// The time at which SIGKILL is sent if the process has not ended: set when the guest is asked to shut down, when it
    /// has shut itself down, and by each SIGKILL for the next one.
    pub deadline: Option<BootTime>,
    /// Cause of the end of the run, as one sentence for people; `None` while it lasts, except after a panic.
    pub note: Option<String>,
}

impl VmRunRecord {
    /// Replaces the whole file at `path` and syncs it.
    pub fn save(&self, path: &Path) -> io::Result<()> {
        dyad_atomic_file::replace_with_mode(path, &serde_json::to_vec(self)?, dyad_atomic_file::PUBLIC)
    }

    /// Counts the end of the run at `now`. The phase is still that of the run.
    pub fn count_end(&mut self, now: BootTime) {
        self.crashes = match self.phase {
            Phase::Starting | Phase::Running if now.since(self.started) >= STABLE_RUN_PERIOD => 1,
            Phase::Starting | Phase::Running => self.crashes + 1,
            _ => 0,
        };
    }

    /// Records that the process has ended while `dyad-node` was not running. The length of the run is then not known; it
    /// is taken to have lasted until `now`, since `dyad-node` is seldom away for long. Returns `false` if the end of the
    /// run was recorded before.
    pub fn end_unobserved(&mut self, now: BootTime) -> bool {
        let Ok(phase) = self.phase.after(VmEvent::Gone) else { return false };
        self.count_end(now);
        self.phase = phase;
        self.since = now;
        self.note.get_or_insert_with(|| "The VM ended while dyad-node was not running.".into());
        true
    }

    /// Reads the file at `path`. `None` if there is none or it is not a record.
    pub fn load(path: &Path) -> Option<Self> {
        let bytes = std::fs::read(path).ok()?;
        match serde_json::from_slice(&bytes) {
            Ok(record) => Some(record),
            Err(error) => {
                tracing::warn!(path = %path.display(), %error, "a VM's record cannot be read and is ignored");
                None
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn running(crashes: u32) -> VmRunRecord {
        let started = BootTime(5);
        VmRunRecord {
            phase: Phase::Running,
            since: started,
            started,
            process: Some((1, 1)),
            started_generation: 1,
            crashes,
            deadline: None,
            note: None,
        }
    }

    #[test]
    fn a_vm_that_ran_long_and_ended_unobserved_begins_a_new_series_of_crashes() {
        for (ran, crashes) in [(STABLE_RUN_PERIOD - 1, 8), (STABLE_RUN_PERIOD, 1)] {
            let mut record = running(7);
            assert!(record.end_unobserved(BootTime(5 + ran)));
            assert_eq!((record.phase, record.crashes), (Phase::Crashed, crashes), "after {ran} ns");
            assert!(!record.end_unobserved(BootTime(5 + 2 * ran)), "the end is recorded once");
        }
    }

    #[test]
    fn a_guest_that_shut_down_ends_the_series_of_crashes() {
        let mut record = VmRunRecord { phase: Phase::Ending, ..running(7) };
        record.end_unobserved(BootTime(6));
        assert_eq!((record.phase, record.crashes), (Phase::ShutDown, 0));
    }
}
