//! The owner's thread of one node: mirror, document, who writes what, which VM may run. Follows `dyad-core`'s owner.

use crate::document::Document;
use crate::guests::volume;
use crate::machine::VMS;
use crate::options::Sabotage;
use crate::quorum_thread::News;
use crate::world::{Due, Job, World};
use dyad_mirror::{Action, Event, GuestOp, Mirror, Reason, Reply, RequestId, VolumeId, Writer};
use dyad_quorum::{self as quorum, Config, MS, Members};
use dyad_replica::{Readmission, view};
use dyad_types::NodeId;
use std::collections::{BTreeMap, VecDeque};

/// Requests of the daemon itself have names from here.
const OWN: RequestId = 1 << 48;

/// What an own request is for.
#[derive(Debug, Clone)]
pub(crate) enum Own {
    Read,
    Write(Document),
    Flush(Document),
    Create,
}

/// What the owner's thread keeps.
pub struct Owner {
    pub mirror: Mirror,
    pub(crate) config: Config,
    acks: Members,
    readmission: Readmission,
    pub document: Option<Document>,
    pub(crate) own: BTreeMap<RequestId, Own>,
    pub(crate) next_own: RequestId,
    guests: BTreeMap<RequestId, usize>,
    writers: [Writer; VMS + 1],
    pub permits: [bool; VMS],
    serving: bool,
    pub(crate) peer_vms_allowed: bool,
    vms_known: bool,
    held: bool,
    waiting: VecDeque<Event>,
    feeding: bool,
    /// A VM is moved on an administrator's word.
    pub moving: Option<(usize, NodeId)>,
}

impl Owner {
    pub fn new(mirror: Mirror, config: Config, vms_known: bool) -> Self {
        Self {
            mirror,
            acks: config.members,
            config,
            readmission: Readmission::default(),
            document: None,
            own: BTreeMap::new(),
            next_own: OWN,
            guests: BTreeMap::new(),
            writers: [Writer::Nobody; VMS + 1],
            permits: [false; VMS],
            serving: false,
            peer_vms_allowed: false,
            vms_known,
            held: true,
            waiting: VecDeque::new(),
            feeding: false,
            moving: None,
        }
    }

    /// Whether a request of this VM is under way that is not among these.
    pub fn serves_other_than<T>(&self, vm: usize, open: &BTreeMap<RequestId, T>) -> bool {
        self.guests.iter().any(|(req, of)| *of == vm && !open.contains_key(req))
    }

    pub fn idle(&self) -> bool {
        self.own.is_empty() && self.guests.is_empty() && self.mirror.open_requests() == 0
    }
}

impl World {
    pub(crate) fn owner(&mut self, node: usize) -> Option<&mut Owner> {
        self.nodes[node].core.as_mut().map(|core| &mut core.owner)
    }

    pub(crate) fn start_owner(&mut self, node: usize) {
        self.announce(node);
        self.mirror(node, Event::Hold);
        self.job(node, 1000, Job::OwnerTick);
    }

    /// Feeds the mirror and carries out what it asks for. What comes up on the way is fed afterwards: the actions of
    /// one event are carried out before the next event is taken, or they would mix.
    pub(crate) fn mirror(&mut self, node: usize, event: Event) {
        let Some(owner) = self.owner(node) else { return };
        owner.waiting.push_back(event);
        if std::mem::replace(&mut owner.feeding, true) {
            return;
        }
        while let Some(event) = self.owner(node).and_then(|owner| owner.waiting.pop_front()) {
            self.feed_mirror(node, event);
        }
        if let Some(owner) = self.owner(node) {
            owner.feeding = false;
        }
        self.update_complete();
    }

    fn feed_mirror(&mut self, node: usize, event: Event) {
        let clock = self.nodes[node].clock(self.now);
        let mut actions = Vec::new();
        let Some(owner) = self.owner(node) else { return };
        let before = owner.mirror.phase();
        owner.mirror.handle(clock, event, &mut actions);
        let after = owner.mirror.phase();
        if before != after {
            self.note(node, format!("mirror {before:?} -> {after:?}"));
        }
        for action in actions {
            self.act(node, action);
        }
    }

