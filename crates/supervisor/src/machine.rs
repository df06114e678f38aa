//! One VM with a process: a task that watches it and does what it is told.

use std::path::Path;
use std::process::{Child, ExitStatus};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;

use crate::command::VmPaths;
use crate::lifecycle::VmEvent;
use crate::process::Process;
use crate::qmp::{Qmp, QmpEvent};
use crate::record::Record;
use crate::{Console, Observed, Phase, Time, cgroup::Cgroup, now};

/// A run this long, in nanoseconds, ends a series of crashes.
const STABLE_RUN_PERIOD: Time = 600 * 1_000_000_000;
/// A process that was killed is killed again after this long.
const KILL_RETRY_INTERVAL: Duration = Duration::from_secs(1);
/// A start that takes longer than this is no longer in a hurry.
const START_BOOST_PERIOD: Duration = Duration::from_secs(15);
/// Pause between two tries to reach the control socket.
const QMP_RETRY_INTERVAL: Duration = Duration::from_millis(50);

/// Something that happened to a VM.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// The VM.
    pub vm: String,
    /// When.
    pub at: Time,
    /// What.
    pub kind: EventKind,
}

/// What happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum EventKind {
    /// A process was started.
    Started {
        /// Its pid.
        pid: u32,
    },
    /// A process of before was found.
    Adopted {
        /// Its pid.
        pid: u32,
    },
    /// QEMU answers.
    Ready,
    /// The guest wrote to its serial line for the first time in this run.
    FirstOutput,
    /// The guest restarted itself.
    GuestReset,
    /// The guest's system died; its process is ended.
    GuestPanicked,
    /// The VM entered this phase.
    Phase(Phase),
    /// The process is gone, or could not be started: in which phase that left the VM, and a sentence.
    Ended {
        /// Off, shut down or crashed.
        phase: Phase,
        /// For people.
        note: String,
    },
}

/// Where events go.
#[derive(Clone)]
pub(crate) struct Reporter {
    pub vm: String,
    pub events: mpsc::UnboundedSender<Event>,
}

impl Reporter {
    pub fn report(&self, kind: EventKind) {
        // Nobody listens any more only while the daemon is going down.
        let _ = self.events.send(Event { vm: self.vm.clone(), at: now(), kind });
    }
}

/// What a machine is told.
#[derive(Debug, Clone, Copy)]
pub(crate) enum VmCommand {
    /// Ask the guest to shut down, kill it at the deadline.
    ShutDown { deadline: Time },
    /// Kill it now.
    Kill,
}

/// What the runner keeps of a machine.
pub(crate) struct Handle {
    pub orders: mpsc::UnboundedSender<VmCommand>,
    pub observed: watch::Receiver<Observed>,
    task: JoinHandle<()>,
}

impl Drop for Handle {
    fn drop(&mut self) {
        // The process stays: only the watching ends.
        self.task.abort();
    }
}

/// A VM's process and everything known about it.
pub(crate) struct Machine {
    pub paths: VmPaths,
    pub cgroup: Option<Cgroup>,
    pub process: Process,
    /// Set if the process is our child.
    pub child: Option<Child>,
    pub record: Record,
    pub console: Console,
    pub reporter: Reporter,
}

impl Machine {
    /// Watch over the machine from now on.
    pub fn launch(self) -> Handle {
        let (orders, inbox) = mpsc::unbounded_channel();
        let (sender, observed) = watch::channel(observe(&self.record, Some(self.process.pid())));
        let task = tokio::spawn(Task { machine: self, sender, qmp: None }.run(inbox));
        Handle { orders, observed, task }
    }
}

/// What the outside sees of a record.
pub(crate) fn observe(record: &Record, pid: Option<u32>) -> Observed {
    Observed {
        phase: record.phase,
        since: record.since,
        started_for: record.started_for,
        crashes: record.crashes,
        pid: pid.filter(|_| record.phase.is_alive()),
        note: record.note.clone(),
    }
}

