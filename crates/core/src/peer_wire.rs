//! Messages between the two cores over the data session, and the events of the session's task for `CoreState`.

use crate::variant_name::VariantName;
use dyad_link::session::Outbox;
use dyad_mirror::PeerMessage;
use dyad_types::{Session, number};
use serde::{Deserialize, Serialize};
use std::fmt;
use tokio::sync::OwnedSemaphorePermit;

number! {
    /// Number of a [`CoreMessage::Change`], chosen by the node that sends it; the answer carries it.
    pub struct ChangeId;
}

/// One message between the two cores. postcard encodes it by the position of its variants: append only.
#[derive(Clone, Serialize, Deserialize)]
pub enum CoreMessage {
    /// A message between the two mirrors.
    Mirror(PeerMessage),
    /// A change of the document for the receiver, which leads the pair.
    Change {
        id: ChangeId,
        /// JSON of `dyad_desired::Change`.
        change: String,
    },
    /// The outcome of a [`CoreMessage::Change`].
    Changed {
        /// The id in that message.
        id: ChangeId,
        /// JSON of `dyad_control::Reply`.
        reply: String,
    },
    /// The sender has read or written this generation of the document, and its mirror knows the writers that follow from it.
    /// From the lead it is durable on every in-sync node.
    DocumentKnown { generation: u64 },
}

impl fmt::Debug for CoreMessage {
    /// Without guests' data and without the text of a change, which may carry a password hash.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Mirror(message) => f.debug_tuple("Mirror").field(&VariantName(message)).finish(),
            Self::Change { id, .. } => f.debug_struct("Change").field("id", id).finish_non_exhaustive(),
            Self::Changed { id, reply } => f.debug_struct("Changed").field("id", id).field("reply", reply).finish(),
            Self::DocumentKnown { generation } => {
                f.debug_struct("DocumentKnown").field("generation", generation).finish()
            }
        }
    }
}

/// An event of the session's task for `CoreState`.
#[derive(Debug)]
pub enum PeerEvent {
    /// A session is connected.
    Up {
        session: Session,
        /// Name of the path that it uses.
        path: String,
        /// Queue of messages to the peer. Dropping its last copy ends the session.
        outbox: Outbox,
    },
    /// A session ended.
    Down {
        session: Session,
        /// One clause, for the timeline.
        reason: String,
        /// The peer's kernel ended the connection, so the peer has power, even if its daemon has died.
        closed: bool,
    },
    /// A message arrived.
    Message {
        session: Session,
        message: CoreMessage,
        /// Its room in the core's queue of events. While too much waits there, the peer is not read.
        room: OwnedSemaphorePermit,
    },
    /// No session could be made: this node or the peer refused it, or the local port could not be opened.
    Refused {
        /// Interface of the link; `local` if no link is concerned.
        path: String,
        /// One clause, for the timeline.
        reason: String,
    },
}

#[cfg(test)]
mod tests {
    use super::*;
    use dyad_mirror::{Body, Change, PeerOp};
    use dyad_types::{BlockIndex, Epoch, ExtentImage, ExtentIndex, Seq, Stamp, VolumeId};

    /// Numbers with a type of their own have the encoding of a `u64`, so that nodes of two versions understand each
    /// other. If this test fails, the protocol changed.
    #[test]
    fn numbers_of_blocks_and_extents_are_encoded_as_plain_integers() {
        let encoded = |body| {
            let message = PeerMessage { number: 5, epoch: Epoch(6), body };
            postcard::to_stdvec(&CoreMessage::Mirror(message)).unwrap()
        };
        let (volume, seq, block) = (VolumeId(2), Seq(3), BlockIndex(300));
        let write = Body::Write { op: PeerOp(1), volume, seq, block, data: Change::Discard(4) };
        assert_eq!(encoded(write), [0, 5, 6, 4, 1, 2, 3, 0xac, 2, 1, 4]);
        let touched = Body::Touched { volume, ranges: vec![(ExtentIndex(300), 7)] };
        assert_eq!(encoded(touched), [0, 5, 6, 1, 2, 1, 0xac, 2, 7]);
        let fetch = Body::Fetch { op: PeerOp(1), volume, extent: ExtentIndex(300) };
        assert_eq!(encoded(fetch), [0, 5, 6, 8, 1, 2, 0xac, 2]);
        let image = ExtentImage { bad: 1, ..ExtentImage::default() };
        let stamp = Stamp { epoch: Epoch(6), seq };
        let lost = Body::ExtentWithLost { op: PeerOp(1), volume, stamp, extent: ExtentIndex(300), image, lost: 1 };
        assert_eq!(encoded(lost), [0, 5, 6, 15, 1, 2, 6, 3, 0xac, 2, 0, 1, 0, 1]);
        let changed = CoreMessage::Changed { id: ChangeId(300), reply: "x".into() };
        assert_eq!(postcard::to_stdvec(&changed).unwrap(), [2, 0xac, 2, 1, b'x']);
    }
}
