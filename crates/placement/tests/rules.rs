//! The rules of placement, each in the smallest situation in which it decides.

use dyad_desired::{Change, Document, Firmware, Intent, NodeRecord, VmConfig, apply};
use dyad_mirror::{Inventory, Mirror, Tuning, VolumeInfo, Writer};
use dyad_placement::{
    Action, ChangeRefusal, Event, LeaveEnd, Lifecycle, LocalState, MembershipTerm, Placement, RightToRun, Timer,
};
use dyad_quorum::{Config, Members};
use dyad_types::{BootTime, NodeId, Stamp, VolumeId};

const SECOND: u64 = 1_000_000_000;
const DISK: VolumeId = VolumeId(1);

fn record(name: &str) -> NodeRecord {
    NodeRecord { name: name.into(), addresses: Vec::new(), usable_memory_mib: 0, usable_cpus: 0 }
}

/// A document with the VM `web` on `node` and its volume `disk`.
fn document(node: NodeId) -> Document {
    let document = Document::new_pair("rig", record("left"), "$argon2id$none").unwrap();
    let vm = VmConfig {
        cpus: 1,
        memory_mib: 64,
        firmware: Firmware::Bios,
        disks: vec!["disk".into()],
        node,
        intent: Intent::Running,
        priority: 50,
        ha: true,
    };
    let changes = [
        Change::SetNode { node: NodeId::B, record: record("right") },
        Change::CreateVolume { name: "disk".into(), size: 1 << 20, primary: node },
        Change::CreateVm { name: "web".into(), vm },
    ];
    changes.iter().fold(document, |document, change| apply(&document, change).unwrap())
}

/// Placement on node A, with a mirror that only lists volumes.
struct Fixture {
    placement: Placement,
    mirror: Mirror,
    now: BootTime,
    /// The kernel knows a VM process.
    vms_exist: bool,
    actions: Vec<Action>,
}

impl Fixture {
    /// Node A in this in-sync set, without a right to run and without a document; the pool holds the disk.
    fn new(members: Members) -> Self {
        let now = BootTime(100 * SECOND);
        let config = Config { members, ..Config::first(NodeId::A, 7) };
        let info = |id| VolumeInfo { id, size: 1 << 20, last: Stamp::default() };
        let volumes = [VolumeId::DOCUMENT, DISK].map(info).to_vec();
        let mirror = Mirror::new(now, Tuning::default(), Inventory { volumes, dirty: Vec::new() });
        let placement = Placement::new(NodeId::A, config, None, now);
        Self { placement, mirror, now, vms_exist: false, actions: Vec::new() }
    }

    /// The same with the right to run, and a document with `web` on `node`.
    fn with_web(members: Members, node: NodeId) -> Self {
        let mut fixture = Self::new(members);
        fixture.event(right(true));
        fixture.read(document(node));
        fixture.settle();
        fixture.actions.clear();
        fixture
    }

    fn event(&mut self, event: Event) {
        self.placement.handle(self.now, event, &mut self.actions);
    }

    fn read(&mut self, document: Document) {
        self.event(Event::DocumentRead { document, term: MembershipTerm(0) });
    }

    /// Settles; each server that must run is started.
    fn settle(&mut self) {
        let from = self.actions.len();
        self.placement.settle_access(self.now, &self.mirror, &mut self.actions);
        let asked =
            |action: &Action| if let Action::StartServer { volume, .. } = action { Some(*volume) } else { None };
        for volume in self.actions[from..].iter().filter_map(asked).collect::<Vec<_>>() {
            self.placement.handle(self.now, Event::ServerStarted(volume), &mut self.actions);
        }
        let local = LocalState { now: self.now, mirror: &self.mirror, vms_exist: self.vms_exist, watchdog_test: false };
        self.placement.settle_permits(&local, &mut self.actions);
    }

    fn settled(&mut self) -> Vec<Action> {
        self.actions.clear();
        self.settle();
        std::mem::take(&mut self.actions)
    }

