//! The disks of this node: what is there, making pool disks of them, opening them again.
//!
//! A pool disk is a GPT disk with two partitions of our own types: `dyad-index` (ext4, holds the LMDB index) and
//! `dyad-pool` (raw: labels, journal, extents). So a disk is self-contained. On a laptop a pool disk is a plain file
//! `F` with the directory `F.index` beside it.

mod format;
mod scan;

pub use format::{Prepared, erase, prepare};
pub use scan::{find_pool_disks, list, parts};

use anyhow::Context;
use dyad_pool::{FileDisk, PoolDisk};
use std::path::{Path, PathBuf};

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

impl Index {
    /// Makes the index reachable as a directory and returns that.
    pub fn mount(&self, run: &Path) -> anyhow::Result<PathBuf> {
        match self {
            Index::Directory(dir) => Ok(dir.clone()),
            Index::Partition(device) => format::mount_index(device, run),
        }
    }
}

/// Opens the raw parts for the pool; `indexes` are the mounted directories, in the same order.
pub fn open(parts: &[PoolDiskPaths], indexes: &[PathBuf]) -> anyhow::Result<Vec<PoolDisk>> {
    let open = |(part, index): (&PoolDiskPaths, &PathBuf)| {
        let device = FileDisk::open(&part.raw).with_context(|| format!("{} cannot be opened", part.raw.display()))?;
        Ok(PoolDisk { name: part.disk.display().to_string(), device: Box::new(device), index: index.clone() })
    };
    parts.iter().zip(indexes).map(open).collect()
}
