//! Tests of [`CoreState`] alone: a fake store, and no disks, peer or quorum machine.

use super::*;
use crate::event::{DocumentRead, ImportTarget, StoreDone};
use crate::options::Options;
use crate::pairing::Pairing;
use crate::peer_wire::{ChangeId, CoreMessage, PeerEvent};
use crate::quorum_handle::{self, QuorumInput};
use crate::quorum_update::{QuorumSnapshot, QuorumUpdate};
use crate::store::FakeStore;
use crate::watchdog::WatchdogInfo;
use crate::witness::WitnessHandle;
use clap::Parser as _;
use dyad_control::{Phase, Refusal, RefusalCode, Reply, Request, WatchdogStatus};
use dyad_desired::{Change, Firmware, Intent, NodeRecord, VmConfig};
use dyad_link::beacon::{self, Beacon};
use dyad_link::{PairId, PairKey, tls};
use dyad_mirror::{Inventory, StoreCommand, StoreOutput, Tuning, VolumeChange, VolumeInfo};
use dyad_placement::{ChangeTicket, DocumentRequest, Timer};
use dyad_types::{NodeId, Session, Stamp, VolumeId};
use std::sync::Arc;
use std::sync::mpsc::channel;
use tokio::sync::{Semaphore, oneshot};

mod alarms;
mod clocks;

const TEST_TIMEOUT: Duration = Duration::from_secs(30);

/// A `CoreState` on node A, and the receiving ends of its handles.
struct CoreFixture {
    state: CoreState,
    /// Events of background work and of `CoreState` itself.
    events: Receiver<Event>,
    /// Receives the inputs in place of the quorum thread.
    quorum_thread: Receiver<QuorumInput>,
    /// Requests to the document's task.
    documents: mpsc::UnboundedReceiver<DocumentInput>,
    /// Commands to the store.
    store: FakeStore,
    /// Commands to the thread of the VMs' cgroup.
    cgroup_commands: Receiver<CgroupCommand>,
    runtime: tokio::runtime::Runtime,
    _dir: tempfile::TempDir,
}

impl CoreFixture {
    /// Node A alone in the in-sync set, with a watchdog that is not proven and a document with `vms`.
    fn new(vms: &[(&str, NodeId, Intent)]) -> Self {
        Self::with_pool(vms, &[])
    }

