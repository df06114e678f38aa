//! One node of the rig: a QEMU machine with disks, network cards, a watchdog, a serial line and a power switch.

use std::fmt;
use std::fs::{self, File};
use std::net::{TcpListener, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use anyhow::{Context as _, Result, ensure};

use crate::accelerator::Accelerator;
use crate::cable_relay::CableRelay;
use crate::child::{Program, RunningProgram};
use crate::http::Client;
use crate::qmp::Qmp;
use crate::seed;
use crate::serial::SerialLine;

/// Memory of a node, in MiB, as QEMU takes it.
const MEMORY_MIB: &str = "1536";
/// Processors of a node. With one, a guest of an emulated node takes it from the daemons when it boots, and the node misses
/// its deadlines.
const PROCESSORS: u32 = 2;
/// Bytes of the system disk: the image's partitions, the reserve and the state partition (`image/partitions`) fit.
const SYSTEM_DISK_BYTES: u64 = 8 << 30;
/// Names of the pool disks, in QEMU and of their files.
const POOL_DISKS: [&str; 2] = ["pool0", "pool1"];
/// Bytes of each pool disk; the files are sparse.
const POOL_DISK_BYTES: u64 = 2 << 30;
/// Files of the UEFI firmware: its code, and the initial variables, of which each node gets a copy. The first pair that
/// exists is used.
const OVMF_FILES: [(&str, &str); 2] = [
    ("/usr/share/OVMF/OVMF_CODE_4M.fd", "/usr/share/OVMF/OVMF_VARS_4M.fd"),
    ("/usr/share/OVMF/OVMF_CODE.fd", "/usr/share/OVMF/OVMF_VARS.fd"),
];

/// Name of a node of the rig. A is set up as the first node and B joins it, so the names equal those of the pair.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum NodeName {
    /// The first node of the pair.
    A,
    /// The node that joins.
    B,
}

impl NodeName {
    /// The name of the other node.
    pub fn peer(self) -> Self {
        match self {
            Self::A => Self::B,
            Self::B => Self::A,
        }
    }

    /// `a` or `b`: for names of files and sockets.
    pub fn letter(self) -> char {
        match self {
            Self::A => 'a',
            Self::B => 'b',
        }
    }
}

impl fmt::Display for NodeName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.letter().to_ascii_uppercase())
    }
}

/// A network cable of a node, and the card that it is plugged into.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cable {
    /// The management port: browser, CLI and witness.
    Management,
    /// First cable to the peer.
    Peer0,
    /// Second cable to the peer.
    Peer1,
}

impl Cable {
    const ALL: [Self; 3] = [Self::Management, Self::Peer0, Self::Peer1];

    fn id(self) -> &'static str {
        match self {
            Self::Management => "mgmt",
            Self::Peer0 => "peer0",
            Self::Peer1 => "peer1",
        }
    }
}

/// The two cables between the nodes: for each cable the UDP port at which either end receives.
///
/// UDP drops frames that the other end does not receive, as a cable does. A stream socket would block the sender's
/// network card until the other end reads, and with it the whole emulated machine.
#[derive(Debug, Clone)]
pub struct Wiring {
    ports: [[u16; 2]; 2],
    /// For each cable what it passes through; empty = nothing.
    relays: Vec<CableRelay>,
}

impl Wiring {
    /// Chooses four UDP ports that are free now; QEMU binds them at power-on.
    ///
    /// # Errors
    /// This machine has no free port.
    pub fn new() -> Result<Self> {
        Self::lay(|_| Ok(Vec::new()))
    }

    /// `relays` makes the relays of the cables with these ports, which are free until it returns.
    fn lay(relays: impl FnOnce([[u16; 2]; 2]) -> Result<Vec<CableRelay>>) -> Result<Self> {
        let mut held = Vec::new();
        for _ in 0..4 {
            held.push(UdpSocket::bind("127.0.0.1:0")?);
        }
        let mut ports = [[0; 2]; 2];
        for (port, socket) in ports.as_flattened_mut().iter_mut().zip(&held) {
            *port = socket.local_addr()?.port();
        }
        Ok(Self { ports, relays: relays(ports)? })
    }

    /// As [`Wiring::new`]; the cables pass through relays, which can [lose the data](Wiring::set_data_lost).
    ///
    /// # Errors
    /// This machine has no free port.
    pub fn with_relays() -> Result<Self> {
        Self::lay(|ports| ports.into_iter().map(CableRelay::new).collect())
    }

