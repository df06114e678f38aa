//! The [`Service`] of a real node: reads the snapshot, asks the owner, passes changes to the core.

use dyad_types::NodeId;
use std::{sync::Arc, time::Duration};

use dyad_api::{
    AlarmView, Answer, ApiError, CreateVm, CreateVolume, DiskView, ErrorCode, LinkView, LoginReply, OfferView,
    PairingCodeReply, Service, Session, SetupReply, Source, StatusReply, TimelineReply, Versions, VmState, VmView,
    VolumeView, WitnessRequest,
};
use dyad_control::{CORE_AWAY, Client, Enrol, RefusalCode, Reply, Request, WatchdogStatus};
use dyad_desired::{Change, Document, Intent};
use dyad_wizard::{Answers, Plan, Surroundings};
use tokio::sync::{mpsc, oneshot, watch};

use crate::{
    Options,
    control_plane::{self, Ask, ControlPlane, Event},
    convert,
    network::Network,
    password,
    setup::Run,
    snapshot::Snapshot,
    vms::Started,
};

/// Longest time the core may take to hand over when the node goes down.
const LEAVE_TIMEOUT: Duration = Duration::from_secs(20);

/// The way to everything a node can do. Cheap to share.
pub struct NodeHandle {
    pub(crate) core: Client,
    pub(crate) options: Options,
    events: mpsc::UnboundedSender<Event>,
    snapshot: watch::Receiver<Arc<Snapshot>>,
    network: Arc<dyn Network>,
}

impl NodeHandle {
    /// Starts the owner of state. The returned future ends when the node has gone down in order.
    pub fn start(
        options: Options,
        network: Arc<dyn Network>,
        vms: Started,
    ) -> (Arc<Self>, tokio::task::JoinHandle<()>) {
        let core = Client::new(&options.control_socket);
        let (events, receiver) = mpsc::unbounded_channel();
        let (show, snapshot) = watch::channel(Arc::new(Snapshot::default()));
        let owner = ControlPlane::new(core.clone(), (events.clone(), receiver), vms, show);
        let ended = tokio::spawn(owner.run());
        (Arc::new(NodeHandle { core, options, events, snapshot, network }), ended)
    }

    /// The newest moment.
    #[must_use]
    pub fn snapshot(&self) -> Arc<Snapshot> {
        self.snapshot.borrow().clone()
    }

    /// Every moment from now on.
    #[must_use]
    pub fn follow(&self) -> watch::Receiver<Arc<Snapshot>> {
        self.snapshot.clone()
    }

    /// The network of this node.
    #[must_use]
    pub fn network(&self) -> &Arc<dyn Network> {
        &self.network
    }

    /// Looks up this node's addresses anew, for the document.
    pub async fn refresh_addresses(&self) {
        let addresses = self.network.addresses().await;
        let _ = self.events.send(Event::Addresses(addresses));
    }

    /// The node goes down: shuts down the VMs, and when `ended` (the owner's end) says that none runs any more, lets the
    /// core hand over what was theirs, so that the other node starts them without waiting.
    pub async fn shut_down(&self, ended: tokio::task::JoinHandle<()>) {
        let _ = self.events.send(Event::ShutDown);
        if ended.await.is_err() {
            tracing::error!("the owner of state failed while the node went down");
        }
        for last in [Request::Running { vms: Vec::new() }, Request::Leave] {
            match tokio::time::timeout(LEAVE_TIMEOUT, self.core.ask(&last)).await {
                Ok(Ok(_)) => {}
                Ok(Err(error)) => tracing::warn!("the core handed nothing over: {error}"),
                Err(_) => tracing::warn!("the core did not hand over in time"),
            }
        }
    }

    /// Status of a moment, on the wire.
    #[must_use]
    pub fn status_of(snapshot: &Snapshot, details: bool) -> StatusReply {
        let versions = Versions { dyad: env!("CARGO_PKG_VERSION").into(), api: "1".into() };
        match &snapshot.status {
            Some(status) => {
                let mut reply = StatusReply::of(status, versions, details);
                if status.phase == dyad_control::Phase::Blank
                    && let Some(error) = snapshot.task.as_ref().and_then(|task| task.error.clone())
                {
                    reply.alarms.push(AlarmView { code: error.code.word().into(), text: error.error });
                }
                if let Some(details) = &mut reply.details {
                    details.hardware_virtualisation = snapshot.hardware;
                }
                reply
            }
            None => StatusReply {
                sentence: CORE_AWAY.into(),
                protected: false,
                missing: vec!["the storage service of this node does not answer".into()],
                alarms: Vec::new(),
                node: None,
                node_name: None,
                pair: None,
                role: dyad_api::Role::Blank,
                epoch: None,
                versions,
                details: None,
            },
        }
    }