    fn permits(&self) -> Vec<&str> {
        self.placement.permits().iter().map(String::as_str).collect()
    }

    /// The levels "VMs may exist" that quorum was told since the last call.
    fn vms_told(&mut self) -> Vec<bool> {
        let told = |action| match action {
            Action::Quorum(dyad_quorum::Event::VmsRunning(vms)) => Some(vms),
            _ => None,
        };
        std::mem::take(&mut self.actions).into_iter().filter_map(told).collect()
    }
}

fn right(may_run: bool) -> Event {
    Event::RightToRun(RightToRun { may_run, peer_fence_until: None })
}

fn position(actions: &[Action], wanted: impl Fn(&Action) -> bool) -> usize {
    actions.iter().position(wanted).unwrap_or_else(|| panic!("not in {actions:?}"))
}

/// The guest of a permitted VM may execute at once: its requests need the writer and the server, and the quorum machine must
/// freeze and kill it when the lease ends.
#[test]
fn writer_server_level_and_permit_come_in_this_order() {
    let mut fixture = Fixture::new(Members::OnlyA);
    fixture.event(right(true));
    fixture.read(document(NodeId::A));
    let actions = fixture.settled();
    let mine = dyad_mirror::Event::Writer { volume: DISK, writer: Writer::Me };
    let order = [
        position(&actions, |action| *action == Action::Mirror(mine.clone())),
        position(&actions, |action| *action == Action::StartServer { volume: DISK, size: 1 << 20 }),
        position(&actions, |action| *action == Action::Quorum(dyad_quorum::Event::VmsRunning(true))),
        position(&actions, |action| *action == Action::AllowStarts { kills: 0 }),
        position(&actions, |action| *action == Action::Permitted("web".into())),
    ];
    assert!(order.is_sorted(), "{actions:?}");
    assert_eq!(fixture.permits(), ["web"]);
}

#[test]
fn a_vm_without_the_server_of_its_disk_is_not_permitted_and_the_server_is_asked_for_again() {
    let mut fixture = Fixture::new(Members::OnlyA);
    fixture.event(right(true));
    fixture.read(document(NodeId::A));
    for _ in 0..2 {
        let mut actions = Vec::new();
        fixture.placement.settle_access(fixture.now, &fixture.mirror, &mut actions);
        assert!(actions.contains(&Action::StartServer { volume: DISK, size: 1 << 20 }));
        let local = LocalState { now: fixture.now, mirror: &fixture.mirror, vms_exist: false, watchdog_test: false };
        fixture.placement.settle_permits(&local, &mut actions);
        assert!(fixture.permits().is_empty());
    }
}

/// The peer may still take itself for the writer: it would end the session at the first write.
#[test]
fn a_volume_of_the_peer_is_written_only_when_the_peer_knows_the_document() {
    let mut fixture = Fixture::with_web(Members::Both, NodeId::B);
    assert_eq!(fixture.placement.writer_of(DISK), Some(Writer::Peer));
    let moved = dyad_desired::fail_over(&document(NodeId::B), NodeId::A);
    let generation = moved.generation;
    fixture.read(moved);
    fixture.settle();
    fixture.event(Event::PeerKnows { generation: generation - 1 });
    fixture.settle();
    assert_eq!((fixture.placement.writer_of(DISK), fixture.permits().len()), (Some(Writer::None), 0));
    fixture.event(Event::PeerKnows { generation });
    fixture.settle();
    assert_eq!((fixture.placement.writer_of(DISK), fixture.permits()), (Some(Writer::Me), vec!["web"]));
    // What was once handed over stays so, whatever the next session knows.
    fixture.event(Event::SessionUp);
    fixture.settle();
    assert_eq!(fixture.placement.writer_of(DISK), Some(Writer::Me));
}

