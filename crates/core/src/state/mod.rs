//! The one owner of the core's state in a node that belongs to a pair.
//!
//! ```text
//!            ┌──────────── select: the next Event ◄── control, guests, peer, store, quorum_thread, cgroup_fence
//!            ▼
//!   apply(event) ──► mirror.handle ──► actions ──► store, peer session, quorum_thread, guests
//!            │
//!            ▼
//!   settle(): writers, device servers, permits and the status follow from the state; nothing else sets them
//! ```
//!
//! **Invariants.** A volume has a device server only while this node is in the in-sync set and writes it. A VM is
//! permitted only while all its volumes have servers, and the quorum_thread knew of it before anyone else. Who owns what
//! is taken only from a document read since this node last entered the in-sync set ([`CoreState::rules`]).

mod changes;
mod erasing;
mod importing;
mod mirroring;
mod report;
mod requests;
mod serving;
#[cfg(test)]
mod tests;
mod volume_gc;
mod votes;

use crate::cgroup_fence;
use crate::document_cache;
use crate::documents::DocumentRequest;
use crate::event::{ControlRequest, DocumentRead, Event, Inbox};
use crate::identity::Identity;
use crate::peer::PeerHandle;
use crate::peer_wire::Wire;
use crate::quorum_handle::QuorumHandle;
use crate::quorum_update::QuorumSnapshot;
use crate::store::StoreHandle;
use crate::timeline::Timeline;
use crate::volume_request::{Completion, VolumeRequest};
use crate::watchdog;
use dyad_control::{Reply, Status};
use dyad_desired::Document;
use dyad_mirror::{Mirror, Progress, RequestId, VolumeChange, VolumeId};
use dyad_quorum::{Config, Members};
use dyad_replica::Readmission;
use dyad_types::NodeId;
use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::path::PathBuf;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender};
use std::time::{Duration, Instant};
use tokio::sync::{mpsc, oneshot, watch};

/// The mirror wants to hear of time at least this often.
const MIRROR_TICK_INTERVAL: Duration = Duration::from_millis(100);
/// Pause before the document is read again that could not be read.
const DOCUMENT_RETRY_DELAY: Duration = Duration::from_millis(200);
/// Most events handled between two rounds of [`CoreState::settle`]: keeps the status fresh under load.
const BATCH: usize = 256;

/// Everything the owner was given at start.
pub struct Dependencies {
    /// Who this node is.
    pub identity: Identity,
    /// Where state is kept.
    pub state: PathBuf,
    /// Where sockets are made.
    pub run: PathBuf,
    /// The way in, for callbacks.
    pub inbox: Inbox,
    /// Replication.
    pub mirror: Mirror,
    /// The pool's thread.
    pub store: StoreHandle,
    /// The peer session.
    pub peer: PeerHandle,
    /// Quorum, heartbeats, watchdog.
    pub quorum_thread: QuorumHandle,
    /// Freeze, thaw, kill.
    pub cgroup_fence: Sender<cgroup_fence::CgroupCommand>,
    /// The VMs' cgroup, if there is one.
    pub vms: Option<PathBuf>,
    /// The document's task.
    pub documents: mpsc::UnboundedSender<DocumentRequest>,
    /// What happened so far.
    pub timeline: Timeline,
    /// Where the status is shown.
    pub status: watch::Sender<Status>,
    /// The watchdog as found at start.
    pub watchdog: Option<watchdog::WatchdogInfo>,
    /// Names of the peer-link paths, by path number.
    pub paths: Vec<String>,
    /// The tokio runtime for background work.
    pub runtime: tokio::runtime::Handle,
    /// How pairing and enrolment reach the world.
    pub pairing: crate::pairing::Pairing,
}

/// Where the result of a request to the mirror goes.
#[derive(Debug)]
enum Origin {
    /// To a guest, an import or the document's task.
    Client(Completion),
    /// Back to the owner: this volume, which the document does not name, was being deleted.
    VolumeGc {
        /// The volume.
        id: VolumeId,
    },
}

/// Who is told when this node has left, or that it has not.
#[derive(Debug)]
enum LeaveWaiter {
    /// A client that asked for the leave.
    ReplyTo(oneshot::Sender<Reply>),
    /// An erasure that begins with the leave.
    Erase(oneshot::Sender<Reply>),
}

