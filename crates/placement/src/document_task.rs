//! Reads, changes and publishes the document, one request after the other. The document lies in volume 0, which the lead
//! writes; the other member reads its own replica.
//!
//! **Invariants.** A change is applied to the document that was read or written last in this membership term under this lead.
//! Volumes are created before the document that names them is written. A change is decided `Ok` only after the new document
//! is durable on every in-sync node and was published. This task deletes no volume, because a document on the other node may
//! still name it. The mirror refuses the requests to volume 0 when this node stops being its writer.

use crate::mutants::{Mutant, Mutants};
use crate::parts::MembershipTerm;
use bytes::Bytes;
use dyad_desired::slots::{self, DocumentChoice, SLOT_BYTES};
use dyad_desired::{Change, Document, apply};
use dyad_mirror::{GuestError, GuestOp, VolumeChange};
use dyad_types::{BLOCK_BYTES, BlockIndex, BootTime};
use std::collections::VecDeque;

/// Longest time that a change waits in the queue, in nanoseconds. After that it is refused, because its client may have given
/// up.
const CHANGE_QUEUE_TIMEOUT: u64 = 20_000_000_000;

/// Number of a change of the document from its request to its decision. Never used twice in one run of the daemon.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ChangeTicket(pub u64);

/// A request to the task.
#[derive(Debug, Clone, PartialEq)]
pub enum DocumentRequest {
    /// Make a change (only on the lead), then decide it.
    Change {
        change: Change,
        ticket: ChangeTicket,
        /// The time from which [`CHANGE_QUEUE_TIMEOUT`] counts.
        asked_at: BootTime,
    },
    /// Report when the requests queued before are carried out: the peer has decided this change, and the caller gets the
    /// changed document before the decision.
    Confirm { ticket: ChangeTicket },
    /// Read the document again, because volume 0 may have changed: after a change of membership, or when the peer says so.
    Reload {
        /// This node writes volume 0 now.
        lead: bool,
        /// The membership term of this node.
        term: MembershipTerm,
    },
}

/// The reason for which a change was not made, or not surely. The text is a sentence for people.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ChangeError {
    /// The document was not read yet in this membership term.
    #[error("The pair's document is not readable yet; ask again in a moment.")]
    NoDocument,
    /// The change has waited too long and was not made.
    #[error("The pair could not make this change in time and did not make it; ask again.")]
    TooLate,
    /// The change breaks a rule of the document.
    #[error(transparent)]
    Rule(#[from] dyad_desired::Refusal),
    /// A volume could not be created, so the change was not made.
    #[error(transparent)]
    Volume(GuestError),
    /// The document could not be written. It may have been written all the same.
    #[error("The pair is just changing who leads it: {0}; ask again.")]
    Interrupted(GuestError),
}

/// One step that the caller must take.
#[derive(Debug, Clone, PartialEq)]
pub enum DocumentAction {
    /// Carry out this request to volume 0 and report its result by [`DocumentTask::completed`].
    Volume(GuestOp),
    /// Carry out this change of the volume table and report its result by [`DocumentTask::completed`].
    VolumeTable(VolumeChange),
    /// This document was read or written in this membership term.
    Publish {
        document: Document,
        term: MembershipTerm,
        /// Its content differs from the one published before: store it for the next run of the daemon.
        changed: bool,
    },
    /// The request to read has ended, with or without success.
    ReadEnded,
    /// The document could not be read now.
    NotRead(GuestError),
    /// One copy of the document is damaged, and the other one is used. The text is a sentence.
    OneCopyDamaged(String),
    /// No copy of the document is readable. The text is a sentence with the reason.
    Lost(String),
    /// A change was decided: `Ok` = it is durable on every in-sync node, and its document was published before.
    Decided { ticket: ChangeTicket, result: Result<(), ChangeError> },
    /// The requests before this one are carried out.
    Confirmed { ticket: ChangeTicket },
}

/// What the task waits for.
#[derive(Debug)]
enum Step {
    /// The next request.
    Idle,
    /// The bytes of the first slot.
    FirstSlot,
    /// The bytes of the second slot.
    SecondSlot { first: Bytes },
    /// The creation of a volume of the new document.
    Creation(Writing),
    /// The end of the write of the new document.
    Write(Writing),
    /// The end of the flush of the new document.
    Flush(Writing),
}