    fn act(&mut self, node: usize, action: Action) {
        match action {
            Action::Store { op, command } => self.store_command(node, op, command),
            Action::Send(message) => self.send_message(node, message),
            Action::Complete { req, result } => self.completed(node, req, result),
            Action::Disconnect(reason) => {
                self.note(node, format!("disconnect: {reason}"));
                if matches!(reason, Reason::Hole | Reason::Protocol | Reason::TwoWriters) {
                    self.violate(format!("node {node} ended its session: {reason}"));
                }
                self.disconnect(node);
            }
            Action::PeerStuck => {
                self.count("peer stuck");
                self.tell_quorum_thread(node, quorum::Event::PeerStuck);
            }
            Action::PeerClean => {
                self.count("resyncs");
                self.note(node, "the peer is clean".into());
                let peer = &mut self.nodes[1 - node];
                peer.clean_in = peer.boots;
                if let Some(owner) = self.owner(node) {
                    owner.readmission.told(true);
                }
                self.tell_quorum_thread(node, quorum::Event::PeerClean);
            }
            Action::PeerDirty => {
                self.note(node, "the peer is dirty".into());
                if let Some(owner) = self.owner(node) {
                    owner.readmission.told(false);
                }
                self.tell_quorum_thread(node, quorum::Event::PeerDirty);
            }
            Action::Faulty { error } => self.violate(format!("node {node} is faulty: {error}")),
            Action::Lost { volume, extent } => {
                self.violate(format!("node {node} calls extent {extent} of volume {volume} lost"));
            }
            Action::Healed { .. } => self.count("heals"),
            Action::Unreadable { .. } => self.count("unreadable"),
            Action::VolumesChanged => self.reload(node),
            Action::Progress(progress) => {
                if progress.left == 0 {
                    let copied = progress.copied;
                    *self.outcome.events.entry("bytes copied").or_default() += copied;
                }
            }
            Action::NewerEpoch(_) | Action::Drained { .. } | Action::Full { .. } => {}
        }
    }

    fn completed(&mut self, node: usize, req: RequestId, result: crate::guests::Reply) {
        let Some(owner) = self.owner(node) else { return };
        if let Some(vm) = owner.guests.remove(&req) {
            let delay = self.prng.within(1_000, 40_000);
            return self.job(node, delay, Job::Answer(vm, req, result));
        }
        let Some(own) = owner.own.remove(&req) else { return };
        match (own, result) {
            (Own::Read, Ok(Reply::Data(data))) => {
                if let Some(document) = Document::decode(&data) {
                    self.publish(node, document);
                }
            }
            (Own::Write(document), Ok(_)) => self.own_request(node, GuestOp::Flush, Own::Flush(document)),
            (Own::Flush(document), Ok(_)) => {
                self.publish(node, document);
                self.tell_peer_document(node);
            }
            // Cut off by a change of membership; asked again when there is reason.
            _ => {}
        }
        self.settle_owner(node);
    }

    pub(crate) fn news(&mut self, node: usize, news: News) {
        let me = self.nodes[node].id;
        let stale = self.options.sabotage == Some(Sabotage::StaleDocument);
        let Some(owner) = self.owner(node) else { return };
        match news {
            News::Config(config) => {
                if config.members != Members::only(me) {
                    owner.peer_vms_allowed = false;
                }
                if !config.members.has(me) {
                    owner.serving = false;
                    if !stale {
                        // It may change while this node is away, and must be read again before it counts.
                        owner.document = None;
                    }
                }
                owner.config = config;
                self.announce(node);
                self.reload(node);
            }
            News::Acks(set, handled) => {
                owner.acks = set;
                self.announce(node);
                let Some(owner) = self.owner(node) else { return };
                if owner.readmission.demand(set, handled) {
                    self.tell_quorum_thread(node, quorum::Event::AckPeer);
                }
            }
            News::Hold => self.hold(node, true),
            News::Killing => owner.serving = false,
            News::PeerVmsAllowed => owner.peer_vms_allowed = true,
            News::MayRun(may_run) => {
                if may_run && owner.config.members.has(me) {
                    owner.serving = true;
                }
                self.hold(node, !may_run);
            }
        }
        self.settle_owner(node);
    }

