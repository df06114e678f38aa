//! Two mirrors over fake stores, with an ideal register and an oracle. A [`Step`] is one event of the environment.

use super::fake::FakeStore;
use crate::oracle::{FlushMark, Oracle, Value};
use crate::*;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::ops::Range;

pub const EXTENTS: u64 = 6;
pub const BLOCKS: u64 = EXTENTS * EXTENT_BLOCKS;
/// Volume 1 is written by node 0, volume 2 by node 1, unless one of them is alone.
pub const VOLUMES: [VolumeId; 2] = [VolumeId(1), VolumeId(2)];

#[derive(Debug, Clone, Copy)]
pub enum Step {
    Write {
        volume: usize,
        block: u64,
        count: u64,
    },
    Discard {
        volume: usize,
        block: u64,
        count: u64,
    },
    Read {
        volume: usize,
        block: u64,
        count: u64,
    },
    Flush {
        volume: usize,
    },
    /// The node's store runs this many of its commands.
    Store {
        node: usize,
        count: usize,
    },
    /// This many messages reach the node.
    Deliver {
        node: usize,
        count: usize,
    },
    LinkDown,
    LinkUp,
    Kill {
        node: usize,
    },
    Power {
        node: usize,
        keep: usize,
    },
    Start {
        node: usize,
    },
    /// The other node removes this node from the membership, if both are members.
    Remove {
        node: usize,
    },
    /// The node learns the newest configuration.
    Learn {
        node: usize,
    },
    /// A clean peer becomes a member again.
    Readd,
    /// A block on one node fails its checksum from now on.
    Rot {
        node: usize,
        volume: usize,
        block: u64,
    },
    /// A block on the only member fails its checksum from now on: no copy can give it until it is written.
    RotOnMember {
        volume: usize,
        block: u64,
    },
    Full {
        node: usize,
        full: bool,
    },
    /// The node's store answers nothing (`true`), or answers again.
    Hang {
        node: usize,
        hangs: bool,
    },
    /// The node's store reports damage in the extent of this block.
    Damaged {
        node: usize,
        volume: usize,
        block: u64,
    },
    /// A disk of the node's store fails: the store refuses every command from now on.
    Fail {
        node: usize,
    },
    /// The oldest command of the node's store waits for a checkpoint, of which the disks complete a step.
    Progress {
        node: usize,
    },
    Create,
    Tick {
        millis: u64,
    },
}

#[derive(Debug)]
enum Request {
    Write { volume: VolumeId, blocks: Range<BlockIndex>, value: Value },
    Read { volume: VolumeId, blocks: Range<BlockIndex> },
    Flush { volume: VolumeId, mark: FlushMark },
    Create { id: VolumeId },
    Delete,
}

#[derive(Debug, Default)]
struct Node {
    mirror: Option<Mirror>,
    store: FakeStore,
    commands: VecDeque<(StoreOp, StoreCommand)>,
    inbox: VecDeque<PeerMessage>,
    /// The store answers nothing.
    hangs: bool,
    /// Milliseconds of ticks for which the store has hung with a command unanswered and without progress.
    hung_ms: u64,
    /// Number of [`Step::Progress`].
    steps: u64,
    /// The mirror reported last that the store does not answer.
    storage_stuck: bool,
    /// Number of reports that the peer is stuck.
    stuck: usize,
    clean: bool,
    /// Holds every acknowledged write in memory.
    complete: bool,
    knows: Epoch,
}

pub struct Pair {
    now: BootTime,
    nodes: [Node; 2],
    session: Option<Session>,
    sessions: Session,
    epoch: Epoch,
    members: [bool; 2],
    ack_both: bool,
    pub oracle: Oracle,
    requests: BTreeMap<RequestId, (usize, Request)>,
    next_req: RequestId,
    next_volume: VolumeId,
    created: Vec<VolumeId>,
    pub healed: usize,
    pub copied: u64,
    /// Blocks that may be lost: each was damaged on the only member.
    pub may_be_lost: BTreeSet<(VolumeId, BlockIndex)>,
    /// The extents that were reported as lost, in the order of the reports.
    pub lost: Vec<(VolumeId, ExtentIndex, LostReason)>,
    /// Reads of possibly lost blocks that were answered with an error.
    pub failed_reads: usize,
    /// Deletions of the steps that were answered as done.
    pub deletions: usize,
    pub log: Vec<String>,
    healing: bool,
}

