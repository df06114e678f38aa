//! The services of a node, and one run of one of them.

use crate::backoff::Backoff;
use crate::journal::{Journal, Output};
use crate::sys::{self, Start};
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

/// The kind of a service decides its descriptors, its terminal and its memory priority.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kind {
    /// `dyad-core`: inherits the watchdog, and the kernel does not kill it when memory is short.
    Core,
    Daemon,
    /// A status screen on this terminal.
    Terminal(PathBuf),
}

/// A program that always runs.
pub struct Service {
    /// Name of the service, of its program up to an `@`, and of its log.
    pub name: String,
    pub kind: Kind,
    /// Process number, while it runs.
    pub pid: Option<Pid>,
    /// When it shall start; `None` while it runs or when it has been stopped for good.
    pub start_at: Option<Instant>,
    started: Instant,
    backoff: Backoff,
    /// It shall not start again.
    stopped: bool,
}

/// All services, in the order of their start.
pub fn table(now: Instant) -> Vec<Service> {
    let mut services = vec![Service::new("dyad-core", Kind::Core, now), Service::new("dyad-node", Kind::Daemon, now)];
    for line in terminals() {
        services.push(Service::new(
            &format!("dyad-console@{line}"),
            Kind::Terminal(Path::new("/dev").join(&line)),
            now,
        ));
    }
    services
}

/// The local screen and the serial lines that have hardware behind them.
fn terminals() -> Vec<String> {
    let real = |line: &String| match fs::read_to_string(format!("/sys/class/tty/{line}/type")) {
        Ok(kind) => kind.trim() != "0",
        Err(_) => line == "tty1" && Path::new("/sys/class/tty/tty1").exists(),
    };
    ["ttyS0", "ttyS1", "tty1"].map(String::from).into_iter().filter(real).collect()
}

impl Service {
    fn new(name: &str, kind: Kind, now: Instant) -> Self {
        let backoff = Backoff::default();
        Self { name: name.into(), kind, pid: None, start_at: Some(now), started: now, backoff, stopped: false }
    }

    /// Starts it. What it prints comes through the returned output, except on a terminal.
    pub fn start(&mut self, journal: &Journal, watchdog: Option<&Watchdog>) -> anyhow::Result<Option<Output>> {
        let program = self.name.split('@').next().unwrap_or(&self.name);
        let mut command = Command::new(Path::new(PROGRAMS).join(program));
        command.env_clear().env("PATH", "/usr/bin:/usr/sbin").env("HOME", "/root").current_dir("/");
        let mut start = Start::default();
        let mut output = None;
        if let Kind::Terminal(device) = &self.kind {
            let open = || OpenOptions::new().read(true).write(true).open(device);
            let terminal = open().with_context(|| format!("{} does not open", device.display()))?;
            command.stdin(terminal.try_clone()?).stdout(terminal.try_clone()?).stderr(terminal);
            let screen = device.ends_with("tty1");
            command.env("TERM", if screen { "linux" } else { "vt220" });
            start.terminal = true;
        } else {
            let (reader, writer) = journal.pipe(&self.name)?;
            command.stdin(Stdio::null()).stdout(writer.try_clone()?).stderr(writer);
            output = Some(reader);
        }
        if let (Kind::Core, Some(watchdog)) = (&self.kind, watchdog) {
            command.env("DYAD_WATCHDOG_FD", watchdog::DESCRIPTOR.to_string());
            command.env("DYAD_WATCHDOG_NAME", &watchdog.identity);
            start.inherit = Some(watchdog::DESCRIPTOR);
        }
        let child = sys::spawn(&mut command, start).with_context(|| format!("{program} does not start"))?;
        self.pid = Some(Pid::from_raw(i32::try_from(child.id())?));
        (self.started, self.start_at) = (Instant::now(), None);
        self.settle(child.id());
        Ok(output)
    }

    /// Puts the process where it belongs. It runs in any case.
    fn settle(&self, pid: u32) {
        let mut rows = vec![(format!("{}/cgroup.procs", cgroup::SERVICES), pid.to_string())];
        if self.kind == Kind::Core {
            // Only the core: what other services start must not be spared along with them.
            rows.push((format!("/proc/{pid}/oom_score_adj"), "-1000".into()));
        }
        for (file, value) in rows {
            if let Err(error) = fs::write(&file, value) {
                log::warn(&format!("{}: {file} is not writable: {error}", self.name));
            }
        }
    }

    /// It ended, or did not start (`status` is `None`): plans the next start.
    pub fn ended(&mut self, now: Instant, status: Option<ExitStatus>) {
        self.pid = None;
        if self.stopped {
            return;
        }
        let run = if status.is_some() { now - self.started } else { Duration::ZERO };
        let pause = self.backoff.ended(run);
        self.start_at = Some(now + pause);
        if let Some(status) = status {
            let seconds = run.as_secs();
            log::warn(&format!("{} ended after {seconds} s ({status}), starts again in {pause:?}", self.name));
        }
    }

    /// Asks it to end. It is not started again by itself.
    pub fn stop(&mut self) {
        (self.start_at, self.stopped) = (None, true);
        self.signal(Signal::SIGTERM);
    }

    /// Ends it at once; it starts again in the usual way. Not with SIGTERM: that tells the supervisor of VMs that the
    /// machine goes down, and it would stop them.
    pub fn restart(&self) {
        self.signal(Signal::SIGINT);
    }

    fn signal(&self, signal: Signal) {
        if let Some(pid) = self.pid {
            // A process that is gone already has been asked enough.
            let _ = kill(pid, signal);
        }
    }
}