    /// The same over a pool that holds these volumes.
    fn with_pool(vms: &[(&str, NodeId, Intent)], volumes: &[VolumeId]) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let handle = runtime.handle().clone();
        let _in_runtime = handle.enter();
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name).display().to_string();
        let mut options = Options::parse_from(["dyad-core", "--state", &path("state"), "--run", &path("run")]);
        options.vms.clear();
        std::fs::create_dir_all(&options.state).unwrap();
        let config = beacon::BeaconConfig { pair: PairId(1), node: NodeId::A, key: PairKey([0; 32]), port: 0 };
        let waker = Beacon::open(&config, Vec::new()).unwrap().waker();
        let (quorum_thread, inputs) = quorum_handle::queue(waker);
        let (sender, events) = channel();
        let event_sender = EventSender(sender);
        let (documents, requests) = mpsc::unbounded_channel();
        let pairing = Pairing::new(
            options.clone(),
            tls::TlsIdentity::generate("node").unwrap(),
            Vec::new(),
            WitnessHandle::start(quorum_thread.clone(), NodeId::A),
            event_sender.clone(),
            handle.clone(),
        );
        let (store, fake) = StoreHandle::fake();
        let (cgroup_fence, cgroup_commands) = channel();
        let info = |id: &VolumeId| VolumeInfo { id: *id, size: 1 << 20, last: Stamp::default() };
        let volumes = volumes.iter().map(info).collect();
        let handles = CoreHandles {
            paths: StatePaths { state: options.state.clone(), run: options.run.clone(), vms_cgroup: None },
            store,
            peer: PeerHandle::start(event_sender.clone()),
            event_sender,
            quorum_thread,
            cgroup_fence,
            documents,
            timeline: Timeline::new(Some(NodeId::A)),
            links: Vec::new(),
            runtime: handle.clone(),
            pairing,
        };
        let dependencies = Dependencies {
            identity: NodeIdentity::first_node(
                dyad_provision::identity::PairAndNodeName { pair: "rig", node: "left" },
                &[],
            ),
            mirror: Mirror::new(crate::clock::now(), Tuning::default(), Inventory { volumes, dirty: Vec::new() }),
            watchdog: Some(WatchdogInfo { identity: "a device".into(), timeout_s: 3, proven: false }),
            status: watch::channel(dyad_control::Status::without_pair(Phase::Blank, WatchdogStatus::Absent)).0,
            handles,
        };
        let mut state = CoreState::new(dependencies, Config::first(NodeId::A, 7));
        state.begin();
        state.set_document(document(vms), MembershipTerm(0));
        state.apply(Event::Quorum(QuorumUpdate::Snapshot(QuorumSnapshot {
            may_run: true,
            ..QuorumSnapshot::default()
        })));
        state.settle();
        let mut fixture = Self {
            state,
            events,
            quorum_thread: inputs,
            documents: requests,
            store: fake,
            cgroup_commands,
            runtime,
            _dir: dir,
        };
        fixture.quorum_inputs();
        fixture
    }

    /// The inputs for the quorum thread since the last call.
    fn quorum_inputs(&mut self) -> Vec<QuorumInput> {
        self.quorum_thread.try_iter().collect()
    }

    /// The levels "VM processes may exist here" that the quorum thread was told since the last call.
    fn vms_told(&mut self) -> Vec<bool> {
        let told = |input| match input {
            QuorumInput::Quorum(dyad_quorum::Event::VmsRunning(vms)) => Some(vms),
            _ => None,
        };
        self.quorum_inputs().into_iter().filter_map(told).collect()
    }

    /// Applies an update of the quorum thread and settles.
    fn update(&mut self, update: QuorumUpdate) {
        self.state.apply(Event::Quorum(update));
        self.state.settle();
    }

    /// Puts a changed configuration in force.
    fn configure(&mut self, change: impl Fn(&mut Config)) {
        let mut config = self.state.placement.config().clone();
        change(&mut config);
        self.state.apply(Event::Quorum(QuorumUpdate::Config(config)));
    }

    fn permits(&self) -> Vec<&str> {
        self.state.placement.permits().iter().map(String::as_str).collect()
    }

    fn refusal(&mut self, change: Change) -> Option<Refusal> {
        let (answer, mut reply) = oneshot::channel();
        self.state.apply(Event::Control(ControlRequest { request: Request::Change { change }, answer }));
        self.state.settle();
        match reply.try_recv() {
            Ok(Reply::Refused(refusal)) => Some(refusal),
            _ => None,
        }
    }

    fn reported_clean(&mut self) -> bool {
        self.quorum_inputs().iter().any(|input| matches!(input, QuorumInput::Quorum(dyad_quorum::Event::PeerClean)))
    }

    /// Waits for one event of background work, applies it and settles.
    fn apply_next_event(&mut self) {
        let event = self.events.recv_timeout(TEST_TIMEOUT).expect("background work comes back");
        self.state.apply(event);
        self.state.settle();
    }

    fn ask(&mut self, request: Request) -> Reply {
        let (answer, reply) = oneshot::channel();
        self.state.apply(Event::Control(ControlRequest { request, answer }));
        self.state.settle();
        self.runtime.block_on(reply).unwrap()
    }

    /// Ticket of the change that fails over the other node's VMs, if it was requested.
    fn failover_in_flight(&mut self) -> Option<ChangeTicket> {
        while let Ok(request) = self.documents.try_recv() {
            if let DocumentInput::Request(DocumentRequest::Change { change: Change::FailOver { .. }, ticket, .. }) =
                request
            {
                return Some(ticket);
            }
        }
        None
    }

    /// Sends the decision of a change, as the document's task does; [`Self::apply_next_event`] applies it.
    fn decide(&self, ticket: ChangeTicket, result: Result<(), Refusal>) {
        self.state.handles.event_sender.send(Event::ChangeDone { ticket, result });
    }

    /// Makes the next change that was requested; `None` if none was.
    fn make_change(&mut self) -> Option<Change> {
        while let Ok(request) = self.documents.try_recv() {
            if let DocumentInput::Request(DocumentRequest::Change { change, ticket, .. }) = request {
                let document = dyad_desired::apply(self.state.placement.document().newest().unwrap(), &change).unwrap();
                self.state.set_document(document, MembershipTerm(0));
                self.state.settle();
                self.decide(ticket, Ok(()));
                return Some(change);
            }
        }
        None
    }

    /// Answers all commands of the store; returns the volumes that were to be deleted.
    fn delete_volumes(&mut self) -> Vec<VolumeId> {
        let mut deleted = Vec::new();
        while let Some((op, command)) = self.store.next() {
            if let StoreCommand::Volume(VolumeChange::Delete { id }) = command {
                deleted.push(id);
                self.state.apply(Event::Store(StoreDone { op, result: Ok(StoreOutput::Done) }));
                self.apply_next_event();
            }
        }
        deleted
    }

    /// The same with one volume named `disk`, whose primary is this node.
    fn with_a_disk() -> Self {
        let mut fixture = Self::new(&[]);
        let disk = Change::CreateVolume { name: "disk".into(), size: 1 << 20, primary: NodeId::A };
        let document = dyad_desired::apply(fixture.state.placement.document().newest().unwrap(), &disk).unwrap();
        fixture.state.set_document(document, MembershipTerm(0));
        fixture
    }

    fn open_import(&mut self) -> oneshot::Receiver<Result<ImportTarget, Refusal>> {
        let (answer, opened) = oneshot::channel();
        self.state.apply(Event::OpenImport { volume: "disk".into(), bytes: 5000, answer });
        self.state.settle();
        opened
    }

    fn close_import(&mut self, id: VolumeId, whole: bool) -> oneshot::Receiver<Result<(), Refusal>> {
        let (answer, closed) = oneshot::channel();
        self.state.apply(Event::CloseImport { volume: "disk".into(), id, whole, answer });
        self.state.settle();
        closed
    }
}

