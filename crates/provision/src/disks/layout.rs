//! Where the two parts of a pool disk are, and by which GPT types they are found.

use std::path::PathBuf;

/// GPT type of the raw part of a pool disk.
pub const POOL_TYPE: [u8; 16] =
    gptman_guid(0x6f8d_3b1e, 0x52a4, 0x4d9c, [0x9b, 0x07, 0x1e, 0x2f, 0xd1, 0xad, 0x00, 0x01]);
/// GPT type of the index file system of a pool disk.
pub const INDEX_TYPE: [u8; 16] =
    gptman_guid(0x6f8d_3b1e, 0x52a4, 0x4d9c, [0x9b, 0x07, 0x1e, 0x2f, 0xd1, 0xad, 0x00, 0x02]);

/// GPT stores the first three fields of a GUID in little-endian order (UEFI 2.10, appendix A).
const fn gptman_guid(a: u32, b: u16, c: u16, d: [u8; 8]) -> [u8; 16] {
    let (a, b, c) = (a.to_le_bytes(), b.to_le_bytes(), c.to_le_bytes());
    [a[0], a[1], a[2], a[3], b[0], b[1], c[0], c[1], d[0], d[1], d[2], d[3], d[4], d[5], d[6], d[7]]
}

/// Smallest disk accepted, in bytes.
pub const SMALLEST_DISK: u64 = 512 << 20;

/// Where the two parts of a pool disk are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PoolDiskPaths {
    /// The disk as a person names it.
    pub disk: PathBuf,
    /// The raw part.
    pub raw: PathBuf,
    /// The index: a directory (files), or the partition that holds it (devices).
    pub index: Index,
}

/// Where the index of a pool disk is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Index {
    /// A plain directory.
    Directory(PathBuf),
    /// An ext4 partition, to be mounted below the run directory.
    Partition(PathBuf),
}