/// One stay in the in-sync set.
#[derive(Debug)]
struct MembershipTerm {
    /// Counts the stays.
    number: u64,
    /// In which one the document was read.
    document_term: Option<u64>,
    /// A read is ordered and not done.
    read_in_flight: bool,
    /// When the last read was done.
    read_ended_at: Instant,
}

/// The owner.
pub struct CoreState {
    deps: Dependencies,
    me: NodeId,
    config: Config,
    ack_set: Members,
    snapshot: QuorumSnapshot,
    peer_vms_allowed: bool,
    readmission: Readmission,
    /// The peer is clean, and quorum is told when the failover_in_flight is done.
    clean_deferred: bool,
    connected: bool,
    document: Option<Document>,
    term: MembershipTerm,
    requests: HashMap<RequestId, Origin>,
    next_request: RequestId,
    writers: BTreeMap<VolumeId, dyad_mirror::Writer>,
    servers: BTreeMap<VolumeId, serving::Served>,
    /// Volumes that an image is being sent into, by name.
    importing: BTreeSet<String>,
    /// When what came of an image was last dropped.
    dropped: Option<Instant>,
    /// Volumes that the document names no more.
    volume_gc: volume_gc::VolumeGc,
    permits: BTreeSet<String>,
    running: BTreeSet<String>,
    serving: bool,
    vms_known: bool,
    /// The watchdog goes hungry to prove that it resets this node.
    proving: bool,
    progress: Progress,
    dirty_bytes: u64,
    healed: u64,
    error: Option<String>,
    changes: changes::Changes,
    leave_waiters: Vec<LeaveWaiter>,
    alarms: BTreeSet<dyad_quorum::Alarm>,
    pairing_code: Option<crate::pairing::OpenCode>,
    revision: u64,
    waiting: VecDeque<dyad_mirror::Event>,
    feeding: bool,
    stopping: bool,
    /// This node was erased: nothing happens here any more until whoever asked knows.
    decommissioned: bool,
    /// The pool failed: a leave that began then is not called off.
    pool_failed: bool,
    failover_in_flight: bool,
    held: bool,
    refused: Option<String>,
    /// What guests could not read, as far as it was told.
    unreadable: BTreeSet<(VolumeId, u64)>,
}

impl CoreState {
    /// Takes over. `config` is what the register holds at start.
    pub fn new(deps: Dependencies, config: Config) -> Self {
        let me = deps.identity.me;
        Self {
            me,
            ack_set: config.members,
            config,
            snapshot: QuorumSnapshot::default(),
            peer_vms_allowed: false,
            readmission: Readmission::default(),
            clean_deferred: false,
            connected: false,
            document: document_cache::load(&deps.state),
            term: MembershipTerm {
                number: 0,
                document_term: None,
                read_in_flight: false,
                read_ended_at: Instant::now(),
            },
            requests: HashMap::new(),
            next_request: 1,
            writers: BTreeMap::new(),
            servers: BTreeMap::new(),
            importing: BTreeSet::new(),
            dropped: None,
            volume_gc: volume_gc::VolumeGc::default(),
            permits: BTreeSet::new(),
            running: BTreeSet::new(),
            serving: false,
            vms_known: false,
            proving: false,
            progress: Progress::default(),
            dirty_bytes: 0,
            healed: 0,
            error: None,
            changes: changes::Changes::default(),
            leave_waiters: Vec::new(),
            alarms: BTreeSet::new(),
            pairing_code: None,
            revision: 0,
            waiting: VecDeque::new(),
            feeding: false,
            stopping: false,
            decommissioned: false,
            pool_failed: false,
            failover_in_flight: false,
            held: true,
            refused: None,
            unreadable: BTreeSet::new(),
            deps,
        }
    }

    /// Runs until [`Event::Stop`].
    pub fn run(mut self, events: &Receiver<Event>) {
        self.announce_view();
        self.mirror(dyad_mirror::Event::Hold);
        self.repeat_introductions();
        self.settle();
        while !self.stopping {
            match events.recv_timeout(MIRROR_TICK_INTERVAL) {
                Ok(event) => {
                    self.apply(event);
                    for event in events.try_iter().take(BATCH) {
                        self.apply(event);
                    }
                }
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => break,
            }
            if !self.decommissioned {
                self.mirror(dyad_mirror::Event::Tick);
                self.retry_document_read();
                self.settle();
            }
        }
        self.servers.clear();
    }

