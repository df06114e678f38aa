//! The one owner of state: [`ControlPlane::select`] yields the next event, [`ControlPlane::apply`] handles it and then
//! re-establishes what must hold.
//!
//! What must hold after each event ([`ControlPlane::settle`]): the newest document is read or being read, the supervisor
//! wants what document and permits say, the core knows which VMs run, the document knows this node's host_inventory, and the
//! snapshot shows all of it. Work that waits (asking the core, hashing, setup) runs in tasks that send an event.

use std::{sync::Arc, time::Duration};

use dyad_api::{ApiError, Session, SessionStore, SetupReply, Source, TaskView, VmState};
use dyad_control::{Client, ClientError, Phase, RefusalCode, Reply, Request, Status};
use dyad_desired::{Change, Document, Intent, NodeRecord};
use tokio::{
    sync::{mpsc, oneshot, watch},
    time::Instant,
};

use crate::{
    host_inventory,
    setup::{self, Progress},
    snapshot::Snapshot,
    vms::{Report, Started, Vms, Wanted},
};

/// How long to wait before a lost core is tried again.
const CORE_RECONNECT_DELAY: Duration = Duration::from_millis(250);
/// How long to wait before a change of our own that was refused is tried again.
const REPORT_RETRY_DELAY: Duration = Duration::from_secs(10);

/// Everything that can happen to the owner.
pub(crate) enum Event {
    /// The core said how it is; `None`: it does not answer.
    Core(Option<Box<Status>>),
    /// The document that the owner asked for arrived, or did not.
    Read {
        /// What was known when it was asked for.
        known: u64,
        /// The answer.
        result: Result<Arc<Document>, ClientError>,
    },
    /// Somebody else has read the document.
    Learned(Arc<Document>),
    /// From the supervisor; `None`: it has ended.
    Vms(Option<Report>),
    /// From the running setup.
    Setup(Progress),
    /// A change of our own ended, well or not.
    Changed(Result<(), ClientError>),
    /// Somebody asks.
    Ask(Ask),
    /// This node's management addresses, looked up anew.
    Addresses(Vec<String>),
    /// The node goes down.
    ShutDown,
    /// Something that was put off may be tried again.
    Tick,
}

/// What the faces ask of the owner.
pub(crate) enum Ask {
    /// May a password be tried now? If so the try counts as a wrong one until [`Ask::NotWrong`].
    MayTry { source: Source, answer: oneshot::Sender<bool> },
    /// The password was right, or could not be compared.
    NotWrong(Source),
    /// Begin a session with this token.
    Begin { token: String, user: String },
    /// Whose token is this?
    Check { token: String, answer: oneshot::Sender<Option<Session>> },
    /// End a session.
    End { token: String },
    /// Begin this setup.
    Setup { run: Box<setup::Run>, answer: oneshot::Sender<Result<(), ApiError>> },
    /// The seed file was refused for this reason.
    SeedRefused(ApiError),
    /// End this VM's process now.
    Kill { name: String },
}

/// The owner.
pub(crate) struct ControlPlane {
    core: Client,
    events: mpsc::UnboundedReceiver<Event>,
    sender: mpsc::UnboundedSender<Event>,
    reports: mpsc::UnboundedReceiver<Report>,
    vms: Box<dyn Vms>,
    snapshot: watch::Sender<Arc<Snapshot>>,
    running: watch::Sender<Vec<String>>,
    state: Snapshot,
    sessions: SessionStore,
    started: Instant,
    addresses: Vec<String>,
    /// A question for the document is under way.
    reading: bool,
    /// A change of our own is under way.
    changing: bool,
    /// No question for the document before this moment.
    read_after: Instant,
    /// No change of our own before this moment.
    change_after: Instant,
    /// What the supervisor was last told.
    wanted: Option<Wanted>,
    /// VMs whose guests switched them off, not yet in the document.
    switched_off: Vec<String>,
    ending: bool,
    ended: bool,
}

impl ControlPlane {
    pub(crate) fn new(
        core: Client,
        (sender, events): (mpsc::UnboundedSender<Event>, mpsc::UnboundedReceiver<Event>),
        (vms, reports): Started,
        snapshot: watch::Sender<Arc<Snapshot>>,
    ) -> Self {
        tokio::spawn(watch_core(core.clone(), sender.clone()));
        let (running, receiver) = watch::channel(Vec::new());
        tokio::spawn(tell_running(core.clone(), receiver));
        ControlPlane {
            core,
            events,
            sender,
            reports,
            vms,
            snapshot,
            running,
            state: Snapshot::default(),
            sessions: SessionStore::default(),
            started: Instant::now(),
            addresses: Vec::new(),
            reading: false,
            changing: false,
            read_after: Instant::now(),
            change_after: Instant::now(),
            wanted: None,
            switched_off: Vec::new(),
            ending: false,
            ended: false,
        }
    }

    /// Runs until the node has been told to go down and its VMs have ended.
    pub(crate) async fn run(mut self) {
        while !self.ended {
            let event = self.select().await;
            if self.apply(event) {
                self.settle();
            }
        }
    }

