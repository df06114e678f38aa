//! Which disks there are, and which of them are pool disks of this node.

use super::{Index, POOL_TYPE, PoolDiskPaths, partition};
use dyad_control::{DiskCandidate, DiskContent};
use dyad_pool::{FileDisk, Inspection, inspect};
use dyad_types::NodeId;
use gptman::GPT;
use std::fs::{self, File};
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};

/// Kernel names that are never pool disks: RAM, loops, optical drives, floppies, device-mapper and network disks.
const NOT_DISKS: [&str; 8] = ["ram", "loop", "zram", "sr", "fd", "dm-", "nbd", "md"];

/// All disks that could become pool disks. `given` replaces the search (tests, laptops). A disk with a mounted
/// partition that is not ours (the system disk) is left out.
pub fn list(given: &[PathBuf], run: &Path) -> Vec<DiskCandidate> {
    paths(given, run).iter().filter_map(|path| candidate(path)).collect()
}

/// The pool disks of this node: their parts, found by label whatever their device names are today, in label order.
pub fn find_pool_disks(given: &[PathBuf], run: &Path, pair: u128, node: NodeId) -> Vec<PoolDiskPaths> {
    let mut found: Vec<(u16, PoolDiskPaths)> = paths(given, run)
        .into_iter()
        .filter_map(|disk| parts(&disk))
        .filter_map(|parts| match look(&parts.raw) {
            Ok(Inspection::Pool { identity, number, .. }) if identity.pool == pair && identity.node == node => {
                Some((number, parts))
            }
            _ => None,
        })
        .collect();
    found.sort_by_key(|(number, _)| *number);
    found.into_iter().map(|(_, parts)| parts).collect()
}

fn look(raw: &Path) -> std::io::Result<Inspection> {
    inspect(Box::new(FileDisk::open(raw)?))
}

fn paths(given: &[PathBuf], run: &Path) -> Vec<PathBuf> {
    if !given.is_empty() {
        return given.to_vec();
    }
    let mounts = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    let index_mounts = run.join("index");
    let foreign_mounts: Vec<&str> = mounts
        .lines()
        .filter_map(|line| line.split_once(' '))
        .filter(|(_, rest)| !Path::new(rest.split(' ').next().unwrap_or("")).starts_with(&index_mounts))
        .map(|(device, _)| device)
        .collect();
    let mut names: Vec<String> = fs::read_dir("/sys/block")
        .into_iter()
        .flatten()
        .flatten()
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .filter(|name| !NOT_DISKS.iter().any(|prefix| name.starts_with(prefix)))
        .filter(|name| sys(name, "removable").as_deref() != Some("1"))
        .collect();
    names.sort();
    names
        .into_iter()
        .map(|name| PathBuf::from("/dev").join(name))
        .filter(|disk| !foreign_mounts.iter().any(|device| device.starts_with(&*disk.to_string_lossy())))
        .collect()
}

fn sys(name: &str, file: &str) -> Option<String> {
    fs::read_to_string(format!("/sys/block/{name}/{file}")).ok().map(|s| s.trim().to_owned())
}

fn candidate(path: &Path) -> Option<DiskCandidate> {
    let name = path.file_name()?.to_string_lossy().into_owned();
    let device = fs::metadata(path).ok()?.file_type().is_block_device();
    let bytes = if device { sys(&name, "size")?.parse::<u64>().ok()? * 512 } else { fs::metadata(path).ok()?.len() };
    let first = |files: &[&str]| files.iter().find_map(|f| sys(&name, f).filter(|s| !s.is_empty()));
    Some(DiskCandidate {
        path: path.display().to_string(),
        model: first(&["device/model", "device/vendor"]).unwrap_or_default(),
        serial: first(&["serial", "device/serial", "device/wwid"]).unwrap_or_default(),
        bytes,
        content: content(path),
    })
}

/// What a person would lose by formatting this disk.
fn content(path: &Path) -> DiskContent {
    let raw = parts(path).map_or_else(|| path.to_owned(), |parts| parts.raw);
    match look(&raw) {
        Ok(Inspection::Blank) if raw == path => DiskContent::Blank,
        Ok(Inspection::Blank) => DiskContent::Foreign("an unfinished pool disk".into()),
        Ok(Inspection::Foreign { what }) => DiskContent::Foreign(what.into()),
        Ok(Inspection::Unreadable { what }) => DiskContent::Foreign(what),
        Ok(Inspection::Pool { identity, .. }) => DiskContent::Pool {
            pair: identity.pair_name,
            node: identity.node_name,
            pair_id: format!("{:032x}", identity.pool),
        },
        Err(e) if e.kind() == std::io::ErrorKind::WouldBlock => DiskContent::Foreign("in use by this node".into()),
        Err(why) => DiskContent::Foreign(format!("unreadable: {why}")),
    }
}

/// The parts of a disk that has been prepared, whoever did it.
pub fn parts(disk: &Path) -> Option<PoolDiskPaths> {
    if !fs::metadata(disk).ok()?.file_type().is_block_device() {
        let index = disk.with_extension("index");
        return index.is_dir().then(|| PoolDiskPaths {
            disk: disk.into(),
            raw: disk.into(),
            index: Index::Directory(index),
        });
    }
    let gpt = GPT::find_from(&mut File::open(disk).ok()?).ok()?;
    let (number, _) = gpt.iter().find(|(_, entry)| entry.partition_type_guid == POOL_TYPE)?;
    let index = Index::Partition(partition(disk, 1));
    Some(PoolDiskPaths { disk: disk.into(), raw: partition(disk, number), index })
}