/// Id of the volume named `disk`, and id of the volume into which an image for it is sent.
fn disk_ids(fixture: &CoreFixture) -> (VolumeId, Option<VolumeId>) {
    let volume = &fixture.state.placement.document().newest().unwrap().volumes["disk"];
    (volume.id, volume.incoming)
}

/// At most one import runs into a volume, and the old content stays until the image is complete.
#[test]
fn an_image_is_written_to_a_new_volume_which_then_replaces_the_old_one() {
    let mut fixture = CoreFixture::with_a_disk();
    let mut opened = fixture.open_import();
    let Ok(Err(Refusal { code, .. })) = fixture.open_import().try_recv() else { panic!("one at a time") };
    assert_eq!(code, RefusalCode::Busy);
    assert!(opened.try_recv().is_err(), "there is no room yet");
    assert_eq!(fixture.make_change(), Some(Change::BeginImport { name: "disk".into() }));
    fixture.apply_next_event();
    assert_eq!(opened.try_recv().unwrap().unwrap().id, VolumeId(2));
    assert_eq!(disk_ids(&fixture), (VolumeId(1), Some(VolumeId(2))));
    assert_eq!(fixture.state.placement.writer_of(VolumeId(2)), Some(dyad_mirror::Writer::Me));
    assert_eq!(fixture.make_change(), None, "the image is on its way");
    let mut closed = fixture.close_import(VolumeId(2), true);
    assert_eq!(fixture.make_change(), Some(Change::FinishImport { name: "disk".into(), id: VolumeId(2) }));
    fixture.apply_next_event();
    assert!(matches!(closed.try_recv(), Ok(Ok(()))));
    assert_eq!(disk_ids(&fixture), (VolumeId(2), None));
    assert_eq!(fixture.state.placement.writer_of(VolumeId(1)), None);
}

