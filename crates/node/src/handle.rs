//! The [`Service`] of a real node: it reads the snapshot, sends requests to the control plane and changes to the core.

use dyad_types::NodeId;
use std::{sync::Arc, time::Duration};

use dyad_api::{
    AlarmView, ApiError, CreateVm, CreateVolume, DiskView, ErrorCode, LinkView, LoginReply, OfferView,
    PairingCodeReply, Service, ServiceFuture, Session, SetupReply, Source, StatusReply, TimelineReply, Versions,
    VmState, VmView, VolumeView, WitnessRequest,
};
use dyad_control::{CORE_AWAY, Client, Enrol, RefusalCode, Reply, Request, WatchdogStatus};
use dyad_desired::{ADMIN, Change, Document, Intent};
use dyad_wizard::{Answers, SetupPlan, Surroundings, WitnessEnrolment};
use tokio::sync::{mpsc, oneshot, watch};

use crate::{
    Options,
    control_plane::ControlPlane,
    convert,
    core_link::newest_document,
    event::{Event, NodeRequest},
    network::NetworkSetup,
    password,
    setup::SetupRun,
    snapshot::Snapshot,
    vms::StartedSupervisor,
};

/// Limit of each of the last two requests to the core while the node shuts down, for a core that hangs. It is longer than the
/// 10 s after which the core itself cancels a leave that the peer has not taken over.
const LEAVE_TIMEOUT: Duration = Duration::from_secs(20);

/// Longest wait of a deletion until the supervisor has started and stopped VMs from the document in which the VM last changed.
/// The supervisor needs milliseconds, unless it still probes KVM after the start of this program.
const SUPERVISOR_TIMEOUT: Duration = Duration::from_secs(5);

/// Access to the control plane, the core and the network of this node. All request handlers share one handle.
pub struct NodeHandle {
    pub(crate) core: Client,
    pub(crate) options: Options,
    events: mpsc::UnboundedSender<Event>,
    snapshot: watch::Receiver<Arc<Snapshot>>,
    network: Arc<dyn NetworkSetup>,
}

impl NodeHandle {
    /// Starts the control plane. The returned task ends when it ends: all VMs have ended after [`NodeHandle::shut_down`], the
    /// supervisor has failed, or this node was erased.
    pub fn start(
        options: Options,
        network: Arc<dyn NetworkSetup>,
        vms: StartedSupervisor,
    ) -> (Arc<Self>, tokio::task::JoinHandle<()>) {
        let core = Client::new(&options.control_socket);
        let (events, receiver) = mpsc::unbounded_channel();
        let (published, snapshot) = watch::channel(Arc::new(Snapshot::default()));
        let control_plane = ControlPlane::new(core.clone(), (events.clone(), receiver), vms, published);
        let ended = tokio::spawn(control_plane.run());
        (Arc::new(NodeHandle { core, options, events, snapshot, network }), ended)
    }

    /// The newest state of the control plane.
    #[must_use]
    pub fn snapshot(&self) -> Arc<Snapshot> {
        self.snapshot.borrow().clone()
    }

    /// A channel with the newest state of the control plane, for readers that wait for changes.
    #[must_use]
    pub fn follow(&self) -> watch::Receiver<Arc<Snapshot>> {
        self.snapshot.clone()
    }

    #[must_use]
    pub fn network(&self) -> &Arc<dyn NetworkSetup> {
        &self.network
    }

    /// Reads this node's addresses from the network and passes them to the control plane, which puts them into the document.
    pub async fn refresh_addresses(&self) {
        let addresses = self.network.addresses().await;
        let _ = self.events.send(Event::Addresses(addresses));
    }

    /// Shuts the node down. First the VMs are shut down, until the control plane's task `ended` has ended, so that no VM runs.
    /// Then the core hands over to the other node, which starts the VMs without waiting for a fence.
    pub async fn shut_down(&self, ended: tokio::task::JoinHandle<()>) {
        let _ = self.events.send(Event::ShutDown);
        if ended.await.is_err() {
            tracing::error!("the control plane failed while the node shut down");
        }
        for request in [Request::Running { vms: Vec::new() }, Request::Leave] {
            match tokio::time::timeout(LEAVE_TIMEOUT, self.core.ask(&request)).await {
                Ok(Ok(_)) => {}
                Ok(Err(error)) => tracing::warn!("the core did not hand over: {error}"),
                Err(_) => tracing::warn!("the core did not hand over within {} s", LEAVE_TIMEOUT.as_secs()),
            }
        }
    }

