//! What the owner tells whom and when, with nobody behind it: no disks, no peer, no quorum machine.

use super::*;
use crate::conductor::{self, Input, News};
use crate::contacts::Contacts;
use crate::options::Options;
use crate::store::{Played, StoreDone};
use crate::watchdog::Facts;
use crate::witness::WitnessHandle;
use clap::Parser as _;
use dyad_control::{Phase, Request, WatchdogStatus};
use dyad_desired::{Change, Firmware, Intent, NewVm, NodeRecord};
use dyad_link::beacon::{self, Beacon};
use dyad_link::{Node, PairId, PairKey, tls};
use dyad_mirror::{Inventory, Stamp, StoreCommand, StoreOutput, Tuning, VolumeChange, VolumeInfo};
use std::sync::mpsc::channel;

const PATIENCE: Duration = Duration::from_secs(30);

/// An owner on node A, and the far ends of what it talks to.
struct Scene {
    owner: Owner,
    /// What background work sends back.
    events: Receiver<Event>,
    /// What the conductor is told.
    conductor: Receiver<Input>,
    /// What the document's task is told.
    documents: mpsc::UnboundedReceiver<Order>,
    /// What the pool is told.
    store: Played,
    runtime: tokio::runtime::Runtime,
    _dir: tempfile::TempDir,
}

impl Scene {
    /// Node A alone in the in-sync set, with a watchdog that is not proven and a document with `vms`.
    fn new(vms: &[(&str, dyad_desired::Node, Intent)]) -> Self {
        Self::with_pool(vms, &[])
    }