/// The volume of an aborted import is dropped, and the next import may begin at once.
#[test]
fn an_aborted_import_leaves_the_old_volume_only() {
    let mut fixture = CoreFixture::with_a_disk();
    let _opened = fixture.open_import();
    fixture.make_change();
    fixture.apply_next_event();
    let mut closed = fixture.close_import(VolumeId(2), false);
    assert_eq!(fixture.make_change(), Some(Change::DropImport { name: "disk".into(), id: VolumeId(2) }));
    fixture.apply_next_event();
    assert!(matches!(closed.try_recv(), Ok(Ok(()))));
    assert_eq!(disk_ids(&fixture), (VolumeId(1), None));
    assert_eq!(fixture.make_change(), None);
    let _opened = fixture.open_import();
    assert_eq!(fixture.make_change(), Some(Change::BeginImport { name: "disk".into() }));
}

/// A restarted daemon runs no import, so the volume that the document names for one is dropped.
#[test]
fn an_import_of_an_earlier_run_of_the_daemon_is_dropped() {
    let mut fixture = CoreFixture::with_a_disk();
    let begin = Change::BeginImport { name: "disk".into() };
    let begun = dyad_desired::apply(fixture.state.placement.document().newest().unwrap(), &begin).unwrap();
    fixture.state.set_document(begun, MembershipTerm(0));
    fixture.state.settle();
    assert_eq!(fixture.make_change(), Some(Change::DropImport { name: "disk".into(), id: VolumeId(2) }));
    assert_eq!(fixture.make_change(), None);
}

/// Numbers 1 and 3 were given out and the document does not name them any more: a node died before it deleted the
/// volumes. Number 5 was not given out yet: its volume is just being made.
#[test]
fn the_lead_deletes_volumes_that_the_document_no_longer_names() {
    let mut fixture = CoreFixture::with_pool(&[], &[0, 1, 2, 3, 5].map(VolumeId));
    assert!(fixture.delete_volumes().is_empty(), "no number was given yet");
    let mut document = fixture.state.placement.document().newest().cloned().unwrap();
    let mut change = |change| document = dyad_desired::apply(&document, &change).unwrap();
    let create = |name: &str| Change::CreateVolume { name: name.into(), size: 1 << 20, primary: NodeId::A };
    ["one", "two", "three", "four"].into_iter().for_each(|name| change(create(name)));
    change(Change::DeleteVolume { name: "one".into() });
    change(Change::DeleteVolume { name: "three".into() });
    fixture.state.set_document(document.clone(), MembershipTerm(1));
    fixture.state.settle();
    assert!(fixture.delete_volumes().is_empty(), "the document is of another membership");
    fixture.configure(|config| config.lead = NodeId::B);
    fixture.state.set_document(document, MembershipTerm(0));
    fixture.state.settle();
    assert!(fixture.delete_volumes().is_empty(), "only the lead deletes");
    // The lead dies before it has deleted them; this node, which has read the document already, becomes the lead.
    fixture.configure(|config| config.lead = NodeId::A);
    fixture.state.settle();
    assert_eq!(fixture.delete_volumes(), [VolumeId(1), VolumeId(3)]);
    let held: Vec<VolumeId> = fixture.state.replication.mirror.volumes().iter().map(|volume| volume.id).collect();
    assert_eq!(held, [0, 2, 5].map(VolumeId));
}

fn vm_on(node: NodeId, intent: Intent) -> VmConfig {
    VmConfig {
        cpus: 1,
        memory_mib: 64,
        firmware: Firmware::Bios,
        disks: Vec::new(),
        node,
        intent,
        priority: 50,
        ha: true,
    }
}

fn document(vms: &[(&str, NodeId, Intent)]) -> Document {
    let record = NodeRecord { name: "left".into(), addresses: Vec::new(), usable_memory_mib: 0, usable_cpus: 0 };
    let mut document = Document::new_pair("rig", record, "$argon2id$none").unwrap();
    let peer = NodeRecord { name: "right".into(), addresses: Vec::new(), usable_memory_mib: 0, usable_cpus: 0 };
    let mut change = |change| document = dyad_desired::apply(&document, &change).unwrap();
    change(Change::SetNode { node: NodeId::B, record: peer });
    for (name, node, intent) in vms {
        change(Change::CreateVm { name: (*name).into(), vm: vm_on(*node, *intent) });
    }
    document
}