    fn apply(&mut self, event: Event) {
        tracing::trace!(?event);
        match event {
            Event::Stop => self.stopping = true,
            _ if self.decommissioned => {}
            Event::Control(ControlRequest { request, answer }) => self.question(request, answer),
            Event::OpenImport { volume, bytes, answer } => self.open_import(volume, bytes, answer),
            Event::CloseImport { volume, id, whole, answer } => self.close_import(volume, id, whole, answer),
            Event::Volume(VolumeRequest { volume, op, done }) => {
                let req = self.request(Origin::Client(done));
                self.mirror(dyad_mirror::Event::Guest { req, volume, op });
            }
            Event::VolumeTable { change, done } => self.change_volume_table(change, Origin::Client(done)),
            Event::Store(done) => self.mirror(dyad_mirror::Event::Stored { op: done.op, result: done.result }),
            Event::Peer(from) => self.peer_says(from),
            Event::Quorum(update) => self.quorum_update(update),
            Event::DocumentRead(DocumentRead { document, term }) => self.document_is(document, term),
            Event::DocumentReadEnded => self.document_read_ended(),
            Event::DocumentLost { why } => self.document_lost(&why),
            Event::ChangeDone { ticket, result } => self.change_done(ticket, result),
            Event::Paired { peer, admitted } => {
                let _ = admitted.send(self.paired(peer));
            }
            Event::Enrolled { witness, answer } => self.enrolled(witness, answer),
            Event::LeaveTimedOut => self.leave_timed_out(),
            Event::LeftForErase { result, answer } => self.left_for_erase(result, answer),
            Event::SelfTestEnded { sentence } => self.self_test_ended(sentence),
            Event::OrphanDeleted { id, result } => self.orphan_deleted(id, result),
        }
    }

    fn request(&mut self, origin: Origin) -> RequestId {
        let req = self.next_request;
        self.next_request += 1;
        self.requests.insert(req, origin);
        req
    }

    fn change_volume_table(&mut self, change: VolumeChange, origin: Origin) {
        let req = self.request(origin);
        self.mirror(dyad_mirror::Event::Volume { req, change });
    }

    /// Whether this node leads the pair now: it writes the document and applies its changes.
    fn leads(&self) -> bool {
        self.config.lead == self.me && self.config.members.has(self.me)
    }

    /// Re-establishes what must follow from the state.
    fn settle(&mut self) {
        self.settle_writers();
        self.settle_servers();
        self.settle_permits();
        self.settle_imports();
        self.settle_volume_gc();
        self.show();
    }

    /// The document, if it says today who owns what: one of an earlier membership is good for logging in, but what it
    /// says of owners may have been overruled since.
    fn authoritative_document(&self) -> Option<&Document> {
        let member = self.config.exists() && self.config.members.has(self.me);
        self.document.as_ref().filter(|_| member && self.term.document_term == Some(self.term.number))
    }

    /// The document's task has read or written a document in the given membership of this node.
    fn document_is(&mut self, document: Document, term: u64) {
        self.term.document_term = Some(term);
        if self.leads() {
            self.deps.peer.send(Wire::DocumentChanged { generation: document.generation });
        }
        self.document = Some(document);
        self.remember_witness();
        self.volume_gc.look_now();
    }

    /// The document's task has done what the last order to read asked for, with or without success.
    fn document_read_ended(&mut self) {
        self.term.read_in_flight = false;
        self.term.read_ended_at = Instant::now();
    }

    /// A member that could not read the document yet asks again, one question at a time and not in haste.
    fn retry_document_read(&mut self) {
        let due = !self.term.read_in_flight && self.term.read_ended_at.elapsed() > DOCUMENT_RETRY_DELAY;
        if due && self.config.exists() && self.config.members.has(self.me) && self.authoritative_document().is_none() {
            self.reload_document();
        }
    }

    /// Neither copy of the document is readable.
    fn document_lost(&mut self, why: &str) {
        self.error = Some(format!("The pair's document is damaged: {why} Restore it from the other node."));
        self.deps.timeline.note("document-lost", why);
    }
}
