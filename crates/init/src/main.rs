//! PID 1 of a node: brings the machine up, keeps the services running, takes the machine down in order.
//!
//! A plain loop over poll, no async, no configuration: what happens and in which order is the list [`BOOT`], the
//! table in [`service`] and the list in [`shutdown`]. Under other names the same program is two helpers that others
//! call: `modprobe`, the kernel's module loader, and `dhcp-hook`, which keeps the name servers that DHCP brings.
//!
//! init must never know anything of the pair, the pool or the VMs: to it they are services and a control group.
//!
//! **Invariants.** init never ends and never feeds the watchdog while a VM may be running. A phase that fails stops
//! the boot at a console that says what is wrong and what to do; that boot is never blessed, so three of them bring
//! the other slot back. The state partition is formatted only if this very program created it a moment ago.

mod backoff;
mod button;
mod cgroup;
mod cmdline;
mod control;
mod disk;
mod events;
mod journal;
mod log;
mod machine;
mod modules;
mod mounts;
mod partition;
mod pattern;
mod rescue;
mod resolver;
mod service;
mod shutdown;
mod supervise;
mod sys;
mod system;
mod watchdog;

use machine::Machine;
use std::path::Path;

/// One step of the boot: what a person would call it, and how it is done.
type Phase = (&'static str, fn(&mut Machine) -> anyhow::Result<()>);

/// From the kernel's hands to running services.
const BOOT: &[Phase] = &[
    ("mount the kernel's file systems", mounts::kernel),
    ("read the kernel command line", cmdline::read),
    ("load the modules of the initramfs", modules::load_initramfs),
    ("mount the system and make it the root", system::enter),
    ("load the drivers of this machine", modules::load_hardware),
    ("mount the file systems that came as modules", mounts::late),
    ("prepare control groups", cgroup::prepare),
    ("find the system disk", disk::find),
    ("make room for the state of this node", disk::prepare),
    ("mount the state and the system partition", disk::mount),
    ("name this node and start its loopback", system::name),
    ("open the watchdog", watchdog::open),
];

fn main() {
    let mut arguments = std::env::args();
    let called = arguments.next().unwrap_or_default();
    match Path::new(&called).file_name().and_then(|name| name.to_str()) {
        Some("modprobe") => std::process::exit(modules::modprobe(arguments)),
        Some("dhcp-hook") => std::process::exit(resolver::dhcp_hook()),
        _ => {}
    }
    if std::process::id() != 1 {
        eprintln!("dyad-init is the first process of a node and does nothing elsewhere.");
        std::process::exit(1);
    }
    // A panic of PID 1 would be a panic of the kernel. That is what must happen when even this fails: it reboots.
    let outcome = std::panic::catch_unwind(run);
    let problem = match outcome {
        Ok(problem) => problem,
        Err(_) => anyhow::anyhow!("init met an error of its own making").context("internal error"),
    };
    rescue::run(&problem)
}

/// Boots and supervises. Returns only when the boot cannot go on.
fn run() -> anyhow::Error {
    let mut machine = Machine::default();
    for (name, phase) in BOOT {
        log::info(name);
        if let Err(error) = phase(&mut machine) {
            return error.context(format!("this node could not {name}"));
        }
    }
    match supervise::run(machine) {
        Ok(never) => match never {},
        Err(error) => error.context("this node could not supervise its services"),
    }
}
