//! One machine: hardware, kernel, VMs, and the daemon while it runs.

use crate::core_model::CoreModel;
use crate::store::Store;
use crate::world::DaemonJob;
use dyad_desired::Document;
use dyad_mirror::RequestId;
use dyad_placement::{CgroupRule, RightToRun};
use dyad_pool::sim::SimDisk;
use dyad_quorum::{AcceptorRecord, BootTime, Nanos, Quorum, SEC};
use dyad_supervisor::{Observed, Phase};
use dyad_types::{NodeId, Session};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::path::PathBuf;

/// Number of VMs of the pair, each with one volume.
pub const VMS: usize = 2;

/// Number of a VM of the pair, below [`VMS`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct VmIndex(pub usize);

impl VmIndex {
    /// Every VM of the pair.
    pub fn all() -> impl Iterator<Item = VmIndex> {
        (0..VMS).map(VmIndex)
    }

    /// The VM's name in the document.
    pub fn name(self) -> String {
        format!("vm{}", self.0)
    }

    /// The name of its volume in the document.
    pub fn disk(self) -> String {
        format!("disk{}", self.0)
    }
}

impl fmt::Display for VmIndex {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The state of the daemon in memory: lost when its process or machine ends.
pub struct Core {
    pub quorum: Quorum,
    pub model: CoreModel,
    pub store: Store,
    /// Number of `PeerClean` and `PeerDirty` of the core model that the quorum thread has handled.
    pub handled_reports: u64,
    /// The newest right to run that the core model was told; `None` = tell it now.
    pub right: Option<RightToRun>,
    /// When the cgroup of all VMs is frozen and thawed.
    pub cgroup_rule: CgroupRule,
    /// The session that the core model knows.
    pub session: Option<Session>,
    /// Time of the next `Wake` of the quorum thread.
    pub wake_at: Nanos,
    /// Arrival of the newest message in the queue to the core model: a later message must not arrive before it.
    pub core_model_arrival: Nanos,
    /// Arrival of the newest message in the queue to the document's task: a later message must not arrive before it.
    pub documents_arrival: Nanos,
    /// Arrival of the newest message in the queue to the quorum thread: a later message must not arrive before it.
    pub quorum_thread_arrival: Nanos,
    /// Time at which the thread `cgroup_fence` has carried out its newest command: a later one ends after it.
    pub cgroup_fence_arrival: Nanos,
}

/// A VM on one machine, as its supervisor and the kernel know it.
#[derive(Debug, Clone)]
pub struct Vm {
    /// The phase that the supervisor knows.
    pub phase: Phase,
    /// The beginning of the phase.
    pub since: BootTime,
    /// The change of the VM's record from which it was started.
    pub started_generation: u64,
    /// Crashes in a row.
    pub crashes: u32,
    /// Number of the launcher that was forked last and was not ended; 0 = none.
    pub launch: u64,
    /// The process is in the cgroup of all VMs: the guest executes unless the cgroup is frozen.
    pub in_cgroup: bool,
    /// The replica was looked at when the VM began to execute.
    pub was_checked: bool,
    /// Requests of the guest that are not answered. A restarted daemon gets them again.
    pub open: BTreeMap<RequestId, crate::guests::Request>,
    /// Answers that arrived while the VM was frozen.
    pub answers: Vec<(RequestId, crate::guests::GuestResult)>,
}

impl Default for Vm {
    fn default() -> Self {
        Self {
            phase: Phase::Absent,
            since: BootTime::ZERO,
            started_generation: 0,
            crashes: 0,
            launch: 0,
            in_cgroup: false,
            was_checked: false,
            open: BTreeMap::new(),
            answers: Vec::new(),
        }
    }
}

impl Vm {
    /// The VM as the supervisor's policy sees it.
    pub fn observed(&self) -> Observed {
        Observed {
            phase: self.phase,
            since: self.since,
            started_generation: self.started_generation,
            crashes: self.crashes,
            pid: None,
            note: None,
        }
    }
}

/// One node: hardware, kernel, VMs and daemon.
pub struct Machine {
    pub id: NodeId,
    /// The only pool disk.
    pub disk: SimDisk,
    /// Directory of the pool disk's index.
    pub index: PathBuf,
    /// The durable record of the register.
    pub record: AcceptorRecord,
    /// The machine has power.
    pub up: bool,
    pub boots: u64,
    /// Real time of the newest boot.
    pub boot_at: Nanos,
    /// Deviation of the clock in parts per million.
    pub clock_ppm: i64,
    /// Counts starts and ends of the daemon: jobs of an earlier run are dropped.
    pub daemon_run: u64,
    /// The daemon, while its process exists.
    pub core: Option<Core>,
    /// The daemon got SIGSTOP: its jobs wait in `backlog`.
    pub stopped: bool,
    pub backlog: Vec<DaemonJob>,
    pub vms: [Vm; VMS],
    /// The cgroup of all VMs is frozen.
    pub frozen: bool,
    /// Document and permits that the supervisor got last from the daemon.
    pub supervisor_input: Option<(Document, BTreeSet<String>)>,
    /// Time since which a VM has executed of which the quorum machine does not know.
    pub unknown_since: Option<Nanos>,
    /// Number of launchers that were forked.
    pub newest_launch: u64,
    /// The kernel carries out no freeze, thaw or kill before this time.
    pub kernel_slow_until: Nanos,
    /// Time at which the watchdog resets the machine if it is not fed.
    pub watchdog_at: Nanos,
    /// The machine is a member and has not lost its memory since its replica was complete. If this holds for no member,
    /// the oracle expects flushed writes only.
    pub kept_memory: bool,
    /// The replica must hold every acknowledged write, which is asserted from its bytes. It implies `kept_memory`.
    pub must_be_complete: bool,
    /// Number of the boot in which the peer's mirror last reported this node as clean.
    pub clean_in_boot: u64,
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

    /// Whether the VM executes here.
    pub fn executes(&self, vm: VmIndex) -> bool {
        self.up && self.vms[vm.0].in_cgroup && !self.frozen
    }

    /// Whether the kernel knows a process in the cgroup.
    pub fn has_vms(&self) -> bool {
        self.vms.iter().any(|vm| vm.in_cgroup)
    }
}
