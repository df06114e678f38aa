//! The end of a failed boot: shows the error and the keys on the consoles, then reboots.
//!
//! The reboot may start an older slot: a failed boot is not blessed, and after three of them the boot loader leaves a slot
//! that was never blessed.

use crate::cmdline::Options;
use crate::log;
use nix::libc;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::reboot::{RebootMode, reboot};
use nix::sys::termios::{self, LocalFlags, SetArg};
use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::OpenOptionsExt;
use std::time::{Duration, Instant};

const TERMINALS: [&str; 2] = ["/dev/ttyS0", "/dev/tty1"];

/// Shows the error, waits for a key or the end of the pause, and reboots or powers off.
pub fn run(problem: &anyhow::Error) -> ! {
    log::leave_console();
    log::warn(&format!("{problem:#}"));
    let pause = Options::of_this_boot().rescue;
    let mut terminals = open_terminals();
    let text = page(problem, pause);
    for terminal in &mut terminals {
        // Without line mode a key arrives at once, without Enter.
        if let Ok(mut mode) = termios::tcgetattr(&*terminal) {
            mode.local_flags.remove(LocalFlags::ICANON | LocalFlags::ECHO);
            let _ = termios::tcsetattr(&*terminal, SetArg::TCSANOW, &mode);
        }
        // A failure is ignored: there is no other place to show the error.
        let _ = terminal.write_all(text.as_bytes());
    }
    let mode = wait_for_key(&mut terminals, pause);
    nix::unistd::sync();
    let _ = reboot(mode);
    // If the kernel refuses the reboot, the end of PID 1 makes it panic, and `panic=` on its command line then reboots it.
    std::process::exit(1)
}

fn open_terminals() -> Vec<File> {
    let flags = libc::O_NONBLOCK | libc::O_NOCTTY;
    let open = |line: &&str| OpenOptions::new().read(true).write(true).custom_flags(flags).open(line).ok();
    TERMINALS.iter().filter_map(open).collect()
}

fn page(problem: &anyhow::Error, pause: Duration) -> String {
    let mut text = String::from("\r\n\r\n=== Dyad: this node did not start ===\r\n\r\n");
    for cause in problem.chain() {
        text.push_str(&format!("  {cause}\r\n"));
    }
    text.push_str(&format!(
        "\r\n  It reboots in {} s. After an update, three failed starts bring the earlier version back.\r\n\
         \r\n  Keys: r reboot now   p power off   h do not reboot\r\n\r\n",
        pause.as_secs()
    ));
    text
}

/// Waits for a key or the end of the pause. Returns what to do then.
fn wait_for_key(terminals: &mut [File], pause: Duration) -> RebootMode {
    let mut deadline = Some(Instant::now() + pause);
    loop {
        let left = deadline.map(|at| at.saturating_duration_since(Instant::now()));
        if left.is_some_and(|left| left.is_zero()) {
            return RebootMode::RB_AUTOBOOT;
        }
        // `poll` returns at once for a terminal that hung up: a sleep keeps this loop from running without a pause.
        let timeout = left.unwrap_or(Duration::from_secs(1)).min(Duration::from_secs(1));
        let mut files: Vec<_> = terminals.iter().map(|t| PollFd::new(t.as_fd(), PollFlags::POLLIN)).collect();
        let hung = poll(&mut files, PollTimeout::try_from(timeout).unwrap_or(PollTimeout::MAX)).is_err()
            || files.iter().any(|file| file.revents().is_some_and(|events| events.contains(PollFlags::POLLHUP)));
        if hung {
            std::thread::sleep(timeout);
        }
        for terminal in &mut *terminals {
            let mut key = [0];
            match (terminal.read(&mut key), key[0]) {
                (Ok(1), b'r' | b'R') => return RebootMode::RB_AUTOBOOT,
                (Ok(1), b'p' | b'P') => return RebootMode::RB_POWER_OFF,
                (Ok(1), b'h' | b'H') => deadline = None,
                _ => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_shows_each_cause_the_time_to_the_reboot_and_the_keys() {
        let problem = anyhow::anyhow!("the disk is gone").context("this node could not find the system disk");
        let text = page(&problem, Duration::from_secs(7));
        for part in ["could not find the system disk", "the disk is gone", "reboots in 7 s", "r reboot now"] {
            assert!(text.contains(part), "{part} is missing from {text}");
        }
    }
}