/// In the next session the peer may be another run of its daemon, which has not read the document yet.
#[test]
fn what_the_peer_knew_in_an_earlier_session_does_not_count() {
    let mut fixture = Fixture::with_web(Members::Both, NodeId::B);
    let moved = dyad_desired::fail_over(&document(NodeId::B), NodeId::A);
    let generation = moved.generation;
    fixture.event(Event::SessionUp);
    fixture.event(Event::PeerKnows { generation });
    fixture.event(Event::SessionDown);
    fixture.event(Event::SessionUp);
    fixture.read(moved);
    fixture.settle();
    assert_eq!(fixture.placement.writer_of(DISK), Some(Writer::None));
    fixture.event(Event::PeerKnows { generation });
    fixture.settle();
    assert_eq!(fixture.placement.writer_of(DISK), Some(Writer::Me));
}

#[test]
fn a_handover_waits_neither_for_a_lost_peer_nor_longer_than_three_seconds() {
    let moved = || dyad_desired::fail_over(&document(NodeId::B), NodeId::A);
    let mut alone = Fixture::with_web(Members::OnlyA, NodeId::B);
    alone.read(moved());
    alone.settle();
    assert_eq!(alone.permits(), ["web"]);
    let mut waiting = Fixture::with_web(Members::Both, NodeId::B);
    waiting.read(moved());
    for (passed, permits) in [(0, 0), (3 * SECOND - 1, 0), (1, 1)] {
        waiting.now = waiting.now + passed;
        waiting.settle();
        assert_eq!(waiting.permits().len(), permits, "after {passed} ns more");
    }
}

/// A volume that the document before did not name was made for this node: the peer has never written it.
#[test]
fn a_new_volume_is_written_at_once() {
    let mut fixture = Fixture::with_web(Members::Both, NodeId::B);
    let create = Change::CreateVolume { name: "new".into(), size: 1 << 20, primary: NodeId::A };
    fixture.read(apply(&document(NodeId::B), &create).unwrap());
    fixture.settle();
    assert_eq!(fixture.placement.writer_of(VolumeId(2)), Some(Writer::Me));
}

/// A generation that this node has not read may have named the peer as the writer.
#[test]
fn a_volume_that_is_new_after_a_skipped_generation_is_waited_for_and_the_image_of_an_import_is_not() {
    let mut fixture = Fixture::with_web(Members::Both, NodeId::B);
    let create = |name: &str, primary| Change::CreateVolume { name: name.into(), size: 1 << 20, primary };
    let first = apply(&document(NodeId::B), &create("other", NodeId::A)).unwrap();
    let mut skipped = apply(&first, &create("new", NodeId::A)).unwrap();
    fixture.read(skipped.clone());
    fixture.settle();
    assert_eq!(fixture.placement.writer_of(VolumeId(3)), Some(Writer::None));
    fixture.event(Event::PeerKnows { generation: skipped.generation });
    fixture.settle();
    assert_eq!(fixture.placement.writer_of(VolumeId(3)), Some(Writer::Me));
    let changes = [Change::SetWitness { witness: None }, Change::BeginImport { name: "new".into() }];
    changes.iter().for_each(|change| skipped = apply(&skipped, change).unwrap());
    fixture.read(skipped);
    fixture.settle();
    assert_eq!(fixture.placement.writer_of(VolumeId(4)), Some(Writer::Me), "its first write comes at once");
}

#[test]
fn the_peer_is_told_each_generation_once_in_a_session() {
    let mut fixture = Fixture::with_web(Members::Both, NodeId::A);
    let told = |actions: Vec<Action>| actions.iter().filter(|action| matches!(action, Action::TellPeer { .. })).count();
    assert_eq!(told(fixture.settled()), 0, "no session is connected");
    for expected in [1, 0] {
        if expected == 1 {
            fixture.event(Event::SessionUp);
        }
        assert_eq!(told(fixture.settled()), expected);
    }
    fixture.event(Event::SessionDown);
    assert_eq!(told(fixture.settled()), 0);
    fixture.event(Event::SessionUp);
    assert_eq!(told(fixture.settled()), 1);
}

