//! The mirror, the requests that it has not answered, and the session over which it reaches the peer.
//!
//! **Invariants.** Each request has one [`Origin`], which gets one answer. The mirror takes one event at a time: what comes
//! up while the actions of an event are carried out waits in `waiting`, or actions of two events would mix.

use crate::volume_request::VolumeReplyTo;
use dyad_mirror::{Event, Mirror, Progress, RequestId};
use dyad_types::{ExtentIndex, VolumeId};
use std::collections::{BTreeSet, HashMap, VecDeque};

/// Most unreadable extents that the timeline tells of.
const MAX_UNREADABLE_NOTES: usize = 100;

/// Where the result of a request to the mirror goes.
#[derive(Debug)]
pub(in crate::state) enum Origin {
    /// To a guest, an import or the document's task.
    Client(VolumeReplyTo),
    /// To `CoreState` itself: this volume, which the document does not name, is being deleted.
    VolumeGc { id: VolumeId },
}

/// Replication on this node.
pub(in crate::state) struct Replication {
    pub(in crate::state) mirror: Mirror,
    /// Requests without an answer.
    origins: HashMap<RequestId, Origin>,
    last_request: RequestId,
    waiting: VecDeque<Event>,
    /// An event is being handled.
    feeding: bool,
    /// A session with the peer stands.
    pub(in crate::state) connected: bool,
    /// Why the last session was refused, as far as the timeline tells of it.
    refused: Option<String>,
    /// The resync that runs or ran last.
    pub(in crate::state) progress: Progress,
    /// Bytes that this resync had to copy when it began.
    pub(in crate::state) dirty_bytes: u64,
    /// Extents healed from the peer since the daemon started.
    pub(in crate::state) healed: u64,
    /// Extents that guests could not read, as far as the timeline tells of them.
    unreadable: BTreeSet<(VolumeId, ExtentIndex)>,
}

impl Replication {
    /// Without a session and without requests.
    pub(in crate::state) fn new(mirror: Mirror) -> Self {
        Self {
            mirror,
            origins: HashMap::new(),
            last_request: RequestId::default(),
            waiting: VecDeque::new(),
            feeding: false,
            connected: false,
            refused: None,
            progress: Progress::default(),
            dirty_bytes: 0,
            healed: 0,
            unreadable: BTreeSet::new(),
        }
    }

    /// Records where the result of a request goes, and gives the request an id.
    pub(in crate::state) fn open(&mut self, origin: Origin) -> RequestId {
        let request = self.last_request.advance();
        self.origins.insert(request, origin);
        request
    }

    /// The request is answered: where the answer goes.
    pub(in crate::state) fn close(&mut self, request: RequestId) -> Option<Origin> {
        self.origins.remove(&request)
    }

    /// Lets an event wait for the mirror. `false` = an event is being handled, and this one follows it.
    pub(in crate::state) fn begin_feeding(&mut self, event: Event) -> bool {
        self.waiting.push_back(event);
        !std::mem::replace(&mut self.feeding, true)
    }

    /// The next event for the mirror. `None` ends what [`Self::begin_feeding`] began.
    pub(in crate::state) fn next_event(&mut self) -> Option<Event> {
        let event = self.waiting.pop_front();
        self.feeding = event.is_some();
        event
    }

    /// Whether the pool holds this volume.
    pub(in crate::state) fn has_volume(&self, id: VolumeId) -> bool {
        self.mirror.volumes().iter().any(|info| info.id == id)
    }

    /// A session was refused; whether the timeline shall tell of it: once for each reason.
    pub(in crate::state) fn note_refusal(&mut self, reason: &str) -> bool {
        let new = self.refused.as_deref() != Some(reason);
        if new {
            self.refused = Some(reason.to_owned());
        }
        new
    }

    /// An extent could not be read; whether the timeline shall tell of it: a guest asks again and again.
    pub(in crate::state) fn note_unreadable(&mut self, volume: VolumeId, extent: ExtentIndex) -> bool {
        self.unreadable.len() < MAX_UNREADABLE_NOTES && self.unreadable.insert((volume, extent))
    }
}
