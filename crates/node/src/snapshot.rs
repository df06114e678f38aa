//! What everybody may read: one consistent moment of the owner's state.

use std::{collections::BTreeMap, fmt, sync::Arc};

use bytes::Bytes;
use dyad_api::{TaskView, VmState};
use dyad_control::Status;
use dyad_desired::Document;
use dyad_types::NodeId;
use tokio::sync::broadcast;

/// One moment.
#[derive(Debug, Clone, Default)]
pub struct Snapshot {
    /// What the core last said; `None` while it does not answer.
    pub status: Option<Arc<Status>>,
    /// The newest document read.
    pub document: Option<Arc<Document>>,
    /// The running or last setup.
    pub task: Option<TaskView>,
    /// What this node sees of its VMs, by name.
    pub vms: BTreeMap<String, Observed>,
    /// The supervisor has told what it found; before that `vms` says nothing.
    pub vms_known: bool,
    /// Whether VMs run with hardware virtualisation; `None` until a trial has shown it.
    pub hardware: Option<bool>,
}

/// What this node sees of one VM.
#[derive(Clone)]
pub struct Observed {
    /// What it does.
    pub state: VmState,
    /// One sentence, if there is more to say.
    pub reason: Option<String>,
    /// Its serial line, from its first start on this node on.
    pub serial: Option<Arc<dyn SerialLine>>,
}

/// The serial line of a VM. It lives on over restarts of the VM.
pub trait SerialLine: Send + Sync {
    /// The last output, and everything after it.
    fn subscribe(&self) -> (Vec<u8>, broadcast::Receiver<Bytes>);
    /// Types something; false if the line does not take it now.
    fn send(&self, input: Bytes) -> bool;
}

impl fmt::Debug for Observed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Observed").field("state", &self.state).field("reason", &self.reason).finish_non_exhaustive()
    }
}

impl Snapshot {
    /// Which node this is, once it belongs to a pair.
    #[must_use]
    pub fn me(&self) -> Option<NodeId> {
        Some(self.status.as_ref()?.pair.as_ref()?.me)
    }

    /// Whether this node is known to be in the in-sync set.
    #[must_use]
    pub fn has_member(&self, wanted: NodeId) -> bool {
        let quorum = self.status.as_ref().and_then(|status| status.quorum.as_ref());
        quorum.is_some_and(|quorum| quorum.members.contains(&wanted))
    }
}
