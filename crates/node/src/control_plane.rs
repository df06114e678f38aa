//! The owner of all state of this process: [`ControlPlane::select`] yields the next event, [`ControlPlane::apply`] handles
//! it, [`ControlPlane::settle`] restores the invariants.
//!
//! **Invariants**, after each event that changed something:
//! * the newest document is known, or a read of it is under way or waits for its delay;
//! * the supervisor has the newest document, permits and sockets;
//! * the core is told which VMs run;
//! * the document holds this node's inventory and each VM that its guest shut down, or a change of it is under way or waits
//!   for its delay;
//! * the snapshot shows all of it.
//!
//! Work that waits (requests to the core, password hashing, setup) runs in tasks that send an [`Event`].

use std::{sync::Arc, time::Duration};

use dyad_api::{ApiError, SessionStore, SessionToken, TaskView, VmState};
use dyad_control::{Client, ClientError, Phase, RefusalCode, Request, Status};
use dyad_desired::{Change, Document, Intent, NodeRecord};
use tokio::{
    sync::{mpsc, watch},
    time::Instant,
};

use crate::{
    core_link::{self, CORE_RECONNECT_DELAY, newest_document},
    event::{Event, NodeRequest},
    host_inventory,
    setup::SetupRun,
    snapshot::Snapshot,
    vms::{StartedSupervisor, SupervisorInput, SupervisorReport, VmSupervisor},
};

/// Wait before a change that this node itself asked for and that was refused is asked for again.
const REPORT_RETRY_DELAY: Duration = Duration::from_secs(10);

/// State and inputs of this process.
pub(crate) struct ControlPlane {
    core: Client,
    inbox: Inbox,
    vms: Box<dyn VmSupervisor>,
    /// Where the newest state is shown.
    snapshot: watch::Sender<Arc<Snapshot>>,
    /// Names of the running VMs, for the core.
    running: watch::Sender<Vec<String>>,
    state: Snapshot,
    sessions: SessionStore,
    started: Instant,
    /// This node's management addresses.
    addresses: Vec<String>,
    document: DocumentSync,
    /// What the supervisor was last told.
    told_supervisor: Option<SupervisorInput>,
    lifecycle: Lifecycle,
}

/// Where events come from.
struct Inbox {
    events: mpsc::UnboundedReceiver<Event>,
    /// For the tasks that the control plane starts.
    sender: mpsc::UnboundedSender<Event>,
    reports: mpsc::UnboundedReceiver<SupervisorReport>,
}

/// Reading of the document, and changes of it that this node itself asks for. At most one of each is under way.
struct DocumentSync {
    reading: bool,
    /// No read begins before this time.
    read_after: Instant,
    changing: bool,
    /// No change is asked for before this time.
    change_after: Instant,
    /// VMs that their guests shut down, not yet in the document.
    guest_shut_down: Vec<String>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Lifecycle {
    Running,
    /// The VMs are being shut down; no VM is started.
    ShuttingDown,
    /// [`ControlPlane::run`] returns after this event.
    Ended,
}

impl ControlPlane {
    pub(crate) fn new(
        core: Client,
        (sender, events): (mpsc::UnboundedSender<Event>, mpsc::UnboundedReceiver<Event>),
        (vms, reports): StartedSupervisor,
        snapshot: watch::Sender<Arc<Snapshot>>,
    ) -> Self {
        tokio::spawn(core_link::watch_status(core.clone(), sender.clone()));
        let (running, receiver) = watch::channel(Vec::new());
        tokio::spawn(core_link::report_running(core.clone(), receiver));
        let now = Instant::now();
        ControlPlane {
            core,
            inbox: Inbox { events, sender, reports },
            vms,
            snapshot,
            running,
            state: Snapshot::default(),
            sessions: SessionStore::default(),
            started: now,
            addresses: Vec::new(),
            document: DocumentSync {
                reading: false,
                read_after: now,
                changing: false,
                change_after: now,
                guest_shut_down: Vec::new(),
            },
            told_supervisor: None,
            lifecycle: Lifecycle::Running,
        }
    }

    /// Runs until the node shuts down and all VMs have ended, until the supervisor fails, or until this node was erased.
    pub(crate) async fn run(mut self) {
        while self.lifecycle != Lifecycle::Ended {
            let event = self.select().await;
            if self.apply(event) {
                self.settle();
            }
        }
    }

    async fn select(&mut self) -> Event {
        let now = Instant::now();
        let delays = [self.document.read_after, self.document.change_after];
        let delayed = delays.into_iter().filter(|at| *at > now).min();
        tokio::select! {
            report = self.inbox.reports.recv() => Event::Supervisor(report),
            // The inbox holds a sender too, so the channel never closes.
            Some(event) = self.inbox.events.recv() => event,
            () = tokio::time::sleep_until(delayed.unwrap_or(now)), if delayed.is_some() => Event::Tick,
        }
    }

