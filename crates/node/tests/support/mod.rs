//! Fakes of the core and of the VMs for tests of `dyad-node`. The fake core serves the control socket from a status and a
//! document in memory. Its refusals come from the functions of the real core, so that the tests compare the real sentences.
#![allow(dead_code)]

use std::{
    collections::BTreeMap,
    path::PathBuf,
    sync::{
        Arc, Mutex, MutexGuard,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use clap::Parser;
use dyad_api::VmState;
use dyad_control::{
    DiskCandidate, DiskContent, Enrol, Offer, Phase, RefusalCode, Reply, Request, Status, TimelineEvent, TimelineKind,
    VolumeStatus, WatchdogStatus, WitnessStatus, read_request, write_reply,
};
use dyad_desired::{Document, NodeRecord, apply};
use dyad_link::pairing::{PairingError, Purpose};
use dyad_node::{
    NodeHandle, Options, http,
    network::{NetworkSetup, NoNetwork},
    snapshot::{ObservedVm, SerialLine},
    vms::{SupervisorInput, SupervisorReport, VmSupervisor},
};
use dyad_provision::erase::Confirmation;
use dyad_provision::{erase, refusal};
use dyad_types::{Epoch, NodeId};
use dyad_witness::{client::EnrolError, protocol::WitnessRefusal};
use tokio::{
    io::{AsyncReadExt, BufReader},
    net::{UnixListener, UnixStream},
    sync::{broadcast, mpsc, watch},
};

/// The administrator's password of each pair in these tests.
pub const PASSWORD: &str = "correct horse";

/// State of the fake core.
pub struct Core {
    status: watch::Sender<Status>,
    pub document: Option<Document>,
    /// The imported images, by name of the volume.
    pub content: BTreeMap<String, Vec<u8>>,
    /// Names of the running VMs, as last reported to the core.
    pub running: Vec<String>,
    /// Paths of the disks that setup has formatted.
    pub formatted: Vec<String>,
    /// Number of `Leave` requests.
    pub leaves: usize,
    /// Whether a new pair begins with an unproven watchdog. `ProveWatchdog` then proves it at once, without a reset.
    pub unproven: bool,
    /// Number of `ProveWatchdog` requests.
    pub proofs: usize,
    /// Whether the other node holds all data and answers, which decides the text that confirms an erasing.
    pub peer_has_all: bool,
}

/// A fake core that listens on a real socket.
#[derive(Clone)]
pub struct FakeCore {
    pub socket: PathBuf,
    core: Arc<Mutex<Core>>,
}

impl FakeCore {
    pub fn start(dir: &std::path::Path) -> Self {
        let socket = dir.join("core.sock");
        let listener = UnixListener::bind(&socket).unwrap();
        let core = Core {
            status: watch::Sender::new(blank()),
            document: None,
            content: BTreeMap::new(),
            running: vec![],
            formatted: vec![],
            leaves: 0,
            unproven: false,
            proofs: 0,
            peer_has_all: true,
        };
        let fake = FakeCore { socket, core: Arc::new(Mutex::new(core)) };
        let serving = fake.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(serving.clone().serve(stream));
            }
        });
        fake
    }

    pub fn lock(&self) -> MutexGuard<'_, Core> {
        self.core.lock().unwrap()
    }

    /// Changes the status that the core reports.
    pub fn change(&self, change: impl FnOnce(&mut Status)) {
        self.lock().status.send_modify(|status| {
            change(status);
            status.revision += 1;
        });
    }

    async fn serve(self, stream: UnixStream) {
        let mut stream = BufReader::new(stream);
        while let Ok(Some(request)) = read_request(&mut stream).await {
            let reply = match request {
                Request::Watch => {
                    let mut changes = self.lock().status.subscribe();
                    loop {
                        let status = changes.borrow_and_update().clone();
                        if write_reply(stream.get_mut(), &Reply::Status(Box::new(status))).await.is_err()
                            || changes.changed().await.is_err()
                        {
                            return;
                        }
                    }
                }
                Request::Import { volume, bytes } => {
                    let refusal = self.lock().import_refusal(&volume, bytes);
                    if let Some(refusal) = refusal {
                        let _ = write_reply(stream.get_mut(), &refusal).await;
                        return;
                    }
                    write_reply(stream.get_mut(), &Reply::Done).await.unwrap();
                    let mut content = vec![0; usize::try_from(bytes).unwrap()];
                    if stream.read_exact(&mut content).await.is_ok() {
                        self.lock().content.insert(volume, content);
                        Reply::Done
                    } else {
                        Reply::refused(RefusalCode::ImportFailed, "The image did not come whole.")
                    }
                }
                request => self.lock().answer(request),
            };
            if write_reply(stream.get_mut(), &reply).await.is_err() {
                return;
            }
        }
    }
}

