//! The search for disks: candidates for pool disks, and the pool disks of this node.

use super::layout::{Index, POOL_TYPE, PoolDiskPaths};
use dyad_control::{DiskCandidate, DiskContent};
use dyad_disks::partition;
use dyad_pool::{FileDisk, Inspection, inspect};
use dyad_types::NodeId;
use gptman::GPT;
use std::fs::{self, File};
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};

/// All disks that could become pool disks. If `given` is not empty (tests, laptops), these paths are used instead of a
/// search. The search leaves out removable disks, and disks with a mounted partition other than an index, such as the
/// system disk.
pub fn list(given: &[PathBuf], run: &Path) -> Vec<DiskCandidate> {
    candidate_paths(given, run).iter().filter_map(|path| candidate(path)).collect()
}

/// The parts of this node's pool disks, sorted by the number in the label. Disks are found by label, because the kernel
/// may give them other names at each boot.
pub fn find_pool_disks(given: &[PathBuf], run: &Path, pair: u128, node: NodeId) -> Vec<PoolDiskPaths> {
    let mut found: Vec<(u16, PoolDiskPaths)> = candidate_paths(given, run)
        .into_iter()
        .filter_map(|disk| parts(&disk))
        .filter_map(|parts| match inspect_raw_part(&parts.raw) {
            Ok(Inspection::Pool { identity, number, .. }) if identity.pool == pair && identity.node == node => {
                Some((number, parts))
            }
            _ => None,
        })
        .collect();
    found.sort_by_key(|(number, _)| *number);
    found.into_iter().map(|(_, parts)| parts).collect()
}

/// Reads the label of a raw part.
fn inspect_raw_part(raw: &Path) -> std::io::Result<Inspection> {
    inspect(Box::new(FileDisk::open(raw)?))
}

/// The paths of all disks to look at, as [`list`] says.
fn candidate_paths(given: &[PathBuf], run: &Path) -> Vec<PathBuf> {
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
    dyad_disks::list()
        .into_iter()
        .filter(|disk| !is_removable(disk))
        .filter(|disk| !foreign_mounts.iter().any(|device| device.starts_with(&*disk.to_string_lossy())))
        .collect()
}

fn is_removable(disk: &Path) -> bool {
    let name = disk.file_name().unwrap_or_default();
    BlockDevice(&name.to_string_lossy()).attribute("removable").as_deref() == Some("1")
}

/// A block device, by its name in the kernel, such as `sda`.
struct BlockDevice<'a>(&'a str);

impl BlockDevice<'_> {
    fn attribute(&self, file: &str) -> Option<String> {
        fs::read_to_string(format!("/sys/block/{}/{file}", self.0)).ok().map(|s| s.trim().to_owned())
    }
}

/// The disk at `path` with its size, model and content; `None` if its size cannot be read.
fn candidate(path: &Path) -> Option<DiskCandidate> {
    let name = path.file_name()?.to_string_lossy().into_owned();
    let device = fs::metadata(path).ok()?.file_type().is_block_device();
    let bytes = if device {
        BlockDevice(&name).attribute("size")?.parse::<u64>().ok()? * 512
    } else {
        fs::metadata(path).ok()?.len()
    };
    let first = |files: &[&str]| files.iter().find_map(|f| BlockDevice(&name).attribute(f).filter(|s| !s.is_empty()));
    Some(DiskCandidate {
        path: path.display().to_string(),
        model: first(&["device/model", "device/vendor"]).unwrap_or_default(),
        serial: first(&["serial", "device/serial", "device/wwid"]).unwrap_or_default(),
        bytes,
        content: content(path),
    })
}

/// The content of a disk, which is lost if the disk is formatted.
fn content(path: &Path) -> DiskContent {
    let raw = parts(path).map_or_else(|| path.to_owned(), |parts| parts.raw);
    match inspect_raw_part(&raw) {
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

/// The parts of a disk that has the layout of a pool disk, of this pair or another one; `None` for any other disk.
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
