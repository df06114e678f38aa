//! Access to volumes of the mirror for device servers and imports.

use crate::event::{Event, EventSender};
use crate::volume_request::{VolumeError, VolumeReplyTo, VolumeRequest, VolumeResult};
use bytes::Bytes;
use dyad_blockdev::{Backend, ReplyTo, Request};
use dyad_mirror::{GuestOp, MAX_WRITE};
use dyad_types::{BLOCK_BYTES, BlockIndex, VolumeId};
use std::ops::Range;
use tokio::sync::oneshot;

/// One volume, as a device server or an import uses it: requests are sent as [`Event::Volume`].
#[derive(Clone)]
pub struct VolumeBackend {
    event_sender: EventSender,
    volume: VolumeId,
    size: u64,
}

impl VolumeBackend {
    /// The volume with this id and size in bytes.
    pub fn new(event_sender: EventSender, volume: VolumeId, size: u64) -> Self {
        Self { event_sender, volume, size }
    }

    fn send(&self, op: GuestOp, reply_to: VolumeReplyTo) {
        self.event_sender.send(Event::Volume(VolumeRequest { volume: self.volume, op, reply_to }));
    }

    async fn request(&self, op: GuestOp) -> VolumeResult {
        let (answer, result) = oneshot::channel();
        self.send(op, VolumeReplyTo::Task(answer));
        result.await.unwrap_or(Err(VolumeError::Stopping))
    }

    /// Writes whole blocks at the byte `offset`.
    ///
    /// # Errors
    /// The mirror refused the request, or the core is stopping.
    pub async fn write(&self, offset: u64, data: Bytes) -> Result<(), VolumeError> {
        assert!(offset.is_multiple_of(BLOCK_BYTES) && (data.len() as u64).is_multiple_of(BLOCK_BYTES));
        self.request(GuestOp::Write { block: BlockIndex(offset / BLOCK_BYTES), data }).await.map(drop)
    }

    /// Frees the whole blocks of a range of bytes; they read as zeros.
    ///
    /// # Errors
    /// The mirror refused the request, or the core is stopping.
    pub async fn discard(&self, bytes: Range<u64>) -> Result<(), VolumeError> {
        assert!(bytes.start.is_multiple_of(BLOCK_BYTES) && bytes.end.is_multiple_of(BLOCK_BYTES));
        let (block, count) = block_and_count(&bytes);
        self.request(GuestOp::Discard { block, count }).await.map(drop)
    }

    /// Makes all completed writes durable on every in-sync node.
    ///
    /// # Errors
    /// The mirror refused the request, or the core is stopping.
    pub async fn flush(&self) -> Result<(), VolumeError> {
        self.request(GuestOp::Flush).await.map(drop)
    }

    pub fn id(&self) -> VolumeId {
        self.volume
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
                // A guest's largest write, widened to whole blocks, may be longer than the mirror's limit. The parts may
                // complete in any sequence, as no order is promised before the whole write has completed.
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
            // A discarded range reads as zeros in this pool, so a discard fulfils both requests.
            Request::Discard { offset, len } | Request::WriteZeroes { offset, len } => {
                GuestOp::Discard { block: BlockIndex(offset / BLOCK_BYTES), count: len / BLOCK_BYTES }
            }
        };
        self.send(op, VolumeReplyTo::Guest(reply_to));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc::channel;

    #[test]
    fn a_write_above_the_limit_of_the_mirror_is_split_and_answered_once() {
        let (sender, events) = channel();
        let volume = VolumeBackend::new(EventSender(sender), VolumeId(7), 8 << 20);
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
