//! A VM with a process: the task that watches the process and carries out commands.

use std::path::Path;
use std::process::{Child, ExitStatus};
use std::sync::Arc;
use std::time::Duration;

use dyad_types::BootTime;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;

use crate::command::VmPaths;
use crate::lifecycle::VmEvent;
use crate::process::Process;
use crate::qmp::{QemuState, Qmp, QmpEvent};
use crate::run_record::VmRunRecord;
use crate::{Console, Observed, Phase, cgroup::Cgroup, now};

/// Interval at which SIGKILL is repeated until the process has ended.
const KILL_RETRY_INTERVAL: Duration = Duration::from_secs(1);
/// Maximum time for which a starting VM has the higher CPU weight.
const START_BOOST_PERIOD: Duration = Duration::from_secs(15);
/// Pause between two attempts to connect to the control socket.
const QMP_RETRY_INTERVAL: Duration = Duration::from_millis(50);

/// An event of a VM.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    pub vm: String,
    pub at: BootTime,
    pub kind: EventKind,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum EventKind {
    /// A process was started.
    Started { pid: u32 },
    /// The process that an earlier runner started was found.
    Adopted { pid: u32 },
    /// QEMU answered on its control socket for the first time.
    Ready,
    /// The guest wrote to its serial line for the first time in this run.
    FirstOutput,
    /// The guest reset itself.
    GuestReset,
    /// The guest's operating system panicked; its process is being killed.
    GuestPanicked,
    /// The VM entered this phase.
    Phase(Phase),
    /// The process has ended, or could not be started.
    Ended {
        /// [`Phase::Off`], [`Phase::ShutDown`] or [`Phase::Crashed`].
        phase: Phase,
        /// Cause of the end, as one sentence for people.
        note: String,
    },
}

/// Sends the events of one VM.
#[derive(Clone)]
pub(crate) struct Reporter {
    pub vm: String,
    pub events: mpsc::UnboundedSender<Event>,
}

impl Reporter {
    pub fn report(&self, kind: EventKind) {
        // Fails only while the daemon is ending.
        let _ = self.events.send(Event { vm: self.vm.clone(), at: now(), kind });
    }
}

/// A command to a machine.
#[derive(Debug, Clone, Copy)]
pub(crate) enum VmCommand {
    /// Asks the guest to shut down, and kills the VM at the deadline.
    ShutDown { deadline: BootTime },
    /// Kills the VM at once.
    Kill,
}

/// The runner's handle of a [`Machine`]'s task.
pub(crate) struct MachineHandle {
    pub commands: mpsc::UnboundedSender<VmCommand>,
    pub observed: watch::Receiver<Observed>,
    task: JoinHandle<()>,
}

impl Drop for MachineHandle {
    fn drop(&mut self) {
        // Ends the watching task; the process continues.
        self.task.abort();
    }
}

/// A VM's process, with its record and the values that its task uses.
pub(crate) struct Machine {
    pub paths: VmPaths,
    pub cgroup: Option<Cgroup>,
    pub process: Process,
    /// Set if this runner started the process; `None` = the process was found at adoption.
    pub child: Option<Child>,
    pub record: VmRunRecord,
    pub console: Console,
    pub reporter: Reporter,
}

impl Machine {
    /// Starts the task that watches the machine.
    pub fn launch(self) -> MachineHandle {
        let (commands, inbox) = mpsc::unbounded_channel();
        let (sender, observed) = watch::channel(observe(&self.record, Some(self.process.pid())));
        let task = tokio::spawn(MachineTask { machine: self, sender, qmp: None }.run(inbox));
        MachineHandle { commands, observed, task }
    }
}

/// The values of a record that the policy uses. `pid` is left out if the phase is one without a process.
pub(crate) fn observe(record: &VmRunRecord, pid: Option<u32>) -> Observed {
    Observed {
        phase: record.phase,
        since: record.since,
        started_generation: record.started_generation,
        crashes: record.crashes,
        pid: pid.filter(|_| record.phase.is_alive()),
        note: record.note.clone(),
    }
}

struct MachineTask {
    machine: Machine,
    sender: watch::Sender<Observed>,
    qmp: Option<Qmp>,
}

/// A message from the task that keeps the QMP connection.
enum QmpUpdate {
    /// Connected, with QEMU's run state.
    Up(Box<Qmp>, QemuState),
    Event(QmpEvent),
    /// The connection has ended.
    Down,
}