const STEP_PERIOD: u64 = 1_000_000;

impl Pair {
    pub fn new() -> Self {
        let mut nodes = [Node::default(), Node::default()];
        for node in &mut nodes {
            for id in VOLUMES {
                let change = VolumeChange::Create { id, size: BLOCKS * BLOCK as u64 };
                node.store.run(&StoreCommand::Volume(change)).expect("a fresh store");
            }
            node.complete = true;
        }
        let mut pair = Self {
            now: BootTime(1),
            nodes,
            session: None,
            sessions: Session::default(),
            epoch: Epoch(1),
            members: [true, true],
            ack_both: false,
            oracle: Oracle::default(),
            requests: BTreeMap::new(),
            next_req: RequestId::default(),
            next_volume: VolumeId(100),
            created: Vec::new(),
            healed: 0,
            copied: 0,
            may_be_lost: BTreeSet::new(),
            lost: Vec::new(),
            failed_reads: 0,
            deletions: 0,
            log: Vec::new(),
            healing: false,
        };
        for node in 0..2 {
            pair.start(node);
        }
        pair.step(Step::LinkUp);
        pair
    }

    fn both(&self) -> bool {
        self.members == [true, true]
    }

    /// The node whose guests may use a volume now.
    fn primary(&self, volume: VolumeId) -> usize {
        match self.members {
            [true, true] => (volume.0 as usize + 1) % 2,
            [true, false] => 0,
            _ => 1,
        }
    }

    pub fn phase(&self, node: usize) -> Option<Phase> {
        self.nodes[node].mirror.as_ref().map(Mirror::phase)
    }

    fn event(&mut self, node: usize, event: Event) {
        let mut out = Vec::new();
        let Some(mirror) = &mut self.nodes[node].mirror else { return };
        mirror.handle(self.now, event, &mut out);
        for action in out {
            self.act(node, action);
        }
        if self.both() && (0..2).all(|n| self.phase(n) == Some(Phase::Steady)) {
            self.nodes.iter_mut().for_each(|node| node.complete = true);
        }
    }

    fn act(&mut self, node: usize, action: Action) {
        match action {
            Action::Store { op, command } => self.nodes[node].commands.push_back((op, command)),
            Action::Send(message) => {
                if self.session.is_some() {
                    self.nodes[1 - node].inbox.push_back(message);
                }
            }
            Action::Complete { req, result } => self.complete(req, result),
            Action::Disconnect(reason) => {
                assert!(!matches!(reason, Reason::MissingMessage | Reason::Protocol | Reason::TwoWriters), "{reason}");
                self.step(Step::LinkDown);
            }
            Action::PeerClean => self.nodes[node].clean = true,
            Action::PeerDirty => {
                self.nodes[node].clean = false;
                // As `quorum` does: the proposal is withdrawn before it was chosen.
                self.ack_both = false;
                self.view(node);
            }
            Action::Healed { .. } => self.healed += 1,
            Action::Lost { volume, extent, reason } => {
                let expected = extent.blocks().each().any(|block| self.may_be_lost.contains(&(volume, block)));
                assert!(expected, "an extent was lost although one copy was good\n{}", self.log.join("\n"));
                self.lost.push((volume, extent, reason));
            }
            Action::Progress(progress) => self.copied += progress.copied,
            Action::Faulty { error } => assert!(self.nodes[node].store.failed, "no disk has failed: {error}"),
            Action::PeerStuck => self.nodes[node].stuck += 1,
            Action::StorageStuck => {
                assert!(self.nodes[node].hangs, "the store of node {node} answers\n{}", self.log.join("\n"));
                self.nodes[node].storage_stuck = true;
            }
            Action::StorageAnswers => self.nodes[node].storage_stuck = false,
            Action::NewerEpoch(_)
            | Action::Drained { .. }
            | Action::Full { .. }
            | Action::Unreadable { .. }
            | Action::VolumesChanged => {}
        }
    }

