//! One machine: hardware, kernel, VMs, and the daemon while it runs.

use crate::core_model::CoreModel;
use crate::store::Store;
use crate::world::Job;
use dyad_mirror::RequestId;
use dyad_pool::sim::SimDisk;
use dyad_quorum::{BootTime, Nanos, Quorum, Record, SEC};
use dyad_types::{NodeId, Session};
use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;

/// VMs of the pair, each with one volume.
pub const VMS: usize = 2;

/// Number of a VM of the pair, below [`VMS`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct VmIndex(pub usize);

impl VmIndex {
    /// Every VM of the pair.
    pub fn all() -> impl Iterator<Item = VmIndex> {
        (0..VMS).map(VmIndex)
    }
}

impl fmt::Display for VmIndex {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The daemon: lost as a whole when its process or machine dies.
pub struct Core {
    pub quorum: Quorum,
    pub model: CoreModel,
    pub store: Store,
    /// How many `PeerClean` and `PeerDirty` of the core model the quorum thread has handled.
    pub handled: u64,
    pub may_run: bool,
    /// The session that the core model knows.
    pub session: Option<Session>,
    /// When the quorum thread is woken next.
    pub wake_at: Nanos,
    /// When the newest message in each queue between threads arrives: queues keep their order.
    pub to_core_model: Nanos,
    pub to_quorum_thread: Nanos,
    pub to_cgroup_fence: Nanos,
}

/// A VM's process on one machine.
#[derive(Debug, Clone, Default)]
pub struct Vm {
    pub runs: bool,
    /// Requests that are not answered to the guest. A restarted daemon gets them again.
    pub open: BTreeMap<RequestId, crate::guests::Request>,
    /// Answers that arrived while the VM was frozen.
    pub answers: Vec<(RequestId, crate::guests::GuestResult)>,
}

pub struct Machine {
    pub id: NodeId,
    pub disk: SimDisk,
    pub index: PathBuf,
    pub record: Record,
    pub up: bool,
    pub boots: u64,
    pub boot_at: Nanos,
    pub clock_ppm: i64,
    /// Counts starts and ends of the daemon: jobs of an earlier run are void.
    pub daemon_run: u64,
    pub core: Option<Core>,
    /// The daemon got SIGSTOP: its jobs wait in `backlog`.
    pub stopped: bool,
    pub backlog: Vec<Job>,
    pub vms: [Vm; VMS],
    pub frozen: bool,
    /// The kernel confirms no freeze and no kill before this time.
    pub kernel_slow_until: Nanos,
    /// When the watchdog resets the machine if it is not fed.
    pub watchdog_at: Nanos,
    /// The replica counts as holding every acknowledged write. If no member's does, the oracle expects flushed writes only.
    pub complete: bool,
    /// The replica holds every acknowledged write; asserted byte for byte. Stricter than `complete`, which only relaxes the
    /// oracle.
    pub proven: bool,
    /// The boot in which the peer's mirror last found it clean.
    pub clean_in: u64,
}

impl Machine {
    /// CLOCK_BOOTTIME here at real time `now`.
    pub fn clock(&self, now: Nanos) -> BootTime {
        let elapsed = i128::from(now - self.boot_at);
        let skew = elapsed * i128::from(self.clock_ppm) / 1_000_000;
        BootTime(5 * SEC + u64::try_from(elapsed + skew).unwrap_or(0))
    }

    /// Real time at which the clock here shows `clock`, rounded up.
    pub fn real(&self, clock: BootTime) -> Nanos {
        let shown = i128::from(clock.since(BootTime(5 * SEC)));
        let elapsed = shown * 1_000_000 / (1_000_000 + i128::from(self.clock_ppm)) + 2;
        self.boot_at + u64::try_from(elapsed).unwrap_or(0)
    }

    pub fn boot_id(&self) -> u128 {
        ((self.id as u128 + 1) << 64) | u128::from(self.boots)
    }

    pub fn executes(&self, vm: VmIndex) -> bool {
        self.up && self.vms[vm.0].runs && !self.frozen
    }

    pub fn has_vms(&self) -> bool {
        self.vms.iter().any(|vm| vm.runs)
    }
}
