//! Chooses the accelerator of the guests: KVM if it is proven to work, otherwise emulation.
//!
//! `/dev/kvm` may exist although a VM that uses it never executes more than the boot ROM. A trial machine therefore boots a
//! sector that ends QEMU with a known exit code, within [`PROBE_TIMEOUT`]. A proof stays valid over reboots while hardware,
//! kernel and QEMU are the same, so that VMs need not wait for a trial after a reboot of the node. After a failure the next
//! trial is at the next boot of the node.

use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::version::QemuVersion;

/// The means by which guests' instructions are executed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Accelerator {
    /// The processor, through KVM.
    Kvm,
    /// Emulation by QEMU's TCG: every guest runs, but slowly.
    Tcg,
}

/// Device file of KVM.
const KVM_DEVICE: &str = "/dev/kvm";
/// A boot sector that writes 0x2a to port 0xf4, the exit device of the trial machine, and halts.
const BOOT_SECTOR_CODE: [u8; 9] = [
    0xb0, 0x2a, // mov al, 0x2a
    0xba, 0xf4, 0x00, // mov dx, 0xf4
    0xee, // out dx, al
    0xf4, // hlt
    0xeb, 0xfd, // jmp to hlt
];
/// Exit code of a trial machine that reached its boot sector: `isa-debug-exit` ends QEMU with twice the written value plus
/// one.
const PROVEN_EXIT_CODE: i32 = 0x2a * 2 + 1;

/// Time limit for the trial machine. Firmware reaches the boot sector within 1 to 2 s, on a busy node later. The limit is
/// long, because a wrong result holds until the node reboots.
pub const PROBE_TIMEOUT: Duration = Duration::from_secs(60);

impl Accelerator {
    /// Its name for QEMU's option `-accel`.
    fn name(self) -> &'static str {
        match self {
            Self::Kvm => "kvm",
            Self::Tcg => "tcg",
        }
    }
}

/// The program and the folder with which trial machines are run.
#[derive(Debug, Clone, Copy)]
pub struct Trial<'a> {
    /// The program `qemu-system-x86_64`.
    pub qemu: &'a Path,
    /// Folder of the trial machine's disk and of the result of this boot; a reboot empties it.
    pub dir: &'a Path,
}

impl Trial<'_> {
    /// Whether a machine with `accelerator` boots within `limit`. Leaves no process behind.
    pub async fn boots(self, accelerator: Accelerator, limit: Duration) -> bool {
        let accel = accelerator.name();
        let disk = self.dir.join(format!("trial-{accel}.img"));
        let mut sector = BOOT_SECTOR_CODE.to_vec();
        sector.resize(510, 0);
        sector.extend([0x55, 0xaa]);
        // The firmware ignores disks smaller than a cylinder.
        sector.resize(1 << 20, 0);
        if std::fs::create_dir_all(self.dir).and_then(|()| std::fs::write(&disk, sector)).is_err() {
            return false;
        }
        let mut command = tokio::process::Command::new(self.qemu);
        command
            .args(["-nodefaults", "-no-user-config", "-display", "none", "-machine", "q35", "-m", "32M"])
            .args(["-accel", accel, "-device", "isa-debug-exit,iobase=0xf4,iosize=4", "-drive"])
            .arg(format!("if=virtio,format=raw,readonly=on,file={}", disk.to_string_lossy().replace(',', ",,")))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .kill_on_drop(true);
        let outcome = match command.spawn() {
            Ok(mut child) => {
                let ended = tokio::time::timeout(limit, child.wait()).await;
                if ended.is_err() {
                    // The trial machine hangs, as it does where KVM does not execute guest code.
                    let _ = child.kill().await;
                }
                ended.ok().and_then(Result::ok).and_then(|status| status.code())
            }
            Err(_) => None,
        };
        let _ = std::fs::remove_file(&disk);
        outcome == Some(PROVEN_EXIT_CODE)
    }
}

/// Chooses the accelerator, with at most one trial per boot of the node. The result is stored in the folder of `trial`; a
/// proof of KVM is also stored in the file `proof`, which survives a reboot. `version` is QEMU's version.
pub async fn decide(trial: Trial<'_>, version: QemuVersion, proof: &Path) -> Accelerator {
    Decision { kvm: Path::new(KVM_DEVICE), host: host_description(version), trial, proof }.make().await
}

struct Decision<'a> {
    /// Device file of KVM.
    kvm: &'a Path,
    /// The value of [`host_description`] now.
    host: String,
    trial: Trial<'a>,
    /// File of the stored [`Proof`].
    proof: &'a Path,
}

