//! The boot of a node, as a list of phases that run one after the other.

use crate::cmdline::Options;
use crate::modules::Modules;
use crate::watchdog::Watchdog;
use crate::{cgroup, cmdline, disk, log, modules, mounts, system, watchdog};
use anyhow::Context;
use std::path::PathBuf;

/// The results of the phases so far, for the phases after them.
#[derive(Default)]
struct Machine {
    /// The `dyad.` options of the kernel command line.
    options: Options,
    /// The index of the kernel modules.
    modules: Modules,
    /// Device of the disk that holds the system and the state of this node, such as `/dev/vda`.
    disk: PathBuf,
    /// The armed watchdog. `None` if the machine has none or the command line forbids it.
    watchdog: Option<Watchdog>,
}

/// One phase: its name, which completes the sentence "this node could not …", and its function.
type Phase = (&'static str, fn(&mut Machine) -> anyhow::Result<()>);

/// All phases, from the start of PID 1 to the point where services can be started.
const PHASES: &[Phase] = &[
    ("mount the kernel's file systems", |_| mounts::kernel()),
    ("read the kernel command line", |machine| {
        machine.options = cmdline::read()?;
        Ok(())
    }),
    ("load the modules of the initramfs", |_| modules::load_initramfs()),
    ("mount the system and make it the root", |_| system::enter()),
    ("load the drivers of this machine", |machine| {
        machine.modules = modules::load_hardware()?;
        Ok(())
    }),
    ("mount the file systems that came as modules", |_| mounts::late()),
    ("prepare control groups", |_| cgroup::prepare()),
    ("find the system disk", |machine| {
        machine.disk = disk::find(machine.options.disk, &mut machine.modules)?;
        Ok(())
    }),
    ("make room for the state of this node", |machine| disk::prepare(&machine.disk)),
    ("mount the state and the system partition", |machine| disk::mount(&machine.disk)),
    ("name this node and start its loopback", |_| system::name()),
    ("open the watchdog", |machine| {
        machine.watchdog = watchdog::open(machine.options.watchdog, &mut machine.modules)?;
        Ok(())
    }),
];

/// Runs all phases. Returns the armed watchdog, if the machine has one.
///
/// # Errors
///
/// The error of the first phase that failed, with the name of the phase. Later phases are not run.
pub fn run() -> anyhow::Result<Option<Watchdog>> {
    let mut machine = Machine::default();
    for (name, phase) in PHASES {
        log::info(name);
        phase(&mut machine).with_context(|| format!("this node could not {name}"))?;
    }
    Ok(machine.watchdog)
}
