//! What runs the guests' instructions: KVM if it is proven to work, else emulation.
//!
//! `/dev/kvm` may exist, open, and create a VM whose processor then never leaves the boot ROM. So a trial
//! machine boots a sector that ends QEMU with a certain exit code, within a deadline.

use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// What runs the guests' instructions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Accelerator {
    /// The processor itself.
    Kvm,
    /// Emulation: everything works, slowly.
    Tcg,
}

impl Accelerator {
    /// The warning to show while this accelerator is in use, one sentence; none for KVM.
    #[must_use]
    pub fn warning(self) -> Option<&'static str> {
        match self {
            Accelerator::Kvm => None,
            Accelerator::Tcg => Some(
                "Hardware virtualisation does not work on this node, so its VMs are emulated and slow; \
                 enable VT-x or AMD-V in the firmware setup.",
            ),
        }
    }
}

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

/// How long the trial machine may take. A firmware reaches its boot sector within a second or two.
pub const TRIAL: Duration = Duration::from_secs(20);

/// Find out once per boot of the node; the answer is kept in `dir`, which a reboot empties.
pub async fn decide(qemu: &Path, dir: &Path, limit: Duration) -> Accelerator {
    let cache = dir.join("accelerator");
    let known = std::fs::read(&cache).ok().and_then(|text| serde_json::from_slice(&text).ok());
    if let Some(known) = known {
        return known;
    }
    let found = match try_out(qemu, dir, "kvm", limit).await {
        true => Accelerator::Kvm,
        false => Accelerator::Tcg,
    };
    // Without the note the next start tries again: slower, as correct.
    let _ = std::fs::create_dir_all(dir);
    let _ = serde_json::to_vec(&found).map(|text| std::fs::write(&cache, text));
    found
}

/// Whether a machine with accelerator `accel` boots within `limit`. Leaves no process behind.
pub async fn try_out(qemu: &Path, dir: &Path, accel: &str, limit: Duration) -> bool {
    if accel == "kvm" && !Path::new("/dev/kvm").exists() {
        return false;
    }
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
