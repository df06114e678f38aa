//! The errors of reading, blessing and writing slots.

use std::io;
use std::path::PathBuf;

/// The errors of reading, blessing and writing slots, as sentences with a remedy.
#[derive(Debug, thiserror::Error)]
pub enum UpdateError {
    /// A file or directory of the system partition cannot be used.
    #[error("the system partition could not be used at {path}: check that the disk is present and not full")]
    Partition {
        /// The file or directory that could not be read, renamed or written.
        path: PathBuf,
        source: io::Error,
    },
    /// An EFI variable of the boot loader cannot be read.
    #[error("the boot loader's variable {name} could not be read: boot this node by UEFI with its own boot loader")]
    Variable { name: &'static str, source: io::Error },
    /// The slot named by the boot loader is not on the partition.
    #[error("the slot {version} that booted is not on the system partition: reinstall it before the next reboot")]
    Missing { version: String },
    /// The new slot would replace the slot that is running.
    #[error("version {version} is running now: choose a bundle with another version")]
    Running { version: String },
    /// The version cannot be part of a file name.
    #[error("`{version}` cannot be a version: use 1 to 64 letters, digits, dots, tildes, hyphens")]
    Version {
        /// The version given.
        version: String,
    },
}
