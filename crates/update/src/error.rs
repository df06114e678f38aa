//! What can go wrong with slots.

use std::io;
use std::path::PathBuf;

/// Why a slot could not be read, blessed or written.
#[derive(Debug, thiserror::Error)]
pub enum UpdateError {
    /// A file or directory of the system partition.
    #[error("the system partition could not be used at {path}: check that the disk is present and not full")]
    Partition {
        /// What was being read, renamed or written.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// An EFI variable of the boot loader.
    #[error("the boot loader's variable {name} could not be read: boot this node by UEFI with its own boot loader")]
    Variable {
        /// The variable.
        name: &'static str,
        /// What the kernel said.
        source: io::Error,
    },
    /// The boot loader names an entry that is not on the partition.
    #[error("the slot {version} that booted is not on the system partition: reinstall it before the next reboot")]
    Missing {
        /// Version of the slot.
        version: String,
    },
    /// Somebody wants to write over the system that runs.
    #[error("version {version} is running now: choose a bundle with another version")]
    Running {
        /// Version of the slot.
        version: String,
    },
    /// A version that cannot be part of a file name.
    #[error("`{version}` cannot be a version: use 1 to 64 letters, digits, dots, tildes, hyphens")]
    Version {
        /// What was given.
        version: String,
    },
}
