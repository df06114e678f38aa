//! Opens the two parts of pool disks: mounts the index, opens the raw part.

use super::error::DiskError;
use super::layout::{Index, PoolDiskPaths};
use crate::paths::NodePaths;
use dyad_pool::{FileDisk, PoolDisk};
use rustix::mount::{MountFlags, mount};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

impl Index {
    /// Mounts the index if it is a partition; returns its directory.
    ///
    /// # Errors
    /// [`DiskError::Mount`]: the partition cannot be mounted.
    pub fn mount(&self, paths: &NodePaths) -> Result<PathBuf, DiskError> {
        match self {
            Index::Directory(dir) => Ok(dir.clone()),
            Index::Partition(device) => mount_index(device, paths),
        }
    }
}

/// Opens the raw parts for the pool. `indexes` are the directories that [`Index::mount`] returned, in the same order.
///
/// # Errors
/// [`DiskError::Open`]: a raw part cannot be opened.
pub fn open(parts: &[PoolDiskPaths], indexes: &[PathBuf]) -> Result<Vec<PoolDisk>, DiskError> {
    let open = |(part, index): (&PoolDiskPaths, &PathBuf)| {
        let device = FileDisk::open(&part.raw).map_err(|source| DiskError::Open { path: part.raw.clone(), source })?;
        Ok(PoolDisk { name: part.disk.display().to_string(), device: Box::new(device), index: index.clone() })
    };
    parts.iter().zip(indexes).map(open).collect()
}

/// Mounts an index partition below the run directory. After a restart of the core it is mounted already.
fn mount_index(device: &Path, paths: &NodePaths) -> Result<PathBuf, DiskError> {
    let failed = |source| DiskError::Mount { partition: device.into(), source };
    let name = device.file_name().ok_or_else(|| failed(io::ErrorKind::InvalidInput.into()))?;
    let dir = paths.run.join("index").join(name);
    fs::create_dir_all(&dir).map_err(failed)?;
    let mounts = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    let mounted = mounts.lines().any(|line| line.split(' ').nth(1) == dir.to_str());
    if !mounted {
        mount(device, &dir, "ext4", MountFlags::NOATIME | MountFlags::NODEV | MountFlags::NOEXEC, None)
            .map_err(|e| failed(e.into()))?;
    }
    Ok(dir)
}
