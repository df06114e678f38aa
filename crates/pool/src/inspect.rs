//! Detects what a disk contains before it is formatted or erased, and erases labels.

use crate::disk::{Access, Device, DiskError};
use crate::label::{self, PoolIdentity};
use crate::layout::MARGIN;
use crate::{Disk, checksum};
use std::io;

/// The content of a disk as [`inspect`] detects it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Inspection {
    /// A pool disk with at least one good label.
    Pool {
        identity: PoolIdentity,
        /// Number of the disk in the node's pool, from 0.
        number: u16,
        /// Number of disks of that pool.
        count: u16,
    },
    /// A pool disk without a good label: all labels are damaged, or their format is newer than this program.
    Unreadable {
        /// Description for people.
        what: String,
    },
    /// A disk that is no pool disk, and whose first or last MiB is not all zeros.
    Foreign {
        /// Description for people.
        what: &'static str,
    },
    /// A disk whose first and last MiB are all zeros.
    Blank,
}

/// Reads the labels and the first and last MiB. Does not write.
///
/// # Errors
/// The disk cannot be read. The caller names the disk.
pub fn inspect(disk: Box<dyn Disk>) -> io::Result<Inspection> {
    inspect_device(&Device::new(String::new(), disk)).map_err(|error| error.source)
}

/// Overwrites the first and the last MiB with zeros, durably. The disk then has no label and counts as blank. The data
/// between them is not erased.
///
/// # Errors
/// The disk cannot be written, or is smaller than 1 MiB (`InvalidInput`). The caller names the disk.
pub fn erase(disk: &dyn Disk) -> io::Result<()> {
    let zeros = vec![0; MARGIN as usize];
    let last = disk.size().checked_sub(MARGIN).ok_or(io::ErrorKind::InvalidInput)?;
    disk.write_at(Access::Cached, 0, &zeros)?;
    disk.write_at(Access::Cached, last, &zeros)?;
    disk.sync()
}

pub(crate) fn inspect_device(device: &Device) -> Result<Inspection, DiskError> {
    let found = label::find(device);
    if let Some(label) = found.best {
        let count = label.disks.len() as u16;
        return Ok(Inspection::Pool { identity: label.identity, number: label.number, count });
    }
    if let Some(version) = found.newer {
        return Ok(Inspection::Unreadable { what: format!("a Dyad disk of the newer format {version}") });
    }
    if found.labelled {
        return Ok(Inspection::Unreadable { what: "a Dyad disk whose labels are all damaged".into() });
    }
    let len = device.size().min(MARGIN);
    let mut front = vec![0u8; len as usize];
    device.read(Access::Cached, 0, &mut front)?;
    if let Some(what) = known_signature(&front) {
        return Ok(Inspection::Foreign { what });
    }
    if !checksum::is_zero(&front) {
        return Ok(Inspection::Foreign { what: "unknown data" });
    }
    let mut end = vec![0u8; len as usize];
    device.read(Access::Cached, device.size() - len, &mut end)?;
    if !checksum::is_zero(&end) {
        let backup = end.chunks(512).any(|sector| sector.starts_with(b"EFI PART"));
        return Ok(Inspection::Foreign { what: if backup { "a GPT partition table" } else { "unknown data" } });
    }
    Ok(Inspection::Blank)
}

/// Signatures of common formats: (offset in bytes, signature, description for people). The first match counts.
const SIGNATURES: [(usize, &[u8], &str); 14] = [
    (512, b"EFI PART", "a GPT partition table"),
    (4096, b"EFI PART", "a GPT partition table"),
    (0, b"LUKS\xba\xbe", "a LUKS volume"),
    (0, b"XFSB", "an XFS file system"),
    (3, b"NTFS    ", "an NTFS file system"),
    (512, b"LABELONE", "an LVM physical volume"),
    (1080, b"\x53\xef", "an ext2/3/4 file system"),
    (1024, b"\xe2\xe1\xf5\xe0", "an EROFS file system"),
    (4086, b"SWAPSPACE2", "swap space"),
    (4096, b"\xfc\x4e\x2b\xa9", "a Linux RAID member"),
    (0x1_0040, b"_BHRfS_M", "a btrfs file system"),
    (32769, b"CD001", "an ISO 9660 image"),
    (0, b"hsqs", "a squashfs image"),
    (510, b"\x55\xaa", "an MBR partition table or boot sector"),
];

fn known_signature(front: &[u8]) -> Option<&'static str> {
    SIGNATURES.iter().find(|(at, magic, _)| front.get(*at..*at + magic.len()) == Some(*magic)).map(|(_, _, name)| *name)
}
