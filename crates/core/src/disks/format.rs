//! Makes pool disks. Everything here destroys what was there: the caller has the typed confirmation.

use super::{INDEX_TYPE, Index, POOL_TYPE, PoolDiskPaths};
use anyhow::{Context, bail};
use dyad_disks::partition;
use dyad_pool::FileDisk;
use gptman::{GPT, GPTPartitionEntry};
use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};
use std::fs::{self, File};
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Smallest disk accepted, in bytes.
pub const SMALLEST_DISK: u64 = 512 << 20;

/// A disk that has been partitioned and whose index file system exists; the pool's own labels come next.
pub type Prepared = PoolDiskPaths;

/// Partitions `disk` (a device) or clears its index (a file).
pub fn prepare(disk: &Path, run: &Path) -> anyhow::Result<Prepared> {
    let kind = fs::metadata(disk).with_context(|| format!("{} does not exist", disk.display()))?.file_type();
    if kind.is_block_device() {
        // Of a setup that failed before: the kernel takes no new partitions while one is in use.
        unmount_index(&partition(disk, 1), run);
        return prepare_device(disk);
    }
    let index = disk.with_extension("index");
    if index.exists() {
        fs::remove_dir_all(&index).with_context(|| format!("{} cannot be cleared", index.display()))?;
    }
    fs::create_dir_all(&index)?;
    Ok(PoolDiskPaths { disk: disk.into(), raw: disk.into(), index: Index::Directory(index) })
}

/// Makes the disk blank for everybody: first the pool's labels go, then what else tells of the pool. Crashed in between,
/// it is an unfinished pool disk.
pub fn erase(parts: &PoolDiskPaths, run: &Path) -> anyhow::Result<()> {
    let failed = || format!("{} cannot be erased", parts.disk.display());
    let raw = FileDisk::open(&parts.raw).with_context(failed)?;
    dyad_pool::erase(&raw).with_context(failed)?;
    drop(raw);
    match &parts.index {
        Index::Directory(index) => match fs::remove_dir_all(index) {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => Err(e).with_context(failed),
            _ => Ok(()),
        },
        Index::Partition(index) => {
            unmount_index(index, run);
            dyad_pool::erase(&FileDisk::open(index).with_context(failed)?).with_context(failed)?;
            dyad_pool::erase(&FileDisk::open(&parts.disk).with_context(failed)?).with_context(failed)?;
            // The kernel may keep the old partitions until the next boot: setup makes it read the new ones.
            let _ = gptman::linux::reread_partition_table(&mut File::open(&parts.disk).with_context(failed)?);
            Ok(())
        }
    }
}

fn prepare_device(disk: &Path) -> anyhow::Result<Prepared> {
    let mut device = File::options().read(true).write(true).open(disk)?;
    let sector = gptman::linux::get_sector_size(&mut device)?;
    let mut gpt = GPT::new_from(&mut device, sector, rand::random())
        .with_context(|| format!("{} cannot be partitioned", disk.display()))?;
    gpt.align = (1 << 20) / sector;
    let total = (gpt.header.last_usable_lba - gpt.header.first_usable_lba) * sector;
    if total < SMALLEST_DISK {
        bail!("{} is smaller than the {} MiB a pool disk needs", disk.display(), SMALLEST_DISK >> 20);
    }
    let index_sectors = index_bytes(total) / sector;
    add(&mut gpt, 1, INDEX_TYPE, "dyad-index", index_sectors)?;
    let rest = gpt.get_maximum_partition_size().context("no room is left for the pool partition")?;
    let whole = rest / gpt.align * gpt.align;
    add(&mut gpt, 2, POOL_TYPE, "dyad-pool", whole)?;
    GPT::write_protective_mbr_into(&mut device, sector)?;
    gpt.write_into(&mut device)?;
    device.sync_all()?;
    gptman::linux::reread_partition_table(&mut device)
        .with_context(|| format!("the kernel does not take the new partitions of {}", disk.display()))?;
    let index = partition(disk, 1);
    make_ext4(&index)?;
    Ok(PoolDiskPaths { disk: disk.into(), raw: partition(disk, 2), index: Index::Partition(index) })
}

/// 1/64 of the disk, at least 64 MiB, at most 64 GiB: an index record of 100 bytes describes 64 KiB.
fn index_bytes(total: u64) -> u64 {
    (total / 64).clamp(64 << 20, 64 << 30) & !((1 << 20) - 1)
}

fn add(gpt: &mut GPT, number: u32, kind: [u8; 16], name: &str, sectors: u64) -> anyhow::Result<()> {
    let start = gpt.find_first_place(sectors).context("the disk is too small")?;
    gpt[number] = GPTPartitionEntry {
        partition_type_guid: kind,
        unique_partition_guid: rand::random(),
        starting_lba: start,
        ending_lba: start + sectors - 1,
        attribute_bits: 0,
        partition_name: name.into(),
    };
    Ok(())
}

fn make_ext4(device: &Path) -> anyhow::Result<()> {
    // No reserved blocks: the index must be able to use all of its partition.
    let made = Command::new("mke2fs")
        .args(["-q", "-F", "-t", "ext4", "-m", "0", "-L", "dyad-index"])
        .arg(device)
        .output()
        .context("mke2fs is missing")?;
    if !made.status.success() {
        bail!("mke2fs failed on {}: {}", device.display(), String::from_utf8_lossy(&made.stderr).trim());
    }
    Ok(())
}

/// Unmounts an index partition that an earlier setup or an earlier core has mounted; nothing in it is open.
fn unmount_index(device: &Path, run: &Path) {
    if let Some(name) = device.file_name() {
        let _ = unmount(run.join("index").join(name), UnmountFlags::DETACH);
    }
}

/// Mounts an index partition below `run` unless it is mounted already (the core was restarted).
pub(super) fn mount_index(device: &Path, run: &Path) -> anyhow::Result<PathBuf> {
    let name = device.file_name().context("a device without a name")?;
    let dir = run.join("index").join(name);
    fs::create_dir_all(&dir)?;
    let mounts = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    let mounted = mounts.lines().any(|line| line.split(' ').nth(1) == dir.to_str());
    if !mounted {
        mount(device, &dir, "ext4", MountFlags::NOATIME | MountFlags::NODEV | MountFlags::NOEXEC, None)
            .with_context(|| format!("the index on {} cannot be mounted", device.display()))?;
    }
    Ok(dir)
}