impl Decision<'_> {
    async fn make(self) -> Accelerator {
        let kvm_exists = self.kvm.exists();
        if kvm_exists && load::<Proof>(self.proof).is_some_and(|proof| proof.host == self.host) {
            return Accelerator::Kvm;
        }
        let cache = self.trial.dir.join("accelerator");
        if let Some(known) = load(&cache) {
            return known;
        }
        let found = match kvm_exists && self.trial.boots(Accelerator::Kvm, PROBE_TIMEOUT).await {
            true => Accelerator::Kvm,
            false => Accelerator::Tcg,
        };
        // Without these files the next start makes another trial, with the same result.
        let _ = save(&cache, &found);
        if found == Accelerator::Kvm {
            let _ = save(self.proof, &Proof { host: self.host });
        }
        found
    }
}

/// The stored proof that KVM works.
#[derive(Debug, Serialize, Deserialize)]
struct Proof {
    /// The value of [`host_description`] at the time of the trial.
    #[serde(rename = "surroundings")]
    host: String,
}

/// Everything that the result of a trial depends on and that a node can read: QEMU, the kernel with its command line,
/// the server's model and firmware, the processor with its microcode and flags. A hypervisor below the node is not
/// visible; production nodes have none.
fn host_description(qemu: QemuVersion) -> String {
    let read = |path| std::fs::read_to_string(path).unwrap_or_default();
    let processors = read("/proc/cpuinfo");
    let names = ["vendor_id", "cpu family", "model", "model name", "stepping", "microcode", "flags"];
    let first = processors.split("\n\n").next().unwrap_or_default();
    let described =
        first.lines().filter(|line| line.split(':').next().is_some_and(|name| names.contains(&name.trim())));
    let files = ["/proc/version", "/proc/cmdline", "/sys/class/dmi/id/bios_version", "/sys/class/dmi/id/product_name"];
    format!("{qemu:?}\n{}{}", files.map(read).concat(), described.collect::<Vec<_>>().join("\n"))
}

fn load<T: for<'a> Deserialize<'a>>(file: &Path) -> Option<T> {
    serde_json::from_slice(&std::fs::read(file).ok()?).ok()
}

/// Replaces the whole file by the value as JSON and syncs it, as the node may lose power.
fn save(file: &Path, value: &impl Serialize) -> std::io::Result<()> {
    std::fs::create_dir_all(file.parent().unwrap_or(file))?;
    dyad_atomic_file::replace_with_mode(file, &serde_json::to_vec(value)?, dyad_atomic_file::PUBLIC)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A script in place of QEMU: it records that it was called and exits like a trial machine that reached its boot
    /// sector.
    fn qemu(dir: &Path) -> std::path::PathBuf {
        use std::os::unix::fs::PermissionsExt as _;
        let program = dir.join("qemu");
        std::fs::write(&program, format!("#!/bin/sh\necho x >> {}/calls\nexit {PROVEN_EXIT_CODE}\n", dir.display()))
            .unwrap();
        std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).unwrap();
        program
    }

    #[tokio::test]
    async fn a_proof_survives_a_reboot_on_the_same_hardware_and_software() {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name);
        let (qemu, proof, kvm) = (qemu(dir.path()), path("proof.json"), path("kvm"));
        let calls = || std::fs::read_to_string(path("calls")).unwrap_or_default().lines().count();
        let boot = async |number: u32, host: &str| {
            let run = path(&number.to_string());
            let host = host.to_owned();
            let trial = Trial { qemu: &qemu, dir: &run };
            Decision { kvm: &kvm, host, trial, proof: &proof }.make().await
        };
        assert_eq!((boot(1, "here").await, calls()), (Accelerator::Tcg, 0), "there is no device");
        std::fs::write(&kvm, "").unwrap();
        assert_eq!((boot(1, "here").await, calls()), (Accelerator::Tcg, 0), "known until the next boot");
        assert_eq!((boot(2, "here").await, calls()), (Accelerator::Kvm, 1));
        assert_eq!((boot(3, "here").await, calls()), (Accelerator::Kvm, 1), "proven");
        assert_eq!(
            (boot(4, "there").await, calls()),
            (Accelerator::Kvm, 2),
            "what was proven here counts nothing there"
        );
        std::fs::write(&qemu, "#!/bin/sh\nexit 1\n").unwrap();
        assert_eq!(boot(5, "elsewhere").await, Accelerator::Tcg);
        assert_eq!(boot(6, "there").await, Accelerator::Kvm, "a failure is kept nowhere");
        std::fs::remove_file(&kvm).unwrap();
        assert_eq!(boot(7, "there").await, Accelerator::Tcg, "switched off in the firmware setup");
    }
}
