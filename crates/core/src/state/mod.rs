//! The state of a member. One thread, the core's state thread, reads and changes it.
//!
//! ```text
//!            ┌──────────── select: the next Event ◄── control socket, guests, peer, store, quorum thread, document's task
//!            ▼
//!   apply(event) ──► mirror.handle ──► actions ──► store, peer session, quorum thread, guests
//!            │
//!            ▼
//!   settle(): writers, device servers, permits, imports and the status are derived from the state
//! ```
//!
//! The values lie in owned parts ([`parts`]), each with its own invariants. The files beside this one say what an event
//! means for several parts: one file for each kind of event, and one for each thing that is settled.
//!
//! **Invariants.** A volume has a device server only while this node is in the in-sync set and writes it. A VM is permitted
//! only while all its disks have servers, and the quorum thread is told that VMs run before the permit is shown. The node
//! that writes a volume and the node that runs a VM are taken only from a document that was read in the current membership
//! term ([`CoreState::authoritative_document`]).

mod admission;
mod changes;
mod fence_rule;
mod importing;
mod leaving;
mod mirror_actions;
mod parts;
mod peer_events;
mod quorum_updates;
mod requests;
mod sentences;
mod serving;
mod status;
#[cfg(test)]
mod tests;
mod volume_gc;

use crate::cgroup_fence::CgroupCommand;
use crate::documents::DocumentRequest;
use crate::event::{ControlRequest, DocumentRead, Event, EventSender, MembershipTerm};
use crate::pairing::Pairing;
use crate::peer::PeerHandle;
use crate::peer_wire::CoreMessage;
use crate::quorum_handle::QuorumHandle;
use crate::store::StoreHandle;
use crate::timeline::Timeline;
use crate::volume_request::VolumeRequest;
use crate::watchdog::WatchdogInfo;
use dyad_control::{Status, TimelineKind};
use dyad_desired::Document;
use dyad_mirror::{Mirror, VolumeChange};
use dyad_provision::document_cache;
use dyad_provision::identity::NodeIdentity;
use dyad_quorum::Config;
use dyad_types::NodeId;
use parts::{
    Changes, DocumentCopy, GuestAccess, Imports, Lifecycle, Membership, Replication, ReplyReceiver, Report, SelfTest,
    VolumeGc,
};
use std::path::PathBuf;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};
use tokio::sync::{mpsc, watch};

/// Longest interval between two ticks of the mirror.
const MIRROR_TICK_INTERVAL: Duration = Duration::from_millis(100);
/// Most events handled between two calls of [`CoreState::settle`], so that permits and status follow also under load.
const MAX_EVENT_BATCH: usize = 256;

/// The arguments of [`CoreState::new`].
pub struct Dependencies {
    /// Ids, names, keys and peer addresses from the state folder.
    pub identity: NodeIdentity,
    /// Replicates the volumes; rebuilt from the pool at start.
    pub mirror: Mirror,
    /// The watchdog as it was at start; `None` = this node has none.
    pub watchdog: Option<WatchdogInfo>,
    /// Takes each new status; the tasks of the control socket read it.
    pub status: watch::Sender<Status>,
    /// Threads, tasks, folders and names that [`CoreState`] uses as long as it runs.
    pub handles: CoreHandles,
}

/// The folders and the cgroup that [`CoreState`] uses.
#[derive(Debug, Clone)]
pub struct StatePaths {
    /// Folder of identity, register and caches.
    pub state: PathBuf,
    /// Folder of sockets.
    pub run: PathBuf,
    /// The cgroup below which all VMs run; `None` = a development host without one.
    pub vms_cgroup: Option<PathBuf>,
}

/// Threads, tasks, folders and names that [`CoreState`] uses.
pub struct CoreHandles {
    /// Folders and the cgroup.
    pub paths: StatePaths,
    /// Sends to the queue that [`CoreState::run`] reads: for background tasks, and for events that [`CoreState`] itself
    /// must handle after those already queued.
    pub event_sender: EventSender,
    /// The store's thread.
    pub store: StoreHandle,
    /// Messages to the peer, and the requests to the session's task.
    pub peer: PeerHandle,
    /// The thread of quorum machine, heartbeats and watchdog.
    pub quorum_thread: QuorumHandle,
    /// The thread that freezes and kills VMs; it is told here when VMs may start.
    pub cgroup_fence: std::sync::mpsc::Sender<CgroupCommand>,
    /// Requests to the document's task.
    pub documents: mpsc::UnboundedSender<DocumentRequest>,
    /// Events of this node since the start of the daemon.
    pub timeline: Timeline,
    /// Names of the peer links, by path number.
    pub links: Vec<String>,
    /// The runtime for background tasks.
    pub runtime: tokio::runtime::Handle,
    /// The pairing code, the second node's admission, and enrolment.
    pub pairing: Pairing,
}

/// The state of a member, changed by the core's state thread only.
pub struct CoreState {
    me: NodeId,
    started: Instant,
    identity: NodeIdentity,
    membership: Membership,
    document: DocumentCopy,
    replication: Replication,
    changes: Changes,
    access: GuestAccess,
    imports: Imports,
    volume_gc: VolumeGc,
    self_test: SelfTest,
    report: Report,
    lifecycle: Lifecycle,
    handles: CoreHandles,
}