impl Core {
    fn import_refusal(&self, name: &str, bytes: u64) -> Option<Reply> {
        let document = self.document.as_ref()?;
        let Some(volume) = document.volumes.get(name) else {
            return Some(Reply::refused(RefusalCode::UnknownName, format!("There is no volume named {name}.")));
        };
        if bytes > volume.size {
            return Some(Reply::refused(RefusalCode::DoesNotFit, "Make the volume larger."));
        }
        let used = document.vm_using(name).is_some();
        used.then(|| Reply::refused(RefusalCode::VolumeInUse, format!("A VM uses the volume {name}: stop it first.")))
    }

    fn answer(&mut self, request: Request) -> Reply {
        match request {
            Request::Status => Reply::Status(Box::new(self.status.borrow().clone())),
            Request::Disks => Reply::Disks { disks: disks() },
            Request::Offers => Reply::Offers { offers: offers() },
            Request::CreatePair(found) => {
                if let Some(refusal) = found.witness.as_ref().and_then(witness_refusal) {
                    return refusal;
                }
                self.formatted = found.disks;
                let node =
                    NodeRecord { name: found.node.clone(), addresses: vec![], usable_memory_mib: 0, usable_cpus: 0 };
                let document = Document::new_pair(&found.pair, node, &found.admin_password_hash).unwrap();
                let proven = !self.unproven;
                self.status.send_modify(|s| {
                    *s = set_up(&found.pair, &found.node);
                    s.watchdog = watchdog(proven);
                    if let Some(Enrol { address, .. }) = found.witness {
                        s.quorum.as_mut().unwrap().witness = WitnessStatus::Reachable { address, rtt_us: 400 };
                    }
                });
                self.store_document(document);
                Reply::Done
            }
            Request::Join(join) => match join.code.as_str() {
                "123456" => {
                    self.formatted = join.disks;
                    self.status.send_modify(|s| *s = set_up("office", &join.node));
                    Reply::Done
                }
                "999999" => refusal::of_pairing(&PairingError::Expired, Purpose::Node).into(),
                _ => refusal::of_pairing(&PairingError::WrongCode, Purpose::Node).into(),
            },
            Request::OpenPairingCode => Reply::Code { code: "123456".into(), expires_s: 600 },
            Request::Enrol(at) => match witness_refusal(&at) {
                Some(refusal) => refusal,
                None => {
                    let witness = WitnessStatus::Reachable { address: at.address, rtt_us: 400 };
                    self.status.send_modify(|s| s.quorum.as_mut().unwrap().witness = witness);
                    Reply::Done
                }
            },
            Request::Document => match &self.document {
                Some(document) => Reply::Document { document: Box::new(document.clone()) },
                None => Reply::refused(RefusalCode::NoDocument, "The pair's document is not readable yet."),
            },
            Request::Change { change } => {
                let Some(document) = &self.document else {
                    return Reply::refused(RefusalCode::NoDocument, "The pair's document is not readable yet.");
                };
                match apply(document, &change) {
                    Ok(new) => {
                        self.store_document(new);
                        Reply::Done
                    }
                    Err(refusal) => Reply::Refused(refusal.into()),
                }
            }
            Request::Timeline { since } => {
                Reply::Timeline { events: (1..=3).filter(|n| *n >= since).map(event).collect() }
            }
            Request::Running { vms } => {
                self.running = vms;
                Reply::Done
            }
            Request::Leave => {
                self.leaves += 1;
                Reply::Done
            }
            Request::Erase { disk: None, confirm } => {
                let precondition =
                    erase::ErasePrecondition { pair: "office", node: "left", peer_has_all: self.peer_has_all };
                match erase::decide(precondition, &confirm) {
                    Ok(_) => {
                        self.status.send_modify(|s| *s = blank());
                        Reply::Done
                    }
                    Err(refusal) => refusal.into(),
                }
            }
            Request::Erase { disk: Some(disk), confirm } => {
                erase::decide_disk(&disks(), &disk, Confirmation(&confirm)).map(drop).into()
            }
            Request::ProveWatchdog => {
                self.proofs += 1;
                self.status.send_modify(|s| s.watchdog = watchdog(true));
                Reply::Done
            }
            _ => unreachable!("served elsewhere, or not sent by these tests"),
        }
    }

