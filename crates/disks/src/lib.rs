//! Lists the whole disks of this machine, and names their partitions.
//!
//! PID 1 looks for the system disk in this list, and the core for pool disks. Both use the same list, so that neither
//! sees a device that the other one skips.
//!
//! This crate must never know what a disk contains.
//!
//! **Invariants**
//! * [`list`] leaves out each device whose kernel name shows that it is a view of other devices, a file, memory or a
//!   network block device: the other devices have names of their own, and memory is lost with the power.

use std::fs;
use std::path::{Path, PathBuf};

/// Prefixes of the kernel names of block devices that are no whole local disks, each with the reason.
const EXCLUDED_PREFIXES: &[(&str, &str)] = &[
    ("dm-", "device-mapper: a view of other devices"),
    ("fd", "floppy drive"),
    ("loop", "a file"),
    ("md", "software RAID: a view of other disks, which have names of their own"),
    ("nbd", "a disk of another machine"),
    ("ram", "memory: lost with the power"),
    ("sr", "optical drive"),
    ("zram", "compressed memory: lost with the power"),
];

/// Paths of the device nodes of all whole disks of this machine, sorted by name. Removable disks are among them. Empty
/// if sysfs is not mounted.
#[must_use]
pub fn list() -> Vec<PathBuf> {
    list_in(Path::new("/sys/block"))
}

/// [`list`] with another folder in place of `/sys/block`.
fn list_in(class: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(class).into_iter().flatten().flatten();
    let mut names: Vec<String> = entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
    names.retain(|name| !EXCLUDED_PREFIXES.iter().any(|(prefix, _)| name.starts_with(prefix)));
    names.sort();
    names.into_iter().map(|name| Path::new("/dev").join(name)).collect()
}

/// The device node of the partition `number` of `disk`, as the kernel names it: `/dev/vda` → `/dev/vda1`,
/// `/dev/nvme0n1` → `/dev/nvme0n1p1`.
#[must_use]
pub fn partition(disk: &Path, number: u32) -> PathBuf {
    let name = disk.to_string_lossy();
    let separator = if name.ends_with(|c: char| c.is_ascii_digit()) { "p" } else { "" };
    PathBuf::from(format!("{name}{separator}{number}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_whole_local_disks_are_listed() {
        let class = tempfile::tempdir().unwrap();
        let disks = ["mmcblk0", "nvme0n1", "sda", "sdaa", "vda"];
        let others = ["dm-0", "fd0", "loop0", "md127", "nbd3", "ram15", "sr0", "zram0"];
        for name in disks.iter().chain(&others) {
            fs::create_dir(class.path().join(name)).unwrap();
        }
        assert_eq!(list_in(class.path()), disks.map(|name| Path::new("/dev").join(name)));
        assert_eq!(others.len(), EXCLUDED_PREFIXES.len(), "one example for each prefix");
        assert!(list_in(&class.path().join("absent")).is_empty());
    }

    #[test]
    fn partitions_are_named_as_the_kernel_does() {
        assert_eq!(partition(Path::new("/dev/vda"), 3), Path::new("/dev/vda3"));
        assert_eq!(partition(Path::new("/dev/nvme0n1"), 1), Path::new("/dev/nvme0n1p1"));
    }
}
