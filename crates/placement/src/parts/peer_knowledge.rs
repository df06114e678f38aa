//! What is known of the peer's document, in the present session, and the volumes whose writer is about to change.

use dyad_types::{BootTime, VolumeId};
use std::collections::BTreeMap;

/// What is known of the peer's document, in the present session.
#[derive(Debug, Default)]
pub(crate) struct PeerKnowledge {
    /// A session with the peer is connected.
    pub(crate) connected: bool,
    /// The newest generation that the peer has told to know.
    pub(crate) peer: Option<u64>,
    /// The generation that the peer was told last.
    pub(crate) told: Option<u64>,
    /// Volumes that this node is about to write, and what it waits for.
    pub(crate) awaited: BTreeMap<VolumeId, Awaited>,
}

impl PeerKnowledge {
    /// A session began: the peer may be another run of its daemon, and has been told nothing.
    pub(crate) fn session_begins(&mut self) {
        (self.connected, self.peer, self.told) = (true, None, None);
    }

    pub(crate) fn session_ended(&mut self) {
        self.connected = false;
    }
}

/// The wait before a volume gets this node as its writer.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Awaited {
    /// The generation that the peer must know.
    pub(crate) generation: u64,
    pub(crate) since: BootTime,
}