struct Task {
    machine: Machine,
    sender: watch::Sender<Observed>,
    qmp: Option<Qmp>,
}

/// What the control socket brings.
enum Link {
    Up(Box<Qmp>, String),
    Event(QmpEvent),
    Down,
}

impl Task {
    async fn run(mut self, mut inbox: mpsc::UnboundedReceiver<VmCommand>) {
        let (sender, mut link) = mpsc::channel(16);
        let path: Arc<Path> = self.machine.paths.qmp().into();
        let _qmp = AbortOnDrop(tokio::spawn(keep_linked(path, sender)));
        let (console, reporter) = (self.machine.console.clone(), self.machine.reporter.clone());
        let serial = self.machine.paths.serial();
        let _console = AbortOnDrop(tokio::spawn(async move {
            console.serve(&serial, || reporter.report(EventKind::FirstOutput)).await;
        }));
        let haste = tokio::time::sleep(START_BOOST_PERIOD);
        tokio::pin!(haste);
        let mut hasty = true;
        loop {
            let wait = self.time_to_act();
            tokio::select! {
                () = &mut haste, if hasty => {
                    hasty = false;
                    self.settle();
                }
                () = self.machine.process.gone() => break,
                Some(order) = inbox.recv() => self.execute(order).await,
                Some(news) = link.recv() => self.hear(news).await,
                () = tokio::time::sleep(wait) => self.kill(),
            }
        }
        self.bury().await;
    }

    fn settle(&self) {
        if let Some(cgroup) = &self.machine.cgroup {
            cgroup.settle();
        }
    }

    /// How long until the process is to be killed (again).
    fn time_to_act(&self) -> Duration {
        match (self.machine.record.phase, self.machine.record.deadline) {
            (Phase::Killing, _) => KILL_RETRY_INTERVAL,
            (Phase::Stopping | Phase::Ending, Some(deadline)) => Duration::from_nanos(deadline.saturating_sub(now())),
            _ => Duration::from_secs(3600 * 24),
        }
    }

    async fn execute(&mut self, order: VmCommand) {
        match order {
            VmCommand::Kill => self.kill(),
            VmCommand::ShutDown { deadline } => {
                let phase = self.machine.record.phase;
                if matches!(phase, Phase::Starting | Phase::Running) {
                    self.machine.record.deadline = Some(deadline);
                }
                self.happen(VmEvent::Stop);
                self.power_down().await;
            }
        }
    }

    async fn hear(&mut self, news: Link) {
        match news {
            Link::Up(qmp, status) => {
                self.qmp = Some(*qmp);
                self.settle();
                if self.machine.record.phase == Phase::Starting {
                    self.machine.reporter.report(EventKind::Ready);
                }
                self.happen(VmEvent::Ready);
                match status.as_str() {
                    "shutdown" => self.guest_off().await,
                    "guest-panicked" => self.panicked(),
                    // The wish may be older than the connection.
                    _ if self.machine.record.phase == Phase::Stopping => self.power_down().await,
                    _ => {}
                }
            }
            Link::Event(QmpEvent::Shutdown { guest: true }) => self.guest_off().await,
            Link::Event(QmpEvent::Panicked) => self.panicked(),
            Link::Event(QmpEvent::Reset { guest: true }) => {
                self.machine.reporter.report(EventKind::GuestReset);
            }
            Link::Event(_) => {}
            Link::Down => self.qmp = None,
        }
    }

    async fn power_down(&mut self) {
        if let Some(qmp) = &mut self.qmp
            && let Err(error) = qmp.power_down().await
        {
            // It is asked again when the connection is back, and killed at the deadline in any case.
            tracing::warn!(vm = self.machine.reporter.vm, %error, "a guest could not be asked to shut down");
        }
    }

