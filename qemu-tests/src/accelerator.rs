//! Choice of the QEMU accelerator for nodes: KVM if a trial boot under KVM succeeds, else emulation (TCG).

use std::fmt;
use std::path::Path;
use std::time::Duration;

use anyhow::{Result, ensure};

use crate::child::Program;
use crate::serial::SerialLine;
use crate::wait::{self, Poll};

/// Longest time until the counting guest prints its counter in the trial boot. Where KVM works this takes seconds. On
/// some machines /dev/kvm opens and a guest then hangs in the boot ROM.
const PROBE_TIMEOUT: Duration = Duration::from_secs(10);

/// The QEMU accelerator that executes a node's instructions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Accelerator {
    /// The build machine's processor, by hardware virtualisation.
    Kvm,
    /// QEMU's translator; `-cpu max` gives the node AMD SVM, so its own guests run under KVM.
    Tcg,
}

impl Accelerator {
    /// Boots `guest`, the disk of the counting guest, under KVM: `Kvm` if the guest prints its counter, else `Tcg`.
    /// `sockets` is a folder for the files of the trial boot.
    ///
    /// # Errors
    /// The trial's QEMU cannot be started.
    pub fn by_trial_boot(guest: &Path, sockets: &Path) -> Result<Self> {
        if !Path::new("/dev/kvm").exists() {
            return Ok(Self::Tcg);
        }
        let socket = sockets.join("trial");
        let line = SerialLine::new(&sockets.join("trial.log"), &sockets.join("trial-relay"))?;
        let mut program = Program::new("qemu-system-x86_64");
        program.args(["-machine", "q35", "-m", "128", "-nodefaults"]);
        program.args(["-display", "none", "-snapshot"]);
        program.args(Self::Kvm.arguments());
        program.arg("-drive");
        program.arg(format!("file={},format=raw,if=virtio", guest.display()));
        program.arg("-serial");
        program.arg(format!("unix:{},server=on,wait=off", socket.display()));
        let mut qemu = program.start(&sockets.join("trial-qemu.log"))?;
        let mut connected = false;
        let spoke = wait::until("the trial's first word", PROBE_TIMEOUT, || {
            // QEMU may also exit by itself, where KVM refuses a setting.
            ensure!(!qemu.ended(), "QEMU ended.");
            connected = connected || (socket.exists() && line.connect(&socket).is_ok());
            let said = line.text_since(0).contains("resume ");
            Ok(if said { Poll::Ready(()) } else { Poll::NotYet("silence".into()) })
        });
        drop(qemu);
        Ok(if spoke.is_ok() { Self::Kvm } else { Self::Tcg })
    }

    /// The QEMU arguments that choose this accelerator, with the processor model that a node needs.
    pub fn arguments(self) -> [&'static str; 4] {
        match self {
            Self::Kvm => ["-accel", "kvm", "-cpu", "host"],
            // Without nested paging. With it, kernels of nodes panicked now and then in the thread of a guest's processor
            // ("corrupted stack end detected inside scheduler").
            Self::Tcg => ["-accel", "tcg,thread=multi", "-cpu", "max,-npt"],
        }
    }
}

impl fmt::Display for Accelerator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Kvm => "kvm",
            Self::Tcg => "tcg",
        })
    }
}
