//! What the two cores say to each other over the data session, and what the session's task tells `CoreState`.

use crate::variant_name::VariantName;
use dyad_link::session::Outbox;
use dyad_mirror::PeerMessage;
use dyad_types::{Session, number};
use serde::{Deserialize, Serialize};
use std::fmt;

number! {
    /// Names a [`Wire::Change`] on its way to the peer and back; chosen by the node that asks.
    pub struct ChangeId;
}

/// One message between the two cores.
#[derive(Clone, Serialize, Deserialize)]
pub enum Wire {
    /// A message between the two mirrors.
    Mirror(PeerMessage),
    /// A change of the document that the receiver, as the lead, shall make: JSON of `dyad_desired::Change`.
    Change {
        /// Names the request; the answer carries it.
        id: ChangeId,
        change: String,
    },
    /// The outcome of a [`Wire::Change`]: JSON of `dyad_control::Reply`.
    Changed {
        /// The request's id.
        id: ChangeId,
        reply: String,
    },
    /// Volume 0 holds this generation now, durably on both nodes.
    DocumentChanged { generation: u64 },
}

impl fmt::Debug for Wire {
    /// Without guests' data and without the text of a change, which may carry a password hash.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Mirror(message) => f.debug_tuple("Mirror").field(&VariantName(message)).finish(),
            Self::Change { id, .. } => f.debug_struct("Change").field("id", id).finish_non_exhaustive(),
            Self::Changed { id, reply } => f.debug_struct("Changed").field("id", id).field("reply", reply).finish(),
            Self::DocumentChanged { generation } => {
                f.debug_struct("DocumentChanged").field("generation", generation).finish()
            }
        }
    }
}

/// What the session's task tells `CoreState`.
#[derive(Debug)]
pub enum PeerEvent {
    /// A session stands.
    Up {
        session: Session,
        /// Name of the path that it uses.
        path: String,
        /// The sending end.
        outbox: Outbox,
    },
    /// A session ended.
    Down {
        session: Session,
        /// One clause, for the timeline.
        reason: String,
        /// The peer ended it, on purpose or because its daemon ended: the peer's machine lives.
        closed: bool,
    },
    /// A message came.
    Wire { session: Session, wire: Wire },
    /// A connection was refused, by this node or by the peer.
    Refused {
        /// The local link, by its interface.
        path: String,
        /// One clause, for the timeline.
        reason: String,
    },
}

#[cfg(test)]
mod tests {
    use super::*;
    use dyad_mirror::{Body, Change, PeerOp};
    use dyad_types::{BlockIndex, Epoch, ExtentIndex, Seq, VolumeId};

    /// Numbers with a type of their own have the encoding of a `u64`, so that nodes of two versions understand each
    /// other. If this test fails, the protocol changed.
    #[test]
    fn numbers_of_blocks_and_extents_are_plain_on_the_wire() {
        let encoded = |body| {
            let message = PeerMessage { number: 5, epoch: Epoch(6), body };
            postcard::to_stdvec(&Wire::Mirror(message)).unwrap()
        };
        let (volume, seq, block) = (VolumeId(2), Seq(3), BlockIndex(300));
        let write = Body::Write { op: PeerOp(1), volume, seq, block, data: Change::Discard(4) };
        assert_eq!(encoded(write), [0, 5, 6, 4, 1, 2, 3, 0xac, 2, 1, 4]);
        let touched = Body::Touched { volume, ranges: vec![(ExtentIndex(300), 7)] };
        assert_eq!(encoded(touched), [0, 5, 6, 1, 2, 1, 0xac, 2, 7]);
        let fetch = Body::Fetch { op: PeerOp(1), volume, extent: ExtentIndex(300) };
        assert_eq!(encoded(fetch), [0, 5, 6, 8, 1, 2, 0xac, 2]);
        let changed = Wire::Changed { id: ChangeId(300), reply: "x".into() };
        assert_eq!(postcard::to_stdvec(&changed).unwrap(), [2, 0xac, 2, 1, b'x']);
    }
}
