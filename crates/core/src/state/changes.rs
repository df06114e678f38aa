//! Changes of the document: who decides them, and what follows.

use super::CoreState;
use super::parts::Pending;
use crate::documents::DocumentRequest;
use crate::event::{Event, Ticket};
use crate::peer_wire::{ChangeId, Wire};
use dyad_control::{Refusal, RefusalCode, Reply};
use dyad_desired::Change;

impl CoreState {
    /// Has a change of the document made: here if this node leads, else by the peer. Its end is [`Event::ChangeDone`].
    pub(super) fn change(&mut self, change: Change, pending: Pending) {
        let ticket = self.changes.open(pending);
        if self.lifecycle.pool_has_failed() {
            let text = "The pool of this node failed: ask the other node.";
            self.refuse_change(ticket, Refusal::new(RefusalCode::PoolFailed, text));
        } else if self.leads() {
            let request = DocumentRequest::Change { change, ticket, asked: std::time::Instant::now() };
            if self.out.documents.send(request).is_err() {
                self.refuse_change(ticket, Refusal::stopping());
            }
        } else if self.replication.connected {
            self.changes.passed_on(ticket);
            let change = serde_json::to_string(&change).unwrap_or_default();
            self.out.peer.send(Wire::Change { id: ChangeId(ticket.0), change });
        } else {
            let text = "The other node leads the pair and is not connected; ask again when it is back.";
            self.refuse_change(ticket, Refusal::new(RefusalCode::NotLead, text));
        }
    }

    /// Refuses a change without asking the lead. Through the queue, as every end of a change.
    pub(super) fn refuse_change(&self, ticket: Ticket, refusal: Refusal) {
        self.out.inbox.send(Event::ChangeDone { ticket, result: Err(refusal) });
    }

    /// A change is decided: what follows from it.
    pub(super) fn change_done(&mut self, ticket: Ticket, result: Result<(), Refusal>) {
        match self.changes.close(ticket) {
            Some(Pending::ReplyTo(answer)) => drop(answer.send(result.into())),
            Some(Pending::ForwardToPeer { id }) => self.answer_peer(id, result),
            Some(Pending::ImportBegun { volume, answer }) => self.import_begun(volume, result, answer),
            Some(Pending::ImportClosed { volume, answer }) => self.import_closed(&volume, result, answer),
            Some(Pending::FailOver) => self.failover_ended(),
            Some(Pending::Nothing) | None => {}
        }
    }

    /// The peer passes on a change because this node leads.
    pub(super) fn peer_asks_change(&mut self, id: ChangeId, change: &str) {
        let Ok(change) = serde_json::from_str::<Change>(change) else {
            let text = "The leading node does not understand this change; update it.";
            return self.answer_peer(id, Err(Refusal::new(RefusalCode::PeerUnreadable, text)));
        };
        if !self.leads() {
            let text = "The pair is just changing who leads it; ask again.";
            return self.answer_peer(id, Err(Refusal::new(RefusalCode::MembershipChanged, text)));
        }
        self.change(change, Pending::ForwardToPeer { id });
    }

    /// The peer, which leads, has decided a change that this node passed on.
    pub(super) fn peer_has_decided(&mut self, ticket: Ticket, reply: &str) {
        if !self.changes.answered(ticket) {
            return;
        }
        // The client looks here for what was made, so the document is read first.
        self.reload_document();
        let result = peer_decision(reply);
        if self.out.documents.send(DocumentRequest::Confirm { ticket, result }).is_err() {
            self.refuse_change(ticket, Refusal::stopping());
        }
    }

    /// Tells the peer the outcome of a change that it passed on.
    fn answer_peer(&mut self, id: ChangeId, result: Result<(), Refusal>) {
        let reply = serde_json::to_string(&Reply::from(result)).unwrap_or_default();
        self.out.peer.send(Wire::Changed { id, reply });
    }
}

/// The leading node's answer as the outcome of the change.
fn peer_decision(reply: &str) -> Result<(), Refusal> {
    match serde_json::from_str(reply) {
        Ok(Reply::Done) => Ok(()),
        Ok(Reply::Refused(refusal)) => Err(refusal),
        _ => Err(Refusal::new(RefusalCode::PeerUnreadable, "The leading node's answer is not understood.")),
    }
}
