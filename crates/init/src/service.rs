//! The services of a node, and starting and ending each of them.

use crate::backoff::Backoff;
use crate::service_log::{ServiceLog, ServiceOutput};
use crate::sys::{self, SpawnOptions};
use crate::watchdog::{self, Watchdog};
use crate::{cgroup, log};
use anyhow::Context;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::fs::{self, OpenOptions};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

const PROGRAMS: &str = "/usr/lib/dyad";

/// The kind of a service: it decides which descriptors and which terminal the process gets, and whether the kernel may
/// kill it when memory is short.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ServiceKind {
    /// `dyad-core`: inherits the watchdog's descriptor, and the kernel does not kill it when memory is short.
    Core,
    Daemon,
    /// `dyad-console` on this terminal.
    Terminal(PathBuf),
}

/// A program that is started again whenever it ends.
pub struct Service {
    /// Name of the service and of its log. The part before an `@` is the name of its program.
    pub name: String,
    pub kind: ServiceKind,
    /// Process number; `None` while the service does not run.
    pub pid: Option<Pid>,
    /// Time of the next start; `None` while the service runs, and after [`Service::stop`].
    pub start_at: Option<Instant>,
    started: Instant,
    backoff: Backoff,
    /// Set by [`Service::stop`]: the service is not started again.
    stopped: bool,
}

/// All services, in the sequence in which they are started.
pub fn table(now: Instant) -> Vec<Service> {
    let mut services =
        vec![Service::new("dyad-core", ServiceKind::Core, now), Service::new("dyad-node", ServiceKind::Daemon, now)];
    for line in terminals() {
        services.push(Service::new(
            &format!("dyad-console@{line}"),
            ServiceKind::Terminal(Path::new("/dev").join(&line)),
            now,
        ));
    }
    services
}

/// Names of the terminals for `dyad-console`: the local screen, and the serial ports that exist in hardware.
fn terminals() -> Vec<String> {
    let exists = |line: &String| match fs::read_to_string(format!("/sys/class/tty/{line}/type")) {
        Ok(kind) => kind.trim() != "0",
        Err(_) => line == "tty1" && Path::new("/sys/class/tty/tty1").exists(),
    };
    ["ttyS0", "ttyS1", "tty1"].map(String::from).into_iter().filter(exists).collect()
}

impl Service {
    fn new(name: &str, kind: ServiceKind, now: Instant) -> Self {
        let backoff = Backoff::default();
        Self { name: name.into(), kind, pid: None, start_at: Some(now), started: now, backoff, stopped: false }
    }

    /// Starts the process. Its output comes through the returned pipe, except for a service on a terminal.
    pub fn start(&mut self, log: &ServiceLog, watchdog: Option<&Watchdog>) -> anyhow::Result<Option<ServiceOutput>> {
        let program = self.name.split('@').next().unwrap_or(&self.name);
        let mut command = Command::new(Path::new(PROGRAMS).join(program));
        command.env_clear().env("PATH", "/usr/bin:/usr/sbin").env("HOME", "/root").current_dir("/");
        let mut options = SpawnOptions::default();
        let mut output = None;
        if let ServiceKind::Terminal(device) = &self.kind {
            let open = || OpenOptions::new().read(true).write(true).open(device);
            let terminal = open().with_context(|| format!("{} does not open", device.display()))?;
            command.stdin(terminal.try_clone()?).stdout(terminal.try_clone()?).stderr(terminal);
            let screen = device.ends_with("tty1");
            command.env("TERM", if screen { "linux" } else { "vt220" });
            options.terminal = true;
        } else {
            let (reader, writer) = log.pipe(&self.name)?;
            command.stdin(Stdio::null()).stdout(writer.try_clone()?).stderr(writer);
            output = Some(reader);
        }
        if let (ServiceKind::Core, Some(watchdog)) = (&self.kind, watchdog) {
            command.env("DYAD_WATCHDOG_FD", watchdog::DESCRIPTOR.to_string());
            command.env("DYAD_WATCHDOG_NAME", &watchdog.identity);
            options.inherit = Some(watchdog::DESCRIPTOR);
        }
        let child = sys::spawn(&mut command, options).with_context(|| format!("{program} does not start"))?;
        self.pid = Some(Pid::from_raw(i32::try_from(child.id())?));
        (self.started, self.start_at) = (Instant::now(), None);
        self.place_process(child.id());
        Ok(output)
    }

    /// Moves the process into the services' control group, and protects `dyad-core` from the kernel's out-of-memory killer.
    /// A failure is logged and the process runs on.
    fn place_process(&self, pid: u32) {
        let mut rows = vec![(format!("{}/cgroup.procs", cgroup::SERVICES), pid.to_string())];
        if self.kind == ServiceKind::Core {
            // Only the core, because children inherit this value: VMs that `dyad-node` starts must not be protected.
            rows.push((format!("/proc/{pid}/oom_score_adj"), "-1000".into()));
        }
        for (file, value) in rows {
            if let Err(error) = fs::write(&file, value) {
                log::warn(&format!("{}: {file} is not writable: {error}", self.name));
            }
        }
    }

    /// Notes that the process ended, or with `status` = `None` that it did not start, and sets the time of the next start.
    pub fn ended(&mut self, now: Instant, status: Option<ExitStatus>) {
        self.pid = None;
        if self.stopped {
            return;
        }
        let run = if status.is_some() { now - self.started } else { Duration::ZERO };
        let delay = self.backoff.ended(run);
        self.start_at = Some(now + delay);
        if let Some(status) = status {
            let seconds = run.as_secs();
            log::warn(&format!("{} ended after {seconds} s ({status}), is started again in {delay:?}", self.name));
        }
    }

    /// Sends SIGTERM and does not start the service again.
    pub fn stop(&mut self) {
        (self.start_at, self.stopped) = (None, true);
        self.signal(Signal::SIGTERM);
    }

    /// Sends SIGINT; when the process has ended, it is started again. SIGTERM would tell `dyad-node` that the machine shuts
    /// down, and it would stop the VMs.
    pub fn restart(&self) {
        self.signal(Signal::SIGINT);
    }

    fn signal(&self, signal: Signal) {
        if let Some(pid) = self.pid {
            // This fails only if the process has ended already.
            let _ = kill(pid, signal);
        }
    }
}
