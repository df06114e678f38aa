//! The interface between the control plane and the supervisor of VMs. [`crate::supervise`] implements it with QEMU,
//! [`NoVms`] without any VM.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
    sync::Arc,
};

use dyad_desired::Document;
use dyad_types::{NodeId, VolumeId};
use tokio::sync::mpsc;

use crate::snapshot::ObservedVm;

/// The facts from which the supervisor decides which VMs to start and stop.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SupervisorInput {
    /// The desired state: the VMs of the pair, with the node and the intent of each.
    pub document: Arc<Document>,
    /// Whether this node may run VMs, so that the other node cannot have a newer document. Only then a VM that the document
    /// does not name counts as deleted, and its files are removed.
    pub authoritative: bool,
    /// This node: only VMs that the document places on it are started.
    pub me: NodeId,
    /// Names of the VMs that may run here now.
    pub permits: BTreeSet<String>,
    /// Path of the vhost-user socket of each volume that VMs of this node may use.
    pub sockets: BTreeMap<VolumeId, PathBuf>,
}

/// A message of the supervisor to the control plane. There is no reply.
#[derive(Debug, Clone)]
pub enum SupervisorReport {
    /// The state of all VMs that have a process on this node, had one, or could not be started. It replaces the last one.
    Observed {
        /// The VMs by name.
        vms: BTreeMap<String, ObservedVm>,
        /// Generation of the document from which VMs were last started and stopped; 0 = of none yet.
        generation: u64,
    },
    /// The operating system of this VM has shut down by itself.
    GuestShutDown(String),
    /// Whether VMs run with hardware virtualisation, as the KVM probe has found. Sent once.
    HardwareVirtualisation(bool),
}

/// The commands of the control plane to the supervisor. No method blocks.
pub trait VmSupervisor: Send + 'static {
    /// Replaces the input by a newer one.
    fn set_input(&mut self, input: SupervisorInput);
    /// Kills the process of this VM. A VM that shall run is then started again.
    fn kill(&mut self, name: &str);
    /// Begins the shutdown of the node: asks each guest to shut down and kills the VMs whose grace time has passed. When all
    /// have ended, the supervisor closes the channel of its reports.
    fn shut_down(&mut self);
}

/// A supervisor and the channel of its reports.
pub type StartedSupervisor = (Box<dyn VmSupervisor>, mpsc::UnboundedReceiver<SupervisorReport>);

/// The supervisor with `--no-vms`: no VM runs on this node.
#[derive(Debug)]
pub struct NoVms {
    reports: Option<mpsc::UnboundedSender<SupervisorReport>>,
}

impl NoVms {
    /// Starts a supervisor that reports once that no VM runs, whatever the document says.
    #[must_use]
    pub fn start() -> StartedSupervisor {
        let (reports, receiver) = mpsc::unbounded_channel();
        // Cannot fail: the receiver exists.
        let _ = reports.send(SupervisorReport::Observed { vms: BTreeMap::new(), generation: u64::MAX });
        (Box::new(NoVms { reports: Some(reports) }), receiver)
    }
}

impl VmSupervisor for NoVms {
    fn set_input(&mut self, _: SupervisorInput) {}
    fn kill(&mut self, _: &str) {}
    fn shut_down(&mut self) {
        self.reports = None;
    }
}
