//! Fixture: a runner with one VM, whose files are in a temporary directory.

use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bytes::Bytes;
use dyad_blockdev::{Backend, ReplyTo, Request, Server};
use dyad_desired::Firmware;
use dyad_supervisor::cgroup::Cgroup;
use dyad_supervisor::command::{Host, QemuVersion};
use dyad_supervisor::{
    Accelerator, Disk, Event, EventKind, Observed, Phase, Runner, Settings, Subscription, VmNetwork, VmSpec,
};
use tokio::sync::mpsc;

/// The program QEMU; `DYAD_TEST_QEMU` may name another one, such as that of the image.
pub fn qemu() -> PathBuf {
    std::env::var_os("DYAD_TEST_QEMU").map_or_else(|| "/usr/bin/qemu-system-x86_64".into(), PathBuf::from)
}

pub const VM: &str = "vm";
/// Upper bound of each wait: an emulated boot on a busy machine.
const TEST_TIMEOUT: Duration = Duration::from_secs(60);

/// A boot sector that prints "hello", echoes its input, and prints "bye" and shuts down through ACPI when it reads `q`
/// or the power button is pressed.
const RESPONSIVE_GUEST: [u8; 84] = [
    0x31, 0xc0, 0x8e, 0xd8, //             ds = 0
    0xba, 0x02, 0x06, 0xb8, 0x00, 0x01, 0xef, // PM1 enable (0x602) = power button
    0xbe, 0x46, 0x7c, 0xe8, 0x29, 0x00, // print hello
    0xba, 0xfd, 0x03, 0xec, 0xa8, 0x01, 0x74, 0x09, // loop: has the serial line (0x3f8) input?
    0xba, 0xf8, 0x03, 0xec, 0x3c, 0x71, 0x74, 0x0a, 0xee, // q: off, else echo
    0xba, 0x00, 0x06, 0xed, 0xf6, 0xc4, 0x01, 0x74, 0xe6, // PM1 status (0x600): power button? else loop
    0xbe, 0x4e, 0x7c, 0xe8, 0x09, 0x00, // off: print bye
    0xba, 0x04, 0x06, 0xb8, 0x00, 0x20, 0xef, 0xeb, 0xfe, // PM1 control (0x604) = sleep enable, type S5
    0xba, 0xf8, 0x03, 0xac, 0x84, 0xc0, 0x74, 0x03, 0xee, 0xeb, 0xf8, 0xc3, // print: bytes at si up to 0
    b'h', b'e', b'l', b'l', b'o', b'\r', b'\n', 0, b'b', b'y', b'e', b'\r', b'\n', 0,
];

/// A boot sector that prints "x" and ignores its input and the power button.
pub const UNRESPONSIVE_GUEST: [u8; 9] = [
    0xba, 0xf8, 0x03, 0xb0, b'x', 0xee, // x to the serial line
    0xf4, 0xeb, 0xfd, // halt for ever
];

/// The VM's disk, in memory.
struct BootDisk(Mutex<Vec<u8>>);

impl Backend for BootDisk {
    fn submit(&self, request: Request, reply_to: ReplyTo) {
        let mut data = self.0.lock().unwrap();
        let read = match request {
            Request::Read { offset, len } => Bytes::copy_from_slice(&data[offset as usize..][..len as usize]),
            Request::Write { offset, data: new } => {
                data[offset as usize..][..new.len()].copy_from_slice(&new);
                Bytes::new()
            }
            Request::Flush => Bytes::new(),
            Request::Discard { offset, len } | Request::WriteZeroes { offset, len } => {
                data[offset as usize..][..len as usize].fill(0);
                Bytes::new()
            }
        };
        drop(data);
        reply_to.complete(Ok(read));
    }

    fn size(&self) -> u64 {
        self.0.lock().unwrap().len() as u64
    }
}

pub struct Node {
    pub runner: Runner,
    pub settings: Settings,
    events: mpsc::UnboundedReceiver<Event>,
    /// Events that were received and that no test has waited for yet.
    received: Vec<EventKind>,
    socket: PathBuf,
    /// The cgroup root that was created for this fixture; the settings of a test may name none.
    created_cgroup_root: Option<PathBuf>,
    _disk: dyad_blockdev::ServerHandle,
    _dir: tempfile::TempDir,
}

