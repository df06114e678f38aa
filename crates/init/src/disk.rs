//! The system disk: it holds the boot loader that started this node, its slots, and the state of this node.

use crate::events::DeviceEvents;
use crate::modules::Modules;
use crate::partition::{self, PartitionRole, StatePartition};
use crate::{log, sys};
use anyhow::{Context, bail};
use dyad_update::LoaderVariables;
use nix::mount::{MsFlags, mount as attach};
use std::fs::{self, File, OpenOptions};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

/// Folder of the UEFI variables, in which the boot loader names the partition that it was read from.
const EFI_VARIABLES: &str = "/sys/firmware/efi/efivars";
/// Folder of the file system tools.
const TOOL_FOLDER: &str = "/usr/sbin";

/// Phase: waits for the system disk, at most for `timeout`. Two disks with a state are an error, because init cannot tell
/// which of the states is current.
pub fn find(timeout: Duration, modules: &mut Modules) -> anyhow::Result<PathBuf> {
    let booted = LoaderVariables::new(Path::new(EFI_VARIABLES)).loader_partition().unwrap_or_default();
    let events = DeviceEvents::open()?;
    let deadline = Instant::now() + timeout;
    loop {
        // Devices may have appeared since the drivers were loaded; a disk behind a bridge needs several rounds.
        modules.load_for_devices();
        if let Some(disk) = choose(system_disks(booted.as_deref()))? {
            log::info(&format!("the system disk is {}", disk.display()));
            return Ok(disk);
        }
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            bail!(
                "the disk with this system was not found within {} s. Check the cables and the controller of the disk \
                 from which this node started; the kernel sees these disks: {}",
                timeout.as_secs(),
                dyad_disks::list().iter().map(|disk| disk.display().to_string()).collect::<Vec<_>>().join(" ")
            );
        }
        events.wait(left)?;
    }
}

/// Phase: creates and formats the state partition at the first boot. A partition that an interrupted first boot left
/// unfinished is formatted again.
pub fn prepare(disk: &Path) -> anyhow::Result<()> {
    let mut file = OpenOptions::new()
        .read(true)
        .write(true)
        .open(disk)
        .with_context(|| format!("{} cannot be written: it may be failing or write-protected", disk.display()))?;
    let number = match partition::role(&mut file) {
        PartitionRole::System { state: StatePartition::Ready(_), .. } => return Ok(()),
        PartitionRole::System { state: StatePartition::Unfinished(number), .. } => number,
        PartitionRole::System { state: StatePartition::Absent, .. } => {
            let number = partition::add_state(&mut file)?;
            file.sync_all()?;
            sys::reread_partitions(&file).context("the kernel does not read the new partition table")?;
            number
        }
        PartitionRole::Other => bail!("{} lost its partition table. Write the image again", disk.display()),
    };
    let device = dyad_disks::partition(disk, number);
    log::info(&format!("first boot: formatting {}", device.display()));
    let options =
        ["-q", "-F", "-t", "ext4", "-m", "0", "-L", "dyad-state", "-E", "lazy_itable_init=1,lazy_journal_init=1"];
    run_tool("mke2fs", &options, &device, 0)?;
    partition::finish_state(&mut file, number)?;
    file.sync_all().context("the partition table could not be written to the system disk")
}

/// Phase: checks and mounts the state partition and the system partition. The system partition is mounted read-only; only
/// an update mounts it writable.
pub fn mount(disk: &Path) -> anyhow::Result<()> {
    let mut file = File::open(disk).context("the system disk went away")?;
    let PartitionRole::System { esp, state: StatePartition::Ready(state), .. } = partition::role(&mut file) else {
        bail!("{} lost its state partition. Restore it, or write the image again", disk.display());
    };
    drop(file);
    let (esp, state) = (dyad_disks::partition(disk, esp), dyad_disks::partition(disk, state));
    // Exit code 1 means repaired. After a higher code a person must decide, because a repair could lose this node's state.
    run_tool("e2fsck", &["-p"], &state, 1)?;
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOATIME;
    attach(Some(&state), "/state", Some("ext4"), flags, Some("errors=remount-ro"))
        .with_context(|| format!("the state partition {} does not mount", state.display()))?;
    for directory in ["/state/log", "/state/var/lib/dhcpcd"] {
        fs::create_dir_all(directory).context("the state partition is not writable")?;
    }
    attach(Some("/state/var"), "/var", None::<&str>, MsFlags::MS_BIND, None::<&str>)
        .context("/var cannot be mounted from the state partition")?;
    // This system was booted from the system partition although it may be damaged: the error is logged and the boot goes on.
    if let Err(error) = run_tool("fsck.fat", &["-a"], &esp, 1) {
        log::warn(&format!("{error:#}"));
    }
    let flags = flags | MsFlags::MS_RDONLY | MsFlags::MS_NOEXEC;
    attach(Some(&esp), "/boot", Some("vfat"), flags, Some("umask=0077"))
        .with_context(|| format!("the system partition {} does not mount", esp.display()))
}

/// A disk with a Dyad system partition, and whether its state partition is complete.
type Candidate = (PathBuf, bool);

/// The disks whose system partition has the identifier that the boot loader reported; all Dyad system disks if it
/// reported none. Two disks have one identifier after the image was written to both.
fn system_disks(booted: Option<&str>) -> Vec<Candidate> {
    let candidate = |disk: PathBuf| {
        let mut file = File::open(&disk).ok()?;
        match partition::role(&mut file) {
            PartitionRole::System { esp_id, state, .. } if booted.is_none_or(|id| id == esp_id) => {
                Some((disk, matches!(state, StatePartition::Ready(_))))
            }
            _ => None,
        }
    };
    dyad_disks::list().into_iter().filter_map(candidate).collect()
}

/// Chooses the system disk: a disk with a complete state partition is preferred to disks without one. Two disks of the
/// preferred kind are an error.
fn choose(mut candidates: Vec<Candidate>) -> anyhow::Result<Option<PathBuf>> {
    if candidates.iter().any(|(_, ready)| *ready) {
        candidates.retain(|(_, ready)| *ready);
    }
    if let [(first, _), (second, _), ..] = &candidates[..] {
        bail!(
            "{} and {} both hold a Dyad system. Take out the disk that does not belong to this node",
            first.display(),
            second.display()
        );
    }
    Ok(candidates.pop().map(|(disk, _)| disk))
}

/// Runs a file system tool on `device`. Exit codes up to `max_good_code` count as success.
fn run_tool(tool: &str, options: &[&str], device: &Path, max_good_code: i32) -> anyhow::Result<()> {
    let output = Command::new(Path::new(TOOL_FOLDER).join(tool))
        .args(options)
        .arg(device)
        .output()
        .with_context(|| format!("{tool} does not start"))?;
    if output.status.code().is_none_or(|code| code > max_good_code) {
        let output_text = [output.stdout, output.stderr].concat();
        bail!(
            "{tool} failed on {} ({}): {}",
            device.display(),
            output.status,
            String::from_utf8_lossy(&output_text).trim()
        );
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_disk_with_a_state_is_chosen_and_two_equal_candidates_are_refused() {
        let disk = |name: &str, ready| (PathBuf::from(name), ready);
        assert_eq!(choose(vec![]).expect("no error"), None);
        let chosen = choose(vec![disk("a", false), disk("b", true), disk("c", false)]).expect("no error");
        assert_eq!(chosen, Some(PathBuf::from("b")));
        assert!(choose(vec![disk("a", false), disk("b", false)]).is_err());
        assert!(choose(vec![disk("a", true), disk("b", true), disk("c", false)]).is_err());
    }
}