    /// Loses the frames of the data sessions on both cables, or passes them again: [`CableRelay::set_data_lost`].
    ///
    /// # Errors
    /// The cables do not pass through relays.
    pub fn set_data_lost(&self, lost: bool) -> Result<()> {
        ensure!(!self.relays.is_empty(), "The cables pass through no relay.");
        self.relays.iter().for_each(|relay| relay.set_data_lost(lost));
        Ok(())
    }

    /// The ports of this end of a cable: the one at which it receives, and the one to which it sends.
    fn ports(&self, cable: usize, end: NodeName) -> [u16; 2] {
        let (own, other) = if end == NodeName::A { (0, 1) } else { (1, 0) };
        let far = self.relays.get(cable).map_or(self.ports[cable][other], |relay| relay.port(own));
        [self.ports[cable][own], far]
    }
}

/// A server of the rig, powered on or off.
#[derive(Debug)]
pub struct Node {
    name: NodeName,
    accelerator: Accelerator,
    processors: u32,
    disks: PathBuf,
    sockets: PathBuf,
    port: u16,
    wiring: Wiring,
    serial: SerialLine,
    /// Position on the serial line up to which kernel panics were told.
    panics_told: usize,
    power: Option<PoweredOn>,
}

#[derive(Debug)]
struct PoweredOn {
    qemu: RunningProgram,
    qmp: Qmp,
    since: Instant,
}

impl Node {
    /// A new server, powered off: `image` on its system disk, blank pool disks. Disks and logs are files below `records`,
    /// unix sockets below `sockets`, whose path must be short.
    ///
    /// # Errors
    /// The disks cannot be made.
    pub fn new(
        name: NodeName,
        accelerator: Accelerator,
        image: &Path,
        wiring: &Wiring,
        records: &Path,
        sockets: &Path,
    ) -> Result<Self> {
        let disks = records.join(name.letter().to_string());
        fs::create_dir_all(&disks)?;
        let (_, variables) = firmware()?;
        fs::copy(variables, disks.join("firmware.fd"))?;
        let serial = SerialLine::new(
            &records.join(format!("serial-{}.log", name.letter())),
            &sockets.join(format!("serial-{}", name.letter())),
        )?;
        let node = Self {
            name,
            accelerator,
            processors: PROCESSORS,
            disks,
            sockets: sockets.to_owned(),
            port: free_port()?,
            wiring: wiring.clone(),
            serial,
            panics_told: 0,
            power: None,
        };
        node.flash(image)?;
        for disk in POOL_DISKS {
            File::create(node.disks.join(disk).with_extension("img"))?.set_len(POOL_DISK_BYTES)?;
        }
        Ok(node)
    }

    /// Gives the node one processor at its next power-on. That is enough where no guest boots beside another one, and the kernel
    /// of an emulated node with the image that ships then survives that KVM patches it (decision 0104).
    pub fn use_one_processor(&mut self) {
        self.processors = 1;
    }

    /// Writes `image` to the system disk. The node must be off.
    ///
    /// # Errors
    /// The copy failed.
    pub fn flash(&self, image: &Path) -> Result<()> {
        ensure!(self.power.is_none(), "Node {} is on: it cannot be flashed.", self.name);
        let disk = self.system_disk();
        let status = Command::new("cp").args(["--sparse=always", "--reflink=auto"]).args([image, &disk]).status()?;
        ensure!(status.success(), "Cannot copy {}.", image.display());
        File::options().write(true).open(&disk)?.set_len(SYSTEM_DISK_BYTES)?;
        Ok(())
    }

    /// Adds a disk that is a seed volume with these answers. The node must be off.
    ///
    /// # Errors
    /// The volume cannot be made.
    pub fn plug_seed(&mut self, answers: &str) -> Result<()> {
        ensure!(self.power.is_none(), "Node {} is on: it would not look for a seed volume.", self.name);
        seed::make_volume(&self.disks.join("seed.img"), answers)
    }

    pub fn name(&self) -> NodeName {
        self.name
    }

    /// The raw file behind the system disk.
    pub fn system_disk(&self) -> PathBuf {
        self.disks.join("system.img")
    }

    /// The rig's end of the node's serial line; it stays the same over power cuts.
    pub fn serial(&self) -> &SerialLine {
        &self.serial
    }

    /// The unix socket at which other programs attach to the serial line.
    pub fn serial_socket(&self) -> PathBuf {
        self.sockets.join(format!("serial-{}", self.name.letter()))
    }

    /// Address of the node's pages and API on this machine; QEMU forwards it to port 443 of the node.
    pub fn address(&self) -> String {
        format!("https://127.0.0.1:{}", self.port)
    }

