//! The shutdown of the machine, as a list of steps. Each step has a time limit, so none can keep the machine running.

use crate::control::PowerAction;
use crate::service_manager::ServiceManager;
use crate::{cgroup, log};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sys::reboot::{RebootMode, reboot};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::convert::Infallible;
use std::fs;
use std::time::{Duration, Instant};

/// One step: its name for the log, and its function.
type Step = (&'static str, fn(&mut ServiceManager) -> anyhow::Result<()>);

/// Limit for `dyad-node`, which shuts the guests down and hands over to the other node before it ends.
const NODE_STOP_TIMEOUT: Duration = Duration::from_secs(300);
const CORE_STOP_TIMEOUT: Duration = Duration::from_secs(20);
const VMS_KILL_TIMEOUT: Duration = Duration::from_secs(10);
const OTHERS_STOP_TIMEOUT: Duration = Duration::from_secs(5);
/// Period of the watchdog for the last steps: if one of them hangs, the watchdog resets the node.
const FINAL_WATCHDOG_PERIOD: Duration = Duration::from_secs(60);

const SHUTDOWN: &[Step] = &[
    ("stop dyad-node, which shuts down the VMs", |s| stop(s, "dyad-node", NODE_STOP_TIMEOUT)),
    ("kill the VMs that still run", kill_vms),
    ("stop dyad-core", |s| stop(s, "dyad-core", CORE_STOP_TIMEOUT)),
    ("stop all other processes", stop_others),
    ("write to the disks and unmount them", unmount),
];

/// Runs all steps, then powers the machine off or reboots it. A failed step is logged and the next step runs.
///
/// # Errors
///
/// The kernel refuses the reboot.
pub fn run(mut manager: ServiceManager, action: PowerAction) -> anyhow::Result<Infallible> {
    log::take_console();
    // From here on no service is started, because only `ServiceManager::run` does that. A service runs until the step that
    // stops it.
    for (name, step) in SHUTDOWN {
        log::info(name);
        if let Err(error) = step(&mut manager) {
            log::warn(&format!("{error:#}"));
        }
    }
    log::info(if action == PowerAction::Reboot { "reboot" } else { "power off" });
    reboot(if action == PowerAction::Reboot { RebootMode::RB_AUTOBOOT } else { RebootMode::RB_POWER_OFF })?;
    unreachable!("reboot(2) returned without an error")
}

/// Stops a service and waits until it has ended. Meanwhile events are handled: pipes are read and processes reaped.
fn stop(manager: &mut ServiceManager, name: &str, timeout: Duration) -> anyhow::Result<()> {
    manager.services.iter_mut().filter(|service| service.name == name).for_each(|service| service.stop());
    let ended = |s: &mut ServiceManager| s.services.iter().all(|service| service.name != name || service.pid.is_none());
    wait_until(manager, timeout, ended, &format!("{name} did not end in time"))
}

fn kill_vms(manager: &mut ServiceManager) -> anyhow::Result<()> {
    if !cgroup::vms_running() {
        return Ok(());
    }
    cgroup::kill_vms();
    wait_until(
        manager,
        VMS_KILL_TIMEOUT,
        |_| !cgroup::vms_running(),
        "some VMs did not end: the watchdog will reset this node",
    )
}

fn stop_others(manager: &mut ServiceManager) -> anyhow::Result<()> {
    if let Some(watchdog) = &manager.watchdog {
        // The core has ended and feeds the watchdog no more; writing to the disks may take longer than its short period.
        watchdog.set_final_period(FINAL_WATCHDOG_PERIOD);
    }
    manager.services.iter_mut().for_each(|service| service.stop());
    let all_processes = Pid::from_raw(-1);
    // An error means that no other process is left.
    let _ = kill(all_processes, Signal::SIGTERM);
    if wait_until(manager, OTHERS_STOP_TIMEOUT, |_| no_other_process(), "").is_err() {
        let _ = kill(all_processes, Signal::SIGKILL);
        wait_until(manager, OTHERS_STOP_TIMEOUT, |_| no_other_process(), "some processes did not end")?;
    }
    Ok(())
}

/// Whether no process but this one is left. Kernel threads and processes that wait to be reaped have no `exe` link and do
/// not count.
fn no_other_process() -> bool {
    let is_process = |entry: fs::DirEntry| {
        let number: Option<u32> = entry.file_name().to_str().and_then(|name| name.parse().ok());
        number.is_some_and(|number| number > 1) && fs::read_link(entry.path().join("exe")).is_ok()
    };
    !fs::read_dir("/proc").into_iter().flatten().flatten().any(is_process)
}

fn unmount(_: &mut ServiceManager) -> anyhow::Result<()> {
    nix::unistd::sync();
    for place in ["/boot", "/var", "/state"] {
        if umount2(place, MntFlags::empty()).is_err() {
            // A process still uses it. A file system that is remounted read-only is consistent too.
            mount(None::<&str>, place, None::<&str>, MsFlags::MS_REMOUNT | MsFlags::MS_RDONLY, None::<&str>)?;
        }
    }
    Ok(())
}

/// Handles events until `done` is true. After `timeout` fails with `error_text`.
fn wait_until(
    manager: &mut ServiceManager,
    timeout: Duration,
    done: impl Fn(&mut ServiceManager) -> bool,
    error_text: &str,
) -> anyhow::Result<()> {
    let deadline = Instant::now() + timeout;
    while !done(manager) {
        let now = Instant::now();
        if now >= deadline {
            anyhow::bail!("{error_text}");
        }
        // Some conditions, such as an empty control group, cause no event: they are checked again after 100 ms.
        manager.handle_events(Some(deadline.min(now + Duration::from_millis(100))))?;
    }
    Ok(())
}
