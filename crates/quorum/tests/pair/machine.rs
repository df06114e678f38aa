//! One machine: hardware, kernel, VMs and the daemon with its `Quorum`.

use dyad_quorum::{AcceptorRecord, BootTime, Config, Members, Nanos, Note, Quorum, SEC};
use dyad_types::{Epoch, NodeId};

/// Number of VMs of the pair: VM 0 starts on A, VM 1 on B.
pub const VMS: usize = 2;

/// Identifies a write: the epoch in which it was issued, then a counter.
pub type WriteId = (Epoch, u64);

/// The durable state of a machine.
#[derive(Clone, Debug)]
pub struct Disk {
    pub record: AcceptorRecord,
    /// This replica of the document: the node of each VM.
    pub vm_node: [NodeId; VMS],
    /// By VM: the newest write that this replica holds.
    pub data: [WriteId; VMS],
    /// All further writes of the register fail.
    pub register_fails: bool,
    /// All further writes of the register never end.
    pub register_hangs: bool,
}

/// One node with its disk.
#[derive(Clone, Debug)]
pub struct Machine {
    pub id: NodeId,
    pub disk: Disk,
    /// The machine has power.
    pub up: bool,
    /// Counts starts and ends of the daemon: events for an earlier run are dropped.
    pub daemon_run: u64,
    pub boots: u64,
    /// Real time of the newest boot.
    pub boot_at: Nanos,
    /// Deviation of the clock in parts per million.
    pub clock_ppm: i64,
    /// The `Quorum` of the daemon, while the daemon exists.
    pub core: Option<Quorum>,
    /// The daemon got SIGSTOP: its events wait in `backlog`.
    pub stopped: bool,
    pub backlog: Vec<super::world::DaemonInput>,
    /// By VM: whether its process exists here.
    pub vms: [bool; VMS],
    pub frozen: bool,
    /// Real time at which the watchdog resets the machine if it is not fed.
    pub watchdog_at: Nanos,
    /// Real time of the next `Wake` of the daemon; 0 = none is scheduled.
    pub wake_at: Nanos,
    /// By VM: the newest write that the peer has confirmed to the mirror here.
    pub peer_holds: [WriteId; VMS],
    /// By VM: the write that is not acknowledged yet.
    pub pending: [Option<WriteId>; VMS],
    /// A resync of the peer runs, or is complete and the peer is not a member yet.
    pub resyncing: bool,
    pub leaving: bool,
    pub leave_done: bool,
    /// Timeline entries, with the real time of each.
    pub notes: Vec<(Nanos, Note)>,
    /// Number of orders to kill.
    pub kills: u64,
    /// Number of orders to freeze.
    pub freezes: u64,
    /// Number of configurations that came into force.
    pub configs: u64,
    pub ack_set: Option<Members>,
}

impl Machine {
    pub fn new(id: NodeId, record: AcceptorRecord) -> Machine {
        Machine {
            id,
            disk: Disk {
                record,
                vm_node: [NodeId::A, NodeId::B],
                data: [WriteId::default(); VMS],
                register_fails: false,
                register_hangs: false,
            },
            up: false,
            daemon_run: 0,
            boots: 0,
            boot_at: 0,
            clock_ppm: 0,
            core: None,
            stopped: false,
            backlog: Vec::new(),
            vms: [false; VMS],
            frozen: false,
            watchdog_at: Nanos::MAX,
            wake_at: 0,
            peer_holds: [WriteId::default(); VMS],
            pending: [None; VMS],
            resyncing: false,
            leaving: false,
            leave_done: false,
            notes: Vec::new(),
            kills: 0,
            freezes: 0,
            configs: 0,
            ack_set: None,
        }
    }

    /// CLOCK_BOOTTIME of this machine at the simulated time `now`: 5 s at boot, then faster or slower by `clock_ppm`.
    pub fn clock(&self, now: Nanos) -> BootTime {
        let elapsed = i128::from(now - self.boot_at);
        let skew = elapsed * i128::from(self.clock_ppm) / 1_000_000;
        BootTime(5 * SEC + u64::try_from(elapsed + skew).unwrap())
    }

    /// Real time at which the clock shows `clock`, rounded up.
    pub fn real(&self, clock: BootTime) -> Nanos {
        let shown = i128::from(clock.since(BootTime(5 * SEC)));
        let elapsed = shown * 1_000_000 / (1_000_000 + i128::from(self.clock_ppm)) + 2;
        self.boot_at + u64::try_from(elapsed).unwrap()
    }

    /// Whether the VM executes here.
    pub fn executes(&self, vm: usize) -> bool {
        self.up && self.vms[vm] && !self.frozen
    }

    pub fn quorum(&self) -> &Quorum {
        self.core.as_ref().expect("the daemon runs")
    }

    pub fn config(&self) -> &Config {
        &self.disk.record.base
    }

    pub fn boot_id(&self) -> u128 {
        (self.id as u128 + 1) << 64 | u128::from(self.boots)
    }
}
