//! Carries out the steps of the policy: starts, stops, kills and finds the VMs of this node.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::io;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use dyad_desired::Firmware;
use tokio::sync::mpsc;

use crate::cgroup::{self, Cgroup, CgroupError};
use crate::command::{Host, VmPaths, command_line};
use crate::console::Console;
use crate::lifecycle::VmEvent;
use crate::machine::{Event, EventKind, Machine, MachineHandle, Reporter, VmCommand, observe};
use crate::process::Process;
use crate::run_record::VmRunRecord;
use crate::{Observed, Phase, VmSpec, now};

/// Suffix, after the VM's name, of the file with its UEFI variables.
const UEFI_VARS_SUFFIX: &str = ".vars";

/// The directories, programs and the cgroup that the runner uses.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Directory with one directory for each VM, for its sockets and its record; emptied by a reboot, for instance
    /// `/run/dyad/vms`.
    pub run_dir: PathBuf,
    /// Directory for files that VMs keep over reboots (UEFI variables), for instance `/state/vms`.
    pub state_dir: PathBuf,
    /// The cgroup below which each VM gets its own, for instance `/sys/fs/cgroup/vms`. `None`: VMs run in the cgroup of
    /// this process, and only their main process is killed; for development hosts without cgroup version 2.
    pub cgroup_root: Option<PathBuf>,
    /// The command that calls [`crate::exec_in_cgroup`]; `CGROUP -- QEMU …` is appended.
    pub launcher: Vec<OsString>,
    /// Template of the UEFI variables, copied for each VM.
    pub ovmf_vars: PathBuf,
    /// The settings of QEMU.
    pub host: Host,
}

/// Reasons for which a VM could not be started.
#[derive(Debug, thiserror::Error)]
pub enum RunnerError {
    /// A file or directory of the VM cannot be created.
    #[error("the VM {vm} needs {path}, which could not be made; check the disk space and the directory")]
    File { vm: String, path: PathBuf, source: io::Error },
    /// The process cannot be started.
    #[error("the process of the VM {vm} could not be started; check that QEMU is installed and memory is free")]
    Spawn { vm: String, source: io::Error },
}

/// Failures of [`Runner::adopt`]. VMs may then run that the runner does not know.
#[derive(Debug, thiserror::Error)]
pub enum AdoptError {
    /// The run directory cannot be created or read.
    #[error("the directory {path} of the running VMs cannot be read")]
    RunDirectory { path: PathBuf, source: io::Error },
    /// A VM process that no record names cannot be killed.
    #[error("the VM {vm}, which no record explains, cannot be killed")]
    Kill { vm: String, source: CgroupError },
}

/// The VMs of this node. Needs a tokio runtime. Dropping the runner leaves the VMs running.
pub struct Runner {
    settings: Settings,
    events: mpsc::UnboundedSender<Event>,
    machines: BTreeMap<String, MachineHandle>,
    /// The last run of each VM that has no [`Machine`]: its process was gone at adoption, or it could not be started.
    ended: BTreeMap<String, Observed>,
    consoles: BTreeMap<String, Console>,
}

impl Runner {
    /// A runner without VMs, and the receiver of its events; every change of a phase is an event.
    #[must_use]
    pub fn new(settings: Settings) -> (Self, mpsc::UnboundedReceiver<Event>) {
        let (events, receiver) = mpsc::unbounded_channel();
        let runner =
            Self { settings, events, machines: BTreeMap::new(), ended: BTreeMap::new(), consoles: BTreeMap::new() };
        (runner, receiver)
    }

