//! Two `dyad-core` processes that form a pair, each in its namespace with a pool disk that is a file.

use std::fs::{self, File};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use dyad_control::{Client, CreatePair, DiskContent, Join, Phase, Reply, Request, Status, TimelineEvent};
use dyad_desired::{Change, Firmware, Intent, VmConfig};
use dyad_rig::child::{Program, Running};
use dyad_rig::wait::{self, Look};
use dyad_types::NodeId;
use rustix::process::{Pid, Resource, Rlimit, prlimit};
use tokio::runtime::Runtime;

use crate::namespaces::{CABLES, Namespaces};

/// Bytes of each pool disk; the files are sparse.
const POOL_DISK: u64 = 1 << 30;
/// Bytes in front of the journal; see `docs/formats.md`.
const LABELS: u64 = 1 << 20;
/// A daemon opens its pool and its socket.
const START_DEADLINE: Duration = Duration::from_secs(60);
/// Two daemons find each other, copy the document and agree.
const FORM_DEADLINE: Duration = Duration::from_secs(240);
/// A hash that no password has: these tests need no login.
const NO_PASSWORD: &str = "$argon2id$v=19$m=8,t=1,p=1$bm9ib2R5bG9nc2lu$bm9ib2R5bG9nc2luaGVyZWF0YWxsMDAwMDAwMDAwMDA";

/// Both daemons with their namespaces, disks and folders.
#[derive(Debug)]
pub struct Cores {
    sides: [Side; 2],
    runtime: Runtime,
    /// The namespaces, to pull cables.
    pub spaces: Namespaces,
}

#[derive(Debug)]
struct Side {
    folder: PathBuf,
    /// The cgroup that stands for its VMs; empty = it has none.
    vms: PathBuf,
    running: Option<Running>,
}

impl Cores {
    /// Starts two blank daemons of `program`, with their files below `folder` (emptied first; a short path, since
    /// sockets are made there).
    ///
    /// # Errors
    /// A daemon does not start.
    pub fn blank(program: &Path, folder: &Path) -> Result<Self> {
        if folder.exists() {
            fs::remove_dir_all(folder).with_context(|| format!("Cannot empty {}.", folder.display()))?;
        }
        let side = |letter: &str| Side { folder: folder.join(letter), vms: PathBuf::new(), running: None };
        let mut cores = Self {
            sides: [side("a"), side("b")],
            runtime: tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?,
            spaces: Namespaces::new()?,
        };
        for number in [0, 1] {
            fs::create_dir_all(&cores.sides[number].folder)?;
            File::create(cores.disk(number))?.set_len(POOL_DISK)?;
            cores.start(program, number)?;
        }
        Ok(cores)
    }

    /// Starts both daemons and forms them into a pair that is in sync.
    ///
    /// # Errors
    /// The pair does not form.
    pub fn pair(program: &Path, folder: &Path) -> Result<Self> {
        let cores = Self::blank(program, folder)?;
        cores.create_pair(0)?;
        cores.join(1)?;
        cores.wait_in_sync()?;
        Ok(cores)
    }

