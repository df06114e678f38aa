//! The pair's document as this node knows it.
//!
//! **Invariants.** A membership term is one stay of this node in the in-sync set. The document decides placement only if it
//! was read in the current term: the pair may have changed it while this node was out of sync. An older one is used for
//! logins and the status only.

use crate::event::MembershipTerm;
use dyad_desired::Document;
use std::time::{Duration, Instant};

/// Pause between two attempts to read the document.
const DOCUMENT_RETRY_DELAY: Duration = Duration::from_millis(200);

/// The newest document known here, and the term in which it was read.
#[derive(Debug)]
pub(in crate::state) struct DocumentCopy {
    newest: Option<Document>,
    /// Number of the current membership term.
    term: MembershipTerm,
    /// The term in which `newest` was read or written; `None` = by an earlier run of this daemon.
    read_in: Option<MembershipTerm>,
    /// The document's task was asked to read and has not ended that.
    read_in_flight: bool,
    read_ended_at: Instant,
}

impl DocumentCopy {
    /// `cached` is the document that an earlier run of this daemon stored in the document cache.
    pub(in crate::state) fn new(cached: Option<Document>) -> Self {
        Self {
            newest: cached,
            term: MembershipTerm(0),
            read_in: None,
            read_in_flight: false,
            read_ended_at: Instant::now(),
        }
    }

    /// The newest document, of any term or run.
    pub(in crate::state) fn newest(&self) -> Option<&Document> {
        self.newest.as_ref()
    }

    /// The document, if it was read in the current term.
    pub(in crate::state) fn of_this_term(&self) -> Option<&Document> {
        self.newest.as_ref().filter(|_| self.read_in == Some(self.term))
    }

    /// The document, if this run of the daemon has read it.
    pub(in crate::state) fn of_this_run(&self) -> Option<&Document> {
        self.newest.as_ref().filter(|_| self.read_in.is_some())
    }

    /// Number of the current membership term.
    pub(in crate::state) fn term(&self) -> MembershipTerm {
        self.term
    }

    /// Begins a new term, as this node has left the in-sync set: the document must be read again before it decides
    /// placement.
    pub(in crate::state) fn end_term(&mut self) {
        self.term.advance();
    }

    /// Takes a document that was read or written in `term`.
    pub(in crate::state) fn set(&mut self, document: Document, term: MembershipTerm) {
        self.read_in = Some(term);
        self.newest = Some(document);
    }

    /// Records that the document's task is asked to read.
    pub(in crate::state) fn read_begins(&mut self) {
        self.read_in_flight = true;
    }

    /// Records that the document's task has ended a read, with or without success.
    pub(in crate::state) fn read_ended(&mut self) {
        self.read_in_flight = false;
        self.read_ended_at = Instant::now();
    }

    /// Whether no read runs and [`DOCUMENT_RETRY_DELAY`] has passed since the last one.
    pub(in crate::state) fn retry_is_due(&self) -> bool {
        !self.read_in_flight && self.read_ended_at.elapsed() > DOCUMENT_RETRY_DELAY
    }
}