    async fn select(&mut self) -> Event {
        let now = Instant::now();
        let put_off = [self.read_after, self.change_after].into_iter().filter(|at| *at > now).min();
        tokio::select! {
            report = self.reports.recv() => Event::Vms(report),
            // The owner holds a sender itself, so this never ends.
            Some(event) = self.events.recv() => event,
            () = tokio::time::sleep_until(put_off.unwrap_or(now)), if put_off.is_some() => Event::Tick,
        }
    }

    /// Handles one event. Says whether anything changed that the others may have to follow.
    fn apply(&mut self, event: Event) -> bool {
        match event {
            Event::Core(status) => {
                let blank = status.as_ref().is_some_and(|s| s.phase == Phase::Blank);
                if blank && self.state.document.is_some() {
                    tracing::info!("this node was erased: this program begins anew, without sessions or document");
                    self.ended = true;
                }
                self.state.status = status.map(|s| Arc::new(*s));
            }
            Event::Read { known, result } => {
                self.reading = false;
                let before = self.known();
                match result {
                    // Nothing newer was learned meanwhile: it counts even if it is older, as after an operator's force.
                    Ok(document) if known == self.known() => self.state.document = Some(document),
                    Ok(document) => self.learn(document),
                    Err(error) => tracing::info!("the document was not read: {error}"),
                }
                if self.known() == before {
                    // It failed, or the core will show this generation in a moment.
                    self.read_after = Instant::now() + CORE_RECONNECT_DELAY;
                }
            }
            Event::Learned(document) => self.learn(document),
            Event::Vms(None) => {
                if !self.ending {
                    tracing::error!("the supervisor ended by itself: this program ends too and is started again");
                }
                self.ended = true;
            }
            Event::Vms(Some(report)) => self.report(report),
            Event::Setup(progress) => {
                if let Some(task) = &mut self.state.task {
                    progress.show(task);
                }
            }
            Event::Changed(result) => {
                self.changing = false;
                if let Err(error) = result {
                    tracing::info!("a change of this node's own was refused: {error}");
                    self.change_after = Instant::now() + REPORT_RETRY_DELAY;
                }
            }
            Event::Ask(ask) => return self.answer(ask),
            Event::Tick => {}
            Event::Addresses(addresses) => self.addresses = addresses,
            Event::ShutDown => {
                self.ending = true;
                self.vms.shut_down();
            }
        }
        true
    }

    /// Takes a document if it is newer than the known one: answers may overtake each other.
    fn learn(&mut self, document: Arc<Document>) {
        if document.generation > self.known() {
            self.state.document = Some(document);
        }
    }

    /// Generation of the known document; 0 = none.
    fn known(&self) -> u64 {
        self.state.document.as_ref().map_or(0, |d| d.generation)
    }

    fn report(&mut self, report: Report) {
        match report {
            Report::Observed(vms) => {
                let running = vms
                    .iter()
                    .filter(|(_, vm)| matches!(vm.state, VmState::Running | VmState::Stopping))
                    .map(|(name, _)| name.clone())
                    .collect();
                self.running.send_if_modified(|told: &mut Vec<String>| std::mem::replace(told, running) != *told);
                self.state.vms = vms;
                self.state.vms_known = true;
            }
            Report::GuestShutDown(name) => {
                if !self.switched_off.contains(&name) {
                    self.switched_off.push(name);
                }
            }
            Report::Hardware(hardware) => self.state.hardware = Some(hardware),
        }
    }

    fn answer(&mut self, ask: Ask) -> bool {
        let now_s = self.started.elapsed().as_secs();
        // Whoever asked may have gone: nobody misses the answer then.
        match ask {
            Ask::MayTry { source, answer } => drop(answer.send(self.sessions.may_try(source, now_s))),
            Ask::NotWrong(source) => self.sessions.not_wrong(source),
            Ask::Begin { token, user } => self.sessions.begin(&token, &user, now_s),
            Ask::Check { token, answer } => drop(answer.send(self.sessions.check(&token, now_s))),
            Ask::End { token } => self.sessions.end(&token),
            Ask::Setup { run, answer } => {
                drop(answer.send(self.begin_setup(run)));
                return true;
            }
            Ask::SeedRefused(problem) => {
                // A setup that somebody has begun meanwhile is of more interest.
                if self.state.task.as_ref().is_none_or(|task| task.finished) {
                    self.state.task = Some(TaskView { finished: true, error: Some(problem), steps: Vec::new() });
                }
                return true;
            }
            Ask::Kill { name } => self.vms.kill(&name),
        }
        false
    }