/// A peer that is reported clean may become a member at any moment and start the VMs that the document places on it.
#[test]
fn a_peer_is_not_reported_clean_while_its_vms_are_failed_over() {
    let mut fixture = CoreFixture::new(&[("web", NodeId::B, Intent::Running)]);
    fixture.state.apply(Event::Quorum(QuorumUpdate::PeerVmsAllowed));
    let ticket = fixture.failover_in_flight().expect("the peer's fence is over: its VMs fail over to this node");
    fixture.state.place(dyad_placement::Event::PeerClean);
    assert!(!fixture.reported_clean(), "the peer could start web while it is failed over");
    fixture.decide(ticket, Err(Refusal::new(RefusalCode::MembershipChanged, "Not now.")));
    fixture.apply_next_event();
    assert!(fixture.reported_clean());
    // After the peer was reported clean, its VMs are not failed over any more.
    fixture.state.apply(Event::Quorum(QuorumUpdate::PeerVmsAllowed));
    fixture.state.settle();
    assert!(fixture.failover_in_flight().is_none());
}

/// A peer that became dirty again while the fail-over was in flight is not reported clean afterwards.
#[test]
fn a_deferred_clean_is_dropped_when_the_peer_is_dirty_again() {
    let mut fixture = CoreFixture::new(&[("web", NodeId::B, Intent::Running)]);
    fixture.state.apply(Event::Quorum(QuorumUpdate::PeerVmsAllowed));
    let ticket = fixture.failover_in_flight().unwrap();
    fixture.state.place(dyad_placement::Event::PeerClean);
    fixture.state.place(dyad_placement::Event::PeerDirty);
    fixture.decide(ticket, Ok(()));
    fixture.apply_next_event();
    assert!(!fixture.quorum_inputs().iter().any(|input| matches!(
        input,
        QuorumInput::Quorum(dyad_quorum::Event::PeerClean | dyad_quorum::Event::PeerDirty)
    )));
}

#[test]
fn the_watchdog_is_not_tested_while_a_vm_is_about_to_start() {
    let mut fixture = CoreFixture::new(&[("web", NodeId::A, Intent::Running)]);
    let Reply::Refused(Refusal { code, .. }) = fixture.ask(Request::ProveWatchdog) else {
        panic!("web is about to start")
    };
    assert_eq!(code, RefusalCode::VmRunning);
    assert!(!fixture.quorum_inputs().iter().any(|input| matches!(input, QuorumInput::StopFeeding(_))));
}

/// A node that is about to be reset permits no VM. If no reset comes, it permits VMs again.
#[test]
fn no_vm_starts_while_the_watchdog_is_tested() {
    let mut fixture = CoreFixture::new(&[("web", NodeId::A, Intent::Stopped)]);
    let permitted = |fixture: &CoreFixture| fixture.state.placement.permits().contains("web");
    assert!(permitted(&fixture));
    assert!(matches!(fixture.ask(Request::ProveWatchdog), Reply::Done));
    assert!(!permitted(&fixture), "web, started now, would be ended by the reset");
    let Reply::Refused(Refusal { code, .. }) = fixture.ask(Request::ProveWatchdog) else {
        panic!("one proof at a time")
    };
    assert_eq!(code, RefusalCode::Proving);
    // No init runs here, so the test ends at once: the watchdog's period cannot be set.
    fixture.apply_next_event();
    let feeding = |input: QuorumInput| if let QuorumInput::StopFeeding(stop) = input { Some(!stop) } else { None };
    let told: Vec<bool> = fixture.quorum_inputs().into_iter().filter_map(feeding).collect();
    assert_eq!(told, [false, true], "not fed during the test, fed again after it");
    assert!(permitted(&fixture));
}

