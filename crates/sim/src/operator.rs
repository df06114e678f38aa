//! Operators: they create the VMs, move them and look until each runs where it is meant to run. As in the product, a VM moves by
//! being stopped, deleted and created on the other node.

use crate::core_model::Pending;
use crate::machine::VmIndex;
use crate::world::{FutureEvent, World};
use dyad_desired::{Change, Document, Firmware, Intent, VmConfig};
use dyad_quorum::{MS, Nanos};
use dyad_types::NodeId;

/// Time between two looks of an operator.
const LOOK_INTERVAL: Nanos = 150 * MS;
/// Time after which an operator asks again without an answer.
const ANSWER_TIMEOUT: Nanos = 25_000 * MS;
/// Share of the looks at which a VM is deleted through a node that is not its own, of a thousand.
const WRONG_NODE_PERMILLE: u64 = 300;

/// The operator of one VM.
#[derive(Debug, Clone, Copy)]
pub struct Operator {
    /// The node on which the VM is meant to run; `None` = where it is.
    pub wanted: Option<NodeId>,
    /// Time of the request that is not answered.
    asked_at: Option<Nanos>,
}

impl Operator {
    pub const IDLE: Operator = Operator { wanted: None, asked_at: None };
}

impl World {
    /// Looks after a VM: asks for the next change that brings it where it is meant to run.
    pub(crate) fn operate(&mut self, vm: VmIndex) {
        self.schedule(LOOK_INTERVAL, FutureEvent::Operate(vm));
        let now = self.now;
        let operator = &mut self.operators[vm.0];
        if operator.asked_at.is_some_and(|at| now < at + ANSWER_TIMEOUT) {
            return;
        }
        operator.asked_at = None;
        let asked: Vec<usize> = (0..2).filter(|&node| self.document_at(node).is_some()).collect();
        let Some(&first) = asked.first() else { return };
        let Some(document) = self.document_at(first) else { return };
        let at = match document.vms.get(&vm.name()).map(|record| record.config.node.index()) {
            Some(own) if asked.contains(&own) && !self.prng.chance(WRONG_NODE_PERMILLE) => own,
            _ => asked[self.prng.below(asked.len() as u64) as usize],
        };
        let Some(document) = self.document_at(at).cloned() else { return };
        let Some(change) = self.next_change(at, vm, &document) else { return };
        let me = self.nodes[at].id;
        let clock = self.nodes[at].clock(now);
        if matches!(change, Change::DeleteVm { node, .. } if node == me) && !self.is_stopped(at, vm, &document) {
            return;
        }
        let has_process = self.nodes[at].vms[vm.0].in_cgroup;
        let Some(model) = self.core_model(at) else { return };
        if model.placement.refuse_change(clock, &change, me, |_| has_process).is_some() {
            return self.count_event("changes refused by the fence rule");
        }
        self.operators[vm.0].asked_at = Some(now);
        self.change(at, change.clone(), Pending::Operator(vm, change));
    }

    /// Whether the supervisor has seen the newest record of the VM and knows no process of it. `dyad-node` asks for a deletion
    /// only then.
    fn is_stopped(&self, node: usize, vm: VmIndex, document: &Document) -> bool {
        let machine = &self.nodes[node];
        let changed = document.vms.get(&vm.name()).map_or(0, |record| record.changed);
        let seen = machine.supervisor_input.as_ref().is_some_and(|(seen, _)| seen.generation >= changed);
        seen && !machine.vms[vm.0].phase.is_alive()
    }

    fn document_at(&self, node: usize) -> Option<&Document> {
        let machine = &self.nodes[node];
        machine.core.as_ref().filter(|_| !machine.stopped)?.model.placement.authoritative_document()
    }

    /// The next change, asked for at a node, by which the VM gets where it is meant to run; `None` = it is, or is about to be.
    fn next_change(&self, at: usize, vm: VmIndex, document: &Document) -> Option<Change> {
        let (name, disk) = (vm.name(), vm.disk());
        // A VM that was moved to a node that is lost would be failed over at once.
        let members = self.nodes[at].core.as_ref()?.model.placement.config().members;
        let wanted = self.operators[vm.0].wanted.filter(|wanted| members.has(*wanted));
        let Some(record) = document.vms.get(&name) else {
            let node = wanted.unwrap_or(self.nodes[at].id);
            if !document.volumes.contains_key(&disk) {
                // The ids of the volumes follow from the order in which they are created: the oracle knows them.
                let due = document.next_volume == crate::guests::volume(vm);
                return due.then_some(Change::CreateVolume {
                    name: disk,
                    size: crate::guests::VOLUME_BYTES,
                    primary: node,
                });
            }
            let vm = VmConfig {
                cpus: 1,
                memory_mib: 64,
                firmware: Firmware::Bios,
                disks: vec![disk],
                node,
                intent: Intent::Running,
                priority: 50,
                ha: true,
            };
            return Some(Change::CreateVm { name, vm });
        };
        let is_there = wanted.is_none_or(|wanted| wanted == record.config.node);
        match record.config.intent {
            Intent::Running if is_there => None,
            Intent::Running => Some(Change::SetIntent { name, intent: Intent::Stopped }),
            _ if is_there => Some(Change::SetIntent { name, intent: Intent::Running }),
            // The VM's own node refuses this as long as it knows a process of the VM.
            _ => Some(Change::DeleteVm { name, node: record.config.node, changed: record.changed }),
        }
    }

    /// Takes the answer to a change.
    pub(crate) fn operator_answered(&mut self, node: usize, vm: VmIndex, change: &Change, made: bool) {
        self.operators[vm.0].asked_at = None;
        if !made {
            return self.count_event("changes refused");
        }
        self.count_event("changes made");
        self.log_line(node, format!("made: {change:?}"));
        if matches!(change, Change::DeleteVm { .. })
            && let Some(node) = (0..2).find(|&node| self.nodes[node].executes(vm))
        {
            self.report_violation(format!("VM {vm} is deleted and executes on node {node}"));
        }
    }

    /// Has a volume created that no VM uses; when it exists it is deleted again. The lead then deletes it from the pools.
    pub(crate) fn make_scratch_volume(&mut self, node: usize) {
        if self.document_at(node).is_none() {
            return;
        }
        let name = format!("scratch{}{}", self.nodes[node].id, self.prng.below(1_000_000));
        let (size, primary) = (crate::guests::VOLUME_BYTES, self.nodes[node].id);
        let change = Change::CreateVolume { name, size, primary };
        self.change(node, change.clone(), Pending::Scratch(change));
    }

    pub(crate) fn scratch_volume_answered(&mut self, node: usize, change: Change, made: bool) {
        if let Change::CreateVolume { name, .. } = change
            && made
        {
            self.count_event("scratch volumes");
            self.change(node, Change::DeleteVolume { name }, Pending::Nothing);
            // Often the next one is made while the lead deletes this one from the pools.
            if self.prng.chance(700) {
                self.make_scratch_volume(node);
            }
        }
    }

    /// Has an operator move a VM to this node.
    pub(crate) fn move_vm(&mut self, vm: VmIndex, to: NodeId) {
        self.operators[vm.0].wanted = Some(to);
        self.count_event("moves");
    }
}
