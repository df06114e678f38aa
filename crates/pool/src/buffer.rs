//! Memory aligned for O_DIRECT, without unsafe code: a vector 4 KiB longer than needed, used from its first aligned
//! byte on.

use bytes::Bytes;
use dyad_types::BLOCK;

/// A byte buffer that starts at a memory address divisible by 4096.
pub(crate) struct AlignedBuffer {
    bytes: Vec<u8>,
    /// Offset of the first aligned byte in `bytes`.
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

    /// Turns the buffer into [`Bytes`] of the same memory, without copying.
    pub fn into_bytes(self) -> Bytes {
        Bytes::from(self.bytes).slice(self.start..self.start + self.len)
    }
}