    /// A client of the node's API without a login.
    pub fn client(&self) -> Client {
        Client::new(&self.address())
    }

    /// Switches the node on: starts its QEMU.
    ///
    /// # Errors
    /// The node is on already, or QEMU does not start.
    pub fn power_on(&mut self) -> Result<()> {
        ensure!(self.power.is_none(), "Node {} is on already.", self.name);
        let qmp_socket = self.socket("qmp");
        let serial_socket = self.socket("tty");
        let log = self.qemu_log();
        let since = Instant::now();
        let qemu = self.qemu_command(&qmp_socket, &serial_socket)?.start(&log)?;
        self.serial.connect(&serial_socket)?;
        let qmp = Qmp::connect(&qmp_socket)
            .with_context(|| format!("QEMU of node {} did not come up; see {}.", self.name, log.display()))?;
        self.power = Some(PoweredOn { qemu, qmp, since });
        Ok(())
    }

    /// Cuts the power: kills the node's QEMU with SIGKILL.
    ///
    /// # Errors
    /// The node is off already.
    pub fn power_cut(&mut self) -> Result<()> {
        let power = self.power.take();
        ensure!(power.is_some(), "Node {} is off already.", self.name);
        Ok(())
    }

    /// Whether the node's QEMU runs.
    pub fn is_on(&mut self) -> bool {
        self.power.as_mut().is_some_and(|power| !power.qemu.ended())
    }

    /// Process id of the node's QEMU; `None` while the node is off.
    pub fn qemu_pid(&self) -> Option<u32> {
        self.power.as_ref().map(|power| power.qemu.id())
    }

    /// File with the output of the node's QEMU.
    pub fn qemu_log(&self) -> PathBuf {
        self.disks.with_file_name(format!("qemu-{}.log", self.name.letter()))
    }

    /// Whether the node's processor is emulated (TCG) and not virtualised (KVM).
    pub fn is_emulated(&self) -> bool {
        self.accelerator == Accelerator::Tcg
    }

    /// Time of the newest [`Node::power_on`].
    ///
    /// # Errors
    /// The node is off.
    pub fn on_since(&self) -> Result<Instant> {
        Ok(self.power()?.since)
    }

    /// Resets the machine, as its reset button does.
    ///
    /// # Errors
    /// The node is off, or as [`Qmp::execute`].
    pub fn reset(&mut self) -> Result<()> {
        self.power_mut()?.qmp.reset()
    }

    /// Resets, watchdog expiries and kernel panics since power-on: [`Qmp::reset_events`].
    ///
    /// # Errors
    /// The node is off, or as [`Qmp::execute`].
    pub fn reset_events(&mut self) -> Result<String> {
        self.power_mut()?.qmp.reset_events()
    }

    /// The first lines of the kernel panics and Oopses that the node has printed on its serial line since the last call.
    pub fn new_kernel_panics(&mut self) -> Vec<String> {
        let text = self.serial.text_since(self.panics_told);
        // A line that is still being printed is read by the next call.
        let whole = text.rfind('\n').map_or("", |end| &text[..=end]);
        self.panics_told += whole.len();
        whole
            .lines()
            .filter(|line| line.contains("Kernel panic") || line.contains("Oops:"))
            .map(|line| line.trim().to_owned())
            .collect()
    }

    /// Stops the whole machine, its watchdog included, by SIGSTOP to its QEMU; [`Node::thaw`] ends this.
    ///
    /// # Errors
    /// The node is off.
    pub fn freeze(&self) -> Result<()> {
        self.power()?.qemu.freeze()
    }

    /// Ends [`Node::freeze`].
    ///
    /// # Errors
    /// The node is off.
    pub fn thaw(&self) -> Result<()> {
        self.power()?.qemu.thaw()
    }

    /// Plugs or pulls a cable at this node's end.
    ///
    /// # Errors
    /// The node is off, or as [`Qmp::execute`].
    pub fn set_cable(&mut self, cable: Cable, plugged: bool) -> Result<()> {
        // QEMU takes the carrier away from the card and drops its frames in both directions.
        let qmp = &mut self.power_mut()?.qmp;
        qmp.set_link(&format!("card-{}", cable.id()), plugged)
    }

    /// Makes the pool disks hang: after one more request each of them answers no read and no write, without an error. `false`
    /// ends this; the requests that wait are then answered.
    ///
    /// # Errors
    /// The node is off, or as [`Qmp::execute`].
    pub fn set_pool_disks_hang(&mut self, hang: bool) -> Result<()> {
        let qmp = &mut self.power_mut()?.qmp;
        POOL_DISKS.iter().try_for_each(|disk| qmp.set_disk_hangs(disk, hang))
    }

