//! One node: a server with disks, cables, a watchdog, a serial line and a power switch.

use std::fmt;
use std::fs::{self, File};
use std::net::{TcpListener, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use anyhow::{Context as _, Result, ensure};

use crate::accelerator::Accelerator;
use crate::child::{Program, Running};
use crate::http::Client;
use crate::qmp::Qmp;
use crate::seed;
use crate::serial::SerialLine;

/// Memory of a node in MiB.
const MEMORY: &str = "1536";
/// Bytes of the system disk: the image's own partitions, the reserve and the state partition fit.
const SYSTEM_DISK: u64 = 8 << 30;
/// Bytes of each pool disk; the files are sparse.
const POOL_DISK: u64 = 2 << 30;
/// UEFI firmware: code, and the variables that each node gets a copy of.
const FIRMWARE: [(&str, &str); 2] = [
    ("/usr/share/OVMF/OVMF_CODE_4M.fd", "/usr/share/OVMF/OVMF_VARS_4M.fd"),
    ("/usr/share/OVMF/OVMF_CODE.fd", "/usr/share/OVMF/OVMF_VARS.fd"),
];

/// Name of a node: A or B.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Name {
    /// The first node of the pair.
    A,
    /// The node that joins.
    B,
}

impl Name {
    /// The name of the other node.
    pub fn peer(self) -> Self {
        match self {
            Self::A => Self::B,
            Self::B => Self::A,
        }
    }

    /// `a` or `b`, for file names.
    pub fn letter(self) -> char {
        match self {
            Self::A => 'a',
            Self::B => 'b',
        }
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.letter().to_ascii_uppercase())
    }
}

/// The network cards of a node.
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

/// The two cables between the nodes: for each, the UDP port at either end.
///
/// UDP loses frames that the far end does not take, as a cable does. A stream socket that
/// waits for the far end would stall the sender's network card, and with it the whole emulated machine.
#[derive(Debug, Clone, Copy)]
pub struct Wiring([[u16; 2]; 2]);

impl Wiring {
    /// Chooses free ports.
    ///
    /// # Errors
    /// This machine has no free port.
    pub fn new() -> Result<Self> {
        let mut held = Vec::new();
        for _ in 0..4 {
            held.push(UdpSocket::bind("127.0.0.1:0")?);
        }
        let mut ports = [[0; 2]; 2];
        for (port, socket) in ports.as_flattened_mut().iter_mut().zip(&held) {
            *port = socket.local_addr()?.port();
        }
        Ok(Self(ports))
    }

    fn port(self, cable: usize, end: Name) -> u16 {
        self.0[cable][usize::from(end == Name::B)]
    }
}

/// A server on the rig, with or without power.
#[derive(Debug)]
pub struct Node {
    name: Name,
    accelerator: Accelerator,
    disks: PathBuf,
    sockets: PathBuf,
    port: u16,
    wiring: Wiring,
    serial: SerialLine,
    power: Option<Power>,
}

#[derive(Debug)]
struct Power {
    qemu: Running,
    qmp: Qmp,
    since: Instant,
}

