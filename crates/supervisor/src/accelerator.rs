//! What runs the guests' instructions: KVM if it is proven to work, else emulation.
//!
//! `/dev/kvm` may exist, open, and create a VM whose processor then never leaves the boot ROM. So a trial
//! machine boots a sector that ends QEMU with a certain exit code, within a deadline. What was proven holds for the same
//! hardware, kernel and QEMU also after a restart: VMs that wait for a node to come back need not wait for a trial as well. A
//! failure is tried again at the next boot.

use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::version::Version;

/// What runs the guests' instructions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Accelerator {
    /// The processor itself.
    Kvm,
    /// Emulation: everything works, slowly.
    Tcg,
}

const KVM: &str = "/dev/kvm";
/// Writes 0x2a to port 0xf4, where the exit device of the trial machine sits, and halts.
const CODE: [u8; 9] = [
    0xb0, 0x2a, // mov al, 0x2a
    0xba, 0xf4, 0x00, // mov dx, 0xf4
    0xee, // out dx, al
    0xf4, // hlt
    0xeb, 0xfd, // jmp to hlt
];
/// `isa-debug-exit` turns the value written into twice the value plus one.
const PROVEN: i32 = 0x2a * 2 + 1;

/// How long the trial machine may take. A firmware reaches its boot sector within a second or two, on a busy node later; the
/// answer holds until the node restarts, so a minute once is the cheaper mistake.
pub const PROBE_TIMEOUT: Duration = Duration::from_secs(60);

/// Find out at most once per boot of the node. The answer is kept in `dir`, which a reboot empties; a proof of KVM also in
/// the file `proof`, which survives it. `version` is QEMU's.
pub async fn decide(qemu: &Path, version: Version, dir: &Path, proof: &Path) -> Accelerator {
    let trial = Trial { kvm: Path::new(KVM), surroundings: surroundings(version), qemu, dir, proof };
    trial.decide().await
}

struct Trial<'a> {
    kvm: &'a Path,
    surroundings: String,
    qemu: &'a Path,
    dir: &'a Path,
    proof: &'a Path,
}

impl Trial<'_> {
    async fn decide(self) -> Accelerator {
        let there = self.kvm.exists();
        if there && load::<Proof>(self.proof).is_some_and(|proof| proof.surroundings == self.surroundings) {
            return Accelerator::Kvm;
        }
        let cache = self.dir.join("accelerator");
        if let Some(known) = load(&cache) {
            return known;
        }
        let found = match there && boots(self.qemu, self.dir, "kvm", PROBE_TIMEOUT).await {
            true => Accelerator::Kvm,
            false => Accelerator::Tcg,
        };
        // Without the notes the next start tries again: slower, as correct.
        let _ = save(&cache, &found);
        if found == Accelerator::Kvm {
            let _ = save(self.proof, &Proof { surroundings: self.surroundings });
        }
        found
    }
}

/// KVM was seen to work.
#[derive(Debug, Serialize, Deserialize)]
struct Proof {
    /// Where: [`surroundings`].
    surroundings: String,
}

/// What the outcome of a trial depends on, as far as a node can see it: QEMU, the kernel with its command line, the server's
/// model and firmware, the processor with its microcode and flags. A hypervisor below the node cannot be seen, and no node for real work has one.
fn surroundings(qemu: Version) -> String {
    let read = |path| std::fs::read_to_string(path).unwrap_or_default();
    let processors = read("/proc/cpuinfo");
    let names = ["vendor_id", "cpu family", "model", "model name", "stepping", "microcode", "flags"];
    let first = processors.split("\n\n").next().unwrap_or_default();
    let facts = first.lines().filter(|line| line.split(':').next().is_some_and(|name| names.contains(&name.trim())));
    let files = ["/proc/version", "/proc/cmdline", "/sys/class/dmi/id/bios_version", "/sys/class/dmi/id/product_name"];
    format!("{qemu:?}\n{}{}", files.map(read).concat(), facts.collect::<Vec<_>>().join("\n"))
}

fn load<T: for<'a> Deserialize<'a>>(file: &Path) -> Option<T> {
    serde_json::from_slice(&std::fs::read(file).ok()?).ok()
}

/// Replaces the file as a whole and syncs it, as the node may lose power.
fn save(file: &Path, what: &impl Serialize) -> std::io::Result<()> {
    std::fs::create_dir_all(file.parent().unwrap_or(file))?;
    dyad_atomic_file::replace_with_mode(file, &serde_json::to_vec(what)?, dyad_atomic_file::PUBLIC)
}

/// Whether a machine with accelerator `accel` boots within `limit`. Leaves no process behind.
pub async fn try_out(qemu: &Path, dir: &Path, accel: &str, limit: Duration) -> bool {
    (accel != "kvm" || Path::new(KVM).exists()) && boots(qemu, dir, accel, limit).await
}

async fn boots(qemu: &Path, dir: &Path, accel: &str, limit: Duration) -> bool {
    let disk = dir.join(format!("trial-{accel}.img"));
    let mut sector = CODE.to_vec();
    sector.resize(510, 0);
    sector.extend([0x55, 0xaa]);
    // The firmware takes nothing smaller than a cylinder for a disk.
    sector.resize(1 << 20, 0);
    if std::fs::create_dir_all(dir).and_then(|()| std::fs::write(&disk, sector)).is_err() {
        return false;
    }
    let mut command = tokio::process::Command::new(qemu);
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
                // It hangs, as it does where KVM only pretends to work.
                let _ = child.kill().await;
            }
            ended.ok().and_then(Result::ok).and_then(|status| status.code())
        }
        Err(_) => None,
    };
    let _ = std::fs::remove_file(&disk);
    outcome == Some(PROVEN)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A QEMU that notes that it was called and ends as a trial machine does that reached its boot sector.
    fn qemu(dir: &Path) -> std::path::PathBuf {
        use std::os::unix::fs::PermissionsExt as _;
        let program = dir.join("qemu");
        std::fs::write(&program, format!("#!/bin/sh\necho x >> {}/calls\nexit {PROVEN}\n", dir.display())).unwrap();
        std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).unwrap();
        program
    }

    #[tokio::test]
    async fn a_proof_survives_a_reboot_and_holds_where_it_was_made() {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name);
        let (qemu, proof, kvm) = (qemu(dir.path()), path("proof.json"), path("kvm"));
        let calls = || std::fs::read_to_string(path("calls")).unwrap_or_default().lines().count();
        let boot = async |number: u32, surroundings: &str| {
            let run = path(&number.to_string());
            let surroundings = surroundings.to_owned();
            Trial { kvm: &kvm, surroundings, qemu: &qemu, dir: &run, proof: &proof }.decide().await
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