    /// The same over a pool that holds these volumes.
    fn with_pool(vms: &[(&str, dyad_desired::Node, Intent)], volumes: &[u64]) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let handle = runtime.handle().clone();
        let _in_runtime = handle.enter();
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name).display().to_string();
        let mut options = Options::parse_from(["dyad-core", "--state", &path("state"), "--run", &path("run")]);
        options.vms.clear();
        std::fs::create_dir_all(&options.state).unwrap();
        let config = beacon::Config { pair: PairId(1), node: Node::A, key: PairKey([0; 32]), port: 0 };
        let waker = Beacon::open(&config, Vec::new()).unwrap().waker();
        let (conductor, inputs) = conductor::queue(waker);
        let (sender, events) = channel();
        let inbox = Inbox(sender);
        let (documents, orders) = mpsc::unbounded_channel();
        let contacts = Contacts::new(
            options.clone(),
            tls::Identity::generate("node").unwrap(),
            Vec::new(),
            WitnessHandle::start(conductor.clone()),
            inbox.clone(),
            handle.clone(),
        );
        let (store, played) = StoreHandle::played();
        let info = |id: &u64| VolumeInfo { id: *id, size: 1 << 20, last: Stamp::default() };
        let volumes = volumes.iter().map(info).collect();
        let parts = Parts {
            identity: Identity::found("rig", "left", &[]),
            state: options.state.clone(),
            run: options.run.clone(),
            mirror: Mirror::new(crate::clock::now(), Tuning::default(), Inventory { volumes, dirty: Vec::new() }),
            store,
            peer: PeerHandle::start(inbox.clone()),
            inbox,
            conductor,
            enforcer: channel().0,
            vms: None,
            documents,
            timeline: Timeline::new(Some(NodeId::A)),
            status: watch::channel(crate::blank::status(Phase::Blank, WatchdogStatus::Absent)).0,
            watchdog: Some(Facts { identity: "a device".into(), timeout_s: 3, proven: false }),
            paths: Vec::new(),
            runtime: handle.clone(),
            contacts,
        };
        let mut owner = Owner::new(parts, Config::first(NodeId::A, 7));
        owner.announce_view();
        owner.document_is(document(vms), 0);
        owner.apply(Event::Quorum(News::Standpoint(Standpoint { may_run: true, ..Standpoint::default() })));
        owner.settle();
        let mut scene = Self { owner, events, conductor: inputs, documents: orders, store: played, runtime, _dir: dir };
        scene.told();
        scene
    }

    /// What quorum was told since the last look.
    fn told(&mut self) -> Vec<Input> {
        self.conductor.try_iter().collect()
    }

    fn told_clean(&mut self) -> bool {
        self.told().iter().any(|input| matches!(input, Input::Quorum(dyad_quorum::Event::PeerClean)))
    }

    /// Waits for what background work has to say, and lets the owner hear it.
    fn hear(&mut self) {
        let event = self.events.recv_timeout(PATIENCE).expect("background work comes back");
        self.owner.apply(event);
        self.owner.settle();
    }

    fn ask(&mut self, request: Request) -> Reply {
        let (answer, reply) = oneshot::channel();
        self.owner.apply(Event::Control { request, answer });
        self.owner.settle();
        self.runtime.block_on(reply).unwrap()
    }

    /// The order to make the other node's VMs ours, if one was given.
    fn rehoming(&mut self) -> Option<oneshot::Sender<Reply>> {
        while let Ok(order) = self.documents.try_recv() {
            if let Order::Change { change: Change::Rehome { .. }, answer, .. } = order {
                return Some(answer);
            }
        }
        None
    }

    /// The next change that was ordered is made; nothing if none was.
    fn make_change(&mut self) -> Option<Change> {
        while let Ok(order) = self.documents.try_recv() {
            if let Order::Change { change, answer, .. } = order {
                let document = dyad_desired::apply(self.owner.document.as_ref().unwrap(), &change).unwrap();
                self.owner.document_is(document, 0);
                self.owner.settle();
                let _ = answer.send(Reply::Done);
                return Some(change);
            }
        }
        None
    }

    /// The pool does as it is told; which volumes it deletes.
    fn delete_volumes(&mut self) -> Vec<u64> {
        let mut deleted = Vec::new();
        while let Some((op, command)) = self.store.next() {
            if let StoreCommand::Volume(VolumeChange::Delete { id }) = command {
                deleted.push(id);
                self.owner.apply(Event::Store(StoreDone { op, result: Ok(StoreOutput::Done) }));
                self.hear();
            }
        }
        deleted
    }

    /// A volume named disk, written here.
    fn with_a_disk() -> Self {
        let mut scene = Self::new(&[]);
        let disk = Change::CreateVolume { name: "disk".into(), size: 1 << 20, home: dyad_desired::Node::A };
        let document = dyad_desired::apply(scene.owner.document.as_ref().unwrap(), &disk).unwrap();
        scene.owner.document_is(document, 0);
        scene
    }

    fn open_import(&mut self) -> oneshot::Receiver<Result<crate::guests::VolumeBackend, Reply>> {
        let (answer, opened) = oneshot::channel();
        self.owner.apply(Event::OpenImport { volume: "disk".into(), bytes: 5000, answer });
        self.owner.settle();
        opened
    }

    fn close_import(&mut self, id: u64, whole: bool) -> oneshot::Receiver<Reply> {
        let (answer, closed) = oneshot::channel();
        self.owner.apply(Event::CloseImport { volume: "disk".into(), id, whole, answer });
        self.owner.settle();
        closed
    }
}

/// What the volume named disk is in the pool, and what an image is being sent into.
fn disk(scene: &Scene) -> (u64, Option<u64>) {
    let volume = &scene.owner.document.as_ref().unwrap().volumes["disk"];
    (volume.id, volume.incoming)
}

/// An image goes beside what the volume holds, one at a time, and takes its place only when it is whole.
#[test]
fn an_image_goes_beside_what_the_volume_holds() {
    let mut scene = Scene::with_a_disk();
    let mut opened = scene.open_import();
    let Ok(Err(Reply::Refused { code, .. })) = scene.open_import().try_recv() else { panic!("one at a time") };
    assert_eq!(code, "busy");
    assert!(opened.try_recv().is_err(), "there is no room yet");
    assert_eq!(scene.make_change(), Some(Change::BeginImport { name: "disk".into() }));
    scene.hear();
    assert_eq!(opened.try_recv().unwrap().unwrap().id(), 2);
    assert_eq!(disk(&scene), (1, Some(2)));
    assert_eq!(scene.owner.writers.get(&2), Some(&dyad_mirror::Writer::Me));
    assert_eq!(scene.make_change(), None, "the image is on its way");
    let mut closed = scene.close_import(2, true);
    assert_eq!(scene.make_change(), Some(Change::FinishImport { name: "disk".into(), id: 2 }));
    scene.hear();
    assert!(matches!(closed.try_recv(), Ok(Reply::Done)));
    assert_eq!(disk(&scene), (2, None));
    assert!(!scene.owner.writers.contains_key(&1));
}

