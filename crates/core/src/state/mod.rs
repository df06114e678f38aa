//! The state of a member. One thread, the core's state thread, reads and changes it.
//!
//! ```text
//!            ┌──────────── select: the next Event ◄── control socket, guests, peer, store, quorum thread, document's task
//!            ▼
//!   apply(event) ──► mirror.handle ──► actions ──► store, peer session, quorum thread, guests
//!            │
//!            ▼
//!   settle(): writers, device servers, permits and the status are derived from the state
//! ```
//!
//! The values lie in owned parts ([`parts`]), each with its own invariants. The files beside this one say what an event
//! means for several parts: one file for each kind of event, and one for each thing that is settled.
//!
//! Which node writes a volume, which volumes are served and which VMs may run is decided by the crate `placement`, which the
//! simulator drives as well. Here its actions are carried out (`placing`).
//!
//! **Invariant.** The status shows a permit only after the actions of placement that came before it were carried out.

mod admission;
mod changes;
mod importing;
mod leaving;
mod mirror_actions;
mod parts;
mod peer_events;
mod placing;
mod quorum_updates;
mod requests;
mod sentences;
mod status;
#[cfg(test)]
mod tests;

use crate::documents::DocumentInput;
use crate::event::{ControlRequest, DocumentRead, Event, EventSender};
use crate::pairing::Pairing;
use crate::peer::PeerHandle;
use crate::quorum_handle::QuorumHandle;
use crate::quorum_update::QuorumSnapshot;
use crate::store::StoreHandle;
use crate::timeline::Timeline;
use crate::volume_request::VolumeRequest;
use crate::watchdog::WatchdogInfo;
use dyad_control::{Status, TimelineKind};
use dyad_desired::Document;
use dyad_mirror::{Mirror, VolumeChange};
use dyad_placement::CgroupCommand;
use dyad_placement::{Lifecycle, MembershipTerm, Placement};
use dyad_provision::document_cache;
use dyad_provision::identity::NodeIdentity;
use dyad_quorum::Config;
use dyad_types::NodeId;
use parts::{Changes, GuestAccess, LeaveWaiter, PlacementActions, Replication, ReplyReceiver, Report, SelfTest};
use std::path::PathBuf;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::Duration;
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
    pub documents: mpsc::UnboundedSender<DocumentInput>,
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
    identity: NodeIdentity,
    placement: Placement,
    placement_actions: PlacementActions,
    /// The state of the quorum machine, as its thread reported it last.
    quorum: QuorumSnapshot,
    replication: Replication,
    changes: Changes,
    access: GuestAccess,
    self_test: SelfTest,
    report: Report,
    /// The clients that are answered at the end of the leave.
    leave_waiters: Vec<LeaveWaiter>,
    handles: CoreHandles,
}

impl CoreState {
    /// The state at start, with the cached document. `config` is the configuration that the register holds.
    pub fn new(dependencies: Dependencies, config: Config) -> Self {
        let Dependencies { identity, mirror, watchdog, status, handles } = dependencies;
        Self {
            me: identity.me,
            placement: Placement::new(
                identity.me,
                config,
                document_cache::load(&handles.paths.state),
                crate::clock::now(),
            ),
            placement_actions: PlacementActions::default(),
            quorum: QuorumSnapshot::default(),
            identity,
            replication: Replication::new(mirror),
            changes: Changes::new(crate::clock::now().0),
            access: GuestAccess::default(),
            self_test: SelfTest::new(watchdog),
            report: Report::new(status),
            leave_waiters: Vec::new(),
            handles,
        }
    }

    /// Runs until [`Event::Stop`].
    pub fn run(mut self, events: &Receiver<Event>) {
        self.begin();
        self.repeat_introductions();
        self.settle();
        while self.placement.lifecycle() != Lifecycle::Stopping {
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
            if self.placement.lifecycle().is_active() {
                self.feed_mirror(dyad_mirror::Event::Tick);
                self.settle();
            }
        }
        self.access.servers.clear();
    }

    fn apply(&mut self, event: Event) {
        tracing::trace!(?event);
        match event {
            Event::Stop => self.place(dyad_placement::Event::Stop),
            _ if !self.placement.lifecycle().is_active() => {}
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
            Event::StoreProgress { op, steps } => {
                self.feed_mirror(dyad_mirror::Event::StoreProgress { op, steps });
            }
            Event::StoreDamaged { volume, extent } => {
                self.feed_mirror(dyad_mirror::Event::Damaged { volume, extent });
            }
            Event::Peer(from) => self.handle_peer_event(from),
            Event::Quorum(update) => self.apply_quorum_update(update),
            Event::DocumentRead(DocumentRead { document, term }) => self.set_document(document, term),
            Event::DocumentReadEnded => self.place(dyad_placement::Event::DocumentReadEnded),
            Event::DocumentLost { why } => self.document_lost(&why),
            Event::ChangeDone { ticket, result } => self.change_done(ticket, result),
            Event::Paired { peer, admitted } => {
                let _ = admitted.send(self.admit_second_node(peer));
            }
            Event::Enrolled { witness, answer } => self.enrolled(witness, answer),
            Event::TimedOut(timer) => self.place(dyad_placement::Event::TimedOut(timer)),
            Event::LeftForErase { result, answer } => self.left_for_erase(result, answer),
            Event::SelfTestEnded { sentence } => self.self_test_ended(sentence),
            Event::OrphanDeleted { id, result } => self.orphan_deleted(id, result),
        }
    }

    fn change_volume_table(&mut self, change: VolumeChange, receiver: ReplyReceiver) {
        let req = self.replication.add_request(receiver);
        self.feed_mirror(dyad_mirror::Event::Volume { req, change });
    }

    /// The mirror gets its first view and holds guests' requests.
    fn begin(&mut self) {
        let mut actions = Vec::new();
        self.placement.begin(&mut actions);
        self.carry_out_placement(actions);
    }

    /// Derives from the state what must follow from it: placement, and the status.
    fn settle(&mut self) {
        self.settle_placement();
        self.show();
    }

    /// Takes a document that the document's task has read or written in the membership term `term` of this node.
    fn set_document(&mut self, document: Document, term: MembershipTerm) {
        self.place(dyad_placement::Event::DocumentRead { document, term });
        self.report.document_error = None;
        self.remember_witness();
    }

    /// Has the document read: as the writer of volume 0, or from the local replica.
    fn reload_document(&mut self) {
        self.place(dyad_placement::Event::ReadDocument);
    }

    /// Reports that neither slot of the document is readable.
    fn document_lost(&mut self, why: &str) {
        let sentence = format!("The pair's document is damaged: {why} Restore it from the other node.");
        self.report.document_error = Some(sentence);
        self.handles.timeline.note(TimelineKind::DocumentLost, why);
    }
}
