//! The document's task on one node: the shipped [`dyad_placement::DocumentTask`], with the delays between its thread and the
//! state thread.

use crate::core_model::{OwnRequest, ReplyReceiver};
use crate::guests::GuestResult;
use crate::world::{DaemonJob, World};
use bytes::Bytes;
use dyad_desired::slots::SLOT_BYTES;
use dyad_desired::{Change, Document, NodeRecord, apply, slots};
use dyad_mirror::{GuestError, GuestOp, GuestReply, VolumeChange};
use dyad_placement::{ChangeTicket, DocumentAction, DocumentRequest};
use dyad_quorum::{MS, Nanos};
use dyad_types::{BLOCK_BYTES, BlockIndex, NodeId, VolumeId};

/// Share of the decisions after which both machines lose power, of a thousand.
const POWER_LOSS_AFTER_DECISION_PERMILLE: u64 = 15;

/// Share of the inputs of the document's task that wait for its disk, of a thousand.
const BUSY_TASK_PERMILLE: u64 = 50;
/// Longest such wait.
const MAX_STORE_DELAY: Nanos = 300 * MS;

/// An input of the document's task.
#[derive(Debug, Clone)]
pub enum DocumentInput {
    Request(DocumentRequest),
    Completed(Result<Bytes, GuestError>),
}

/// A report of the document's task to the state thread, or a request to the mirror, in the order of sending.
#[derive(Debug, Clone)]
pub enum DocumentReport {
    Own(Box<DocumentStep>),
    Placement(Box<dyad_placement::Event>),
    ChangeDone(ChangeTicket, bool),
}

/// A request of the document's task to the mirror.
#[derive(Debug, Clone)]
pub enum DocumentStep {
    Volume(GuestOp),
    VolumeTable(VolumeChange),
}

impl World {
    /// Puts a request into the queue of the document's task.
    pub(crate) fn ask_documents(&mut self, node: usize, request: DocumentRequest) {
        self.send_to_documents(node, DocumentInput::Request(request));
    }

    /// Passes the result of a request to volume 0 to the document's task.
    pub(crate) fn document_result(&mut self, node: usize, result: GuestResult) {
        let result = result.map(|reply| match reply {
            GuestReply::Data(data) => data,
            GuestReply::Done => Bytes::new(),
        });
        self.send_to_documents(node, DocumentInput::Completed(result));
    }

    fn send_to_documents(&mut self, node: usize, input: DocumentInput) {
        // The task also stores the document on the state partition, which may take a while.
        let busy = self.prng.chance(BUSY_TASK_PERMILLE);
        let delay = if busy { self.prng.below(MAX_STORE_DELAY) } else { self.thread_delay() };
        let now = self.now;
        let Some(core) = &mut self.nodes[node].core else { return };
        core.documents_arrival = core.documents_arrival.max(now + delay) + 1;
        let delay = core.documents_arrival - now;
        self.schedule_job(node, delay, DaemonJob::Documents(input));
    }

    pub(crate) fn run_documents(&mut self, node: usize, input: DocumentInput) {
        let clock = self.nodes[node].clock(self.now);
        let decided = self.decided_generation;
        let Some(model) = self.core_model(node) else { return };
        let mut actions = Vec::new();
        match input {
            DocumentInput::Request(request) => {
                if matches!(request, DocumentRequest::Reload { .. }) {
                    model.decided_before_read =
                        if model.documents.is_idle() { decided } else { model.decided_before_read };
                }
                model.documents.request(clock, request, &mut actions);
            }
            DocumentInput::Completed(result) => model.documents.completed(clock, result, &mut actions),
        }
        let decided_before = model.decided_before_read;
        for action in actions {
            let report = match action {
                DocumentAction::Volume(op) => DocumentReport::Own(Box::new(DocumentStep::Volume(op))),
                DocumentAction::VolumeTable(change) => DocumentReport::Own(Box::new(DocumentStep::VolumeTable(change))),
                DocumentAction::Publish { document, term, .. } => {
                    let (read, decided) = (document.generation, decided_before);
                    // A node that was removed and does not know it reads its own, older replica.
                    let is_member =
                        self.chosen.values().next_back().is_some_and(|config| config.members.has(self.nodes[node].id));
                    if read < decided && is_member {
                        self.report_violation(format!(
                            "node {node} reads the document {read}, and a change of the document {decided} was made"
                        ));
                    }
                    DocumentReport::Placement(Box::new(dyad_placement::Event::DocumentRead { document, term }))
                }
                DocumentAction::ReadEnded => {
                    DocumentReport::Placement(Box::new(dyad_placement::Event::DocumentReadEnded))
                }
                DocumentAction::Decided { ticket, result } => {
                    if let Err(error) = &result {
                        self.log_line(node, format!("a change is refused: {error}"));
                    }
                    DocumentReport::ChangeDone(ticket, result.is_ok())
                }
                DocumentAction::Confirmed { ticket } => DocumentReport::ChangeDone(ticket, true),
                DocumentAction::NotRead(_) | DocumentAction::OneCopyDamaged(_) => continue,
                DocumentAction::Lost(why) => {
                    self.report_violation(format!("node {node} finds no document: {why}"));
                    continue;
                }
            };
            self.report_of_documents(node, report);
        }
    }

