//! The one owner of the core's state in a node that belongs to a pair.
//!
//! ```text
//!            ┌──────────── select: the next Event ◄── control, guests, peer, store, conductor, enforcer
//!            ▼
//!   apply(event) ──► mirror.handle ──► actions ──► store, peer session, conductor, guests
//!            │
//!            ▼
//!   settle(): writers, device servers, permits and the status follow from the state; nothing else sets them
//! ```
//!
//! **Invariants.** A volume has a device server only while this node is in the in-sync set and writes it. A VM is
//! permitted only while all its volumes have servers, and the conductor knew of it before anyone else. Who owns what
//! is taken only from a document read since this node last entered the in-sync set ([`Owner::rules`]).

mod erasing;
mod importing;
mod leftovers;
mod mirroring;
mod questions;
mod report;
mod serving;
#[cfg(test)]
mod tests;
mod votes;

pub use importing::Opened;

use crate::conductor::{ConductorHandle, Standpoint};
use crate::documents::Order;
use crate::enforcer;
use crate::event::{Event, Inbox};
use crate::guests::Answer;
use crate::identity::Identity;
use crate::last_document;
use crate::peer::PeerHandle;
use crate::store::StoreHandle;
use crate::timeline::Timeline;
use crate::watchdog;
use dyad_control::{Reply, Status};
use dyad_desired::Document;
use dyad_mirror::{Mirror, Progress, RequestId, VolumeId};
use dyad_quorum::{Config, Members, NodeId};
use dyad_replica::Readmission;
use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::path::PathBuf;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender};
use std::time::{Duration, Instant};
use tokio::sync::{mpsc, oneshot, watch};

/// The mirror wants to hear of time at least this often.
const TICK: Duration = Duration::from_millis(100);
/// Pause before the document is read again that could not be read.
const REREAD: Duration = Duration::from_millis(200);
/// Most events handled between two rounds of [`Owner::settle`]: keeps the status fresh under load.
const BATCH: usize = 256;

/// Everything the owner was given at start.
pub struct Parts {
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
    pub conductor: ConductorHandle,
    /// Freeze, thaw, kill.
    pub enforcer: Sender<enforcer::Order>,
    /// The VMs' cgroup, if there is one.
    pub vms: Option<PathBuf>,
    /// The document's task.
    pub documents: mpsc::UnboundedSender<Order>,
    /// What happened so far.
    pub timeline: Timeline,
    /// Where the status is shown.
    pub status: watch::Sender<Status>,
    /// The watchdog as found at start.
    pub watchdog: Option<watchdog::Facts>,
    /// Names of the peer-link paths, by path number.
    pub paths: Vec<String>,
    /// The tokio runtime for background work.
    pub runtime: tokio::runtime::Handle,
    /// How pairing and enrolment reach the world.
    pub contacts: crate::contacts::Contacts,
}

/// One stay in the in-sync set.
#[derive(Debug)]
struct Tenure {
    /// Counts the stays.
    number: u64,
    /// In which one the document was read.
    read_in: Option<u64>,
    /// A read is ordered and not done.
    asking: bool,
    /// When the last read was done.
    asked_at: Instant,
}

/// The owner.
pub struct Owner {
    parts: Parts,
    me: NodeId,
    config: Config,
    ack_set: Members,
    standpoint: Standpoint,
    peer_vms_allowed: bool,
    readmission: Readmission,
    /// The peer is clean, and quorum is told when the rehoming is done.
    clean_waits: bool,
    connected: bool,
    document: Option<Document>,
    tenure: Tenure,
    requests: HashMap<RequestId, Answer>,
    next_request: RequestId,
    writers: BTreeMap<VolumeId, dyad_mirror::Writer>,
    servers: BTreeMap<VolumeId, serving::Served>,
    /// Volumes that an image is being sent into, by name.
    importing: BTreeSet<String>,
    /// When what came of an image was last dropped.
    dropped: Option<Instant>,
    /// Volumes that the document names no more.
    leftovers: leftovers::Leftovers,
    permits: BTreeSet<String>,
    running: BTreeSet<String>,
    serving: bool,
    vms_known: bool,
    /// The watchdog goes hungry to prove that it resets this node.
    proving: bool,
    progress: Progress,
    dirty_bytes: u64,
    healed: u64,
    trouble: Option<String>,
    forwarded: HashMap<u64, oneshot::Sender<Reply>>,
    goodbye: Vec<oneshot::Sender<Reply>>,
    alarms: BTreeSet<dyad_quorum::Alarm>,
    pairing_code: Option<crate::contacts::OpenCode>,
    revision: u64,
    waiting: VecDeque<dyad_mirror::Event>,
    feeding: bool,
    stopping: bool,
    /// This node was erased: nothing happens here any more until whoever asked knows.
    forsaken: bool,
    /// The pool failed: a leave that began then is not called off.
    pool_failed: bool,
    rehoming: bool,
    held: bool,
    refused: Option<String>,
    /// What guests could not read, as far as it was told.
    unreadable: BTreeSet<(VolumeId, u64)>,
}

