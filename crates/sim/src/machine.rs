//! One machine: hardware, kernel, VMs, and the daemon while it runs.

use crate::owner::Owner;
use crate::store::Store;
use crate::world::Job;
use dyad_mirror::RequestId;
use dyad_pool::sim::SimDisk;
use dyad_quorum::{Quorum, Record, SEC, Time};
use dyad_types::NodeId;
use std::collections::BTreeMap;
use std::path::PathBuf;

/// VMs of the pair, each with one volume.
pub const VMS: usize = 2;

/// The daemon: lost as a whole when its process or machine dies.
pub struct Core {
    pub quorum: Quorum,
    /// What the owner's thread keeps.
    pub owner: Owner,
    pub store: Store,
    /// Clean and dirty told by the owner and handled by the quorum_thread.
    pub handled: u64,
    pub may_run: bool,
    /// The session the owner's thread knows.
    pub session: Option<u64>,
    /// The next wake-up of the quorum_thread that is scheduled.
    pub wake_at: Time,
    /// When the last thing put into each queue arrives: queues keep their order.
    pub to_owner: Time,
    pub to_quorum_thread: Time,
    pub to_cgroup_fence: Time,
}

/// A VM's process on one machine.
#[derive(Debug, Clone, Default)]
pub struct Vm {
    pub runs: bool,
    /// Asked for and not answered to the guest. Given again to a restarted daemon.
    pub open: BTreeMap<RequestId, crate::guests::Request>,
    /// Answers that arrived while the VM was frozen.
    pub answers: Vec<(RequestId, crate::guests::Reply)>,
}

/// A machine.
pub struct Machine {
    pub id: NodeId,
    pub disk: SimDisk,
    pub index: PathBuf,
    pub record: Record,
    pub up: bool,
    pub boots: u64,
    pub boot_at: Time,
    pub clock_ppm: i64,
    /// Counts starts and ends of the daemon: jobs of an earlier one are void.
    pub life: u64,
    pub core: Option<Core>,
    /// SIGSTOP: jobs wait.
    pub stopped: bool,
    pub backlog: Vec<Job>,
    pub vms: [Vm; VMS],
    pub frozen: bool,
    /// Freezing and killing take at least until then.
    pub kernel_slow_until: Time,
    /// The watchdog resets the machine then.
    pub watchdog_at: Time,
    /// It counts as holding every acknowledged write: if no member does, the oracle is told that memories were lost.
    pub complete: bool,
    /// It surely holds them, and is looked at: narrower than `complete`, or the oracle would forgive too much.
    pub proven: bool,
    /// The boot in which its peer found it clean last.
    pub clean_in: u64,
}

impl Machine {
    /// CLOCK_BOOTTIME here at real time `now`.
    pub fn clock(&self, now: Time) -> Time {
        let elapsed = i128::from(now - self.boot_at);
        let skew = elapsed * i128::from(self.clock_ppm) / 1_000_000;
        5 * SEC + u64::try_from(elapsed + skew).unwrap_or(0)
    }

    /// Real time at which the clock here shows `clock`, rounded up.
    pub fn real(&self, clock: Time) -> Time {
        let shown = i128::from(clock.saturating_sub(5 * SEC));
        let elapsed = shown * 1_000_000 / (1_000_000 + i128::from(self.clock_ppm)) + 2;
        self.boot_at + u64::try_from(elapsed).unwrap_or(0)
    }

    pub fn boot_id(&self) -> u128 {
        ((self.id as u128 + 1) << 64) | u128::from(self.boots)
    }

    pub fn executes(&self, vm: usize) -> bool {
        self.up && self.vms[vm].runs && !self.frozen
    }

    pub fn has_vms(&self) -> bool {
        self.vms.iter().any(|vm| vm.runs)
    }
}
