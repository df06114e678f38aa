//! The VMs of a real node: the supervisor's policy and runner, in a task of their own.

use std::{
    collections::{BTreeMap, VecDeque},
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use anyhow::Context;
use bytes::Bytes;
use dyad_api::VmState;
use dyad_supervisor::{
    Accelerator, Console, Phase, Runner, Settings, Step, VmSpec, accelerator,
    command::{Host, Version},
};
use tokio::{
    process::Command,
    sync::{broadcast, mpsc},
};

use crate::{
    Options,
    snapshot::{Observed, SerialLine},
    vms::{Report, Started, Vms, Wanted},
};

/// The hidden subcommand with which a VM enters its cgroup before its first instruction.
pub const ENTER_CGROUP: &str = "enter-cgroup";

/// A node whose document is not there yet tries out its hardware after this time all the same, for its status page.
const KVM_PROBE_DELAY: Duration = Duration::from_secs(15);

/// In the state directory: that KVM works here.
const PROOF: &str = "kvm-proof.json";

/// Seconds a guest gets to shut down when the node goes down and no document says otherwise.
const SHUTDOWN_GRACE_PERIOD_S: u32 = 60;

/// The way to the task.
pub struct Supervisor {
    orders: mpsc::UnboundedSender<SupervisorCommand>,
}

enum SupervisorCommand {
    Want(Box<Wanted>),
    Kill(String),
    ShutDown,
}

impl Vms for Supervisor {
    fn want(&mut self, wanted: Wanted) {
        // The task lives until it was told to shut down: then nothing is wanted any more.
        let _ = self.orders.send(SupervisorCommand::Want(Box::new(wanted)));
    }
    fn kill(&mut self, name: &str) {
        let _ = self.orders.send(SupervisorCommand::Kill(name.to_owned()));
    }
    fn shut_down(&mut self) {
        let _ = self.orders.send(SupervisorCommand::ShutDown);
    }
}

impl Supervisor {
    /// Finds running VMs and supervises them from now on.
    ///
    /// # Errors
    /// This program does not know its own path.
    pub fn start(options: &Options) -> anyhow::Result<Started> {
        let program = std::env::current_exe().context("this program's own path is not known")?;
        let (orders, receiver) = mpsc::unbounded_channel();
        let (reports, reported) = mpsc::unbounded_channel();
        let options = options.clone();
        tokio::spawn(async move {
            if let Err(error) = run(&options, program, receiver, reports).await {
                tracing::error!("no VM can be supervised: {error:#}");
            }
        });
        Ok((Box::new(Supervisor { orders }), reported))
    }
}

fn settings(options: &Options, program: PathBuf, version: Version, accelerator: Accelerator) -> Settings {
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

async fn version(qemu: &Path) -> anyhow::Result<Version> {
    let output = Command::new(qemu)
        .arg("--version")
        .output()
        .await
        .with_context(|| format!("{} does not run: install QEMU or give --no-vms", qemu.display()))?;
    Version::parse(&String::from_utf8_lossy(&output.stdout)).context("QEMU's version is not understood")
}

/// The task: tries out the accelerator, finds running VMs, then does what is planned after each event.
async fn run(
    options: &Options,
    program: PathBuf,
    mut orders: mpsc::UnboundedReceiver<SupervisorCommand>,
    reports: mpsc::UnboundedSender<Report>,
) -> anyhow::Result<()> {
    // The trial runs a VM, and a node that has just started has better things to do until somebody wants one.
    let mut backlog = Backlog::default();
    match tokio::time::timeout(KVM_PROBE_DELAY, orders.recv()).await {
        Ok(None) => return Ok(()),
        Ok(Some(order)) => backlog.push(order),
        Err(_) => {}
    }
    let version = version(&options.qemu).await?;
    let found = accelerator::decide(&options.qemu, version, &options.run, &options.state.join(PROOF)).await;
    if found == Accelerator::Tcg {
        tracing::warn!("{}", dyad_api::EMULATED);
    }
    let _ = reports.send(Report::Hardware(found == Accelerator::Kvm));
    let (mut runner, mut events) = Runner::new(settings(options, program, version, found));
    // Without knowing what runs, nothing may be started.
    runner.adopt().context("the running VMs could not be found")?;
    let mut task = Task { runner, wanted: None, reports, missing: BTreeMap::new() };
    let mut ending = false;
    loop {
        task.report();
        if ending && task.runner.running().is_empty() {
            return Ok(());
        }
        let due = task.due().filter(|_| !ending);
        tokio::select! {
            order = backlog.next(&mut orders) => match order {
                Some(SupervisorCommand::Want(wanted)) => {
                    if wanted.rules {
                        task.runner.keep_only(|name| wanted.document.vms.contains_key(name));
                    }
                    task.wanted = Some(*wanted);
                }
                Some(SupervisorCommand::Kill(name)) => task.runner.kill(&name),
                Some(SupervisorCommand::ShutDown) => {
                    ending = true;
                    task.shut_down();
                }
                // The owner is gone: this program ends, the VMs do not.
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

/// Orders that came and were not carried out yet: while KVM is tried out, many may come.
#[derive(Default)]
struct Backlog(VecDeque<SupervisorCommand>);

impl Backlog {
    /// What was wanted before no longer counts: a permit in it may have been taken back.
    fn push(&mut self, order: SupervisorCommand) {
        if matches!(order, SupervisorCommand::Want(_)) {
            self.0.retain(|old| !matches!(old, SupervisorCommand::Want(_)));
        }
        self.0.push_back(order);
    }

    async fn next(&mut self, orders: &mut mpsc::UnboundedReceiver<SupervisorCommand>) -> Option<SupervisorCommand> {
        if self.0.is_empty() {
            self.push(orders.recv().await?);
        }
        while let Ok(order) = orders.try_recv() {
            self.push(order);
        }
        self.0.pop_front()
    }
}

struct Task {
    runner: Runner,
    wanted: Option<Wanted>,
    reports: mpsc::UnboundedSender<Report>,
    /// VMs that wait for a disk, and the sentence.
    missing: BTreeMap<String, String>,
}

impl Task {
    /// Time until a back-off ends, if one runs.
    fn due(&self) -> Option<Duration> {
        let now = dyad_supervisor::now();
        let at = dyad_supervisor::next_wakeup(&self.runner.observed())?;
        // One that is over and still does not start waits for a permit, not for the time.
        at.checked_sub(now).filter(|left| *left > 0).map(Duration::from_nanos)
    }

    fn act(&mut self) {
        let Some(wanted) = self.wanted.clone() else { return };
        self.missing.clear();
        let seen = self.runner.observed();
        let steps = dyad_supervisor::plan(dyad_supervisor::now(), wanted.me, &wanted.document, &wanted.permits, &seen);
        for step in steps {
            match step {
                Step::Kill(vm) => self.runner.kill(&vm),
                Step::ShutDown { vm, grace_s } => self.runner.shut_down(&vm, grace_s),
                Step::RecordGuestShutDown(vm) => drop(self.reports.send(Report::GuestShutDown(vm))),
                Step::Forget(vm) if wanted.document.vms.contains_key(&vm) => self.runner.forget(&vm),
                Step::Forget(vm) => self.runner.delete(&vm),
                Step::Start(vm) => self.start(&wanted, &vm),
            }
        }
    }

    fn start(&mut self, wanted: &Wanted, vm: &str) {
        match VmSpec::from_document(vm, &wanted.document, |id| wanted.sockets.get(&id).cloned()) {
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
        let grace_s = self.wanted.as_ref().map_or(SHUTDOWN_GRACE_PERIOD_S, |w| w.document.policies.shutdown_grace_s);
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
            let line = self.runner.console(&name).map(|console| Arc::new(Line(console)) as Arc<dyn SerialLine>);
            (name, Observed { state, reason, serial: line })
        });
        let _ = self.reports.send(Report::Observed(observed.collect()));
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

struct Line(Console);

impl SerialLine for Line {
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
        let document = Arc::new(dyad_desired::Document::found("pair", node, "$argon2id$x").unwrap());
        let me = NodeId::A;
        SupervisorCommand::Want(Box::new(Wanted { document, rules: true, me, permits, sockets: BTreeMap::new() }))
    }

    /// Many orders come while KVM is tried out, and a permit may be taken back meanwhile.
    #[tokio::test]
    async fn only_the_newest_wish_counts() {
        let (sender, mut orders) = mpsc::unbounded_channel();
        let mut backlog = Backlog::default();
        backlog.push(want(&["vm"]));
        for order in [want(&["vm", "other"]), SupervisorCommand::Kill("other".into()), want(&[])] {
            assert!(sender.send(order).is_ok());
        }
        assert!(matches!(backlog.next(&mut orders).await, Some(SupervisorCommand::Kill(_))));
        let Some(SupervisorCommand::Want(wanted)) = backlog.next(&mut orders).await else {
            panic!("something is wanted")
        };
        assert!(wanted.permits.is_empty(), "the permit was taken back");
        drop(sender);
        assert!(backlog.next(&mut orders).await.is_none());
    }
}
