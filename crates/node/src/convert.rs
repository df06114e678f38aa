//! Converts the types of the core and of the document to those of the API.

use dyad_api::{ApiError, CreateVm, ErrorCode, SetupPhase, SetupReply, VmState, VmView, VolumeView};
use dyad_control::Phase;
use dyad_desired::{Document, Intent, VmConfig, Volume};
use dyad_types::NodeId;

use crate::snapshot::Snapshot;

/// The API's view of a volume.
pub(crate) fn volume(document: &Document, name: &str, volume: &Volume) -> VolumeView {
    VolumeView {
        name: name.to_owned(),
        id: volume.id.0,
        size: volume.size,
        primary: volume.primary.to_string(),
        vm: document.vm_using(name).map(str::to_owned),
    }
}

/// The API's views of all VMs.
pub(crate) fn vms(document: &Document, snapshot: &Snapshot) -> Vec<VmView> {
    document.vms.iter().map(|(name, record)| vm(name, record, snapshot)).collect()
}

/// The API's view of a VM: its configuration from the document, its state from this node's supervisor.
pub(crate) fn vm(name: &str, vm: &dyad_desired::Vm, snapshot: &Snapshot) -> VmView {
    let observed = snapshot.vms.get(name);
    let here = snapshot.me() == Some(vm.config.node);
    let frozen = snapshot.status.as_ref().and_then(|s| s.quorum.as_ref()).is_some_and(|q| !q.may_run);
    let (state, reason) = match observed {
        // This node has no right to run VMs, so the core has frozen them.
        Some(observed) if observed.state == VmState::Running && frozen => (VmState::Paused, observed.reason.clone()),
        Some(observed) if here || observed.state != VmState::Stopped => (observed.state, observed.reason.clone()),
        _ if !here => (VmState::Elsewhere, None),
        _ if vm.shall_run() => (VmState::Starting, None),
        _ => (VmState::Stopped, None),
    };
    VmView {
        name: name.to_owned(),
        cpus: vm.config.cpus,
        memory_mib: vm.config.memory_mib,
        firmware: vm.config.firmware.into(),
        disks: vm.config.disks.clone(),
        node: vm.config.node.to_string(),
        intent: vm.config.intent.into(),
        priority: vm.config.priority,
        ha: vm.config.ha,
        state,
        reason,
    }
}

/// The configuration of a new VM. It is placed on `me`, this node, unless the request names a node.
pub(crate) fn new_vm(request: &CreateVm, me: NodeId) -> Result<VmConfig, ApiError> {
    let node = match request.node.as_deref() {
        None => me,
        Some(text) => text.parse().map_err(|_| ApiError::new(ErrorCode::UnknownNode, "A node is \"A\" or \"B\"."))?,
    };
    Ok(VmConfig {
        cpus: request.cpus,
        memory_mib: request.memory_mib,
        firmware: request.firmware.into(),
        disks: request.disks.clone(),
        node,
        intent: if request.start { Intent::Running } else { Intent::Stopped },
        priority: request.priority,
        ha: request.ha,
    })
}

/// The state of setup, without questions, disks and ports.
pub(crate) fn setup_reply(snapshot: &Snapshot) -> SetupReply {
    let phase = match snapshot.status.as_ref().map(|s| &s.phase) {
        // The core may be running already while the last steps of setup, with a restart of the node, still follow.
        Some(Phase::Blank | Phase::Running) if snapshot.task.as_ref().is_some_and(|t| !t.finished) => {
            SetupPhase::SettingUp
        }
        Some(Phase::Blank) => SetupPhase::Blank,
        Some(Phase::SettingUp { .. }) => SetupPhase::SettingUp,
        Some(Phase::Running) => SetupPhase::Running,
        Some(Phase::Broken { .. }) | None => SetupPhase::Broken,
    };
    SetupReply {
        phase,
        task: snapshot.task.clone(),
        questions: Vec::new(),
        disks: Vec::new(),
        ports: Vec::new(),
        links: Vec::new(),
    }
}
