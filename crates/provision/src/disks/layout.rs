//! Where the two parts of a pool disk are, and by which GPT types they are found.

use std::path::PathBuf;

/// GPT type of the raw part of a pool disk.
pub const POOL_TYPE: [u8; 16] = gptman_guid(0x6f8d_3b1e_52a4_4d9c_9b07_1e2f_d1ad_0001);
/// GPT type of the index file system of a pool disk.
pub const INDEX_TYPE: [u8; 16] = gptman_guid(0x6f8d_3b1e_52a4_4d9c_9b07_1e2f_d1ad_0002);

/// GPT stores the first three fields of a GUID in little-endian order (UEFI 2.10, appendix A).
const fn gptman_guid(guid: u128) -> [u8; 16] {
    let [a3, a2, a1, a0, b1, b0, c1, c0, d @ ..] = guid.to_be_bytes();
    [a0, a1, a2, a3, b0, b1, c0, c1, d[0], d[1], d[2], d[3], d[4], d[5], d[6], d[7]]
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
