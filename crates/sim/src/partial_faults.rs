//! Partial faults: heartbeats pass and the witness answers, but requests do not go on, because the data session or a store
//! fails or is slow. Each begins at a whole pair and is the only fault, so one node and the witness are always well: the guests must
//! be served *during* the fault.

use crate::machine::VmIndex;
use crate::world::{FutureEvent, World};
use dyad_mirror::{Body, PeerMessage};
use dyad_pool::{META_VALUE_MAX, MetaEntry};
use dyad_quorum::{MS, Nanos, SEC};

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
    /// Each step of a checkpoint on this node takes long, and its journal is full at first. Both nodes are well: neither
    /// may be called stuck.
    SlowCheckpoints {
        node: usize,
        /// Number of reports that a peer or a store is stuck before the fault began.
        reports: u64,
    },
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
            PartialFault::SlowCheckpoints { .. } => "slow checkpoints",
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
}

impl World {
    /// Begins a partial fault if the pair is whole, and schedules its end; else tries again.
    pub(crate) fn random_partial_fault(&mut self) {
        if !self.faults_enabled {
            return;
        }
        let executes = |vm: VmIndex| self.nodes.iter().any(|node| node.executes(vm));
        if self.partial_fault != PartialFault::None || !self.is_steady() || !VmIndex::all().all(executes) {
            return self.schedule(500 * MS, FutureEvent::Fault);
        }
        let node = self.prng.below(2) as usize;
        let fault = match self.prng.below(8) {
            // A request that has waited since an earlier fault may make a node count as stuck.
            0 | 1 if self.has_old_request() => return self.schedule(500 * MS, FutureEvent::Fault),
            0 | 1 => {
                self.fill_journal(node);
                PartialFault::SlowCheckpoints { node, reports: self.stuck_reports() }
            }
            2 => PartialFault::SessionCut,
            3 => PartialFault::SessionFlaps,
            4 => PartialFault::LargeMessagesLost,
            _ => PartialFault::StoreHangs(node),
        };
        self.partial_fault = fault;
        *self.result.faults.entry(fault.name()).or_default() += 1;
        self.log_line(node, format!("FAULT {}", fault.name()));
        // Short ones end before T_io has passed.
        let length = if self.prng.chance(300) {
            self.prng.within(100 * MS..4 * SEC)
        } else {
            self.prng.within(4 * SEC..25 * SEC)
        };
        self.schedule(length, FutureEvent::EndPartialFault);
        let pause = length + self.prng.below(5 * SEC);
        self.schedule(pause, FutureEvent::Fault);
    }

    pub(crate) fn end_partial_fault(&mut self) {
        if self.partial_fault != PartialFault::None {
            self.log_line(2, format!("END {}", self.partial_fault.name()));
            if matches!(self.partial_fault, PartialFault::SlowCheckpoints { .. }) {
                // What a request had to wait for a slow store does not count against the bound of other faults.
                self.request_times.values_mut().for_each(|since| *since = self.now);
            }
            self.partial_fault = PartialFault::None;
            self.link.blocked_since = None;
        }
    }

    /// Whether the node's store answers nothing now.
    pub(crate) fn store_hangs(&self, node: usize) -> bool {
        self.partial_fault == PartialFault::StoreHangs(node)
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
        while core.store.pool.meta_put(entry).is_ok() {}
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
        let oldest = self.nodes.iter().flat_map(|node| &node.vms).filter_map(|vm| vm.open.keys().next().copied()).min();
        let oldest = oldest.unwrap_or(self.next_request);
        self.request_times.retain(|req, _| *req >= oldest);
    }
}
