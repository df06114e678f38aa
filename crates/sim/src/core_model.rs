//! A model of `dyad-core`'s state on one node: mirror, document, writers, permits.
//!
//! It repeats rules of `dyad_core::CoreState` and does not run that code, so a bug there is not found here. It is to be
//! replaced by the shipped code; until then, a change of the rules there must be made here as well.

use crate::document::Document;
use crate::guests::volume;
use crate::machine::{VMS, VmIndex};
use crate::options::PlantedBug;
use crate::quorum_thread::QuorumUpdate;
use crate::world::{DaemonJob, FutureEvent, World};
use dyad_mirror::{Action, Event, GuestOp, GuestReply, Mirror, Reason, RequestId, Writer};
use dyad_quorum::{self as quorum, Config, MS, Members, SEC};
use dyad_replica::{Readmission, view};
use dyad_types::{NodeId, VolumeId};
use std::collections::{BTreeMap, VecDeque};

/// The first id for requests of the daemon itself. Ids of guests' requests are lower.
const FIRST_OWN_REQUEST: RequestId = RequestId(1 << 48);

/// The purpose of a request of the daemon itself.
#[derive(Debug, Clone)]
pub(crate) enum OwnRequest {
    /// Read the document.
    Read,
    /// Write this document to volume 0.
    Write(Document),
    /// Flush this document, which is written.
    Flush(Document),
    /// Create a volume.
    Create,
}

/// The model of `CoreState`.
pub struct CoreModel {
    pub mirror: Mirror,
    /// The newest configuration that the quorum thread has announced.
    pub(crate) config: Config,
    /// The newest acknowledgement set that the quorum thread has announced.
    ack_set: Members,
    readmission: Readmission,
    /// The document in force; `None` until it is read after the node entered the in-sync set.
    pub document: Option<Document>,
    /// Requests of the daemon itself that the mirror has not answered.
    pub(crate) own_requests: BTreeMap<RequestId, OwnRequest>,
    pub(crate) next_own_request: RequestId,
    /// Requests of guests that the mirror has not answered.
    guest_requests: BTreeMap<RequestId, VmIndex>,
    /// By volume: the writer that the mirror was last told.
    writers: [Writer; VMS + 1],
    /// By VM: whether it may run here.
    pub permits: [bool; VMS],
    /// The node has had the right to run since it became a member and since its VMs were last killed. Then volumes are
    /// served.
    serving: bool,
    /// The fence of the peer is over.
    pub(crate) peer_vms_allowed: bool,
    /// The newest `VmsRunning` that the quorum thread was told.
    vms_reported: bool,
    /// The mirror holds guests' requests.
    held: bool,
    /// Events for the mirror that arose while it handled another one.
    queued_events: VecDeque<Event>,
    /// The mirror handles an event.
    handles_event: bool,
    /// The VM that an operator moves, and its new node.
    pub moving: Option<(VmIndex, NodeId)>,
}

impl CoreModel {
    pub fn new(mirror: Mirror, config: Config, vms_reported: bool) -> Self {
        Self {
            mirror,
            ack_set: config.members,
            config,
            readmission: Readmission::default(),
            document: None,
            own_requests: BTreeMap::new(),
            next_own_request: FIRST_OWN_REQUEST,
            guest_requests: BTreeMap::new(),
            writers: [Writer::None; VMS + 1],
            permits: [false; VMS],
            serving: false,
            peer_vms_allowed: false,
            vms_reported,
            held: true,
            queued_events: VecDeque::new(),
            handles_event: false,
            moving: None,
        }
    }

    /// Whether the mirror has an unanswered request of this VM that is not in `open`.
    pub fn serves_other_than<T>(&self, vm: VmIndex, open: &BTreeMap<RequestId, T>) -> bool {
        self.guest_requests.iter().any(|(req, of)| *of == vm && !open.contains_key(req))
    }

    pub fn idle(&self) -> bool {
        self.own_requests.is_empty() && self.guest_requests.is_empty() && self.mirror.open_requests() == 0
    }
}

impl World {
    pub(crate) fn core_model(&mut self, node: usize) -> Option<&mut CoreModel> {
        self.nodes[node].core.as_mut().map(|core| &mut core.model)
    }