    /// Handles one event. Returns whether the state changed, so that [`ControlPlane::settle`] must run.
    fn apply(&mut self, event: Event) -> bool {
        match event {
            Event::CoreStatus(status) => self.apply_status(status.map(|status| *status)),
            Event::DocumentRead { known, result } => self.apply_document(known, result),
            Event::DocumentLearned(document) => self.learn(document),
            Event::Supervisor(None) => {
                if self.lifecycle == Lifecycle::Running {
                    tracing::error!("the supervisor ended by itself: this program ends too and is started again");
                }
                self.lifecycle = Lifecycle::Ended;
            }
            Event::Supervisor(Some(report)) => self.apply_report(report),
            Event::SetupProgress(progress) => {
                if let Some(task) = &mut self.state.task {
                    progress.show(task);
                }
            }
            Event::ChangeDone(result) => {
                self.document.changing = false;
                if let Err(error) = result {
                    tracing::info!("a change that this node itself asked for was refused: {error}");
                    self.document.change_after = Instant::now() + REPORT_RETRY_DELAY;
                }
            }
            Event::Request(request) => return self.answer(request),
            Event::Tick => {}
            Event::Addresses(addresses) => self.addresses = addresses,
            Event::ShutDown => {
                if self.lifecycle == Lifecycle::Running {
                    self.lifecycle = Lifecycle::ShuttingDown;
                }
                self.vms.shut_down();
            }
        }
        true
    }

    fn apply_status(&mut self, status: Option<Status>) {
        let blank = status.as_ref().is_some_and(|s| s.phase == Phase::Blank);
        if blank && self.state.document.is_some() {
            tracing::info!("this node was erased: this program restarts without sessions and document");
            self.lifecycle = Lifecycle::Ended;
        }
        self.state.status = status.map(Arc::new);
    }

    fn apply_document(&mut self, known: u64, result: Result<Arc<Document>, ClientError>) {
        self.document.reading = false;
        let before = self.known_generation();
        match result {
            // No newer document was learned during the read: this one counts even if its generation is lower, as after an
            // operator's force.
            Ok(document) if known == before => self.state.document = Some(document),
            Ok(document) => self.learn(document),
            Err(error) => tracing::info!("the document was not read: {error}"),
        }
        if self.known_generation() == before {
            // The read failed, or the core's status is newer than the document that it could read.
            self.document.read_after = Instant::now() + CORE_RECONNECT_DELAY;
        }
    }

    /// Takes a document if it is newer than the known one: answers may arrive out of order.
    fn learn(&mut self, document: Arc<Document>) {
        if document.generation > self.known_generation() {
            self.state.document = Some(document);
        }
    }

    /// Generation of the known document; 0 = none.
    fn known_generation(&self) -> u64 {
        self.state.document.as_ref().map_or(0, |d| d.generation)
    }

    fn apply_report(&mut self, report: SupervisorReport) {
        match report {
            SupervisorReport::Observed(vms) => {
                let running = vms
                    .iter()
                    .filter(|(_, vm)| matches!(vm.state, VmState::Running | VmState::Stopping))
                    .map(|(name, _)| name.clone())
                    .collect();
                self.running.send_if_modified(|told: &mut Vec<String>| std::mem::replace(told, running) != *told);
                self.state.vms = vms;
                self.state.vms_known = true;
            }
            SupervisorReport::GuestShutDown(name) => {
                if !self.document.guest_shut_down.contains(&name) {
                    self.document.guest_shut_down.push(name);
                }
            }
            SupervisorReport::HardwareVirtualisation(works) => self.state.hardware_virtualisation = Some(works),
        }
    }

    /// Answers a request. A caller that has gone does not take its answer, which changes nothing.
    fn answer(&mut self, request: NodeRequest) -> bool {
        let now_s = self.started.elapsed().as_secs();
        match request {
            NodeRequest::MayTry { source, answer } => drop(answer.send(self.sessions.may_try_password(source, now_s))),
            NodeRequest::NotWrong(source) => self.sessions.retract_try(source),
            NodeRequest::BeginSession { token, user } => self.sessions.begin(SessionToken(&token), &user, now_s),
            NodeRequest::CheckSession { token, answer } => {
                drop(answer.send(self.sessions.check(SessionToken(&token), now_s)))
            }
            NodeRequest::EndSession { token } => self.sessions.end(SessionToken(&token)),
            NodeRequest::BeginSetup { run, answer } => {
                drop(answer.send(self.begin_setup(run)));
                return true;
            }
            NodeRequest::SeedRefused(error) => {
                // A setup that was begun since is shown instead.
                if self.state.task.as_ref().is_none_or(|task| task.finished) {
                    self.state.task = Some(TaskView { finished: true, error: Some(error), steps: Vec::new() });
                }
                return true;
            }
            NodeRequest::KillVm { name } => self.vms.kill(&name),
        }
        false
    }

