//! The errors of formatting, opening and erasing disks.

use std::io;
use std::path::PathBuf;

/// A cause whose type depends on the library that failed.
type Cause = Box<dyn std::error::Error + Send + Sync>;

/// The errors of one disk. The text names the disk; the cause is the source.
#[derive(Debug, thiserror::Error)]
pub enum DiskError {
    /// The path of the disk does not exist.
    #[error("{} does not exist", disk.display())]
    Missing { disk: PathBuf, source: io::Error },
    /// A disk, or the raw part of a pool disk, cannot be opened.
    #[error("{} cannot be opened", path.display())]
    Open {
        /// Disk or partition.
        path: PathBuf,
        source: io::Error,
    },
    /// The index directory of an earlier pool cannot be removed or created again.
    #[error("{} cannot be cleared", index.display())]
    ClearIndex { index: PathBuf, source: io::Error },
    /// The labels or the index of a pool disk cannot be erased.
    #[error("{} cannot be erased", disk.display())]
    Erase { disk: PathBuf, source: io::Error },
    /// A new partition table cannot be written.
    #[error("{} cannot be partitioned", disk.display())]
    Partition { disk: PathBuf, source: Cause },
    /// The new partition table cannot be synced.
    #[error("{} cannot be written", disk.display())]
    Write { disk: PathBuf, source: io::Error },
    /// The disk is smaller than [`MIN_DISK_BYTES`](super::MIN_DISK_BYTES).
    #[error("{} is smaller than the {} MiB a pool disk needs", disk.display(), super::layout::MIN_DISK_BYTES >> 20)]
    TooSmall { disk: PathBuf },
    /// A partition does not fit on the disk.
    #[error("{} has no room for the partition {partition}", disk.display())]
    NoRoom {
        disk: PathBuf,
        /// Name in the partition table.
        partition: &'static str,
    },
    /// The kernel does not read the new partition table, for instance because an old partition is still in use.
    #[error("the kernel does not take the new partitions of {}", disk.display())]
    Reread { disk: PathBuf, source: Cause },
    /// `mke2fs` cannot be started.
    #[error("mke2fs cannot be started")]
    NoMke2fs { source: io::Error },
    /// `mke2fs` failed on the index partition.
    #[error("mke2fs failed on {}: {output}", partition.display())]
    Mke2fs {
        /// The index partition.
        partition: PathBuf,
        /// The program's error output.
        output: String,
    },
    /// The index partition cannot be mounted.
    #[error("the index on {} cannot be mounted", partition.display())]
    Mount {
        /// The index partition.
        partition: PathBuf,
        source: io::Error,
    },
}