    /// A seed file was refused: shown like a failed setup.
    pub(crate) fn seed_refused(&self, problem: ApiError) {
        // Nobody is left to show it to when the node stops.
        let _ = self.ask(Ask::SeedRefused(problem));
    }

    fn ask(&self, ask: Ask) -> Result<(), ApiError> {
        self.events.send(Event::Ask(ask)).map_err(|_| stopping())
    }

    /// Makes a change and lets the owner know the document it led to before anything that follows: a VM that is killed
    /// must not be started again because the supervisor still has the document in which it shall run.
    async fn change(&self, change: Change) -> Result<(), ApiError> {
        self.core.ask(&Request::Change { change }).await?;
        // If it cannot be read now, the owner reads it when the core shows its generation.
        if let Ok(document) = control_plane::newest(&self.core).await {
            self.events.send(Event::Learned(document)).map_err(|_| stopping())?;
        }
        Ok(())
    }

    /// The newest document, asked for now, so that people read what they just wrote.
    pub(crate) async fn document(&self) -> Result<Arc<Document>, ApiError> {
        Ok(control_plane::newest(&self.core).await?)
    }

    fn me(&self) -> Result<NodeId, ApiError> {
        self.snapshot().me().ok_or_else(not_set_up)
    }

    /// Refuses unless the VM exists and belongs to this node.
    pub(crate) async fn here(&self, name: &str) -> Result<(), ApiError> {
        let document = self.document().await?;
        let vm = document.vms.get(name).ok_or_else(|| unknown_vm(name))?;
        if vm.config.node == self.me()? { Ok(()) } else { Err(elsewhere(&document, name, vm.config.node)) }
    }

    /// Refuses while the VM may have a process: it would be ended in the middle of what its guest still writes. Only its own
    /// node knows; one that is no member of the in-sync set writes nothing any more.
    async fn is_off(&self, name: &str) -> Result<(), ApiError> {
        let document = self.document().await?;
        let vm = document.vms.get(name).ok_or_else(|| unknown_vm(name))?;
        let snapshot = self.snapshot();
        if vm.config.node != self.me()? {
            let member = snapshot.has_member(vm.config.node);
            return if member { Err(elsewhere(&document, name, vm.config.node)) } else { Ok(()) };
        }
        if !snapshot.vms_known {
            let sentence = "This node does not know yet which VMs run here; try again in a moment.";
            return Err(ApiError::new(ErrorCode::VmsUnknown, sentence));
        }
        let state = snapshot.vms.get(name).map(|vm| vm.state);
        let on = matches!(state, Some(VmState::Starting | VmState::Running | VmState::Paused | VmState::Stopping));
        // One that is meant to run is refused by the pair itself, in its own words.
        if on && !vm.shall_run() {
            let sentence = format!("The VM {name} is still shutting down: wait until it has stopped, or kill it.");
            return Err(ApiError::new(RefusalCode::VmRunning, sentence));
        }
        Ok(())
    }

    async fn log_in(&self, source: Source, password: &str) -> Result<LoginReply, ApiError> {
        let (answer, may_try) = oneshot::channel();
        self.ask(Ask::MayTry { source, answer })?;
        if !may_try.await.map_err(|_| stopping())? {
            return Err(ApiError::new(ErrorCode::TooManyTries, "Too many wrong passwords: wait a minute."));
        }
        let verified = self.is_password(password).await;
        if !matches!(verified, Ok(false)) {
            self.ask(Ask::NotWrong(source))?;
        }
        if !verified? {
            return Err(ApiError::new(ErrorCode::WrongPassword, "The password is wrong."));
        }
        let token = hex::encode(rand::random::<[u8; 32]>());
        self.ask(Ask::Begin { token: token.clone(), user: "admin".into() })?;
        Ok(LoginReply { token })
    }

    /// Whether this is the administrator's password.
    async fn is_password(&self, password: &str) -> Result<bool, ApiError> {
        let document = match self.snapshot().document.clone() {
            Some(document) => document,
            None if self.snapshot().status.as_ref().is_some_and(|s| s.pair.is_none()) => return Err(not_set_up()),
            None => self.document().await?,
        };
        let hash = document.users.get("admin").map(|user| user.password_hash.clone()).unwrap_or_default();
        password::verify(password, &hash).await
    }

