//! The seam to the VMs' supervisor.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
    sync::Arc,
};

use dyad_desired::Document;
use dyad_types::{NodeId, VolumeId};
use tokio::sync::mpsc;

use crate::snapshot::Observed;

/// What the supervisor shall bring about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wanted {
    /// The document.
    pub document: Arc<Document>,
    /// This node is in sync and may run VMs, so that no newer document is elsewhere: what it does not name is gone.
    pub rules: bool,
    /// Which node this is.
    pub me: NodeId,
    /// Names of the VMs that may run here now.
    pub permits: BTreeSet<String>,
    /// The vhost-user socket of each volume that may be used here.
    pub sockets: BTreeMap<VolumeId, PathBuf>,
}

/// What the supervisor reports.
#[derive(Debug, Clone)]
pub enum Report {
    /// What every VM does that has a process here, had one, or could not get one.
    Observed(BTreeMap<String, Observed>),
    /// The guest of this VM switched it off by itself.
    GuestShutDown(String),
    /// Whether VMs run with hardware virtualisation, shown by a trial.
    Hardware(bool),
}

/// What the owner asks of the supervisor. Nothing of it blocks.
pub trait Vms: Send + 'static {
    /// What shall be so from now on; the newest counts.
    fn want(&mut self, wanted: Wanted);
    /// Ends the process of this VM at once.
    fn kill(&mut self, name: &str);
    /// The node goes down: ask every guest to shut down, end those that do not, then drop the report channel.
    fn shut_down(&mut self);
}

/// A supervisor and what it reports.
pub type Started = (Box<dyn Vms>, mpsc::UnboundedReceiver<Report>);

/// `--no-vms`: nothing runs here.
#[derive(Debug)]
pub struct NoVms {
    reports: Option<mpsc::UnboundedSender<Report>>,
}

impl NoVms {
    /// A supervisor of nothing and its reports.
    #[must_use]
    pub fn start() -> Started {
        let (reports, receiver) = mpsc::unbounded_channel();
        // The receiver is here, so it hears this.
        let _ = reports.send(Report::Observed(BTreeMap::new()));
        (Box::new(NoVms { reports: Some(reports) }), receiver)
    }
}

impl Vms for NoVms {
    fn want(&mut self, _: Wanted) {}
    fn kill(&mut self, _: &str) {}
    fn shut_down(&mut self) {
        self.reports = None;
    }
}
