//! The state of the control plane at one time, for all readers.

use std::{collections::BTreeMap, fmt, sync::Arc};

use bytes::Bytes;
use dyad_api::{TaskView, VmState};
use dyad_control::Status;
use dyad_desired::Document;
use dyad_types::NodeId;
use tokio::sync::broadcast;

/// The state of the control plane after one event.
#[derive(Debug, Clone, Default)]
pub struct Snapshot {
    /// The core's last status; `None` while the core does not answer.
    pub status: Option<Arc<Status>>,
    /// The newest document read.
    pub document: Option<Arc<Document>>,
    /// The running or last setup.
    pub task: Option<TaskView>,
    /// What this node's supervisor reports of each VM, by name.
    pub vms: BTreeMap<String, ObservedVm>,
    /// Whether the supervisor has reported at least once. Before that an absent VM in `vms` may still have a process.
    pub vms_known: bool,
    /// Whether VMs run with hardware virtualisation; `None` until the supervisor has probed it.
    pub hardware_virtualisation: Option<bool>,
}

/// What this node sees of one VM.
#[derive(Clone)]
pub struct ObservedVm {
    /// State of its process.
    pub state: VmState,
    /// Why it is in this state, one sentence.
    pub reason: Option<String>,
    /// Its serial line; `None` before its first start on this node.
    pub serial: Option<Arc<dyn SerialLine>>,
}

/// The serial line of a VM. The same line serves the VM after a restart.
pub trait SerialLine: Send + Sync {
    /// The last output, and all output from now on.
    fn subscribe(&self) -> (Vec<u8>, broadcast::Receiver<Bytes>);
    /// Sends input to the guest; false if the VM is off or its line is full.
    fn send(&self, input: Bytes) -> bool;
}

impl fmt::Debug for ObservedVm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ObservedVm").field("state", &self.state).field("reason", &self.reason).finish_non_exhaustive()
    }
}

impl Snapshot {
    /// This node, once it belongs to a pair.
    #[must_use]
    pub fn me(&self) -> Option<NodeId> {
        Some(self.status.as_ref()?.pair.as_ref()?.me)
    }

    /// Whether a node is in the in-sync set, as far as this node knows.
    #[must_use]
    pub fn has_member(&self, wanted: NodeId) -> bool {
        let quorum = self.status.as_ref().and_then(|status| status.quorum.as_ref());
        quorum.is_some_and(|quorum| quorum.members.contains(&wanted))
    }
}