    async fn look_around(&self) -> Result<Surroundings, ApiError> {
        let disks = match self.core.ask(&Request::Disks).await? {
            Reply::Disks { disks } => dyad_api::surroundings::disks(disks),
            _ => Vec::new(),
        };
        let offers = dyad_api::surroundings::offers(&self.heard().await?);
        Ok(Surroundings { disks, ports: self.network.ports().await, links: self.network.links().await, offers })
    }

    async fn heard(&self) -> Result<Vec<dyad_control::Offer>, ApiError> {
        match self.core.ask(&Request::Offers).await? {
            Reply::Offers { offers } => Ok(offers),
            _ => Ok(Vec::new()),
        }
    }

    async fn setup_reply(&self) -> Result<SetupReply, ApiError> {
        let mut reply = control_plane::setup_reply(&self.snapshot());
        if reply.phase == dyad_api::SetupPhase::Blank {
            let around = self.look_around().await?;
            reply.questions = dyad_api::questions(&around);
            reply.disks = around.disks.iter().map(DiskView::from).collect();
            reply.links = around.links.iter().map(LinkView::from).collect();
            reply.ports = around.ports;
        }
        Ok(reply)
    }

    /// Starts over: this node leaves its pair, or a disk of a blank node is erased. The core decides; when the node
    /// is blank, this program ends and begins anew, so that it remembers nothing of the pair.
    ///
    /// # Errors
    /// The core's refusal, which says what to type.
    pub async fn erase(&self, disk: Option<String>, confirm: String) -> Result<(), ApiError> {
        self.core.ask(&Request::Erase { disk, confirm }).await?;
        Ok(())
    }

    /// Begins this setup.
    ///
    /// # Errors
    /// The node is set up already, or setup runs.
    pub async fn begin(&self, plan: Plan) -> Result<(), ApiError> {
        let (answer, began) = oneshot::channel();
        let run = Box::new(Run::new(plan, self.network.clone()));
        self.ask(Ask::Setup { run, answer })?;
        began.await.map_err(|_| stopping())?
    }
}

fn stopping() -> ApiError {
    ApiError::new(RefusalCode::Stopping, "This node is stopping: try again in a moment.")
}

fn not_set_up() -> ApiError {
    ApiError::new(RefusalCode::NotSetUp, "This node is not set up yet: answer the wizard first.")
}

fn elsewhere(document: &Document, name: &str, owner: NodeId) -> ApiError {
    let other = document.nodes.get(&owner).map_or("the other node", |n| n.name.as_str());
    ApiError::new(ErrorCode::Elsewhere, format!("The VM {name} is on the node {other}: ask that node."))
}

fn unknown_vm(name: &str) -> ApiError {
    dyad_desired::Refusal::Unknown { kind: "VM", name: name.to_owned() }.into()
}

impl Service for NodeHandle {
    fn status(&self, details: bool) -> StatusReply {
        Self::status_of(&self.snapshot(), details)
    }

    fn session<'a>(&'a self, token: &'a str) -> Answer<'a, Session> {
        Box::pin(async move {
            let (answer, session) = oneshot::channel();
            self.ask(Ask::Check { token: token.to_owned(), answer })?;
            session.await.map_err(|_| stopping())?.ok_or_else(ApiError::login_needed)
        })
    }

    fn login<'a>(&'a self, source: Source, password: &'a str) -> Answer<'a, LoginReply> {
        Box::pin(self.log_in(source, password))
    }

    fn logout<'a>(&'a self, token: &'a str) -> Answer<'a, ()> {
        Box::pin(async move { self.ask(Ask::End { token: token.to_owned() }) })
    }