    /// Stores a new document and permits all VMs of node A to run.
    fn store_document(&mut self, document: Document) {
        let permits = document.vms.iter().filter(|(_, vm)| vm.config.node == NodeId::A);
        let permits: Vec<String> = permits.map(|(name, _)| name.clone()).collect();
        let volumes = document.volumes.iter().map(|(name, volume)| VolumeStatus {
            id: volume.id,
            name: name.clone(),
            size: volume.size,
            writer: Some(NodeId::A),
            socket: Some(format!("/nowhere/{}.sock", volume.id)),
        });
        let volumes = volumes.collect();
        self.status.send_modify(|status| {
            status.revision += 1;
            status.document_generation = document.generation;
            status.permits = permits;
            status.volumes = volumes;
        });
        self.document = Some(document);
    }
}

/// The refusal of a fake witness at 192.0.2.9, which accepts the code `good-code`; `None` if it accepts. The sentences are those
/// for a real witness.
fn witness_refusal(at: &Enrol) -> Option<Reply> {
    let pairing = |error| Some(refusal::of_enrolment(&EnrolError::Pairing(error)).into());
    match at.code.as_str() {
        _ if !at.address.starts_with("192.0.2.9:") => Some(
            refusal::of_enrolment(&EnrolError::Unreachable {
                address: at.address.clone(),
                source: std::io::ErrorKind::TimedOut.into(),
            })
            .into(),
        ),
        "good-code" => None,
        "expired" => pairing(PairingError::Expired),
        "used" => pairing(PairingError::NoCodeOpen),
        "taken" => Some(refusal::of_enrolment(&EnrolError::Refused(WitnessRefusal::PairTaken)).into()),
        _ => pairing(PairingError::WrongCode),
    }
}

fn event(number: u64) -> TimelineEvent {
    TimelineEvent {
        number,
        boot_ms: 1,
        wall_ms: 1,
        node: Some(NodeId::A),
        kind: TimelineKind::Epoch,
        text: "Epoch.".into(),
    }
}

pub fn disks() -> Vec<DiskCandidate> {
    let disk = |path: &str, content| DiskCandidate {
        path: path.into(),
        model: "QEMU".into(),
        serial: "1".into(),
        bytes: 8 << 30,
        content,
    };
    let pool = DiskContent::Pool { pair: "other".into(), node: "x".into(), pair_id: "ff".into() };
    vec![
        disk("/dev/vdb", DiskContent::Blank),
        disk("/dev/vdc", DiskContent::Foreign("ext4".into())),
        disk("/dev/vdd", pool),
    ]
}

fn offers() -> Vec<Offer> {
    vec![Offer { pair_id: "aa".into(), pair: "office".into(), node: "left".into(), link: "eth1".into() }]
}