#[test]
fn a_newer_document_of_the_peer_is_read_and_a_known_one_is_not() {
    let mut fixture = Fixture::with_web(Members::Both, NodeId::A);
    let known = document(NodeId::A).generation;
    for (generation, read) in [(known, false), (known - 1, false), (known + 1, true)] {
        fixture.actions.clear();
        fixture.event(Event::PeerKnows { generation });
        assert_eq!(fixture.actions.iter().any(|action| matches!(action, Action::ReadDocument { .. })), read);
    }
}

#[test]
fn the_quorum_thread_is_told_each_second_and_after_each_kill_whether_vms_may_exist() {
    let mut fixture = Fixture::with_web(Members::OnlyA, NodeId::A);
    for (passed, told) in [(0, vec![]), (SECOND - 1, vec![]), (1, vec![true]), (SECOND / 2, vec![])] {
        fixture.now = fixture.now + passed;
        fixture.settle();
        assert_eq!(fixture.vms_told(), told, "after {passed} ns more");
    }
    fixture.event(Event::Killing);
    fixture.settle();
    assert_eq!(fixture.vms_told(), [false]);
    fixture.vms_exist = true;
    fixture.settle();
    assert_eq!(fixture.vms_told(), [true], "a launcher was late");
}

/// A right that was judged before the kill says nothing about the time after it.
#[test]
fn killed_vms_are_permitted_again_only_by_a_newer_right_and_with_knowledge_of_the_kill() {
    let mut fixture = Fixture::with_web(Members::OnlyA, NodeId::A);
    fixture.event(Event::Killing);
    fixture.settle();
    assert!(fixture.permits().is_empty());
    fixture.event(right(true));
    assert!(fixture.settled().contains(&Action::AllowStarts { kills: 1 }));
    assert_eq!(fixture.permits(), ["web"]);
}

#[test]
fn a_pause_keeps_servers_and_permits_and_holds_the_requests() {
    let mut fixture = Fixture::with_web(Members::OnlyA, NodeId::A);
    fixture.event(Event::Freezing);
    fixture.event(right(false));
    fixture.settle();
    assert_eq!((fixture.permits(), fixture.placement.serves(DISK)), (vec!["web"], true));
    let holds = fixture.actions.iter().filter(|a| **a == Action::Mirror(dyad_mirror::Event::Hold)).count();
    assert_eq!(holds, 1);
    fixture.event(right(true));
    assert_eq!(fixture.actions.last(), Some(&Action::Mirror(dyad_mirror::Event::Resume)));
}

/// The pair may change the document while this node is away.
#[test]
fn a_document_of_an_earlier_stay_in_the_in_sync_set_decides_nothing() {
    let mut fixture = Fixture::with_web(Members::OnlyA, NodeId::A);
    let with = |members| Event::Config(Config { members, ..Config::first(NodeId::A, 7) });
    fixture.event(with(Members::OnlyB));
    assert_eq!(fixture.actions.first(), Some(&Action::EndServer(DISK)), "before the mirror refuses its requests");
    fixture.event(with(Members::Both));
    fixture.event(right(true));
    fixture.settle();
    assert!(fixture.permits().is_empty() && !fixture.placement.serves(DISK));
    fixture.read(document(NodeId::A));
    fixture.settle();
    assert!(fixture.permits().is_empty(), "it was read before this node left");
    fixture.event(Event::DocumentRead { document: document(NodeId::A), term: MembershipTerm(1) });
    fixture.event(Event::PeerKnows { generation: document(NodeId::A).generation });
    fixture.settle();
    assert_eq!(fixture.permits(), ["web"]);
}

