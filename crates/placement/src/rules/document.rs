//! When the document is read, and what a document that was read means.

use super::Placement;
use crate::event::Action;
use crate::mutants::Mutant;
use crate::parts::MembershipTerm;
use dyad_desired::Document;
use dyad_types::BootTime;

impl Placement {
    /// Takes a document that was read or written in the membership term `term` of this node.
    pub(crate) fn set_document(&mut self, now: BootTime, document: Document, term: MembershipTerm) {
        // A document of an earlier term says nothing about the writers of this one.
        if term == self.document.term {
            self.await_handover(now, &document);
        }
        self.document.read_in = Some(if self.mutants.has(Mutant::KeepDocument) { self.document.term } else { term });
        self.document.newest = Some(document);
        self.volume_gc.scan_now();
    }

    /// Has the document read: as the writer of volume 0, or from the local replica.
    pub(crate) fn read_document(&mut self, now: BootTime, actions: &mut Vec<Action>) {
        self.settle_writers(now, actions);
        self.document.read_in_flight = true;
        actions.push(Action::ReadDocument { lead: self.leads(), term: self.document.term });
    }

    /// Has the document read again if this node is a member and has not read it yet, or knows an older document than the peer.
    pub(crate) fn retry_document_read(&mut self, now: BootTime, actions: &mut Vec<Action>) {
        let known = self.authoritative_document().map(|document| document.generation);
        let is_behind = known.is_none() || known < self.peer_knowledge.peer;
        if self.document.retry_is_due(now) && self.is_member() && is_behind {
            self.read_document(now, actions);
        }
    }
}