fn blank() -> Status {
    Status { revision: 1, ..Status::without_pair(Phase::Blank, WatchdogStatus::Absent) }
}

fn set_up(pair: &str, node: &str) -> Status {
    let mut status = dyad_control::testing::protected();
    let named = status.pair.as_mut().unwrap();
    (named.id, named.name, named.node) = ("aa".into(), pair.into(), node.into());
    let quorum = status.quorum.as_mut().unwrap();
    (quorum.epoch, quorum.witness) = (Epoch(1), WitnessStatus::None);
    Status { revision: 2, document_generation: 0, ..status }
}

fn watchdog(proven: bool) -> WatchdogStatus {
    WatchdogStatus::Armed { identity: "i6300esb".into(), timeout_s: 3, proven }
}

/// A fake supervisor: a VM runs as soon as it is permitted and shall run. Each has a serial line that echoes its input.
pub struct FakeVms {
    reports: Option<mpsc::UnboundedSender<SupervisorReport>>,
    running: BTreeMap<String, Arc<EchoLine>>,
    input: watch::Sender<Option<SupervisorInput>>,
    starts: Arc<AtomicUsize>,
    /// Whether guests that were asked to shut down go on running.
    slow: Arc<AtomicBool>,
    /// Whether the supervisor claims to know no document.
    behind: Arc<AtomicBool>,
}

/// A serial line that sends its input back as output.
pub struct EchoLine(broadcast::Sender<Bytes>);

impl SerialLine for EchoLine {
    fn subscribe(&self) -> (Vec<u8>, broadcast::Receiver<Bytes>) {
        (b"login: ".to_vec(), self.0.subscribe())
    }
    fn send(&self, input: Bytes) -> bool {
        self.0.send(input).is_ok()
    }
}

impl FakeVms {
    fn act(&mut self) {
        let Some(input) = self.input.borrow().clone() else { return };
        let shall_run =
            |name: &String| input.document.vms.get(name).is_some_and(|vm| vm.shall_run() && vm.config.node == input.me);
        let slow = self.slow.load(Ordering::Relaxed);
        self.running.retain(|name, _| slow || shall_run(name));
        for name in input.permits.iter().filter(|name| shall_run(name)) {
            self.running.entry(name.clone()).or_insert_with(|| {
                self.starts.fetch_add(1, Ordering::Relaxed);
                Arc::new(EchoLine(broadcast::Sender::new(16)))
            });
        }
        self.report();
    }

    fn report(&self) {
        let observed = self.running.iter().map(|(name, line)| {
            let serial: Arc<dyn SerialLine> = line.clone();
            (name.clone(), ObservedVm { state: VmState::Running, reason: None, serial: Some(serial) })
        });
        if let Some(reports) = &self.reports {
            let behind = self.behind.load(Ordering::Relaxed);
            let input = self.input.borrow();
            let generation = input.as_ref().filter(|_| !behind).map_or(0, |input| input.document.generation);
            let _ = reports.send(SupervisorReport::Observed { vms: observed.collect(), generation });
        }
    }
}

impl VmSupervisor for FakeVms {
    fn set_input(&mut self, input: SupervisorInput) {
        self.input.send_replace(Some(input));
        self.act();
    }
    /// Like the real supervisor, starts a killed VM again at once if it shall run.
    fn kill(&mut self, name: &str) {
        self.running.remove(name);
        self.act();
    }
    fn shut_down(&mut self) {
        self.running.clear();
        self.report();
        self.reports = None;
    }
}

