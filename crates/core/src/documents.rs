//! Reads and writes the pair's document in volume 0, as the task of `placement` asks for it, and stores it in the document
//! cache of this node.
//!
//! **Invariant.** The steps of [`DocumentTask`] are carried out in order, and a document is in the cache before the decision of
//! its change is sent, unless the cache cannot be written.

use crate::event::{DocumentRead, Event, EventSender};
use crate::repetition::Repetition;
use crate::volume_request::{VolumeError, VolumeReplyTo, VolumeRequest};
use bytes::Bytes;
use dyad_control::{Refusal, RefusalCode, chain};
use dyad_desired::Document;
use dyad_mirror::GuestError;
use dyad_placement::{ChangeError, ChangeTicket, DocumentAction, DocumentRequest, DocumentTask, MembershipTerm};
use dyad_provision::document_cache;
use dyad_types::VolumeId;
use std::collections::{HashMap, VecDeque};
use std::path::PathBuf;
use std::time::Instant;
use tokio::sync::{mpsc, oneshot};

/// Inputs of the task.
#[derive(Debug)]
pub enum DocumentInput {
    /// A request for [`DocumentTask`].
    Request(DocumentRequest),
    /// Send [`Event::ChangeDone`] for a change that the peer has decided, after the requests queued before: `CoreState` gets
    /// the changed document before.
    Confirm {
        ticket: ChangeTicket,
        /// The peer's decision.
        result: Result<(), Refusal>,
    },
}

/// Starts the task. `state` is the folder of the document cache.
pub fn start(event_sender: EventSender, state: PathBuf) -> mpsc::UnboundedSender<DocumentInput> {
    let (sender, inputs) = mpsc::unbounded_channel();
    let driver = Driver {
        event_sender,
        state,
        task: DocumentTask::default(),
        peer_decisions: HashMap::new(),
        failure: Repetition::default(),
    };
    tokio::spawn(driver.run(inputs));
    sender
}

struct Driver {
    event_sender: EventSender,
    /// Folder of the document cache.
    state: PathBuf,
    task: DocumentTask,
    /// Decisions of the peer that wait for the requests before them.
    peer_decisions: HashMap<ChangeTicket, Result<(), Refusal>>,
    /// The newest failure of reading.
    failure: Repetition,
}

impl Driver {
    async fn run(mut self, mut inputs: mpsc::UnboundedReceiver<DocumentInput>) {
        while let Some(input) = inputs.recv().await {
            let request = match input {
                DocumentInput::Request(request) => request,
                DocumentInput::Confirm { ticket, result } => {
                    self.peer_decisions.insert(ticket, result);
                    DocumentRequest::Confirm { ticket }
                }
            };
            let mut actions = Vec::new();
            self.task.request(crate::clock::now(), request, &mut actions);
            if self.carry_out(actions).await.is_err() {
                return;
            }
        }
    }

    /// Carries out the actions of one request, until the task waits for the next one.
    ///
    /// # Errors
    /// The core is stopping: there is no one left to tell.
    async fn carry_out(&mut self, actions: Vec<DocumentAction>) -> Result<(), CoreIsStopping> {
        let mut queue = VecDeque::from(actions);
        while let Some(action) = queue.pop_front() {
            if let Some(result) = self.carry_out_one(action).await? {
                let mut actions = Vec::new();
                self.task.completed(crate::clock::now(), result, &mut actions);
                queue.extend(actions);
            }
        }
        Ok(())
    }

