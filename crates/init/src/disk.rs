//! The system disk: the boot loader was read from it, and it holds the state of this node.

use crate::events::DeviceEvents;
use crate::modules::Modules;
use crate::partition::{self, PartitionRole, State};
use crate::{log, sys};
use anyhow::{Context, bail};
use dyad_update::LoaderVariables;
use nix::mount::{MsFlags, mount as attach};
use std::fs::{self, File, OpenOptions};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

const VARIABLES: &str = "/sys/firmware/efi/efivars";
const TOOLS: &str = "/usr/sbin";

/// Phase: waits for the system disk, at most `timeout`. Two system disks are an error: nothing tells which of their
/// states is current.
pub fn find(timeout: Duration, modules: &mut Modules) -> anyhow::Result<PathBuf> {
    let booted = LoaderVariables::new(Path::new(VARIABLES)).loader_partition().unwrap_or_default();
    let events = DeviceEvents::open()?;
    let deadline = Instant::now() + timeout;
    loop {
        // Devices may have come since the drivers were loaded; a disk behind a bridge takes several rounds.
        modules.load_for_devices();
        if let Some(disk) = choose(system_disks(booted.as_deref()))? {
            log::info(&format!("the system disk is {}", disk.display()));
            return Ok(disk);
        }
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            bail!(
                "no disk holds this system after {} s. Check the cables and the controller of the disk this node \
                 was started from; the drivers know these disks: {}",
                timeout.as_secs(),
                dyad_disks::list().iter().map(|disk| disk.display().to_string()).collect::<Vec<_>>().join(" ")
            );
        }
        events.wait(left)?;
    }
}

/// Phase: creates and formats the state partition at the first boot.
pub fn prepare(disk: &Path) -> anyhow::Result<()> {
    let mut file = OpenOptions::new()
        .read(true)
        .write(true)
        .open(disk)
        .with_context(|| format!("{} cannot be written: it may be failing or write-protected", disk.display()))?;
    let number = match partition::role(&mut file) {
        PartitionRole::System { state: State::Ready(_), .. } => return Ok(()),
        PartitionRole::System { state: State::Unfinished(number), .. } => number,
        PartitionRole::System { state: State::Absent, .. } => {
            let number = partition::add_state(&mut file)?;
            file.sync_all()?;
            sys::reread_partitions(&file).context("the kernel does not take the new partition table")?;
            number
        }
        PartitionRole::Other => bail!("{} lost its partition table. Write the image again", disk.display()),
    };
    let device = dyad_disks::partition(disk, number);
    log::info(&format!("first boot: formatting {}", device.display()));
    let options =
        ["-q", "-F", "-t", "ext4", "-m", "0", "-L", "dyad-state", "-E", "lazy_itable_init=1,lazy_journal_init=1"];
    run("mke2fs", &options, &device, 0)?;
    partition::finish_state(&mut file, number)?;
    file.sync_all().context("the system disk does not keep its partition table")
}

/// Phase: checks and mounts both partitions. The system partition stays read-only outside of updates.
pub fn mount(disk: &Path) -> anyhow::Result<()> {
    let mut file = File::open(disk).context("the system disk went away")?;
    let PartitionRole::System { esp, state: State::Ready(state), .. } = partition::role(&mut file) else {
        bail!("{} lost its state partition. Restore it, or write the image again", disk.display());
    };
    drop(file);
    let (esp, state) = (dyad_disks::partition(disk, esp), dyad_disks::partition(disk, state));
    // Exit code 1: repaired. A higher code needs a person: an automatic repair could lose the state of this node.
    run("e2fsck", &["-p"], &state, 1)?;
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOATIME;
    attach(Some(&state), "/state", Some("ext4"), flags, Some("errors=remount-ro"))
        .with_context(|| format!("the state partition {} does not mount", state.display()))?;
    for directory in ["/state/log", "/state/var/lib/dhcpcd"] {
        fs::create_dir_all(directory).context("the state partition is not writable")?;
    }
    attach(Some("/state/var"), "/var", None::<&str>, MsFlags::MS_BIND, None::<&str>).context("/var cannot be kept")?;
    // A damaged system partition has still booted this system: report it and continue.
    if let Err(error) = run("fsck.fat", &["-a"], &esp, 1) {
        log::warn(&format!("{error:#}"));
    }
    let flags = flags | MsFlags::MS_RDONLY | MsFlags::MS_NOEXEC;
    attach(Some(&esp), "/boot", Some("vfat"), flags, Some("umask=0077"))
        .with_context(|| format!("the system partition {} does not mount", esp.display()))
}

/// A disk that holds a system of ours, and whether it has a state.
type Candidate = (PathBuf, bool);

/// Disks whose system partition the boot loader was read from; all Dyad system disks if the loader did not say.
fn system_disks(booted: Option<&str>) -> Vec<Candidate> {
    let candidate = |disk: PathBuf| {
        let mut file = File::open(&disk).ok()?;
        match partition::role(&mut file) {
            PartitionRole::System { esp_id, state, .. } if booted.is_none_or(|id| id == esp_id) => {
                Some((disk, matches!(state, State::Ready(_))))
            }
            _ => None,
        }
    };
    dyad_disks::list().into_iter().filter_map(candidate).collect()
}

/// Chooses the system disk: a disk with a state comes before freshly written disks.
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

/// Runs a file system tool on `device`. Exit codes up to `worst` are good.
fn run(tool: &str, options: &[&str], device: &Path, worst: i32) -> anyhow::Result<()> {
    let output = Command::new(Path::new(TOOLS).join(tool))
        .args(options)
        .arg(device)
        .output()
        .with_context(|| format!("{tool} does not start"))?;
    if output.status.code().is_none_or(|code| code > worst) {
        let said = [output.stdout, output.stderr].concat();
        bail!("{tool} gave up on {} ({}): {}", device.display(), output.status, String::from_utf8_lossy(&said).trim());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_disk_with_a_state_is_chosen_and_two_of_a_kind_are_refused() {
        let disk = |name: &str, ready| (PathBuf::from(name), ready);
        assert_eq!(choose(vec![]).expect("no error"), None);
        let chosen = choose(vec![disk("a", false), disk("b", true), disk("c", false)]).expect("no error");
        assert_eq!(chosen, Some(PathBuf::from("b")));
        assert!(choose(vec![disk("a", false), disk("b", false)]).is_err());
        assert!(choose(vec![disk("a", true), disk("b", true), disk("c", false)]).is_err());
    }
}