    fn complete(&mut self, req: RequestId, result: Result<GuestReply, GuestError>) {
        let Some((_, request)) = self.requests.remove(&req) else { return };
        match (request, result) {
            (Request::Write { volume, blocks, value }, Ok(GuestReply::Done)) => {
                self.oracle.acknowledge(volume, blocks, value);
            }
            (Request::Flush { volume, mark }, Ok(GuestReply::Done)) => self.oracle.flushed(volume, &mark),
            (Request::Read { volume, blocks }, Ok(GuestReply::Data(data))) => {
                if let Err(e) = self.oracle.read(volume, blocks.start, &data) {
                    panic!("{e}\n{}", self.log.join("\n"));
                }
            }
            (Request::Read { volume, blocks }, Err(GuestError::Corrupt))
                if blocks.clone().each().any(|block| self.may_be_lost.contains(&(volume, block))) =>
            {
                self.failed_reads += 1;
            }
            (Request::Create { id }, Ok(_)) => self.created.push(id),
            (Request::Create { .. }, _) => {}
            (Request::Delete, Ok(_)) => self.deletions += 1,
            (_, Err(GuestError::Closed)) => {}
            (request, result) => panic!("{request:?} ended as {result:?}"),
        }
    }

    fn request(&mut self, volume: VolumeId, op: GuestOp, request: Request) {
        let (req, node) = (self.next_req.advance(), self.primary(volume));
        self.requests.insert(req, (node, request));
        self.event(node, Event::Guest { req, volume, op });
    }

    fn start(&mut self, node: usize) {
        if self.nodes[node].mirror.is_some() {
            return;
        }
        let inventory = self.nodes[node].store.inventory();
        self.nodes[node].mirror =
            Some(Mirror::new(self.now, Tuning { lost_after: 2_000_000_000, ..Tuning::default() }, inventory));
        self.nodes[node].commands.clear();
        self.nodes[node].clean = false;
        (self.nodes[node].storage_stuck, self.nodes[node].hung_ms) = (false, 0);
        self.view(node);
    }

    /// Gives a node the newest configuration.
    fn view(&mut self, node: usize) {
        self.nodes[node].knows = self.epoch;
        let view = View {
            epoch: self.epoch,
            me: self.members[node],
            peer: self.members[1 - node],
            ack_peer: self.ack_both || self.both(),
            lead: node == 0,
        };
        for volume in VOLUMES {
            let writer = if self.primary(volume) == node { Writer::Me } else { Writer::Peer };
            self.event(node, Event::Writer { volume, writer });
        }
        self.event(node, Event::View(view));
    }

    fn stop(&mut self, node: usize) {
        self.nodes[node].mirror = None;
        self.nodes[node].commands.clear();
        self.kill_guests(node);
        self.link_down();
    }

    fn kill_guests(&mut self, node: usize) {
        for volume in VOLUMES {
            if self.primary(volume) == node {
                self.oracle.guest_ended(volume);
            }
        }
        self.requests.retain(|_, (primary, _)| *primary != node);
    }

    fn link_down(&mut self) {
        let Some(session) = self.session.take() else { return };
        for node in 0..2 {
            self.nodes[node].inbox.clear();
            self.event(node, Event::PeerDown { session });
        }
    }