    /// Carries out one action. Returns the result if the task waits for it.
    async fn carry_out_one(
        &mut self,
        action: DocumentAction,
    ) -> Result<Option<Result<Bytes, GuestError>>, CoreIsStopping> {
        match action {
            DocumentAction::Volume(op) => {
                let request = |reply_to| Event::Volume(VolumeRequest { volume: VolumeId::DOCUMENT, op, reply_to });
                return self.result_of(request).await.map(Some);
            }
            DocumentAction::VolumeTable(change) => {
                return self.result_of(|reply_to| Event::VolumeTable { change, reply_to }).await.map(Some);
            }
            DocumentAction::Publish { document, term, changed } => self.publish(document, term, changed).await,
            DocumentAction::ReadEnded => self.event_sender.send(Event::DocumentReadEnded),
            DocumentAction::NotRead(error) => {
                // Reading is tried again several times a second.
                if self.failure.is_due(&error.to_string(), Instant::now()) {
                    tracing::info!(%error, "the document cannot be read now");
                }
            }
            DocumentAction::OneCopyDamaged(error) => {
                tracing::info!(error, "one slot of the document is not usable; the other one is");
            }
            DocumentAction::Lost(why) => self.event_sender.send(Event::DocumentLost { why }),
            DocumentAction::Decided { ticket, result } => {
                let result = result.map_err(|error| refusal(&error));
                self.event_sender.send(Event::ChangeDone { ticket, result });
            }
            DocumentAction::Confirmed { ticket } => {
                if let Some(result) = self.peer_decisions.remove(&ticket) {
                    self.event_sender.send(Event::ChangeDone { ticket, result });
                }
            }
        }
        Ok(None)
    }

    async fn result_of(
        &self,
        request: impl FnOnce(VolumeReplyTo) -> Event,
    ) -> Result<Result<Bytes, GuestError>, CoreIsStopping> {
        let (answer, result) = oneshot::channel();
        self.event_sender.send(request(VolumeReplyTo::Task(answer)));
        match result.await {
            Ok(Ok(data)) => Ok(Ok(data)),
            Ok(Err(VolumeError::Refused(error))) => Ok(Err(error)),
            Ok(Err(VolumeError::Stopping)) | Err(_) => Err(CoreIsStopping),
        }
    }

    /// Sends a document to `CoreState`, and stores it in the document cache if it has changed.
    async fn publish(&mut self, document: Document, term: MembershipTerm, changed: bool) {
        self.failure.ended();
        let kept = changed.then(|| document.clone());
        self.event_sender.send(Event::DocumentRead(DocumentRead { document, term }));
        let Some(kept) = kept else { return };
        // On a thread for blocking work: the runtime's threads must not wait for the disk of the state partition.
        let state = self.state.clone();
        let saved = tokio::task::spawn_blocking(move || document_cache::save(&state, &kept)).await;
        let failure =
            saved.map_or_else(|ended| Some(ended.to_string()), |saved| saved.err().map(|error| chain(&error)));
        if let Some(error) = failure {
            tracing::warn!(
                error,
                "the document is not cached: after a restart users cannot log in here while this node is not in sync"
            );
        }
    }
}

/// The core's state thread has ended, so requests to it get no answer.
struct CoreIsStopping;

