//! The state thread of `dyad-core` on one node: it passes events between the shipped mirror, the shipped placement and the
//! threads beside them. What it lacks is what only people see: control socket, status, timeline, pairing.

use crate::guests::GuestResult;
use crate::machine::VmIndex;
use crate::options::PlantedBug;
use crate::quorum_thread::QuorumUpdate;
use crate::world::{DaemonJob, World};
use dyad_desired::Change;
use dyad_mirror::{Action, Event, GuestError, GuestOp, Mirror, Reason, RequestId, VolumeChange};
use dyad_placement::{ChangeTicket, DocumentRequest, DocumentTask, LocalState, Mutants, Placement};
use dyad_quorum::{self as quorum, Config, MS, SEC};
use dyad_types::{BootTime, NodeId, VolumeId};
use std::collections::{BTreeMap, VecDeque};

/// Share of device servers that cannot be started at the first attempt, of a thousand.
const FAILED_SERVER_PERMILLE: u64 = 50;

/// The receiver of the result of a request to the mirror.
#[derive(Debug, Clone)]
pub(crate) enum ReplyReceiver {
    /// A guest's request with this id.
    Guest(VmIndex, RequestId),
    /// The document's task.
    Documents,
    /// The garbage collection.
    VolumeGc,
    /// The setup of the pair.
    SetUp,
    /// The volume that fills the pools.
    Filler,
}

/// The consequence of the decision of a change of the document.
#[derive(Debug, Clone)]
pub(crate) enum Pending {
    /// The fail-over of placement.
    FailOver,
    /// An operator waits for it.
    Operator(VmIndex, Change),
    /// An operator waits for the creation of a volume which is deleted again.
    Scratch(Change),
    /// The peer has passed it on.
    ForwardedByPeer(ChangeTicket),
    /// Nothing follows from it.
    Nothing,
}

/// The state thread and the document's task.
pub struct CoreModel {
    pub mirror: Mirror,
    pub placement: Placement,
    placement_actions: VecDeque<dyad_placement::Action>,
    carries_out: bool,
    pub(crate) documents: DocumentTask,
    /// The newest generation of the document that was decided when the present read of it began.
    pub(crate) decided_before_read: u64,
    /// The receivers of the results that the mirror has not given.
    receivers: BTreeMap<RequestId, ReplyReceiver>,
    last_request: RequestId,
    /// Changes of the document that are not decided.
    pending: BTreeMap<ChangeTicket, Pending>,
    /// Those of them that the peer decides.
    forwarded: Vec<ChangeTicket>,
    last_ticket: u64,
    /// Events for the mirror that arose while it handled another one.
    queued_events: VecDeque<Event>,
    /// The mirror handles an event.
    handles_event: bool,
}

impl CoreModel {
    pub fn new(me: NodeId, mirror: Mirror, config: Config, now: BootTime, mutants: Mutants) -> Self {
        Self {
            mirror,
            placement: Placement::new(me, config, None, now).with_mutants(mutants),
            placement_actions: VecDeque::new(),
            carries_out: false,
            documents: DocumentTask::with_mutants(mutants),
            decided_before_read: 0,
            receivers: BTreeMap::new(),
            last_request: RequestId::default(),
            pending: BTreeMap::new(),
            forwarded: Vec::new(),
            // As in the daemon, tickets differ in each run.
            last_ticket: now.0,
            queued_events: VecDeque::new(),
            handles_event: false,
        }
    }

    /// Whether the mirror has an unanswered request of this VM that is not in `open`.
    pub fn serves_other_than<T>(&self, vm: VmIndex, open: &BTreeMap<RequestId, T>) -> bool {
        let others = |receiver: &ReplyReceiver| match receiver {
            ReplyReceiver::Guest(of, req) => *of == vm && !open.contains_key(req),
            _ => false,
        };
        self.receivers.values().any(others)
    }

    fn has_request(&self, vm: VmIndex, req: RequestId) -> bool {
        self.receivers
            .values()
            .any(|receiver| matches!(receiver, ReplyReceiver::Guest(of, open) if (*of, *open) == (vm, req)))
    }

    pub fn idle(&self) -> bool {
        self.receivers.is_empty()
            && self.pending.is_empty()
            && self.documents.is_idle()
            && self.mirror.open_requests() == 0
    }
}