/// The register is read before the quorum machine has judged. Until then the status is "starting", not "the peer is
/// newer".
#[test]
fn the_state_is_starting_until_the_quorum_machine_has_judged() {
    let mut fixture = CoreFixture::new(&[]);
    let shown = |fixture: &CoreFixture| fixture.state.report.shown().quorum.map(|quorum| quorum.state);
    assert_eq!(shown(&fixture), Some(dyad_control::NodeState::Starting));
    let judged = dyad_quorum::RunState::Solo { fence: dyad_quorum::Fence::Over, peer_alive: false };
    let snapshot = QuorumSnapshot { run_state: Some(judged), may_run: true, ..QuorumSnapshot::default() };
    fixture.state.apply(Event::Quorum(QuorumUpdate::Snapshot(snapshot)));
    fixture.state.settle();
    assert_eq!(shown(&fixture), Some(dyad_control::NodeState::Running));
}

fn may_run(may_run: bool) -> QuorumUpdate {
    QuorumUpdate::Snapshot(QuorumSnapshot { may_run, ..QuorumSnapshot::default() })
}

fn delete_vm(vm: &str, node: NodeId) -> Change {
    Change::DeleteVm { name: vm.into(), node, changed: 3 }
}

/// A node that leaves has its VMs killed. The quorum machine may say meanwhile, and rightly, that it may run VMs.
#[test]
fn a_leaving_node_permits_no_vm_whatever_its_right_to_run_them() {
    let mut fixture = CoreFixture::new(&[("web", NodeId::A, Intent::Running)]);
    assert_eq!(fixture.permits(), ["web"]);
    let (answer, _reply) = oneshot::channel();
    fixture.state.apply(Event::Control(ControlRequest { request: Request::Leave, answer }));
    fixture.state.settle();
    assert!(fixture.permits().is_empty(), "a new VM would be killed at once");
    fixture.update(QuorumUpdate::Kill(dyad_quorum::KillReason::Leaving));
    fixture.update(may_run(true));
    assert!(fixture.permits().is_empty() && !fixture.state.placement.serving());
    // The other node does not take over; the leave is cancelled.
    let Lifecycle::Leaving { begun, .. } = fixture.state.placement.lifecycle() else { panic!("the leave goes on") };
    fixture.state.apply(Event::TimedOut(Timer::Leave { begun }));
    fixture.state.settle();
    assert_eq!(fixture.permits(), ["web"]);
}

/// A pool that failed stores nothing, so the VMs of its node could not work.
#[test]
fn a_node_whose_pool_failed_permits_no_vm() {
    let mut fixture = CoreFixture::new(&[("web", NodeId::A, Intent::Running)]);
    fixture.state.pool_failed("no space");
    fixture.update(may_run(true));
    assert!(fixture.permits().is_empty() && !fixture.state.placement.serving());
}

/// A snapshot that was sent before the kill says nothing about the time after it.
#[test]
fn killed_vms_are_permitted_again_only_by_a_newer_snapshot() {
    let mut fixture = CoreFixture::new(&[("web", NodeId::A, Intent::Running)]);
    fixture.update(QuorumUpdate::Kill(dyad_quorum::KillReason::Removed));
    fixture.state.settle();
    assert!(fixture.permits().is_empty());
    fixture.update(may_run(false));
    assert!(fixture.permits().is_empty());
    fixture.update(may_run(true));
    assert_eq!(fixture.permits(), ["web"]);
}

/// The quorum machine takes "no VMs" from its kill. If VMs exist or may start all the same, it must learn it.
#[test]
fn the_quorum_thread_is_told_after_each_kill_whether_vms_may_exist() {
    let mut fixture = CoreFixture::new(&[("web", NodeId::A, Intent::Running)]);
    fixture.state.apply(Event::Quorum(QuorumUpdate::Kill(dyad_quorum::KillReason::Leaving)));
    fixture.update(may_run(true));
    assert_eq!(fixture.permits(), ["web"]);
    assert_eq!(fixture.vms_told(), [true]);
}

