//! Two `dyad-core` processes that form a pair, each in a network namespace of its own, with a file as pool disk. The
//! two are called sides 0 and 1.

use std::fs::{self, File};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use dyad_control::{Client, CreatePair, DiskContent, Join, Phase, Reply, Request, Status, TimelineEvent};
use dyad_desired::{Change, Firmware, Intent, VmConfig};
use dyad_rig::child::{Program, RunningProgram};
use dyad_rig::wait::{self, Poll};
use dyad_types::NodeId;
use rustix::process::{Pid, Resource, Rlimit, prlimit};
use tokio::runtime::Runtime;

use crate::freezable_folder::{self, FreezableFolder};
use crate::namespaces::{CABLES, Namespaces};

/// Bytes of each pool disk; the files are sparse.
const POOL_DISK_BYTES: u64 = 1 << 30;
/// Bytes of a pool disk in front of the journal, which hold labels only (`docs/formats.md`).
const LABEL_BYTES: u64 = 1 << 20;
/// Longest time until a started daemon answers, or shows a state that needs no other daemon.
const START_DEADLINE: Duration = Duration::from_secs(60);
/// Longest time until a daemon answers a request. A setup formats a disk; a change may wait for a fence.
const ANSWER_DEADLINE: Duration = Duration::from_secs(180);
/// Longest time until two daemons find each other, copy the document, and are both in sync.
const IN_SYNC_DEADLINE: Duration = Duration::from_secs(240);
/// An Argon2id hash to which no known password belongs: these tests need no login.
const UNUSABLE_PASSWORD_HASH: &str =
    "$argon2id$v=19$m=8,t=1,p=1$bm9ib2R5bG9nc2lu$bm9ib2R5bG9nc2luaGVyZWF0YWxsMDAwMDAwMDAwMDA";

/// Both daemons with their namespaces, disks and folders. Dropping it kills the daemons and removes the namespaces.
#[derive(Debug)]
pub struct CoreDaemons {
    sides: [Side; 2],
    runtime: Runtime,
    /// The network namespaces and the cables between them.
    pub namespaces: Namespaces,
}

/// One daemon and its files.
#[derive(Debug)]
struct Side {
    folder: PathBuf,
    /// The cgroup that the daemon takes for that of its VMs; empty = none.
    vm_cgroup: PathBuf,
    running: Option<RunningProgram>,
}

impl CoreDaemons {
    /// Starts two daemons without a pair. `program` is `dyad-core`; `folder` is emptied and then holds their files. Its
    /// path must be short, because sockets are created there.
    ///
    /// # Errors
    /// A namespace or file cannot be created, or a daemon does not answer in time.
    pub fn blank(program: &Path, folder: &Path) -> Result<Self> {
        empty(folder)?;
        Self::blank_in(program, folder)
    }

    /// As [`CoreDaemons::blank`], and the pool disk of each side lies in a file system of its own.
    ///
    /// # Errors
    /// As [`CoreDaemons::blank`] and [`FreezableFolder::new`].
    pub fn blank_on_freezable_disks(program: &Path, folder: &Path) -> Result<(Self, [FreezableFolder; 2])> {
        empty(folder)?;
        let mount = |letter: &str| {
            fs::create_dir_all(folder.join(letter))?;
            let image = folder.join(letter).join("disk.image");
            FreezableFolder::new(&image, POOL_DISK_BYTES * 5 / 4, &disk_folder(&folder.join(letter)))
        };
        let disks = [mount("a")?, mount("b")?];
        Ok((Self::blank_in(program, folder)?, disks))
    }

    fn blank_in(program: &Path, folder: &Path) -> Result<Self> {
        let side = |letter: &str| Side { folder: folder.join(letter), vm_cgroup: PathBuf::new(), running: None };
        let mut daemons = Self {
            sides: [side("a"), side("b")],
            runtime: tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?,
            namespaces: Namespaces::new()?,
        };
        for number in [0, 1] {
            fs::create_dir_all(disk_folder(&daemons.sides[number].folder))?;
            File::create(daemons.disk(number))?.set_len(POOL_DISK_BYTES)?;
            daemons.start(program, number)?;
        }
        Ok(daemons)
    }