impl World {
    pub(crate) fn core_model(&mut self, node: usize) -> Option<&mut CoreModel> {
        self.nodes[node].core.as_mut().map(|core| &mut core.model)
    }

    pub(crate) fn start_core_model(&mut self, node: usize) {
        let mut actions = Vec::new();
        if let Some(model) = self.core_model(node) {
            model.placement.begin(&mut actions);
        }
        self.carry_out_placement(node, actions);
        self.schedule_job(node, 1000, DaemonJob::CoreTick);
    }

    /// Gives the mirror an event and carries out its actions. All actions of one event are carried out before the next
    /// event is given; otherwise messages would be sent in another order than the mirror numbered them.
    pub(crate) fn mirror(&mut self, node: usize, event: Event) {
        let Some(model) = self.core_model(node) else { return };
        model.queued_events.push_back(event);
        if std::mem::replace(&mut model.handles_event, true) {
            return;
        }
        while let Some(event) = self.core_model(node).and_then(|model| model.queued_events.pop_front()) {
            self.feed_mirror(node, event);
        }
        if let Some(model) = self.core_model(node) {
            model.handles_event = false;
        }
        self.on_steady();
    }

    fn feed_mirror(&mut self, node: usize, event: Event) {
        let clock = self.nodes[node].clock(self.now);
        let mut actions = Vec::new();
        let Some(model) = self.core_model(node) else { return };
        let before = model.mirror.phase();
        model.mirror.handle(clock, event, &mut actions);
        let after = model.mirror.phase();
        if before != after {
            self.log_line(node, format!("mirror {before:?} -> {after:?}"));
        }
        for action in actions {
            self.carry_out_mirror_action(node, action);
        }
    }

    fn carry_out_mirror_action(&mut self, node: usize, action: Action) {
        match action {
            Action::Store { op, command } => self.store_command(node, op, command),
            Action::Send(message) => self.send_message(node, message),
            Action::Complete { req, result } => self.on_mirror_reply(node, req, result),
            Action::Disconnect(reason) => {
                self.log_line(node, format!("disconnect: {reason}"));
                if matches!(reason, Reason::MissingMessage | Reason::Protocol | Reason::TwoWriters) {
                    self.report_violation(format!("node {node} ended its session: {reason}"));
                }
                self.close_session(node);
            }
            Action::PeerStuck => {
                self.count_event("peer stuck");
                self.log_line(node, "peer stuck".into());
                let session = self.nodes[node].core.as_ref().and_then(|core| core.session);
                let session_is_old = session.is_some() && self.now >= self.link.session_since + 3 * SEC;
                if self.options.planted_bug == Some(PlantedBug::StuckNeedsSession) && !session_is_old {
                    return;
                }
                self.tell_quorum_thread(node, quorum::Event::PeerStuck);
            }
            Action::StorageStuck => {
                self.count_event("storage stuck");
                self.log_line(node, "storage stuck".into());
                if self.options.planted_bug == Some(PlantedBug::NoStorageReport) {
                    return;
                }
                self.tell_quorum_thread(node, quorum::Event::StorageStuck);
            }
            Action::StorageAnswers => self.tell_quorum_thread(node, quorum::Event::StorageAnswers),
            Action::PeerClean => {
                self.count_event("resyncs");
                self.log_line(node, "the peer is clean".into());
                let peer = &mut self.nodes[1 - node];
                peer.clean_in_boot = peer.boots;
                self.place(node, dyad_placement::Event::PeerClean);
            }
            Action::PeerDirty => {
                self.log_line(node, "the peer is dirty".into());
                self.place(node, dyad_placement::Event::PeerDirty);
            }
            Action::Faulty { error } => self.on_failed_pool(node, &error),
            Action::Lost { volume, extent, .. } => {
                self.count_event("lost extents");
                self.check_lost(node, volume, extent);
            }
            Action::Healed { .. } => self.count_event("heals"),
            Action::Unreadable { .. } => self.count_event("unreadable"),
            Action::VolumesChanged => self.place(node, dyad_placement::Event::ReadDocument),
            Action::Progress(progress) => {
                if progress.left == 0 {
                    let copied = progress.copied;
                    *self.result.events.entry("bytes copied").or_default() += copied;
                }
            }
            Action::NewerEpoch(_) | Action::Drained { .. } | Action::Full { .. } => {}
        }
    }

