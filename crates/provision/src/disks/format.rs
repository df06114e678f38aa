//! Makes pool disks and erases them. All of this destroys what was there: the caller has the typed confirmation.

use super::error::DiskError;
use super::layout::{INDEX_TYPE, Index, POOL_TYPE, PoolDiskPaths, SMALLEST_DISK};
use crate::paths::NodePaths;
use dyad_disks::partition;
use dyad_pool::FileDisk;
use gptman::{GPT, GPTPartitionEntry};
use rustix::mount::{UnmountFlags, unmount};
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileTypeExt;
use std::path::Path;
use std::process::Command;

/// Alignment of the partitions, in bytes.
const ALIGNMENT: u64 = 1 << 20;

/// Partitions `disk` (a device) or clears its index (a file). The disk's index file system exists afterwards; the pool's own
/// labels come next.
///
/// # Errors
/// The disk is missing, too small or cannot be written; the kernel still uses its old partitions; `mke2fs` failed.
pub fn prepare(disk: &Path, paths: &NodePaths) -> Result<PoolDiskPaths, DiskError> {
    let metadata = fs::metadata(disk).map_err(|source| DiskError::Missing { disk: disk.into(), source })?;
    if metadata.file_type().is_block_device() {
        // Of a setup that failed before: the kernel takes no new partitions while one is in use.
        unmount_index(&partition(disk, 1), paths);
        return prepare_device(disk);
    }
    let index = disk.with_extension("index");
    let cleared = if index.exists() { fs::remove_dir_all(&index) } else { Ok(()) };
    cleared
        .and_then(|()| fs::create_dir_all(&index))
        .map_err(|source| DiskError::ClearIndex { index: index.clone(), source })?;
    Ok(PoolDiskPaths { disk: disk.into(), raw: disk.into(), index: Index::Directory(index) })
}

/// Makes the disk blank: first the pool's labels go, then the index, then the partition table. If power is lost in between,
/// it is an unfinished pool disk.
///
/// # Errors
/// [`DiskError::Erase`]: the disk cannot be opened or written.
pub fn erase(parts: &PoolDiskPaths, paths: &NodePaths) -> Result<(), DiskError> {
    erase_parts(parts, paths).map_err(|source| DiskError::Erase { disk: parts.disk.clone(), source })
}

fn erase_parts(parts: &PoolDiskPaths, paths: &NodePaths) -> io::Result<()> {
    let raw = FileDisk::open(&parts.raw)?;
    dyad_pool::erase(&raw)?;
    drop(raw);
    match &parts.index {
        Index::Directory(index) => match fs::remove_dir_all(index) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => Err(e),
            _ => Ok(()),
        },
        Index::Partition(index) => {
            unmount_index(index, paths);
            dyad_pool::erase(&FileDisk::open(index)?)?;
            dyad_pool::erase(&FileDisk::open(&parts.disk)?)?;
            // The kernel may keep the old partitions until the next boot: setup makes it read the new ones.
            let _ = gptman::linux::reread_partition_table(&mut File::open(&parts.disk)?);
            Ok(())
        }
    }
}

fn prepare_device(disk: &Path) -> Result<PoolDiskPaths, DiskError> {
    let refused = |source| DiskError::Partition { disk: disk.into(), source };
    let opened = File::options().read(true).write(true).open(disk);
    let mut device = opened.map_err(|source| DiskError::Open { path: disk.into(), source })?;
    let sector = gptman::linux::get_sector_size(&mut device).map_err(|e| refused(e.into()))?;
    let mut gpt = GPT::new_from(&mut device, sector, rand::random()).map_err(|e| refused(e.into()))?;
    gpt.align = ALIGNMENT / sector;
    let total = (gpt.header.last_usable_lba - gpt.header.first_usable_lba) * sector;
    if total < SMALLEST_DISK {
        return Err(DiskError::TooSmall { disk: disk.into() });
    }
    let no_room = |partition| DiskError::NoRoom { disk: disk.into(), partition };
    let (index_name, pool_name) = ("dyad-index", "dyad-pool");
    add(&mut gpt, 1, INDEX_TYPE, index_name, index_bytes(total) / sector).ok_or_else(|| no_room(index_name))?;
    let rest = gpt.get_maximum_partition_size().map_err(|_| no_room(pool_name))?;
    let whole = rest / gpt.align * gpt.align;
    add(&mut gpt, 2, POOL_TYPE, pool_name, whole).ok_or_else(|| no_room(pool_name))?;
    GPT::write_protective_mbr_into(&mut device, sector).map_err(|e| refused(e.into()))?;
    gpt.write_into(&mut device).map_err(|e| refused(e.into()))?;
    device.sync_all().map_err(|source| DiskError::Write { disk: disk.into(), source })?;
    gptman::linux::reread_partition_table(&mut device)
        .map_err(|e| DiskError::Reread { disk: disk.into(), source: e.into() })?;
    let index = partition(disk, 1);
    make_ext4(&index)?;
    Ok(PoolDiskPaths { disk: disk.into(), raw: partition(disk, 2), index: Index::Partition(index) })
}

/// 1/64 of the disk, at least 64 MiB, at most 64 GiB: an index record of 100 bytes describes 64 KiB.
fn index_bytes(total: u64) -> u64 {
    (total / 64).clamp(64 << 20, 64 << 30) & !(ALIGNMENT - 1)
}

/// Adds a partition; `None` = it does not fit.
fn add(gpt: &mut GPT, number: u32, kind: [u8; 16], name: &str, sectors: u64) -> Option<()> {
    let start = gpt.find_first_place(sectors)?;
    gpt[number] = GPTPartitionEntry {
        partition_type_guid: kind,
        unique_partition_guid: rand::random(),
        starting_lba: start,
        ending_lba: start + sectors - 1,
        attribute_bits: 0,
        partition_name: name.into(),
    };
    Some(())
}

fn make_ext4(device: &Path) -> Result<(), DiskError> {
    // No reserved blocks: the index must be able to use all of its partition.
    let made = Command::new("mke2fs")
        .args(["-q", "-F", "-t", "ext4", "-m", "0", "-L", "dyad-index"])
        .arg(device)
        .output()
        .map_err(|source| DiskError::NoMke2fs { source })?;
    if !made.status.success() {
        let output = String::from_utf8_lossy(&made.stderr).trim().to_owned();
        return Err(DiskError::Mke2fs { partition: device.into(), output });
    }
    Ok(())
}

/// Unmounts an index partition that an earlier setup or an earlier run of the core has mounted; no file in it is open.
fn unmount_index(device: &Path, paths: &NodePaths) {
    if let Some(name) = device.file_name() {
        let _ = unmount(paths.run.join("index").join(name), UnmountFlags::DETACH);
    }
}
