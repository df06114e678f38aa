//! The replicated document on volume 0: the task that reads it, and changes it on the lead.
//!
//! **Invariants.** A change is answered only after the flush of volume 0 that carries it: durable on every in-sync
//! node. A change whose write was cut off by a change of membership is answered with a refusal to ask again, and never
//! written later (`CoreState` closes volume 0 when this node stops being its writer).

use crate::event::{DocumentRead, Event, Inbox, MembershipTerm, Ticket};
use crate::guests::VolumeBackend;
use crate::volume_request::{VolumeError, VolumeReplyTo};
use bytes::Bytes;
use dyad_control::{Refusal, RefusalCode, chain};
use dyad_desired::slots::{self, DocumentChoice, SLOT};
use dyad_desired::{Change, Document, apply};
use dyad_mirror::VolumeChange;
use dyad_provision::document_cache;
use dyad_provision::setup::DOCUMENT_BYTES;
use dyad_types::VolumeId;
use std::path::PathBuf;
use std::time::{Duration, Instant};
use tokio::sync::{mpsc, oneshot};

/// Longest time that a change waits in the queue. A later one is refused, as its client may have given up.
const CHANGE_QUEUE_TIMEOUT: Duration = Duration::from_secs(20);

/// What the task can be asked. It carries out one request after the other.
#[derive(Debug)]
pub enum DocumentRequest {
    /// Make a change (only on the lead), then send [`Event::ChangeDone`].
    Change {
        change: Change,
        ticket: Ticket,
        /// When it was asked for.
        asked: Instant,
    },
    /// The peer has decided a change: send [`Event::ChangeDone`] after all requests queued before, so that `CoreState`
    /// has the changed document first.
    Confirm {
        ticket: Ticket,
        /// The peer's decision.
        result: Result<(), Refusal>,
    },
    /// Membership or the peer says that volume 0 may have changed.
    Reload {
        /// This node writes volume 0 now.
        lead: bool,
        /// The membership term of this node.
        term: MembershipTerm,
    },
}

/// Starts the task.
pub fn start(inbox: Inbox, state: PathBuf) -> mpsc::UnboundedSender<DocumentRequest> {
    let (sender, requests) = mpsc::unbounded_channel();
    let volume = VolumeBackend::new(inbox.clone(), VolumeId::DOCUMENT, DOCUMENT_BYTES);
    tokio::spawn(
        DocumentTask { inbox, state, volume, current: None, told: None, lead: false, term: MembershipTerm(0) }
            .run(requests),
    );
    sender
}

struct DocumentTask {
    inbox: Inbox,
    /// Folder of the document cache.
    state: PathBuf,
    volume: VolumeBackend,
    /// What a change is applied to: read or written in this term, by this lead.
    current: Option<Document>,
    /// The membership term and the document that `CoreState` was told last.
    told: Option<(MembershipTerm, Document)>,
    lead: bool,
    term: MembershipTerm,
}

