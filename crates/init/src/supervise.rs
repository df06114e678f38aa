//! The loop of PID 1 once the machine is up.

use crate::control::{self, Control, PowerAction, Request};
use crate::events::{DeviceEvent, DeviceEvents};
use crate::journal::{Journal, Output};
use crate::service::{self, Service};
use crate::watchdog::Watchdog;
use crate::{button, log};
use anyhow::Context;
use nix::libc::c_int;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;
use std::fs::File;
use std::os::fd::AsFd;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

/// State of the loop: services, sources of events, and the pending end of the machine.
pub struct Supervisor {
    /// The services in the order of their start.
    pub services: Vec<Service>,
    pub watchdog: Option<Watchdog>,
    signals: SignalFd,
    devices: DeviceEvents,
    control: Control,
    buttons: Vec<File>,
    journal: Journal,
    outputs: Vec<Output>,
    /// How the machine must go down; set by a client, a signal or the power button.
    down: Option<PowerAction>,
}

/// Signals become readable on a descriptor. Done before the first thread starts, so that all threads inherit it.
fn block_signals() -> anyhow::Result<SignalFd> {
    // Ctrl-Alt-Del asks init instead of resetting the machine.
    let _ = nix::sys::reboot::set_cad_enabled(false);
    let set = SigSet::from_iter([Signal::SIGCHLD, Signal::SIGTERM, Signal::SIGINT, Signal::SIGUSR2]);
    set.thread_block().context("signals cannot be blocked")?;
    SignalFd::with_flags(&set, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK).context("signals cannot be read")
}

/// A source of events that is readable.
#[derive(Clone, Copy)]
enum Source {
    Signals,
    Devices,
    Control,
    Button(usize),
    Output(usize),
}

impl Supervisor {
    /// Opens the sources of events and prepares the services; none is started yet.
    ///
    /// # Errors
    ///
    /// If the kernel refuses signals, device events, the control socket or a thread.
    pub fn start(watchdog: Option<Watchdog>) -> anyhow::Result<Self> {
        let signals = block_signals()?;
        Ok(Self {
            services: service::table(Instant::now()),
            watchdog,
            signals,
            devices: DeviceEvents::open()?,
            control: Control::open(Path::new(control::SOCKET))?,
            buttons: button::find(),
            journal: Journal::start().context("the thread that keeps the logs does not start")?,
            outputs: Vec::new(),
            down: None,
        })
    }

    /// Runs the services until the machine is told to go down. Returns how.
    ///
    /// # Errors
    ///
    /// If waiting for events fails.
    pub fn run(&mut self) -> anyhow::Result<PowerAction> {
        log::info("starting the services");
        log::leave_console();
        loop {
            self.start_due();
            let next = self.services.iter().filter_map(|service| service.start_at).min();
            self.turn(next)?;
            if let Some(action) = self.down {
                return Ok(action);
            }
        }
    }

    /// One turn of the loop: waits until `deadline` for something to happen and handles it.
    pub fn turn(&mut self, deadline: Option<Instant>) -> anyhow::Result<()> {
        // Backwards, so that removing an output leaves the numbers of those still to be handled as they are.
        for source in self.wait(deadline)?.into_iter().rev() {
            match source {
                Source::Signals => self.take_signals(),
                Source::Devices => self.take_devices(),
                Source::Control => self.take_request(),
                Source::Button(number) => {
                    if button::pressed(&self.buttons[number]) {
                        log::warn("the power button was pressed");
                        self.down = Some(PowerAction::Poweroff);
                    }
                }
                Source::Output(number) => {
                    if !self.outputs[number].take() {
                        self.outputs.swap_remove(number);
                    }
                }
            }
        }
        Ok(())
    }

