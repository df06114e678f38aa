//! Writes the raw disk image: partition table, and system partition (ESP) with boot loader and slots.

use super::debian::DebianTree;
use super::options::FILE_TIME;
use crate::host::{self, Host};
use anyhow::{Context as _, Result};
use dyad_update::EntryName;
use dyad_update::layout::{self, MIB};
use gptman::{GPT, GPTPartitionEntry};
use std::fs::{self, File};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, SystemTime};

const SECTOR_BYTES: u64 = 512;

/// Writes the disk image `target`. `slots` are pairs of version and file of a slot.
pub fn build(host: &Host, debian: &DebianTree, slots: &[(String, PathBuf)], target: &Path) -> Result<()> {
    let fresh = target.with_extension("part");
    let esp = layout::partition(layout::ESP);
    // One MiB in front and behind: the two copies of the partition table.
    let mut file = File::options().read(true).write(true).create(true).truncate(true).open(&fresh)?;
    file.set_len(esp.bytes + 2 * MIB)?;
    partition(&mut file, &esp)?;
    drop(file);
    format(&fresh, &esp)?;

    let loader = debian.boot_loader();
    let mut files: Vec<(PathBuf, String)> = vec![
        (loader.clone(), "EFI/BOOT/BOOTX64.EFI".into()),
        (loader, "EFI/systemd/systemd-bootx64.efi".into()),
        (host.repository().join("image/boot/loader.conf"), "loader/loader.conf".into()),
    ];
    for (version, slot) in slots {
        files.push((slot.clone(), format!("EFI/Linux/{}", EntryName::fresh(version)?)));
    }
    let fat = Fat { disk: format!("{}@@{MIB}", fresh.display()) };
    for folder in ["EFI", "EFI/BOOT", "EFI/systemd", "EFI/Linux", "loader"] {
        fat.run("mmd", &[&format!("::{folder}")])?;
    }
    for (source, name) in files {
        fat.copy(&source, &name)?;
    }
    fs::rename(&fresh, target).with_context(|| format!("Cannot write {}.", target.display()))
}

/// Bytes that a sparse file occupies, its holes left out.
pub fn allocated_bytes(path: &Path) -> Result<u64> {
    Ok(fs::metadata(path)?.blocks() * SECTOR_BYTES)
}

fn partition(file: &mut File, esp: &layout::Partition) -> Result<()> {
    let mut table =
        GPT::new_from(file, SECTOR_BYTES, layout::disk_id()).context("The partition table does not fit.")?;
    table[1] = GPTPartitionEntry {
        partition_type_guid: esp.kind,
        unique_partition_guid: esp.id,
        starting_lba: MIB / SECTOR_BYTES,
        ending_lba: (MIB + esp.bytes) / SECTOR_BYTES - 1,
        attribute_bits: 0,
        partition_name: esp.name.into(),
    };
    GPT::write_protective_mbr_into(file, SECTOR_BYTES)?;
    table.write_into(file)?;
    Ok(())
}

fn format(disk: &Path, esp: &layout::Partition) -> Result<()> {
    let mut command = host::system_tool("mkfs.fat");
    // A fixed serial number and time (--invariant). Clusters of 4 KiB: some firmware takes larger ones for another FAT.
    command.args(["-F", "32", "-S", "512", "-s", "8", "-n", "DYAD-ESP", "--invariant"]);
    command.arg("--offset").arg((MIB / SECTOR_BYTES).to_string()).arg(disk).arg((esp.bytes / 1024).to_string());
    host::run_quietly(&mut command)
}

/// The FAT file system inside the disk image, written with mtools. `disk` is mtools' name for it: file and offset.
struct Fat {
    disk: String,
}

impl Fat {
    fn copy(&self, source: &Path, name: &str) -> Result<()> {
        // mtools copies the file's time, so a copy of the file gets the common time of all files first.
        let copy = temporary_copy(source)?;
        File::options()
            .append(true)
            .open(&copy)?
            .set_modified(SystemTime::UNIX_EPOCH + Duration::from_secs(FILE_TIME))?;
        let result = self.run("mcopy", &["-m", &copy.to_string_lossy(), &format!("::{name}")]);
        fs::remove_file(copy)?;
        result
    }

    fn run(&self, tool: &str, arguments: &[&str]) -> Result<()> {
        let mut command = Command::new(tool);
        command.args(["-i", &self.disk]).args(arguments);
        // mtools' check of the geometry fails for a partition inside a disk.
        command.env("MTOOLS_SKIP_CHECK", "1").env("TZ", "UTC").env("SOURCE_DATE_EPOCH", FILE_TIME.to_string());
        host::run_quietly(&mut command)
    }
}

fn temporary_copy(source: &Path) -> Result<PathBuf> {
    let copy = std::env::temp_dir().join(format!("dyad-image-{}", std::process::id()));
    fs::copy(source, &copy).with_context(|| format!("Cannot copy {}.", source.display()))?;
    Ok(copy)
}