/// A change that is being made.
#[derive(Debug)]
struct Writing {
    ticket: ChangeTicket,
    next: Document,
    /// The volumes that must be created before `next` is written.
    missing: VecDeque<VolumeChange>,
}

/// The task. It carries out one request at a time and queues the others.
#[derive(Debug)]
pub struct DocumentTask {
    /// The document that a change is applied to. `None` = none was read since membership term or lead changed.
    current: Option<Document>,
    /// Membership term and document of the last [`DocumentAction::Publish`].
    published: Option<(MembershipTerm, Document)>,
    lead: bool,
    term: MembershipTerm,
    queue: VecDeque<DocumentRequest>,
    step: Step,
    mutants: Mutants,
}

impl Default for DocumentTask {
    fn default() -> Self {
        Self {
            current: None,
            published: None,
            lead: false,
            term: MembershipTerm(0),
            queue: VecDeque::new(),
            step: Step::Idle,
            mutants: Mutants::NONE,
        }
    }
}

impl DocumentTask {
    /// The task with a planted bug.
    #[cfg(feature = "mutants")]
    #[must_use]
    pub fn with_mutants(mutants: Mutants) -> Self {
        Self { mutants, ..Self::default() }
    }

    /// Whether no request is queued or being carried out.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        matches!(self.step, Step::Idle) && self.queue.is_empty()
    }

    /// Queues a request and, if none is being carried out, begins with it. Appends what must be done, in order.
    pub fn request(&mut self, now: BootTime, request: DocumentRequest, actions: &mut Vec<DocumentAction>) {
        self.queue.push_back(request);
        self.next_requests(now, actions);
    }

    /// Takes the result of the last [`DocumentAction::Volume`] or [`DocumentAction::VolumeTable`].
    pub fn completed(&mut self, now: BootTime, result: Result<Bytes, GuestError>, actions: &mut Vec<DocumentAction>) {
        match (std::mem::replace(&mut self.step, Step::Idle), result) {
            (Step::Idle, _) => {}
            (Step::FirstSlot, Ok(first)) => {
                self.step = Step::SecondSlot { first };
                actions.push(self.read_slot(1));
            }
            (Step::SecondSlot { first }, Ok(second)) => {
                self.take_slots([&first, &second], actions);
                actions.push(DocumentAction::ReadEnded);
            }
            (Step::FirstSlot | Step::SecondSlot { .. }, Err(error)) => {
                actions.extend([DocumentAction::NotRead(error), DocumentAction::ReadEnded]);
            }
            (Step::Creation(writing), Ok(_)) => self.write(writing, actions),
            (Step::Creation(writing), Err(error)) => decide(&writing, Err(ChangeError::Volume(error)), actions),
            (Step::Write(writing), Ok(_)) if self.mutants.has(Mutant::DecideUnflushed) => {
                self.written(writing, actions)
            }
            (Step::Write(writing), Ok(_)) => {
                self.step = Step::Flush(writing);
                actions.push(DocumentAction::Volume(GuestOp::Flush));
            }
            (Step::Flush(writing), Ok(_)) => self.written(writing, actions),
            (Step::Write(writing) | Step::Flush(writing), Err(error)) => {
                decide(&writing, Err(ChangeError::Interrupted(error)), actions);
            }
        }
        self.next_requests(now, actions);
    }

    /// Carries out queued requests until one waits for a result.
    fn next_requests(&mut self, now: BootTime, actions: &mut Vec<DocumentAction>) {
        while matches!(self.step, Step::Idle)
            && let Some(request) = self.queue.pop_front()
        {
            match request {
                DocumentRequest::Reload { lead, term } => self.reload(lead, term, actions),
                DocumentRequest::Confirm { ticket } => actions.push(DocumentAction::Confirmed { ticket }),
                DocumentRequest::Change { ticket, asked_at, .. } if now.since(asked_at) > CHANGE_QUEUE_TIMEOUT => {
                    actions.push(DocumentAction::Decided { ticket, result: Err(ChangeError::TooLate) });
                }
                DocumentRequest::Change { change, ticket, .. } => self.change(&change, ticket, actions),
            }
        }
    }

    fn reload(&mut self, lead: bool, term: MembershipTerm, actions: &mut Vec<DocumentAction>) {
        if (lead, term) != (self.lead, self.term) {
            // No change is made until the document is read again: the other node may have written it.
            self.current = None;
        }
        (self.lead, self.term) = (lead, term);
        self.step = Step::FirstSlot;
        actions.push(self.read_slot(0));
    }

    /// Reads a slot: as the writer of volume 0, or from the local replica while the peer is the writer.
    fn read_slot(&self, slot: u64) -> DocumentAction {
        let count = SLOT_BYTES as u64 / BLOCK_BYTES;
        let block = BlockIndex(slot * count);
        DocumentAction::Volume(match self.lead {
            true => GuestOp::Read { block, count },
            false => GuestOp::Peek { block, count },
        })
    }

    /// Publishes the newer valid document of both slots.
    fn take_slots(&mut self, [first, second]: [&[u8]; 2], actions: &mut Vec<DocumentAction>) {
        match slots::choose(first, second) {
            DocumentChoice::Fresh => {}
            DocumentChoice::Current(document, damage) => {
                actions.extend(damage.map(DocumentAction::OneCopyDamaged));
                self.publish(*document, actions);
            }
            DocumentChoice::Lost(why) => actions.push(DocumentAction::Lost(why)),
        }
    }

    /// Publishes a document if it or its membership term differs from the one published last.
    fn publish(&mut self, document: Document, actions: &mut Vec<DocumentAction>) {
        self.current = Some(document.clone());
        let current = (self.term, document);
        if self.published.as_ref() == Some(&current) {
            return;
        }
        let (term, document) = current.clone();
        let known = self.published.replace(current).is_some_and(|(_, old)| old == document);
        actions.push(DocumentAction::Publish { document, term, changed: !known });
    }

    /// Applies a change. Volumes are created before the document is written: a crash in between leaves an orphaned volume,
    /// which the garbage collection deletes, and never a document that names a missing volume.
    fn change(&mut self, change: &Change, ticket: ChangeTicket, actions: &mut Vec<DocumentAction>) {
        let applied = self.current.as_ref().ok_or(ChangeError::NoDocument).and_then(|current| {
            let before = current.volume_sizes();
            let next = apply(current, change)?;
            // A document that does not fit into its slot is refused before anything is made for it.
            slots::encode(&next)?;
            let new = next.volume_sizes().into_iter().filter(|(id, _)| !before.contains_key(id));
            let missing = new.map(|(id, size)| VolumeChange::Create { id, size }).collect();
            Ok(Writing { ticket, next, missing })
        });
        match applied {
            Ok(writing) => self.write(writing, actions),
            Err(error) => actions.push(DocumentAction::Decided { ticket, result: Err(error) }),
        }
    }

    /// Creates the next missing volume, or writes the document if none is missing.
    fn write(&mut self, mut writing: Writing, actions: &mut Vec<DocumentAction>) {
        if let Some(creation) = writing.missing.pop_front() {
            self.step = Step::Creation(writing);
            actions.push(DocumentAction::VolumeTable(creation));
            return;
        }
        match slots::encode(&writing.next) {
            Ok(slot) => {
                let block = BlockIndex(slot.offset / BLOCK_BYTES);
                self.step = Step::Write(writing);
                actions.push(DocumentAction::Volume(GuestOp::Write { block, data: slot.bytes.into() }));
            }
            Err(refusal) => decide(&writing, Err(refusal.into()), actions),
        }
    }

    fn written(&mut self, writing: Writing, actions: &mut Vec<DocumentAction>) {
        self.publish(writing.next.clone(), actions);
        decide(&writing, Ok(()), actions);
    }
}

fn decide(writing: &Writing, result: Result<(), ChangeError>, actions: &mut Vec<DocumentAction>) {
    actions.push(DocumentAction::Decided { ticket: writing.ticket, result });
}
