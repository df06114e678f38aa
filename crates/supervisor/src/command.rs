//! The command line of QEMU for one VM.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use dyad_desired::Firmware;
use dyad_desired::limits::DISK_QUEUES;

pub use crate::version::QemuVersion;

use crate::accelerator::Accelerator;
use crate::spec::{VmNetwork, VmSpec};

/// The paths of a VM's sockets and files, in its directory below the run directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VmPaths {
    dir: PathBuf,
}

impl VmPaths {
    #[must_use]
    pub fn new(dir: PathBuf) -> Self {
        Self { dir }
    }

    #[must_use]
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Socket of QEMU's control protocol (QMP).
    #[must_use]
    pub fn qmp_socket(&self) -> PathBuf {
        self.dir.join("qmp.sock")
    }

    /// Socket of the VM's serial line.
    #[must_use]
    pub fn serial_socket(&self) -> PathBuf {
        self.dir.join("serial.sock")
    }

    /// Socket of the VM's screen, which speaks VNC.
    #[must_use]
    pub fn vnc_socket(&self) -> PathBuf {
        self.dir.join("vnc.sock")
    }

    /// File with the output of QEMU.
    #[must_use]
    pub fn log_file(&self) -> PathBuf {
        self.dir.join("qemu.log")
    }

    /// File with the record by which a restarted `dyad-node` finds the VM's process and its last run.
    #[must_use]
    pub fn record_file(&self) -> PathBuf {
        self.dir.join("vm.json")
    }
}

/// The settings of QEMU that all VMs of a node share.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Host {
    /// The program `qemu-system-x86_64`.
    pub qemu: PathBuf,
    pub version: QemuVersion,
    pub accelerator: Accelerator,
    /// The UEFI firmware image, read-only.
    pub ovmf_code: PathBuf,
}

/// The QEMU command line for `spec`. `vars` is the VM's own copy of the UEFI variables, if it boots by UEFI.
#[must_use]
pub fn command_line(host: &Host, spec: &VmSpec, paths: &VmPaths, vars: Option<&Path>) -> Vec<OsString> {
    let mut line = CommandLine(vec![host.qemu.clone().into_os_string()]);
    line.option("-name", [format!("guest={},debug-threads=on", spec.name)]);
    line.flag("-nodefaults").flag("-no-user-config");
    line.option("-display", ["none"]);
    line.option("-sandbox", ["on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny"]);
    line.option("-msg", ["timestamp=on"]);
    // When the guest shuts down, QEMU pauses instead of ending, so that `dyad-node` notices it also after a restart.
    line.option("-action", ["reboot=reset,shutdown=pause,panic=pause,watchdog=reset"]);
    let (accel, cpu) = match host.accelerator {
        Accelerator::Kvm => ("kvm", "host"),
        Accelerator::Tcg => ("tcg,thread=multi", "max"),
    };
    line.option("-machine", ["q35,memory-backend=ram,vmport=off"]);
    line.option("-accel", [accel]).option("-cpu", [cpu]);
    line.option("-smp", [spec.cpus.to_string()]);
    line.option("-m", [format!("{}M", spec.memory_mib)]);
    // `dyad-core` serves the disks and maps the guest's memory, which requires a sealed memfd.
    line.option("-object", [format!("memory-backend-memfd,id=ram,size={}M,share=on,seal=on", spec.memory_mib)]);
    line.option("-rtc", ["base=utc"]).option("-boot", ["strict=on"]);
    if let (Firmware::Uefi, Some(vars)) = (spec.firmware, vars) {
        line.option(
            "-drive",
            [format!("if=pflash,unit=0,format=raw,readonly=on,file={}", option_value(&host.ovmf_code))],
        );
        line.option("-drive", [format!("if=pflash,unit=1,format=raw,file={}", option_value(vars))]);
    }
    add_disks(&mut line, host, spec);
    if spec.network == VmNetwork::User {
        line.option("-netdev", ["user,id=net0"]);
        line.option("-device", ["virtio-net-pci,netdev=net0,disable-legacy=on,romfile="]);
    }
    line.option("-device", ["virtio-rng-pci,disable-legacy=on"]);
    line.option("-device", ["pvpanic-pci"]);
    line.option("-device", ["VGA"]);
    line.option("-vnc", [format!("unix:{}", option_value(&paths.vnc_socket()))]);
    line.option(
        "-chardev",
        [format!("socket,id=serial0,server=on,wait=off,path={}", option_value(&paths.serial_socket()))],
    );
    line.option("-serial", ["chardev:serial0"]);
    line.option("-chardev", [format!("socket,id=qmp0,server=on,wait=off,path={}", option_value(&paths.qmp_socket()))]);
    line.option("-mon", ["chardev=qmp0,mode=control"]);
    line.0
}

