//! Taking the machine down: every step is bounded, none may keep the machine up.

use crate::control::PowerAction;
use crate::supervise::Supervisor;
use crate::{cgroup, log};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sys::reboot::{RebootMode, reboot};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::convert::Infallible;
use std::fs;
use std::time::{Duration, Instant};

/// One step: its name for the log, and its function.
type Step = (&'static str, fn(&mut Supervisor) -> anyhow::Result<()>);

/// `dyad-node` stops or moves the VMs before it ends: guests need their time.
const NODE_STOP_TIMEOUT: Duration = Duration::from_secs(300);
const CORE_STOP_TIMEOUT: Duration = Duration::from_secs(20);
const VMS_KILL_TIMEOUT: Duration = Duration::from_secs(10);
const OTHERS_STOP_TIMEOUT: Duration = Duration::from_secs(5);
/// Period of the watchdog for what comes last: if that hangs, the node is reset.
const SHUTDOWN_DEADLINE: Duration = Duration::from_secs(60);

const SHUTDOWN: &[Step] = &[
    ("stop dyad-node, which sees to the VMs", |s| stop(s, "dyad-node", NODE_STOP_TIMEOUT)),
    ("end the VMs that are left", end_vms),
    ("stop dyad-core", |s| stop(s, "dyad-core", CORE_STOP_TIMEOUT)),
    ("stop everything else", stop_rest),
    ("write and unmount", unmount),
];

/// Takes the machine down. A failed step is logged and the next step runs.
///
/// # Errors
///
/// If the kernel refuses the reboot.
pub fn run(mut supervisor: Supervisor, way: PowerAction) -> anyhow::Result<Infallible> {
    log::take_console();
    // From here on nothing is started: only the loop does that. What runs goes on until its own step.
    for (name, step) in SHUTDOWN {
        log::info(name);
        if let Err(error) = step(&mut supervisor) {
            log::warn(&format!("{error:#}"));
        }
    }
    log::info(if way == PowerAction::Reboot { "reboot" } else { "power off" });
    reboot(if way == PowerAction::Reboot { RebootMode::RB_AUTOBOOT } else { RebootMode::RB_POWER_OFF })?;
    unreachable!("the kernel came back from reboot(2)")
}

/// Asks a service to end and waits. The rest of the loop goes on: its pipe is emptied, children are reaped.
fn stop(supervisor: &mut Supervisor, name: &str, longest: Duration) -> anyhow::Result<()> {
    supervisor.services.iter_mut().filter(|service| service.name == name).for_each(|service| service.stop());
    let ended = |s: &mut Supervisor| s.services.iter().all(|service| service.name != name || service.pid.is_none());
    wait_until(supervisor, longest, ended, &format!("{name} did not end in time"))
}

fn end_vms(supervisor: &mut Supervisor) -> anyhow::Result<()> {
    if !cgroup::vms_running() {
        return Ok(());
    }
    cgroup::kill_vms();
    wait_until(
        supervisor,
        VMS_KILL_TIMEOUT,
        |_| !cgroup::vms_running(),
        "some VMs did not end: the watchdog will reset this node",
    )
}

fn stop_rest(supervisor: &mut Supervisor) -> anyhow::Result<()> {
    if let Some(watchdog) = &supervisor.watchdog {
        // The core, which fed the watchdog, has ended; writing back may take longer than its short period.
        watchdog.rest_without_vms(SHUTDOWN_DEADLINE);
    }
    supervisor.services.iter_mut().for_each(|service| service.stop());
    let everyone = Pid::from_raw(-1);
    // An error means that no other process is left.
    let _ = kill(everyone, Signal::SIGTERM);
    if wait_until(supervisor, OTHERS_STOP_TIMEOUT, |_| alone(), "").is_err() {
        let _ = kill(everyone, Signal::SIGKILL);
        wait_until(supervisor, OTHERS_STOP_TIMEOUT, |_| alone(), "some processes did not end")?;
    }
    Ok(())
}

/// Whether no process but this one is left. Threads of the kernel and dead processes have no program.
fn alone() -> bool {
    let is_process = |entry: fs::DirEntry| {
        let number: Option<u32> = entry.file_name().to_str().and_then(|name| name.parse().ok());
        number.is_some_and(|number| number > 1) && fs::read_link(entry.path().join("exe")).is_ok()
    };
    !fs::read_dir("/proc").into_iter().flatten().flatten().any(is_process)
}

fn unmount(_: &mut Supervisor) -> anyhow::Result<()> {
    nix::unistd::sync();
    for place in ["/boot", "/var", "/state"] {
        if umount2(place, MntFlags::empty()).is_err() {
            // Something still holds it: read-only leaves it clean as well.
            mount(None::<&str>, place, None::<&str>, MsFlags::MS_REMOUNT | MsFlags::MS_RDONLY, None::<&str>)?;
        }
    }
    Ok(())
}

fn wait_until(
    supervisor: &mut Supervisor,
    longest: Duration,
    done: impl Fn(&mut Supervisor) -> bool,
    complaint: &str,
) -> anyhow::Result<()> {
    let deadline = Instant::now() + longest;
    while !done(supervisor) {
        let now = Instant::now();
        if now >= deadline {
            anyhow::bail!("{complaint}");
        }
        // Some conditions (control groups, other processes) make no event of their own.
        supervisor.turn(Some(deadline.min(now + Duration::from_millis(100))))?;
    }
    Ok(())
}
