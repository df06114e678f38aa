//! The end of a boot that cannot go on: says what is wrong and what to do, then reboots.
//!
//! The reboot is what brings the other slot back: this boot is never blessed, and after three of them the boot loader
//! turns to the slot before.

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

const LINES: [&str; 2] = ["/dev/ttyS0", "/dev/tty1"];

/// Shows the problem, waits for a key or the end of the pause, and reboots.
pub fn run(problem: &anyhow::Error) -> ! {
    log::leave_console();
    log::warn(&format!("{problem:#}"));
    let pause = Options::of_this_boot().rescue;
    let mut terminals = open();
    let text = page(problem, pause);
    for terminal in &mut terminals {
        // Keys count without Enter.
        if let Ok(mut mode) = termios::tcgetattr(&*terminal) {
            mode.local_flags.remove(LocalFlags::ICANON | LocalFlags::ECHO);
            let _ = termios::tcsetattr(&*terminal, SetArg::TCSANOW, &mode);
        }
        // A terminal that cannot be written to has no reader.
        let _ = terminal.write_all(text.as_bytes());
    }
    let mode = ask(&mut terminals, pause);
    nix::unistd::sync();
    let _ = reboot(mode);
    // A kernel that refuses to reboot still does so when its first process ends: `panic=` is on the command line.
    std::process::exit(1)
}

fn open() -> Vec<File> {
    let flags = libc::O_NONBLOCK | libc::O_NOCTTY;
    let open = |line: &&str| OpenOptions::new().read(true).write(true).custom_flags(flags).open(line).ok();
    LINES.iter().filter_map(open).collect()
}

fn page(problem: &anyhow::Error, pause: Duration) -> String {
    let mut text = String::from("\r\n\r\n=== Dyad: this node did not start ===\r\n\r\n");
    for cause in problem.chain() {
        text.push_str(&format!("  {cause}\r\n"));
    }
    text.push_str(&format!(
        "\r\n  It reboots in {} s. After three failed starts the system before an update comes back.\r\n\
         \r\n  Keys: r reboot now   p power off   h hold, to read this\r\n\r\n",
        pause.as_secs()
    ));
    text
}

/// Waits for a key or the end of the pause.
fn ask(terminals: &mut [File], pause: Duration) -> RebootMode {
    let mut deadline = Some(Instant::now() + pause);
    loop {
        let left = deadline.map(|at| at.saturating_duration_since(Instant::now()));
        if left.is_some_and(|left| left.is_zero()) {
            return RebootMode::RB_AUTOBOOT;
        }
        // A terminal that hung up would be readable for ever: look again after a second at the latest.
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
    fn the_page_shows_every_cause_and_what_happens_next() {
        let problem = anyhow::anyhow!("the disk is gone").context("this node could not find the system disk");
        let text = page(&problem, Duration::from_secs(7));
        for part in ["could not find the system disk", "the disk is gone", "reboots in 7 s", "r reboot now"] {
            assert!(text.contains(part), "{part} is missing from {text}");
        }
    }
}
