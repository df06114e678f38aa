//! A cgroup with one idle process in place of a node's VMs.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::time::Duration;

use anyhow::{Context as _, Result};
use dyad_rig::wait::{self, Poll};

/// Longest wait for a state of the cgroup; the kernel freezes and kills within milliseconds.
const CGROUP_DEADLINE: Duration = Duration::from_secs(30);

/// The cgroup and its process. Dropping this value kills the process and removes the cgroup.
#[derive(Debug)]
pub struct Cgroup {
    folder: PathBuf,
    process: Child,
}

impl Cgroup {
    /// Creates the cgroup; `name` tells several cgroups of this machine apart.
    ///
    /// # Errors
    /// This machine has no cgroup v2, or this user may not create one.
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

    /// Path of the cgroup through `/proc`, valid also in another mount namespace, where `/sys` is another file system.
    pub fn path(&self) -> PathBuf {
        let inside = self.folder.strip_prefix("/").unwrap_or(&self.folder);
        Path::new("/proc").join(std::process::id().to_string()).join("root").join(inside)
    }

    /// Freezes the cgroup, as a daemon does when its lease has ended.
    ///
    /// # Errors
    /// The cgroup is not frozen in time.
    pub fn freeze(&self) -> Result<()> {
        fs::write(self.folder.join("cgroup.freeze"), "1")?;
        self.wait("frozen 1")
    }

    /// Waits until `cgroup.events` contains this line.
    ///
    /// # Errors
    /// The line does not appear in time.
    pub fn wait(&self, line: &str) -> Result<()> {
        wait::until(&format!("the group to be {line}"), CGROUP_DEADLINE, || {
            let events = fs::read_to_string(self.folder.join("cgroup.events"))?;
            Ok(if events.lines().any(|said| said == line) { Poll::Ready(()) } else { Poll::NotYet(events) })
        })
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        // A cgroup that cannot be removed is empty and does no harm.
        let _ = self.process.kill();
        let _ = self.process.wait();
        let _ = fs::remove_dir(&self.folder);
    }
}
