//! Changes of the document that were asked for and are not decided yet.
//!
//! **Invariants.** Each ticket is decided once: by the document's task, by the peer that leads, or by the end of the
//! session over which it was passed on. What follows is a [`Pending`], a value that can be printed.

use crate::event::{ImportTarget, Ticket};
use crate::peer_wire::ChangeId;
use dyad_control::{Refusal, Reply};
use std::collections::{BTreeSet, HashMap};
use tokio::sync::oneshot;

/// What follows when a change is decided.
#[derive(Debug)]
pub(in crate::state) enum Pending {
    /// A client of the local socket is answered.
    ReplyTo(oneshot::Sender<Reply>),
    /// The peer, which passed the change on, is answered.
    ForwardToPeer {
        /// The peer's id of the request.
        id: ChangeId,
    },
    /// `BeginImport`: the image may come if the change was made.
    ImportBegun {
        /// As the document names it.
        volume: String,
        /// Gets the volume to write into.
        answer: oneshot::Sender<Result<ImportTarget, Refusal>>,
    },
    /// `FinishImport` or `DropImport`: the volume may be imported into again.
    ImportClosed {
        /// As the document names it.
        volume: String,
        /// Gets the outcome.
        answer: oneshot::Sender<Result<(), Refusal>>,
    },
    /// `FailOver`: the peer may be called clean again.
    FailOver,
    /// Nothing. A refused change is asked for again when its reason still holds.
    Nothing,
}

/// The undecided changes.
#[derive(Debug)]
pub(in crate::state) struct Changes {
    last: u64,
    pending: HashMap<Ticket, Pending>,
    /// Passed on to the peer and not answered yet.
    forwarded: BTreeSet<Ticket>,
}

impl Changes {
    /// No change yet. `first` differs in each run of the daemon: a late answer to a change of an earlier run, which the peer
    /// sends over the session of this run, must not be taken for the answer to a change of this run.
    pub(in crate::state) fn new(first: u64) -> Self {
        Self { last: first, pending: HashMap::new(), forwarded: BTreeSet::new() }
    }

    /// Records what follows from a change that is about to be asked for, and gives it a ticket.
    pub(in crate::state) fn open(&mut self, pending: Pending) -> Ticket {
        self.last += 1;
        let ticket = Ticket(self.last);
        self.pending.insert(ticket, pending);
        ticket
    }

    /// The change is decided: what follows.
    pub(in crate::state) fn close(&mut self, ticket: Ticket) -> Option<Pending> {
        self.pending.remove(&ticket)
    }

    /// The change was passed on to the peer.
    pub(in crate::state) fn passed_on(&mut self, ticket: Ticket) {
        self.forwarded.insert(ticket);
    }

    /// The peer has answered; whether it was asked.
    pub(in crate::state) fn answered(&mut self, ticket: Ticket) -> bool {
        self.forwarded.remove(&ticket)
    }

    /// The session ended: the changes that the peer has not answered.
    pub(in crate::state) fn lost(&mut self) -> BTreeSet<Ticket> {
        std::mem::take(&mut self.forwarded)
    }
}