    pub fn step(&mut self, step: Step) {
        self.now = self.now + STEP_PERIOD;
        if !self.healing {
            self.log.push(format!("{step:?}  phases {:?} {:?}", self.phase(0), self.phase(1)));
        }
        match step {
            Step::Write { volume, block, count } | Step::Discard { volume, block, count } => {
                let (volume, block) = (VOLUMES[volume], BlockIndex(block));
                let blocks = block.run(count);
                if self.oracle.is_open(volume, blocks.clone()) || self.nodes[self.primary(volume)].mirror.is_none() {
                    return;
                }
                let (value, op) = if matches!(step, Step::Discard { .. }) {
                    let value = self.oracle.issue_discard(volume, blocks.clone());
                    (value, GuestOp::Discard { block, count })
                } else {
                    let (value, data) = self.oracle.issue(volume, blocks.clone());
                    (value, GuestOp::Write { block, data })
                };
                self.request(volume, op, Request::Write { volume, blocks, value });
            }
            Step::Read { volume, block, count } => {
                let (volume, block) = (VOLUMES[volume], BlockIndex(block));
                if self.nodes[self.primary(volume)].mirror.is_some() {
                    self.request(
                        volume,
                        GuestOp::Read { block, count },
                        Request::Read { volume, blocks: block.run(count) },
                    );
                }
            }
            Step::Flush { volume } => {
                let volume = VOLUMES[volume];
                if self.nodes[self.primary(volume)].mirror.is_some() {
                    let mark = self.oracle.flush_begins(volume);
                    self.request(volume, GuestOp::Flush, Request::Flush { volume, mark });
                }
            }
            Step::Store { node, .. } if self.nodes[node].hangs => {}
            Step::Damaged { node, volume, block } => {
                self.event(node, Event::Damaged { volume: VOLUMES[volume], extent: BlockIndex(block).extent() });
            }
            Step::Fail { node } => self.nodes[node].store.failed = true,
            Step::Hang { node, hangs } => (self.nodes[node].hangs, self.nodes[node].hung_ms) = (hangs, 0),
            Step::Progress { node } => {
                if let Some(op) = self.nodes[node].commands.front().map(|(op, _)| *op) {
                    self.nodes[node].steps += 1;
                    self.nodes[node].hung_ms = 0;
                    let steps = self.nodes[node].steps;
                    self.event(node, Event::StoreProgress { op, steps });
                }
            }
            Step::Store { node, count } => {
                for _ in 0..count {
                    let Some((op, command)) = self.nodes[node].commands.pop_front() else { return };
                    let result = self.nodes[node].store.run(&command);
                    self.event(node, Event::Stored { op, result });
                }
            }
            Step::Deliver { node, count } => {
                for _ in 0..count {
                    let Some(message) = self.nodes[node].inbox.pop_front() else { return };
                    let Some(session) = self.session else { return };
                    self.event(node, Event::Peer { session, message });
                }
            }
            Step::LinkDown => self.link_down(),
            Step::LinkUp => {
                if self.session.is_none() && self.nodes.iter().all(|node| node.mirror.is_some()) {
                    self.session = Some(self.sessions.advance());
                    for node in 0..2 {
                        self.event(node, Event::PeerUp { session: self.sessions });
                    }
                }
            }
            Step::Kill { node } => self.stop(node),
            Step::Power { node, keep } => {
                self.stop(node);
                self.nodes[node].store.power_loss(keep);
                self.nodes[node].complete = false;
                if !(0..2).any(|n| self.members[n] && self.nodes[n].complete) {
                    self.oracle.memories_lost();
                }
            }
            Step::Start { node } => self.start(node),
            Step::Remove { node } => {
                if self.both() && self.nodes[1 - node].mirror.is_some() {
                    self.kill_guests(node);
                    self.event(node, Event::Hold);
                    self.epoch.advance();
                    self.members[node] = false;
                    self.ack_both = false;
                    if !std::mem::replace(&mut self.nodes[1 - node].complete, true) {
                        // This node lost its memory and continues alone: two faults, so only flushed writes are
                        // guaranteed.
                        self.oracle.memories_lost();
                    }
                    self.view(1 - node);
                }
            }
            Step::Learn { node } => {
                if self.nodes[node].knows < self.epoch {
                    self.view(node);
                    self.event(node, Event::Resume);
                }
            }
            Step::Readd => self.readd(),
            Step::Rot { node, volume, block } => {
                // Only one copy of a block may be damaged, and only while the other is good.
                let place = (VOLUMES[volume], BlockIndex(block));
                let equal = self.both() && (0..2).all(|n| self.phase(n) == Some(Phase::Steady));
                if equal && !self.nodes[1 - node].store.unreadable(place.0, place.1) {
                    self.nodes[node].store.bad.insert(place);
                }
            }
            Step::RotOnMember { volume, block } => {
                let place = (VOLUMES[volume], BlockIndex(block));
                if !self.both() {
                    self.nodes[self.primary(place.0)].store.bad.insert(place);
                    self.may_be_lost.insert(place);
                }
            }
            Step::Full { node, full } => {
                self.nodes[node].store.full = full;
                if !full {
                    self.event(node, Event::SpaceFreed);
                }
            }
            Step::Create => {
                let lead = if self.members[0] { 0 } else { 1 };
                if self.nodes[lead].mirror.is_none() {
                    return;
                }
                self.next_volume.0 += 1;
                let (req, id) = (self.next_req.advance(), self.next_volume);
                self.requests.insert(req, (lead, Request::Create { id }));
                let change = VolumeChange::Create { id, size: BLOCKS * BLOCK as u64 };
                self.event(lead, Event::Volume { req, change });
            }
            Step::Tick { millis } => {
                self.now = self.now + millis * STEP_PERIOD;
                for node in 0..2 {
                    self.event(node, Event::Tick);
                    self.check_storage_report(node, millis);
                }
            }
        }
    }

