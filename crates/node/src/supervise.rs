//! The VMs of a real node: runs the supervisor's policy and runner in one task.

use std::{
    collections::{BTreeMap, VecDeque},
    io,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use dyad_api::VmState;
use dyad_control::chain;
use dyad_supervisor::{
    Accelerator, AdoptError, Console, Phase, Runner, Settings, Step, VmSpec, accelerator,
    command::{Host, QemuVersion},
};
use tokio::{
    process::Command,
    sync::{broadcast, mpsc},
};

use crate::{
    Options,
    snapshot::{ObservedVm, SerialLine},
    vms::{StartedSupervisor, SupervisorInput, SupervisorReport, VmSupervisor},
};

/// The hidden subcommand with which a VM enters its cgroup before its first instruction.
pub const ENTER_CGROUP: &str = "enter-cgroup";

/// The KVM probe, which boots a small VM, begins with the first [`SupervisorInput`], or this long after the start without
/// one: the start of the node's services goes first, but the status page needs the result even if no VM exists.
const KVM_PROBE_DELAY: Duration = Duration::from_secs(15);

/// File in the state directory with the result of the KVM probe.
const KVM_PROBE_FILE: &str = "kvm-proof.json";

/// Grace time of a guest, in seconds, when the node shuts down before it has read a document (the document holds the pair's).
const SHUTDOWN_GRACE_PERIOD_S: u32 = 60;

/// Why no VM can be supervised.
#[derive(Debug, thiserror::Error)]
pub enum SuperviseError {
    /// The launcher of VMs is this program itself.
    #[error("this program's own path is not known")]
    OwnPath(#[source] io::Error),
    /// QEMU cannot be started.
    #[error("{} does not run: install QEMU or give --no-vms", qemu.display())]
    Qemu { qemu: PathBuf, source: io::Error },
    /// QEMU prints no version.
    #[error("QEMU's version is not understood")]
    Version { qemu: PathBuf },
    /// A VM could run twice if it were not known.
    #[error("the running VMs could not be found")]
    Adopt(#[from] AdoptError),
}

/// Sends commands to the supervisor's task.
pub struct Supervisor {
    commands: mpsc::UnboundedSender<SupervisorCommand>,
}

enum SupervisorCommand {
    Want(Box<SupervisorInput>),
    Kill(String),
    ShutDown,
}

impl VmSupervisor for Supervisor {
    fn want(&mut self, input: SupervisorInput) {
        // Fails only after a shutdown, when no input counts.
        let _ = self.commands.send(SupervisorCommand::Want(Box::new(input)));
    }
    fn kill(&mut self, name: &str) {
        let _ = self.commands.send(SupervisorCommand::Kill(name.to_owned()));
    }
    fn shut_down(&mut self) {
        let _ = self.commands.send(SupervisorCommand::ShutDown);
    }
}

impl Supervisor {
    /// Starts the task, which adopts running VMs and supervises them.
    ///
    /// # Errors
    /// The path of this program is not known.
    pub fn start(options: &Options) -> Result<StartedSupervisor, SuperviseError> {
        let program = std::env::current_exe().map_err(SuperviseError::OwnPath)?;
        let (commands, receiver) = mpsc::unbounded_channel();
        let (reports, reported) = mpsc::unbounded_channel();
        let options = options.clone();
        tokio::spawn(async move {
            if let Err(error) = run(&options, program, receiver, reports).await {
                tracing::error!("no VM can be supervised: {}", chain(&error));
            }
        });
        Ok((Box::new(Supervisor { commands }), reported))
    }
}

fn settings(options: &Options, program: PathBuf, version: QemuVersion, accelerator: Accelerator) -> Settings {
    let cgroup_root = options.cgroup.is_dir().then(|| options.cgroup.clone());
    if cgroup_root.is_none() {
        tracing::warn!("{} is not there: VMs run without a cgroup of their own", options.cgroup.display());
    }
    Settings {
        run_dir: options.run.join("vms"),
        state_dir: options.state.join("vms"),
        cgroup_root,
        launcher: vec![program.into_os_string(), ENTER_CGROUP.into()],
        ovmf_vars: options.ovmf_vars.clone(),
        host: Host { qemu: options.qemu.clone(), version, accelerator, ovmf_code: options.ovmf_code.clone() },
    }
}

async fn version(qemu: &Path) -> Result<QemuVersion, SuperviseError> {
    let output = Command::new(qemu).arg("--version").output().await;
    let output = output.map_err(|source| SuperviseError::Qemu { qemu: qemu.to_owned(), source })?;
    let version = QemuVersion::parse(&String::from_utf8_lossy(&output.stdout));
    version.ok_or_else(|| SuperviseError::Version { qemu: qemu.to_owned() })
}

/// The task: probes KVM, adopts running VMs, then carries out the policy's plan after each event.
async fn run(
    options: &Options,
    program: PathBuf,
    mut commands: mpsc::UnboundedReceiver<SupervisorCommand>,
    reports: mpsc::UnboundedSender<SupervisorReport>,
) -> Result<(), SuperviseError> {
    // The KVM probe boots a VM: it waits until an input has come, or for KVM_PROBE_DELAY.
    let mut queue = CommandQueue::default();
    match tokio::time::timeout(KVM_PROBE_DELAY, commands.recv()).await {
        Ok(None) => return Ok(()),
        Ok(Some(command)) => queue.push(command),
        Err(_) => {}
    }
    let version = version(&options.qemu).await?;
    let trial = accelerator::Trial { qemu: &options.qemu, dir: &options.run };
    let found = accelerator::decide(trial, version, &options.state.join(KVM_PROBE_FILE)).await;
    if found == Accelerator::Tcg {
        tracing::warn!("{}", dyad_api::EMULATION_WARNING);
    }
    let _ = reports.send(SupervisorReport::HardwareVirtualisation(found == Accelerator::Kvm));
    let (mut runner, mut events) = Runner::new(settings(options, program, version, found));
    // A VM that runs already must be known before any VM is started: it must not run twice.
    runner.adopt()?;
    let mut task = SupervisorTask { runner, input: None, reports, missing: BTreeMap::new() };
    let mut ending = false;
    loop {
        task.report();
        if ending && task.runner.running().is_empty() {
            return Ok(());
        }
        let due = task.due().filter(|_| !ending);
        tokio::select! {
            command = queue.next(&mut commands) => match command {
                Some(SupervisorCommand::Want(input)) => {
                    if input.authoritative {
                        task.runner.keep_only(|name| input.document.vms.contains_key(name));
                    }
                    task.input = Some(*input);
                }
                Some(SupervisorCommand::Kill(name)) => task.runner.kill(&name),
                Some(SupervisorCommand::ShutDown) => {
                    ending = true;
                    task.shut_down();
                }
                // The control plane has ended, and this program with it; the VMs stay.
                None => return Ok(()),
            },
            Some(event) = events.recv() => tracing::info!(vm = event.vm, "{:?}", event.kind),
            () = tokio::time::sleep(due.unwrap_or_default()), if due.is_some() => {}
        }
        if !ending {
            task.act();
        }
    }
}

/// Commands not carried out yet; many may come while KVM is probed.
#[derive(Default)]
struct CommandQueue(VecDeque<SupervisorCommand>);

impl CommandQueue {
    /// Adds a command. A new input replaces the queued one, in which a permit may stand that was withdrawn since.
    fn push(&mut self, command: SupervisorCommand) {
        if matches!(command, SupervisorCommand::Want(_)) {
            self.0.retain(|old| !matches!(old, SupervisorCommand::Want(_)));
        }
        self.0.push_back(command);
    }

    async fn next(&mut self, commands: &mut mpsc::UnboundedReceiver<SupervisorCommand>) -> Option<SupervisorCommand> {
        if self.0.is_empty() {
            self.push(commands.recv().await?);
        }
        while let Ok(command) = commands.try_recv() {
            self.push(command);
        }
        self.0.pop_front()
    }
}

struct SupervisorTask {
    runner: Runner,
    input: Option<SupervisorInput>,
    reports: mpsc::UnboundedSender<SupervisorReport>,
    /// VMs whose disk is not served yet, with the sentence about it.
    missing: BTreeMap<String, String>,
}

impl SupervisorTask {
    /// Time until a back-off ends, if one runs.
    fn due(&self) -> Option<Duration> {
        let now = dyad_supervisor::now();
        let at = dyad_supervisor::next_wakeup(&self.runner.observed())?;
        // A back-off that is over does not count: such a VM waits for its permit.
        Some(at.since(now)).filter(|left| *left > 0).map(Duration::from_nanos)
    }

    fn act(&mut self) {
        let Some(input) = self.input.clone() else { return };
        self.missing.clear();
        let seen = self.runner.observed();
        let steps = dyad_supervisor::plan(dyad_supervisor::now(), input.me, &input.document, &input.permits, &seen);
        for step in steps {
            match step {
                Step::Kill(vm) => self.runner.kill(&vm),
                Step::ShutDown { vm, grace_s } => self.runner.shut_down(&vm, grace_s),
                Step::RecordGuestShutDown(vm) => drop(self.reports.send(SupervisorReport::GuestShutDown(vm))),
                Step::Forget(vm) if input.document.vms.contains_key(&vm) => self.runner.forget(&vm),
                Step::Forget(vm) => self.runner.delete(&vm),
                Step::Start(vm) => self.start(&input, &vm),
            }
        }
    }

    fn start(&mut self, input: &SupervisorInput, vm: &str) {
        match VmSpec::from_document(vm, &input.document, |id| input.sockets.get(&id).cloned()) {
            Ok(None) => {}
            Ok(Some(spec)) => {
                if let Err(error) = self.runner.start(&spec) {
                    tracing::warn!("{error}");
                }
            }
            Err(missing) => drop(self.missing.insert(vm.to_owned(), format!("{missing}."))),
        }
    }

    fn shut_down(&mut self) {
        let grace_s = self.input.as_ref().map_or(SHUTDOWN_GRACE_PERIOD_S, |w| w.document.policies.shutdown_grace_s);
        for name in self.runner.running() {
            self.runner.shut_down(&name, grace_s);
        }
    }

    fn report(&self) {
        let mut all = BTreeMap::new();
        for (name, sentence) in &self.missing {
            all.insert(name.clone(), (VmState::Starting, Some(sentence.clone())));
        }
        for (name, seen) in self.runner.observed() {
            all.insert(name, (state(seen.phase), seen.note));
        }
        let observed = all.into_iter().map(|(name, (state, reason))| {
            let line = self.runner.console(&name).map(|console| Arc::new(ConsoleLine(console)) as Arc<dyn SerialLine>);
            (name, ObservedVm { state, reason, serial: line })
        });
        let _ = self.reports.send(SupervisorReport::Observed(observed.collect()));
    }
}

fn state(phase: Phase) -> VmState {
    match phase {
        Phase::Absent | Phase::Off | Phase::ShutDown => VmState::Stopped,
        Phase::Starting => VmState::Starting,
        Phase::Running => VmState::Running,
        Phase::Stopping | Phase::Ending | Phase::Killing => VmState::Stopping,
        Phase::Crashed => VmState::Failed,
    }
}

struct ConsoleLine(Console);

impl SerialLine for ConsoleLine {
    fn subscribe(&self) -> (Vec<u8>, broadcast::Receiver<Bytes>) {
        let viewer = self.0.subscribe();
        (viewer.recent, viewer.output)
    }
    fn send(&self, input: Bytes) -> bool {
        self.0.send(input)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use dyad_types::NodeId;

    fn want(permits: &[&str]) -> SupervisorCommand {
        let permits = permits.iter().map(|&vm| vm.to_owned()).collect();
        let node =
            dyad_desired::NodeRecord { name: "left".into(), addresses: vec![], usable_memory_mib: 0, usable_cpus: 0 };
        let document = Arc::new(dyad_desired::Document::new_pair("pair", node, "$argon2id$x").unwrap());
        let me = NodeId::A;
        SupervisorCommand::Want(Box::new(SupervisorInput {
            document,
            authoritative: true,
            me,
            permits,
            sockets: BTreeMap::new(),
        }))
    }

    /// Many commands may come while KVM is probed, and a permit may be withdrawn in the meantime.
    #[tokio::test]
    async fn only_the_newest_input_counts() {
        let (sender, mut commands) = mpsc::unbounded_channel();
        let mut queue = CommandQueue::default();
        queue.push(want(&["vm"]));
        for command in [want(&["vm", "other"]), SupervisorCommand::Kill("other".into()), want(&[])] {
            assert!(sender.send(command).is_ok());
        }
        assert!(matches!(queue.next(&mut commands).await, Some(SupervisorCommand::Kill(_))));
        let Some(SupervisorCommand::Want(input)) = queue.next(&mut commands).await else { panic!("an input") };
        assert!(input.permits.is_empty(), "the permit was withdrawn");
        drop(sender);
        assert!(queue.next(&mut commands).await.is_none());
    }
}