/// After a kill the cgroup executes nothing until a VM is permitted with knowledge of that kill.
#[test]
fn starts_are_allowed_once_after_each_kill() {
    let mut fixture = CoreFixture::new(&[("web", NodeId::A, Intent::Running)]);
    let allowed = |fixture: &CoreFixture| fixture.cgroup_commands.try_iter().collect::<Vec<_>>();
    assert_eq!(allowed(&fixture), [CgroupCommand::AllowStarts { kills: 0 }]);
    fixture.state.settle();
    assert_eq!(allowed(&fixture), []);
    fixture.update(QuorumUpdate::Kill(dyad_quorum::KillReason::Removed));
    assert_eq!(allowed(&fixture), []);
    fixture.update(may_run(true));
    assert_eq!(allowed(&fixture), [CgroupCommand::AllowStarts { kills: 1 }]);
}

/// The other node may run its VMs until its fence is over, and this node cannot ask it.
#[test]
fn a_vm_of_a_lost_node_is_not_deleted_before_the_fail_over() {
    let mut fixture = CoreFixture::new(&[("web", NodeId::B, Intent::Stopped)]);
    let until = crate::clock::now() + 4_500_000_000;
    let snapshot = QuorumSnapshot { may_run: true, peer_fence_until: Some(until), ..QuorumSnapshot::default() };
    fixture.update(QuorumUpdate::Snapshot(snapshot));
    let refusal = fixture.refusal(delete_vm("web", NodeId::B)).expect("node B may run web");
    assert_eq!(refusal.code, RefusalCode::PeerFence);
    assert_eq!(refusal.sentence, "Node B was lost and may still run its VMs for up to 5 s: ask again then.");
    // This node cannot vouch for the other one.
    assert!(fixture.refusal(delete_vm("web", NodeId::A)).is_none(), "left to the rules of the document");
    while let Ok(request) = fixture.documents.try_recv() {
        if let DocumentInput::Request(DocumentRequest::Change { change, .. }) = request {
            assert!(
                dyad_desired::apply(fixture.state.placement.document().newest().unwrap(), &change).is_err(),
                "{change:?}"
            );
        }
    }
    fixture.update(QuorumUpdate::PeerVmsAllowed);
    let changed = std::iter::from_fn(|| fixture.make_change()).last();
    assert_eq!(changed, Some(Change::FailOver { survivor: NodeId::A }));
    let changed = fixture.state.placement.document().newest().unwrap().vms["web"].changed;
    let deletion = Change::DeleteVm { name: "web".into(), node: NodeId::A, changed };
    assert!(fixture.refusal(deletion.clone()).is_none());
    assert_eq!(fixture.make_change(), Some(deletion));
}

/// A new VM on a disk of the lost node would be a second writer for its guest.
#[test]
fn volumes_of_a_lost_node_are_not_used_before_the_fail_over() {
    let mut fixture = CoreFixture::with_a_disk();
    let moved = dyad_desired::fail_over(fixture.state.placement.document().newest().unwrap(), NodeId::B);
    fixture.state.set_document(moved, MembershipTerm(0));
    let vm = VmConfig { disks: vec!["disk".into()], ..vm_on(NodeId::A, Intent::Stopped) };
    for change in [
        Change::DeleteVolume { name: "disk".into() },
        Change::BeginImport { name: "disk".into() },
        Change::CreateVm { name: "web".into(), vm },
    ] {
        let refusal = fixture.refusal(change).expect("node B may write the disk");
        assert_eq!(refusal.code, RefusalCode::PeerFence);
        assert!(refusal.sentence.contains("its watchdog is not proven"), "{refusal}");
    }
}

/// Only a VM's node knows whether a process of the VM exists.
#[test]
fn a_vm_of_the_other_member_is_deleted_at_its_request_only() {
    let mut fixture = CoreFixture::new(&[("web", NodeId::B, Intent::Stopped), ("mail", NodeId::A, Intent::Stopped)]);
    fixture.configure(|config| config.members = dyad_quorum::Members::Both);
    let refusal = fixture.refusal(delete_vm("web", NodeId::B)).expect("node B was not asked");
    assert_eq!(refusal.code, RefusalCode::OtherNode);
    let passed_on = |fixture: &CoreFixture, change| fixture.state.refused_by_fence_rule(&change, NodeId::B);
    assert!(passed_on(&fixture, delete_vm("web", NodeId::B)).is_none());
    let refusal = passed_on(&fixture, delete_vm("mail", NodeId::A)).expect("node B cannot vouch for this node");
    assert_eq!(refusal.code, RefusalCode::OtherNode);
}