    /// Finds the VMs that an earlier runner started. All processes in the cgroup of any other VM are killed, because one of
    /// them could be a second copy of a VM. Called once, before any VM is started.
    ///
    /// # Errors
    ///
    /// The run directory cannot be read, or a cgroup cannot be killed.
    pub fn adopt(&mut self) -> Result<(), AdoptError> {
        let run_dir = &self.settings.run_dir;
        let unreadable = |source| AdoptError::RunDirectory { path: run_dir.clone(), source };
        std::fs::create_dir_all(run_dir).map_err(unreadable)?;
        let entries =
            std::fs::read_dir(run_dir).and_then(Iterator::collect::<io::Result<Vec<_>>>).map_err(unreadable)?;
        let mut known = Vec::new();
        for entry in entries {
            let Ok(name) = entry.file_name().into_string() else { continue };
            let Some(record) = VmRunRecord::load(&self.paths(&name).record_file()) else { continue };
            if self.adopt_one(&name, record) {
                known.push(name);
            }
        }
        let Some(root) = &self.settings.cgroup_root else { return Ok(()) };
        for name in cgroup::names(root).into_iter().filter(|name| !known.contains(name)) {
            let group = Cgroup::new(root, &name);
            if !group.pids().is_empty() {
                tracing::warn!(vm = name, "killing a VM process that no record explains");
                group.kill().map_err(|source| AdoptError::Kill { vm: name.clone(), source })?;
            }
            tokio::spawn(async move { group.remove().await });
        }
        Ok(())
    }

    /// Takes over the process that the record names, or stores that the run has ended. Returns whether there is a process.
    fn adopt_one(&mut self, name: &str, mut record: VmRunRecord) -> bool {
        let cgroup = self.cgroup(name);
        let found = record.process.and_then(|(pid, start)| Process::find(pid, start));
        // Until the record has the pid, the process is known by its cgroup only.
        let found = found.or_else(|| match (&cgroup, record.process) {
            (Some(cgroup), None) => cgroup.pids().first().and_then(|pid| Process::open(*pid).ok()),
            _ => None,
        });
        let reporter = self.reporter(name);
        if let (Some(process), Ok(phase)) = (found, record.phase.after(VmEvent::Adopt)) {
            record.phase = phase;
            record.process = Some((process.pid(), process.start()));
            reporter.report(EventKind::Adopted { pid: process.pid() });
            let machine = Machine {
                paths: self.paths(name),
                cgroup,
                process,
                child: None,
                record,
                console: self.console_or_new(name),
                reporter,
            };
            self.machines.insert(name.to_owned(), machine.launch());
            return true;
        }
        if record.end_unobserved(now()) {
            self.save(name, &record);
        }
        self.ended.insert(name.to_owned(), observe(&record, None));
        false
    }

    /// Starts a VM. Does nothing if it has a process.
    ///
    /// # Errors
    ///
    /// A [`RunnerError`]. The VM is then observed as crashed, with the reason as its note.
    pub fn start(&mut self, spec: &VmSpec) -> Result<(), RunnerError> {
        let before = self.observed_one(&spec.name);
        if before.as_ref().is_some_and(|seen| seen.phase.is_alive()) {
            return Ok(());
        }
        let phase = before.as_ref().map_or(Phase::Absent, |seen| seen.phase);
        debug_assert_eq!(phase.after(VmEvent::Start), Ok(Phase::Starting));
        let mut record = VmRunRecord {
            phase: Phase::Starting,
            since: now(),
            started: now(),
            process: None,
            started_generation: spec.changed,
            crashes: before.map_or(0, |seen| seen.crashes),
            deadline: None,
            note: None,
        };
        self.machines.remove(&spec.name);
        match self.spawn(spec, &record) {
            Ok((child, process)) => {
                record.process = Some((process.pid(), process.start()));
                self.save(&spec.name, &record);
                self.ended.remove(&spec.name);
                let reporter = self.reporter(&spec.name);
                reporter.report(EventKind::Started { pid: process.pid() });
                let machine = Machine {
                    paths: self.paths(&spec.name),
                    cgroup: self.cgroup(&spec.name),
                    process,
                    child: Some(child),
                    record,
                    console: self.console_or_new(&spec.name),
                    reporter,
                };
                self.machines.insert(spec.name.clone(), machine.launch());
                Ok(())
            }
            Err(error) => {
                record.phase = Phase::Crashed;
                record.crashes += 1;
                let note = error.to_string();
                record.note = Some(note.clone());
                self.save(&spec.name, &record);
                self.ended.insert(spec.name.clone(), observe(&record, None));
                let phase = record.phase;
                self.reporter(&spec.name).report(EventKind::Ended { phase, note });
                Err(error)
            }
        }
    }