    /// Asserts that a store which does not answer is reported after T_io of ticks.
    fn check_storage_report(&mut self, node: usize, millis: u64) {
        let state = &mut self.nodes[node];
        let waits = state.hangs && state.mirror.is_some() && !state.commands.is_empty();
        // As the mirror, which does not count the time for which it was not scheduled.
        state.hung_ms = if waits { state.hung_ms + millis.min(300) } else { 0 };
        assert!(state.hung_ms < 3_900 || state.storage_stuck, "node {node} is silent\n{}", self.log.join("\n"));
    }

    /// Number of reports of the node that its peer is stuck.
    pub fn stuck(&self, node: usize) -> usize {
        self.nodes[node].stuck
    }

    /// The session of the pair, if there is one.
    pub fn session(&self) -> Option<Session> {
        self.session
    }

    /// The next [`Step::Progress`] of the node tells the same number as the last one.
    pub fn forget_step(&mut self, node: usize) {
        self.nodes[node].steps -= 1;
    }

    /// The newest command of the node's store waits for a checkpoint, of which the disks complete a step.
    pub fn progress_of_newest(&mut self, node: usize) {
        let op = self.nodes[node].commands.back().map(|(op, _)| *op).expect("a command waits");
        self.nodes[node].steps += 1;
        let steps = self.nodes[node].steps;
        self.event(node, Event::StoreProgress { op, steps });
    }

    /// Whether the node reports that its own store does not answer.
    pub fn storage_stuck(&self, node: usize) -> bool {
        self.nodes[node].storage_stuck
    }

    pub fn open_requests(&self) -> usize {
        self.requests.len()
    }

    pub fn hold(&mut self, node: usize, hold: bool) {
        self.event(node, if hold { Event::Hold } else { Event::Resume });
    }

    /// Delivers the messages to the node that carry no data: those that a path passes which loses large frames.
    pub fn deliver_small(&mut self, node: usize) {
        let large = |message: &PeerMessage| matches!(message.body, Body::Extent { .. } | Body::Write { .. });
        while self.nodes[node].inbox.front().is_some_and(|message| !large(message)) {
            self.step(Step::Deliver { node, count: 1 });
        }
    }

    /// Whether the node reports that its peer may become a member.
    pub fn clean(&self, node: usize) -> bool {
        self.nodes[node].clean
    }

    /// Number of syncs that the node's store was given and has not answered.
    pub fn open_syncs(&self, node: usize) -> usize {
        self.nodes[node].commands.iter().filter(|(_, command)| *command == StoreCommand::Sync).count()
    }

    /// Answers the commands of the node's store, except syncs.
    pub fn store_without_syncs(&mut self, node: usize) {
        let commands = std::mem::take(&mut self.nodes[node].commands);
        let (syncs, others): (VecDeque<_>, VecDeque<_>) =
            commands.into_iter().partition(|(_, command)| *command == StoreCommand::Sync);
        self.nodes[node].commands = syncs;
        for (op, command) in others {
            let result = self.nodes[node].store.run(&command);
            self.event(node, Event::Stored { op, result });
        }
    }

    fn readd(&mut self) {
        let Some(source) = (0..2).find(|&n| self.members == [n == 0, n == 1] && self.nodes[n].clean) else {
            return;
        };
        if !self.ack_both {
            self.ack_both = true;
            return self.view(source);
        }
        self.epoch.advance();
        self.members = [true, true];
        self.ack_both = false;
        self.nodes[source].clean = false;
        // From the moment it is a member, the new member holds every acknowledged write.
        self.nodes[1 - source].complete = true;
        // The other node's guests move back to it: their VMs here are shut down first.
        self.kill_guests(source);
        for volume in VOLUMES {
            self.event(source, Event::Close { volume });
        }
        self.view(source);
    }

    /// The damage on a node is over: each of its blocks can be read again.
    pub fn make_readable(&mut self, node: usize) {
        self.nodes[node].store.bad.clear();
    }

    /// Damages blocks on a node, whatever the other node has.
    pub fn rot_anywhere(&mut self, node: usize, volume: VolumeId, blocks: impl IntoIterator<Item = u64>) {
        for block in blocks.into_iter().map(BlockIndex) {
            self.nodes[node].store.bad.insert((volume, block));
            self.may_be_lost.insert((volume, block));
        }
    }