    /// Starts two daemons, forms a pair of them, and waits until both are in sync.
    ///
    /// # Errors
    /// The pair does not form.
    pub fn pair(program: &Path, folder: &Path) -> Result<Self> {
        let daemons = Self::blank(program, folder)?;
        daemons.create_pair(0)?;
        daemons.join(1)?;
        daemons.wait_in_sync()?;
        Ok(daemons)
    }

    /// Node name that side 0 or 1 gets at setup.
    pub fn name(number: usize) -> &'static str {
        ["left", "right"][number]
    }

    /// Makes side 0 or 1, which is blank, the first node of a pair, and waits until its status has a quorum part.
    ///
    /// # Errors
    /// The daemon refuses, or is not set up in time.
    pub fn create_pair(&self, number: usize) -> Result<()> {
        self.ask(number, &Request::CreatePair(self.create_pair_request(number)))?;
        self.wait("the first daemon to work", number, START_DEADLINE, |status| status.quorum.is_some())?;
        Ok(())
    }

    /// The request that makes side 0 or 1 the first node of a pair without a witness.
    pub fn create_pair_request(&self, number: usize) -> CreatePair {
        CreatePair {
            pair: "lab".into(),
            node: Self::name(number).into(),
            links: CABLES.map(String::from).to_vec(),
            disks: vec![self.disk(number).display().to_string()],
            admin_password_hash: UNUSABLE_PASSWORD_HASH.into(),
            witness: None,
        }
    }

    /// Joins side 0 or 1, which is blank, to the pair of the other side.
    ///
    /// # Errors
    /// Either side refuses.
    pub fn join(&self, number: usize) -> Result<()> {
        let join = self.prepare_join(number)?;
        self.ask(number, &Request::Join(join))?;
        Ok(())
    }

    /// Opens a pairing code on the other side, waits until side 0 or 1 receives its offer, and returns the request to
    /// join.
    ///
    /// # Errors
    /// The other side refuses, or its offer does not arrive in time.
    pub fn prepare_join(&self, number: usize) -> Result<Join> {
        let Reply::Code { code, .. } = self.ask(1 - number, &Request::OpenPairingCode)? else {
            bail!("No pairing code.")
        };
        wait::until("the first daemon to be heard", START_DEADLINE, || {
            Ok(match self.ask(number, &Request::Offers)? {
                Reply::Offers { offers } if !offers.is_empty() => Poll::Ready(()),
                other => Poll::NotYet(format!("{other:?}")),
            })
        })?;
        Ok(Join {
            node: Self::name(number).into(),
            links: CABLES.map(String::from).to_vec(),
            disks: vec![self.disk(number).display().to_string()],
            code,
            pair_id: None,
        })
    }

    /// Erases side 0 or 1 with `confirm` as the typed confirmation, waits until the daemon ends, and starts it again.
    ///
    /// # Errors
    /// The daemon refuses, does not end, or is not blank after its restart.
    pub fn erase(&mut self, program: &Path, number: usize, confirm: &str) -> Result<()> {
        self.ask(number, &Request::Erase { disk: None, confirm: confirm.into() })?;
        // The old daemon must have released the disk before the new one opens it.
        let running = self.sides[number].running.as_mut().context("The daemon does not run.")?;
        wait::until("the erased daemon to end", START_DEADLINE, || {
            Ok(if running.ended() { Poll::Ready(()) } else { Poll::NotYet("it still runs".into()) })
        })?;
        self.start(program, number)?;
        self.wait("the erased daemon to be blank", number, START_DEADLINE, |status| status.phase == Phase::Blank)?;
        Ok(())
    }

    /// Allocated bytes of the pool disk of side 0 or 1, and the time of its last modification.
    ///
    /// # Errors
    /// The file cannot be read.
    pub fn disk_usage(&self, number: usize) -> Result<(u64, std::time::SystemTime)> {
        let disk = fs::metadata(self.disk(number))?;
        Ok((disk.blocks() * 512, disk.modified()?))
    }

    /// Content of the pool disk of side 0 or 1 as its daemon reports it: blank, a pool, or foreign data.
    ///
    /// # Errors
    /// The daemon does not answer.
    pub fn disk_content(&self, number: usize) -> Result<DiskContent> {
        match self.ask(number, &Request::Disks)? {
            Reply::Disks { disks } => Ok(disks.into_iter().next().context("There is no disk.")?.content),
            other => bail!("The daemon answered {other:?}."),
        }
    }

    /// State folder of the daemon of side 0 or 1.
    pub fn state(&self, number: usize) -> PathBuf {
        self.sides[number].folder.join("state")
    }

    /// The control socket of the daemon of side 0 or 1.
    pub fn socket(&self, number: usize) -> PathBuf {
        self.sides[number].folder.join("run/core.sock")
    }

    /// Starts the daemon of side 0 or 1 and waits until it answers.
    ///
    /// # Errors
    /// The daemon does not answer in time.
    pub fn start(&mut self, program: &Path, number: usize) -> Result<()> {
        let folder = self.sides[number].folder.clone();
        // `fail_disk` limits the file size. With SIGXFSZ ignored, a write behind the limit returns an error and does
        // not kill the daemon.
        let mut core = Program::new("env");
        core.args(["--ignore-signal=XFSZ", "ip", "netns", "exec", self.namespaces.name(number)]).arg(program);
        core.arg("--state").arg(folder.join("state")).arg("--run").arg(folder.join("run"));
        core.arg("--disk").arg(self.disk(number)).arg("--vms").arg(&self.sides[number].vm_cgroup);
        self.sides[number].running = Some(core.start(&folder.join("log"))?);
        wait::until_ok("the daemon to answer", START_DEADLINE, || self.status(number))
            .with_context(|| format!("See {}.", folder.join("log").display()))?;
        Ok(())
    }

    /// Sets the cgroup that the daemon of side 0 or 1 takes for that of its VMs, from its next start on.
    pub fn set_vm_cgroup(&mut self, number: usize, cgroup: &Path) {
        self.sides[number].vm_cgroup = cgroup.into();
    }

    /// Makes the pool disk of side 0 or 1 fail: writes of its daemon behind the labels return an error from now on.
    ///
    /// # Errors
    /// The daemon does not run.
    pub fn fail_disk(&self, number: usize) -> Result<()> {
        let pid = Pid::from_raw(self.process(number)?.id().cast_signed());
        let limit = Rlimit { current: Some(LABEL_BYTES), maximum: Some(LABEL_BYTES) };
        prlimit(pid, Resource::Fsize, limit)?;
        Ok(())
    }

    /// Kills the daemon of side 0 or 1 with SIGKILL.
    pub fn kill(&mut self, number: usize) {
        self.sides[number].running = None;
    }

    /// Process of the daemon of side 0 or 1.
    ///
    /// # Errors
    /// The daemon does not run.
    pub fn process(&self, number: usize) -> Result<&RunningProgram> {
        self.sides[number].running.as_ref().context("The daemon does not run.")
    }

    /// The same, to ask whether it has ended.
    ///
    /// # Errors
    /// The daemon was not started.
    pub fn process_mut(&mut self, number: usize) -> Result<&mut RunningProgram> {
        self.sides[number].running.as_mut().with_context(|| format!("Daemon {number} does not run."))
    }

    /// Path of the file that is the pool disk of side 0 or 1.
    pub fn disk(&self, number: usize) -> PathBuf {
        disk_folder(&self.sides[number].folder).join("pool.disk")
    }

    /// Sends a request to the daemon of side 0 or 1 and returns its reply.
    ///
    /// # Errors
    /// The daemon does not answer, or refuses.
    pub fn ask(&self, number: usize, request: &Request) -> Result<Reply> {
        let client = Client::new(self.socket(number));
        let answer = async { tokio::time::timeout(ANSWER_DEADLINE, client.ask(request)).await };
        Ok(self.runtime.block_on(answer).context("The daemon does not answer.")??)
    }

    /// Status of the daemon of side 0 or 1.
    ///
    /// # Errors
    /// The daemon does not answer.
    pub fn status(&self, number: usize) -> Result<Status> {
        match self.ask(number, &Request::Status)? {
            Reply::Status(status) => Ok(*status),
            other => bail!("The daemon answered {other:?}."),
        }
    }

    /// Timeline of the daemon of side 0 or 1 since its start, oldest event first.
    ///
    /// # Errors
    /// The daemon does not answer.
    pub fn timeline(&self, number: usize) -> Result<Vec<TimelineEvent>> {
        match self.ask(number, &Request::Timeline { since: 0 })? {
            Reply::Timeline { events } => Ok(events),
            other => bail!("The daemon answered {other:?}."),
        }
    }

    /// Waits until `wanted` is true of the status of side 0 or 1; `what` names the condition.
    ///
    /// # Errors
    /// The deadline passed.
    pub fn wait(
        &self,
        what: &str,
        number: usize,
        deadline: Duration,
        wanted: impl Fn(&Status) -> bool,
    ) -> Result<Status> {
        wait::until(what, deadline, || {
            Ok(match self.status(number) {
                Ok(status) if wanted(&status) => Poll::Ready(status),
                other => Poll::NotYet(format!("{other:?}")),
            })
        })
    }

    /// Waits until both daemons report that both nodes are in the in-sync set.
    ///
    /// # Errors
    /// The deadline passed.
    pub fn wait_in_sync(&self) -> Result<()> {
        for number in [0, 1] {
            self.wait("both daemons to be in sync", number, IN_SYNC_DEADLINE, |status| {
                status.quorum.as_ref().is_some_and(|quorum| quorum.members.len() == 2)
            })?;
        }
        Ok(())
    }

    /// Creates a volume of `mib` MiB and a VM on it, and returns the socket of the volume's device at side 0.
    ///
    /// # Errors
    /// The pair refuses, or does not serve the device in time.
    pub fn create_volume_with_vm(&self, name: &str, mib: u64) -> Result<PathBuf> {
        self.create_volume(name, mib)?;
        self.create_vm_on(name)
    }

    /// Creates a volume of `mib` MiB whose primary is node A, without a VM.
    ///
    /// # Errors
    /// The pair refuses.
    pub fn create_volume(&self, name: &str, mib: u64) -> Result<()> {
        let change = Change::CreateVolume { name: name.into(), size: mib << 20, primary: NodeId::A };
        self.ask(0, &Request::Change { change }).map(drop)
    }

    /// Creates a VM on a volume, and returns the socket of the volume's device at side 0.
    ///
    /// # Errors
    /// The pair refuses, or does not serve the device in time.
    pub fn create_vm_on(&self, name: &str) -> Result<PathBuf> {
        // A volume's device is served only if a VM has the volume as a disk. No part of these tests starts the VM.
        let vm = VmConfig {
            cpus: 1,
            memory_mib: 64,
            firmware: Firmware::Bios,
            disks: vec![name.into()],
            node: NodeId::A,
            intent: Intent::Running,
            priority: 50,
            ha: true,
        };
        self.ask(0, &Request::Change { change: Change::CreateVm { name: name.into(), vm } })?;
        self.wait_for_device(0, name)
    }

    /// Waits until side 0 or 1 serves the volume, and returns the socket of its device.
    ///
    /// # Errors
    /// The deadline passed.
    pub fn wait_for_device(&self, number: usize, name: &str) -> Result<PathBuf> {
        let socket = |status: &Status| {
            status.volumes.iter().find(|volume| volume.name == name).and_then(|volume| volume.socket.clone())
        };
        let status = self.wait("the volume to be served", number, START_DEADLINE, |status| socket(status).is_some())?;
        Ok(socket(&status).context("The volume has no device.")?.into())
    }
}

fn empty(folder: &Path) -> Result<()> {
    if folder.exists() {
        for side in ["a", "b"] {
            freezable_folder::thaw_and_unmount(&disk_folder(&folder.join(side)));
        }
        fs::remove_dir_all(folder).with_context(|| format!("Cannot empty {}.", folder.display()))?;
    }
    Ok(())
}

/// The folder of the pool disk, within the folder of a side.
fn disk_folder(side: &Path) -> PathBuf {
    side.join("disk")
}