    fn on_mirror_reply(&mut self, node: usize, req: RequestId, result: GuestResult) {
        let Some(model) = self.core_model(node) else { return };
        match model.receivers.remove(&req) {
            Some(ReplyReceiver::Guest(vm, guest_req)) => {
                if result == Err(GuestError::Corrupt) {
                    self.check_unreadable(node, vm, guest_req);
                }
                let delay = self.prng.within(1_000..40_000);
                self.schedule_job(node, delay, DaemonJob::GuestReply(vm, guest_req, result));
            }
            Some(ReplyReceiver::Documents) => self.document_result(node, result),
            Some(ReplyReceiver::VolumeGc) => {
                let deleted = result.is_ok();
                self.count_event("orphaned volumes deleted");
                self.schedule_job(node, 0, DaemonJob::Placement(dyad_placement::Event::OrphanDeleted { deleted }));
            }
            Some(ReplyReceiver::Filler) => self.filler_answered(&result),
            Some(ReplyReceiver::SetUp) | None => {}
        }
    }

    /// A disk refused a request: as in the daemon, the node hands over, and has no session meanwhile.
    fn on_failed_pool(&mut self, node: usize, error: &dyad_mirror::StoreError) {
        if self.pool_works(node) {
            return self.report_violation(format!("node {node} is faulty, and its disk is well: {error}"));
        }
        let Some(model) = self.core_model(node) else { return };
        if !model.placement.lifecycle().pool_has_failed() {
            self.count_event("pools failed");
            self.log_line(node, format!("the pool has failed: {error}"));
            self.close_session(node);
            self.place(node, dyad_placement::Event::PoolFailed);
            // The daemon settles after each batch of events.
            self.schedule_job(node, 0, DaemonJob::Settle);
        }
    }

    /// Gives the mirror a request to a volume that no guest has sent.
    pub(crate) fn send_volume_request(&mut self, node: usize, receiver: ReplyReceiver, volume: VolumeId, op: GuestOp) {
        let Some(model) = self.core_model(node) else { return };
        let req = model.last_request.advance();
        model.receivers.insert(req, receiver);
        self.mirror(node, Event::Guest { req, volume, op });
    }

    /// Gives the mirror a request, or a change of the volume table, of the daemon itself.
    pub(crate) fn send_own_request(&mut self, node: usize, receiver: ReplyReceiver, request: OwnRequest) {
        let Some(model) = self.core_model(node) else { return };
        let req = model.last_request.advance();
        model.receivers.insert(req, receiver);
        self.mirror(
            node,
            match request {
                OwnRequest::Volume(op) => Event::Guest { req, volume: VolumeId::DOCUMENT, op },
                OwnRequest::VolumeTable(change) => Event::Volume { req, change },
            },
        );
    }

    /// Handles a guest's request that has reached the daemon. A request that is under way already is ignored.
    pub(crate) fn take_request(&mut self, node: usize, vm: VmIndex, req: RequestId, op: GuestOp) {
        let Some(volume) = self.volume_id(node, vm) else { return };
        let Some(model) = self.core_model(node) else { return };
        if model.placement.serves(volume) && !model.has_request(vm, req) {
            let mirror_req = model.last_request.advance();
            model.receivers.insert(mirror_req, ReplyReceiver::Guest(vm, req));
            self.mirror(node, Event::Guest { req: mirror_req, volume, op });
        }
    }

    pub(crate) fn apply_quorum_update(&mut self, node: usize, update: QuorumUpdate) {
        let event = match update {
            QuorumUpdate::Config(config) => dyad_placement::Event::Config(config),
            QuorumUpdate::AckSet(members, reports) => dyad_placement::Event::AckSet { members, reports },
            QuorumUpdate::Hold => dyad_placement::Event::Freezing,
            QuorumUpdate::Killing => dyad_placement::Event::Killing,
            QuorumUpdate::PeerVmsAllowed => dyad_placement::Event::PeerVmsAllowed,
            QuorumUpdate::LeaveDone => dyad_placement::Event::LeaveDone,
            QuorumUpdate::Right(right) => dyad_placement::Event::RightToRun(right),
        };
        self.place(node, event);
        self.settle_core_model(node);
    }

