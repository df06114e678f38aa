//! The requests that wait for the witness: at most one of each kind.
//!
//! Every request is idempotent, and a newer one of the same kind makes the older one void: the quorum machine ignores the
//! answer to a ballot or a read that it has given up. It repeats what gets no answer, so a request may be dropped.

use dyad_quorum::{WitnessRequest, WitnessRequestId};
use dyad_types::NodeId;
use std::collections::BTreeMap;

/// Kinds of requests, ascending by precedence.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum RequestKind {
    /// A read, which shows whether the witness answers.
    Read,
    /// A decision that the peer asked this node to pass on.
    Relayed,
    /// A decision of this node. VMs may be frozen until it is made.
    Decision,
}

/// A request with its kind.
#[derive(Debug)]
pub(super) struct QueuedRequest {
    pub kind: RequestKind,
    pub id: WitnessRequestId,
    pub request: WitnessRequest,
}

/// The waiting requests.
pub(super) struct WitnessQueue {
    me: NodeId,
    waiting: BTreeMap<RequestKind, QueuedRequest>,
}

impl WitnessQueue {
    /// The empty queue of this node.
    pub fn new(me: NodeId) -> Self {
        Self { me, waiting: BTreeMap::new() }
    }

    /// Adds a request. Returns the id of the older request of its kind that it displaces, unless that is the same request.
    pub fn put(&mut self, id: WitnessRequestId, request: WitnessRequest) -> Option<WitnessRequestId> {
        let kind = match &request {
            WitnessRequest::Learn(_) => RequestKind::Read,
            WitnessRequest::TryDecide(decide) if decide.sender == self.me => RequestKind::Decision,
            WitnessRequest::TryDecide(_) => RequestKind::Relayed,
        };
        let displaced = self.waiting.insert(kind, QueuedRequest { kind, id, request })?;
        (displaced.id != id).then_some(displaced.id)
    }

    /// Removes the request of the highest precedence.
    pub fn take(&mut self) -> Option<QueuedRequest> {
        self.waiting.pop_last().map(|(_, request)| request)
    }

    /// Whether a request waits that must not wait for the answer to `in_flight`: one of a higher precedence, or a newer
    /// decision of this node, which makes the older one void.
    pub fn outranks(&self, in_flight: &QueuedRequest) -> bool {
        self.waiting.last_key_value().is_some_and(|(kind, _)| *kind > in_flight.kind || *kind == RequestKind::Decision)
    }
}