impl MachineTask {
    async fn run(mut self, mut inbox: mpsc::UnboundedReceiver<VmCommand>) {
        let (sender, mut qmp_updates) = mpsc::channel(16);
        let path: Arc<Path> = self.machine.paths.qmp_socket().into();
        let _qmp = AbortOnDrop(tokio::spawn(keep_qmp_connected(path, sender)));
        let (console, reporter) = (self.machine.console.clone(), self.machine.reporter.clone());
        let serial = self.machine.paths.serial_socket();
        let _console = AbortOnDrop(tokio::spawn(async move {
            console.serve(&serial, || reporter.report(EventKind::FirstOutput)).await;
        }));
        let boost_end = tokio::time::sleep(START_BOOST_PERIOD);
        tokio::pin!(boost_end);
        let mut boosted = true;
        loop {
            let kill_delay = self.time_until_kill();
            tokio::select! {
                () = &mut boost_end, if boosted => {
                    boosted = false;
                    self.end_start_boost();
                }
                () = self.machine.process.gone() => break,
                Some(command) = inbox.recv() => self.execute(command).await,
                Some(update) = qmp_updates.recv() => self.handle_qmp(update).await,
                () = tokio::time::sleep(kill_delay.unwrap_or_default()), if kill_delay.is_some() => self.kill(),
            }
        }
        self.handle_exit().await;
    }

    fn end_start_boost(&self) {
        if let Some(cgroup) = &self.machine.cgroup {
            cgroup.end_start_boost();
        }
    }

    /// Time until [`MachineTask::kill`] is called next if nothing else happens; `None` = it is not called.
    fn time_until_kill(&self) -> Option<Duration> {
        match (self.machine.record.phase, self.machine.record.deadline) {
            // A record that a version before 2026-11-30 wrote: it set no time for a kill.
            (Phase::Killing, None) => Some(KILL_RETRY_INTERVAL),
            (Phase::Stopping | Phase::Ending | Phase::Killing, deadline) => {
                Some(Duration::from_nanos(deadline?.since(now())))
            }
            _ => None,
        }
    }

    async fn execute(&mut self, command: VmCommand) {
        match command {
            VmCommand::Kill => self.kill(),
            VmCommand::ShutDown { deadline } => {
                let phase = self.machine.record.phase;
                if matches!(phase, Phase::Starting | Phase::Running) {
                    self.machine.record.deadline = Some(deadline);
                }
                self.apply_event(VmEvent::Stop);
                self.power_down().await;
            }
        }
    }

    async fn handle_qmp(&mut self, update: QmpUpdate) {
        match update {
            QmpUpdate::Up(qmp, state) => {
                self.qmp = Some(*qmp);
                self.end_start_boost();
                if self.machine.record.phase == Phase::Starting {
                    self.machine.reporter.report(EventKind::Ready);
                }
                self.apply_event(VmEvent::Ready);
                match state {
                    QemuState::Shutdown => self.guest_off().await,
                    QemuState::GuestPanicked => self.panicked(),
                    // The command to shut down may have come before the connection.
                    _ if self.machine.record.phase == Phase::Stopping => self.power_down().await,
                    _ => {}
                }
            }
            QmpUpdate::Event(QmpEvent::Shutdown { guest: true }) => self.guest_off().await,
            QmpUpdate::Event(QmpEvent::Panicked) => self.panicked(),
            QmpUpdate::Event(QmpEvent::Reset { guest: true }) => {
                self.machine.reporter.report(EventKind::GuestReset);
            }
            QmpUpdate::Event(_) => {}
            QmpUpdate::Down => self.qmp = None,
        }
    }

    /// Presses the VM's power button, if QMP is connected.
    async fn power_down(&mut self) {
        if let Some(qmp) = &mut self.qmp
            && let Err(error) = qmp.power_down().await
        {
            // The request is repeated when the connection is back, and at the deadline the VM is killed.
            tracing::warn!(vm = self.machine.reporter.vm, %error, "a guest could not be asked to shut down");
        }
    }

    /// Handles a shutdown by the guest, after which QEMU is paused: writes the record, then tells QEMU to quit.
    async fn guest_off(&mut self) {
        if matches!(self.machine.record.phase, Phase::Starting | Phase::Running) {
            // If QEMU does not quit within 10 s, it is killed.
            self.machine.record.deadline = Some(now() + 10 * 1_000_000_000);
        }
        self.apply_event(VmEvent::GuestOff);
        if let Some(qmp) = &mut self.qmp
            && qmp.quit().await.is_err()
        {
            self.send_kill();
        }
    }