    /// The API's status of a snapshot. `details` may be true only for a request with a session.
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
                    details.hardware_virtualisation = snapshot.hardware_virtualisation;
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
                role: dyad_api::PairRole::Blank,
                epoch: None,
                versions,
                details: None,
            },
        }
    }

    /// Shows the refusal of a seed file as a failed setup.
    pub(crate) fn seed_refused(&self, problem: ApiError) {
        // This fails only when the control plane has ended, and then this program ends.
        let _ = self.request(NodeRequest::SeedRefused(problem));
    }

    fn request(&self, request: NodeRequest) -> Result<(), ApiError> {
        self.events.send(Event::Request(request)).map_err(|_| stopping())
    }

    /// Changes the document, and sends the new document to the control plane before it returns. Otherwise a VM that the caller
    /// kills next could be started again from an old document in which it shall run.
    async fn change(&self, change: Change) -> Result<(), ApiError> {
        self.core.ask(&Request::Change { change }).await?;
        // If this read fails, the control plane reads the document when the core's status shows the new generation.
        if let Ok(document) = newest_document(&self.core).await {
            self.events.send(Event::DocumentLearned(document)).map_err(|_| stopping())?;
        }
        Ok(())
    }

    /// The newest document, read from the core now, so that a caller sees its own last change.
    pub(crate) async fn document(&self) -> Result<Arc<Document>, ApiError> {
        Ok(newest_document(&self.core).await?)
    }

    fn me(&self) -> Result<NodeId, ApiError> {
        self.snapshot().me().ok_or_else(not_set_up)
    }

    /// Refuses unless the VM exists and is on this node.
    pub(crate) async fn require_on_this_node(&self, name: &str) -> Result<(), ApiError> {
        let document = self.document().await?;
        let vm = document.vms.get(name).ok_or_else(|| unknown_vm(name))?;
        if vm.config.node == self.me()? { Ok(()) } else { Err(on_other_node(&document, name, vm.config.node)) }
    }

    /// The deletion of a VM, which this node asks for after its supervisor has found no process of the VM. Refuses while the
    /// VM may have a process: that process could write to the disks of a new VM. The core refuses the deletion of a VM of a
    /// node outside the in-sync set until that node's fence is over.
    async fn deletion(&self, name: &str) -> Result<Change, ApiError> {
        let document = self.document().await?;
        let vm = document.vms.get(name).ok_or_else(|| unknown_vm(name))?;
        let deletion = Change::DeleteVm { name: name.to_owned(), node: vm.config.node, changed: vm.changed };
        if vm.config.node != self.me()? {
            let member = self.snapshot().has_member(vm.config.node);
            return if member { Err(on_other_node(&document, name, vm.config.node)) } else { Ok(deletion) };
        }
        // A VM that shall run is refused by the rules of the document, with their own sentence.
        if vm.shall_run() {
            return Ok(deletion);
        }
        let mut snapshots = self.follow();
        let supervised = snapshots.wait_for(|snapshot| snapshot.vms_generation >= vm.changed);
        let snapshot = match tokio::time::timeout(SUPERVISOR_TIMEOUT, supervised).await {
            Ok(Ok(snapshot)) => snapshot.clone(),
            _ => {
                let sentence = "This node does not know yet which VMs run here; try again in a moment.";
                return Err(ApiError::new(ErrorCode::VmsUnknown, sentence));
            }
        };
        let state = snapshot.vms.get(name).map(|vm| vm.state);
        if matches!(state, Some(VmState::Starting | VmState::Running | VmState::Paused | VmState::Stopping)) {
            let sentence = format!("The VM {name} is still shutting down: wait until it has stopped, or kill it.");
            return Err(ApiError::new(RefusalCode::VmRunning, sentence));
        }
        Ok(deletion)
    }

    async fn log_in(&self, source: Source, password: &str) -> Result<LoginReply, ApiError> {
        let (reply, may_try_password) = oneshot::channel();
        self.request(NodeRequest::MayTryPassword { source, reply })?;
        if !may_try_password.await.map_err(|_| stopping())? {
            return Err(ApiError::new(ErrorCode::TooManyTries, "Too many wrong passwords: wait a minute."));
        }
        let verified = self.is_password(password).await;
        if !matches!(verified, Ok(false)) {
            self.request(NodeRequest::RetractTry(source))?;
        }
        if !verified? {
            return Err(ApiError::new(ErrorCode::WrongPassword, "The password is wrong."));
        }
        let token = hex::encode(rand::random::<[u8; 32]>());
        self.request(NodeRequest::BeginSession { token: token.clone(), user: ADMIN.into() })?;
        Ok(LoginReply { token })
    }

    /// Compares a password with the administrator's. An old document is enough for that, so login works without the core.
    async fn is_password(&self, password: &str) -> Result<bool, ApiError> {
        let document = match self.snapshot().document.clone() {
            Some(document) => document,
            None if self.snapshot().status.as_ref().is_some_and(|s| s.pair.is_none()) => return Err(not_set_up()),
            None => self.document().await?,
        };
        let hash = document.users.get(ADMIN).map(|user| user.password_hash.clone()).unwrap_or_default();
        password::verify(password, password::PhcHash(&hash)).await
    }

    async fn read_surroundings(&self) -> Result<Surroundings, ApiError> {
        let disks = match self.core.ask(&Request::Disks).await? {
            Reply::Disks { disks } => dyad_api::surroundings::disks(disks),
            _ => Vec::new(),
        };
        let offers = dyad_api::surroundings::offers(&self.heard_offers().await?);
        Ok(Surroundings { disks, ports: self.network.ports().await, links: self.network.links().await, offers })
    }

    async fn heard_offers(&self) -> Result<Vec<dyad_control::Offer>, ApiError> {
        match self.core.ask(&Request::Offers).await? {
            Reply::Offers { offers } => Ok(offers),
            _ => Ok(Vec::new()),
        }
    }

    async fn setup_reply(&self) -> Result<SetupReply, ApiError> {
        let mut reply = convert::setup_reply(&self.snapshot());
        if reply.phase == dyad_api::SetupPhase::Blank {
            let surroundings = self.read_surroundings().await?;
            reply.questions = dyad_api::questions(&surroundings);
            reply.disks = surroundings.disks.iter().map(DiskView::from).collect();
            reply.links = surroundings.links.iter().map(LinkView::from).collect();
            reply.ports = surroundings.ports;
        }
        Ok(reply)
    }

    /// Erases this node, which leaves its pair, or with `disk` one disk of a blank node. The core checks `confirm`. When the
    /// core then reports a blank node, this program restarts, so that its memory holds no data of the pair.
    ///
    /// # Errors
    /// The core refuses or does not answer. The refusal of a wrong `confirm` names the text to type.
    pub async fn erase(&self, disk: Option<String>, confirm: String) -> Result<(), ApiError> {
        self.core.ask(&Request::Erase { disk, confirm }).await?;
        Ok(())
    }

    /// Begins a setup, which runs as a task, and returns at once.
    ///
    /// # Errors
    /// The node is set up already, a setup runs, or the core does not answer.
    pub async fn begin(&self, plan: SetupPlan) -> Result<(), ApiError> {
        let (reply, began) = oneshot::channel();
        let run = Box::new(SetupRun::new(plan, self.network.clone()));
        self.request(NodeRequest::BeginSetup { run, reply })?;
        began.await.map_err(|_| stopping())?
    }
}