    fn wait(&self, deadline: Option<Instant>) -> anyhow::Result<Vec<Source>> {
        let mut sources = vec![Source::Signals, Source::Devices, Source::Control];
        let mut files = vec![self.signals.as_fd(), self.devices.as_fd(), self.control.as_fd()];
        for (number, button) in self.buttons.iter().enumerate() {
            sources.push(Source::Button(number));
            files.push(button.as_fd());
        }
        for (number, output) in self.outputs.iter().enumerate() {
            sources.push(Source::Output(number));
            files.push(output.as_fd());
        }
        let mut files: Vec<_> = files.into_iter().map(|file| PollFd::new(file, PollFlags::POLLIN)).collect();
        let timeout = match deadline {
            None => PollTimeout::NONE,
            // Rounded up, or the last millisecond would be spent in a busy loop.
            Some(deadline) => {
                let left = deadline.saturating_duration_since(Instant::now()) + Duration::from_micros(999);
                PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX)
            }
        };
        match poll(&mut files, timeout) {
            Ok(_) | Err(nix::errno::Errno::EINTR) => {}
            Err(error) => return Err(error).context("waiting for events failed"),
        }
        let ready = |file: &PollFd| file.revents().is_some_and(|events| !events.is_empty());
        Ok(sources.into_iter().zip(&files).filter(|(_, file)| ready(file)).map(|(source, _)| source).collect())
    }

    fn start_due(&mut self) {
        let now = Instant::now();
        for service in &mut self.services {
            if service.start_at.is_none_or(|at| at > now) {
                continue;
            }
            match service.start(&self.journal, self.watchdog.as_ref()) {
                Ok(output) => self.outputs.extend(output),
                Err(error) => {
                    log::warn(&format!("{}: {error:#}", service.name));
                    service.ended(now, None);
                }
            }
        }
    }

    fn take_signals(&mut self) {
        while let Ok(Some(signal)) = self.signals.read_signal() {
            match Signal::try_from(signal.ssi_signo as c_int) {
                Ok(Signal::SIGTERM | Signal::SIGINT) => self.down = Some(PowerAction::Reboot),
                Ok(Signal::SIGUSR2) => self.down = Some(PowerAction::Poweroff),
                // Several children may stand behind one SIGCHLD.
                _ => self.reap(),
            }
        }
    }

    fn reap(&mut self) {
        let now = Instant::now();
        loop {
            let (pid, status) = match waitpid(None::<Pid>, Some(WaitPidFlag::WNOHANG)) {
                Ok(WaitStatus::Exited(pid, code)) => (pid, ExitStatus::from_raw(code << 8)),
                Ok(WaitStatus::Signaled(pid, signal, _)) => (pid, ExitStatus::from_raw(signal as c_int)),
                Ok(WaitStatus::StillAlive) | Err(_) => return,
                Ok(_) => continue,
            };
            // Other processes are orphans of services; reaping them is the duty of PID 1.
            if let Some(service) = self.services.iter_mut().find(|service| service.pid == Some(pid)) {
                service.ended(now, Some(status));
            }
        }
    }

    fn take_devices(&mut self) {
        while let Some(event) = self.devices.next() {
            let alias = match event {
                DeviceEvent::Added(alias) => alias,
                DeviceEvent::Lost => {
                    log::warn("device events were lost; a new device may need a reboot");
                    continue;
                }
            };
            // A driver may take long to start: another process waits for it, and is reaped as any orphan.
            let mut command = Command::new("/usr/sbin/modprobe");
            command.arg(alias).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
            if let Err(error) = crate::sys::spawn(&mut command, crate::sys::Start::default()) {
                log::warn(&format!("a driver is not loaded: {error}"));
            }
        }
    }

    fn take_request(&mut self) {
        let Self { control, services, watchdog, down, .. } = self;
        let served = control.serve(|request| match request {
            Request::Down(way) => {
                *down = Some(way);
                Ok(String::new())
            }
            Request::Restart(name) => match services.iter().find(|service| service.name == name) {
                Some(service) => {
                    service.restart();
                    Ok(String::new())
                }
                None => Err(format!("there is no service {name}")),
            },
            Request::Watchdog(period) => match watchdog {
                Some(watchdog) => match watchdog.set_period(period) {
                    Ok(granted) => Ok(granted.as_secs().to_string()),
                    Err(error) => Err(format!("the watchdog refuses this period: {error}")),
                },
                None => Err("this node has no watchdog".into()),
            },
            Request::Status => Ok(services.iter().map(describe).collect::<Vec<_>>().join(" ")),
        });
        if let Err(error) = served {
            log::info(&format!("a client of init went away: {error}"));
        }
    }
}

fn describe(service: &Service) -> String {
    match service.pid {
        Some(pid) => format!("{}={pid}", service.name),
        None => format!("{}=waiting", service.name),
    }
}
