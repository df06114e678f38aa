//! The replicated document on volume 0: the task that reads it, and changes it on the lead.
//!
//! **Invariants.** A change is answered with success only after a flush of volume 0, so it is durable on every in-sync node. If
//! the membership changes during the write, the change is refused, although it may have been made, and its write is not
//! repeated: the mirror refuses the requests to volume 0 when this node stops being its writer.

use crate::event::{ChangeTicket, DocumentRead, Event, EventSender, MembershipTerm};
use crate::guests::VolumeBackend;
use crate::volume_request::{VolumeError, VolumeReplyTo};
use bytes::Bytes;
use dyad_control::{Refusal, RefusalCode, chain};
use dyad_desired::slots::{self, DocumentChoice, SLOT_BYTES};
use dyad_desired::{Change, Document, apply};
use dyad_mirror::VolumeChange;
use dyad_provision::document_cache;
use dyad_provision::setup::DOCUMENT_BYTES;
use dyad_types::VolumeId;
use std::path::PathBuf;
use std::time::{Duration, Instant};
use tokio::sync::{mpsc, oneshot};

/// Longest time that a change waits in the queue. After that it is refused, because its client may have given up.
const CHANGE_QUEUE_TIMEOUT: Duration = Duration::from_secs(20);

/// Requests to the task, which carries them out one after the other.
#[derive(Debug)]
pub enum DocumentRequest {
    /// Make a change (only on the lead), then send [`Event::ChangeDone`].
    Change {
        change: Change,
        ticket: ChangeTicket,
        /// Start of the wait that [`CHANGE_QUEUE_TIMEOUT`] limits.
        asked_at: Instant,
    },
    /// Send [`Event::ChangeDone`] for a change that the peer has decided. The requests queued before are carried out first,
    /// so `CoreState` gets the changed document before.
    Confirm {
        ticket: ChangeTicket,
        /// The peer's decision.
        result: Result<(), Refusal>,
    },
    /// Read the document again, because volume 0 may have changed: after a change of membership, or when the peer says so.
    Reload {
        /// This node writes volume 0 now.
        lead: bool,
        /// The membership term of this node.
        term: MembershipTerm,
    },
}

/// Starts the task. `state` is the folder of the document cache.
pub fn start(event_sender: EventSender, state: PathBuf) -> mpsc::UnboundedSender<DocumentRequest> {
    let (sender, requests) = mpsc::unbounded_channel();
    let volume = VolumeBackend::new(event_sender.clone(), VolumeId::DOCUMENT, DOCUMENT_BYTES);
    tokio::spawn(
        DocumentTask {
            event_sender,
            state,
            volume,
            current: None,
            published: None,
            lead: false,
            term: MembershipTerm(0),
        }
        .run(requests),
    );
    sender
}

struct DocumentTask {
    event_sender: EventSender,
    /// Folder of the document cache.
    state: PathBuf,
    volume: VolumeBackend,
    /// The document that a change is applied to. `None` = none was read since membership term or lead changed.
    current: Option<Document>,
    /// Membership term and document of the last [`Event::DocumentRead`].
    published: Option<(MembershipTerm, Document)>,
    lead: bool,
    term: MembershipTerm,
}

impl DocumentTask {
    async fn run(mut self, mut requests: mpsc::UnboundedReceiver<DocumentRequest>) {
        while let Some(request) = requests.recv().await {
            match request {
                DocumentRequest::Reload { lead, term } => {
                    if (lead, term) != (self.lead, self.term) {
                        // No change is made until the document is read again: the other node may have written it.
                        self.current = None;
                    }
                    (self.lead, self.term) = (lead, term);
                    self.reload().await;
                    self.event_sender.send(Event::DocumentReadEnded);
                }
                DocumentRequest::Confirm { ticket, result } => {
                    self.event_sender.send(Event::ChangeDone { ticket, result });
                }
                DocumentRequest::Change { ticket, asked_at, .. } if asked_at.elapsed() > CHANGE_QUEUE_TIMEOUT => {
                    let text = "The pair could not make this change in time and did not make it; ask again.";
                    let result = Err(Refusal::new(RefusalCode::TooLate, text));
                    self.event_sender.send(Event::ChangeDone { ticket, result });
                }
                DocumentRequest::Change { change, ticket, .. } => {
                    let result = self.change(&change).await;
                    self.event_sender.send(Event::ChangeDone { ticket, result });
                }
            }
        }
    }

