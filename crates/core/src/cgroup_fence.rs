//! Freezes, thaws and kills all VMs of this node through their cgroup, and waits until the kernel confirms it. It writes to
//! cgroupfs itself and needs neither QMP nor `dyad-node`, which may hang or have ended when a lease ends.
//!
//! It runs on a thread of its own, because the kernel confirms a freeze only after the last virtual CPU has left the guest.
//!
//! **Invariant.** `Frozen` and `Killed` are reported only after the kernel has confirmed them for the whole subtree, or if the
//! cgroup does not exist. What is written when is decided by [`CgroupRule`].

use dyad_placement::{CgroupCommand, CgroupRule, CgroupState, CgroupWrite};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::{Duration, Instant};

/// A value for a file of the cgroup.
#[derive(Clone, Copy)]
struct FileWrite {
    file: &'static str,
    value: &'static str,
}

/// Interval at which the kernel's state of the cgroup is read.
pub const POLL_INTERVAL: Duration = Duration::from_millis(2);

const FREEZE: FileWrite = FileWrite { file: "cgroup.freeze", value: "1" };
const THAW: FileWrite = FileWrite { file: "cgroup.freeze", value: "0" };
const KILL: FileWrite = FileWrite { file: "cgroup.kill", value: "1" };

/// The line of `cgroup.events` with which the kernel confirms a write.
#[derive(Clone, Copy)]
struct Confirmation(&'static str);

const FROZEN: Confirmation = Confirmation("frozen 1");
const THAWED: Confirmation = Confirmation("frozen 0");
const EMPTY: Confirmation = Confirmation("populated 0");

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

/// Kills all VMs once, on a thread of its own, and leaves their cgroup frozen. For a node on which the fence's thread may not
/// run, because it cannot work as a member.
pub fn kill_once(vms: Option<PathBuf>) {
    let kill = move || {
        CgroupFence { vms: vms.as_deref(), rule: CgroupRule::default() }.carry_out(CgroupCommand::Kill);
    };
    std::thread::Builder::new().name("kill_vms".into()).spawn(kill).expect("the system can start a thread");
}

/// Whether no VM process exists and none that enters the cgroup executes.
pub fn closed(vms: Option<&Path>) -> bool {
    let Some(vms) = vms else { return true };
    match fs::read_to_string(vms.join("cgroup.events")) {
        Ok(events) => [FROZEN, EMPTY].iter().all(|wanted| events.lines().any(|line| line == wanted.0)),
        Err(e) => e.kind() == std::io::ErrorKind::NotFound,
    }
}

fn run(vms: Option<&Path>, commands: &Receiver<CgroupCommand>, report: &dyn Fn(CgroupState)) {
    let mut fence = CgroupFence::at_start(vms);
    while let Ok(command) = commands.recv() {
        if let Some(done) = fence.carry_out(command) {
            report(done);
        }
    }
}

/// The VMs' cgroup and the rule by which it is written.
struct CgroupFence<'a> {
    /// `None` = a development host without cgroups.
    vms: Option<&'a Path>,
    rule: CgroupRule,
}

impl<'a> CgroupFence<'a> {
    fn at_start(vms: Option<&'a Path>) -> Self {
        let mut writes = Vec::new();
        let fence = Self { vms, rule: CgroupRule::at_start(populated(vms), &mut writes) };
        fence.write(writes);
        fence
    }

    /// Carries out a command; returns the state that the kernel has confirmed, if the command is answered.
    fn carry_out(&mut self, command: CgroupCommand) -> Option<CgroupState> {
        let mut writes = Vec::new();
        let state = self.rule.handle(command, &mut writes);
        self.write(writes);
        state
    }

    fn write(&self, writes: Vec<CgroupWrite>) {
        let Some(vms) = self.vms else { return };
        for write in writes {
            match write {
                CgroupWrite::Freeze => write_until_confirmed(vms, FREEZE, FROZEN),
                CgroupWrite::Thaw => write_until_confirmed(vms, THAW, THAWED),
                CgroupWrite::Kill => write_until_confirmed(vms, KILL, EMPTY),
                CgroupWrite::Close => {
                    let _ = fs::write(vms.join(FREEZE.file), FREEZE.value);
                }
            }
        }
    }
}

