//! The state of the control plane as all readers see it: a copy that is replaced after each event.

use std::{collections::BTreeMap, fmt, sync::Arc};

use bytes::Bytes;
use dyad_api::{TaskView, VmState};
use dyad_control::Status;
use dyad_desired::Document;
use dyad_types::NodeId;
use tokio::sync::broadcast;

/// The state of the control plane after one event. It does not change.
#[derive(Debug, Clone, Default)]
pub struct Snapshot {
    /// The core's last status; `None` while the core does not answer.
    pub status: Option<Arc<Status>>,
    /// The newest document that was read from the core.
    pub document: Option<Arc<Document>>,
    /// The running or last setup since this program started.
    pub task: Option<TaskView>,
    /// The VMs that this node's supervisor last reported, by name.
    pub vms: BTreeMap<String, ObservedVm>,
    /// Generation of the document from which the supervisor had started and stopped VMs when it reported `vms`. A VM that is
    /// not in `vms` has no process, unless it was changed in a later generation. 0 = nothing is known.
    pub vms_generation: u64,
    /// Whether VMs run with hardware virtualisation; `None` until the supervisor has probed KVM.
    pub hardware_virtualisation: Option<bool>,
}

/// The state of one VM on this node, as the supervisor reports it.
#[derive(Clone)]
pub struct ObservedVm {
    /// State of the VM's process.
    pub state: VmState,
    /// One sentence with the reason for the state, if there is one.
    pub reason: Option<String>,
    /// The serial line; `None` if the VM has not run on this node since this program started.
    pub serial: Option<Arc<dyn SerialLine>>,
}

/// The serial line of a VM. It stays the same after a restart of the VM.
pub trait SerialLine: Send + Sync {
    /// The last output, and a channel with all further output.
    fn subscribe(&self) -> (Vec<u8>, broadcast::Receiver<Bytes>);
    /// Sends input to the guest. Returns `false` if the VM is off or its input buffer is full.
    fn send(&self, input: Bytes) -> bool;
}

impl fmt::Debug for ObservedVm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ObservedVm").field("state", &self.state).field("reason", &self.reason).finish_non_exhaustive()
    }
}

impl Snapshot {
    /// The id of this node; `None` until it belongs to a pair or while the core does not answer.
    #[must_use]
    pub fn me(&self) -> Option<NodeId> {
        Some(self.status.as_ref()?.pair.as_ref()?.me)
    }

    /// Whether a node is in the in-sync set, as the core last reported. `false` while the core does not answer.
    #[must_use]
    pub fn has_member(&self, node: NodeId) -> bool {
        let quorum = self.status.as_ref().and_then(|status| status.quorum.as_ref());
        quorum.is_some_and(|quorum| quorum.members.contains(&node))
    }
}