    /// Reads both slots of the document and publishes the newer valid one.
    async fn reload(&mut self) {
        let (first, second) = match self.slots().await {
            Ok(slots) => slots,
            Err(error) => return tracing::info!(%error, "the document cannot be read now"),
        };
        match slots::choose(&first, &second) {
            DocumentChoice::Fresh => {}
            DocumentChoice::Current(document, error) => {
                if let Some(error) = error {
                    tracing::info!(error, "one slot of the document is not usable; the other one is");
                }
                self.publish(*document).await;
            }
            DocumentChoice::Lost(why) => self.event_sender.send(Event::DocumentLost { why }),
        }
    }

    async fn slots(&self) -> Result<(Bytes, Bytes), VolumeError> {
        let slot = SLOT_BYTES as u64;
        Ok((
            self.volume.read_document_slot(0..slot, self.lead).await?,
            self.volume.read_document_slot(slot..2 * slot, self.lead).await?,
        ))
    }

    /// Sends a document to `CoreState` if it differs from the one sent last, and stores it in the document cache.
    async fn publish(&mut self, document: Document) {
        self.current = Some(document.clone());
        let current = (self.term, document);
        if self.published.as_ref() == Some(&current) {
            return;
        }
        let (term, document) = current.clone();
        let kept = document.clone();
        let known = self.published.replace(current).is_some_and(|(_, old)| old == kept);
        self.event_sender.send(Event::DocumentRead(DocumentRead { document, term }));
        if known {
            return;
        }
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

    /// Applies a change and writes the new document.
    async fn change(&mut self, change: &Change) -> Result<(), Refusal> {
        let Some(current) = self.current.clone() else {
            return Err(Refusal::new(
                RefusalCode::NoDocument,
                "The pair's document is not readable yet; ask again in a moment.",
            ));
        };
        let next = apply(&current, change).map_err(Refusal::from)?;
        // Volumes are created before the document is written. A crash in between leaves an orphaned volume, which the
        // garbage collection deletes, and never a document that names a missing volume. The garbage collection also deletes
        // the volumes that the new document no longer names.
        let before = current.volume_sizes();
        for (id, size) in next.volume_sizes().into_iter().filter(|(id, _)| !before.contains_key(id)) {
            self.change_volume_table(VolumeChange::Create { id, size }).await?;
        }
        self.write(next).await
    }

    async fn change_volume_table(&self, change: VolumeChange) -> Result<(), Refusal> {
        let (answer, done) = oneshot::channel();
        self.event_sender.send(Event::VolumeTable { change, reply_to: VolumeReplyTo::Task(answer) });
        match done.await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(error)) => Err(Refusal::new(RefusalCode::Pool, error.to_string())),
            Err(_) => Err(Refusal::stopping()),
        }
    }

    async fn write(&mut self, document: Document) -> Result<(), Refusal> {
        let encoded = slots::encode(&document).map_err(Refusal::from)?;
        let interrupted = |error: VolumeError| {
            Refusal::new(
                RefusalCode::MembershipChanged,
                format!("The pair is just changing who leads it: {error}; ask again."),
            )
        };
        self.volume.write(encoded.offset, encoded.bytes.into()).await.map_err(interrupted)?;
        self.volume.flush().await.map_err(interrupted)?;
        self.publish(document).await;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::volume_request::VolumeRequest;
    use dyad_mirror::{GuestError, GuestOp};
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
                .send(DocumentRequest::Reload { lead, term: MembershipTerm(0) })
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
            send(DocumentRequest::Reload { lead: true, term: MembershipTerm(0) });
            for (number, change) in changes.into_iter().enumerate() {
                send(DocumentRequest::Change { change, ticket: ChangeTicket(number as u64), asked_at: Instant::now() });
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
