//! Partial faults: a component fails, lies or is slow. Each begins at a whole pair, and the next one comes when it is repaired, so one
//! node is always well: the guests must be served *during* the fault if a node can serve them, and the pair must become whole
//! again.

use crate::disk_faults::DiskFault;
use crate::machine::VmIndex;
use crate::world::{FutureEvent, World};
use dyad_mirror::{Body, PeerMessage};
use dyad_pool::{META_VALUE_MAX, MetaEntry};
use dyad_quorum::{Acceptor, MS, Nanos, SEC};

/// D + T_io + T_cas + 5 s: the longest time for which a request of a VM that executes may be unanswered. T_cas is below
/// 0.1 s here.
const MAX_ANSWER_DELAY: Nanos = 8_600 * MS;
/// The longest time for which progress of checkpoints excuses a request.
const MAX_PROGRESS_DELAY: Nanos = 60 * SEC;
/// The time that one step of a slow checkpoint takes: below T_io.
pub const SLOW_STEP_PERIOD: std::ops::Range<Nanos> = 200 * MS..2_400 * MS;
/// A session ends when one direction of it has not moved for this long.
pub const SILENCE_TIMEOUT: Nanos = SEC;
/// Share of the checks of the session, every 100 ms, that end a flapping one, of a thousand.
pub const FLAP_PERMILLE: u64 = 150;
/// Time in which the pair repairs the damage of a disk that could not read.
const DAMAGE_REPAIR_PERIOD: Nanos = 10 * SEC;
/// Time between two looks whether the repair of a fault is complete, where an operator has to do something.
const REPAIR_INTERVAL: Nanos = 500 * MS;
/// Longest such repair.
const REPAIR_TIMEOUT: Nanos = 180 * SEC;

/// The state of a partial fault.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum PartialFault {
    #[default]
    None,
    /// No data session can be made, and the open one does not move.
    SessionCut,
    /// Each data session ends soon.
    SessionFlaps,
    /// Messages with data do not pass the data session.
    LargeMessagesLost,
    /// The store of this node answers nothing.
    StoreHangs(usize),
    /// The stores of both nodes answer nothing. The node that notices it first may be removed.
    BothStoresHang,
    /// Each step of a checkpoint on this node takes long, and its journal is full at first. Both nodes are well: neither
    /// may be called stuck.
    SlowCheckpoints {
        node: usize,
        /// Number of reports that a peer or a store is stuck before the fault began.
        reports: u64,
    },
    /// The pool disk of this node refuses requests.
    Disk(usize, DiskFault),
    /// Bytes on the pool disk of this node change.
    Rot(usize),
    /// Bytes on the pool disk of this node change while the other node is without power and no member any more.
    RotWhileAlone { node: usize, begun: bool },
    /// The pool disk of this node refuses one request while the other node is without power: the daemon opens the pool again.
    DiskFailsWhileAlone {
        node: usize,
        fault: DiskFault,
        /// The run of the daemon whose next request the disk refuses; `None` = the other node is still a member.
        failing_run: Option<u64>,
    },
    /// This node was replaced by a new one, which an operator admits.
    NodeReplaced(usize),
    /// A volume fills both pools up, and is deleted through this node.
    PoolsFull(usize),
    /// The witness gives no answer at all.
    WitnessSilent,
    /// The witness was restored from a backup. An operator enrols it again when a node says so.
    WitnessRestored,
}

impl PartialFault {
    /// The name in the event log and in [`crate::RunResult::faults`].
    fn name(self) -> &'static str {
        match self {
            PartialFault::None => "none",
            PartialFault::SessionCut => "session cut",
            PartialFault::SessionFlaps => "session flaps",
            PartialFault::LargeMessagesLost => "large messages lost",
            PartialFault::StoreHangs(_) => "store hangs",
            PartialFault::BothStoresHang => "both stores hang",
            PartialFault::SlowCheckpoints { .. } => "slow checkpoints",
            PartialFault::Disk(_, fault) => fault.name(),
            PartialFault::Rot(_) => "rot",
            PartialFault::RotWhileAlone { .. } => "rot while alone",
            PartialFault::DiskFailsWhileAlone { .. } => "disk fails while alone",
            PartialFault::NodeReplaced(_) => "node replaced",
            PartialFault::PoolsFull(_) => "pools full",
            PartialFault::WitnessSilent => "silent witness",
            PartialFault::WitnessRestored => "witness restored",
        }
    }

    /// Whether the data session does not pass this message.
    pub fn blocks(self, message: &PeerMessage) -> bool {
        match self {
            PartialFault::SessionCut => true,
            PartialFault::LargeMessagesLost => matches!(message.body, Body::Extent { .. } | Body::Write { .. }),
            _ => false,
        }
    }

    /// Whether guests wait during the fault because no node can serve them.
    fn excuses_waiting(self) -> bool {
        matches!(
            self,
            PartialFault::BothStoresHang | PartialFault::PoolsFull(_) | PartialFault::DiskFailsWhileAlone { .. }
        )
    }
}