    /// The guest is off; QEMU waits for us. First write it down, then let QEMU end.
    async fn guest_off(&mut self) {
        let ours = self.machine.record.phase == Phase::Stopping;
        if !ours {
            // Should QEMU not end by itself, it is killed soon.
            self.machine.record.deadline = Some(now() + 10 * 1_000_000_000);
        }
        self.happen(VmEvent::GuestOff);
        if let Some(qmp) = &mut self.qmp
            && qmp.quit().await.is_err()
        {
            self.strike();
        }
    }

    fn panicked(&mut self) {
        self.machine.reporter.report(EventKind::GuestPanicked);
        self.happen(VmEvent::Panic);
        self.machine.record.note = Some("The guest's system reported that it died.".into());
        self.strike();
    }

    fn kill(&mut self) {
        self.happen(VmEvent::Kill);
        self.strike();
    }

    /// The blow itself.
    fn strike(&self) {
        if let Some(cgroup) = &self.machine.cgroup
            && let Err(error) = cgroup.kill()
        {
            tracing::warn!(cgroup = %cgroup.dir().display(), %error, "a VM's cgroup could not be killed");
        }
        self.machine.process.kill();
    }

    /// Move through the table, write down where we are, and tell.
    fn happen(&mut self, event: VmEvent) {
        let record = &mut self.machine.record;
        match record.phase.after(event) {
            Ok(phase) if phase == record.phase => return,
            Ok(phase) => record.phase = phase,
            Err(invalid) => {
                tracing::error!(vm = self.machine.reporter.vm, %invalid, "a defect of the supervisor");
                return;
            }
        }
        record.since = now();
        if let Err(error) = record.save(&self.machine.paths.record()) {
            tracing::warn!(vm = self.machine.reporter.vm, %error, "a VM's record could not be written");
        }
        self.sender.send_replace(observe(record, Some(self.machine.process.pid())));
        self.machine.reporter.report(EventKind::Phase(record.phase));
    }

    /// The process is gone.
    async fn bury(mut self) {
        let status = self.machine.child.as_mut().and_then(|child| child.wait().ok());
        if let Some(cgroup) = &self.machine.cgroup {
            cgroup.remove().await;
        }
        let record = &mut self.machine.record;
        let ran = now().saturating_sub(record.started);
        if matches!(record.phase, Phase::Starting | Phase::Running) {
            record.crashes = if ran >= STABLE_RUN_PERIOD { 1 } else { record.crashes + 1 };
        } else {
            record.crashes = 0;
        }
        let note = record.note.take();
        let note = note.unwrap_or_else(|| ending(record.phase, status, &self.machine.paths.log()));
        record.note = Some(note.clone());
        self.happen(VmEvent::Gone);
        let phase = self.machine.record.phase;
        self.machine.reporter.report(EventKind::Ended { phase, note });
    }
}

/// One sentence about an end.
fn ending(phase: Phase, status: Option<ExitStatus>, log: &Path) -> String {
    match phase {
        Phase::Stopping => return "The guest shut down as it was asked to.".into(),
        Phase::Ending => return "The guest switched itself off.".into(),
        Phase::Killing => return "The VM was stopped hard.".into(),
        _ => {}
    }
    let how = status.map_or_else(|| "while nobody watched".to_owned(), |status| format!("with {status}"));
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

/// Connect to the control socket whenever there is no connection, for ever.
async fn keep_linked(path: Arc<Path>, link: mpsc::Sender<Link>) {
    loop {
        if let Ok((mut qmp, mut events)) = Qmp::connect(&path).await
            && let Ok(status) = qmp.status().await
        {
            if link.send(Link::Up(Box::new(qmp), status)).await.is_err() {
                return;
            }
            while let Some(event) = events.recv().await {
                if link.send(Link::Event(event)).await.is_err() {
                    return;
                }
            }
            if link.send(Link::Down).await.is_err() {
                return;
            }
        }
        tokio::time::sleep(QMP_RETRY_INTERVAL).await;
    }
}
