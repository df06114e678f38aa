//! The mirror, the requests that it has not answered, and the session over which it reaches the peer.
//!
//! **Invariants.** Each request has one [`ReplyReceiver`], which gets one answer. The mirror handles one event at a time: an event that
//! arises while the actions of another are carried out waits in `queued_events`, so that actions of two events do not mix.

use crate::volume_request::VolumeReplyTo;
use dyad_mirror::{Event, Mirror, Progress, RequestId};
use dyad_types::{ExtentIndex, NodeId, Session, VolumeId};
use std::collections::{BTreeSet, HashMap, VecDeque};

/// Most unreadable extents, and most lost extents, that get an entry in the timeline.
const MAX_EXTENT_NOTES: usize = 100;

/// The receiver of the result of a request to the mirror.
#[derive(Debug)]
pub(in crate::state) enum ReplyReceiver {
    /// A guest, an import or the document's task.
    Client(VolumeReplyTo),
    /// The garbage collection, which deletes this volume.
    VolumeGc { id: VolumeId },
}

/// The mirror and its open requests and events.
pub(in crate::state) struct Replication {
    pub(in crate::state) mirror: Mirror,
    /// The receiver of the result of each request without an answer.
    receivers: HashMap<RequestId, ReplyReceiver>,
    last_request: RequestId,
    queued_events: VecDeque<Event>,
    /// The mirror handles an event, or its actions are carried out.
    feeding: bool,
    /// The session with the peer; `None` = none is connected. Events of any other session are ignored.
    pub(in crate::state) session: Option<Session>,
    /// Reason of the last refused session, to which the next one is compared.
    last_refusal: Option<String>,
    /// The resync that runs or ran last.
    pub(in crate::state) progress: Progress,
    /// Bytes that this resync had to copy when it began.
    pub(in crate::state) dirty_bytes: u64,
    /// Extents healed from the peer since the daemon started.
    pub(in crate::state) healed: u64,
    /// The unreadable extents that have an entry in the timeline.
    unreadable: BTreeSet<(VolumeId, ExtentIndex)>,
    /// Number of lost extents that have an entry in the timeline.
    lost_notes: usize,
    /// The nodes whose pools are full, as the mirror has last told.
    pub(in crate::state) full_pools: BTreeSet<NodeId>,
}

impl Replication {
    /// Without a session and without requests.
    pub(in crate::state) fn new(mirror: Mirror) -> Self {
        Self {
            mirror,
            receivers: HashMap::new(),
            last_request: RequestId::default(),
            queued_events: VecDeque::new(),
            feeding: false,
            session: None,
            last_refusal: None,
            progress: Progress::default(),
            dirty_bytes: 0,
            healed: 0,
            unreadable: BTreeSet::new(),
            lost_notes: 0,
            full_pools: BTreeSet::new(),
        }
    }

    /// Whether a session with the peer is connected.
    pub(in crate::state) fn connected(&self) -> bool {
        self.session.is_some()
    }

    /// Records the receiver of the result of a new request, and returns the request's id.
    pub(in crate::state) fn add_request(&mut self, receiver: ReplyReceiver) -> RequestId {
        let request = self.last_request.advance();
        self.receivers.insert(request, receiver);
        request
    }

    /// Removes a request that is answered, and returns the receiver of its result.
    pub(in crate::state) fn take_receiver(&mut self, request: RequestId) -> Option<ReplyReceiver> {
        self.receivers.remove(&request)
    }

    /// Queues an event for the mirror. `true` = the caller must now pass the events of [`Self::next_event`] to the mirror;
    /// `false` = a caller already does, and this event follows.
    pub(in crate::state) fn begin_feeding(&mut self, event: Event) -> bool {
        self.queued_events.push_back(event);
        !std::mem::replace(&mut self.feeding, true)
    }

    /// The next event for the mirror. `None` = none is queued; the next [`Self::begin_feeding`] returns `true`.
    pub(in crate::state) fn next_event(&mut self) -> Option<Event> {
        let event = self.queued_events.pop_front();
        self.feeding = event.is_some();
        event
    }

    /// Records the refusal of a session. `true` = the reason differs from the last one, so the timeline gets an entry.
    pub(in crate::state) fn note_refusal(&mut self, reason: &str) -> bool {
        let new = self.last_refusal.as_deref() != Some(reason);
        if new {
            self.last_refusal = Some(reason.to_owned());
        }
        new
    }

    /// Records an unreadable extent. `true` = the timeline gets an entry: the extent is new, and there are less than
    /// [`MAX_EXTENT_NOTES`] entries.
    pub(in crate::state) fn note_unreadable(&mut self, volume: VolumeId, extent: ExtentIndex) -> bool {
        self.unreadable.len() < MAX_EXTENT_NOTES && self.unreadable.insert((volume, extent))
    }

    /// Counts a lost extent, which the mirror reports once. `true` = the timeline gets an entry: there are less than
    /// [`MAX_EXTENT_NOTES`].
    pub(in crate::state) fn note_lost(&mut self) -> bool {
        let noted = self.lost_notes < MAX_EXTENT_NOTES;
        self.lost_notes += usize::from(noted);
        noted
    }
}
