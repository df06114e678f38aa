//! Sizes, and a port number, that more than one crate uses.

/// Bytes of a block, the unit of checksums and of addresses inside a volume. As `usize`, for lengths in memory.
pub const BLOCK: usize = 4096;
/// [`BLOCK`] as `u64`, for offsets and sizes on disks and in volumes.
pub const BLOCK_BYTES: u64 = BLOCK as u64;
/// Number of blocks of an extent, the unit of allocation and resync.
pub const EXTENT_BLOCKS: u64 = 16;
/// Bytes of an extent: 64 KiB. As `usize`, for lengths in memory.
pub const EXTENT: usize = BLOCK * EXTENT_BLOCKS as usize;
/// [`EXTENT`] as `u64`, for offsets and sizes on disks and in volumes.
pub const EXTENT_BYTES: u64 = EXTENT as u64;
/// Bytes of one mebibyte (2^20).
pub const MIB: u64 = 1 << 20;
/// TCP port on which a witness listens unless its configuration names another port.
pub const WITNESS_PORT: u16 = 7403;