fn stopping() -> ApiError {
    ApiError::new(RefusalCode::Stopping, "This node is stopping: try again in a moment.")
}

fn not_set_up() -> ApiError {
    ApiError::new(RefusalCode::NotSetUp, "This node is not set up yet: answer the wizard first.")
}

fn on_other_node(document: &Document, name: &str, node: NodeId) -> ApiError {
    let other = document.nodes.get(&node).map_or("the other node", |n| n.name.as_str());
    ApiError::new(ErrorCode::Elsewhere, format!("The VM {name} is on the node {other}: ask that node."))
}

fn unknown_vm(name: &str) -> ApiError {
    dyad_desired::Refusal::Unknown { kind: "VM", name: name.to_owned() }.into()
}

impl Service for NodeHandle {
    fn status(&self, details: bool) -> StatusReply {
        Self::status_of(&self.snapshot(), details)
    }

    fn session<'a>(&'a self, token: &'a str) -> ServiceFuture<'a, Session> {
        Box::pin(async move {
            let (reply, session) = oneshot::channel();
            self.request(NodeRequest::CheckSession { token: token.to_owned(), reply })?;
            session.await.map_err(|_| stopping())?.ok_or_else(ApiError::login_needed)
        })
    }

    fn login<'a>(&'a self, source: Source, password: &'a str) -> ServiceFuture<'a, LoginReply> {
        Box::pin(self.log_in(source, password))
    }

    fn logout<'a>(&'a self, token: &'a str) -> ServiceFuture<'a, ()> {
        Box::pin(async move { self.request(NodeRequest::EndSession { token: token.to_owned() }) })
    }