    /// Stores the record, then starts QEMU in its cgroup.
    fn spawn(&self, spec: &VmSpec, record: &VmRunRecord) -> Result<(Child, Process), RunnerError> {
        let paths = self.paths(&spec.name);
        let file = |path: PathBuf| {
            let vm = spec.name.clone();
            move |source| RunnerError::File { vm, path, source }
        };
        std::fs::create_dir_all(paths.dir()).map_err(file(paths.dir().to_owned()))?;
        record.save(&paths.record_file()).map_err(file(paths.record_file()))?;
        let vars = self.uefi_vars(spec).map_err(file(self.settings.state_dir.clone()))?;
        let log = std::fs::File::create(paths.log_file()).map_err(file(paths.log_file()))?;
        let log_copy = log.try_clone().map_err(file(paths.log_file()))?;
        let mut line = command_line(&self.settings.host, spec, &paths, vars.as_deref());
        if let Some(cgroup) = self.cgroup(&spec.name) {
            cgroup.create().map_err(|error| file(error.path)(error.source))?;
            cgroup.begin_start_boost();
            let mut launched = self.settings.launcher.clone();
            launched.extend([cgroup.dir().into(), "--".into()]);
            launched.append(&mut line);
            line = launched;
        }
        let failed = |source| RunnerError::Spawn { vm: spec.name.clone(), source };
        let mut child = Command::new(&line[0])
            .args(&line[1..])
            .stdin(Stdio::null())
            .stdout(log_copy)
            .stderr(log)
            // A signal to this process group, such as Ctrl-C on a terminal, must not reach the VMs.
            .process_group(0)
            .spawn()
            .map_err(failed)?;
        match Process::open(child.id()) {
            Ok(process) => Ok((child, process)),
            Err(source) => {
                // The process has ended, or it cannot be watched and must not run.
                let _ = child.kill();
                let _ = child.wait();
                Err(failed(source))
            }
        }
    }

    /// The path of the VM's own copy of the UEFI variables, which is created if it does not exist.
    fn uefi_vars(&self, spec: &VmSpec) -> io::Result<Option<PathBuf>> {
        if spec.firmware != Firmware::Uefi {
            return Ok(None);
        }
        let vars = self.uefi_vars_path(&spec.name);
        if !vars.exists() {
            std::fs::create_dir_all(&self.settings.state_dir)?;
            let fresh = std::fs::read(&self.settings.ovmf_vars)?;
            dyad_atomic_file::replace_with_mode(&vars, &fresh, dyad_atomic_file::PUBLIC)?;
        }
        Ok(Some(vars))
    }

    /// Asks the guest to shut down, and kills it after `grace_s` seconds. Does nothing for a VM without a process.
    pub fn shut_down(&mut self, name: &str, grace_s: u32) {
        let deadline = now() + u64::from(grace_s) * 1_000_000_000;
        self.send(name, VmCommand::ShutDown { deadline });
    }

    /// Kills the VM. Does nothing for a VM without a process.
    pub fn kill(&mut self, name: &str) {
        self.send(name, VmCommand::Kill);
    }

    fn send(&self, name: &str, command: VmCommand) {
        if let Some(machine) = self.machines.get(name) {
            // Fails only if the process has ended, and the task with it.
            let _ = machine.commands.send(command);
        }
    }

