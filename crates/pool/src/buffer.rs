//! Memory aligned for O_DIRECT, without unsafe: a vector one page longer than needed, used from its first aligned byte.

use bytes::Bytes;
use dyad_types::BLOCK;

/// Zeroed bytes that start on a block boundary.
pub(crate) struct AlignedBuffer {
    bytes: Vec<u8>,
    start: usize,
    len: usize,
}

impl AlignedBuffer {
    pub fn zeroed(len: usize) -> Self {
        let bytes = vec![0u8; len + BLOCK];
        let start = bytes.as_ptr().align_offset(BLOCK);
        assert!(start <= BLOCK, "a byte pointer can always be aligned");
        Self { bytes, start, len }
    }

    pub fn as_mut_slice(&mut self) -> &mut [u8] {
        &mut self.bytes[self.start..self.start + self.len]
    }

    /// The bytes without a copy.
    pub fn into_bytes(self) -> Bytes {
        Bytes::from(self.bytes).slice(self.start..self.start + self.len)
    }
}