impl Node {
    pub fn new() -> Self {
        Self::with_code(&RESPONSIVE_GUEST)
    }

    pub fn with_code(code: &[u8]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let socket = dir.path().join("disk.sock");
        let mut disk = vec![0; 1 << 20];
        disk[..code.len()].copy_from_slice(code);
        disk[510..512].copy_from_slice(&[0x55, 0xaa]);
        let backend = Arc::new(BootDisk(Mutex::new(disk)));
        let handle = Server::start(&socket, backend, dyad_blockdev::Config::new("boot")).unwrap();
        let settings = Settings {
            run_dir: dir.path().join("vms"),
            state_dir: dir.path().join("state"),
            cgroup_root: cgroup_root(dir.path()),
            launcher: exec_launcher(),
            ovmf_vars: "/usr/share/OVMF/OVMF_VARS_4M.fd".into(),
            host: Host {
                qemu: qemu(),
                version: version(),
                accelerator: Accelerator::Tcg,
                ovmf_code: "/usr/share/OVMF/OVMF_CODE_4M.fd".into(),
            },
        };
        let (runner, events) = Runner::new(settings.clone());
        let created_cgroup_root = settings.cgroup_root.clone();
        Self { runner, settings, events, received: Vec::new(), socket, created_cgroup_root, _disk: handle, _dir: dir }
    }

    pub fn spec(&self) -> VmSpec {
        VmSpec {
            name: VM.into(),
            cpus: 1,
            memory_mib: 64,
            firmware: Firmware::Bios,
            disks: vec![Disk { socket: self.socket.clone() }],
            network: VmNetwork::User,
            changed: 1,
        }
    }

    pub async fn start(&mut self) {
        self.runner.start(&self.spec()).unwrap();
    }

    /// Replaces the runner, as a restart of `dyad-node` does.
    pub fn restart_runner(&mut self) {
        let (runner, events) = Runner::new(self.settings.clone());
        self.runner = runner;
        self.events = events;
        self.received.clear();
    }

    pub fn observed(&self) -> Observed {
        self.runner.observed().remove(VM).unwrap()
    }

    pub fn cgroup(&self) -> Option<Cgroup> {
        self.settings.cgroup_root.as_deref().map(|root| Cgroup::new(root, VM))
    }

    /// Waits for an event of the runner; an event that was received before the call counts.
    pub async fn wait_for_event(&mut self, wanted: impl Fn(&EventKind) -> bool) -> EventKind {
        let deadline = tokio::time::Instant::now() + TEST_TIMEOUT;
        loop {
            if let Some(found) = self.received.iter().position(&wanted) {
                return self.received.remove(found);
            }
            let event = tokio::time::timeout_at(deadline, self.events.recv()).await;
            self.received
                .push(event.unwrap_or_else(|_| panic!("waited too long, received {:?}", self.received)).unwrap().kind);
        }
    }

    pub async fn wait_for_phase(&self, phase: Phase) {
        wait_for(&format!("the VM to be {phase}"), || self.observed().phase == phase).await;
    }

    /// Waits until the serial line has printed `text`.
    pub async fn read_until(&self, text: &str) -> Subscription {
        let mut viewer = self.runner.console(VM).unwrap().subscribe();
        let said = viewer.recent.clone();
        read_on(&mut viewer, said, text).await;
        viewer
    }

    /// Sends input every 200 ms until the answer is received: input is lost while the line reconnects.
    pub async fn type_until(&self, input: &'static str, answer: &str) {
        let console = self.runner.console(VM).unwrap();
        let viewer = console.subscribe();
        let mut seen = viewer.recent;
        let mut output = viewer.output;
        let deadline = Instant::now() + TEST_TIMEOUT;
        while !contains(&seen, answer) {
            assert!(Instant::now() < deadline, "no answer to {input}");
            let _ = console.send(Bytes::from_static(input.as_bytes()));
            if let Ok(Ok(piece)) = tokio::time::timeout(Duration::from_millis(200), output.recv()).await {
                seen.extend(piece);
            }
        }
    }