#[test]
fn a_leaving_node_serves_nothing_until_the_leave_is_called_off() {
    let mut fixture = Fixture::with_web(Members::OnlyA, NodeId::A);
    fixture.event(Event::Leave);
    let Lifecycle::Leaving { begun, .. } = fixture.placement.lifecycle() else { panic!("it leaves") };
    fixture.event(right(true));
    fixture.settle();
    assert!(fixture.permits().is_empty() && !fixture.placement.serves(DISK));
    fixture.event(Event::TimedOut(Timer::Leave { begun: begun + 1 }));
    assert_ne!(fixture.placement.lifecycle(), Lifecycle::Running, "that was the timer of another leave");
    fixture.event(Event::TimedOut(Timer::Leave { begun }));
    assert!(fixture.actions.contains(&Action::Quorum(dyad_quorum::Event::CancelLeave)));
    assert!(fixture.actions.contains(&Action::LeaveEnded(LeaveEnd::TimedOut)));
    fixture.settle();
    assert_eq!(fixture.permits(), ["web"]);
}

/// A pool that failed stores nothing: the VMs of its node could not work.
#[test]
fn the_leave_of_a_failed_pool_is_never_called_off() {
    let mut fixture = Fixture::with_web(Members::OnlyA, NodeId::A);
    fixture.event(Event::Leave);
    let Lifecycle::Leaving { begun, .. } = fixture.placement.lifecycle() else { panic!("it leaves") };
    fixture.event(Event::PoolFailed);
    for event in [Event::LeaveDone, Event::CancelLeave, Event::TimedOut(Timer::Leave { begun }), right(true)] {
        fixture.event(event);
        fixture.settle();
        assert!(fixture.placement.lifecycle().pool_has_failed() && fixture.permits().is_empty());
    }
    assert!(!fixture.actions.contains(&Action::Quorum(dyad_quorum::Event::CancelLeave)));
}

#[test]
fn a_lone_node_opens_its_failed_pool_again_after_a_stable_run() {
    for (age, delay) in [(0, 61 * SECOND), (55 * SECOND, 10 * SECOND)] {
        let mut fixture = Fixture::with_web(Members::OnlyA, NodeId::A);
        fixture.now = fixture.now + age;
        fixture.event(Event::PoolFailed);
        assert!(fixture.actions.contains(&Action::After { delay, timer: Timer::HandOver }), "{:?}", fixture.actions);
        fixture.event(Event::TimedOut(Timer::HandOver));
        assert_eq!(fixture.actions.last(), Some(&Action::EndProcess));
    }
    let mut replaced = Fixture::with_web(Members::OnlyA, NodeId::A);
    replaced.event(Event::PoolFailed);
    replaced.event(Event::Config(Config { members: Members::OnlyB, ..Config::first(NodeId::A, 7) }));
    replaced.event(Event::TimedOut(Timer::HandOver));
    assert!(!replaced.actions.contains(&Action::EndProcess), "the other node has taken over");
}

#[test]
fn the_vms_of_a_lost_node_are_failed_over_once_its_fence_is_over() {
    let mut fixture = Fixture::with_web(Members::OnlyA, NodeId::B);
    let fail_over = Action::FailOver { survivor: NodeId::A };
    assert!(!fixture.settled().contains(&fail_over));
    fixture.event(Event::PeerVmsAllowed);
    assert_eq!(fixture.actions, std::slice::from_ref(&fail_over));
    assert!(!fixture.settled().contains(&fail_over), "it is under way");
    fixture.event(Event::FailOverDecided);
    assert!(!fixture.settled().contains(&fail_over), "it was refused just now");
    fixture.now = fixture.now + SECOND / 20;
    assert!(fixture.settled().contains(&fail_over));
}

/// Each loss of the peer has a fence of its own.
#[test]
fn the_permission_to_start_the_peers_vms_ends_when_the_peer_is_a_member_again() {
    let mut fixture = Fixture::with_web(Members::OnlyA, NodeId::A);
    fixture.event(Event::PeerVmsAllowed);
    for members in [Members::Both, Members::OnlyA] {
        fixture.event(Event::Config(Config { members, ..Config::first(NodeId::A, 7) }));
    }
    fixture.read(dyad_desired::fail_over(&document(NodeId::A), NodeId::B));
    let fail_over = Action::FailOver { survivor: NodeId::A };
    assert!(!fixture.settled().contains(&fail_over));
    fixture.event(Event::PeerVmsAllowed);
    assert!(fixture.actions.contains(&fail_over), "{:?}", fixture.actions);
}

