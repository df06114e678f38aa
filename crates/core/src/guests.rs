//! The writing ends of volumes: what blockdev's servers, imports and the document use to reach the mirror.

use crate::event::{Event, Inbox};
use crate::volume_request::{VolumeError, VolumeReplyTo, VolumeRequest, VolumeResult};
use bytes::Bytes;
use dyad_blockdev::{Backend, ReplyTo, Request};
use dyad_mirror::{GuestOp, MAX_WRITE};
use dyad_types::{BLOCK_BYTES, BlockIndex, VolumeId};
use std::ops::Range;
use tokio::sync::oneshot;

/// One volume, for the device server, the import or the document's task that writes it on this node.
#[derive(Clone)]
pub struct VolumeBackend {
    inbox: Inbox,
    volume: VolumeId,
    size: u64,
}

impl VolumeBackend {
    /// The volume with this id and size in bytes.
    pub fn new(inbox: Inbox, volume: VolumeId, size: u64) -> Self {
        Self { inbox, volume, size }
    }

    fn ask(&self, op: GuestOp, reply_to: VolumeReplyTo) {
        self.inbox.send(Event::Volume(VolumeRequest { volume: self.volume, op, reply_to }));
    }

    async fn run(&self, op: GuestOp) -> VolumeResult {
        let (answer, result) = oneshot::channel();
        self.ask(op, VolumeReplyTo::Task(answer));
        result.await.unwrap_or(Err(VolumeError::Stopping))
    }

    /// Writes whole blocks at the byte `offset`.
    ///
    /// # Errors
    /// The mirror refused the request, or the core is stopping.
    pub async fn write(&self, offset: u64, data: Bytes) -> Result<(), VolumeError> {
        assert!(offset.is_multiple_of(BLOCK_BYTES) && (data.len() as u64).is_multiple_of(BLOCK_BYTES));
        self.run(GuestOp::Write { block: BlockIndex(offset / BLOCK_BYTES), data }).await.map(drop)
    }

    /// Frees the whole blocks of a range of bytes; they read as zeros.
    ///
    /// # Errors
    /// The mirror refused the request, or the core is stopping.
    pub async fn discard(&self, bytes: Range<u64>) -> Result<(), VolumeError> {
        assert!(bytes.start.is_multiple_of(BLOCK_BYTES) && bytes.end.is_multiple_of(BLOCK_BYTES));
        let (block, count) = block_and_count(&bytes);
        self.run(GuestOp::Discard { block, count }).await.map(drop)
    }

    /// Makes everything written durable on every in-sync node.
    ///
    /// # Errors
    /// The mirror refused the request, or the core is stopping.
    pub async fn flush(&self) -> Result<(), VolumeError> {
        self.run(GuestOp::Flush).await.map(drop)
    }

    pub fn id(&self) -> VolumeId {
        self.volume
    }
}

impl VolumeBackend {
    /// Reads a part of the document's volume: as its writer, or from the local replica while the peer is the writer.
    ///
    /// # Errors
    /// The mirror refused the request, or the core is stopping.
    pub async fn document_slot(&self, bytes: Range<u64>, writer: bool) -> VolumeResult {
        let (block, count) = block_and_count(&bytes);
        self.run(if writer { GuestOp::Read { block, count } } else { GuestOp::Peek { block, count } }).await
    }
}

/// First block and number of blocks of a range of bytes.
fn block_and_count(bytes: &Range<u64>) -> (BlockIndex, u64) {
    (BlockIndex(bytes.start / BLOCK_BYTES), (bytes.end - bytes.start) / BLOCK_BYTES)
}

impl Backend for VolumeBackend {
    fn size(&self) -> u64 {
        self.size
    }

    fn submit(&self, request: Request, reply_to: ReplyTo) {
        let op = match request {
            Request::Read { offset, len } => {
                GuestOp::Read { block: BlockIndex(offset / BLOCK_BYTES), count: u64::from(len) / BLOCK_BYTES }
            }
            Request::Write { offset, mut data } => {
                // A guest's largest write, widened to whole blocks, is a little more than the mirror takes at once. Parts
                // may complete in any order: nothing promises more before the whole write has completed.
                if data.len() > MAX_WRITE {
                    let first = data.split_to(MAX_WRITE);
                    let rest = Request::Write { offset: offset + first.len() as u64, data };
                    let [first_reply, rest_reply] = reply_to.split();
                    self.submit(rest, rest_reply);
                    return self.submit(Request::Write { offset, data: first }, first_reply);
                }
                GuestOp::Write { block: BlockIndex(offset / BLOCK_BYTES), data }
            }
            Request::Flush => GuestOp::Flush,
            // Both read as zeros afterwards here, which is all that either promises.
            Request::Discard { offset, len } | Request::WriteZeroes { offset, len } => {
                GuestOp::Discard { block: BlockIndex(offset / BLOCK_BYTES), count: len / BLOCK_BYTES }
            }
        };
        self.ask(op, VolumeReplyTo::Guest(reply_to));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc::channel;

    #[test]
    fn a_write_larger_than_the_mirror_takes_is_two_and_answered_once() {
        let (sender, events) = channel();
        let volume = VolumeBackend::new(Inbox(sender), VolumeId(7), 8 << 20);
        let (answer, answered) = channel();
        let data = Bytes::from(vec![1; MAX_WRITE + 4096]);
        volume.submit(Request::Write { offset: 4096, data }, ReplyTo::channel(answer));
        let mut blocks = Vec::new();
        for event in events.try_iter() {
            let Event::Volume(VolumeRequest { volume: VolumeId(7), op: GuestOp::Write { block, data }, reply_to }) =
                event
            else {
                panic!("a write")
            };
            assert!(answered.try_recv().is_err());
            blocks.push((block.0, data.len()));
            reply_to.complete(Ok(Bytes::new()));
        }
        blocks.sort_unstable();
        assert_eq!(blocks, [(1, MAX_WRITE), (257, 4096)]);
        assert!(matches!(answered.try_recv(), Ok(Ok(data)) if data.is_empty()));
    }
}