    /// Sends input over the serial socket without a runner, and returns the output up to the answer.
    pub async fn type_without_runner(&self, input: &'static str, answer: &'static str) -> String {
        let path = self.settings.run_dir.join(VM).join("serial.sock");
        let talk = move || {
            let mut stream = std::os::unix::net::UnixStream::connect(path).unwrap();
            stream.set_read_timeout(Some(TEST_TIMEOUT)).unwrap();
            stream.write_all(input.as_bytes()).unwrap();
            let mut said = Vec::new();
            while !contains(&said, answer) {
                let mut buffer = [0; 64];
                let count = stream.read(&mut buffer).unwrap();
                assert!(count > 0, "the line was closed");
                said.extend(&buffer[..count]);
            }
            String::from_utf8_lossy(&said).into_owned()
        };
        tokio::task::spawn_blocking(talk).await.unwrap()
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        for seen in self.runner.observed().values() {
            if let Some(pid) = seen.pid {
                kill_process(pid);
            }
        }
        let deadline = Instant::now() + Duration::from_secs(5);
        if let Some(root) = &self.created_cgroup_root {
            let _ = Cgroup::new(root, VM).kill();
            let _ = std::fs::remove_dir(Cgroup::new(root, VM).dir());
            while std::fs::remove_dir(root).is_err() && root.exists() && Instant::now() < deadline {
                let _ = std::fs::remove_dir(Cgroup::new(root, VM).dir());
                std::thread::sleep(Duration::from_millis(10));
            }
        }
    }
}

pub async fn read_more(viewer: &mut Subscription, text: &str) {
    read_on(viewer, Vec::new(), text).await;
}

async fn read_on(viewer: &mut Subscription, mut said: Vec<u8>, text: &str) {
    let deadline = tokio::time::Instant::now() + TEST_TIMEOUT;
    while !contains(&said, text) {
        let piece = tokio::time::timeout_at(deadline, viewer.output.recv()).await;
        let piece = piece.unwrap_or_else(|_| panic!("no {text:?} in {:?}", String::from_utf8_lossy(&said)));
        said.extend(piece.unwrap());
    }
}

fn contains(bytes: &[u8], text: &str) -> bool {
    bytes.windows(text.len()).any(|window| window == text.as_bytes())
}

pub async fn wait_for(what: &str, mut ready: impl FnMut() -> bool) {
    let deadline = Instant::now() + TEST_TIMEOUT;
    while !ready() {
        assert!(Instant::now() < deadline, "waited too long for {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// Whether the process exists and is not a zombie.
pub fn alive(pid: u32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(')').is_some_and(|(_, rest)| !rest.trim_start().starts_with(['Z', 'X']))
}

fn signal(pid: u32, signal: rustix::process::Signal) {
    let pid = rustix::process::Pid::from_raw(pid as i32).unwrap();
    let _ = rustix::process::kill_process(pid, signal);
}

pub fn kill_process(pid: u32) {
    signal(pid, rustix::process::Signal::KILL);
}

pub fn stop_process(pid: u32) {
    signal(pid, rustix::process::Signal::STOP);
}

/// The command line of this test program that calls [`dyad_supervisor::exec_in_cgroup`], by the test `exec_helper`.
fn exec_launcher() -> Vec<std::ffi::OsString> {
    let me = std::env::current_exe().unwrap();
    vec![me.into(), "--exact".into(), "exec_helper".into(), "--nocapture".into()]
}

fn version() -> QemuVersion {
    let output = std::process::Command::new(qemu()).arg("--version").output().unwrap();
    QemuVersion::parse(&String::from_utf8_lossy(&output.stdout)).unwrap()
}

/// A new cgroup for one test. `None` for a user who may not create one: the VMs then run without. For root that is a
/// failure.
fn cgroup_root(dir: &Path) -> Option<PathBuf> {
    if !rustix::process::geteuid().is_root() {
        return None;
    }
    let mounts = std::fs::read_to_string("/proc/mounts").unwrap();
    let mut mounted = mounts.lines().filter(|line| line.split(' ').nth(2) == Some("cgroup2"));
    let mount = mounted.next().and_then(|line| line.split(' ').nth(1)).expect("cgroup version 2 is mounted");
    let name = format!("dyad-test-{}", dir.file_name().unwrap().to_string_lossy());
    let root = Path::new(mount).join(name);
    std::fs::create_dir(&root).expect("root may make a cgroup");
    Some(root)
}
