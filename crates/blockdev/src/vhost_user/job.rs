//! Cuts a request of a driver into pieces, which are small enough for the backend.

use crate::limits::{BLOCK_BYTES, MAX_BULK, MAX_TRANSFER};
use crate::vhost_user::request::Operation;

/// A piece of a job. It takes one request to the backend; if it changes only parts of blocks, the old content of these
/// blocks is read first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Piece {
    pub action: Action,
    /// Byte offset in the volume.
    pub offset: u64,
    /// Number of bytes, not 0.
    pub len: u64,
}

/// The action of a piece at the backend.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Action {
    Read,
    Write,
    /// Writes zeros into a part of one block. The backend gets a write of the whole block.
    ZeroPartOfBlock,
    /// Discards whole blocks; they read as zeros from then on.
    Discard,
    /// Makes whole blocks read as zeros.
    WriteZeroes,
}

impl Piece {
    /// The bytes of the whole blocks that contain the piece.
    pub fn block_range(&self) -> std::ops::Range<u64> {
        let end = self.offset + self.len;
        self.offset - self.offset % BLOCK_BYTES..end.next_multiple_of(BLOCK_BYTES)
    }

    /// The blocks of which the piece covers only a part: at most the first and the last one. Each is given by its byte
    /// offset in [`Piece::block_range`].
    pub fn partial_blocks(&self) -> impl Iterator<Item = usize> + use<> {
        let blocks = self.block_range();
        let end = self.offset + self.len;
        let last = blocks.end - BLOCK_BYTES;
        let head = !self.offset.is_multiple_of(BLOCK_BYTES);
        let one_block = last == blocks.start;
        let tail = !end.is_multiple_of(BLOCK_BYTES) && (!one_block || !head);
        let tail_at = (last - blocks.start) as usize;
        [head.then_some(0), tail.then_some(tail_at)].into_iter().flatten()
    }
}

/// The part of a request that was not cut into pieces yet.
#[derive(Debug, Clone, Copy)]
pub(crate) struct RemainingRequest {
    operation: Operation,
    /// Byte offset of the next piece in the volume.
    next: u64,
    /// Byte offset of the end of the request in the volume.
    end: u64,
}

impl RemainingRequest {
    /// A whole request with `data_len` bytes of data.
    pub fn new(operation: Operation, data_len: u64) -> Self {
        let (next, end) = match operation {
            Operation::Read { offset } | Operation::Write { offset } => (offset, offset + data_len),
            Operation::WriteZeroes { offset, len } => (offset, offset + len),
            // A discard is a hint (virtio 5.2.6): the blocks at both ends that it covers only in part keep their
            // content.
            Operation::Discard { offset, len } => {
                let end = offset + len;
                (offset.next_multiple_of(BLOCK_BYTES), end - end % BLOCK_BYTES)
            }
            Operation::Flush | Operation::GetId | Operation::Unknown | Operation::Invalid => (0, 0),
        };
        Self { operation, next, end }
    }

    /// Cuts off the next piece, in ascending order of offsets; `None` if nothing is left.
    pub fn next_piece(&mut self) -> Option<Piece> {
        if self.next >= self.end {
            return None;
        }
        let (offset, left) = (self.next, self.end - self.next);
        let (action, len) = match self.operation {
            Operation::Read { .. } => (Action::Read, left.min(MAX_TRANSFER - offset % MAX_TRANSFER)),
            Operation::Write { .. } => (Action::Write, left.min(MAX_TRANSFER - offset % MAX_TRANSFER)),
            Operation::Discard { .. } => (Action::Discard, left.min(MAX_BULK)),
            _ if !offset.is_multiple_of(BLOCK_BYTES) || left < BLOCK_BYTES => {
                (Action::ZeroPartOfBlock, left.min(BLOCK_BYTES - offset % BLOCK_BYTES))
            }
            _ => (Action::WriteZeroes, (left - left % BLOCK_BYTES).min(MAX_BULK)),
        };
        self.next += len;
        Some(Piece { action, offset, len })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn pieces(operation: Operation, data_len: u64) -> Vec<Piece> {
        let mut remaining = RemainingRequest::new(operation, data_len);
        std::iter::from_fn(move || remaining.next_piece()).collect()
    }

    #[test]
    fn partial_blocks_are_the_blocks_that_a_piece_covers_only_in_part() {
        let partial_blocks = |offset, len| {
            let piece = Piece { action: Action::Write, offset, len };
            piece.partial_blocks().collect::<Vec<_>>()
        };
        assert_eq!(partial_blocks(0, 8192), [0usize; 0]);
        assert_eq!(partial_blocks(512, 512), [0]);
        assert_eq!(partial_blocks(0, 512), [0]);
        assert_eq!(partial_blocks(512, 8192), [0, 8192]);
        assert_eq!(partial_blocks(4096, 4608), [4096]);
    }

    #[test]
    fn discards_shrink_to_whole_blocks_or_to_nothing() {
        assert_eq!(pieces(Operation::Discard { offset: 512, len: 4096 }, 0), []);
        let inner = pieces(Operation::Discard { offset: 512, len: 8192 }, 0);
        assert_eq!(inner, [Piece { action: Action::Discard, offset: 4096, len: 4096 }]);
    }

    proptest! {
        /// The pieces ascend, and have the right kind and at most the largest length.
        #[test]
        fn pieces_cover_the_request_without_gap_or_overlap(first in 0u64..5000, count in 1u64..5000, zeroes: bool) {
            let (offset, len) = (first * 512, count * 512);
            let operation = if zeroes { Operation::WriteZeroes { offset, len } } else { Operation::Write { offset } };
            let mut at = offset;
            for piece in pieces(operation, len) {
                prop_assert_eq!(piece.offset, at);
                prop_assert!(piece.len > 0);
                match piece.action {
                    Action::WriteZeroes => {
                        prop_assert!(piece.len % BLOCK_BYTES == 0 && piece.offset % BLOCK_BYTES == 0);
                        prop_assert!(piece.len <= MAX_BULK);
                    }
                    Action::ZeroPartOfBlock => {
                        let blocks = piece.block_range();
                        prop_assert_eq!(blocks.end - blocks.start, BLOCK_BYTES);
                    }
                    _ => prop_assert!(piece.len <= MAX_TRANSFER),
                }
                at += piece.len;
            }
            prop_assert_eq!(at, offset + len);
        }
    }
}
