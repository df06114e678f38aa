//! What the two cores say to each other over the data session, and what the session's task tells the owner of the state.

use crate::variant_name::VariantName;
use dyad_link::session::Outbox;
use dyad_mirror::PeerMessage;
use dyad_types::Session;
use serde::{Deserialize, Serialize};
use std::fmt;

/// One message between the two cores.
#[derive(Clone, Serialize, Deserialize)]
pub enum Wire {
    /// A message between the two mirrors.
    Mirror(PeerMessage),
    /// A change of the document that the receiver, as the lead, shall make: JSON of `dyad_desired::Change`.
    Change {
        /// Names the request; the answer carries it.
        id: u64,
        change: String,
    },
    /// The outcome of a [`Wire::Change`]: JSON of `dyad_control::Reply`.
    Changed {
        /// The request's id.
        id: u64,
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

/// What the session's task tells the owner of the state.
#[derive(Debug)]
pub enum PeerEvent {
    /// A session stands.
    Up {
        /// Number of the session.
        session: Session,
        /// Name of the path that it uses.
        path: String,
        /// The sending end.
        outbox: Outbox,
    },
    /// A session ended.
    Down {
        /// Number of the session.
        session: Session,
        /// One clause, for the timeline.
        reason: String,
        /// The peer ended it, on purpose or because its daemon ended: the peer's machine lives.
        closed: bool,
    },
    /// A message came.
    Wire {
        /// Number of the session.
        session: Session,
        wire: Wire,
    },
    /// A connection was refused, by this node or by the peer.
    Refused {
        /// Name of the path.
        path: String,
        /// One clause, for the timeline.
        reason: String,
    },
}
