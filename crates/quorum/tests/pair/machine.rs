//! One machine: hardware, kernel, VMs and the daemon with its `Quorum`.

use dyad_quorum::{BootTime, Config, Members, Nanos, Note, Quorum, Record, SEC};
use dyad_types::{Epoch, NodeId};

/// VMs of the pair: 0 starts on A, 1 on B.
pub const VMS: usize = 2;

/// Number of a write: the epoch it was issued in, then a counter.
pub type WriteId = (Epoch, u64);

/// What survives everything but a wipe.
#[derive(Clone, Debug)]
pub struct Disk {
    pub record: Record,
    /// This replica of the document: to which node each VM belongs.
    pub vm_node: [NodeId; VMS],
    /// The newest write held, per VM.
    pub data: [WriteId; VMS],
    /// The next writes of the register fail.
    pub broken: bool,
    /// The next writes of the register never end.
    pub hangs: bool,
}

/// One node with its disk.
#[derive(Clone, Debug)]
pub struct Machine {
    pub id: NodeId,
    pub disk: Disk,
    pub up: bool,
    /// Counts boots and daemon starts: events of an earlier one are void.
    pub daemon_run: u64,
    pub boots: u64,
    pub boot_at: Nanos,
    pub clock_ppm: i64,
    pub core: Option<Quorum>,
    /// SIGSTOP: events wait.
    pub stopped: bool,
    pub backlog: Vec<super::world::Incoming>,
    pub vms: [bool; VMS],
    pub frozen: bool,
    pub watchdog_at: Nanos,
    pub wake_at: Nanos,
    /// The mirror: acknowledged by the peer up to this.
    pub peer_holds: [WriteId; VMS],
    pub pending: [Option<WriteId>; VMS],
    pub syncing: bool,
    pub leaving: bool,
    pub leave_done: bool,
    pub notes: Vec<(Nanos, Note)>,
    pub kills: u64,
    pub freezes: u64,
    pub configs: u64,
    pub ack_set: Option<Members>,
}

impl Machine {
    pub fn new(id: NodeId, record: Record) -> Machine {
        Machine {
            id,
            disk: Disk {
                record,
                vm_node: [NodeId::A, NodeId::B],
                data: [WriteId::default(); VMS],
                broken: false,
                hangs: false,
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
            syncing: false,
            leaving: false,
            leave_done: false,
            notes: Vec::new(),
            kills: 0,
            freezes: 0,
            configs: 0,
            ack_set: None,
        }
    }

    /// CLOCK_BOOTTIME of this machine at real time `now`.
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

    pub fn executing(&self, vm: usize) -> bool {
        self.up && self.vms[vm] && !self.frozen
    }

    pub fn q(&self) -> &Quorum {
        self.core.as_ref().expect("the daemon runs")
    }

    pub fn config(&self) -> &Config {
        &self.disk.record.base
    }

    pub fn boot_id(&self) -> u128 {
        (self.id as u128 + 1) << 64 | u128::from(self.boots)
    }
}
