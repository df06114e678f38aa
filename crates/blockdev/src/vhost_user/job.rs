//! Cuts one request of a driver into pieces for the backend.

use crate::limits::{BLOCK_BYTES, MAX_BULK, MAX_TRANSFER};
use crate::vhost_user::request::Ask;

/// One piece of a job: done as one request to the backend, after reading partial blocks if there are any.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Piece {
    pub action: Action,
    /// First byte of the volume.
    pub offset: u64,
    /// Number of bytes, not 0.
    pub len: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Action {
    Read,
    Write,
    /// Writes zeros as data, into a part of one block.
    Fill,
    /// Discards whole blocks; they read as zeros from then on.
    Discard,
    /// Makes whole blocks read as zeros.
    WriteZeroes,
}

impl Piece {
    /// The whole blocks that hold the piece.
    pub fn cover(&self) -> std::ops::Range<u64> {
        let end = self.offset + self.len;
        self.offset - self.offset % BLOCK_BYTES..end.next_multiple_of(BLOCK_BYTES)
    }

    /// Byte positions in the cover of blocks of which the piece has only a part.
    pub fn edges(&self) -> impl Iterator<Item = usize> + use<> {
        let cover = self.cover();
        let end = self.offset + self.len;
        let last = cover.end - BLOCK_BYTES;
        let head = !self.offset.is_multiple_of(BLOCK_BYTES);
        let one_block = last == cover.start;
        let tail = !end.is_multiple_of(BLOCK_BYTES) && (!one_block || !head);
        let tail_at = (last - cover.start) as usize;
        [head.then_some(0), tail.then_some(tail_at)].into_iter().flatten()
    }
}

/// The rest of a request that was not cut into pieces yet.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Plan {
    ask: Ask,
    next: u64,
    end: u64,
}

impl Plan {
    /// The plan of a request with `data_len` bytes of data.
    pub fn new(ask: Ask, data_len: u64) -> Self {
        let (next, end) = match ask {
            Ask::Read { offset } | Ask::Write { offset } => (offset, offset + data_len),
            Ask::WriteZeroes { offset, len } => (offset, offset + len),
            // A discard is a hint (virtio 5.2.6): the partial blocks at both ends keep their content.
            Ask::Discard { offset, len } => {
                let end = offset + len;
                (offset.next_multiple_of(BLOCK_BYTES), end - end % BLOCK_BYTES)
            }
            Ask::Flush | Ask::GetId | Ask::Unknown | Ask::Invalid => (0, 0),
        };
        Self { ask, next, end }
    }

    /// The next piece, in order of addresses.
    pub fn next_piece(&mut self) -> Option<Piece> {
        if self.next >= self.end {
            return None;
        }
        let (offset, left) = (self.next, self.end - self.next);
        let (action, len) = match self.ask {
            Ask::Read { .. } => (Action::Read, left.min(MAX_TRANSFER - offset % MAX_TRANSFER)),
            Ask::Write { .. } => (Action::Write, left.min(MAX_TRANSFER - offset % MAX_TRANSFER)),
            Ask::Discard { .. } => (Action::Discard, left.min(MAX_BULK)),
            _ if !offset.is_multiple_of(BLOCK_BYTES) || left < BLOCK_BYTES => {
                (Action::Fill, left.min(BLOCK_BYTES - offset % BLOCK_BYTES))
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

    fn pieces(ask: Ask, data_len: u64) -> Vec<Piece> {
        let mut plan = Plan::new(ask, data_len);
        std::iter::from_fn(move || plan.next_piece()).collect()
    }

    #[test]
    fn edges_are_the_blocks_that_are_only_partly_covered() {
        let edges = |offset, len| {
            let piece = Piece { action: Action::Write, offset, len };
            piece.edges().collect::<Vec<_>>()
        };
        assert_eq!(edges(0, 8192), [0usize; 0]);
        assert_eq!(edges(512, 512), [0]);
        assert_eq!(edges(0, 512), [0]);
        assert_eq!(edges(512, 8192), [0, 8192]);
        assert_eq!(edges(4096, 4608), [4096]);
    }

    #[test]
    fn discards_shrink_to_whole_blocks_and_may_vanish() {
        assert_eq!(pieces(Ask::Discard { offset: 512, len: 4096 }, 0), []);
        let inner = pieces(Ask::Discard { offset: 512, len: 8192 }, 0);
        assert_eq!(inner, [Piece { action: Action::Discard, offset: 4096, len: 4096 }]);
    }

    proptest! {
        /// Pieces are in order, without gap or overlap, and cover exactly what was asked for.
        #[test]
        fn pieces_tile_the_request(first in 0u64..5000, count in 1u64..5000, zeroes: bool) {
            let (offset, len) = (first * 512, count * 512);
            let ask = if zeroes { Ask::WriteZeroes { offset, len } } else { Ask::Write { offset } };
            let mut at = offset;
            for piece in pieces(ask, len) {
                prop_assert_eq!(piece.offset, at);
                prop_assert!(piece.len > 0);
                match piece.action {
                    Action::WriteZeroes => {
                        prop_assert!(piece.len % BLOCK_BYTES == 0 && piece.offset % BLOCK_BYTES == 0);
                        prop_assert!(piece.len <= MAX_BULK);
                    }
                    Action::Fill => prop_assert_eq!(piece.cover().end - piece.cover().start, BLOCK_BYTES),
                    _ => prop_assert!(piece.len <= MAX_TRANSFER),
                }
                at += piece.len;
            }
            prop_assert_eq!(at, offset + len);
        }
    }
}