    fn setup(&self) -> Answer<'_, SetupReply> {
        Box::pin(self.setup_reply())
    }

    fn surroundings(&self) -> Answer<'_, Surroundings> {
        Box::pin(self.look_around())
    }

    fn begin_setup(&self, answers: Answers) -> Answer<'_, SetupReply> {
        Box::pin(async move {
            let plan = dyad_wizard::plan(&answers, &self.look_around().await?)?;
            self.begin(plan).await?;
            let mut reply = control_plane::setup_reply(&self.snapshot());
            reply.phase = dyad_api::SetupPhase::SettingUp;
            Ok(reply)
        })
    }

    fn offers(&self) -> Answer<'_, Vec<OfferView>> {
        Box::pin(async move { Ok(self.heard().await?.into_iter().map(OfferView::from).collect()) })
    }

    fn timeline(&self, since: u64) -> Answer<'_, TimelineReply> {
        Box::pin(async move {
            let events = match self.core.ask(&Request::Timeline { since }).await? {
                Reply::Timeline { events } => events.into_iter().map(Into::into).collect(),
                _ => Vec::new(),
            };
            Ok(TimelineReply { events })
        })
    }

    fn pairing_code(&self) -> Answer<'_, PairingCodeReply> {
        Box::pin(async move {
            match self.core.ask(&Request::OpenPairingCode).await? {
                Reply::Code { code, expires_s } => Ok(PairingCodeReply { code, expires_s }),
                _ => Err(ApiError::new(ErrorCode::CoreUnknown, "The storage service gave no code: try again.")),
            }
        })
    }

    fn witness(&self, request: WitnessRequest) -> Answer<'_, ()> {
        Box::pin(async move {
            let (address, code) = dyad_wizard::enrolment(&request.address, &request.code)?;
            self.core.ask(&Request::Enrol(Enrol { address, code })).await?;
            Ok(())
        })
    }

    fn prove_watchdog(&self) -> Answer<'_, ()> {
        Box::pin(async move {
            let refused = |code: ErrorCode, sentence| Err(ApiError::new(code, sentence));
            match self.core.status().await?.watchdog {
                WatchdogStatus::Absent => {
                    refused(ErrorCode::NoWatchdog, "This node has no watchdog: there is nothing to be proven.")
                }
                WatchdogStatus::Armed { proven: true, .. } => refused(
                    ErrorCode::AlreadyProven,
                    "The watchdog of this node is proven already: nothing was changed.",
                ),
                WatchdogStatus::Armed { .. } => {
                    self.core.ask(&Request::ProveWatchdog).await?;
                    Ok(())
                }
            }
        })
    }

    fn volumes(&self) -> Answer<'_, Vec<VolumeView>> {
        Box::pin(async move {
            let document = self.readable().await?;
            Ok(document.volumes.iter().map(|(name, volume)| convert::volume(&document, name, volume)).collect())
        })
    }

    fn create_volume(&self, request: CreateVolume) -> Answer<'_, VolumeView> {
        Box::pin(async move {
            let CreateVolume { name, size } = request;
            self.change(Change::CreateVolume { name: name.clone(), size, primary: self.me()? }).await?;
            let document = self.document().await?;
            let volume = document.volumes.get(&name).ok_or_else(gone)?;
            Ok(convert::volume(&document, &name, volume))
        })
    }

    fn delete_volume<'a>(&'a self, name: &'a str) -> Answer<'a, ()> {
        Box::pin(self.change(Change::DeleteVolume { name: name.to_owned() }))
    }

    fn vms(&self) -> Answer<'_, Vec<VmView>> {
        Box::pin(async move {
            let document = self.readable().await?;
            Ok(convert::vms(&document, &self.snapshot()))
        })
    }

    fn create_vm(&self, request: CreateVm) -> Answer<'_, VmView> {
        Box::pin(async move {
            let vm = convert::new_vm(&request, self.me()?)?;
            self.change(Change::CreateVm { name: request.name.clone(), vm }).await?;
            let document = self.document().await?;
            let vm = document.vms.get(&request.name).ok_or_else(gone)?;
            Ok(convert::vm(&request.name, vm, &self.snapshot()))
        })
    }

    fn delete_vm<'a>(&'a self, name: &'a str) -> Answer<'a, ()> {
        Box::pin(async move {
            self.is_off(name).await?;
            self.change(Change::DeleteVm { name: name.to_owned() }).await
        })
    }

    fn start_vm<'a>(&'a self, name: &'a str) -> Answer<'a, ()> {
        Box::pin(self.change(Change::SetIntent { name: name.to_owned(), intent: Intent::Running }))
    }

    fn stop_vm<'a>(&'a self, name: &'a str) -> Answer<'a, ()> {
        Box::pin(self.change(Change::SetIntent { name: name.to_owned(), intent: Intent::Stopped }))
    }

    fn kill_vm<'a>(&'a self, name: &'a str) -> Answer<'a, ()> {
        Box::pin(async move {
            self.here(name).await?;
            self.change(Change::SetIntent { name: name.to_owned(), intent: Intent::Stopped }).await?;
            self.ask(Ask::Kill { name: name.to_owned() })
        })
    }
}

impl NodeHandle {
    /// The newest document; the last one read when the core is away, because reads work without it.
    async fn readable(&self) -> Result<Arc<Document>, ApiError> {
        match self.document().await {
            Ok(document) => Ok(document),
            Err(error) => self.snapshot().document.clone().ok_or(error),
        }
    }
}

fn gone() -> ApiError {
    ApiError::new(ErrorCode::Gone, "It was made and deleted again by somebody else in the same moment.")
}