    /// Passes an event to placement and carries out its actions.
    pub(crate) fn place(&mut self, node: usize, event: dyad_placement::Event) {
        let clock = self.nodes[node].clock(self.now);
        let Some(model) = self.core_model(node) else { return };
        let mut actions = Vec::new();
        model.placement.handle(clock, event, &mut actions);
        self.carry_out_placement(node, actions);
    }

    /// Derives from the state what must follow from it, as the daemon does after each batch of events.
    pub(crate) fn settle_core_model(&mut self, node: usize) {
        let clock = self.nodes[node].clock(self.now);
        let Some(model) = self.core_model(node) else { return };
        let mut actions = Vec::new();
        model.placement.settle_access(clock, &model.mirror, &mut actions);
        self.carry_out_placement(node, actions);
        let vms_exist = self.nodes[node].has_vms();
        let Some(core) = &mut self.nodes[node].core else { return };
        let model = &mut core.model;
        let local = LocalState { now: clock, mirror: &model.mirror, vms_exist, watchdog_test: false };
        let mut actions = Vec::new();
        model.placement.settle_permits(&local, &mut actions);
        self.carry_out_placement(node, actions);
    }

    fn carry_out_placement(&mut self, node: usize, actions: Vec<dyad_placement::Action>) {
        let Some(model) = self.core_model(node) else { return };
        model.placement_actions.extend(actions);
        if std::mem::replace(&mut model.carries_out, true) {
            return;
        }
        while let Some(action) = self.core_model(node).and_then(|model| model.placement_actions.pop_front()) {
            self.carry_out_placement_action(node, action);
        }
        if let Some(model) = self.core_model(node) {
            model.carries_out = false;
        }
    }

    fn carry_out_placement_action(&mut self, node: usize, action: dyad_placement::Action) {
        use dyad_placement::Action as A;
        match action {
            A::Mirror(event) => self.mirror(node, event),
            A::Quorum(event) => self.tell_quorum_thread(node, event),
            A::StartServer { volume, .. } => {
                if !self.prng.chance(FAILED_SERVER_PERMILLE) {
                    self.place(node, dyad_placement::Event::ServerStarted(volume));
                    self.resubmit(node, volume);
                }
            }
            // The guest gets no answer to a request that the server had taken.
            A::EndServer(volume) => self.forget_requests(node, volume),
            A::AllowStarts { kills } => {
                self.send_cgroup_command(node, dyad_placement::CgroupCommand::AllowStarts { kills });
            }
            A::Permitted(vm) => self.log_line(node, format!("{vm} is permitted")),
            A::TellPeer { generation } => {
                self.send_to_peer_core(node, |session| DaemonJob::PeerKnows { session, generation });
            }
            A::ReadDocument { lead, term } => self.ask_documents(node, DocumentRequest::Reload { lead, term }),
            A::FailOver { survivor } => {
                self.count_event("fail-overs");
                self.log_line(node, "fail-over".into());
                self.change(node, Change::FailOver { survivor }, Pending::FailOver);
            }
            A::DropImport { name, id } => self.change(node, Change::DropImport { name, id }, Pending::Nothing),
            A::DeleteOrphan(id) => {
                let request = OwnRequest::VolumeTable(VolumeChange::Delete { id });
                self.send_own_request(node, ReplyReceiver::VolumeGc, request);
            }
            A::After { delay, timer } => {
                self.schedule_job(node, delay, DaemonJob::Placement(dyad_placement::Event::TimedOut(timer)));
            }
            A::LeaveEnded(end) => self.leave_ended(node, end),
            A::EndProcess => {
                let failed = |model: &mut CoreModel| model.placement.lifecycle().pool_has_failed();
                if !self.core_model(node).is_some_and(failed) {
                    self.report_violation(format!("node {node} ends its process although its pool works"));
                }
                self.count_event("failed pools opened again");
                self.kill_core(node);
            }
        }
    }

    /// The volume of this VM, as this node knows it.
    pub(crate) fn volume_id(&self, node: usize, vm: VmIndex) -> Option<VolumeId> {
        let model = &self.nodes[node].core.as_ref()?.model;
        Some(model.placement.document().newest()?.volumes.get(&vm.disk())?.id)
    }