    /// The blocks of a volume that each store cannot read.
    pub fn unreadable_blocks(&self, volume: VolumeId) -> [Vec<u64>; 2] {
        [0, 1].map(|node: usize| {
            (0..BLOCKS).filter(|block| self.nodes[node].store.unreadable(volume, BlockIndex(*block))).collect()
        })
    }

    /// Unconfirmed extents of both stores.
    pub fn unconfirmed(&self) -> usize {
        self.nodes.iter().flat_map(|node| node.store.live.volumes.values()).map(|content| content.touched.len()).sum()
    }

    /// Ends every fault and runs until the pair is in sync and no request is open.
    pub fn heal(&mut self) {
        for node in 0..2 {
            self.step(Step::Full { node, full: false });
            self.step(Step::Hang { node, hangs: false });
        }
        self.finish();
    }

    /// As [`Pair::heal`], but a full pool has room again only when a volume is deleted.
    pub fn heal_by_deleting(&mut self) {
        self.healing = true;
        for node in 0..2 {
            self.step(Step::Hang { node, hangs: false });
            self.step(Step::Start { node });
        }
        self.run(50);
        let lead = if self.members[0] { 0 } else { 1 };
        let req = self.next_req.advance();
        self.requests.insert(req, (lead, Request::Delete));
        // No other step knows this volume. A deletion of a volume that does not exist succeeds.
        self.event(lead, Event::Volume { req, change: VolumeChange::Delete { id: VolumeId(u64::MAX) } });
        // 10 s.
        self.run(100);
        assert_eq!(self.deletions, 1, "the deletion is not answered\n{}", self.log.join("\n"));
        self.finish();
    }

    fn finish(&mut self) {
        self.healing = true;
        for node in 0..2 {
            self.step(Step::Start { node });
        }
        self.run(400);
        let history = || self.log.join("\n");
        assert!(self.both(), "the pair is not in sync again\n{}", history());
        for node in 0..2 {
            assert_eq!(self.phase(node), Some(Phase::Steady), "{}", history());
            assert_eq!(self.nodes[node].mirror.as_ref().map(Mirror::dirty_extents), Some(0));
            assert!(!self.storage_stuck(node), "{}", history());
        }
        assert!(self.requests.is_empty(), "never answered: {:?}\n{}", self.requests, history());
        self.healing = false;
    }

    /// Runs both nodes without a fault for `rounds` times 100 ms.
    fn run(&mut self, rounds: usize) {
        for _ in 0..rounds {
            self.step(Step::LinkUp);
            for node in 0..2 {
                self.step(Step::Learn { node });
                self.step(Step::Store { node, count: 50 });
                self.step(Step::Deliver { node, count: 50 });
            }
            self.step(Step::Readd);
            self.step(Step::Tick { millis: 100 });
        }
    }

    /// The volume table of each store.
    pub fn tables(&self) -> [Vec<VolumeId>; 2] {
        [0, 1].map(|node: usize| self.nodes[node].store.live.volumes.keys().copied().collect())
    }

    /// Asserts that both replicas are equal and hold only values that the oracle allows.
    pub fn check_replicas(&self) {
        let [a, b] = &self.nodes;
        let history = || self.log.join("\n");
        let table = |node: &Node| node.store.live.volumes.iter().map(|(id, c)| (*id, c.size)).collect::<Vec<_>>();
        assert_eq!(table(a), table(b), "{}", history());
        for id in &self.created {
            assert!(self.tables()[0].contains(id), "volume {id} was created and is missing\n{}", history());
        }
        for (volume, block) in self.oracle.blocks() {
            let unreadable = self.nodes.iter().filter(|node| node.store.unreadable(volume, block)).count();
            if unreadable > 0 && self.may_be_lost.contains(&(volume, block)) {
                for node in self.nodes.iter().filter(|node| !node.store.unreadable(volume, block)) {
                    let value = node.store.live.volumes[&volume].blocks.get(&block).copied().unwrap_or(0);
                    assert!(self.oracle.allows((volume, block), value), "a stale copy can be read\n{}", history());
                }
                continue;
            }
            let value = |node: &Node| node.store.live.volumes[&volume].blocks.get(&block).copied().unwrap_or(0);
            assert_eq!(value(a), value(b), "volume {volume} block {block}\n{}", history());
            assert!(
                self.oracle.allows((volume, block), value(a)),
                "volume {volume} block {block} ended as {}\n{}",
                value(a),
                history()
            );
        }
    }
}