/// The refusal that the client of a change gets.
fn refusal(error: &ChangeError) -> Refusal {
    let code = match error {
        ChangeError::NoDocument => RefusalCode::NoDocument,
        ChangeError::TooLate => RefusalCode::TooLate,
        ChangeError::Rule(refusal) => return refusal.clone().into(),
        ChangeError::Volume(_) => RefusalCode::Pool,
        ChangeError::Interrupted(_) => RefusalCode::MembershipChanged,
    };
    Refusal::new(code, error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use dyad_desired::Change;
    use dyad_desired::slots::{self, SLOT_BYTES};
    use dyad_mirror::{GuestOp, VolumeChange};
    use dyad_types::NodeId;
    use std::sync::mpsc::channel;

    /// If the lead changes during a reload, the first read fails. The second one must not be sent, as it would get no
    /// answer.
    #[tokio::test]
    async fn a_reload_ends_at_its_first_failed_read() {
        let (sender, events) = channel();
        let requests = start(EventSender(sender), PathBuf::new());
        for (lead, expected) in [(true, "Read"), (false, "Peek")] {
            requests
                .send(DocumentInput::Request(DocumentRequest::Reload { lead, term: MembershipTerm(0) }))
                .unwrap_or_else(|_| panic!("the task ended"));
            let mut asked = Vec::new();
            loop {
                // Lets the document's task run; no other task exists here.
                tokio::task::yield_now().await;
                match events.try_recv() {
                    Ok(Event::Volume(VolumeRequest { op, reply_to, .. })) => {
                        asked.push(match op {
                            GuestOp::Read { .. } => "Read",
                            GuestOp::Peek { .. } => "Peek",
                            other => panic!("a reload asks for {other:?}"),
                        });
                        reply_to.complete(Err(VolumeError::Refused(GuestError::Closed)));
                    }
                    Ok(Event::DocumentReadEnded) => break,
                    Ok(_) => panic!("a reload asks for nothing else"),
                    Err(_) => {}
                }
            }
            assert_eq!(asked, [expected]);
        }
    }

    /// One request to the pool or to volume 0.
    #[derive(Debug, PartialEq)]
    enum Asked {
        Create(VolumeId),
        Write,
        Flush,
    }

    /// Makes changes to a document that lies in the first slot; returns the requests of each change, in sequence.
    fn asked_by(document: &Document, changes: Vec<Change>) -> Vec<Vec<Asked>> {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let (sender, events) = channel();
        let encoded = slots::encode(document).unwrap();
        let (decide, mut decided) = mpsc::unbounded_channel();
        let mirror = std::thread::spawn(move || {
            let (mut all, mut asked) = (Vec::new(), Vec::new());
            for event in events {
                match event {
                    Event::Volume(VolumeRequest { op, reply_to, .. }) => {
                        let mut bytes = Bytes::new();
                        match op {
                            GuestOp::Read { block, .. } => {
                                let mut slot = vec![0; SLOT_BYTES];
                                if block.0 * 4096 == encoded.offset {
                                    slot[..encoded.bytes.len()].copy_from_slice(&encoded.bytes);
                                }
                                bytes = slot.into();
                            }
                            GuestOp::Write { .. } => asked.push(Asked::Write),
                            GuestOp::Flush => asked.push(Asked::Flush),
                            other => panic!("the document asks for {other:?}"),
                        }
                        reply_to.complete(Ok(bytes));
                    }
                    Event::VolumeTable { change, reply_to } => {
                        asked.push(match change {
                            VolumeChange::Create { id, .. } => Asked::Create(id),
                            other => panic!("the document asks for {other:?}"),
                        });
                        reply_to.complete(Ok(Bytes::new()));
                    }
                    Event::ChangeDone { ticket, result } => {
                        assert_eq!((ticket, result), (ChangeTicket(all.len() as u64), Ok(())));
                        all.push(std::mem::take(&mut asked));
                        decide.send(()).unwrap();
                    }
                    _ => {}
                }
            }
            all
        });
        let dir = tempfile::tempdir().unwrap();
        runtime.block_on(async {
            let requests = start(EventSender(sender), dir.path().into());
            let send = |request| requests.send(request).unwrap_or_else(|_| panic!("the task ended"));
            send(DocumentInput::Request(DocumentRequest::Reload { lead: true, term: MembershipTerm(0) }));
            for (number, change) in changes.into_iter().enumerate() {
                let (ticket, asked_at) = (ChangeTicket(number as u64), crate::clock::now());
                send(DocumentInput::Request(DocumentRequest::Change { change, ticket, asked_at }));
                decided.recv().await.expect("each change is decided");
            }
        });
        drop(runtime);
        mirror.join().unwrap()
    }

    /// The document's task deletes no volume, because a document on the other node may still name it.
    #[test]
    fn a_volume_is_created_before_the_document_names_it_and_none_is_deleted() {
        let record = dyad_desired::NodeRecord {
            name: "left".into(),
            addresses: Vec::new(),
            usable_memory_mib: 0,
            usable_cpus: 0,
        };
        let document = Document::new_pair("rig", record, "$argon2id$none").unwrap();
        let disk = || "disk".to_owned();
        let changes = vec![
            Change::CreateVolume { name: disk(), size: 1 << 20, primary: NodeId::A },
            Change::BeginImport { name: disk() },
            Change::FinishImport { name: disk(), id: VolumeId(2) },
            Change::BeginImport { name: disk() },
            Change::DropImport { name: disk(), id: VolumeId(3) },
            Change::DeleteVolume { name: disk() },
        ];
        use Asked::{Create, Flush, Write};
        let expected = [
            vec![Create(VolumeId(1)), Write, Flush],
            vec![Create(VolumeId(2)), Write, Flush],
            vec![Write, Flush],
            vec![Create(VolumeId(3)), Write, Flush],
            vec![Write, Flush],
            vec![Write, Flush],
        ];
        assert_eq!(asked_by(&document, changes), expected);
    }
}