    fn report_of_documents(&mut self, node: usize, report: DocumentReport) {
        let delay = self.thread_delay();
        let now = self.now;
        let Some(core) = &mut self.nodes[node].core else { return };
        core.core_model_arrival = core.core_model_arrival.max(now + delay) + 1;
        let delay = core.core_model_arrival - now;
        self.schedule_job(node, delay, DaemonJob::DocumentReport(report));
    }

    pub(crate) fn take_document_report(&mut self, node: usize, report: DocumentReport) {
        match report {
            DocumentReport::Own(step) => {
                let request = match *step {
                    DocumentStep::Volume(op) => OwnRequest::Volume(op),
                    DocumentStep::VolumeTable(change) => OwnRequest::VolumeTable(change),
                };
                return self.send_own_request(node, ReplyReceiver::Documents, request);
            }
            DocumentReport::Placement(event) => {
                if let dyad_placement::Event::DocumentRead { document, .. } = &*event {
                    self.log_document(node, document);
                }
                self.place(node, *event);
            }
            DocumentReport::ChangeDone(ticket, made) => {
                if made {
                    self.note_decision(node);
                }
                self.change_done(node, ticket, made);
            }
        }
        self.settle_core_model(node);
    }

    /// Remembers that the change is made, which the node's newest document contains. Sometimes both machines lose power at once:
    /// a decision must survive that.
    fn note_decision(&mut self, node: usize) {
        let newest = self.core_model(node).and_then(|model| model.placement.document().newest());
        let generation = newest.map_or(0, |document| document.generation);
        self.decided_generation = self.decided_generation.max(generation);
        if self.faults_enabled && !self.options.partial_faults && self.prng.chance(POWER_LOSS_AFTER_DECISION_PERMILLE) {
            *self.result.faults.entry("power lost after a decision").or_default() += 1;
            self.log_line(2, "FAULT power lost after a decision".into());
            (0..2).for_each(|node| self.power_cycle(node));
        }
    }

    fn log_document(&mut self, node: usize, document: &Document) {
        if self.options.log {
            let vms: Vec<String> = document
                .vms
                .iter()
                .map(|(name, vm)| format!("{name} on {} {:?}", vm.config.node, vm.config.intent))
                .collect();
            self.log_line(node, format!("document {} {}", document.generation, vms.join(", ")));
        }
    }

    /// Creates volume 0 and writes the first document, as the setup of the first node does.
    pub(crate) fn create_pair(&mut self, node: usize) {
        let create = VolumeChange::Create { id: VolumeId::DOCUMENT, size: 2 * SLOT_BYTES as u64 };
        self.send_own_request(node, ReplyReceiver::SetUp, OwnRequest::VolumeTable(create));
        self.run(dyad_quorum::SEC);
        let record =
            |name: &str| NodeRecord { name: name.into(), addresses: Vec::new(), usable_memory_mib: 0, usable_cpus: 0 };
        let first = Document::new_pair("sim", record("left"), "$argon2id$none");
        let add_peer = Change::SetNode { node: NodeId::B, record: record("right") };
        let slot = first.and_then(|first| apply(&first, &add_peer)).and_then(|document| slots::encode(&document));
        let Ok(slot) = slot else { return self.report_violation("the first document breaks a rule".into()) };
        let block = BlockIndex(slot.offset / BLOCK_BYTES);
        let write = GuestOp::Write { block, data: slot.bytes.into() };
        self.send_own_request(node, ReplyReceiver::SetUp, OwnRequest::Volume(write));
        self.send_own_request(node, ReplyReceiver::SetUp, OwnRequest::Volume(GuestOp::Flush));
        self.run(dyad_quorum::SEC);
        self.place(node, dyad_placement::Event::ReadDocument);
    }
}
