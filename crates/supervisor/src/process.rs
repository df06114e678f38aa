//! A process that need not be a child of this one: watched and killed through a pidfd.

use std::io;
use std::os::fd::OwnedFd;

use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// A process, known by pid and start time so that a reused pid is never mistaken for it.
pub(crate) struct Process {
    pid: u32,
    start: u64,
    fd: AsyncFd<OwnedFd>,
}

impl Process {
    /// Opens the process that has `pid` now. Needs a tokio runtime.
    pub fn open(pid: u32) -> io::Result<Self> {
        let raw = i32::try_from(pid).ok().and_then(Pid::from_raw);
        let raw = raw.ok_or_else(|| io::Error::from(io::ErrorKind::InvalidInput))?;
        let fd = pidfd_open(raw, PidfdFlags::empty())?;
        // The open pidfd prevents the reuse of the pid, so this is the start time of the opened process.
        let start = start_time(pid).ok_or_else(|| io::Error::from(io::ErrorKind::NotFound))?;
        #[expect(deprecated, reason = "the successor is unsafe; an OwnedFd keeps every promise that one asks for")]
        let fd = AsyncFd::with_interest(fd, Interest::READABLE)?;
        Ok(Self { pid, start, fd })
    }

    /// The process with `pid`, if it started at `start`.
    pub fn find(pid: u32, start: u64) -> Option<Self> {
        Self::open(pid).ok().filter(|process| process.start == start)
    }

    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// Start time in clock ticks since boot, as in `/proc`.
    pub fn start(&self) -> u64 {
        self.start
    }

    /// Waits until the process has ended.
    pub async fn gone(&self) {
        // An error means that the descriptor is unusable; the end of the process is then not noticed.
        if self.fd.readable().await.is_err() {
            std::future::pending::<()>().await;
        }
    }

    pub fn kill(&self) {
        // Fails only if the process has ended.
        let _ = pidfd_send_signal(self.fd.get_ref(), Signal::KILL);
    }
}

/// Field 22 of `/proc/PID/stat`; `None` if the process has ended or is a zombie.
fn start_time(pid: u32) -> Option<u64> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The second field is the name in parentheses, which may contain spaces and parentheses.
    let mut rest = stat.rsplit_once(')')?.1.split_ascii_whitespace();
    let state = rest.next()?;
    if state == "Z" || state == "X" {
        return None;
    }
    rest.nth(18)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_end_is_noticed_and_a_process_with_another_start_time_is_not_found() {
        let mut child = std::process::Command::new("sleep").arg("100").spawn().unwrap();
        let process = Process::open(child.id()).unwrap();
        assert!(Process::find(child.id(), process.start()).is_some());
        assert!(Process::find(child.id(), process.start() + 1).is_none());
        process.kill();
        process.gone().await;
        assert!(Process::find(child.id(), process.start()).is_none(), "a zombie is gone");
        child.wait().unwrap();
    }
}
