//! The pair's document as this node knows it.
//!
//! **Invariants.** A membership term is one stay of this node in the in-sync set. The document decides placement only if it
//! was read in the current term: the pair may have changed it while this node was out of sync. An older one is used for
//! logins and the status only.

use crate::Placement;
use crate::event::Action;
use crate::mutants::Mutant;
use dyad_desired::Document;
use dyad_types::{BootTime, number};

/// Pause between two attempts to read the document, in nanoseconds.
const DOCUMENT_RETRY_DELAY: u64 = 200_000_000;

number! {
    /// Number of a membership term: one stay of this node in the in-sync set. Counted from 0 in each run of the daemon.
    pub struct MembershipTerm;
}

/// The newest document known here, and the term in which it was read.
#[derive(Debug)]
pub struct DocumentCopy {
    newest: Option<Document>,
    /// Number of the current membership term.
    term: MembershipTerm,
    /// The term in which `newest` was read or written; `None` = by an earlier run of this daemon.
    read_in: Option<MembershipTerm>,
    /// A read was asked for and has not ended.
    read_in_flight: bool,
    read_ended_at: BootTime,
}

impl DocumentCopy {
    /// `cached` is the document that an earlier run of this daemon stored in the document cache.
    pub(crate) fn new(cached: Option<Document>, now: BootTime) -> Self {
        Self { newest: cached, term: MembershipTerm(0), read_in: None, read_in_flight: false, read_ended_at: now }
    }

    /// The newest document, of any term or run.
    #[must_use]
    pub fn newest(&self) -> Option<&Document> {
        self.newest.as_ref()
    }

    /// The document, if it was read in the current term.
    pub(crate) fn of_this_term(&self) -> Option<&Document> {
        self.newest.as_ref().filter(|_| self.read_in == Some(self.term))
    }

    /// The document, if this run of the daemon has read it.
    #[must_use]
    pub fn of_this_run(&self) -> Option<&Document> {
        self.newest.as_ref().filter(|_| self.read_in.is_some())
    }

    /// Begins a new term, as this node has left the in-sync set: the document must be read again before it decides
    /// placement.
    pub(crate) fn end_term(&mut self) {
        self.term.advance();
    }

    /// Records that a read has ended, with or without success.
    pub(crate) fn read_ended(&mut self, now: BootTime) {
        self.read_in_flight = false;
        self.read_ended_at = now;
    }

    /// Whether no read runs and [`DOCUMENT_RETRY_DELAY`] has passed since the last one.
    fn retry_is_due(&self, now: BootTime) -> bool {
        !self.read_in_flight && now.since(self.read_ended_at) > DOCUMENT_RETRY_DELAY
    }
}

impl Placement {
    /// Takes a document that was read or written in the membership term `term` of this node.
    pub(crate) fn set_document(&mut self, now: BootTime, document: Document, term: MembershipTerm) {
        self.await_handover(now, &document);
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

    /// Has the document read again if this node is a member and could not read it yet.
    pub(crate) fn retry_document_read(&mut self, now: BootTime, actions: &mut Vec<Action>) {
        if self.document.retry_is_due(now) && self.is_member() && self.authoritative_document().is_none() {
            self.read_document(now, actions);
        }
    }
}
