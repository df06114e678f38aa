//! Why a disk could not be made a pool disk, opened or erased.

use std::io;
use std::path::PathBuf;

/// A cause of several types.
type Cause = Box<dyn std::error::Error + Send + Sync>;

/// A failure of one disk. The text names the disk; the cause is the source.
#[derive(Debug, thiserror::Error)]
pub enum DiskError {
    /// The path names nothing.
    #[error("{} does not exist", disk.display())]
    Missing { disk: PathBuf, source: io::Error },
    /// The raw part of a pool disk, or a whole disk, cannot be opened.
    #[error("{} cannot be opened", path.display())]
    Open {
        /// Disk or partition.
        path: PathBuf,
        source: io::Error,
    },
    /// The index folder of an earlier pool cannot be removed or made again.
    #[error("{} cannot be cleared", index.display())]
    ClearIndex { index: PathBuf, source: io::Error },
    /// The labels of a pool cannot be erased.
    #[error("{} cannot be erased", disk.display())]
    Erase { disk: PathBuf, source: io::Error },
    /// The disk refuses a new partition table.
    #[error("{} cannot be partitioned", disk.display())]
    Partition { disk: PathBuf, source: Cause },
    /// The disk refuses to be written.
    #[error("{} cannot be written", disk.display())]
    Write { disk: PathBuf, source: io::Error },
    /// The disk is too small for a pool.
    #[error("{} is smaller than the {} MiB a pool disk needs", disk.display(), super::layout::SMALLEST_DISK >> 20)]
    TooSmall { disk: PathBuf },
    /// A partition does not fit on the disk.
    #[error("{} has no room for the partition {partition}", disk.display())]
    NoRoom {
        disk: PathBuf,
        /// As in the disk's partition table.
        partition: &'static str,
    },
    /// The kernel still uses the old partitions.
    #[error("the kernel does not take the new partitions of {}", disk.display())]
    Reread { disk: PathBuf, source: Cause },
    /// `mke2fs` cannot be started.
    #[error("mke2fs cannot be started")]
    NoMke2fs { source: io::Error },
    /// `mke2fs` refuses the index partition.
    #[error("mke2fs failed on {}: {output}", partition.display())]
    Mke2fs {
        /// The index partition.
        partition: PathBuf,
        /// What it printed.
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
