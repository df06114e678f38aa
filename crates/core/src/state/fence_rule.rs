//! The rule for changes of a VM or a volume whose node may still run VMs.
//!
//! **Invariant.** A VM is deleted only if its own node has found no process of it. After the deletion its name and its disks
//! can be used by a new VM at once, on either node; a process that went on would be a second runner of the same disks. A
//! node outside the in-sync set cannot be asked. Its VMs and volumes stay as they are until its fence is over and the
//! fail-over has moved them to this node.

use super::CoreState;
use crate::cgroup_fence;
use dyad_control::{Refusal, RefusalCode};
use dyad_desired::Change;
use dyad_types::NodeId;

/// Nanoseconds of one second.
const SECOND: u64 = 1_000_000_000;

impl CoreState {
    /// The refusal of a change that `asking` asks for and that could give a VM's disks a second runner. `asking` is this
    /// node for its own clients, the peer for a change that the peer passed on.
    pub(super) fn refused_by_fence_rule(&self, change: &Change, asking: NodeId) -> Option<Refusal> {
        match change {
            Change::DeleteVm { name, node, .. } if *node != asking => Some(self.not_its_node(name, *node)),
            Change::DeleteVm { name, .. } if asking == self.me && self.has_process(name) => {
                let text = format!("The VM {name} is still shutting down: wait until it has stopped, or kill it.");
                Some(Refusal::new(RefusalCode::VmRunning, text))
            }
            Change::FailOver { .. } => {
                let text = "Only the lead itself moves the VMs of a lost node.";
                Some(Refusal::new(RefusalCode::BadRequest, text))
            }
            Change::DeleteVolume { name } | Change::BeginImport { name } => self.fenced_volume(&[name]),
            Change::CreateVm { vm, .. } => self.fenced_volume(&vm.disks.iter().collect::<Vec<_>>()),
            _ => None,
        }
    }

    /// The refusal to delete a VM that another node than the asking one may run.
    fn not_its_node(&self, vm: &str, node: NodeId) -> Refusal {
        if self.membership.config.members.has(node) {
            let text = format!("The VM {vm} is on node {node}: ask that node.");
            return Refusal::new(RefusalCode::OtherNode, text);
        }
        self.fence_refusal(node)
    }

    /// The refusal if one of these volumes is written by a node outside the in-sync set. Volumes that the document does not
    /// name are left to the rules of the document.
    fn fenced_volume(&self, names: &[&String]) -> Option<Refusal> {
        let document = self.authoritative_document()?;
        let primaries = names.iter().filter_map(|name| document.volumes.get(*name)).map(|volume| volume.primary);
        let lost = primaries.into_iter().find(|primary| !self.membership.config.members.has(*primary));
        lost.map(|node| self.fence_refusal(node))
    }

    /// The refusal that says how long the lost node may still run VMs.
    fn fence_refusal(&self, node: NodeId) -> Refusal {
        let text = match self.membership.snapshot.peer_fence_until {
            Some(until) => {
                let seconds = until.since(crate::clock::now()).div_ceil(SECOND).max(1);
                format!("Node {node} was lost and may still run its VMs for up to {seconds} s: ask again then.")
            }
            None => format!(
                "Node {node} was lost and may still run its VMs, because its watchdog is not proven: ask again when it is back."
            ),
        };
        Refusal::new(RefusalCode::PeerFence, text)
    }

    /// Whether the kernel knows a process of this VM on this node.
    fn has_process(&self, vm: &str) -> bool {
        let cgroup = self.handles.paths.vms_cgroup.as_ref().map(|vms| vms.join(vm));
        cgroup_fence::populated(cgroup.as_deref())
    }
}