/// What came of an image that failed is dropped, and the next one may come at once.
#[test]
fn an_image_that_fails_leaves_nothing() {
    let mut scene = Scene::with_a_disk();
    let _opened = scene.open_import();
    scene.make_change();
    scene.hear();
    let mut closed = scene.close_import(2, false);
    assert_eq!(scene.make_change(), Some(Change::DropImport { name: "disk".into(), id: 2 }));
    scene.hear();
    assert!(matches!(closed.try_recv(), Ok(Reply::Done)));
    assert_eq!(disk(&scene), (1, None));
    assert_eq!(scene.make_change(), None);
    let _opened = scene.open_import();
    assert_eq!(scene.make_change(), Some(Change::BeginImport { name: "disk".into() }));
}

/// A daemon that starts anew knows of no image on its way; what it wrote of one is dropped.
#[test]
fn what_came_of_an_image_does_not_outlive_its_daemon() {
    let mut scene = Scene::with_a_disk();
    let begin = Change::BeginImport { name: "disk".into() };
    let begun = dyad_desired::apply(scene.owner.document.as_ref().unwrap(), &begin).unwrap();
    scene.owner.document_is(begun, 0);
    scene.owner.settle();
    assert_eq!(scene.make_change(), Some(Change::DropImport { name: "disk".into(), id: 2 }));
    assert_eq!(scene.make_change(), None);
}

/// Numbers 1 and 3 were given and are in no document any more: a node died before it deleted them. Number 5 is of a volume
/// that is just being made.
#[test]
fn what_the_document_names_no_more_is_deleted() {
    let mut scene = Scene::with_pool(&[], &[0, 1, 2, 3, 5]);
    assert!(scene.delete_volumes().is_empty(), "no number was given yet");
    let mut document = scene.owner.document.clone().unwrap();
    let mut change = |change| document = dyad_desired::apply(&document, &change).unwrap();
    let create = |name: &str| Change::CreateVolume { name: name.into(), size: 1 << 20, home: dyad_desired::Node::A };
    ["one", "two", "three", "four"].into_iter().for_each(|name| change(create(name)));
    change(Change::DeleteVolume { name: "one".into() });
    change(Change::DeleteVolume { name: "three".into() });
    scene.owner.document_is(document.clone(), 1);
    scene.owner.settle();
    assert!(scene.delete_volumes().is_empty(), "the document is of another membership");
    scene.owner.config.lead = NodeId::B;
    scene.owner.document_is(document, 0);
    scene.owner.settle();
    assert!(scene.delete_volumes().is_empty(), "the lead does it");
    // The lead dies before it has done it; this node has read the document already.
    scene.owner.config.lead = NodeId::A;
    scene.owner.settle();
    assert_eq!(scene.delete_volumes(), [1, 3]);
    let held: Vec<u64> = scene.owner.parts.mirror.volumes().iter().map(|volume| volume.id).collect();
    assert_eq!(held, [0, 2, 5]);
}

fn document(vms: &[(&str, dyad_desired::Node, Intent)]) -> Document {
    let record = NodeRecord { name: "left".into(), addresses: Vec::new(), usable_memory_mib: 0, usable_cpus: 0 };
    let mut document = Document::found("rig", record, "$argon2id$none").unwrap();
    let peer = NodeRecord { name: "right".into(), addresses: Vec::new(), usable_memory_mib: 0, usable_cpus: 0 };
    let mut change = |change| document = dyad_desired::apply(&document, &change).unwrap();
    change(Change::SetNode { node: dyad_desired::Node::B, record: peer });
    for (name, owner, intent) in vms {
        let vm = NewVm {
            cpus: 1,
            memory_mib: 64,
            firmware: Firmware::Bios,
            disks: Vec::new(),
            owner: *owner,
            intent: *intent,
            priority: 50,
            ha: true,
        };
        change(Change::CreateVm { name: (*name).into(), vm });
    }
    document
}