impl Node {
    /// A new server: `image` flashed onto its system disk, empty pool disks, power off.
    /// `records` keeps its disks and logs, `sockets` (a short path) its sockets.
    ///
    /// # Errors
    /// The disks cannot be made.
    pub fn new(
        name: Name,
        accelerator: Accelerator,
        image: &Path,
        wiring: Wiring,
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
            disks,
            sockets: sockets.to_owned(),
            port: free_port()?,
            wiring,
            serial,
            power: None,
        };
        node.flash(image)?;
        for disk in ["pool0.img", "pool1.img"] {
            File::create(node.disks.join(disk))?.set_len(POOL_DISK)?;
        }
        Ok(node)
    }

    /// Writes `image` to the system disk, as an operator does with a USB stick. The node must be off.
    ///
    /// # Errors
    /// The copy failed.
    pub fn flash(&self, image: &Path) -> Result<()> {
        ensure!(self.power.is_none(), "Node {} is on: it cannot be flashed.", self.name);
        let disk = self.system_disk();
        let status = Command::new("cp").args(["--sparse=always", "--reflink=auto"]).args([image, &disk]).status()?;
        ensure!(status.success(), "Cannot copy {}.", image.display());
        File::options().write(true).open(&disk)?.set_len(SYSTEM_DISK)?;
        Ok(())
    }

    /// Plugs in a seed volume with these answers. The node must be off.
    ///
    /// # Errors
    /// The volume cannot be made.
    pub fn plug_seed(&mut self, answers: &str) -> Result<()> {
        ensure!(self.power.is_none(), "Node {} is on: it would not look for a seed volume.", self.name);
        seed::make(&self.disks.join("seed.img"), answers)
    }

    pub fn name(&self) -> Name {
        self.name
    }

    /// The raw file behind the system disk.
    pub fn system_disk(&self) -> PathBuf {
        self.disks.join("system.img")
    }

    /// The rig's end of the node's serial line.
    pub fn serial(&self) -> &SerialLine {
        &self.serial
    }

    /// The socket at which others may attach to the serial line.
    pub fn serial_socket(&self) -> PathBuf {
        self.sockets.join(format!("serial-{}", self.name.letter()))
    }

    /// Its web address on this machine.
    pub fn address(&self) -> String {
        format!("https://127.0.0.1:{}", self.port)
    }

    /// A client of its API, not logged in.
    pub fn client(&self) -> Client {
        Client::new(&self.address())
    }

    /// Presses the power button.
    ///
    /// # Errors
    /// It is on already, or QEMU does not start.
    pub fn power_on(&mut self) -> Result<()> {
        ensure!(self.power.is_none(), "Node {} is on already.", self.name);
        let qmp_socket = self.socket("qmp");
        let serial_socket = self.socket("tty");
        let log = self.hardware_log();
        let since = Instant::now();
        let qemu = self.machine(&qmp_socket, &serial_socket)?.start(&log)?;
        self.serial.connect(&serial_socket)?;
        let qmp = Qmp::connect(&qmp_socket)
            .with_context(|| format!("QEMU of node {} did not come up; see {}.", self.name, log.display()))?;
        self.power = Some(Power { qemu, qmp, since });
        Ok(())
    }

    /// Cuts the power, in this instant.
    ///
    /// # Errors
    /// It is off already.
    pub fn power_cut(&mut self) -> Result<()> {
        let power = self.power.take();
        ensure!(power.is_some(), "Node {} is off already.", self.name);
        Ok(())
    }

    /// Whether it has power.
    pub fn is_on(&mut self) -> bool {
        self.power.as_mut().is_some_and(|power| !power.qemu.ended())
    }

    /// Process id of the QEMU that emulates the node, while the node has power.
    pub fn process(&self) -> Option<u32> {
        self.power.as_ref().map(|power| power.qemu.id())
    }

    /// The log of that QEMU.
    pub fn hardware_log(&self) -> PathBuf {
        self.disks.with_file_name(format!("qemu-{}.log", self.name.letter()))
    }

    /// Whether its processor is emulated.
    pub fn is_emulated(&self) -> bool {
        self.accelerator == Accelerator::Tcg
    }

    /// When the power button was last pressed.
    ///
    /// # Errors
    /// It is off.
    pub fn on_since(&self) -> Result<Instant> {
        Ok(self.power()?.since)
    }

    /// Presses the reset button.
    ///
    /// # Errors
    /// It is off.
    pub fn reset(&mut self) -> Result<()> {
        self.power_mut()?.qmp.reset()
    }

    /// The resets since power-on, each with its cause: watchdog, software or button.
    ///
    /// # Errors
    /// It is off.
    pub fn resets(&mut self) -> Result<String> {
        self.power_mut()?.qmp.resets()
    }

    /// Stops the whole server, as a hang of its hardware does; [`Node::thaw`] ends it.
    ///
    /// # Errors
    /// It is off.
    pub fn freeze(&self) -> Result<()> {
        self.power()?.qemu.freeze()
    }

    /// Ends [`Node::freeze`].
    ///
    /// # Errors
    /// It is off.
    pub fn thaw(&self) -> Result<()> {
        self.power()?.qemu.thaw()
    }

    /// Pulls a cable, or plugs it.
    ///
    /// # Errors
    /// The node is off.
    pub fn set_cable(&mut self, cable: Cable, plugged: bool) -> Result<()> {
        // Both the card and the cable are cut: the node sees "no carrier", and the cable carries no frames.
        let qmp = &mut self.power_mut()?.qmp;
        qmp.set_link(&format!("card-{}", cable.id()), plugged)
    }

    /// Saves what its screen shows as PNG.
    ///
    /// # Errors
    /// The node is off.
    pub fn screenshot(&mut self, file: &Path) -> Result<()> {
        self.power_mut()?.qmp.screenshot(file)
    }

    fn power(&self) -> Result<&Power> {
        self.power.as_ref().with_context(|| format!("Node {} is off.", self.name))
    }

    fn power_mut(&mut self) -> Result<&mut Power> {
        self.power.as_mut().with_context(|| format!("Node {} is off.", self.name))
    }

    fn socket(&self, what: &str) -> PathBuf {
        self.sockets.join(format!("{what}-{}", self.name.letter()))
    }

    /// The whole command line, part by part.
    fn machine(&self, qmp: &Path, serial: &Path) -> Result<Program> {
        let mut machine = Program::new("qemu-system-x86_64");
        machine.args(["-name", &format!("dyad-{}", self.name.letter())]);
        machine.args(["-machine", "q35", "-smp", "1", "-m", MEMORY]);
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
                Cable::Peer0 => self.wire(id, 0),
                Cable::Peer1 => self.wire(id, 1),
            };
            machine.args(["-netdev", &wire, "-device"]);
            // An empty ROM file: the rig never boots from the network, and trying it costs seconds.
            machine.arg(format!(
                "virtio-net-pci,id=card-{id},netdev={id},romfile=,mac=52:54:00:d1:ad:{}{number}",
                self.name.letter()
            ));
        }
    }

    fn wire(&self, id: &str, cable: usize) -> String {
        let end = |side: &str, name: Name| {
            let port = self.wiring.port(cable, name);
            format!("{side}.type=inet,{side}.host=127.0.0.1,{side}.port={port}")
        };
        format!("dgram,id={id},{},{}", end("local", self.name), end("remote", self.name.peer()))
    }
}

fn firmware() -> Result<(&'static str, &'static str)> {
    FIRMWARE
        .into_iter()
        .find(|(code, _)| Path::new(code).exists())
        .context("No UEFI firmware for virtual machines here; `cargo xtask deps` installs it.")
}

fn free_port() -> Result<u16> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?.port())
}
