//! Sizes that hold for each protocol over which a volume is served. All are in bytes.

/// Unit of addresses and lengths in virtio-blk requests (virtio 5.2.4, `capacity`).
pub const SECTOR: u64 = 512;
/// Size of a block: each offset and length that a [`Backend`](crate::Backend) sees is a multiple of it.
pub use dyad_types::BLOCK_BYTES;
/// Largest read or write at the backend, before its ends are rounded to whole blocks.
pub(crate) const MAX_TRANSFER: u64 = 1 << 20;
/// Largest discard or write-zeroes at the backend.
pub(crate) const MAX_BULK: u64 = 64 << 20;