/// A node with a fake core and fake VMs.
pub struct Node {
    pub dir: tempfile::TempDir,
    pub core: FakeCore,
    pub handle: Arc<NodeHandle>,
    /// The node's router without pages.
    pub site: axum::Router,
    pub ended: tokio::task::JoinHandle<()>,
    /// The input that the supervisor last got.
    pub supervisor_input: watch::Receiver<Option<SupervisorInput>>,
    /// Number of starts of VMs, of all VMs together.
    pub starts: Arc<AtomicUsize>,
    /// Sends reports of the supervisor, such as that of a guest that shut down.
    pub reports: mpsc::WeakUnboundedSender<SupervisorReport>,
    /// Whether guests that were asked to shut down go on running.
    pub slow: Arc<AtomicBool>,
    /// Whether the supervisor claims to know no document.
    pub behind: Arc<AtomicBool>,
}

impl Node {
    pub async fn start() -> Self {
        Self::with_network(Arc::new(NoNetwork)).await
    }

    /// Starts a blank node with this network.
    pub async fn with_network(network: Arc<dyn NetworkSetup>) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let core = FakeCore::start(dir.path());
        let path = |name: &str| dir.path().join(name).display().to_string();
        let flags =
            ["dyad-node", "--state", &path("state"), "--run", &path("run"), "--control-socket", &path("core.sock")];
        let options = Options::parse_from(flags);
        std::fs::create_dir_all(&options.state).unwrap();
        std::fs::create_dir_all(&options.run).unwrap();
        let (reports, reported) = mpsc::unbounded_channel();
        let (input, supervisor_input) = watch::channel(None);
        let weak = reports.downgrade();
        let starts = Arc::new(AtomicUsize::new(0));
        let slow = Arc::new(AtomicBool::new(false));
        let behind = Arc::new(AtomicBool::new(false));
        let (starts_too, slow_too, behind_too) = (starts.clone(), slow.clone(), behind.clone());
        let vms = FakeVms {
            reports: Some(reports),
            running: BTreeMap::new(),
            input,
            starts: starts_too,
            slow: slow_too,
            behind: behind_too,
        };
        let (handle, ended) = NodeHandle::start(options, network, (Box::new(vms), reported));
        let site = http::site(handle.clone(), axum::Router::new());
        let node = Node { dir, core, handle, site, ended, supervisor_input, starts, reports: weak, slow, behind };
        node.until("the core is heard", |s| s.status.is_some()).await;
        node
    }

    /// Starts a node and sets it up: pair "office", node "left".
    pub async fn set_up() -> Self {
        let node = Self::start().await;
        let answers = dyad_wizard::from_toml(&seed(), &wizard_disks()).unwrap();
        dyad_api::Service::begin_setup(&*node.handle, answers).await.unwrap();
        node.until("setup is finished", |s| {
            s.task.as_ref().is_some_and(|t| t.finished)
                && s.document.as_ref().is_some_and(|d| d.nodes[&NodeId::A].usable_memory_mib > 0)
        })
        .await;
        node
    }

    /// Waits until `condition` holds for the snapshot, at most for 120 s. `what` names the condition.
    pub async fn until(&self, what: &str, condition: impl Fn(&dyad_node::snapshot::Snapshot) -> bool) {
        let mut snapshots = self.handle.follow();
        let waiting = snapshots.wait_for(|snapshot| condition(snapshot));
        let in_time = tokio::time::timeout(Duration::from_secs(120), waiting).await;
        in_time.unwrap_or_else(|_| panic!("not in time: {what}")).unwrap();
    }
}

/// A seed file for a first node without a witness.
pub fn seed() -> String {
    format!(
        "role = \"first\"\ndisks = [\"/dev/vdb\"]\nerase = \"erase vdb\"\npair = \"office\"\nnode = \"left\"\n\
         password = \"{PASSWORD}\"\nwitness = \"later\"\n"
    )
}

/// Surroundings of the wizard with one blank disk.
pub fn wizard_disks() -> dyad_wizard::Surroundings {
    let disk = |path: &str| dyad_wizard::Disk {
        path: path.into(),
        model: String::new(),
        bytes: 1,
        content: dyad_wizard::DiskContent::Blank,
    };
    dyad_wizard::Surroundings { disks: vec![disk("/dev/vdb")], ..Default::default() }
}