    /// Drops the stored last run and the run directory of a VM without a process.
    pub fn forget(&mut self, name: &str) {
        if self.observed_one(name).is_some_and(|seen| seen.phase.is_alive()) {
            return;
        }
        self.machines.remove(name);
        self.ended.remove(name);
        let dir = self.paths(name).dir().to_owned();
        if let Err(error) = std::fs::remove_dir_all(dir)
            && error.kind() != io::ErrorKind::NotFound
        {
            tracing::warn!(vm = name, %error, "a VM's run directory could not be removed");
        }
    }

    /// Forgets a deleted VM and removes all its files on this node.
    pub fn delete(&mut self, name: &str) {
        self.forget(name);
        self.consoles.remove(name);
        let _ = std::fs::remove_file(self.uefi_vars_path(name));
    }

    /// Deletes every VM that is not in `known` and has no process, so that a later VM of the same name gets neither its
    /// output nor its UEFI variables. A VM that was deleted and created again between two calls keeps both.
    pub fn keep_only(&mut self, known: impl Fn(&str) -> bool) {
        let kept = std::fs::read_dir(&self.settings.state_dir).into_iter().flatten().flatten();
        let vars =
            kept.filter_map(|entry| entry.file_name().to_str()?.strip_suffix(UEFI_VARS_SUFFIX).map(str::to_owned));
        let mut names: BTreeSet<String> = vars.chain(self.consoles.keys().cloned()).collect();
        names.retain(|name| !name.is_empty() && !known(name));
        for name in self.running() {
            names.remove(&name);
        }
        for name in names {
            self.delete(&name);
        }
    }

    /// State of each VM that has a process or a stored last run, by name.
    #[must_use]
    pub fn observed(&self) -> BTreeMap<String, Observed> {
        let mut all = self.ended.clone();
        for (name, machine) in &self.machines {
            all.insert(name.clone(), machine.observed.borrow().clone());
        }
        all
    }

    fn observed_one(&self, name: &str) -> Option<Observed> {
        let machine = self.machines.get(name).map(|machine| machine.observed.borrow().clone());
        machine.or_else(|| self.ended.get(name).cloned())
    }

    /// Names of the VMs that have a process.
    #[must_use]
    pub fn running(&self) -> Vec<String> {
        let all = self.observed().into_iter();
        all.filter(|(_, seen)| seen.phase.is_alive()).map(|(name, _)| name).collect()
    }

    /// The serial line of a VM that this runner has started or found.
    #[must_use]
    pub fn console(&self, name: &str) -> Option<Console> {
        self.consoles.get(name).cloned()
    }

    /// Path of the VNC socket of a VM that has a process.
    #[must_use]
    pub fn vnc_socket(&self, name: &str) -> Option<PathBuf> {
        let alive = self.observed_one(name).is_some_and(|seen| seen.phase.is_alive());
        alive.then(|| self.paths(name).vnc_socket())
    }

    fn console_or_new(&mut self, name: &str) -> Console {
        self.consoles.entry(name.to_owned()).or_insert_with(Console::new).clone()
    }

    fn paths(&self, name: &str) -> VmPaths {
        VmPaths::new(self.settings.run_dir.join(name))
    }

    fn uefi_vars_path(&self, name: &str) -> PathBuf {
        self.settings.state_dir.join(format!("{name}{UEFI_VARS_SUFFIX}"))
    }

    fn cgroup(&self, name: &str) -> Option<Cgroup> {
        self.settings.cgroup_root.as_deref().map(|root| Cgroup::new(root, name))
    }

    fn reporter(&self, name: &str) -> Reporter {
        Reporter { vm: name.to_owned(), events: self.events.clone() }
    }

    fn save(&self, name: &str, record: &VmRunRecord) {
        if let Err(error) = record.save(&self.paths(name).record_file()) {
            tracing::warn!(vm = name, %error, "a VM's record could not be written; a restart would not find it");
        }
    }
}
