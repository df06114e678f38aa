//! Stops VMs by cgroup: freeze, thaw, kill, each verified. It writes to cgroupfs itself and needs neither QMP nor
//! `dyad-node`, which may hang or be gone when a lease ends.
//!
//! A thread of its own, because seeing "frozen 1" may take as long as the slowest vCPU's exit.
//!
//! **Invariant.** `Frozen` and `Killed` are reported only after the kernel has confirmed them for the whole subtree.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::{Duration, Instant};

/// What to do to all VMs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CgroupCommand {
    /// Stop executing, keep memory.
    Freeze,
    /// Let the frozen processes execute again.
    Thaw,
    /// End every process below the cgroup.
    Kill,
}

/// What the kernel has confirmed.
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
struct Write {
    file: &'static str,
    value: &'static str,
}

const FREEZE: Write = Write { file: "cgroup.freeze", value: "1" };
const THAW: Write = Write { file: "cgroup.freeze", value: "0" };
const KILL: Write = Write { file: "cgroup.kill", value: "1" };

/// The line of `cgroup.events` with which the kernel confirms a write.
#[derive(Clone, Copy)]
struct Confirmation(&'static str);

const THAWED: Confirmation = Confirmation("frozen 0");

/// Starts the thread. `vms` is the cgroup that holds one child per VM; `None` on a laptop without cgroups, where
/// there are no VMs to stop.
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

/// A group that was frozen before it was killed stays frozen, and would freeze whatever is started in it later.
fn thaw_after_kill(vms: &Path) {
    write_until_confirmed(vms, THAW, THAWED);
}

/// Writes until the kernel confirms. It must not give up: while a freeze or kill is unconfirmed the watchdog is not fed, and
/// the reset of the machine is the last resort.
fn write_until_confirmed(vms: &Path, write: Write, Confirmation(want): Confirmation) {
    let since = Instant::now();
    let mut complained = false;
    loop {
        let written = fs::write(vms.join(write.file), write.value);
        let state = fs::read_to_string(vms.join("cgroup.events"));
        match (&written, &state) {
            (_, Ok(text)) if text.lines().any(|line| line == want) => return,
            // Without the cgroup there is no process in it.
            (Err(e), Err(_)) if e.kind() == std::io::ErrorKind::NotFound => return,
            _ => {}
        }
        if !complained && since.elapsed() > Duration::from_secs(1) {
            complained = true;
            tracing::error!(?written, ?state, want, "the VMs' cgroup does not confirm; the watchdog will");
        }
        // kernfs offers poll() on cgroup.events, but a missed edge here would cost a fence; 2 ms of polling does not.
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// Whether the kernel sees a process below the VMs' cgroup. What cannot be read is assumed to run.
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

    /// A cgroup of our own, or `None` for a user who may not make one. For root that is a failure.
    fn own_cgroup(name: &str) -> Option<PathBuf> {
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
    fn without_a_group_there_is_nothing_to_stop() {
        let (tx, rx) = channel();
        let commands = start(Some("/nonexistent/vms".into()), move |d| tx.send(d).unwrap());
        commands.send(CgroupCommand::Kill).unwrap();
        assert_eq!(rx.recv_timeout(Duration::from_secs(5)).unwrap(), CgroupState::Killed);
    }

    #[test]
    fn a_frozen_group_stands_still_and_a_killed_one_is_empty() {
        let Some(group) = own_cgroup("cgroup_fence") else { return };
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
