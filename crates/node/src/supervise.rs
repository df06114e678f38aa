//! The supervision of VMs on a real node: one task that runs the policy and the runner of `dyad-supervisor`.

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

/// The hidden subcommand of this program that starts a VM: it enters the VM's cgroup and then executes QEMU.
pub const ENTER_CGROUP: &str = "enter-cgroup";

/// Longest delay of the KVM probe, which boots a small VM, after the start of this program. The probe begins earlier with the
/// first command. It is delayed so that it does not slow the start of the node's services, and bounded because the status
/// page shows its result even if there is no VM.
const KVM_PROBE_DELAY: Duration = Duration::from_secs(15);

/// File in the state directory with the result of the KVM probe.
const KVM_PROBE_FILE: &str = "kvm-proof.json";

/// Grace time of guests in seconds if the node shuts down before it has read a document, which holds the pair's grace time.
const SHUTDOWN_GRACE_PERIOD_S: u32 = 60;

/// The reason why no VM can be supervised.
#[derive(Debug, thiserror::Error)]
pub enum SuperviseError {
    /// The path of this program is not known; it is needed to start VMs through [`ENTER_CGROUP`].
    #[error("this program's own path is not known")]
    OwnPath(#[source] io::Error),
    /// The program QEMU cannot be started.
    #[error("{} does not run: install QEMU or give --no-vms", qemu.display())]
    Qemu { qemu: PathBuf, source: io::Error },
    /// QEMU printed no version that this program can parse.
    #[error("QEMU's version is not understood")]
    Version { qemu: PathBuf },
    /// The running VMs could not be found: VMs are not started then, because a VM could run twice.
    #[error("the running VMs could not be found")]
    Adopt(#[from] AdoptError),
}

/// Handle of the supervisor's task.
pub struct QemuSupervisor {
    commands: mpsc::UnboundedSender<SupervisorCommand>,
}

/// A command of the control plane to the supervisor's task.
enum SupervisorCommand {
    SetInput(Box<SupervisorInput>),
    Kill(String),
    ShutDown,
}

impl VmSupervisor for QemuSupervisor {
    fn set_input(&mut self, input: SupervisorInput) {
        // This fails only if the task has ended, and then no input matters.
        let _ = self.commands.send(SupervisorCommand::SetInput(Box::new(input)));
    }
    fn kill(&mut self, name: &str) {
        let _ = self.commands.send(SupervisorCommand::Kill(name.to_owned()));
    }
    fn shut_down(&mut self) {
        let _ = self.commands.send(SupervisorCommand::ShutDown);
    }
}

impl QemuSupervisor {
    /// Starts the supervisor's task, which adopts the running VMs and supervises all VMs.
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
        Ok((Box::new(QemuSupervisor { commands }), reported))
    }
}

fn settings(options: &Options, program: PathBuf, version: QemuVersion, accelerator: Accelerator) -> Settings {
    let cgroup_root = options.cgroup.is_dir().then(|| options.cgroup.clone());
    if cgroup_root.is_none() {
        tracing::warn!("{} does not exist: VMs run in the cgroup of this program", options.cgroup.display());
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

async fn qemu_version(qemu: &Path) -> Result<QemuVersion, SuperviseError> {
    let output = Command::new(qemu).arg("--version").output().await;
    let output = output.map_err(|source| SuperviseError::Qemu { qemu: qemu.to_owned(), source })?;
    let version = QemuVersion::parse(&String::from_utf8_lossy(&output.stdout));
    version.ok_or_else(|| SuperviseError::Version { qemu: qemu.to_owned() })
}

/// The supervisor's task: probes KVM, adopts the running VMs, then executes the policy's plan after each event.
async fn run(
    options: &Options,
    program: PathBuf,
    mut commands: mpsc::UnboundedReceiver<SupervisorCommand>,
    reports: mpsc::UnboundedSender<SupervisorReport>,
) -> Result<(), SuperviseError> {
    // The KVM probe begins with the first command, or after KVM_PROBE_DELAY.
    let mut queue = CommandQueue::default();
    match tokio::time::timeout(KVM_PROBE_DELAY, commands.recv()).await {
        Ok(None) => return Ok(()),
        Ok(Some(command)) => queue.push(command),
        Err(_) => {}
    }
    let version = qemu_version(&options.qemu).await?;
    let trial = accelerator::Trial { qemu: &options.qemu, dir: &options.run };
    let accelerator = accelerator::decide(trial, version, &options.state.join(KVM_PROBE_FILE)).await;
    if accelerator == Accelerator::Tcg {
        tracing::warn!("{}", dyad_api::EMULATION_WARNING);
    }
    let _ = reports.send(SupervisorReport::HardwareVirtualisation(accelerator == Accelerator::Kvm));
    let (mut runner, mut events) = Runner::new(settings(options, program, version, accelerator));
    // The running VMs must be known before a VM is started, so that no VM runs twice.
    runner.adopt()?;
    let mut task = SupervisorTask { runner, input: None, reports, missing_disks: BTreeMap::new() };
    let mut shutting_down = false;
    loop {
        task.report();
        if shutting_down && task.runner.running().is_empty() {
            return Ok(());
        }
        let delay = task.backoff_left().filter(|_| !shutting_down);
        tokio::select! {
            command = queue.next(&mut commands) => match command {
                Some(SupervisorCommand::SetInput(input)) => {
                    if input.authoritative {
                        task.runner.keep_only(|name| input.document.vms.contains_key(name));
                    }
                    task.input = Some(*input);
                }
                Some(SupervisorCommand::Kill(name)) => task.runner.kill(&name),
                Some(SupervisorCommand::ShutDown) => {
                    shutting_down = true;
                    task.shut_down();
                }
                // The control plane has ended, so this program ends too; the VMs keep running.
                None => return Ok(()),
            },
            Some(event) = events.recv() => tracing::info!(vm = event.vm, "{:?}", event.kind),
            () = tokio::time::sleep(delay.unwrap_or_default()), if delay.is_some() => {}
        }
        if !shutting_down {
            task.execute_plan();
        }
    }
}

/// The commands that are not executed yet. Many may arrive while KVM is probed.
#[derive(Default)]
struct CommandQueue(VecDeque<SupervisorCommand>);

impl CommandQueue {
    /// Adds a command. A new input replaces a queued one: an old input may hold a permit that was withdrawn since.
    fn push(&mut self, command: SupervisorCommand) {
        if matches!(command, SupervisorCommand::SetInput(_)) {
            self.0.retain(|old| !matches!(old, SupervisorCommand::SetInput(_)));
        }
        self.0.push_back(command);
    }

    /// The next command; `None` if the control plane has ended.
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

/// State of the supervisor's task.
struct SupervisorTask {
    runner: Runner,
    input: Option<SupervisorInput>,
    reports: mpsc::UnboundedSender<SupervisorReport>,
    /// VMs that wait for a disk that is not served yet, each with the sentence that says so.
    missing_disks: BTreeMap<String, String>,
}

impl SupervisorTask {
    /// Time until the next start of a crashed VM; `None` if no VM waits for one.
    fn backoff_left(&self) -> Option<Duration> {
        let now = dyad_supervisor::now();
        let at = dyad_supervisor::next_wakeup(&self.runner.observed())?;
        // A delay that has passed does not count: such a VM waits for its permit.
        Some(at.since(now)).filter(|left| *left > 0).map(Duration::from_nanos)
    }

    /// Executes the steps that the policy plans for the input and the observed VMs.
    fn execute_plan(&mut self) {
        let Some(input) = self.input.clone() else { return };
        self.missing_disks.clear();
        let observed = self.runner.observed();
        let steps = dyad_supervisor::plan(dyad_supervisor::now(), input.me, &input.document, &input.permits, &observed);
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
            Err(missing) => drop(self.missing_disks.insert(vm.to_owned(), format!("{missing}."))),
        }
    }

    /// Asks all guests to shut down.
    fn shut_down(&mut self) {
        let grace_s =
            self.input.as_ref().map_or(SHUTDOWN_GRACE_PERIOD_S, |input| input.document.policies.shutdown_grace_s);
        for name in self.runner.running() {
            self.runner.shut_down(&name, grace_s);
        }
    }

    /// Reports the state of all VMs to the control plane. Precondition: the plan for the present input was executed, so that
    /// a VM which the input starts is reported with it.
    fn report(&self) {
        let mut all = BTreeMap::new();
        for (name, sentence) in &self.missing_disks {
            all.insert(name.clone(), (VmState::Starting, Some(sentence.clone())));
        }
        for (name, observed) in self.runner.observed() {
            all.insert(name, (vm_state(observed.phase), observed.note));
        }
        let observed = all.into_iter().map(|(name, (state, reason))| {
            let line = self.runner.console(&name).map(|console| Arc::new(ConsoleLine(console)) as Arc<dyn SerialLine>);
            (name, ObservedVm { state, reason, serial: line })
        });
        let generation = self.input.as_ref().map_or(0, |input| input.document.generation);
        let _ = self.reports.send(SupervisorReport::Observed { vms: observed.collect(), generation });
    }
}

fn vm_state(phase: Phase) -> VmState {
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

    fn set_input(permits: &[&str]) -> SupervisorCommand {
        let permits = permits.iter().map(|&vm| vm.to_owned()).collect();
        let node =
            dyad_desired::NodeRecord { name: "left".into(), addresses: vec![], usable_memory_mib: 0, usable_cpus: 0 };
        let document = Arc::new(dyad_desired::Document::new_pair("pair", node, "$argon2id$x").unwrap());
        let me = NodeId::A;
        SupervisorCommand::SetInput(Box::new(SupervisorInput {
            document,
            authoritative: true,
            me,
            permits,
            sockets: BTreeMap::new(),
        }))
    }

    /// Many commands may arrive while KVM is probed, and a permit may be withdrawn meanwhile.
    #[tokio::test]
    async fn only_the_newest_queued_input_is_executed() {
        let (sender, mut commands) = mpsc::unbounded_channel();
        let mut queue = CommandQueue::default();
        queue.push(set_input(&["vm"]));
        for command in [set_input(&["vm", "other"]), SupervisorCommand::Kill("other".into()), set_input(&[])] {
            assert!(sender.send(command).is_ok());
        }
        assert!(matches!(queue.next(&mut commands).await, Some(SupervisorCommand::Kill(_))));
        let Some(SupervisorCommand::SetInput(input)) = queue.next(&mut commands).await else { panic!("an input") };
        assert!(input.permits.is_empty(), "the permit was withdrawn");
        drop(sender);
        assert!(queue.next(&mut commands).await.is_none());
    }
}