    /// The name of the node on side 0 or 1.
    pub fn name(number: usize) -> &'static str {
        ["left", "right"][number]
    }

    /// Makes side 0 or 1, which is blank, the first node of the pair.
    ///
    /// # Errors
    /// The daemon refuses, or does not reach the phase Running.
    pub fn create_pair(&self, number: usize) -> Result<()> {
        self.ask(number, &Request::CreatePair(self.create_pair_request(number)))?;
        self.wait("the first daemon to work", number, START_DEADLINE, |status| status.quorum.is_some())?;
        Ok(())
    }

    /// The request that makes side 0 or 1 the first node of the pair, without a witness.
    pub fn create_pair_request(&self, number: usize) -> CreatePair {
        CreatePair {
            pair: "lab".into(),
            node: Self::name(number).into(),
            links: CABLES.map(String::from).to_vec(),
            disks: vec![self.disk(number).display().to_string()],
            admin_password_hash: NO_PASSWORD.into(),
            witness: None,
        }
    }

    /// Side 0 or 1, which is blank, joins the pair of the other side.
    ///
    /// # Errors
    /// Either side refuses.
    pub fn join(&self, number: usize) -> Result<()> {
        let join = self.prepare_join(number)?;
        self.ask(number, &Request::Join(join))?;
        Ok(())
    }

    /// The request with which side 0 or 1 joins the pair of the other side, which has opened a code and is heard.
    ///
    /// # Errors
    /// The other side refuses, or is not heard.
    pub fn prepare_join(&self, number: usize) -> Result<Join> {
        let Reply::Code { code, .. } = self.ask(1 - number, &Request::OpenPairingCode)? else {
            bail!("No pairing code.")
        };
        wait::until("the first daemon to be heard", START_DEADLINE, || {
            Ok(match self.ask(number, &Request::Offers)? {
                Reply::Offers { offers } if !offers.is_empty() => Look::Ready(()),
                other => Look::NotYet(format!("{other:?}")),
            })
        })?;
        Ok(Join {
            node: Self::name(number).into(),
            links: CABLES.map(String::from).to_vec(),
            disks: vec![self.disk(number).display().to_string()],
            code,
            offer: None,
        })
    }

    /// Erases side 0 or 1 and starts its daemon again, as init does.
    ///
    /// # Errors
    /// The daemon refuses, does not end, or is not blank after its restart.
    pub fn erase(&mut self, program: &Path, number: usize, confirm: &str) -> Result<()> {
        self.ask(number, &Request::Erase { disk: None, confirm: confirm.into() })?;
        // Its socket goes first; the next daemon must find its disk free.
        let running = self.sides[number].running.as_mut().context("The daemon does not run.")?;
        wait::until("the erased daemon to end", START_DEADLINE, || {
            Ok(if running.ended() { Look::Ready(()) } else { Look::NotYet("it still runs".into()) })
        })?;
        self.start(program, number)?;
        self.wait("the erased daemon to be blank", number, START_DEADLINE, |status| status.phase == Phase::Blank)?;
        Ok(())
    }

    /// Of the pool disk of side 0 or 1: the bytes that were ever written, and when the last one was.
    ///
    /// # Errors
    /// There is no such file.
    pub fn written(&self, number: usize) -> Result<(u64, std::time::SystemTime)> {
        let disk = fs::metadata(self.disk(number))?;
        Ok((disk.blocks() * 512, disk.modified()?))
    }

    /// What side 0 or 1 sees on its pool disk.
    ///
    /// # Errors
    /// It does not answer.
    pub fn content(&self, number: usize) -> Result<DiskContent> {
        match self.ask(number, &Request::Disks)? {
            Reply::Disks { disks } => Ok(disks.into_iter().next().context("There is no disk.")?.content),
            other => bail!("The daemon answered {other:?}."),
        }
    }

    /// Where the daemon of side 0 or 1 keeps its state.
    pub fn state(&self, number: usize) -> PathBuf {
        self.sides[number].folder.join("state")
    }

    /// The control socket of the daemon of side 0 or 1.
    pub fn socket(&self, number: usize) -> PathBuf {
        self.sides[number].folder.join("run/core.sock")
    }

    /// Starts the daemon of side 0 or 1.
    ///
    /// # Errors
    /// It does not answer in time.
    pub fn start(&mut self, program: &Path, number: usize) -> Result<()> {
        let folder = self.sides[number].folder.clone();
        // A disk fails here as a file that may not grow: the write returns an error instead of a signal.
        let mut core = Program::new("env");
        core.args(["--ignore-signal=XFSZ", "ip", "netns", "exec", self.spaces.name(number)]).arg(program);
        core.arg("--state").arg(folder.join("state")).arg("--run").arg(folder.join("run"));
        core.arg("--disk").arg(self.disk(number)).arg("--vms").arg(&self.sides[number].vms);
        self.sides[number].running = Some(core.start(&folder.join("log"))?);
        wait::until_ok("the daemon to answer", START_DEADLINE, || self.status(number))
            .with_context(|| format!("See {}.", folder.join("log").display()))?;
        Ok(())
    }

    /// The VMs of side 0 or 1 are those in this cgroup, from the next start of its daemon on.
    pub fn set_vms(&mut self, number: usize, vms: &Path) {
        self.sides[number].vms = vms.into();
    }

    /// The pool disk of side 0 or 1 fails: its daemon cannot write behind the labels any more.
    ///
    /// # Errors
    /// The daemon does not run.
    pub fn fail_disk(&self, number: usize) -> Result<()> {
        let pid = Pid::from_raw(self.process(number)?.id().cast_signed());
        let limit = Rlimit { current: Some(LABELS), maximum: Some(LABELS) };
        prlimit(pid, Resource::Fsize, limit)?;
        Ok(())
    }

    /// `kill -9` of the daemon of side 0 or 1.
    pub fn kill(&mut self, number: usize) {
        self.sides[number].running = None;
    }

    /// Its process.
    ///
    /// # Errors
    /// It does not run.
    pub fn process(&self, number: usize) -> Result<&Running> {
        self.sides[number].running.as_ref().context("The daemon does not run.")
    }

    /// The pool disk of side 0 or 1.
    pub fn disk(&self, number: usize) -> PathBuf {
        self.sides[number].folder.join("pool.disk")
    }

    /// Asks one daemon.
    ///
    /// # Errors
    /// It does not answer, or refuses.
    pub fn ask(&self, number: usize, request: &Request) -> Result<Reply> {
        let client = Client::new(self.socket(number));
        Ok(self.runtime.block_on(client.ask(request))?)
    }

    /// The status of one daemon.
    ///
    /// # Errors
    /// It does not answer.
    pub fn status(&self, number: usize) -> Result<Status> {
        match self.ask(number, &Request::Status)? {
            Reply::Status(status) => Ok(*status),
            other => bail!("The daemon answered {other:?}."),
        }
    }

    /// The timeline of one daemon since its start, oldest event first.
    ///
    /// # Errors
    /// It does not answer.
    pub fn timeline(&self, number: usize) -> Result<Vec<TimelineEvent>> {
        match self.ask(number, &Request::Timeline { since: 0 })? {
            Reply::Timeline { events } => Ok(events),
            other => bail!("The daemon answered {other:?}."),
        }
    }

    /// Waits until a daemon's status is as wanted.
    ///
    /// # Errors
    /// It is not within `deadline`.
    pub fn wait(
        &self,
        what: &str,
        number: usize,
        deadline: Duration,
        wanted: impl Fn(&Status) -> bool,
    ) -> Result<Status> {
        wait::until(what, deadline, || {
            Ok(match self.status(number) {
                Ok(status) if wanted(&status) => Look::Ready(status),
                other => Look::NotYet(format!("{other:?}")),
            })
        })
    }

    /// Waits until both daemons are in the in-sync set.
    ///
    /// # Errors
    /// They are not in time.
    pub fn wait_in_sync(&self) -> Result<()> {
        for number in [0, 1] {
            self.wait("both daemons to be in sync", number, FORM_DEADLINE, |status| {
                status.quorum.as_ref().is_some_and(|quorum| quorum.members.len() == 2)
            })?;
        }
        Ok(())
    }

    /// Makes a volume of `mib` MiB that side 0 writes, and returns the socket of its device.
    ///
    /// # Errors
    /// The pair refuses, or does not serve it.
    pub fn volume(&self, name: &str, mib: u64) -> Result<PathBuf> {
        self.unused_volume(name, mib)?;
        self.use_volume(name)
    }

    /// Makes a volume of `mib` MiB that side 0 writes and no VM uses.
    ///
    /// # Errors
    /// The pair refuses.
    pub fn unused_volume(&self, name: &str, mib: u64) -> Result<()> {
        let change = Change::CreateVolume { name: name.into(), size: mib << 20, primary: NodeId::A };
        self.ask(0, &Request::Change { change }).map(drop)
    }

    /// Makes a VM on a volume, and returns the socket of the volume's device at side 0.
    ///
    /// # Errors
    /// The pair refuses, or does not serve it.
    pub fn use_volume(&self, name: &str) -> Result<PathBuf> {
        // A device is served for the VM that has it as a disk; the tests never start that VM.
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
        self.served(0, name)
    }

    /// Waits until side 0 or 1 serves the volume, and returns the socket of its device.
    ///
    /// # Errors
    /// It does not in time.
    pub fn served(&self, number: usize, name: &str) -> Result<PathBuf> {
        let socket = |status: &Status| {
            status.volumes.iter().find(|volume| volume.name == name).and_then(|volume| volume.socket.clone())
        };
        let status = self.wait("the volume to be served", number, START_DEADLINE, |status| socket(status).is_some())?;
        Ok(socket(&status).context("The volume has no device.")?.into())
    }
}
