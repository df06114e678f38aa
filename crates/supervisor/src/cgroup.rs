//! One cgroup (version 2) per VM, below a common root that `dyad-core` can freeze and kill as a whole.

use std::ffi::OsString;
use std::io;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

/// The kernel's default for `cpu.weight`.
const ORDINARY: u32 = 100;

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

    /// Its directory.
    #[must_use]
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Make it, with its root, if it does not exist.
    ///
    /// # Errors
    ///
    /// What the file system says.
    pub fn create(&self) -> io::Result<()> {
        std::fs::create_dir_all(&self.dir)
    }

    /// Ten ordinary shares of a busy processor until [`Cgroup::settle`]: a VM that starts is on its way to serve somebody,
    /// perhaps after the death of a node, and its start is short.
    pub fn hurry(&self) {
        self.weigh(10 * ORDINARY);
    }

    /// The ordinary share of a VM that runs.
    pub fn settle(&self) {
        self.weigh(ORDINARY);
    }

    fn weigh(&self, weight: u32) {
        // Without that controller nobody is weighed.
        if let Err(error) = std::fs::write(self.dir.join("cpu.weight"), weight.to_string()) {
            tracing::debug!(cgroup = %self.dir.display(), %error, "a VM's share of the processor was not set");
        }
    }

    /// The processes in it; empty if it does not exist.
    #[must_use]
    pub fn pids(&self) -> Vec<u32> {
        let text = std::fs::read_to_string(self.dir.join("cgroup.procs")).unwrap_or_default();
        text.lines().filter_map(|line| line.parse().ok()).collect()
    }

    /// SIGKILL to every process in it, frozen or not, with one write.
    ///
    /// # Errors
    ///
    /// What the file system says; a cgroup that does not exist has nothing to kill and is no error.
    pub fn kill(&self) -> io::Result<()> {
        match std::fs::write(self.dir.join("cgroup.kill"), "1") {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            result => result,
        }
    }

    /// Remove it once its last process is gone; waits at most two seconds for that.
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

/// The names of all cgroups below `root`.
pub(crate) fn names(root: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(root).into_iter().flatten().flatten();
    let dirs = entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
    dirs.filter_map(|entry| entry.file_name().into_string().ok()).collect()
}

/// Why [`exec_in_cgroup`] came back.
#[derive(Debug, thiserror::Error)]
pub enum ExecError {
    /// The arguments are not `CGROUP -- PROGRAM ARGUMENTS…`.
    #[error("expected CGROUP -- PROGRAM ARGUMENTS…; this command is for dyad-node's own use")]
    Usage,
    /// The process could not enter the cgroup.
    #[error("the cgroup {cgroup} could not be entered; check that cgroup version 2 is mounted there")]
    Enter {
        /// Its directory.
        cgroup: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The program could not be started.
    #[error("the program {program:?} could not be started; check that it is installed")]
    Exec {
        /// The program.
        program: OsString,
        /// What the system said.
        source: io::Error,
    },
}

/// Move this process into a cgroup and become another program: `CGROUP -- PROGRAM ARGUMENTS…`.
///
/// A program that starts VMs gives a hidden subcommand of its own for this and names it in
/// [`crate::Settings::launcher`]. So a VM is in its cgroup before its first instruction, and no code runs
/// between fork and exec. Returns only if it failed.
pub fn exec_in_cgroup(arguments: impl IntoIterator<Item = OsString>) -> ExecError {
    let mut arguments = arguments.into_iter();
    let (Some(cgroup), Some(dashes), Some(program)) = (arguments.next(), arguments.next(), arguments.next()) else {
        return ExecError::Usage;
    };
    if dashes != "--" {
        return ExecError::Usage;
    }
    let cgroup = PathBuf::from(cgroup);
    // 0 is the writing process.
    if let Err(source) = std::fs::write(cgroup.join("cgroup.procs"), "0") {
        return ExecError::Enter { cgroup, source };
    }
    let source = Command::new(&program).args(arguments).exec();
    ExecError::Exec { program, source }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// In a directory that is no cgroup, a file stands for the kernel.
    #[test]
    fn a_vm_has_more_of_the_processor_only_while_it_starts() {
        let dir = tempfile::tempdir().unwrap();
        let cgroup = Cgroup::new(dir.path(), "vm");
        cgroup.create().unwrap();
        let weight = || std::fs::read_to_string(cgroup.dir().join("cpu.weight")).unwrap();
        cgroup.hurry();
        assert_eq!(weight(), "1000");
        cgroup.settle();
        assert_eq!(weight(), "100");
    }
}