    pub(crate) fn start_core_model(&mut self, node: usize) {
        self.send_view(node);
        self.mirror(node, Event::Hold);
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
                let session = self.nodes[node].core.as_ref().and_then(|core| core.session);
                let session_is_old = session.is_some() && self.now >= self.link.session_since + 3 * SEC;
                if self.options.planted_bug == Some(PlantedBug::StuckNeedsSession) && !session_is_old {
                    return;
                }
                self.tell_quorum_thread(node, quorum::Event::PeerStuck);
            }
            Action::StorageStuck => {
                self.count_event("storage stuck");
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
                if let Some(model) = self.core_model(node) {
                    model.readmission.report(true);
                }
                self.tell_quorum_thread(node, quorum::Event::PeerClean);
            }
            Action::PeerDirty => {
                self.log_line(node, "the peer is dirty".into());
                if let Some(model) = self.core_model(node) {
                    model.readmission.report(false);
                }
                self.tell_quorum_thread(node, quorum::Event::PeerDirty);
            }
            Action::Faulty { error } => self.report_violation(format!("node {node} is faulty: {error}")),
            Action::Lost { volume, extent, .. } => {
                self.report_violation(format!("node {node} calls extent {extent} of volume {volume} lost"));
            }
            Action::Healed { .. } => self.count_event("heals"),
            Action::Unreadable { .. } => self.count_event("unreadable"),
            Action::VolumesChanged => self.reload_document(node),
            Action::Progress(progress) => {
                if progress.left == 0 {
                    let copied = progress.copied;
                    *self.result.events.entry("bytes copied").or_default() += copied;
                }
            }
            Action::NewerEpoch(_) | Action::Drained { .. } | Action::Full { .. } => {}
        }
    }

    fn on_mirror_reply(&mut self, node: usize, req: RequestId, result: crate::guests::GuestResult) {
        let Some(model) = self.core_model(node) else { return };
        if let Some(vm) = model.guest_requests.remove(&req) {
            let delay = self.prng.within(1_000..40_000);
            return self.schedule_job(node, delay, DaemonJob::GuestReply(vm, req, result));
        }
        let Some(own) = model.own_requests.remove(&req) else { return };
        match (own, result) {
            (OwnRequest::Read, Ok(GuestReply::Data(data))) => {
                if let Some(document) = Document::decode(&data) {
                    self.adopt_document(node, document);
                }
            }
            (OwnRequest::Write(document), Ok(_)) => {
                self.send_own_request(node, GuestOp::Flush, OwnRequest::Flush(document))
            }
            (OwnRequest::Flush(document), Ok(_)) => {
                self.adopt_document(node, document);
                self.announce_document_to_peer(node);
            }
            // A refused request: the configuration has changed. The daemon sends the request again when it is needed.
            _ => {}
        }
        self.settle_core_model(node);
    }

    pub(crate) fn apply_quorum_update(&mut self, node: usize, update: QuorumUpdate) {
        let me = self.nodes[node].id;
        let stale = self.options.planted_bug == Some(PlantedBug::StaleDocument);
        let Some(model) = self.core_model(node) else { return };
        match update {
            QuorumUpdate::Config(config) => {
                if config.members != Members::only(me) {
                    model.peer_vms_allowed = false;
                }
                if !config.members.has(me) {
                    model.serving = false;
                    if !stale {
                        // The other node may change the document, so it must be read again before it is in force.
                        model.document = None;
                    }
                }
                model.config = config;
                self.send_view(node);
                self.reload_document(node);
            }
            QuorumUpdate::AckSet(set, handled) => {
                model.ack_set = set;
                self.send_view(node);
                let Some(model) = self.core_model(node) else { return };
                if model.readmission.on_ack_set(set, handled) {
                    self.tell_quorum_thread(node, quorum::Event::PeerInAckSet);
                }
            }
            QuorumUpdate::Hold => self.hold(node, true),
            QuorumUpdate::Killing => model.serving = false,
            QuorumUpdate::PeerVmsAllowed => model.peer_vms_allowed = true,
            QuorumUpdate::MayRun(may_run) => {
                if may_run && model.config.members.has(me) {
                    model.serving = true;
                }
                self.hold(node, !may_run);
            }
        }
        self.settle_core_model(node);
    }

    fn hold(&mut self, node: usize, hold: bool) {
        if self.options.planted_bug == Some(PlantedBug::NoFreeze) && hold {
            return;
        }
        let Some(model) = self.core_model(node) else { return };
        if model.held != hold {
            model.held = hold;
            self.mirror(node, if hold { Event::Hold } else { Event::Resume });
        }
    }

    /// Gives the mirror its view of the configuration.
    fn send_view(&mut self, node: usize) {
        let me = self.nodes[node].id;
        let Some(model) = self.core_model(node) else { return };
        if model.config.exists() {
            let view = view(&model.config, model.ack_set, me);
            self.settle_writers(node);
            self.mirror(node, Event::View(view));
        }
    }

    fn settle_writers(&mut self, node: usize) {
        let me = self.nodes[node].id;
        for index in 0..=VMS {
            let Some(model) = self.core_model(node) else { return };
            let vm_node = match index.checked_sub(1) {
                None => Some(model.config.lead),
                Some(vm) => model.document.map(|document| document.vm_node[vm]),
            };
            let writer = match vm_node {
                Some(vm_node) if model.config.members.has(vm_node) => {
                    if vm_node == me {
                        Writer::Me
                    } else {
                        Writer::Peer
                    }
                }
                _ => Writer::None,
            };
            if std::mem::replace(&mut model.writers[index], writer) != writer {
                self.mirror(node, Event::Writer { volume: VolumeId(index as u64), writer });
            }
        }
    }

    /// Derives writers, permits and fail-over from the state.
    pub(crate) fn settle_core_model(&mut self, node: usize) {
        self.settle_writers(node);
        self.settle_permits(node);
        self.fail_over(node);
    }

    fn settle_permits(&mut self, node: usize) {
        let me = self.nodes[node].id;
        let populated = self.nodes[node].has_vms();
        let boot = self.nodes[node].boots;
        let Some(model) = self.core_model(node) else { return };
        let volumes: Vec<VolumeId> = model.mirror.volumes().iter().map(|info| info.id).collect();
        let mut started = Vec::new();
        for vm in VmIndex::all() {
            let vm_node = model.document.is_some_and(|document| document.vm_node[vm.0] == me);
            let moving = model.moving.is_some_and(|(moved, _)| moved == vm);
            let permit = model.serving && vm_node && !moving && volumes.contains(&volume(vm));
            if permit && !model.permits[vm.0] {
                started.push(vm);
            }
            model.permits[vm.0] = permit;
        }
        let vms = populated || model.permits.contains(&true);
        if vms != model.vms_reported {
            model.vms_reported = vms;
            self.tell_quorum_thread(node, quorum::Event::VmsRunning(vms));
        }
        for vm in started {
            self.schedule(50 * MS, FutureEvent::StartVm { node, boot, vm });
            self.resubmit(node, vm);
        }
    }

    /// Starts a VM as the supervisor of the node does, if it is permitted.
    pub(crate) fn start_vm(&mut self, node: usize, boot: u64, vm: VmIndex) {
        let machine = &mut self.nodes[node];
        if !machine.up || machine.boots != boot {
            return;
        }
        let permitted = machine.core.as_ref().is_some_and(|core| core.model.permits[vm.0]) && !machine.stopped;
        if permitted && !machine.vms[vm.0].runs {
            machine.vms[vm.0].runs = true;
            self.count_event("VM starts");
            self.log_line(node, format!("VM {vm} starts"));
            self.check_start(node, vm);
        }
    }

    pub(crate) fn core_tick(&mut self, node: usize) {
        self.schedule_job(node, 100 * MS, DaemonJob::CoreTick);
        self.mirror(node, Event::Tick);
        if self.core_model(node).is_some_and(|model| model.document.is_none()) {
            self.reload_document(node);
        }
        self.settle_core_model(node);
        // A permitted VM that does not run is started again, also after it died.
        for vm in VmIndex::all() {
            let boot = self.nodes[node].boots;
            let permitted = self.core_model(node).is_some_and(|model| model.permits[vm.0]);
            if permitted && !self.nodes[node].vms[vm.0].runs {
                self.schedule(60 * MS, FutureEvent::StartVm { node, boot, vm });
            }
        }
    }

    /// Handles a guest's request that has reached the daemon. A request that is under way already is ignored.
    pub(crate) fn take_request(&mut self, node: usize, vm: VmIndex, req: RequestId, op: GuestOp) {
        let Some(model) = self.core_model(node) else { return };
        if model.guest_requests.insert(req, vm).is_none() {
            self.mirror(node, Event::Guest { req, volume: volume(vm), op });
        }
    }
}
