//! Everything that can happen to the owner of the core's state, as one closed list.

use crate::guests::Answer;
use crate::peer::FromPeer;
use crate::quorum_thread::QuorumUpdate;
use crate::state::Opened;
use crate::store::StoreDone;
use dyad_control::{Reply, Request};
use dyad_mirror::{GuestOp, VolumeChange, VolumeId};
use std::sync::mpsc::Sender;
use tokio::sync::oneshot;

/// What the owner's `select` yields.
pub enum Event {
    /// A question from the local socket.
    Control {
        /// The question.
        request: Request,
        /// Where the answer goes.
        answer: oneshot::Sender<Reply>,
    },
    /// A client wants to fill a volume.
    OpenImport {
        /// Name of the volume.
        volume: String,
        /// Bytes to come.
        bytes: u64,
        /// The writing end of what the image is sent into, or the refusal. Whoever gets it closes the import.
        answer: Opened,
    },
    /// The image came whole, or does not come.
    CloseImport {
        /// Name of the volume.
        volume: String,
        /// What it was sent into.
        id: VolumeId,
        /// All of it is durable there.
        whole: bool,
        /// [`Reply::Done`], or a refusal.
        answer: oneshot::Sender<Reply>,
    },
    /// A guest, an import or the document asks a volume for something.
    Guest {
        /// Id of the volume.
        volume: u64,
        /// What.
        op: GuestOp,
        /// Called with the outcome.
        done: Answer,
    },
    /// A volume is to be made, grown or deleted on every in-sync node.
    VolumeTable {
        /// The change.
        change: VolumeChange,
        /// Called with the outcome.
        done: Answer,
    },
    /// The pool has done what the mirror asked.
    Store(StoreDone),
    /// From the peer session.
    Peer(FromPeer),
    /// From the quorum_thread: membership, leases, fences.
    Quorum(QuorumUpdate),
    /// A background task wants something done by the owner.
    Call(Box<dyn FnOnce(&mut crate::state::CoreState) + Send>),
    /// Time to end.
    Stop,
}

/// The way in.
#[derive(Clone)]
pub struct Inbox(pub Sender<Event>);

impl Inbox {
    /// Delivers an event. The owner lives as long as the process; after its end nobody cares.
    pub fn send(&self, event: Event) {
        let _ = self.0.send(event);
    }
}
