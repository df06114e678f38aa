//! Sizes and ports that more than one crate relies on.

/// Bytes of a block, the unit of checksums and of every address inside a volume. For lengths in memory.
pub const BLOCK: usize = 4096;
/// [`BLOCK`] for offsets and sizes on disks and in volumes.
pub const BLOCK_BYTES: u64 = BLOCK as u64;
/// Blocks of an extent, the unit of allocation and resync.
pub const EXTENT_BLOCKS: u64 = 16;
/// Bytes of an extent, 64 KiB. For lengths in memory.
pub const EXTENT: usize = BLOCK * EXTENT_BLOCKS as usize;
/// [`EXTENT`] for offsets and sizes on disks and in volumes.
pub const EXTENT_BYTES: u64 = EXTENT as u64;
/// Bytes of a mebibyte.
pub const MIB: u64 = 1 << 20;
/// TCP port on which a witness listens unless it is told otherwise.
pub const WITNESS_PORT: u16 = 7403;
