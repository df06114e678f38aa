//! The writing ends of volumes: what blockdev's servers, imports and the document use to reach the mirror.

use crate::event::{Event, Inbox};
use bytes::Bytes;
use dyad_blockdev::{Backend, BackendError, Done, Request};
use dyad_mirror::GuestOp;
use tokio::sync::oneshot;

/// Bytes of a block.
pub const BLOCK: u64 = 4096;

/// Outcome of one request: data for reads, empty otherwise; or one sentence.
pub type Outcome = Result<Bytes, String>;
/// Called once with the outcome, on the owner's thread: must not block.
pub type Answer = Box<dyn FnOnce(Outcome) + Send>;

/// One volume, for whoever writes it on this node.
#[derive(Clone)]
pub struct VolumeBackend {
    inbox: Inbox,
    volume: u64,
    size: u64,
}

impl VolumeBackend {
    /// The volume with this id and size in bytes.
    pub fn new(inbox: Inbox, volume: u64, size: u64) -> Self {
        Self { inbox, volume, size }
    }

    fn ask(&self, op: GuestOp, done: Answer) {
        self.inbox.send(Event::Guest { volume: self.volume, op, done });
    }

    async fn run(&self, op: GuestOp) -> Outcome {
        let (answer, outcome) = oneshot::channel();
        self.ask(op, Box::new(move |o| drop(answer.send(o))));
        outcome.await.unwrap_or_else(|_| Err("the core is stopping".into()))
    }

    /// Writes whole blocks at the byte `offset`.
    pub async fn write(&self, offset: u64, data: Bytes) -> Result<(), String> {
        assert!(offset.is_multiple_of(BLOCK) && (data.len() as u64).is_multiple_of(BLOCK));
        self.run(GuestOp::Write { block: offset / BLOCK, data }).await.map(drop)
    }

    /// Frees whole blocks; they read as zeros.
    pub async fn discard(&self, offset: u64, bytes: u64) -> Result<(), String> {
        assert!(offset.is_multiple_of(BLOCK) && bytes.is_multiple_of(BLOCK));
        self.run(GuestOp::Discard { block: offset / BLOCK, count: bytes / BLOCK }).await.map(drop)
    }

    /// Everything written is durable on every in-sync node.
    pub async fn flush(&self) -> Result<(), String> {
        self.run(GuestOp::Flush).await.map(drop)
    }

    /// Tells the owner that an import is over.
    pub fn close_import(&self) {
        self.inbox.send(Event::ImportClosed { volume: self.volume });
    }
}

impl VolumeBackend {
    /// Reads a part of the document's volume: as its writer, or peeking at the local replica.
    pub async fn document_slot(&self, offset: u64, bytes: u64, writer: bool) -> Outcome {
        let (block, count) = (offset / BLOCK, bytes / BLOCK);
        self.run(if writer { GuestOp::Read { block, count } } else { GuestOp::Peek { block, count } }).await
    }
}

impl Backend for VolumeBackend {
    fn size(&self) -> u64 {
        self.size
    }

    fn submit(&self, request: Request, done: Done) {
        let op = match request {
            Request::Read { offset, len } => GuestOp::Read { block: offset / BLOCK, count: u64::from(len) / BLOCK },
            Request::Write { offset, data } => GuestOp::Write { block: offset / BLOCK, data },
            Request::Flush => GuestOp::Flush,
            // Both read as zeros afterwards here, which is all that either promises.
            Request::Discard { offset, len } | Request::WriteZeroes { offset, len } => {
                GuestOp::Discard { block: offset / BLOCK, count: len / BLOCK }
            }
        };
        self.ask(op, Box::new(move |outcome| done(outcome.map_err(BackendError::Failed))));
    }
}
