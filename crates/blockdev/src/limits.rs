//! Sizes, in bytes, that are the same for all protocols over which a volume is served.

/// Unit of addresses and lengths in virtio-blk requests (virtio 5.2.4, `capacity`).
pub const SECTOR: u64 = 512;
/// Size of a block: each offset and length in a request to a [`Backend`](crate::Backend) is a multiple of it.
pub use dyad_types::BLOCK_BYTES;
/// Largest read or write at the backend. Longer requests are cut at multiples of it.
pub(crate) const MAX_TRANSFER: u64 = 1 << 20;
/// Largest discard or write of zeros at the backend. Longer requests are cut.
pub(crate) const MAX_BULK: u64 = 64 << 20;