    /// Saves the content of the node's screen (VGA) as a PNG file.
    ///
    /// # Errors
    /// The node is off, or as [`Qmp::execute`].
    pub fn screenshot(&mut self, file: &Path) -> Result<()> {
        self.power_mut()?.qmp.screenshot(file)
    }

    fn power(&self) -> Result<&PoweredOn> {
        self.power.as_ref().with_context(|| format!("Node {} is off.", self.name))
    }

    fn power_mut(&mut self) -> Result<&mut PoweredOn> {
        self.power.as_mut().with_context(|| format!("Node {} is off.", self.name))
    }

    fn socket(&self, what: &str) -> PathBuf {
        self.sockets.join(format!("{what}-{}", self.name.letter()))
    }

    /// The command line of the node's QEMU; `qmp` and `serial` are the sockets that it creates.
    fn qemu_command(&self, qmp: &Path, serial: &Path) -> Result<Program> {
        let mut machine = Program::new("qemu-system-x86_64");
        machine.args(["-name", &format!("dyad-{}", self.name.letter())]);
        machine.args(["-machine", "q35", "-smp", &self.processors.to_string(), "-m", MEMORY_MIB]);
        machine.args(self.accelerator.arguments());
        machine.args(["-nodefaults", "-display", "none", "-device", "VGA"]);
        machine.args(["-device", "virtio-rng-pci"]);
        machine.args(["-device", "i6300esb", "-action", "watchdog=reset"]);
        for (option, path, device) in [("-qmp", qmp, ""), ("-chardev", serial, "isa-serial,chardev=tty")] {
            let prefix = if option == "-chardev" { "socket,id=tty,path=" } else { "unix:" };
            machine.arg(option);
            machine.arg(format!("{prefix}{},server=on,wait=off", path.display()));
            if !device.is_empty() {
                machine.args(["-device", device]);
            }
        }
        self.add_disks(&mut machine)?;
        self.add_cards(&mut machine);
        Ok(machine)
    }

    fn add_disks(&self, machine: &mut Program) -> Result<()> {
        let (code, _) = firmware()?;
        machine.arg("-drive");
        machine.arg(format!("if=pflash,format=raw,readonly=on,file={code}"));
        machine.arg("-drive");
        machine.arg(format!("if=pflash,format=raw,file={}", self.disks.join("firmware.fd").display()));
        let letter = self.name.letter();
        let disks = [
            ("system.img", "virtio-blk-pci,bootindex=0"),
            ("pool0.img", "virtio-blk-pci"),
            ("pool1.img", "nvme"),
            ("seed.img", "virtio-blk-pci"),
        ];
        for (file, device) in disks.into_iter().filter(|(file, _)| self.disks.join(file).exists()) {
            let id = file.trim_end_matches(".img");
            machine.arg("-drive");
            machine.arg(format!("if=none,id={id},format=raw,discard=unmap,file={}", self.disks.join(file).display()));
            machine.arg("-device");
            machine.arg(format!("{device},drive={id},serial=rig-{letter}-{id}"));
        }
        Ok(())
    }

    fn add_cards(&self, machine: &mut Program) {
        for (number, cable) in Cable::ALL.into_iter().enumerate() {
            let id = cable.id();
            let wire = match cable {
                Cable::Management => {
                    format!("user,id={id},hostfwd=tcp:127.0.0.1:{}-:443", self.port)
                }
                Cable::Peer0 => self.netdev(id, 0),
                Cable::Peer1 => self.netdev(id, 1),
            };
            machine.args(["-netdev", &wire, "-device"]);
            // An empty ROM file: the rig never boots from the network, and trying it costs seconds.
            machine.arg(format!(
                "virtio-net-pci,id=card-{id},netdev={id},romfile=,mac=52:54:00:d1:ad:{}{number}",
                self.name.letter()
            ));
        }
    }

    fn netdev(&self, id: &str, cable: usize) -> String {
        let end = |side: &str, port: u16| format!("{side}.type=inet,{side}.host=127.0.0.1,{side}.port={port}");
        let [local, remote] = self.wiring.ports(cable, self.name);
        format!("dgram,id={id},{},{}", end("local", local), end("remote", remote))
    }
}

fn firmware() -> Result<(&'static str, &'static str)> {
    OVMF_FILES
        .into_iter()
        .find(|(code, _)| Path::new(code).exists())
        .context("No UEFI firmware for virtual machines here; `cargo xtask deps` installs it.")
}

fn free_port() -> Result<u16> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?.port())
}
