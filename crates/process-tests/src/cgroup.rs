//! A cgroup in which a process stands for the VMs of a node.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::time::Duration;

use anyhow::{Context as _, Result};
use dyad_rig::wait::{self, Look};

/// The kernel freezes and kills within milliseconds.
const CGROUP_DEADLINE: Duration = Duration::from_secs(30);

/// The group and its one process, which ends with it.
#[derive(Debug)]
pub struct Cgroup {
    folder: PathBuf,
    process: Child,
}

impl Cgroup {
    /// Makes the group; `name` tells several groups of this machine apart.
    ///
    /// # Errors
    /// This machine has no cgroup v2, or this user may not make one.
    pub fn new(name: &str) -> Result<Self> {
        let mounts = ["/sys/fs/cgroup", "/sys/fs/cgroup/unified"].map(PathBuf::from);
        let root = mounts.into_iter().find(|mount| mount.join("cgroup.controllers").exists());
        let folder = root
            .context("cgroup v2 is not mounted.")?
            .join(format!("dyad-process-tests-{name}-{}", std::process::id()));
        fs::create_dir(&folder).with_context(|| format!("Cannot create {}.", folder.display()))?;
        let process = Command::new("sleep").arg("1000").spawn()?;
        let group = Self { folder, process };
        fs::write(group.folder.join("cgroup.procs"), group.process.id().to_string())?;
        Ok(group)
    }

    /// Path of the group, valid also in another namespace, whose `/sys` is another file system.
    pub fn path(&self) -> PathBuf {
        let inside = self.folder.strip_prefix("/").unwrap_or(&self.folder);
        Path::new("/proc").join(std::process::id().to_string()).join("root").join(inside)
    }

    /// Freezes the group, as a daemon does when its right to run has lapsed.
    ///
    /// # Errors
    /// The kernel does not.
    pub fn freeze(&self) -> Result<()> {
        fs::write(self.folder.join("cgroup.freeze"), "1")?;
        self.wait("frozen 1")
    }

    /// Waits until the kernel says this of the group.
    ///
    /// # Errors
    /// It does not in time.
    pub fn wait(&self, line: &str) -> Result<()> {
        wait::until(&format!("the group to be {line}"), CGROUP_DEADLINE, || {
            let events = fs::read_to_string(self.folder.join("cgroup.events"))?;
            Ok(if events.lines().any(|said| said == line) { Look::Ready(()) } else { Look::NotYet(events) })
        })
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        // A group that cannot be removed is empty and does no harm.
        let _ = self.process.kill();
        let _ = self.process.wait();
        let _ = fs::remove_dir(&self.folder);
    }
}