/// A peer that is reported clean may become a member at any moment and start the VMs that the document places on it.
#[test]
fn a_clean_peer_is_reported_after_the_fail_over_only() {
    let (clean, dirty) = (Action::Quorum(dyad_quorum::Event::PeerClean), Action::Quorum(dyad_quorum::Event::PeerDirty));
    let mut fixture = Fixture::with_web(Members::OnlyA, NodeId::B);
    fixture.event(Event::PeerVmsAllowed);
    fixture.event(Event::PeerClean);
    assert!(!fixture.actions.contains(&clean));
    fixture.event(Event::FailOverDecided);
    assert!(fixture.actions.contains(&clean));
    fixture.now = fixture.now + SECOND;
    assert!(!fixture.settled().contains(&Action::FailOver { survivor: NodeId::A }), "the peer may start them");
    // A deferred report is dropped if the peer is dirty again: the quorum machine has not got it.
    let mut fixture = Fixture::with_web(Members::OnlyA, NodeId::B);
    fixture.event(Event::PeerVmsAllowed);
    fixture.event(Event::PeerClean);
    fixture.event(Event::PeerDirty);
    fixture.event(Event::FailOverDecided);
    assert!(!fixture.actions.contains(&clean) && !fixture.actions.contains(&dirty));
}

/// Otherwise the VMs of a node that returns before the end of its fence would run nowhere until it is a member again: 5 s, or
/// 60 s if it was lost often.
#[test]
fn a_peer_that_is_clean_before_the_end_of_its_fence_is_reported_after_the_fail_over() {
    let clean = Action::Quorum(dyad_quorum::Event::PeerClean);
    let until = |fixture: &Fixture| Some(fixture.now + 4 * SECOND);
    let mut fixture = Fixture::with_web(Members::OnlyA, NodeId::B);
    let peer_fence_until = until(&fixture);
    fixture.event(Event::RightToRun(RightToRun { may_run: true, peer_fence_until }));
    fixture.event(Event::PeerClean);
    assert!(!fixture.settled().contains(&clean));
    fixture.event(Event::PeerVmsAllowed);
    assert!(fixture.actions.contains(&Action::FailOver { survivor: NodeId::A }));
    // A change that was refused defers the report no longer.
    fixture.event(Event::FailOverDecided);
    assert!(fixture.actions.contains(&clean));

    // A fence without an end, and a peer without VMs and volumes, defer nothing.
    let mut fixture = Fixture::with_web(Members::OnlyA, NodeId::B);
    fixture.event(Event::PeerClean);
    assert!(fixture.actions.contains(&clean));
    let mut fixture = Fixture::with_web(Members::OnlyA, NodeId::A);
    let peer_fence_until = until(&fixture);
    fixture.event(Event::RightToRun(RightToRun { may_run: true, peer_fence_until }));
    fixture.event(Event::PeerClean);
    assert!(fixture.actions.contains(&clean));
}

