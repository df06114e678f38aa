//! Changes of the document that were requested and are not decided yet.
//!
//! **Invariants.** Each ticket is decided once: by the document's task, by the peer that leads, or by the end of the
//! session over which it was passed on. The consequence of the decision is a [`Pending`], a value that can be printed.

use crate::event::ImportTarget;
use crate::peer_wire::ChangeId;
use dyad_control::{Refusal, Reply};
use dyad_placement::ChangeTicket;
use std::collections::{BTreeSet, HashMap};
use tokio::sync::oneshot;

/// The consequence of the decision of a change.
#[derive(Debug)]
pub(in crate::state) enum Pending {
    /// Answers a client of the control socket.
    ReplyTo(oneshot::Sender<Reply>),
    /// Answers the peer, which passed the change on.
    ForwardToPeer {
        /// The id in the peer's message.
        id: ChangeId,
    },
    /// After `BeginImport`: gives the new volume to the task that receives the image.
    ImportBegun {
        /// Name of the volume in the document.
        volume: String,
        /// Gets the new volume, or the refusal.
        answer: oneshot::Sender<Result<ImportTarget, Refusal>>,
    },
    /// After `FinishImport` or `DropImport`: allows the next import into the volume.
    ImportClosed {
        /// Name of the volume in the document.
        volume: String,
        /// Gets the decision.
        answer: oneshot::Sender<Result<(), Refusal>>,
    },
    /// After `FailOver`: the peer may be reported clean again.
    FailOver,
    /// No consequence. A refused `DropImport` is requested again; a refused `SetNode` is made up for by the node's own
    /// report.
    Nothing,
}

/// The undecided changes.
#[derive(Debug)]
pub(in crate::state) struct Changes {
    last: u64,
    pending: HashMap<ChangeTicket, Pending>,
    /// Changes that were passed on to the peer and are not answered yet.
    forwarded: BTreeSet<ChangeTicket>,
}

impl Changes {
    /// No change yet. Tickets count from `first`, which must differ in each run of the daemon: the peer may answer a change
    /// of an earlier run over the session of this run, and that must not be taken for the answer to a change of this run.
    pub(in crate::state) fn new(first: u64) -> Self {
        Self { last: first, pending: HashMap::new(), forwarded: BTreeSet::new() }
    }

    /// Records the consequence of a change that is about to be requested, and returns its ticket.
    pub(in crate::state) fn add(&mut self, pending: Pending) -> ChangeTicket {
        self.last += 1;
        let ticket = ChangeTicket(self.last);
        self.pending.insert(ticket, pending);
        ticket
    }

    /// Removes a change that is decided, and returns its consequence. `None` = it was decided before.
    pub(in crate::state) fn take(&mut self, ticket: ChangeTicket) -> Option<Pending> {
        self.pending.remove(&ticket)
    }

    /// Records that the change was passed on to the peer.
    pub(in crate::state) fn mark_forwarded(&mut self, ticket: ChangeTicket) {
        self.forwarded.insert(ticket);
    }

    /// Records the peer's answer. `false` = the peer was not asked, or its session has ended.
    pub(in crate::state) fn take_forwarded(&mut self, ticket: ChangeTicket) -> bool {
        self.forwarded.remove(&ticket)
    }

    /// Removes and returns the changes that the peer has not answered, at the end of its session.
    pub(in crate::state) fn take_all_forwarded(&mut self) -> BTreeSet<ChangeTicket> {
        std::mem::take(&mut self.forwarded)
    }
}
