//! Formats and erases pool disks. Both destroy the data on the disk: the caller has checked the typed confirmation.

use super::error::DiskError;
use super::layout::{INDEX_TYPE, Index, MIN_DISK_BYTES, POOL_TYPE, PoolDiskPaths};
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

/// Partitions `disk` and makes its index file system; for a file, creates an empty index directory. The caller then
/// formats the pool, which writes the labels.
///
/// # Errors
/// The disk is missing, too small or cannot be written; the kernel still uses its old partitions; `mke2fs` failed.
pub fn prepare(disk: &Path, paths: &NodePaths) -> Result<PoolDiskPaths, DiskError> {
    let metadata = fs::metadata(disk).map_err(|source| DiskError::Missing { disk: disk.into(), source })?;
    if metadata.file_type().is_block_device() {
        // A setup that failed before may have left the index mounted, and the kernel takes no new partition table while
        // a partition is in use.
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

/// Makes the disk blank: erases first the pool's labels, then the index, then the partition table. If power is lost in
/// between, the disk is an unfinished pool disk.
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
            // If this fails, the kernel keeps the old partitions until setup writes new ones or the node boots again.
            let _ = gptman::linux::reread_partition_table(&mut File::open(&parts.disk)?);
            Ok(())
        }
    }
}

/// Writes the partition table of a device and makes the index file system.
fn prepare_device(disk: &Path) -> Result<PoolDiskPaths, DiskError> {
    let refused = |source| DiskError::Partition { disk: disk.into(), source };
    let opened = File::options().read(true).write(true).open(disk);
    let mut device = opened.map_err(|source| DiskError::Open { path: disk.into(), source })?;
    let sector = gptman::linux::get_sector_size(&mut device).map_err(|e| refused(e.into()))?;
    let mut gpt = GPT::new_from(&mut device, sector, rand::random()).map_err(|e| refused(e.into()))?;
    gpt.align = ALIGNMENT / sector;
    let total = (gpt.header.last_usable_lba - gpt.header.first_usable_lba) * sector;
    if total < MIN_DISK_BYTES {
        return Err(DiskError::TooSmall { disk: disk.into() });
    }
    let no_room = |partition| DiskError::NoRoom { disk: disk.into(), partition };
    let (index_name, pool_name) = ("dyad-index", "dyad-pool");
    add_partition(&mut gpt, 1, INDEX_TYPE, index_name, index_bytes(total) / sector)
        .ok_or_else(|| no_room(index_name))?;
    let rest = gpt.get_maximum_partition_size().map_err(|_| no_room(pool_name))?;
    let whole = rest / gpt.align * gpt.align;
    add_partition(&mut gpt, 2, POOL_TYPE, pool_name, whole).ok_or_else(|| no_room(pool_name))?;
    GPT::write_protective_mbr_into(&mut device, sector).map_err(|e| refused(e.into()))?;
    gpt.write_into(&mut device).map_err(|e| refused(e.into()))?;
    device.sync_all().map_err(|source| DiskError::Write { disk: disk.into(), source })?;
    gptman::linux::reread_partition_table(&mut device)
        .map_err(|e| DiskError::Reread { disk: disk.into(), source: e.into() })?;
    let index = partition(disk, 1);
    make_ext4(&index)?;
    Ok(PoolDiskPaths { disk: disk.into(), raw: partition(disk, 2), index: Index::Partition(index) })
}

/// Size of the index partition, in bytes: 1/64 of the disk, at least 64 MiB, at most 64 GiB. An index record of about
/// 100 bytes describes 64 KiB of data, so this is ten times what is needed.
fn index_bytes(total: u64) -> u64 {
    (total / 64).clamp(64 << 20, 64 << 30) & !(ALIGNMENT - 1)
}

/// Adds a partition in the first place where it fits; `None`: it fits nowhere.
fn add_partition(gpt: &mut GPT, number: u32, kind: [u8; 16], name: &str, sectors: u64) -> Option<()> {
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
    // `-m 0`: no blocks are reserved for root, so that the index can use the whole partition.
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

/// Unmounts an index partition that an earlier setup or an earlier run of the core has mounted. Precondition: no file
/// on it is open.
fn unmount_index(device: &Path, paths: &NodePaths) {
    if let Some(name) = device.file_name() {
        let _ = unmount(paths.run.join("index").join(name), UnmountFlags::DETACH);
    }
}
