//! A VM with UEFI firmware, started with the QEMU command line of a node, boots from a volume of a pair and boots again
//! after a reset.
//!
//! This is no test of the rig, because QEMU's emulation of AMD-V aborts when a guest writes CR8 while an interrupt is
//! pending, and UEFI does so at each tick of its timer. Here QEMU runs beside the daemons and emulates the guest's
//! processor.

use std::fs::{self, File};
use std::io::Read as _;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use dyad_desired::Firmware;
use dyad_process_tests::core_daemons::CoreDaemons;
use dyad_process_tests::disk_driver::DiskDriver;
use dyad_rig::artifacts::Artifacts;
use dyad_rig::child::Program;
use dyad_rig::serial::SerialLine;
use dyad_supervisor::command::{Host, QemuVersion, VmPaths, command_line};
use dyad_supervisor::{Accelerator, Disk, VmNetwork, VmSpec};

/// Bytes of one write of the image; parts of this size that hold only zeros are left out.
const CHUNK_BYTES: u64 = 64 << 10;
/// First text of PID 1 in the guest, which boots the broken slot; PID 1 then resets the machine.
const FIRST_GUEST_TEXT: &str = "dyad: mount the kernel's file systems";
const BOOT_DEADLINE: Duration = Duration::from_secs(120);

#[test]
fn a_uefi_vm_boots_from_a_volume_of_the_pair() {
    let artifacts = Artifacts::beside_this_program().unwrap();
    let folder = std::env::temp_dir().join(format!("dyad-firmware-{}", std::process::id()));
    fs::create_dir_all(&folder).unwrap();
    let daemons = CoreDaemons::pair(&artifacts.programs().join("dyad-core"), &folder.join("cores")).unwrap();
    let image = artifacts.broken_image();
    let mib = fs::metadata(&image).expect("a slot that never comes up").len().div_ceil(1 << 20);
    let socket = daemons.create_volume_with_vm("disk", mib).unwrap();
    write_image(&image, &socket);

    let variables = folder.join("variables");
    fs::copy("/usr/share/OVMF/OVMF_VARS_4M.fd", &variables).unwrap();
    let spec = VmSpec {
        name: "disk".into(),
        cpus: 1,
        memory_mib: 512,
        firmware: Firmware::Uefi,
        disks: vec![Disk { socket }],
        network: VmNetwork::User,
        changed: 1,
    };
    let paths = VmPaths::new(folder.clone());
    let words = command_line(&qemu_host(), &spec, &paths, Some(&variables));
    let mut qemu = Program::new(words[0].to_str().unwrap());
    qemu.args(&words[1..]);
    let _running = qemu.start(&paths.log_file()).unwrap();
    let line = SerialLine::new(&folder.join("serial.log"), &folder.join("relay")).unwrap();
    line.connect(&paths.serial_socket()).unwrap();
    for boot in ["first", "second"] {
        let since = line.position();
        line.wait_for_text(FIRST_GUEST_TEXT, since, BOOT_DEADLINE).unwrap_or_else(|error| {
            let said = fs::read_to_string(paths.log_file()).unwrap_or_default();
            panic!("the {boot} boot: {error:#}; QEMU said {said:?}");
        });
    }
    drop(daemons);
    fs::remove_dir_all(&folder).unwrap();
}

/// This machine's QEMU with emulation (TCG), in the form that the supervisor's command line needs.
fn qemu_host() -> Host {
    let qemu = "/usr/bin/qemu-system-x86_64";
    let said = Command::new(qemu).arg("--version").output().unwrap();
    Host {
        qemu: qemu.into(),
        version: QemuVersion::parse(&String::from_utf8(said.stdout).unwrap()).unwrap(),
        accelerator: Accelerator::Tcg,
        ovmf_code: "/usr/share/OVMF/OVMF_CODE_4M.fd".into(),
    }
}

fn write_image(image: &Path, socket: &Path) {
    let mut image = File::open(image).unwrap();
    let mut driver = DiskDriver::connect(socket).unwrap();
    let (mut offset, mut chunk) = (0, Vec::new());
    while image.by_ref().take(CHUNK_BYTES).read_to_end(&mut chunk).unwrap() > 0 {
        if chunk.iter().any(|byte| *byte != 0) {
            driver.write(offset, &chunk).unwrap();
        }
        offset += chunk.len() as u64;
        chunk.clear();
    }
    driver.flush().unwrap();
}
