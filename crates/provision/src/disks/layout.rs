//! The two parts of a pool disk, and the GPT types by which they are found.

use std::path::PathBuf;

/// GPT type of the raw part of a pool disk.
pub const POOL_TYPE: [u8; 16] = guid_bytes(0x6f8d_3b1e_52a4_4d9c_9b07_1e2f_d1ad_0001);
/// GPT type of the index file system of a pool disk.
pub const INDEX_TYPE: [u8; 16] = guid_bytes(0x6f8d_3b1e_52a4_4d9c_9b07_1e2f_d1ad_0002);

/// GPT stores the first three fields of a GUID in little-endian order (UEFI 2.10, appendix A).
const fn guid_bytes(guid: u128) -> [u8; 16] {
    let [a3, a2, a1, a0, b1, b0, c1, c0, d @ ..] = guid.to_be_bytes();
    [a0, a1, a2, a3, b0, b1, c0, c1, d[0], d[1], d[2], d[3], d[4], d[5], d[6], d[7]]
}

/// Minimum size of a pool disk, in bytes between the two partition tables.
pub const MIN_DISK_BYTES: u64 = 512 << 20;

/// The paths of the two parts of a pool disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PoolDiskPaths {
    /// The whole disk, such as `/dev/vdb`, or the file.
    pub disk: PathBuf,
    /// The part with labels, journal and extents: a partition, or the file itself.
    pub raw: PathBuf,
    /// The part with the index.
    pub index: Index,
}

/// The place of a pool disk's index.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Index {
    /// A directory beside the file that is the pool disk.
    Directory(PathBuf),
    /// An ext4 partition, which is mounted below the run directory.
    Partition(PathBuf),
}
