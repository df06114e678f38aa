//! The slots on the system partition (the EFI system partition), and the order of their versions.

use crate::{EntryName, UpdateError};
use rustix::fs::{StatVfsMountFlags, statvfs, syncfs};
use rustix::mount::{MountFlags, mount_remount};
use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

/// A slot that is on the system partition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Slot {
    pub name: EntryName,
    /// Size of the slot's file.
    pub bytes: u64,
}

/// A mounted system partition; on a node it is mounted at `/boot`.
#[derive(Debug, Clone)]
pub struct SystemPartition {
    root: PathBuf,
}

impl SystemPartition {
    /// The partition mounted at `root`.
    pub fn new(root: &Path) -> Self {
        Self { root: root.into() }
    }

    /// All slots, newest version first.
    ///
    /// # Errors
    /// [`UpdateError::Partition`] if the directory cannot be read.
    pub fn slots(&self) -> Result<Vec<Slot>, UpdateError> {
        let directory = self.directory();
        let mut slots = Vec::new();
        for file in fs::read_dir(&directory).map_err(partition_error(&directory))? {
            let file = file.map_err(partition_error(&directory))?;
            if let Some(name) = file.file_name().to_str().and_then(|name| name.parse().ok()) {
                slots.push(Slot { name, bytes: file.metadata().map_err(partition_error(&file.path()))?.len() });
            }
        }
        slots.sort_by(|a, b| compare(&b.name.version, &a.name.version));
        Ok(slots)
    }

    /// Renames a slot. The change is durable on return.
    pub(crate) fn rename(&self, source: &EntryName, target: &EntryName) -> Result<(), UpdateError> {
        self.change(|directory| {
            let path = directory.join(source.to_string());
            fs::rename(&path, directory.join(target.to_string())).map_err(partition_error(&path))
        })
    }

    /// Removes the slots for which `keep` is false, because the partition may have no room for one more. Then writes
    /// the new slot under a working name, and renames it when all its bytes are durable. A file that an interrupted
    /// write has left is overwritten.
    pub(crate) fn write(
        &self,
        target: &EntryName,
        content: &mut dyn Read,
        keep: impl Fn(&EntryName) -> bool,
    ) -> Result<(), UpdateError> {
        let removed: Vec<_> = self.slots()?.into_iter().filter(|slot| !keep(&slot.name)).collect();
        self.change(|directory| {
            for slot in &removed {
                let path = directory.join(slot.name.to_string());
                fs::remove_file(&path).map_err(partition_error(&path))?;
            }
            let working = directory.join("incoming.tmp");
            let mut copy = || -> io::Result<()> {
                let mut file = File::create(&working)?;
                io::copy(content, &mut file)?;
                file.sync_all()
            };
            copy().map_err(partition_error(&working))?;
            fs::rename(&working, directory.join(target.to_string())).map_err(partition_error(&working))
        })
    }

    fn directory(&self) -> PathBuf {
        self.root.join("EFI/Linux")
    }

    /// Runs `work` with the directory of slots while the partition is writable, syncs, and makes the partition
    /// read-only again if it was before.
    fn change(&self, work: impl FnOnce(&Path) -> Result<(), UpdateError>) -> Result<(), UpdateError> {
        let root = &self.root;
        let was_read_only =
            statvfs(root).map_err(|e| partition_error(root)(e.into()))?.f_flag.contains(StatVfsMountFlags::RDONLY);
        let remount = |flags| mount_remount(root, flags, "").map_err(|e| partition_error(root)(e.into()));
        if was_read_only {
            remount(MountFlags::empty())?;
        }
        let result = work(&self.directory());
        let synced = File::open(root).and_then(|dir| Ok(syncfs(dir)?)).map_err(partition_error(root));
        if was_read_only {
            // An error is ignored: that the partition stays writable is less harmful than to report a completed change
            // as failed.
            let _ = remount(MountFlags::RDONLY);
        }
        result.and(synced)
    }
}

fn partition_error(path: &Path) -> impl FnOnce(io::Error) -> UpdateError {
    let path = path.to_path_buf();
    move |source| UpdateError::Partition { path, source }
}

/// Orders versions as the boot loader does, for the versions used here: numbers by value, `~` before everything else.
fn compare(left: &str, right: &str) -> std::cmp::Ordering {
    let (mut a, mut b) = (left.as_bytes(), right.as_bytes());
    loop {
        let (digits_a, digits_b) = (leading_digits(a), leading_digits(b));
        let order = if digits_a > 0 && digits_b > 0 {
            let (x, y) = (digits_value(&a[..digits_a]), digits_value(&b[..digits_b]));
            (a, b) = (&a[digits_a..], &b[digits_b..]);
            x.cmp(&y)
        } else {
            let order = sort_rank(a.first()).cmp(&sort_rank(b.first()));
            if a.is_empty() && b.is_empty() {
                return order;
            }
            (a, b) = (a.get(1..).unwrap_or_default(), b.get(1..).unwrap_or_default());
            order
        };
        if order.is_ne() {
            return order;
        }
    }
}

/// The number of digits at the start of `text`.
fn leading_digits(text: &[u8]) -> usize {
    text.iter().take_while(|b| b.is_ascii_digit()).count()
}

/// The number that the digits are; too large numbers count as the largest one.
fn digits_value(digits: &[u8]) -> u128 {
    digits.iter().fold(0, |sum: u128, b| sum.saturating_mul(10).saturating_add(u128::from(b - b'0')))
}

/// Sort key of a character: a tilde comes before the end of the text, the end before all others.
fn sort_rank(byte: Option<&u8>) -> u16 {
    match byte {
        Some(b'~') => 0,
        None => 1,
        Some(b'-') => 2,
        Some(b'.') => 3,
        Some(&b) if b.is_ascii_alphabetic() => 0x100 + u16::from(b),
        Some(&b) => 0x200 + u16::from(b),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_sorted_by_the_values_of_their_numbers() {
        let mut versions = ["0.10.0", "0.9.0", "1.0.0~rc1", "1.0.0", "1.0.0-2", "0.9.1", "999-broken"];
        versions.sort_by(|a, b| compare(a, b));
        assert_eq!(versions, ["0.9.0", "0.9.1", "0.10.0", "1.0.0~rc1", "1.0.0", "1.0.0-2", "999-broken"]);
    }
}
