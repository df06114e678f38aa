//! Changes of the document: where they are decided, and what follows from the decision.

use super::CoreState;
use super::parts::Pending;
use crate::documents::DocumentInput;
use crate::event::Event;
use crate::peer_wire::{ChangeId, CoreMessage};
use dyad_control::{Refusal, RefusalCode, Reply};
use dyad_desired::Change;
use dyad_placement::{ChangeTicket, DocumentRequest};

impl CoreState {
    /// Has a change of the document decided: here if this node leads, else by the peer. The decision is
    /// [`Event::ChangeDone`].
    pub(super) fn change(&mut self, change: Change, pending: Pending) {
        let ticket = self.changes.add(pending);
        if self.placement.lifecycle().pool_has_failed() {
            let text = "The pool of this node failed: ask the other node.";
            self.refuse_change(ticket, Refusal::new(RefusalCode::PoolFailed, text));
        } else if self.placement.leads() {
            let request = DocumentRequest::Change { change, ticket, asked_at: crate::clock::now() };
            if self.handles.documents.send(DocumentInput::Request(request)).is_err() {
                self.refuse_change(ticket, Refusal::stopping());
            }
        } else if self.replication.connected() {
            self.changes.mark_forwarded(ticket);
            let change = serde_json::to_string(&change).unwrap_or_default();
            self.handles.peer.send(CoreMessage::Change { id: ChangeId(ticket.0), change });
        } else {
            let text = "The other node leads the pair and is not connected; ask again when it is back.";
            self.refuse_change(ticket, Refusal::new(RefusalCode::NotLead, text));
        }
    }

    /// Refuses a change without asking the lead. Like each decision it is sent as an event.
    pub(super) fn refuse_change(&self, ticket: ChangeTicket, refusal: Refusal) {
        self.handles.event_sender.send(Event::ChangeDone { ticket, result: Err(refusal) });
    }

    /// Carries out what follows from the decision of a change.
    pub(super) fn change_done(&mut self, ticket: ChangeTicket, result: Result<(), Refusal>) {
        match self.changes.take(ticket) {
            Some(Pending::ReplyTo(answer)) => drop(answer.send(result.into())),
            Some(Pending::ForwardToPeer { id }) => self.answer_peer(id, result),
            Some(Pending::ImportBegun { volume, answer }) => self.import_begun(volume, result, answer),
            Some(Pending::ImportClosed { volume, answer }) => self.import_closed(&volume, result, answer),
            Some(Pending::FailOver) => self.place(dyad_placement::Event::FailOverDecided),
            Some(Pending::Nothing) | None => {}
        }
    }

    /// Has a change decided that the peer passed on, because this node leads.
    pub(super) fn peer_asks_change(&mut self, id: ChangeId, change: &str) {
        let Ok(change) = serde_json::from_str::<Change>(change) else {
            let text = "The leading node does not understand this change; update it.";
            return self.answer_peer(id, Err(Refusal::new(RefusalCode::PeerUnreadable, text)));
        };
        if !self.placement.leads() {
            let text = "The pair is just changing who leads it; ask again.";
            return self.answer_peer(id, Err(Refusal::new(RefusalCode::MembershipChanged, text)));
        }
        if let Some(refusal) = self.refused_by_fence_rule(&change, self.me.peer()) {
            return self.answer_peer(id, Err(refusal));
        }
        self.change(change, Pending::ForwardToPeer { id });
    }

    /// Takes the decision of the peer, which leads, on a change that this node passed on.
    pub(super) fn peer_has_decided(&mut self, ticket: ChangeTicket, reply: &str) {
        if !self.changes.take_forwarded(ticket) {
            return;
        }
        // The document is read first, because the client may ask this node for the changed document next.
        self.reload_document();
        let result = peer_decision(reply);
        if self.handles.documents.send(DocumentInput::Confirm { ticket, result }).is_err() {
            self.refuse_change(ticket, Refusal::stopping());
        }
    }

    /// Tells the peer the outcome of a change that it passed on.
    fn answer_peer(&mut self, id: ChangeId, result: Result<(), Refusal>) {
        let reply = serde_json::to_string(&Reply::from(result)).unwrap_or_default();
        self.handles.peer.send(CoreMessage::Changed { id, reply });
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