/// Adds the disks, each with the socket of `dyad-core` that serves it.
fn add_disks(line: &mut CommandLine, host: &Host, spec: &VmSpec) {
    // `reconnect-ms` exists since QEMU 9.2; before, the unit was seconds.
    let reconnect = match host.version >= (QemuVersion { major: 9, minor: 2 }) {
        true => "reconnect-ms=100",
        false => "reconnect=1",
    };
    let queues = spec.cpus.clamp(1, u32::from(DISK_QUEUES));
    for (n, disk) in spec.disks.iter().enumerate() {
        line.option("-chardev", [format!("socket,id=disk{n},{reconnect},path={}", option_value(&disk.socket))]);
        let boot = n + 1;
        line.option(
            "-device",
            [format!("vhost-user-blk-pci,chardev=disk{n},num-queues={queues},bootindex={boot},disable-legacy=on")],
        );
    }
}

struct CommandLine(Vec<OsString>);

impl CommandLine {
    fn flag(&mut self, name: &str) -> &mut Self {
        self.0.push(name.into());
        self
    }

    fn option(&mut self, name: &str, value: [impl Into<OsString>; 1]) -> &mut Self {
        self.0.push(name.into());
        self.0.extend(value.map(Into::into));
        self
    }
}

/// A path as a value within an option. QEMU reads a doubled comma as one comma.
fn option_value(path: &Path) -> String {
    path.to_string_lossy().replace(',', ",,")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spec::Disk;

    fn host(major: u32, minor: u32, accelerator: Accelerator) -> Host {
        Host {
            qemu: "/usr/bin/qemu-system-x86_64".into(),
            version: QemuVersion { major, minor },
            accelerator,
            ovmf_code: "/usr/share/OVMF/OVMF_CODE_4M.fd".into(),
        }
    }

    fn spec() -> VmSpec {
        VmSpec {
            name: "web".into(),
            cpus: 2,
            memory_mib: 512,
            firmware: Firmware::Uefi,
            disks: vec![Disk { socket: "/run/dyad/vhost/1.sock".into() }],
            network: VmNetwork::User,
            changed: 1,
        }
    }

    fn text(host: &Host, spec: &VmSpec) -> String {
        let paths = VmPaths::new("/run/dyad/vms/web".into());
        let line = command_line(host, spec, &paths, Some(Path::new("/state/vms/web.vars")));
        line.iter().map(|word| word.to_string_lossy()).collect::<Vec<_>>().join("\n") + "\n"
    }

    #[test]
    fn the_command_line_matches_the_stored_one() {
        let now = text(&host(10, 0, Accelerator::Kvm), &spec());
        assert_eq!(now, include_str!("../tests/command_line.txt"));
    }

    #[test]
    fn old_versions_and_tcg_get_options_that_they_support() {
        let line = text(&host(7, 2, Accelerator::Tcg), &VmSpec { firmware: Firmware::Bios, ..spec() });
        assert!(line.contains("reconnect=1,") && !line.contains("reconnect-ms"));
        assert!(line.contains("\nmax\n") && !line.contains("pflash"));
    }
}