    /// Handles a panic of the guest's operating system: the VM is killed and counts as crashed.
    fn panicked(&mut self) {
        self.machine.reporter.report(EventKind::GuestPanicked);
        self.apply_event(VmEvent::Panic);
        self.machine.record.note = Some("The guest's operating system reported a panic.".into());
        self.send_kill();
    }

    /// Kills the VM, and sets the time at which this is repeated if the process is still there.
    fn kill(&mut self) {
        self.machine.record.deadline = Some(now() + KILL_RETRY_INTERVAL.as_nanos() as u64);
        self.apply_event(VmEvent::Kill);
        self.send_kill();
    }

    /// Sends SIGKILL to the cgroup and to the process.
    fn send_kill(&self) {
        if let Some(cgroup) = &self.machine.cgroup
            && let Err(error) = cgroup.kill()
        {
            tracing::warn!(cgroup = %cgroup.dir().display(), error = %error.source, "a VM's cgroup could not be killed");
        }
        self.machine.process.kill();
    }

    /// Applies an event to the phase. If the phase changes, stores the record and reports the new phase.
    fn apply_event(&mut self, event: VmEvent) {
        let record = &mut self.machine.record;
        match record.phase.after(event) {
            Ok(phase) if phase == record.phase => return,
            Ok(phase) => record.phase = phase,
            Err(invalid) => {
                tracing::error!(vm = self.machine.reporter.vm, %invalid, "an event that its phase does not allow: a defect of the supervisor");
                return;
            }
        }
        record.since = now();
        if let Err(error) = record.save(&self.machine.paths.record_file()) {
            tracing::warn!(vm = self.machine.reporter.vm, %error, "a VM's record could not be written");
        }
        self.sender.send_replace(observe(record, Some(self.machine.process.pid())));
        self.machine.reporter.report(EventKind::Phase(record.phase));
    }

    /// Handles the end of the process: removes the cgroup, counts crashes and reports the end.
    async fn handle_exit(mut self) {
        let status = self.machine.child.as_mut().and_then(|child| child.wait().ok());
        if let Some(cgroup) = &self.machine.cgroup {
            cgroup.remove().await;
        }
        let record = &mut self.machine.record;
        record.count_end(now());
        let note = record.note.take();
        let note = note.unwrap_or_else(|| end_note(record.phase, status, &self.machine.paths.log_file()));
        record.note = Some(note.clone());
        self.apply_event(VmEvent::Gone);
        let phase = self.machine.record.phase;
        self.machine.reporter.report(EventKind::Ended { phase, note });
    }
}

/// The sentence that says how a run ended. `status` is `None` for a process that this runner did not start.
fn end_note(phase: Phase, status: Option<ExitStatus>, log: &Path) -> String {
    match phase {
        Phase::Stopping => return "The guest shut down on request.".into(),
        Phase::Ending => return "The guest switched itself off.".into(),
        Phase::Killing => return "The VM was killed.".into(),
        _ => {}
    }
    let how = status.map_or_else(|| "while dyad-node was not running".to_owned(), |status| format!("with {status}"));
    let log = std::fs::read(log).unwrap_or_default();
    let log = String::from_utf8_lossy(&log);
    match log.lines().rev().find(|line| line.contains("qemu-system")) {
        Some(line) => format!("QEMU ended by itself {how}: {line}"),
        None => format!("QEMU ended by itself {how}."),
    }
}

struct AbortOnDrop(JoinHandle<()>);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Connects to the control socket and reconnects when the connection ends, until the receiver is dropped.
async fn keep_qmp_connected(path: Arc<Path>, updates: mpsc::Sender<QmpUpdate>) {
    loop {
        if let Ok((mut qmp, mut events)) = Qmp::connect(&path).await
            && let Ok(state) = qmp.status().await
        {
            if updates.send(QmpUpdate::Up(Box::new(qmp), state)).await.is_err() {
                return;
            }
            while let Some(event) = events.recv().await {
                if updates.send(QmpUpdate::Event(event)).await.is_err() {
                    return;
                }
            }
            if updates.send(QmpUpdate::Down).await.is_err() {
                return;
            }
        }
        tokio::time::sleep(QMP_RETRY_INTERVAL).await;
    }
}