    fn setup(&self) -> ServiceFuture<'_, SetupReply> {
        Box::pin(self.setup_reply())
    }

    fn surroundings(&self) -> ServiceFuture<'_, Surroundings> {
        Box::pin(self.read_surroundings())
    }

    fn begin_setup(&self, answers: Answers) -> ServiceFuture<'_, SetupReply> {
        Box::pin(async move {
            let plan = dyad_wizard::plan(&answers, &self.read_surroundings().await?)?;
            self.begin(plan).await?;
            let mut reply = convert::setup_reply(&self.snapshot());
            reply.phase = dyad_api::SetupPhase::SettingUp;
            Ok(reply)
        })
    }

    fn offers(&self) -> ServiceFuture<'_, Vec<OfferView>> {
        Box::pin(async move { Ok(self.heard_offers().await?.into_iter().map(OfferView::from).collect()) })
    }

    fn timeline(&self, since: u64) -> ServiceFuture<'_, TimelineReply> {
        Box::pin(async move {
            let events = match self.core.ask(&Request::Timeline { since }).await? {
                Reply::Timeline { events } => events.into_iter().map(Into::into).collect(),
                _ => Vec::new(),
            };
            Ok(TimelineReply { events })
        })
    }

    fn pairing_code(&self) -> ServiceFuture<'_, PairingCodeReply> {
        Box::pin(async move {
            match self.core.ask(&Request::OpenPairingCode).await? {
                Reply::Code { code, expires_s } => Ok(PairingCodeReply { code, expires_s }),
                _ => Err(ApiError::new(ErrorCode::CoreUnknown, "The storage service gave no code: try again.")),
            }
        })
    }

    fn witness(&self, request: WitnessRequest) -> ServiceFuture<'_, ()> {
        Box::pin(async move {
            let typed = WitnessEnrolment { address: request.address.as_str(), code: &request.code };
            let WitnessEnrolment { address, code } = dyad_wizard::check_enrolment(typed)?;
            self.core.ask(&Request::Enrol(Enrol { address, code })).await?;
            Ok(())
        })
    }

    fn prove_watchdog(&self) -> ServiceFuture<'_, ()> {
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

    fn volumes(&self) -> ServiceFuture<'_, Vec<VolumeView>> {
        Box::pin(async move {
            let document = self.newest_or_last_document().await?;
            Ok(document.volumes.iter().map(|(name, volume)| convert::volume(&document, name, volume)).collect())
        })
    }

    fn create_volume(&self, request: CreateVolume) -> ServiceFuture<'_, VolumeView> {
        Box::pin(async move {
            let CreateVolume { name, size } = request;
            self.change(Change::CreateVolume { name: name.clone(), size, primary: self.me()? }).await?;
            let document = self.document().await?;
            let volume = document.volumes.get(&name).ok_or_else(deleted_meanwhile)?;
            Ok(convert::volume(&document, &name, volume))
        })
    }

    fn delete_volume<'a>(&'a self, name: &'a str) -> ServiceFuture<'a, ()> {
        Box::pin(self.change(Change::DeleteVolume { name: name.to_owned() }))
    }

    fn vms(&self) -> ServiceFuture<'_, Vec<VmView>> {
        Box::pin(async move {
            let document = self.newest_or_last_document().await?;
            Ok(convert::vms(&document, &self.snapshot()))
        })
    }

    fn create_vm(&self, request: CreateVm) -> ServiceFuture<'_, VmView> {
        Box::pin(async move {
            let vm = convert::new_vm(&request, self.me()?)?;
            self.change(Change::CreateVm { name: request.name.clone(), vm }).await?;
            let document = self.document().await?;
            let vm = document.vms.get(&request.name).ok_or_else(deleted_meanwhile)?;
            Ok(convert::vm(&request.name, vm, &self.snapshot()))
        })
    }

    fn delete_vm<'a>(&'a self, name: &'a str) -> ServiceFuture<'a, ()> {
        Box::pin(async move {
            let deletion = self.deletion(name).await?;
            self.change(deletion).await
        })
    }

    fn start_vm<'a>(&'a self, name: &'a str) -> ServiceFuture<'a, ()> {
        Box::pin(self.change(Change::SetIntent { name: name.to_owned(), intent: Intent::Running }))
    }

    fn stop_vm<'a>(&'a self, name: &'a str) -> ServiceFuture<'a, ()> {
        Box::pin(self.change(Change::SetIntent { name: name.to_owned(), intent: Intent::Stopped }))
    }

    fn kill_vm<'a>(&'a self, name: &'a str) -> ServiceFuture<'a, ()> {
        Box::pin(async move {
            self.require_on_this_node(name).await?;
            self.change(Change::SetIntent { name: name.to_owned(), intent: Intent::Stopped }).await?;
            self.request(NodeRequest::KillVm { name: name.to_owned() })
        })
    }
}

impl NodeHandle {
    /// The newest document; if the core does not answer, the last one read, so that requests that only read still work.
    async fn newest_or_last_document(&self) -> Result<Arc<Document>, ApiError> {
        match self.document().await {
            Ok(document) => Ok(document),
            Err(error) => self.snapshot().document.clone().ok_or(error),
        }
    }
}

fn deleted_meanwhile() -> ApiError {
    ApiError::new(ErrorCode::Gone, "It was created, and another client has deleted it since.")
}
