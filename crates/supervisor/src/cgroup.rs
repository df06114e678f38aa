//! One cgroup (version 2) for each VM, below a common root that `dyad-core` can freeze and kill as a whole.

use std::ffi::OsString;
use std::io;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

/// The kernel's default for `cpu.weight`.
const DEFAULT_CPU_WEIGHT: u32 = 100;

/// A file or directory of a cgroup cannot be made or written.
#[derive(Debug, thiserror::Error)]
#[error("{path} cannot be written")]
pub struct CgroupError {
    pub path: PathBuf,
    pub source: io::Error,
}

/// The cgroup of one VM.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cgroup {
    dir: PathBuf,
}

impl Cgroup {
    /// The cgroup of the VM `name` below `root`; it need not exist.
    #[must_use]
    pub fn new(root: &Path, name: &str) -> Self {
        Self { dir: root.join(name) }
    }

    #[must_use]
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Creates the cgroup and its root, if they do not exist.
    ///
    /// # Errors
    ///
    /// The directory cannot be created.
    pub fn create(&self) -> Result<(), CgroupError> {
        std::fs::create_dir_all(&self.dir).map_err(|source| CgroupError { path: self.dir.clone(), source })
    }

    /// Gives the VM ten times the default CPU weight until [`Cgroup::end_start_boost`]: a start is short, and after the
    /// loss of a node users wait for it.
    pub fn begin_start_boost(&self) {
        self.set_cpu_weight(10 * DEFAULT_CPU_WEIGHT);
    }

    /// Gives the VM the default CPU weight.
    pub fn end_start_boost(&self) {
        self.set_cpu_weight(DEFAULT_CPU_WEIGHT);
    }

    fn set_cpu_weight(&self, weight: u32) {
        // Without the `cpu` controller the file does not exist. A VM runs without its weight too, so this is no error.
        if let Err(error) = std::fs::write(self.dir.join("cpu.weight"), weight.to_string()) {
            tracing::debug!(cgroup = %self.dir.display(), %error, "a VM's share of the processor was not set");
        }
    }

    /// The processes in the cgroup; empty if it does not exist.
    #[must_use]
    pub fn pids(&self) -> Vec<u32> {
        let text = std::fs::read_to_string(self.dir.join("cgroup.procs")).unwrap_or_default();
        text.lines().filter_map(|line| line.parse().ok()).collect()
    }

    /// Sends SIGKILL to all processes of the cgroup, also frozen ones, with one write.
    ///
    /// # Errors
    ///
    /// The write fails. A cgroup that does not exist is no error.
    pub fn kill(&self) -> Result<(), CgroupError> {
        let path = self.dir.join("cgroup.kill");
        match std::fs::write(&path, "1") {
            Err(source) if source.kind() != io::ErrorKind::NotFound => Err(CgroupError { path, source }),
            _ => Ok(()),
        }
    }

    /// Removes the cgroup when its last process has ended; waits at most 2 s for that.
    pub async fn remove(&self) {
        for _ in 0..200 {
            match std::fs::remove_dir(&self.dir) {
                Err(error) if error.kind() == io::ErrorKind::ResourceBusy => {}
                _ => return,
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        tracing::warn!(cgroup = %self.dir.display(), "a VM's cgroup still has processes and was left");
    }
}

/// The names of all cgroups directly below `root`; empty if it cannot be read.
pub(crate) fn names(root: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(root).into_iter().flatten().flatten();
    let dirs = entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
    dirs.filter_map(|entry| entry.file_name().into_string().ok()).collect()
}

/// The failures of [`exec_in_cgroup`].
#[derive(Debug, thiserror::Error)]
pub enum ExecError {
    /// The arguments are not `CGROUP -- PROGRAM ARGUMENTS…`.
    #[error("expected CGROUP -- PROGRAM ARGUMENTS…; this command is for dyad-node's own use")]
    Usage,
    /// The process could not enter the cgroup.
    #[error("the cgroup {cgroup} could not be entered; check that cgroup version 2 is mounted there")]
    Enter { cgroup: PathBuf, source: io::Error },
    /// The program could not be started.
    #[error("the program {program:?} could not be started; check that it is installed")]
    Exec { program: OsString, source: io::Error },
}

/// Moves this process into a cgroup and executes another program: `CGROUP -- PROGRAM ARGUMENTS…`.
///
/// A program that starts VMs calls this function from a hidden subcommand, which it names in
/// [`crate::Settings::launcher`]. QEMU is then in its cgroup before its first instruction, without code of this
/// crate between fork and exec. Returns only if it failed.
pub fn exec_in_cgroup(arguments: impl IntoIterator<Item = OsString>) -> ExecError {
    let mut arguments = arguments.into_iter();
    let (Some(cgroup), Some(dashes), Some(program)) = (arguments.next(), arguments.next(), arguments.next()) else {
        return ExecError::Usage;
    };
    if dashes != "--" {
        return ExecError::Usage;
    }
    let cgroup = PathBuf::from(cgroup);
    // The kernel reads 0 as the writing process.
    if let Err(source) = std::fs::write(cgroup.join("cgroup.procs"), "0") {
        return ExecError::Enter { cgroup, source };
    }
    let source = Command::new(&program).args(arguments).exec();
    ExecError::Exec { program, source }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// In an ordinary directory, where `cpu.weight` becomes an ordinary file.
    #[test]
    fn a_vm_has_a_higher_cpu_weight_only_while_it_starts() {
        let dir = tempfile::tempdir().unwrap();
        let cgroup = Cgroup::new(dir.path(), "vm");
        cgroup.create().unwrap();
        let weight = || std::fs::read_to_string(cgroup.dir().join("cpu.weight")).unwrap();
        cgroup.begin_start_boost();
        assert_eq!(weight(), "1000");
        cgroup.end_start_boost();
        assert_eq!(weight(), "100");
    }
}