    fn begin_setup(&mut self, run: Box<setup::Run>) -> Result<(), ApiError> {
        let refused = |code: RefusalCode, sentence: &str| Err(ApiError::new(code, sentence));
        match self.state.status.as_ref().map(|s| &s.phase) {
            None => return Err(ClientError::Cut(std::io::ErrorKind::NotConnected.into()).into()),
            Some(Phase::Blank) => {}
            Some(Phase::SettingUp { .. }) => {
                return refused(RefusalCode::SettingUp, "Setup is already running on this node.");
            }
            Some(_) => {
                return refused(RefusalCode::AlreadySetUp, "This node is already set up: nothing was changed.");
            }
        }
        if self.state.task.as_ref().is_some_and(|task| !task.finished) {
            return refused(RefusalCode::SettingUp, "Setup is already running on this node.");
        }
        self.state.task = Some(run.task());
        let (core, sender) = (self.core.clone(), self.sender.clone());
        tokio::spawn(async move {
            run.carry_out(&core, |progress| drop(sender.send(Event::Setup(progress)))).await;
        });
        Ok(())
    }

    /// Re-establishes what must hold.
    fn settle(&mut self) {
        self.read_document();
        self.want();
        self.keep_document();
        let changed = Arc::new(self.state.clone());
        self.snapshot.send_replace(changed);
    }

    fn read_document(&mut self) {
        let Some(status) = &self.state.status else { return };
        let known = self.known();
        if self.reading || status.document_generation == known || self.read_after > Instant::now() {
            return;
        }
        self.reading = true;
        let (core, sender) = (self.core.clone(), self.sender.clone());
        tokio::spawn(async move { sender.send(Event::Read { known, result: newest(&core).await }) });
    }

    fn want(&mut self) {
        let (Some(status), Some(document), Some(me)) = (&self.state.status, &self.state.document, self.state.me())
        else {
            return;
        };
        let socket = |v: &dyad_control::VolumeStatus| v.socket.as_ref().map(|s| (v.id, s.into()));
        let wanted = Wanted {
            document: document.clone(),
            rules: status.quorum.as_ref().is_some_and(|quorum| quorum.may_run),
            me,
            permits: status.permits.iter().cloned().collect(),
            sockets: status.volumes.iter().filter_map(socket).collect(),
        };
        if !self.ending && self.wanted.as_ref() != Some(&wanted) {
            self.wanted = Some(wanted.clone());
            self.vms.want(wanted);
        }
    }

    /// Puts into the document what this node knows first: its own host_inventory, and what guests did.
    fn keep_document(&mut self) {
        let (Some(status), Some(document), Some(me)) = (&self.state.status, &self.state.document, self.state.me())
        else {
            return;
        };
        if self.changing || self.change_after > Instant::now() {
            return;
        }
        self.switched_off.retain(|name| document.vms.get(name).is_some_and(dyad_desired::Vm::shall_run));
        let host_inventory = status.pair.as_ref().map(|pair| NodeRecord {
            name: pair.node.clone(),
            addresses: self.addresses.clone(),
            usable_memory_mib: host_inventory::usable_memory_mib(),
            usable_cpus: host_inventory::usable_cpus(),
        });
        let change = if let Some(name) = self.switched_off.first() {
            Change::SetIntent { name: name.clone(), intent: Intent::GuestShutDown }
        } else if let Some(record) =
            host_inventory.filter(|host_inventory| document.nodes.get(&me) != Some(host_inventory))
        {
            Change::SetNode { node: me, record }
        } else {
            return;
        };
        self.changing = true;
        let (core, sender) = (self.core.clone(), self.sender.clone());
        tokio::spawn(async move {
            let result = core.ask(&Request::Change { change }).await.map(|_| ());
            // Until the new document is known here, the same change would be made again.
            if result.is_ok()
                && let Ok(document) = newest(&core).await
            {
                let _ = sender.send(Event::Learned(document));
            }
            sender.send(Event::Changed(result))
        });
    }
}

/// Asks the core for the newest document.
pub(crate) async fn newest(core: &Client) -> Result<Arc<Document>, ClientError> {
    match core.ask(&Request::Document).await? {
        Reply::Document { document } => Ok(Arc::new(*document)),
        _ => Err(ClientError::Cut(std::io::ErrorKind::InvalidData.into())),
    }
}

/// Follows the core for ever.
async fn watch_core(core: Client, sender: mpsc::UnboundedSender<Event>) {
    loop {
        if let Ok(mut watch) = core.watch().await {
            while let Ok(status) = watch.next().await {
                if sender.send(Event::Core(Some(Box::new(status)))).is_err() {
                    return;
                }
            }
        }
        if sender.send(Event::Core(None)).is_err() {
            return;
        }
        tokio::time::sleep(CORE_RECONNECT_DELAY).await;
    }
}

/// Tells the core which VMs run, in order, and again after a failure.
async fn tell_running(core: Client, mut running: watch::Receiver<Vec<String>>) {
    loop {
        let vms = running.borrow_and_update().clone();
        if core.ask(&Request::Running { vms }).await.is_err() {
            tokio::time::sleep(CORE_RECONNECT_DELAY).await;
        } else if running.changed().await.is_err() {
            return;
        }
    }
}

/// How far setup is, for everybody.
pub(crate) fn setup_reply(snapshot: &Snapshot) -> SetupReply {
    use dyad_api::SetupPhase;
    let phase = match snapshot.status.as_ref().map(|s| &s.phase) {
        // Also when the core runs already: the last steps follow, and with them a restart.
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