    fn forget_requests(&mut self, node: usize, volume: VolumeId) {
        let of_volume = |vm: &VmIndex| crate::guests::volume(*vm) == volume;
        let Some(model) = self.core_model(node) else { return };
        model.receivers.retain(|_, receiver| !matches!(receiver, ReplyReceiver::Guest(vm, _) if of_volume(vm)));
    }

    pub(crate) fn core_tick(&mut self, node: usize) {
        self.schedule_job(node, 100 * MS, DaemonJob::CoreTick);
        self.mirror(node, Event::Tick);
        self.settle_core_model(node);
    }

    /// Has a change of the document decided: here if this node leads, else by the peer.
    pub(crate) fn change(&mut self, node: usize, change: Change, pending: Pending) {
        let connected = self.nodes[node].core.as_ref().is_some_and(|core| core.session.is_some());
        let asked_at = self.nodes[node].clock(self.now);
        let Some(model) = self.core_model(node) else { return };
        model.last_ticket += 1;
        let ticket = ChangeTicket(model.last_ticket);
        model.pending.insert(ticket, pending);
        if model.placement.lifecycle().pool_has_failed() {
            self.schedule_job(node, 0, DaemonJob::ChangeDone(ticket, false));
        } else if model.placement.leads() {
            self.ask_documents(node, DocumentRequest::Change { change, ticket, asked_at });
        } else if connected {
            model.forwarded.push(ticket);
            self.send_to_peer_core(node, |session| DaemonJob::PeerChange { session, ticket, change });
        } else {
            self.schedule_job(node, 0, DaemonJob::ChangeDone(ticket, false));
        }
    }

    /// Has a change decided that the peer passed on, because this node leads.
    pub(crate) fn peer_asks_change(&mut self, node: usize, ticket: ChangeTicket, change: Change) {
        let peer = self.nodes[1 - node].id;
        let now = self.nodes[node].clock(self.now);
        let Some(model) = self.core_model(node) else { return };
        let refused =
            !model.placement.leads() || model.placement.refuse_change(now, &change, peer, |_| false).is_some();
        if refused {
            self.send_to_peer_core(node, |session| DaemonJob::PeerDecided { session, ticket, made: false });
        } else {
            self.change(node, change, Pending::ForwardedByPeer(ticket));
        }
    }

    /// Takes the decision of the peer, which leads: the document is read before it counts.
    pub(crate) fn peer_has_decided(&mut self, node: usize, ticket: ChangeTicket, made: bool) {
        let Some(model) = self.core_model(node) else { return };
        let Some(at) = model.forwarded.iter().position(|forwarded| *forwarded == ticket) else { return };
        model.forwarded.remove(at);
        self.place(node, dyad_placement::Event::ReadDocument);
        if made {
            self.ask_documents(node, DocumentRequest::Confirm { ticket });
        } else {
            self.schedule_job(node, 0, DaemonJob::ChangeDone(ticket, false));
        }
    }

    /// The changes that the peer has not answered are refused at the end of its session.
    pub(crate) fn drop_forwarded(&mut self, node: usize) {
        let Some(model) = self.core_model(node) else { return };
        for ticket in std::mem::take(&mut model.forwarded) {
            self.schedule_job(node, 0, DaemonJob::ChangeDone(ticket, false));
        }
    }

    /// Carries out what follows from the decision of a change.
    pub(crate) fn change_done(&mut self, node: usize, ticket: ChangeTicket, made: bool) {
        let Some(model) = self.core_model(node) else { return };
        match model.pending.remove(&ticket) {
            Some(Pending::FailOver) => self.place(node, dyad_placement::Event::FailOverDecided),
            Some(Pending::Operator(vm, change)) => self.operator_answered(node, vm, &change, made),
            Some(Pending::Scratch(change)) => self.scratch_volume_answered(node, change, made),
            Some(Pending::ForwardedByPeer(ticket)) => {
                self.send_to_peer_core(node, |session| DaemonJob::PeerDecided { session, ticket, made });
            }
            Some(Pending::Nothing) | None => {}
        }
        self.settle_core_model(node);
    }
}

/// A request of the daemon itself to the mirror.
#[derive(Debug, Clone)]
pub(crate) enum OwnRequest {
    /// A request to volume 0.
    Volume(GuestOp),
    /// A volume is made or deleted on every in-sync node.
    VolumeTable(VolumeChange),
}