impl CoreState {
    /// The state at start, with the cached document. `config` is the configuration that the register holds.
    pub fn new(dependencies: Dependencies, config: Config) -> Self {
        let Dependencies { identity, mirror, watchdog, status, handles } = dependencies;
        Self {
            me: identity.me,
            started: Instant::now(),
            membership: Membership::new(identity.me, config),
            identity,
            document: DocumentCopy::new(document_cache::load(&handles.paths.state)),
            replication: Replication::new(mirror),
            changes: Changes::new(crate::clock::now().0),
            access: GuestAccess::default(),
            imports: Imports::default(),
            volume_gc: VolumeGc::default(),
            self_test: SelfTest::new(watchdog),
            report: Report::new(status),
            lifecycle: Lifecycle::Running,
            handles,
        }
    }

    /// Runs until [`Event::Stop`].
    pub fn run(mut self, events: &Receiver<Event>) {
        self.announce_view();
        self.feed_mirror(dyad_mirror::Event::Hold);
        self.repeat_introductions();
        self.settle();
        while !self.lifecycle.is_stopping() {
            match events.recv_timeout(MIRROR_TICK_INTERVAL) {
                Ok(event) => {
                    self.apply(event);
                    for event in events.try_iter().take(MAX_EVENT_BATCH) {
                        self.apply(event);
                    }
                }
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => break,
            }
            if self.lifecycle.is_active() {
                self.feed_mirror(dyad_mirror::Event::Tick);
                self.retry_document_read();
                self.settle();
            }
        }
        self.access.servers.clear();
    }

    fn apply(&mut self, event: Event) {
        tracing::trace!(?event);
        match event {
            Event::Stop => self.lifecycle = Lifecycle::Stopping,
            _ if !self.lifecycle.is_active() => {}
            Event::Control(ControlRequest { request, answer }) => self.handle_request(request, answer),
            Event::OpenImport { volume, bytes, answer } => self.open_import(volume, bytes, answer),
            Event::CloseImport { volume, id, whole, answer } => self.close_import(volume, id, whole, answer),
            Event::Volume(VolumeRequest { volume, op, reply_to }) => {
                let req = self.replication.add_request(ReplyReceiver::Client(reply_to));
                self.feed_mirror(dyad_mirror::Event::Guest { req, volume, op });
            }
            Event::VolumeTable { change, reply_to } => {
                self.change_volume_table(change, ReplyReceiver::Client(reply_to))
            }
            Event::Store(done) => self.feed_mirror(dyad_mirror::Event::Stored { op: done.op, result: done.result }),
            Event::Peer(from) => self.handle_peer_event(from),
            Event::Quorum(update) => self.apply_quorum_update(update),
            Event::DocumentRead(DocumentRead { document, term }) => self.set_document(document, term),
            Event::DocumentReadEnded => self.document.read_ended(),
            Event::DocumentLost { why } => self.document_lost(&why),
            Event::ChangeDone { ticket, result } => self.change_done(ticket, result),
            Event::Paired { peer, admitted } => {
                let _ = admitted.send(self.admit_second_node(peer));
            }
            Event::Enrolled { witness, answer } => self.enrolled(witness, answer),
            Event::LeaveTimedOut { begun } => self.leave_timed_out(begun),
            Event::HandOverTimedOut => self.hand_over_timed_out(),
            Event::LeftForErase { result, answer } => self.left_for_erase(result, answer),
            Event::SelfTestEnded { sentence } => self.self_test_ended(sentence),
            Event::OrphanDeleted { id, result } => self.orphan_deleted(id, result),
        }
    }

    fn change_volume_table(&mut self, change: VolumeChange, receiver: ReplyReceiver) {
        let req = self.replication.add_request(receiver);
        self.feed_mirror(dyad_mirror::Event::Volume { req, change });
    }

    /// Whether this node leads the pair: it writes the document and applies its changes.
    fn leads(&self) -> bool {
        self.membership.leads()
    }

    /// Derives from the state what must follow from it: writers, device servers, permits, one aborted import to drop, one
    /// orphaned volume to delete, and the status.
    fn settle(&mut self) {
        self.settle_writers();
        self.settle_servers();
        self.settle_permits();
        self.settle_imports();
        self.settle_volume_gc();
        self.show();
    }

    /// The document that decides placement: only a member has one, and only if it was read in the current membership term.
    fn authoritative_document(&self) -> Option<&Document> {
        self.document.of_this_term().filter(|_| self.membership.is_member())
    }

    /// Takes a document that the document's task has read or written in the membership term `term` of this node. The lead
    /// tells the peer.
    fn set_document(&mut self, document: Document, term: MembershipTerm) {
        if self.leads() {
            self.handles.peer.send(CoreMessage::DocumentChanged { generation: document.generation });
        }
        self.document.set(document, term);
        self.report.document_error = None;
        self.remember_witness();
        self.volume_gc.scan_now();
    }

    /// Asks for the document again if this node is a member and could not read it yet.
    fn retry_document_read(&mut self) {
        if self.document.retry_is_due() && self.membership.is_member() && self.authoritative_document().is_none() {
            self.reload_document();
        }
    }

    /// Reports that neither slot of the document is readable.
    fn document_lost(&mut self, why: &str) {
        let sentence = format!("The pair's document is damaged: {why} Restore it from the other node.");
        self.report.document_error = Some(sentence);
        self.handles.timeline.note(TimelineKind::DocumentLost, why);
    }
}