impl DocumentTask {
    async fn run(mut self, mut requests: mpsc::UnboundedReceiver<DocumentRequest>) {
        while let Some(request) = requests.recv().await {
            match request {
                DocumentRequest::Reload { lead, term } => {
                    if (lead, term) != (self.lead, self.term) {
                        // Nothing is changed until the document is read again: the other node may have written it.
                        self.current = None;
                    }
                    (self.lead, self.term) = (lead, term);
                    self.reload().await;
                    self.inbox.send(Event::DocumentReadEnded);
                }
                DocumentRequest::Confirm { ticket, result } => {
                    self.inbox.send(Event::ChangeDone { ticket, result });
                }
                DocumentRequest::Change { ticket, asked, .. } if asked.elapsed() > CHANGE_QUEUE_TIMEOUT => {
                    let text = "The pair could not make this change in time and did not make it; ask again.";
                    let result = Err(Refusal::new(RefusalCode::TooLate, text));
                    self.inbox.send(Event::ChangeDone { ticket, result });
                }
                DocumentRequest::Change { change, ticket, .. } => {
                    let result = self.change(&change).await;
                    self.inbox.send(Event::ChangeDone { ticket, result });
                }
            }
        }
    }

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
            DocumentChoice::Lost(why) => self.inbox.send(Event::DocumentLost { why }),
        }
    }

    async fn slots(&self) -> Result<(Bytes, Bytes), VolumeError> {
        let slot = SLOT as u64;
        Ok((
            self.volume.document_slot(0..slot, self.lead).await?,
            self.volume.document_slot(slot..2 * slot, self.lead).await?,
        ))
    }

    async fn publish(&mut self, document: Document) {
        self.current = Some(document.clone());
        let current = (self.term, document);
        if self.told.as_ref() == Some(&current) {
            return;
        }
        let (term, document) = current.clone();
        let kept = document.clone();
        let known = self.told.replace(current).is_some_and(|(_, old)| old == kept);
        self.inbox.send(Event::DocumentRead(DocumentRead { document, term }));
        if known {
            return;
        }
        // Not on the core's state thread: guests would wait for this disk.
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

    async fn change(&mut self, change: &Change) -> Result<(), Refusal> {
        let Some(current) = self.current.clone() else {
            return Err(Refusal::new(
                RefusalCode::NoDocument,
                "The pair's document is not readable yet; ask again in a moment.",
            ));
        };
        let next = apply(&current, change).map_err(Refusal::from)?;
        // Volumes are created before the document is committed: a crash in between leaves an orphan, which the GC deletes,
        // never a document that names a volume that does not exist. Volumes that the document drops are the GC's.
        let before = current.stored();
        for (id, size) in next.stored().into_iter().filter(|(id, _)| !before.contains_key(id)) {
            self.volumes(VolumeChange::Create { id, size }).await?;
        }
        self.write(next).await
    }

    async fn volumes(&self, change: VolumeChange) -> Result<(), Refusal> {
        let (answer, done) = oneshot::channel();
        self.inbox.send(Event::VolumeTable { change, reply_to: VolumeReplyTo::Task(answer) });
        match done.await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(error)) => Err(Refusal::new(RefusalCode::Pool, error.to_string())),
            Err(_) => Err(Refusal::stopping()),
        }
    }

    async fn write(&mut self, document: Document) -> Result<(), Refusal> {
        let encoded = slots::encode(&document).map_err(Refusal::from)?;
        let cut = |error: VolumeError| {
            Refusal::new(
                RefusalCode::MembershipChanged,
                format!("The pair is just changing who leads it: {error}; ask again."),
            )
        };
        self.volume.write(encoded.offset, encoded.bytes.into()).await.map_err(cut)?;
        self.volume.flush().await.map_err(cut)?;
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

    /// A lead that is replaced while it reads learns so from the first read: the second one is not sent, as it would not be answered.
    #[tokio::test]
    async fn a_read_that_fails_is_the_last_of_its_reload() {
        let (sender, events) = channel();
        let requests = start(Inbox(sender), PathBuf::new());
        for (lead, expected) in [(true, "Read"), (false, "Peek")] {
            requests
                .send(DocumentRequest::Reload { lead, term: MembershipTerm(0) })
                .unwrap_or_else(|_| panic!("the task ended"));
            let mut asked = Vec::new();
            loop {
                // The task's turn; nothing else runs here.
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

    /// What the pool and volume 0 were asked for, in order.
    #[derive(Debug, PartialEq)]
    enum Asked {
        Create(VolumeId),
        Write,
        Flush,
    }

    /// Makes changes to a document that lies in the first slot; tells what each one asked for.
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
                                let mut slot = vec![0; SLOT];
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
                        assert_eq!((ticket, result), (Ticket(all.len() as u64), Ok(())));
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
            let requests = start(Inbox(sender), dir.path().into());
            let send = |request| requests.send(request).unwrap_or_else(|_| panic!("the task ended"));
            send(DocumentRequest::Reload { lead: true, term: MembershipTerm(0) });
            for (number, change) in changes.into_iter().enumerate() {
                send(DocumentRequest::Change { change, ticket: Ticket(number as u64), asked: Instant::now() });
                decided.recv().await.expect("each change is decided");
            }
        });
        drop(runtime);
        mirror.join().unwrap()
    }

    /// Room is made before the document promises it, and nothing is freed here: a document may still name it.
    #[test]
    fn the_pool_is_asked_first_for_what_comes_and_never_for_what_goes() {
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