impl World {
    /// Begins a partial fault if the pair is whole, and schedules its end; else tries again.
    pub(crate) fn random_partial_fault(&mut self) {
        if !self.faults_enabled {
            return;
        }
        let executes = |vm: VmIndex| self.nodes.iter().any(|node| node.executes(vm));
        let whole = self.partial_fault == PartialFault::None && self.is_steady() && VmIndex::all().all(executes);
        // A node that does not have the tie vote cannot go on without the other one.
        let whole = whole && self.nodes.iter().all(|node| node.record.base.tie == Acceptor::W);
        // A request that has waited since an earlier fault may make a node count as stuck.
        if !whole || self.has_old_request() {
            return self.schedule(500 * MS, FutureEvent::Fault);
        }
        let node = self.prng.below(2) as usize;
        let fault = match self.prng.below(24) {
            0..3 => {
                self.fill_journal(node);
                PartialFault::SlowCheckpoints { node, reports: self.stuck_reports() }
            }
            3..5 => PartialFault::SessionCut,
            5..7 => PartialFault::SessionFlaps,
            7..9 => PartialFault::LargeMessagesLost,
            9..12 => PartialFault::StoreHangs(node),
            12 => PartialFault::BothStoresHang,
            13..15 => PartialFault::Disk(node, self.draw_refusal()),
            15 => PartialFault::Disk(node, DiskFault::ReadsFail),
            16 => PartialFault::Rot(node),
            17 => PartialFault::RotWhileAlone { node, begun: false },
            18 => PartialFault::DiskFailsWhileAlone { node, fault: self.draw_refusal(), failing_run: None },
            19 => PartialFault::NodeReplaced(node),
            20..22 => PartialFault::PoolsFull(node),
            22 => PartialFault::WitnessSilent,
            _ => PartialFault::WitnessRestored,
        };
        self.partial_fault = fault;
        self.partial_fault_since = self.now;
        *self.result.faults.entry(fault.name()).or_default() += 1;
        self.log_line(node, format!("FAULT {}", fault.name()));
        self.begin_partial_fault(fault);
        // Short ones end before T_io has passed.
        let length = if self.prng.chance(300) {
            self.prng.within(100 * MS..4 * SEC)
        } else {
            self.prng.within(4 * SEC..25 * SEC)
        };
        self.schedule(length, FutureEvent::EndPartialFault);
    }

    /// Does what a fault does to the world at its beginning.
    fn begin_partial_fault(&mut self, fault: PartialFault) {
        match fault {
            PartialFault::Disk(node, fault) => self.set_disk_faults(node, fault),
            PartialFault::Rot(node) => self.rot(node),
            PartialFault::RotWhileAlone { node, .. } | PartialFault::DiskFailsWhileAlone { node, .. } => {
                self.power_off(1 - node);
            }
            PartialFault::NodeReplaced(node) => self.replace_node(node),
            PartialFault::PoolsFull(node) => self.begin_filling(node),
            PartialFault::WitnessRestored => self.restore_witness_backup(),
            _ => {}
        }
    }

    /// Ends the partial fault when its repair is complete, and schedules the next one.
    pub(crate) fn end_partial_fault(&mut self) {
        let fault = self.partial_fault;
        if fault == PartialFault::None {
            return;
        }
        if !self.is_partial_fault_repaired() {
            if self.now > self.partial_fault_since + REPAIR_TIMEOUT {
                let state = self.describe();
                self.report_violation(format!("{} is not repaired: {state}", fault.name()));
            }
            return self.schedule(REPAIR_INTERVAL, FutureEvent::EndPartialFault);
        }
        self.log_line(2, format!("END {}", fault.name()));
        if fault.excuses_waiting() || matches!(fault, PartialFault::SlowCheckpoints { .. }) {
            // What a request had to wait for a store does not count against the bound of other faults.
            self.request_times.values_mut().for_each(|since| *since = self.now);
        }
        self.witness_backup = Some(self.witness.clone());
        self.partial_fault = PartialFault::None;
        self.link.blocked_since = None;
        // Damage that a checkpoint has done is repaired from the other node, 20 extents a second.
        let repair = if matches!(fault, PartialFault::Disk(..)) { DAMAGE_REPAIR_PERIOD } else { 0 };
        let pause = repair + self.prng.below(5 * SEC);
        self.schedule(pause, FutureEvent::Fault);
    }

