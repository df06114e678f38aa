//! The hardware watchdog: it resets this node if the core does not feed it, for example because VMs could not be
//! stopped.
//!
//! `dyad-init` opens the device, sets the period and passes the descriptor on. It keeps its own copy open, so that a
//! restart of the core does not disarm the watchdog.

use crate::options::Options;
use crate::selftest;
use dyad_control::WatchdogStatus;
use rustix::process::{PidfdFlags, PidfdGetfdFlags, getpid, pidfd_getfd, pidfd_open};
use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// Failures of opening the watchdog.
#[derive(Debug, thiserror::Error)]
pub enum WatchdogError {
    /// The descriptor that init passed on cannot be duplicated.
    #[error("the descriptor {fd} of init cannot be duplicated")]
    Inherited {
        /// The number in `DYAD_WATCHDOG_FD`.
        fd: i32,
        source: io::Error,
    },
    /// The device cannot be opened.
    #[error("{} cannot be opened", device.display())]
    Device { device: PathBuf, source: io::Error },
}

/// An armed watchdog.
#[derive(Debug)]
pub struct Watchdog(File);

/// Name, period and proof of a watchdog.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WatchdogInfo {
    /// Name of the device, from its driver.
    pub identity: String,
    /// Period in seconds: without a feed for so long it resets the node. 0 = not known.
    pub timeout_s: u64,
    /// A test has shown that it resets this node in time. On a member `false` also if its period is not the one for
    /// fencing.
    pub proven: bool,
}

impl WatchdogInfo {
    /// The form in which the status shows it.
    pub fn status(&self) -> WatchdogStatus {
        WatchdogStatus::Armed { identity: self.identity.clone(), timeout_s: self.timeout_s, proven: self.proven }
    }
}

impl Watchdog {
    /// Duplicates the descriptor that init passed on, or opens the device of the command line. `None` without either.
    ///
    /// # Errors
    /// The descriptor cannot be duplicated, or the device cannot be opened.
    pub fn open(options: &Options) -> Result<Option<(Self, WatchdogInfo)>, WatchdogError> {
        let device = match (std::env::var("DYAD_WATCHDOG_FD").ok().and_then(|fd| fd.parse().ok()), &options.watchdog) {
            (Some(fd), _) => {
                // A second open() of a watchdog is refused, so the inherited descriptor itself is duplicated.
                let duplicate = pidfd_open(getpid(), PidfdFlags::empty())
                    .and_then(|me| pidfd_getfd(&me, fd, PidfdGetfdFlags::empty()));
                File::from(duplicate.map_err(|error| WatchdogError::Inherited { fd, source: error.into() })?)
            }
            (None, Some(path)) => File::options()
                .write(true)
                .open(path)
                .map_err(|source| WatchdogError::Device { device: path.clone(), source })?,
            (None, None) => return Ok(None),
        };
        let sysfs = sysfs_folder(Path::new("/sys"), device.metadata().map(|data| data.rdev()).unwrap_or(0));
        let read = |name: &str| fs::read_to_string(sysfs.join(name)).map(|s| s.trim().to_owned()).unwrap_or_default();
        let identity = std::env::var("DYAD_WATCHDOG_NAME").unwrap_or_else(|_| read("identity"));
        let info = WatchdogInfo {
            proven: selftest::is_proven(&options.state, &identity),
            identity,
            timeout_s: read("timeout").parse().unwrap_or(0),
        };
        Ok(Some((Self(device), info)))
    }

    /// Restarts the watchdog's period.
    pub fn feed(&mut self) {
        // If the write fails, the watchdog resets the node, which is safe.
        let _ = self.0.write(&[0]);
    }
}

/// The folder in which the kernel shows the attributes of the watchdog with this device number, below `sys`, where
/// sysfs is mounted.
///
/// A node can have several watchdogs, and init does not always open the first one. `/dev/watchdog`, the kernel's second
/// name for its first watchdog, has another number and no attributes: they are those of `watchdog0`.
fn sysfs_folder(sys: &Path, device: u64) -> PathBuf {
    let folder = sys.join(format!("dev/char/{}:{}", rustix::fs::major(device), rustix::fs::minor(device)));
    if folder.join("timeout").exists() { folder } else { sys.join("class/watchdog/watchdog0") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_attributes_are_those_of_the_opened_watchdog() {
        let sys = tempfile::tempdir().unwrap();
        for (folder, timeout) in [("dev/char/248:0", "30"), ("dev/char/248:1", "3"), ("class/watchdog/watchdog0", "30")]
        {
            fs::create_dir_all(sys.path().join(folder)).unwrap();
            fs::write(sys.path().join(folder).join("timeout"), timeout).unwrap();
        }
        let timeout = |major, minor| {
            let folder = sysfs_folder(sys.path(), rustix::fs::makedev(major, minor));
            fs::read_to_string(folder.join("timeout")).unwrap()
        };
        assert_eq!(timeout(248, 1), "3");
        assert_eq!(timeout(248, 0), "30");
        assert_eq!(timeout(10, 130), "30", "/dev/watchdog is the first watchdog");
    }
}
