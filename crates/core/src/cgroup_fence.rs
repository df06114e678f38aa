//! Freezes, thaws and kills all VMs of this node through their cgroup, and waits until the kernel confirms it. It writes to
//! cgroupfs itself and needs neither QMP nor `dyad-node`, which may hang or have ended when a lease ends.
//!
//! It runs on a thread of its own, because the kernel confirms a freeze only after the last virtual CPU has left the guest.
//!
//! **Invariant.** `Frozen` and `Killed` are reported only after the kernel has confirmed them for the whole subtree, or if the
//! cgroup does not exist.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::{Duration, Instant};

/// An action on all VMs of this node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CgroupCommand {
    /// No process executes any more; their memory stays.
    Freeze,
    /// Frozen processes execute again.
    Thaw,
    /// SIGKILL for every process below the cgroup.
    Kill,
}

/// The state of all VMs after a command, as the kernel has confirmed it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CgroupState {
    /// No VM executes.
    Frozen,
    /// VMs may execute.
    Thawed,
    /// No VM process exists.
    Killed,
}

/// A value for a file of the cgroup.
#[derive(Clone, Copy)]
struct CgroupWrite {
    file: &'static str,
    value: &'static str,
}

const FREEZE: CgroupWrite = CgroupWrite { file: "cgroup.freeze", value: "1" };
const THAW: CgroupWrite = CgroupWrite { file: "cgroup.freeze", value: "0" };
const KILL: CgroupWrite = CgroupWrite { file: "cgroup.kill", value: "1" };

/// The line of `cgroup.events` with which the kernel confirms a write.
#[derive(Clone, Copy)]
struct Confirmation(&'static str);

const THAWED: Confirmation = Confirmation("frozen 0");

/// Starts the thread. `vms` is the cgroup with one child for each VM. `None` = a development host without cgroups, where no
/// VM must run: each command is reported as done at once.
pub fn start(vms: Option<PathBuf>, report: impl Fn(CgroupState) + Send + 'static) -> Sender<CgroupCommand> {
    let (sender, commands) = channel();
    std::thread::Builder::new()
        .name("cgroup_fence".into())
        .spawn(move || run(vms.as_deref(), &commands, &report))
        .expect("the system can start a thread at start-up");
    sender
}

fn run(vms: Option<&Path>, commands: &Receiver<CgroupCommand>, report: &dyn Fn(CgroupState)) {
    if let Some(vms) = vms
        && !populated(Some(vms))
    {
        thaw_after_kill(vms);
    }
    while let Ok(command) = commands.recv() {
        let (write, confirmation, done) = match command {
            CgroupCommand::Freeze => (FREEZE, Confirmation("frozen 1"), CgroupState::Frozen),
            CgroupCommand::Thaw => (THAW, THAWED, CgroupState::Thawed),
            CgroupCommand::Kill => (KILL, Confirmation("populated 0"), CgroupState::Killed),
        };
        if let Some(vms) = vms {
            write_until_confirmed(vms, write, confirmation);
            if command == CgroupCommand::Kill {
                thaw_after_kill(vms);
            }
        }
        report(done);
    }
}

/// Thaws the empty cgroup: if it was frozen before the kill, it stays frozen, and the next VM started in it would not
/// execute.
fn thaw_after_kill(vms: &Path) {
    write_until_confirmed(vms, THAW, THAWED);
}

/// Repeats the write every 2 ms until the kernel confirms it. There is no time limit: while a freeze or a kill is not
/// confirmed and the right to run has ended, the watchdog is not fed, and it resets the node.
fn write_until_confirmed(vms: &Path, write: CgroupWrite, Confirmation(want): Confirmation) {
    let since = Instant::now();
    let mut complained = false;
    loop {
        let written = fs::write(vms.join(write.file), write.value);
        let state = fs::read_to_string(vms.join("cgroup.events"));
        match (&written, &state) {
            (_, Ok(text)) if text.lines().any(|line| line == want) => return,
            // A cgroup that does not exist holds no process.
            (Err(e), Err(_)) if e.kind() == std::io::ErrorKind::NotFound => return,
            _ => {}
        }
        if !complained && since.elapsed() > Duration::from_secs(1) {
            complained = true;
            tracing::error!(?written, ?state, want, "the VMs' cgroup does not confirm; the watchdog will");
        }
        // poll() on cgroup.events would use less processor time, but a missed notification would keep the fence waiting.
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// Whether a process exists below the VMs' cgroup. Also `true` if the cgroup exists and cannot be read.
pub fn populated(vms: Option<&Path>) -> bool {
    let Some(vms) = vms else { return false };
    match fs::read_to_string(vms.join("cgroup.events")) {
        Ok(events) => !events.lines().any(|line| line == "populated 0"),
        Err(e) => e.kind() != std::io::ErrorKind::NotFound,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write as _;
    use std::process::Command;

    /// A new cgroup for one test. `None` for a user who may not make one; for root that is a failure.
    fn new_cgroup(name: &str) -> Option<PathBuf> {
        if !rustix::process::geteuid().is_root() {
            // Not by `eprintln!`: what a test prints that way is shown only if it fails.
            let _ = writeln!(std::io::stderr(), "SKIPPED: a cgroup of its own needs root");
            return None;
        }
        let mounts = ["/sys/fs/cgroup", "/sys/fs/cgroup/unified"].map(PathBuf::from);
        let root = mounts.into_iter().find(|p| p.join("cgroup.controllers").exists()).expect("cgroup v2 is mounted");
        let dir = root.join(format!("dyad-test-{name}-{}", std::process::id()));
        fs::create_dir(&dir).expect("root may make a cgroup");
        Some(dir)
    }

    #[test]
    fn a_kill_of_a_cgroup_that_does_not_exist_is_confirmed() {
        let (tx, rx) = channel();
        let commands = start(Some("/nonexistent/vms".into()), move |d| tx.send(d).unwrap());
        commands.send(CgroupCommand::Kill).unwrap();
        assert_eq!(rx.recv_timeout(Duration::from_secs(5)).unwrap(), CgroupState::Killed);
    }

    #[test]
    fn the_kernel_confirms_freeze_kill_and_thaw_and_a_killed_cgroup_is_not_left_frozen() {
        let Some(group) = new_cgroup("cgroup_fence") else { return };
        let mut child = Command::new("sleep").arg("1000").spawn().unwrap();
        fs::write(group.join("cgroup.procs"), child.id().to_string()).unwrap();
        let (tx, rx) = channel();
        let commands = start(Some(group.clone()), move |d| tx.send(d).unwrap());
        let wait = || rx.recv_timeout(Duration::from_secs(10)).unwrap();
        commands.send(CgroupCommand::Freeze).unwrap();
        assert_eq!(wait(), CgroupState::Frozen);
        assert!(fs::read_to_string(group.join("cgroup.events")).unwrap().contains("frozen 1"));
        commands.send(CgroupCommand::Kill).unwrap();
        assert_eq!(wait(), CgroupState::Killed);
        assert!(!child.wait().unwrap().success());
        let events = fs::read_to_string(group.join("cgroup.events")).unwrap();
        assert!(events.contains("frozen 0"), "a VM started after the kill would stand still: {events}");
        commands.send(CgroupCommand::Thaw).unwrap();
        assert_eq!(wait(), CgroupState::Thawed);
        fs::remove_dir(&group).unwrap();
    }
}
