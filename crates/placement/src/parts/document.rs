//! The pair's document as this node knows it.
//!
//! **Invariants.** A membership term is one stay of this node in the in-sync set. The document decides placement only if it
//! was read in the current term: the pair may have changed it while this node was out of sync. An older one is used for
//! logins and the status only.

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
    pub(crate) newest: Option<Document>,
    /// Number of the current membership term.
    pub(crate) term: MembershipTerm,
    /// The term in which `newest` was read or written; `None` = by an earlier run of this daemon.
    pub(crate) read_in: Option<MembershipTerm>,
    /// A read was asked for and has not ended.
    pub(crate) read_in_flight: bool,
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
    pub(crate) fn retry_is_due(&self, now: BootTime) -> bool {
        !self.read_in_flight && now.since(self.read_ended_at) > DOCUMENT_RETRY_DELAY
    }
}