/// Repeats the write every [`POLL_INTERVAL`] until the kernel confirms it. There is no time limit: while a freeze or a kill is not
/// confirmed and the right to run has ended, the watchdog is not fed, and it resets the node.
fn write_until_confirmed(vms: &Path, write: FileWrite, Confirmation(want): Confirmation) {
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
        std::thread::sleep(POLL_INTERVAL);
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
    use std::process::{Child, Command, Stdio};

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

    /// Ends the process when the test ends or fails. A frozen process that outlived its test would keep the test's output
    /// open, and who reads it would wait for ever.
    struct KilledOnDrop(Child);

    impl Drop for KilledOnDrop {
        fn drop(&mut self) {
            let _ = self.0.kill();
            let _ = self.0.wait();
        }
    }

    fn await_condition(holds: impl Fn() -> bool) {
        let deadline = Instant::now() + Duration::from_secs(10);
        while !holds() {
            assert!(Instant::now() < deadline, "the kernel does not confirm");
            std::thread::sleep(POLL_INTERVAL);
        }
    }

    #[test]
    fn a_kill_of_a_cgroup_that_does_not_exist_is_confirmed() {
        let (tx, rx) = channel();
        let commands = start(Some("/nonexistent/vms".into()), move |d| tx.send(d).unwrap());
        commands.send(CgroupCommand::Kill).unwrap();
        assert_eq!(rx.recv_timeout(Duration::from_secs(5)).unwrap(), CgroupState::Killed);
    }

    /// A frozen process that still exists executes again after the next thaw.
    #[test]
    fn a_kill_is_done_when_the_cgroup_is_empty_and_not_when_it_is_frozen() {
        let group = tempfile::tempdir().unwrap();
        // A folder of plain files in place of a cgroup, so that the test decides what the kernel confirms.
        let events = |text| fs::write(group.path().join("cgroup.events"), text).unwrap();
        events("populated 1\nfrozen 1\n");
        let (tx, rx) = channel();
        let commands = start(Some(group.path().to_owned()), move |d| tx.send(d).unwrap());
        commands.send(CgroupCommand::Kill).unwrap();
        let written = group.path().join("cgroup.kill");
        await_condition(|| written.exists());
        // The write is repeated only if it was not confirmed.
        fs::remove_file(&written).unwrap();
        await_condition(|| written.exists());
        assert!(rx.try_recv().is_err(), "a process is left");
        events("populated 0\nfrozen 1\n");
        assert_eq!(rx.recv_timeout(Duration::from_secs(10)).unwrap(), CgroupState::Killed);
    }

    #[test]
    fn the_kernel_confirms_freeze_kill_and_thaw() {
        let Some(group) = new_cgroup("cgroup_fence") else { return };
        let mut child = KilledOnDrop(Command::new("sleep").arg("1000").spawn().unwrap());
        fs::write(group.join("cgroup.procs"), child.0.id().to_string()).unwrap();
        let (tx, rx) = channel();
        let commands = start(Some(group.clone()), move |d| tx.send(d).unwrap());
        let wait = || rx.recv_timeout(Duration::from_secs(10)).unwrap();
        let events = || fs::read_to_string(group.join("cgroup.events")).unwrap();
        commands.send(CgroupCommand::Freeze).unwrap();
        assert_eq!(wait(), CgroupState::Frozen);
        assert!(events().contains("frozen 1"));
        commands.send(CgroupCommand::Thaw).unwrap();
        assert_eq!(wait(), CgroupState::Thawed);
        assert!(events().contains("frozen 0"));
        commands.send(CgroupCommand::Freeze).unwrap();
        commands.send(CgroupCommand::Kill).unwrap();
        assert_eq!((wait(), wait()), (CgroupState::Frozen, CgroupState::Killed));
        assert!(!child.0.wait().unwrap().success());
        assert!(events().contains("populated 0"));
        fs::remove_dir(&group).unwrap();
    }

    /// The launcher of a VM enters the cgroup itself, so it may do so after a kill that it knows nothing of.
    #[test]
    fn a_process_that_enters_after_a_kill_executes_only_when_starts_are_allowed() {
        let Some(group) = new_cgroup("late-start") else { return };
        let (tx, rx) = channel();
        let commands = start(Some(group.clone()), move |d| tx.send(d).unwrap());
        let wait = || rx.recv_timeout(Duration::from_secs(10)).unwrap();
        commands.send(CgroupCommand::AllowStarts { kills: 0 }).unwrap();
        commands.send(CgroupCommand::Kill).unwrap();
        assert_eq!(wait(), CgroupState::Killed);
        // The process says whether it executes, and ends when its input ends.
        let cat = Command::new("cat").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let mut late = KilledOnDrop(cat);
        fs::write(group.join("cgroup.procs"), late.0.id().to_string()).unwrap();
        // The kernel says "frozen 0" from the entry of a process until it has frozen that process.
        let is_frozen = || fs::read_to_string(group.join("cgroup.events")).unwrap().contains("frozen 1");
        await_condition(is_frozen);
        let (mut input, mut output) = (late.0.stdin.take().unwrap(), late.0.stdout.take().unwrap());
        input.write_all(b"x").unwrap();
        let (heard, said) = channel();
        let reader = std::thread::spawn(move || {
            let mut byte = [0];
            heard.send(std::io::Read::read(&mut output, &mut byte).unwrap()).unwrap();
        });
        // A command of a sender that does not know the kill, and the thaw of an earlier freeze, change nothing.
        commands.send(CgroupCommand::AllowStarts { kills: 0 }).unwrap();
        commands.send(CgroupCommand::Thaw).unwrap();
        assert_eq!(wait(), CgroupState::Thawed);
        assert!(is_frozen());
        assert!(said.try_recv().is_err(), "the late process executed");
        commands.send(CgroupCommand::AllowStarts { kills: 1 }).unwrap();
        assert_eq!(said.recv_timeout(Duration::from_secs(10)).unwrap(), 1);
        drop(input);
        reader.join().unwrap();
        assert!(late.0.wait().unwrap().success());
        fs::remove_dir(&group).unwrap();
    }

    /// A freeze at the end of a lease is not undone by a permit that was given before it.
    #[test]
    fn allowed_starts_do_not_thaw_frozen_vms() {
        let Some(group) = new_cgroup("frozen") else { return };
        let mut fence = CgroupFence::at_start(Some(&group));
        assert_eq!(fence.carry_out(CgroupCommand::Freeze), Some(CgroupState::Frozen));
        assert_eq!(fence.carry_out(CgroupCommand::AllowStarts { kills: 0 }), None);
        assert!(fs::read_to_string(group.join("cgroup.events")).unwrap().contains("frozen 1"));
        assert_eq!(fence.carry_out(CgroupCommand::Thaw), Some(CgroupState::Thawed));
        assert!(fs::read_to_string(group.join("cgroup.events")).unwrap().contains("frozen 0"));
        fs::remove_dir(&group).unwrap();
    }
}
