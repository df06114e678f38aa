//! The events that [`CoreState`](crate::state::CoreState) handles, as one closed list that can be printed.
//!
//! **Invariants.** An event is data and the place to which its result goes (the end of a channel, or the job of a device):
//! the code that handles it stands in [`crate::state`] alone. Its `Debug` form, which is logged at level `trace`, holds no data
//! of a guest, no password hash and no one-time code.

use crate::peer_wire::PeerEvent;
use crate::quorum_update::QuorumUpdate;
use crate::variant_name::VariantName;
use crate::volume_request::{VolumeError, VolumeReplyTo, VolumeRequest};
use dyad_control::{Refusal, Reply, Request};
use dyad_desired::Document;
use dyad_mirror::{StoreError, StoreOp, StoreOutput, VolumeChange};
use dyad_provision::identity::{Peer, Witness};
use dyad_types::{VolumeId, number};
use std::fmt;
use std::sync::mpsc::Sender;
use tokio::sync::oneshot;

/// One input of the core's state thread.
#[derive(Debug)]
pub enum Event {
    /// A request from the local socket.
    Control(ControlRequest),
    /// A client wants to fill a volume with an image.
    OpenImport {
        /// As the document names it.
        volume: String,
        /// Length of the image in bytes.
        bytes: u64,
        /// The volume that the image is written into, or the refusal. Who receives a volume sends
        /// [`Event::CloseImport`].
        answer: oneshot::Sender<Result<ImportTarget, Refusal>>,
    },
    /// The connection that sends an image has ended: the image is whole and durable, or the import is given up.
    CloseImport {
        /// As the document names it.
        volume: String,
        /// Id of the volume that the image was written into.
        id: VolumeId,
        /// All of the image is durable there.
        whole: bool,
        /// The outcome of the change of the document.
        answer: oneshot::Sender<Result<(), Refusal>>,
    },
    /// A guest, an import or the document asks a volume for something.
    Volume(VolumeRequest),
    /// A volume is to be made, grown or deleted on every in-sync node.
    VolumeTable { change: VolumeChange, reply_to: VolumeReplyTo },
    /// The store's thread has carried out a command of the mirror.
    Store(StoreDone),
    /// From the session with the peer.
    Peer(PeerEvent),
    /// From the quorum thread: membership, leases, fences.
    Quorum(QuorumUpdate),
    /// The document's task has read or written a document.
    DocumentRead(DocumentRead),
    /// The document's task has carried out the last request to read, with or without success.
    DocumentReadEnded,
    /// Neither copy of the document is readable.
    DocumentLost {
        /// One sentence with the reason, for the alarm.
        why: String,
    },
    /// A change of the document was decided. The changed document was sent as [`Event::DocumentRead`] before.
    ChangeDone {
        ticket: Ticket,
        /// `Ok` = durable on every in-sync node.
        result: Result<(), Refusal>,
    },
    /// The second node has proven the code and is ready to be admitted.
    Paired {
        /// The second node.
        peer: Peer,
        /// `true` once this node has written the second one down.
        admitted: oneshot::Sender<bool>,
    },
    /// The pair is enrolled at a witness.
    Enrolled {
        witness: Witness,
        /// Answers the client that asked for it.
        answer: oneshot::Sender<Reply>,
    },
    /// [`crate::state`] waited long enough for the other node to take over.
    LeaveTimedOut,
    /// The leave that precedes an erasure has ended.
    LeftForErase {
        /// `Ok` = the quorum machine says that it is complete.
        result: Result<(), Refusal>,
        /// Answers the client that asked for the erasure.
        answer: oneshot::Sender<Reply>,
    },
    /// The watchdog test ended without a reset.
    SelfTestEnded {
        /// What it showed.
        sentence: String,
    },
    /// The deletion of a volume that the document does not name has ended.
    OrphanDeleted { id: VolumeId, result: Result<(), VolumeError> },
    /// The process was told to end.
    Stop,
}

/// A request from the local socket.
pub struct ControlRequest {
    pub request: Request,
    /// Takes the answer.
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
    /// Names the command.
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

number! {
    /// Number of a membership term: one stay of this node in the in-sync set. Counted from 0 in each run of the daemon.
    pub struct MembershipTerm;
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

/// Names one change of the document from the moment it is asked for until it is decided. Never used twice in one life of
/// the daemon.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ticket(pub u64);

/// The sending end of the core's event queue.
#[derive(Debug, Clone)]
pub struct Inbox(pub Sender<Event>);

impl Inbox {
    /// Appends an event to the queue. The core's state thread lives as long as the process; after its end events are dropped.
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
    fn an_event_is_printed_without_secrets_and_data() {
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
