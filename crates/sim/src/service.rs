//! The checks that the pair does what it is for: VMs are served, and none executes that the quorum machine does not know of.

use crate::machine::VmIndex;
use crate::partial_faults::PartialFault;
use crate::world::World;
use dyad_desired::{Document, Vm};
use dyad_placement::Lifecycle;
use dyad_quorum::{Acceptor, Nanos, SEC};
use dyad_supervisor::Phase;

/// Longest time for which a VM executes without the knowledge of the quorum machine: it is told each second, and a message
/// between two threads may take 40 ms.
const UNKNOWN_VM_TIMEOUT: Nanos = 1_200_000_000;

/// Longest time after the beginning of a leave at which a VM starts on its node: a launcher may be 2 s late, and the supervisor's
/// input 0.1 s old.
const LEAVING_START_TIMEOUT: Nanos = 2_200_000_000;

/// F' + 5 s, and 3 s for a data session to come up: within this time some node serves each VM if a member and the witness are
/// well.
const UNSERVED_VM_TIMEOUT: Nanos = 14 * SEC;

impl World {
    /// Checks that the quorum machine of each daemon that runs knows of VMs that execute: from then on it may freeze and kill
    /// them, and feeds no watchdog.
    pub(crate) fn check_unknown_vms(&mut self) {
        for node in 0..2 {
            let machine = &self.nodes[node];
            let executes = VmIndex::all().any(|vm| machine.executes(vm));
            let believed = machine.core.as_ref().is_none_or(|core| core.quorum.vms_may_execute());
            let unknown = executes && !believed && !machine.stopped;
            let since = self.nodes[node].unknown_since.filter(|_| unknown).unwrap_or(self.now);
            self.nodes[node].unknown_since = unknown.then_some(since);
            if self.now - since > UNKNOWN_VM_TIMEOUT {
                let text = format!("a VM executes on node {node} and its quorum machine does not know");
                self.report_violation(text);
            }
        }
    }

    /// Checks, when a VM starts, that its node has not been leaving for longer than a launcher may be late.
    pub(crate) fn check_not_leaving(&mut self, node: usize) {
        let machine = &self.nodes[node];
        let Some(core) = machine.core.as_ref().filter(|_| !machine.stopped) else { return };
        if let Lifecycle::Leaving { begun, .. } = core.model.placement.lifecycle()
            && machine.clock(self.now).since(begun) > LEAVING_START_TIMEOUT
        {
            self.report_violation(format!("a VM starts on node {node}, which is leaving"));
        }
    }

    /// Checks that each VM that shall run executes on some node within [`UNSERVED_VM_TIMEOUT`], while a member of the newest
    /// configuration and the witness have been well.
    pub(crate) fn check_service(&mut self) {
        let server = self.well_member();
        for vm in VmIndex::all() {
            let unserved = server.is_some() && self.is_unserved(vm);
            let since = self.unserved_since[vm.0].filter(|_| unserved).unwrap_or(self.now);
            self.unserved_since[vm.0] = unserved.then_some(since);
            if self.now - since > UNSERVED_VM_TIMEOUT {
                let text =
                    format!("VM {vm} executes on no node for {} s; {}", (self.now - since) / SEC, self.describe());
                self.report_violation(text);
            }
        }
    }

    /// A member of the newest configuration that works, reaches the witness, does not need the tie vote of the other node and is not
    /// leaving. It must know the configuration, or be able to learn it from the witness (row 18 of the fault table). Nodes whose clocks drift apart by
    /// more than the bound grant no leases, which is an alarm.
    fn well_member(&self) -> Option<usize> {
        let (_, newest) = self.chosen.last_key_value()?;
        // While both nodes are members they need no witness.
        let failed = matches!(self.partial_fault, PartialFault::WitnessSilent | PartialFault::WitnessRestored)
            && !self.is_steady();
        let witness = self.witness_up && self.witness_rtt < SEC && self.link.loss == 0 && !failed;
        (0..2).find(|&node| {
            let machine = &self.nodes[node];
            let running = |core: &crate::machine::Core| {
                let drifts = core.quorum.alarms().any(|alarm| alarm == dyad_quorum::Alarm::ClockDrift);
                core.model.placement.lifecycle() == Lifecycle::Running && !drifts
            };
            witness
                && newest.members.has(machine.id)
                && (machine.record.base == *newest || self.witness.base == *newest)
                && [Acceptor::W, Acceptor::from(machine.id)].contains(&newest.tie)
                && machine.up
                && !machine.stopped
                && self.now >= machine.kernel_slow_until
                && self.reaches_witness[node]
                && !self.store_hangs(node)
                && machine.core.as_ref().is_some_and(running)
        })
    }

    /// Whether the VM shall run and executes nowhere, and neither an operator nor a crash of its guest is the reason.
    ///
    /// The newest document counts that either node has: a node whose store is slow reads it late.
    fn is_unserved(&self, vm: VmIndex) -> bool {
        let cores = self.nodes.iter().filter_map(|node| node.core.as_ref());
        let newest = cores
            .filter_map(|core| core.model.placement.document().newest())
            .max_by_key(|document| document.generation);
        let shall_run = |document: &Document| document.vms.get(&vm.name()).is_some_and(Vm::shall_run);
        let crashed =
            self.nodes.iter().any(|node| node.vms[vm.0].phase == Phase::Crashed && node.vms[vm.0].crashes > 1);
        // A slow kernel completes the commands that it has taken later, also after the end of the fault.
        let kernel_is_late = self
            .nodes
            .iter()
            .filter_map(|node| node.core.as_ref())
            .any(|core| core.cgroup_fence_arrival > self.now + SEC);
        newest.is_some_and(shall_run) && !crashed && !kernel_is_late && !self.nodes.iter().any(|node| node.executes(vm))
    }
}