    /// Ends what causes the fault, and goes on with its repair; whether it is complete.
    fn is_partial_fault_repaired(&mut self) -> bool {
        match self.partial_fault {
            PartialFault::Disk(node, _) => self.repair_disk(node),
            PartialFault::RotWhileAlone { node, begun } => self.rot_lone_disk(node, begun),
            PartialFault::DiskFailsWhileAlone { node, fault, failing_run } => {
                self.fail_lone_disk(node, fault, failing_run)
            }
            PartialFault::NodeReplaced(node) => self.admit_new_node(node),
            PartialFault::PoolsFull(_) => self.filling.is_over(),
            PartialFault::WitnessRestored => self.enrol_witness_again(),
            _ => true,
        }
    }

    /// Whether the data session cannot be made because of the fault.
    pub(crate) fn session_is_cut(&self) -> bool {
        self.partial_fault == PartialFault::SessionCut
    }

    /// Whether the node's store answers nothing now.
    pub(crate) fn store_hangs(&self, node: usize) -> bool {
        matches!(self.partial_fault, PartialFault::BothStoresHang)
            || self.partial_fault == PartialFault::StoreHangs(node)
    }

    /// Whether each step of a checkpoint of this node takes long now.
    pub(crate) fn has_slow_checkpoints(&self, node: usize) -> bool {
        matches!(self.partial_fault, PartialFault::SlowCheckpoints { node: slow, .. } if slow == node)
    }

    /// Number of reports that a peer or a store is stuck.
    fn stuck_reports(&self) -> u64 {
        ["peer stuck", "storage stuck"].iter().filter_map(|what| self.result.events.get(what)).sum()
    }

    /// Whether a request of a guest has been unanswered for half a second.
    fn has_old_request(&self) -> bool {
        let mut open = self.nodes.iter().flat_map(|node| &node.vms).filter_map(|vm| vm.open.keys().next());
        open.any(|req| self.request_times.get(req).is_some_and(|since| self.now > since + 500 * MS))
    }

    /// Fills the journal of this node with records of a named value, so that the next write waits for a checkpoint.
    fn fill_journal(&mut self, node: usize) {
        let Some(core) = &mut self.nodes[node].core else { return };
        let entry = MetaEntry { key: b"filler", value: &[0; META_VALUE_MAX] };
        while core.store.queue.pool_mut().meta_put(entry).is_ok() {}
    }

    /// Checks that no request of a VM that executes has been unanswered for too long, [`MAX_ANSWER_DELAY`] unless a store is
    /// slow, and that no node is called stuck for being slow.
    pub(crate) fn check_pauses(&mut self) {
        if !self.options.partial_faults || !self.faults_enabled {
            return;
        }
        let mut allowed = MAX_ANSWER_DELAY;
        if let PartialFault::SlowCheckpoints { reports, .. } = self.partial_fault {
            allowed += MAX_PROGRESS_DELAY;
            if self.stuck_reports() > reports {
                self.report_violation("a node is called stuck although all disks complete their work".into());
            }
        }
        if !self.partial_fault.excuses_waiting() {
            self.check_open_requests(allowed);
        }
        let oldest = self.nodes.iter().flat_map(|node| &node.vms).filter_map(|vm| vm.open.keys().next().copied()).min();
        let oldest = oldest.unwrap_or(self.next_request);
        self.request_times.retain(|req, _| *req >= oldest);
    }

    fn check_open_requests(&mut self, allowed: Nanos) {
        for node in 0..2 {
            for vm in VmIndex::all().filter(|vm| self.nodes[node].executes(*vm)).collect::<Vec<_>>() {
                let Some((req, _)) = self.nodes[node].vms[vm.0].open.first_key_value() else { continue };
                let since = self.request_times.get(req).copied().unwrap_or(self.now);
                if self.now > since + allowed {
                    let pause = (self.now - since) / MS;
                    let fault = self.partial_fault.name();
                    self.report_violation(format!("a request of VM {vm} on node {node} waits for {pause} ms: {fault}"));
                }
            }
        }
    }
}
