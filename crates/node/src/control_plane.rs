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
//! Work that takes time runs in separate tasks: those of requests to the core and of setup send an [`Event`] with the result.

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

/// Delay before this node repeats a change of the document that it asked for itself and that was refused.
const REPORT_RETRY_DELAY: Duration = Duration::from_secs(10);

/// State and inputs of this process. One task owns this value.
pub(crate) struct ControlPlane {
    core: Client,
    inbox: Inbox,
    vms: Box<dyn VmSupervisor>,
    /// Channel in which all readers see the newest state.
    published: watch::Sender<Arc<Snapshot>>,
    /// Names of the VMs with a running process, for the task that reports them to the core.
    running_vms: watch::Sender<Vec<String>>,
    state: Snapshot,
    sessions: SessionStore,
    started_at: Instant,
    /// This node's management addresses, as last read from the network.
    addresses: Vec<String>,
    document: DocumentSync,
    /// The input that the supervisor last got.
    last_supervisor_input: Option<SupervisorInput>,
    lifecycle: Lifecycle,
}

/// The channels from which events come.
struct Inbox {
    events: mpsc::UnboundedReceiver<Event>,
    /// Copied for the tasks that the control plane starts.
    sender: mpsc::UnboundedSender<Event>,
    reports: mpsc::UnboundedReceiver<SupervisorReport>,
}

