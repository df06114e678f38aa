//! The rule for changes of a VM or a volume whose node may still run VMs.
//!
//! **Invariant.** A VM is deleted only if its own node has found no process of it. After the deletion its name and its disks
//! can be used by a new VM at once, on either node; a process that went on would be a second runner of the same disks. A
//! node outside the in-sync set cannot be asked. Its VMs and volumes stay as they are until its fence is over and the
//! fail-over has moved them to this node.

use super::Placement;
use crate::mutants::Mutant;
use dyad_desired::Change;
use dyad_types::{BootTime, NodeId};

const SECOND: u64 = 1_000_000_000;

/// The reason for which a change of the document is refused. The text is a sentence for people.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ChangeRefusal {
    /// Another node in sync must be asked.
    #[error("The VM {vm} is on node {node}: ask that node.")]
    OtherNode { vm: String, node: NodeId },
    /// The VM has a process on this node.
    #[error("The VM {vm} is still shutting down: wait until it has stopped, or kill it.")]
    VmRunning { vm: String },
    /// A change that no client may ask for.
    #[error("Only the lead itself moves the VMs of a lost node.")]
    NotForClients,
    /// The node was lost, and its fence ends in so many seconds.
    #[error("Node {node} was lost and may still run its VMs for up to {seconds} s: ask again then.")]
    PeerFence { node: NodeId, seconds: u64 },
    /// The node was lost, and only a proof of its death ends its fence.
    #[error(
        "Node {node} was lost and may still run its VMs, because its watchdog is not proven: ask again when it is back."
    )]
    NoProof { node: NodeId },
}

impl Placement {
    /// The refusal of a change that `asking` asks for and that could give a VM's disks a second runner. `asking` is this
    /// node for its own clients, the peer for a change that the peer passed on. `has_process` tells whether the kernel knows
    /// a process of the VM with this name on this node.
    pub fn refuse_change(
        &self,
        now: BootTime,
        change: &Change,
        asking: NodeId,
        has_process: impl Fn(&str) -> bool,
    ) -> Option<ChangeRefusal> {
        match change {
            Change::DeleteVm { name, node, .. } if *node != asking => self.not_its_node(now, name, *node),
            Change::DeleteVm { name, .. } if asking == self.me && has_process(name) => {
                Some(ChangeRefusal::VmRunning { vm: name.clone() })
            }
            Change::FailOver { .. } => Some(ChangeRefusal::NotForClients),
            Change::DeleteVolume { name } | Change::BeginImport { name } => self.fenced_volume(now, &[name]),
            Change::CreateVm { vm, .. } => self.fenced_volume(now, &vm.disks.iter().collect::<Vec<_>>()),
            _ => None,
        }
    }

    /// The refusal to delete a VM that another node than the asking one may run.
    fn not_its_node(&self, now: BootTime, vm: &str, node: NodeId) -> Option<ChangeRefusal> {
        if self.mutants.has(Mutant::DeleteForeignVm) {
            return None;
        }
        if self.membership.config.members.has(node) {
            return Some(ChangeRefusal::OtherNode { vm: vm.to_owned(), node });
        }
        Some(self.fence_refusal(now, node))
    }

    /// The refusal if one of these volumes is written by a node outside the in-sync set. Volumes that the document does not
    /// name are left to the rules of the document.
    fn fenced_volume(&self, now: BootTime, names: &[&String]) -> Option<ChangeRefusal> {
        let document = self.authoritative_document()?;
        let primaries = names.iter().filter_map(|name| document.volumes.get(*name)).map(|volume| volume.primary);
        let lost = primaries.into_iter().find(|primary| !self.membership.config.members.has(*primary));
        lost.map(|node| self.fence_refusal(now, node))
    }

    /// The refusal that says how long the lost node may still run VMs.
    fn fence_refusal(&self, now: BootTime, node: NodeId) -> ChangeRefusal {
        match self.membership.right.peer_fence_until {
            Some(until) => ChangeRefusal::PeerFence { node, seconds: until.since(now).div_ceil(SECOND).max(1) },
            None => ChangeRefusal::NoProof { node },
        }
    }
}