/// Alone, a node that stopped at one failed request would leave its guests without an answer until a person restarts it.
#[test]
fn a_failed_pool_is_opened_again_if_no_other_node_takes_over() {
    for (members, stops) in [(dyad_quorum::Members::OnlyA, true), (dyad_quorum::Members::OnlyB, false)] {
        let mut fixture = CoreFixture::new(&[("web", NodeId::A, Intent::Running)]);
        fixture.state.pool_failed("an error of the disk");
        fixture.configure(|config| config.members = members);
        fixture.state.apply(Event::TimedOut(Timer::HandOver));
        assert_eq!(fixture.state.placement.lifecycle() == Lifecycle::Stopping, stops, "{members:?}");
    }
    let mut healthy = CoreFixture::new(&[]);
    healthy.state.apply(Event::TimedOut(Timer::HandOver));
    assert_eq!(healthy.state.placement.lifecycle(), Lifecycle::Running);
}

/// The end of a session can be reported twice: when a message was not understood, and when the connection is closed.
#[test]
fn the_end_of_an_old_session_does_not_end_a_newer_one() {
    let mut fixture = CoreFixture::new(&[]);
    let down = |session| {
        let reason = "the peer closed it".into();
        Event::Peer(PeerEvent::Down { session: Session(session), reason, closed: true })
    };
    fixture.state.replication.session = Some(Session(2));
    fixture.state.apply(down(1));
    assert!(fixture.state.replication.connected());
    let closed = |input: &QuorumInput| matches!(input, QuorumInput::Quorum(dyad_quorum::Event::PeerClosed));
    assert!(!fixture.quorum_inputs().iter().any(closed));
    fixture.state.apply(down(2));
    assert!(!fixture.state.replication.connected());
    assert!(fixture.quorum_inputs().iter().any(closed));
}

/// The peer was told that its change failed when the session ended, so it may ask for it again.
#[test]
fn a_message_of_an_ended_session_changes_nothing() {
    let mut fixture = CoreFixture::new(&[]);
    let volume = Change::CreateVolume { name: "disk".into(), size: 1 << 20, primary: NodeId::B };
    let mut changed_over = |session, connected| {
        fixture.state.replication.session = connected;
        let message = CoreMessage::Change { id: ChangeId(1), change: serde_json::to_string(&volume).unwrap() };
        let room = Arc::new(Semaphore::new(1)).try_acquire_owned().unwrap();
        fixture.state.apply(Event::Peer(PeerEvent::Message { session, message, room }));
        fixture.state.settle();
        fixture.make_change()
    };
    assert_eq!(changed_over(Session(1), None), None);
    assert_eq!(changed_over(Session(1), Some(Session(2))), None);
    assert_eq!(changed_over(Session(2), Some(Session(2))), Some(volume.clone()));
}

#[test]
fn an_error_that_is_over_no_longer_makes_the_node_faulty() {
    let mut fixture = CoreFixture::new(&[]);
    fixture.state.apply(Event::DocumentLost { why: "Both copies are damaged.".into() });
    assert!(fixture.state.report.faulty().is_some_and(|what| what.contains("Both copies")));
    fixture.state.apply(Event::DocumentRead(DocumentRead { document: document(&[]), term: MembershipTerm(0) }));
    assert_eq!(fixture.state.report.faulty(), None);
    let folder = fixture.state.handles.paths.state.clone();
    std::fs::remove_dir_all(&folder).unwrap();
    assert!(fixture.state.save_identity().is_err());
    assert!(fixture.state.report.faulty().is_some_and(|what| what.contains("identity")));
    std::fs::create_dir_all(&folder).unwrap();
    fixture.state.save_identity().unwrap();
    assert_eq!(fixture.state.report.faulty(), None);
}
