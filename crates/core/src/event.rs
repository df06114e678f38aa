//! The events that [`CoreState`](crate::state::CoreState) handles, as one closed list that can be printed.
//!
//! **Invariants.** An event is data and the receiver of its result (the end of a channel, or the job of a device), never code
//! to run. On a member only [`crate::state`] handles events. The `Debug` form, which is logged at level `trace`, holds no
//! data of a guest, no password hash and no one-time code.

use crate::peer_wire::PeerEvent;
use crate::quorum_update::QuorumUpdate;
use crate::variant_name::VariantName;
use crate::volume_request::{VolumeError, VolumeReplyTo, VolumeRequest};
use dyad_control::{Refusal, Reply, Request};
use dyad_desired::Document;
use dyad_mirror::{StoreError, StoreOp, StoreOutput, VolumeChange};
use dyad_placement::{ChangeTicket, MembershipTerm, Timer};
use dyad_provision::identity::{Peer, Witness};
use dyad_types::{ExtentIndex, VolumeId};
use std::fmt;
use std::sync::mpsc::Sender;
use tokio::sync::oneshot;

/// One input of the core's state thread.
#[derive(Debug)]
pub enum Event {
    /// A request from the local socket.
    Control(ControlRequest),
    /// A client wants to replace the content of a volume by an image.
    OpenImport {
        /// Name of the volume in the document.
        volume: String,
        /// Length of the image in bytes.
        bytes: u64,
        /// Gets the new volume for the image, or the refusal. The task that gets a volume sends [`Event::CloseImport`]
        /// later.
        answer: oneshot::Sender<Result<ImportTarget, Refusal>>,
    },
    /// The image has arrived completely, or the import is given up.
    CloseImport {
        /// Name of the volume in the document.
        volume: String,
        /// Id of the volume that the image was written into.
        id: VolumeId,
        /// The complete image is durable in that volume.
        whole: bool,
        /// Gets the outcome of `FinishImport` or `DropImport`.
        answer: oneshot::Sender<Result<(), Refusal>>,
    },
    /// A request to a volume: from a guest, an import or the document's task.
    Volume(VolumeRequest),
    /// A volume is to be made, grown or deleted on every in-sync node.
    VolumeTable { change: VolumeChange, reply_to: VolumeReplyTo },
    /// The store's thread has carried out a command of the mirror.
    Store(StoreDone),
    /// A command of the mirror waits for a checkpoint, of which the disks have completed a step.
    StoreProgress {
        /// Id that the mirror gave the command.
        op: StoreOp,
        /// Number of steps that were completed since the pool was opened.
        steps: u64,
    },
    /// A checkpoint of the store has found damage.
    StoreDamaged { volume: VolumeId, extent: ExtentIndex },
    /// An event of the session with the peer.
    Peer(PeerEvent),
    /// An update of membership, leases, fences or alarms.
    Quorum(QuorumUpdate),
    /// The document's task has read or written a document.
    DocumentRead(DocumentRead),
    /// The document's task has carried out the last request to read, with or without success.
    DocumentReadEnded,
    /// Neither copy of the document is readable.
    DocumentLost {
        /// One sentence with the reason, for timeline and status.
        why: String,
    },
    /// A change of the document was decided. The changed document was sent as [`Event::DocumentRead`] before.
    ChangeDone {
        ticket: ChangeTicket,
        /// `Ok` = durable on every in-sync node.
        result: Result<(), Refusal>,
    },
    /// The second node has proven the code and is ready to be admitted.
    Paired {
        /// Name, fingerprint and incarnation of the second node.
        peer: Peer,
        /// Gets `true` once this node's identity names the second node durably, `false` if that failed.
        admitted: oneshot::Sender<bool>,
    },
    /// The pair is enrolled at a witness.
    Enrolled {
        witness: Witness,
        /// Answers the client that asked for it.
        answer: oneshot::Sender<Reply>,
    },
    /// The time of [`dyad_placement::Action::After`] is over.
    TimedOut(Timer),
    /// The leave that precedes an erasure has ended.
    LeftForErase {
        /// `Ok` = the quorum machine says that it is complete.
        result: Result<(), Refusal>,
        /// Answers the client that asked for the erasure.
        answer: oneshot::Sender<Reply>,
    },
    /// The watchdog test ended without a reset.
    SelfTestEnded {
        /// The outcome, for the timeline.
        sentence: String,
    },
    /// The deletion of a volume that the document does not name has ended.
    OrphanDeleted { id: VolumeId, result: Result<(), VolumeError> },
    /// The process was told to end: by SIGTERM, or after a decommission.
    Stop,
}

/// A request from the local socket.
pub struct ControlRequest {
    pub request: Request,
    /// Gets the reply, at once or when the work is done.
    pub answer: oneshot::Sender<Reply>,
}

impl fmt::Debug for ControlRequest {
    /// The kind only: requests carry password hashes and one-time codes.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("ControlRequest").field(&VariantName(&self.request)).finish()
    }
}

/// A volume that an image is written into.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ImportTarget {
    pub id: VolumeId,
    /// Its size in bytes.
    pub size: u64,
}

/// A finished command of the store.
pub struct StoreDone {
    /// Id that the mirror gave the command.
    pub op: StoreOp,
    pub result: Result<StoreOutput, StoreError>,
}

impl fmt::Debug for StoreDone {
    /// Without the data that was read: it is a guest's.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let result = self.result.as_ref().map(VariantName);
        f.debug_struct("StoreDone").field("op", &self.op).field("result", &result).finish()
    }
}

/// A document, read or written.
pub struct DocumentRead {
    pub document: Document,
    /// The membership term of this node in which it was read.
    pub term: MembershipTerm,
}

impl fmt::Debug for DocumentRead {
    /// The generation only: the document holds password hashes.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut shown = f.debug_struct("DocumentRead");
        shown.field("generation", &self.document.generation).field("term", &self.term).finish_non_exhaustive()
    }
}

/// The sending end of the event queue that the core's state thread reads.
#[derive(Debug, Clone)]
pub struct EventSender(pub Sender<Event>);

impl EventSender {
    /// Appends an event to the queue. The core's state thread lives as long as the process; after its end events are
    /// dropped.
    pub fn send(&self, event: Event) {
        let _ = self.0.send(event);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use dyad_mirror::GuestOp;
    use dyad_types::BlockIndex;

    /// A guest's bytes, a password hash and a code must not reach the log.
    #[test]
    fn the_debug_form_of_an_event_holds_no_secrets_and_no_data() {
        let (sender, _) = oneshot::channel();
        let op = GuestOp::Write { block: BlockIndex(7), data: vec![b'x'; 8192].into() };
        let write = Event::Volume(VolumeRequest { volume: VolumeId(3), op, reply_to: VolumeReplyTo::Task(sender) });
        assert_eq!(format!("{write:?}"), "Volume(VolumeRequest(Task Write volume 3 block 7 count 2))");
        let (answer, _) = oneshot::channel();
        let enrol = dyad_control::Enrol { address: "witness".into(), code: "12345".into() };
        let control = Event::Control(ControlRequest { request: Request::Enrol(enrol), answer });
        assert_eq!(format!("{control:?}"), "Control(ControlRequest(Enrol))");
        let read = StoreDone { op: StoreOp(9), result: Ok(StoreOutput::Data(vec![b'x'; 4096].into())) };
        assert_eq!(format!("{:?}", Event::Store(read)), "Store(StoreDone { op: 9, result: Ok(Data) })");
    }
}