#[test]
fn a_vm_of_a_lost_node_is_not_deleted_before_the_fail_over() {
    let mut fixture = Fixture::with_web(Members::OnlyA, NodeId::B);
    let until = fixture.now + 4 * SECOND + 1;
    fixture.event(Event::RightToRun(RightToRun { may_run: true, peer_fence_until: Some(until) }));
    let refusal = |fixture: &Fixture, change: &Change, asking| {
        fixture.placement.refuse_change(fixture.now, change, asking, |_| false)
    };
    let delete = Change::DeleteVm { name: "web".into(), node: NodeId::B, changed: 4 };
    let fenced = Some(ChangeRefusal::PeerFence { node: NodeId::B, seconds: 5 });
    assert_eq!(refusal(&fixture, &delete, NodeId::A), fenced);
    for change in [Change::DeleteVolume { name: "disk".into() }, Change::BeginImport { name: "disk".into() }] {
        assert_eq!(refusal(&fixture, &change, NodeId::A), fenced);
    }
    fixture.event(right(true));
    assert_eq!(refusal(&fixture, &delete, NodeId::A), Some(ChangeRefusal::NoProof { node: NodeId::B }));
    let both = Fixture::with_web(Members::Both, NodeId::B);
    let other = ChangeRefusal::OtherNode { vm: "web".into(), node: NodeId::B };
    assert_eq!(refusal(&both, &delete, NodeId::A), Some(other));
    assert_eq!(refusal(&both, &delete, NodeId::B), None, "its own node has looked");
    let fail_over = Change::FailOver { survivor: NodeId::A };
    assert_eq!(refusal(&both, &fail_over, NodeId::A), Some(ChangeRefusal::NotForClients));
    let mine = Fixture::with_web(Members::Both, NodeId::A);
    let delete = Change::DeleteVm { name: "web".into(), node: NodeId::A, changed: 4 };
    let running = mine.placement.refuse_change(mine.now, &delete, NodeId::A, |vm| vm == "web");
    assert_eq!(running, Some(ChangeRefusal::VmRunning { vm: "web".into() }));
}

/// Number 1 was given out and is named no more; number 2 was not given out yet: its volume is just being made.
#[test]
fn only_the_lead_deletes_and_only_volumes_whose_number_was_given_out() {
    let deletions = |fixture: &mut Fixture| {
        let is_deletion = |action: &Action| matches!(action, Action::DeleteOrphan(_));
        fixture.settled().into_iter().filter(is_deletion).collect::<Vec<_>>()
    };
    let mut fixture = Fixture::new(Members::Both);
    let info = |id| VolumeInfo { id: VolumeId(id), size: 1 << 20, last: Stamp::default() };
    let inventory = Inventory { volumes: vec![info(0), info(1), info(2)], dirty: Vec::new() };
    fixture.mirror = Mirror::new(fixture.now, Tuning::default(), inventory);
    let mut without = document(NodeId::A);
    without.vms.clear();
    without.volumes.clear();
    fixture.event(Event::Config(Config { lead: NodeId::B, members: Members::Both, ..Config::first(NodeId::A, 7) }));
    fixture.read(without.clone());
    assert_eq!(deletions(&mut fixture), []);
    fixture.event(Event::Config(Config { members: Members::Both, ..Config::first(NodeId::A, 7) }));
    fixture.read(without);
    assert_eq!(deletions(&mut fixture), [Action::DeleteOrphan(DISK)]);
    assert_eq!(deletions(&mut fixture), [], "one at a time");
    fixture.event(Event::OrphanDeleted { deleted: false });
    assert_eq!(deletions(&mut fixture), [], "it was refused just now");
    fixture.now = fixture.now + SECOND;
    assert_eq!(deletions(&mut fixture), [Action::DeleteOrphan(DISK)]);
}

#[test]
fn an_import_that_does_not_run_here_any_more_is_dropped() {
    let mut fixture = Fixture::new(Members::OnlyA);
    let mut import = document(NodeId::A);
    import.vms.clear();
    let import = apply(&import, &Change::BeginImport { name: "disk".into() }).unwrap();
    let drop_import = Action::DropImport { name: "disk".into(), id: VolumeId(2) };
    assert!(fixture.placement.begin_import("disk") && !fixture.placement.begin_import("disk"));
    fixture.read(import);
    assert!(!fixture.settled().contains(&drop_import));
    fixture.placement.end_import("disk");
    assert!(fixture.settled().contains(&drop_import));
    assert!(!fixture.settled().contains(&drop_import), "once a second");
}