/// A peer that is called clean may become a member at any moment, reads the document and starts what is its: not what is
/// just being made ours.
#[test]
fn a_peer_is_not_called_clean_while_its_vms_are_made_ours() {
    let mut scene = Scene::new(&[("web", dyad_desired::Node::B, Intent::Running)]);
    scene.owner.apply(Event::Quorum(News::PeerVmsAllowed));
    let answer = scene.rehoming().expect("the peer surely runs nothing: its VMs become ours");
    scene.owner.peer_is_clean();
    assert!(!scene.told_clean(), "the peer could start web while it becomes ours");
    answer.send(Reply::refused("membership-changed", "Not now.")).unwrap();
    scene.hear();
    assert!(scene.told_clean());
    // The other way round: what was called clean is not robbed any more.
    scene.owner.apply(Event::Quorum(News::PeerVmsAllowed));
    scene.owner.settle();
    assert!(scene.rehoming().is_none());
}

/// What was clean and is not any more, while the rehoming went on, is not reported late.
#[test]
fn a_peer_that_is_dirty_again_was_never_clean() {
    let mut scene = Scene::new(&[("web", dyad_desired::Node::B, Intent::Running)]);
    scene.owner.apply(Event::Quorum(News::PeerVmsAllowed));
    let answer = scene.rehoming().unwrap();
    scene.owner.peer_is_clean();
    scene.owner.peer_is_dirty();
    answer.send(Reply::Done).unwrap();
    scene.hear();
    assert!(
        !scene
            .told()
            .iter()
            .any(|input| matches!(input, Input::Quorum(dyad_quorum::Event::PeerClean | dyad_quorum::Event::PeerDirty)))
    );
}

#[test]
fn a_watchdog_is_not_proven_under_vms() {
    let mut scene = Scene::new(&[("web", dyad_desired::Node::A, Intent::Running)]);
    let Reply::Refused { code, .. } = scene.ask(Request::ProveWatchdog) else { panic!("web is about to start") };
    assert_eq!(code, "vm-running");
    assert!(!scene.told().iter().any(|input| matches!(input, Input::Starve(_))));
}

/// A node that is about to restart starts no VM; one whose watchdog then does nothing goes on.
#[test]
fn no_vm_starts_while_the_watchdog_is_proven() {
    let mut scene = Scene::new(&[("web", dyad_desired::Node::A, Intent::Stopped)]);
    let permitted = |scene: &Scene| scene.owner.permits.contains("web");
    assert!(permitted(&scene));
    assert!(matches!(scene.ask(Request::ProveWatchdog), Reply::Done));
    assert!(scene.told().iter().any(|input| matches!(input, Input::Starve(true))));
    assert!(!permitted(&scene), "a person starts web now, and the watchdog ends it");
    let Reply::Refused { code, .. } = scene.ask(Request::ProveWatchdog) else { panic!("one proof at a time") };
    assert_eq!(code, "proving");
    // There is no init here that would set the watchdog's period.
    scene.hear();
    assert!(scene.told().iter().any(|input| matches!(input, Input::Starve(false))));
    assert!(permitted(&scene));
}

/// The register is read before the quorum machine has judged. Until it has, nobody is told whose data is newer.
#[test]
fn what_is_not_judged_yet_is_not_told() {
    let mut scene = Scene::new(&[]);
    let shown = |scene: &Scene| scene.owner.parts.status.borrow().quorum.as_ref().map(|q| q.standing.clone());
    assert_eq!(shown(&scene), Some(dyad_control::Standing::Starting));
    let judged = dyad_quorum::Standing::Solo { fence: dyad_quorum::Fence::Over, peer_alive: false };
    let standpoint = Standpoint { standing: Some(judged), may_run: true, ..Standpoint::default() };
    scene.owner.apply(Event::Quorum(News::Standpoint(standpoint)));
    scene.owner.settle();
    assert_eq!(shown(&scene), Some(dyad_control::Standing::Running));
}
