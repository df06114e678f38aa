//! The main loop of PID 1 after the boot: starts services and handles events.

use crate::control::{self, ControlSocket, PowerAction, Request};
use crate::events::{DeviceEvent, DeviceEvents};
use crate::service::{self, Service};
use crate::service_log::{ServiceLog, ServiceOutput};
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

/// State of the main loop: the services, the sources of events, and the requested shutdown.
pub struct ServiceManager {
    /// All services, in the sequence in which they are started.
    pub services: Vec<Service>,
    pub watchdog: Option<Watchdog>,
    signals: SignalFd,
    devices: DeviceEvents,
    control: ControlSocket,
    buttons: Vec<File>,
    log: ServiceLog,
    /// Output pipes of the services that run.
    outputs: Vec<ServiceOutput>,
    /// The requested shutdown; set by a client, a signal or the power button.
    requested: Option<PowerAction>,
}

/// Blocks the signals of init and makes them readable on a descriptor. Must be called before the first thread starts,
/// because threads inherit the set of blocked signals.
fn block_signals() -> anyhow::Result<SignalFd> {
    // Ctrl-Alt-Del then sends SIGINT to init instead of resetting the machine.
    let _ = nix::sys::reboot::set_cad_enabled(false);
    let set = SigSet::from_iter([Signal::SIGCHLD, Signal::SIGTERM, Signal::SIGINT, Signal::SIGUSR2]);
    set.thread_block().context("signals cannot be blocked")?;
    SignalFd::with_flags(&set, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK).context("signals cannot be read")
}

/// A source of events, as an entry of the list that is polled.
#[derive(Clone, Copy)]
enum EventSource {
    Signals,
    Devices,
    Control,
    Button(usize),
    Output(usize),
}

impl ServiceManager {
    /// Opens the sources of events and prepares the services; none is started yet.
    ///
    /// # Errors
    ///
    /// The kernel refuses signals, device events, the control socket or a thread.
    pub fn start(watchdog: Option<Watchdog>) -> anyhow::Result<Self> {
        let signals = block_signals()?;
        Ok(Self {
            services: service::table(Instant::now()),
            watchdog,
            signals,
            devices: DeviceEvents::open()?,
            control: ControlSocket::open(Path::new(control::SOCKET))?,
            buttons: button::find(),
            log: ServiceLog::start().context("the thread that writes the logs does not start")?,
            outputs: Vec::new(),
            requested: None,
        })
    }

    /// Runs the services until a shutdown is requested, and returns the requested one.
    ///
    /// # Errors
    ///
    /// The kernel refuses to wait for events.
    pub fn run(&mut self) -> anyhow::Result<PowerAction> {
        log::info("starting the services");
        log::leave_console();
        loop {
            self.start_due();
            let next = self.services.iter().filter_map(|service| service.start_at).min();
            self.handle_events(next)?;
            if let Some(action) = self.requested {
                return Ok(action);
            }
        }
    }

    /// One pass of the loop: waits for events until `deadline` and handles those that have arrived.
    pub fn handle_events(&mut self, deadline: Option<Instant>) -> anyhow::Result<()> {
        // From the last source to the first: the removal of an output then does not change the index of an output that is
        // still to be handled.
        for source in self.wait(deadline)?.into_iter().rev() {
            match source {
                EventSource::Signals => self.handle_signals(),
                EventSource::Devices => self.handle_devices(),
                EventSource::Control => self.handle_request(),
                EventSource::Button(number) => {
                    if button::pressed(&self.buttons[number]) {
                        log::warn("the power button was pressed");
                        self.requested = Some(PowerAction::Poweroff);
                    }
                }
                EventSource::Output(number) => {
                    if !self.outputs[number].read_chunk() {
                        self.outputs.swap_remove(number);
                    }
                }
            }
        }
        Ok(())
    }

    fn wait(&self, deadline: Option<Instant>) -> anyhow::Result<Vec<EventSource>> {
        let mut sources = vec![EventSource::Signals, EventSource::Devices, EventSource::Control];
        let mut files = vec![self.signals.as_fd(), self.devices.as_fd(), self.control.as_fd()];
        for (number, button) in self.buttons.iter().enumerate() {
            sources.push(EventSource::Button(number));
            files.push(button.as_fd());
        }
        for (number, output) in self.outputs.iter().enumerate() {
            sources.push(EventSource::Output(number));
            files.push(output.as_fd());
        }
        let mut files: Vec<_> = files.into_iter().map(|file| PollFd::new(file, PollFlags::POLLIN)).collect();
        let timeout = match deadline {
            None => PollTimeout::NONE,
            // Rounded up to whole milliseconds: rounded down, the loop would spin during the last one.
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
            match service.start(&self.log, self.watchdog.as_ref()) {
                Ok(output) => self.outputs.extend(output),
                Err(error) => {
                    log::warn(&format!("{}: {error:#}", service.name));
                    service.ended(now, None);
                }
            }
        }
    }

    fn handle_signals(&mut self) {
        while let Ok(Some(signal)) = self.signals.read_signal() {
            match Signal::try_from(signal.ssi_signo as c_int) {
                Ok(Signal::SIGTERM | Signal::SIGINT) => self.requested = Some(PowerAction::Reboot),
                Ok(Signal::SIGUSR2) => self.requested = Some(PowerAction::Poweroff),
                // SIGCHLD. One signal may stand for several ended children.
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
            // Any other process is an orphan, which the kernel has given to PID 1 to be reaped.
            if let Some(service) = self.services.iter_mut().find(|service| service.pid == Some(pid)) {
                service.ended(now, Some(status));
            }
        }
    }

    fn handle_devices(&mut self) {
        while let Some(event) = self.devices.next() {
            let alias = match event {
                DeviceEvent::Added(alias) => alias,
                DeviceEvent::Lost => {
                    log::warn("device events were lost; if a new device does not work, reboot");
                    continue;
                }
            };
            // A driver may take long to load, so a separate process loads it; it is reaped like an orphan.
            let mut command = Command::new("/usr/sbin/modprobe");
            command.arg(alias).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
            if let Err(error) = crate::sys::spawn(&mut command, crate::sys::SpawnOptions::default()) {
                log::warn(&format!("the program that loads drivers does not start: {error}"));
            }
        }
    }

    fn handle_request(&mut self) {
        let Self { control, services, watchdog, requested, .. } = self;
        let served = control.serve(|request| match request {
            Request::ShutDown(action) => {
                *requested = Some(action);
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
            log::info(&format!("a request to init got no reply: {error}"));
        }
    }
}

fn describe(service: &Service) -> String {
    match service.pid {
        Some(pid) => format!("{}={pid}", service.name),
        None => format!("{}=waiting", service.name),
    }
}