impl Owner {
    /// Takes over. `config` is what the register holds at start.
    pub fn new(parts: Parts, config: Config) -> Self {
        let me = parts.identity.me;
        Self {
            me,
            ack_set: config.members,
            config,
            standpoint: Standpoint::default(),
            peer_vms_allowed: false,
            readmission: Readmission::default(),
            clean_waits: false,
            connected: false,
            document: last_document::load(&parts.state),
            tenure: Tenure { number: 0, read_in: None, asking: false, asked_at: Instant::now() },
            requests: HashMap::new(),
            next_request: 1,
            writers: BTreeMap::new(),
            servers: BTreeMap::new(),
            importing: BTreeSet::new(),
            dropped: None,
            leftovers: leftovers::Leftovers::default(),
            permits: BTreeSet::new(),
            running: BTreeSet::new(),
            serving: false,
            vms_known: false,
            proving: false,
            progress: Progress::default(),
            dirty_bytes: 0,
            healed: 0,
            trouble: None,
            forwarded: HashMap::new(),
            goodbye: Vec::new(),
            alarms: BTreeSet::new(),
            pairing_code: None,
            revision: 0,
            waiting: VecDeque::new(),
            feeding: false,
            stopping: false,
            forsaken: false,
            pool_failed: false,
            rehoming: false,
            held: true,
            refused: None,
            unreadable: BTreeSet::new(),
            parts,
        }
    }

    /// Runs until [`Event::Stop`].
    pub fn run(mut self, events: &Receiver<Event>) {
        self.announce_view();
        self.mirror(dyad_mirror::Event::Hold);
        self.repeat_introductions();
        self.settle();
        while !self.stopping {
            match events.recv_timeout(TICK) {
                Ok(event) => {
                    self.apply(event);
                    for event in events.try_iter().take(BATCH) {
                        self.apply(event);
                    }
                }
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => break,
            }
            if !self.forsaken {
                self.mirror(dyad_mirror::Event::Tick);
                self.read_document_anew();
                self.settle();
            }
        }
        self.servers.clear();
    }

    fn apply(&mut self, event: Event) {
        match event {
            Event::Stop => self.stopping = true,
            _ if self.forsaken => {}
            Event::Control { request, answer } => self.question(request, answer),
            Event::OpenImport { volume, bytes, answer } => self.open_import(volume, bytes, answer),
            Event::CloseImport { volume, id, whole, answer } => self.close_import(volume, id, whole, answer),
            Event::Guest { volume, op, done } => {
                let req = self.request(done);
                self.mirror(dyad_mirror::Event::Guest { req, volume, op });
            }
            Event::VolumeTable { change, done } => {
                let req = self.request(done);
                self.mirror(dyad_mirror::Event::Volume { req, change });
            }
            Event::Store(done) => self.mirror(dyad_mirror::Event::Stored { op: done.op, result: done.result }),
            Event::Peer(from) => self.peer_says(from),
            Event::Quorum(news) => self.news(news),
            Event::Call(call) => call(self),
        }
    }

    fn request(&mut self, done: Answer) -> RequestId {
        let req = self.next_request;
        self.next_request += 1;
        self.requests.insert(req, done);
        req
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
        self.settle_leftovers();
        self.show();
    }

    /// The document, if it says today who owns what: one of an earlier membership is good for logging in, but what it
    /// says of owners may have been overruled since.
    fn rules(&self) -> Option<&Document> {
        let member = self.config.exists() && self.config.members.has(self.me);
        self.document.as_ref().filter(|_| member && self.tenure.read_in == Some(self.tenure.number))
    }

    /// The document's task has read or written a document in the given membership of this node.
    pub fn document_is(&mut self, document: Document, tenure: u64) {
        self.tenure.read_in = Some(tenure);
        if self.leads() {
            self.parts.peer.send(crate::peer::Wire::DocumentChanged { generation: document.generation });
        }
        self.document = Some(document);
        self.remember_witness();
        self.leftovers.look_now();
    }

    /// The document's task has done what the last order to read asked for, with or without success.
    pub fn document_asked(&mut self) {
        self.tenure.asking = false;
        self.tenure.asked_at = Instant::now();
    }

    /// A member that could not read the document yet asks again, one question at a time and not in haste.
    fn read_document_anew(&mut self) {
        let due = !self.tenure.asking && self.tenure.asked_at.elapsed() > REREAD;
        if due && self.config.exists() && self.config.members.has(self.me) && self.rules().is_none() {
            self.reload_document();
        }
    }

    /// Neither copy of the document is readable.
    pub fn document_lost(&mut self, why: &str) {
        self.trouble = Some(format!("The pair's document is damaged: {why} Restore it from the other node."));
        self.parts.timeline.note("document-lost", why);
    }
}