    fn begin_setup(&mut self, run: Box<SetupRun>) -> Result<(), ApiError> {
        let running = || ApiError::new(RefusalCode::SettingUp, "Setup is already running on this node.");
        match self.state.status.as_ref().map(|s| &s.phase) {
            None => return Err(ClientError::Cut(std::io::ErrorKind::NotConnected.into()).into()),
            Some(Phase::Blank) => {}
            Some(Phase::SettingUp { .. }) => return Err(running()),
            Some(_) => {
                let sentence = "This node is already set up: nothing was changed.";
                return Err(ApiError::new(RefusalCode::AlreadySetUp, sentence));
            }
        }
        if self.state.task.as_ref().is_some_and(|task| !task.finished) {
            return Err(running());
        }
        self.state.task = Some(run.task());
        let (core, sender) = (self.core.clone(), self.inbox.sender.clone());
        tokio::spawn(async move {
            run.carry_out(&core, |progress| drop(sender.send(Event::SetupProgress(progress)))).await;
        });
        Ok(())
    }

    /// Restores the invariants.
    fn settle(&mut self) {
        self.settle_document();
        self.settle_supervisor();
        self.settle_own_changes();
        self.snapshot.send_replace(Arc::new(self.state.clone()));
    }

    /// Reads the document if the core's status names another generation than the known one.
    fn settle_document(&mut self) {
        let Some(status) = &self.state.status else { return };
        let known = self.known_generation();
        let wait = self.document.reading || self.document.read_after > Instant::now();
        if wait || status.document_generation == known {
            return;
        }
        self.document.reading = true;
        let (core, sender) = (self.core.clone(), self.inbox.sender.clone());
        tokio::spawn(async move {
            let result = newest_document(&core).await;
            sender.send(Event::DocumentRead { known, result })
        });
    }

    /// Tells the supervisor the document, permits and sockets if they differ from what it was last told.
    fn settle_supervisor(&mut self) {
        let (Some(status), Some(document), Some(me)) = (&self.state.status, &self.state.document, self.state.me())
        else {
            return;
        };
        let socket = |v: &dyad_control::VolumeStatus| v.socket.as_ref().map(|s| (v.id, s.into()));
        let input = SupervisorInput {
            document: document.clone(),
            authoritative: status.quorum.as_ref().is_some_and(|quorum| quorum.may_run),
            me,
            permits: status.permits.iter().cloned().collect(),
            sockets: status.volumes.iter().filter_map(socket).collect(),
        };
        if self.lifecycle == Lifecycle::Running && self.told_supervisor.as_ref() != Some(&input) {
            self.told_supervisor = Some(input.clone());
            self.vms.want(input);
        }
    }

    /// Asks the core to put into the document what this node learns first: VMs that their guests shut down, and this node's
    /// inventory.
    fn settle_own_changes(&mut self) {
        let (Some(status), Some(document), Some(me)) = (&self.state.status, &self.state.document, self.state.me())
        else {
            return;
        };
        if self.document.changing || self.document.change_after > Instant::now() {
            return;
        }
        let shall_run = |name: &String| document.vms.get(name).is_some_and(dyad_desired::Vm::shall_run);
        self.document.guest_shut_down.retain(shall_run);
        let record = status.pair.as_ref().map(|pair| NodeRecord {
            name: pair.node.clone(),
            addresses: self.addresses.clone(),
            usable_memory_mib: host_inventory::usable_memory_mib(),
            usable_cpus: host_inventory::usable_cpus(),
        });
        let change = if let Some(name) = self.document.guest_shut_down.first() {
            Change::SetIntent { name: name.clone(), intent: Intent::GuestShutDown }
        } else if let Some(record) = record.filter(|record| document.nodes.get(&me) != Some(record)) {
            Change::SetNode { node: me, record }
        } else {
            return;
        };
        self.document.changing = true;
        let (core, sender) = (self.core.clone(), self.inbox.sender.clone());
        tokio::spawn(async move {
            let result = core.ask(&Request::Change { change }).await.map(|_| ());
            // The new document must be known before the change is reported as done: otherwise the same change would be asked
            // for again.
            if result.is_ok()
                && let Ok(document) = newest_document(&core).await
            {
                let _ = sender.send(Event::DocumentLearned(document));
            }
            sender.send(Event::ChangeDone(result))
        });
    }
}
