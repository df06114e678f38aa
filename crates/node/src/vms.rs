//! The interface between the control plane and the VMs' supervisor. [`crate::supervise`] implements it with QEMU; with
//! `--no-vms` it does nothing.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
    sync::Arc,
};

use dyad_desired::Document;
use dyad_types::{NodeId, VolumeId};
use tokio::sync::mpsc;

use crate::snapshot::ObservedVm;

/// What the supervisor works from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SupervisorInput {
    /// Says which VMs shall run.
    pub document: Arc<Document>,
    /// This node is in sync and may run VMs, so the other node has no newer document. A VM that the document does not name is
    /// then deleted, and its files are removed.
    pub authoritative: bool,
    pub me: NodeId,
    /// Names of the VMs that may run here now.
    pub permits: BTreeSet<String>,
    /// The vhost-user socket of each volume that may be used here.
    pub sockets: BTreeMap<VolumeId, PathBuf>,
}

/// A message to the control plane; it needs no reply.
#[derive(Debug, Clone)]
pub enum SupervisorReport {
    /// State of each VM that has a process on this node, had one, or could not be started.
    Observed(BTreeMap<String, ObservedVm>),
    /// The guest of this VM shut down by itself.
    GuestShutDown(String),
    /// Whether VMs run with hardware virtualisation; the supervisor has probed it with a small VM.
    HardwareVirtualisation(bool),
}

/// What the control plane asks of the supervisor. No call blocks.
pub trait VmSupervisor: Send + 'static {
    /// Replaces the input: the newest one counts.
    fn want(&mut self, input: SupervisorInput);
    /// Kills the process of this VM.
    fn kill(&mut self, name: &str);
    /// The node shuts down: asks each guest to shut down, kills the VMs whose grace time has passed, then drops the report
    /// channel.
    fn shut_down(&mut self);
}

/// A supervisor and the channel of its reports.
pub type StartedSupervisor = (Box<dyn VmSupervisor>, mpsc::UnboundedReceiver<SupervisorReport>);

/// `--no-vms`: no VM runs on this node.
#[derive(Debug)]
pub struct NoVms {
    reports: Option<mpsc::UnboundedSender<SupervisorReport>>,
}

impl NoVms {
    /// A supervisor that reports once that no VM runs.
    #[must_use]
    pub fn start() -> StartedSupervisor {
        let (reports, receiver) = mpsc::unbounded_channel();
        // Cannot fail: the receiver is in this function.
        let _ = reports.send(SupervisorReport::Observed(BTreeMap::new()));
        (Box::new(NoVms { reports: Some(reports) }), receiver)
    }
}

impl VmSupervisor for NoVms {
    fn want(&mut self, _: SupervisorInput) {}
    fn kill(&mut self, _: &str) {}
    fn shut_down(&mut self) {
        self.reports = None;
    }
}