    fn hold(&mut self, node: usize, hold: bool) {
        if self.options.sabotage == Some(Sabotage::NoFreeze) && hold {
            return;
        }
        let Some(owner) = self.owner(node) else { return };
        if owner.held != hold {
            owner.held = hold;
            self.mirror(node, if hold { Event::Hold } else { Event::Resume });
        }
    }

    fn announce(&mut self, node: usize) {
        let me = self.nodes[node].id;
        let Some(owner) = self.owner(node) else { return };
        if owner.config.exists() {
            let view = view(&owner.config, owner.acks, me);
            self.settle_writers(node);
            self.mirror(node, Event::View(view));
        }
    }

    fn settle_writers(&mut self, node: usize) {
        let me = self.nodes[node].id;
        for index in 0..=VMS {
            let Some(owner) = self.owner(node) else { return };
            let home = match index.checked_sub(1) {
                None => Some(owner.config.lead),
                Some(vm) => owner.document.map(|document| document.home[vm]),
            };
            let writer = match home {
                Some(home) if owner.config.members.has(home) => {
                    if home == me {
                        Writer::Me
                    } else {
                        Writer::Peer
                    }
                }
                _ => Writer::Nobody,
            };
            if std::mem::replace(&mut owner.writers[index], writer) != writer {
                self.mirror(node, Event::Writer { volume: index as VolumeId, writer });
            }
        }
    }

    /// Re-establishes what must follow from the state.
    pub(crate) fn settle_owner(&mut self, node: usize) {
        self.settle_writers(node);
        self.settle_permits(node);
        self.fail_over(node);
    }

    fn settle_permits(&mut self, node: usize) {
        let me = self.nodes[node].id;
        let populated = self.nodes[node].has_vms();
        let boot = self.nodes[node].boots;
        let Some(owner) = self.owner(node) else { return };
        let volumes: Vec<VolumeId> = owner.mirror.volumes().iter().map(|info| info.id).collect();
        let mut started = Vec::new();
        for vm in 0..VMS {
            let home = owner.document.is_some_and(|document| document.home[vm] == me);
            let moving = owner.moving.is_some_and(|(moved, _)| moved == vm);
            let permit = owner.serving && home && !moving && volumes.contains(&volume(vm));
            if permit && !owner.permits[vm] {
                started.push(vm);
            }
            owner.permits[vm] = permit;
        }
        let vms = populated || owner.permits.contains(&true);
        if vms != owner.vms_known {
            owner.vms_known = vms;
            self.tell_quorum_thread(node, quorum::Event::VmsRunning(vms));
        }
        for vm in started {
            self.put(50 * MS, Due::StartVm { node, boot, vm });
            self.resubmit(node, vm);
        }
    }

    /// The supervisor of a node looks whether it may start a VM.
    pub(crate) fn start_vm(&mut self, node: usize, boot: u64, vm: usize) {
        let machine = &mut self.nodes[node];
        if !machine.up || machine.boots != boot {
            return;
        }
        let permitted = machine.core.as_ref().is_some_and(|core| core.owner.permits[vm]) && !machine.stopped;
        if permitted && !machine.vms[vm].runs {
            machine.vms[vm].runs = true;
            self.count("VM starts");
            self.note(node, format!("VM {vm} starts"));
            self.check_start(node, vm);
        }
    }

    pub(crate) fn owner_tick(&mut self, node: usize) {
        self.job(node, 100 * MS, Job::OwnerTick);
        self.mirror(node, Event::Tick);
        if self.owner(node).is_some_and(|owner| owner.document.is_none()) {
            self.reload(node);
        }
        self.settle_owner(node);
        // A VM that is permitted and does not run is started, also after a crash of its start.
        for vm in 0..VMS {
            let boot = self.nodes[node].boots;
            let permitted = self.owner(node).is_some_and(|owner| owner.permits[vm]);
            if permitted && !self.nodes[node].vms[vm].runs {
                self.put(60 * MS, Due::StartVm { node, boot, vm });
            }
        }
    }

    /// A guest's request reaches the daemon.
    pub(crate) fn take_request(&mut self, node: usize, vm: usize, req: RequestId, op: GuestOp) {
        let Some(owner) = self.owner(node) else { return };
        if owner.guests.insert(req, vm).is_none() {
            self.mirror(node, Event::Guest { req, volume: volume(vm), op });
        }
    }
}