/// Reads of the document, and changes of it that this node itself asks for. At most one of each is in flight.
struct DocumentSync {
    read_in_flight: bool,
    /// No read begins before this time.
    read_after: Instant,
    change_in_flight: bool,
    /// No change is asked for before this time.
    change_after: Instant,
    /// Names of VMs that their guests shut down, which the document does not say yet.
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
        published: watch::Sender<Arc<Snapshot>>,
    ) -> Self {
        tokio::spawn(core_link::watch_status(core.clone(), sender.clone()));
        let (running_vms, receiver) = watch::channel(Vec::new());
        tokio::spawn(core_link::report_running(core.clone(), receiver));
        let now = Instant::now();
        ControlPlane {
            core,
            inbox: Inbox { events, sender, reports },
            vms,
            published,
            running_vms,
            state: Snapshot::default(),
            sessions: SessionStore::default(),
            started_at: now,
            addresses: Vec::new(),
            document: DocumentSync {
                read_in_flight: false,
                read_after: now,
                change_in_flight: false,
                change_after: now,
                guest_shut_down: Vec::new(),
            },
            last_supervisor_input: None,
            lifecycle: Lifecycle::Running,
        }
    }

    /// Handles events until the supervisor has ended or this node was erased. The supervisor ends after a shutdown of the node
    /// when all VMs have ended, and by itself if it fails.
    pub(crate) async fn run(mut self) {
        while self.lifecycle != Lifecycle::Ended {
            let event = self.select().await;
            if self.apply(event) {
                self.settle();
            }
        }
    }

    /// Waits for the next event.
    async fn select(&mut self) -> Event {
        let now = Instant::now();
        let delays = [self.document.read_after, self.document.change_after];
        let delayed = delays.into_iter().filter(|at| *at > now).min();
        tokio::select! {
            report = self.inbox.reports.recv() => Event::Supervisor(report),
            // The inbox itself has a sender, so this channel never closes.
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
                    progress.apply_to(task);
                }
            }
            Event::ChangeDone(result) => {
                self.document.change_in_flight = false;
                if let Err(error) = result {
                    tracing::info!("a change that this node itself asked for was refused: {error}");
                    self.document.change_after = Instant::now() + REPORT_RETRY_DELAY;
                }
            }
            Event::Request(request) => return self.handle_request(request),
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
        self.document.read_in_flight = false;
        let before = self.known_generation();
        match result {
            // No other document was learned during the read. This one is taken even if its generation is lower, as after an
            // operator has forced the other node to go on alone.
            Ok(document) if known == before => self.state.document = Some(document),
            Ok(document) => self.learn(document),
            Err(error) => tracing::info!("the document was not read: {error}"),
        }
        if self.known_generation() == before {
            // The read failed, or the core's status is newer than the document that it could read.
            self.document.read_after = Instant::now() + CORE_RECONNECT_DELAY;
        }
    }

    /// Takes a document if it is newer than the known one: replies with documents may arrive in another sequence than they
    /// were written.
    fn learn(&mut self, document: Arc<Document>) {
        if document.generation > self.known_generation() {
            self.state.document = Some(document);
        }
    }

    /// Generation of the known document; 0 if none is known.
    fn known_generation(&self) -> u64 {
        self.state.document.as_ref().map_or(0, |d| d.generation)
    }

    fn apply_report(&mut self, report: SupervisorReport) {
        match report {
            SupervisorReport::Observed { vms, generation } => {
                let running = vms
                    .iter()
                    .filter(|(_, vm)| matches!(vm.state, VmState::Running | VmState::Stopping))
                    .map(|(name, _)| name.clone())
                    .collect();
                self.running_vms.send_if_modified(|last: &mut Vec<String>| std::mem::replace(last, running) != *last);
                self.state.vms = vms;
                self.state.vms_generation = generation;
            }
            SupervisorReport::GuestShutDown(name) => {
                if !self.document.guest_shut_down.contains(&name) {
                    self.document.guest_shut_down.push(name);
                }
            }
            SupervisorReport::HardwareVirtualisation(works) => self.state.hardware_virtualisation = Some(works),
        }
    }

    /// Handles one request. Returns whether the state changed. A reply to a caller that has disconnected is dropped.
    fn handle_request(&mut self, request: NodeRequest) -> bool {
        let now_s = self.started_at.elapsed().as_secs();
        match request {
            NodeRequest::MayTryPassword { source, reply } => {
                let _ = reply.send(self.sessions.may_try_password(source, now_s));
            }
            NodeRequest::RetractTry(source) => self.sessions.retract_try(source),
            NodeRequest::BeginSession { token, user } => self.sessions.begin(SessionToken(&token), &user, now_s),
            NodeRequest::CheckSession { token, reply } => {
                drop(reply.send(self.sessions.check(SessionToken(&token), now_s)))
            }
            NodeRequest::EndSession { token } => self.sessions.end(SessionToken(&token)),
            NodeRequest::BeginSetup { run, reply } => {
                drop(reply.send(self.begin_setup(run)));
                return true;
            }
            NodeRequest::SeedRefused(error) => {
                // A running setup stays in the snapshot.
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
        self.state.task = Some(run.initial_view());
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
        self.published.send_replace(Arc::new(self.state.clone()));
    }

    /// Reads the document if the core's status names another generation than the known one.
    fn settle_document(&mut self) {
        let Some(status) = &self.state.status else { return };
        let known = self.known_generation();
        let wait = self.document.read_in_flight || self.document.read_after > Instant::now();
        if wait || status.document_generation == known {
            return;
        }
        self.document.read_in_flight = true;
        let (core, sender) = (self.core.clone(), self.inbox.sender.clone());
        tokio::spawn(async move {
            let result = newest_document(&core).await;
            sender.send(Event::DocumentRead { known, result })
        });
    }

    /// Gives the document, permits and sockets to the supervisor if they differ from its last input.
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
        if self.lifecycle == Lifecycle::Running && self.last_supervisor_input.as_ref() != Some(&input) {
            self.last_supervisor_input = Some(input.clone());
            self.vms.set_input(input);
        }
    }

    /// Asks the core for the next change of the document that this node itself needs: the new intent of a VM that its guest
    /// shut down, or this node's record with its name, addresses, memory and processors.
    fn settle_own_changes(&mut self) {
        let (Some(status), Some(document), Some(me)) = (&self.state.status, &self.state.document, self.state.me())
        else {
            return;
        };
        if self.document.change_in_flight || self.document.change_after > Instant::now() {
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
        self.document.change_in_flight = true;
        let (core, sender) = (self.core.clone(), self.inbox.sender.clone());
        tokio::spawn(async move {
            let result = core.ask(&Request::Change { change }).await.map(|_| ());
            // The event with the new document must come before `ChangeDone`: otherwise the control plane would ask for the
            // same change again.
            if result.is_ok()
                && let Ok(document) = newest_document(&core).await
            {
                let _ = sender.send(Event::DocumentLearned(document));
            }
            sender.send(Event::ChangeDone(result))
        });
    }
}
