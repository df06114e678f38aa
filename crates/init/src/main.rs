//! PID 1 of a node: brings the machine up, keeps the services running, takes the machine down in order.
//!
//! A plain loop over poll, no async, no configuration: what happens and in which order is the list in [`boot`], the
//! table in [`service`] and the list in [`shutdown`]. Under other names the same program is two helpers that others
//! call: `modprobe`, the kernel's module loader, and `dhcp-hook`, which keeps the name servers that DHCP brings.
//!
//! init must never know anything of the pair, the pool or the VMs: to it they are services and a control group.
//!
//! **Invariants.** init never ends and never feeds the watchdog while a VM may be running. A phase that fails stops
//! the boot at a console that says what is wrong and what to do; that boot is never blessed, so three of them bring
//! the other slot back. The state partition is formatted only if this very program created it a moment ago.

mod backoff;
mod boot;
mod button;
mod cgroup;
mod cmdline;
mod control;
mod disk;
mod events;
mod journal;
mod log;
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

use std::convert::Infallible;
use std::path::Path;
use supervise::Supervisor;
use watchdog::Watchdog;

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

/// Boots, then supervises the services. Returns only the error that ended either of them.
fn run() -> anyhow::Error {
    let watchdog = match boot::run() {
        Ok(watchdog) => watchdog,
        Err(error) => return error,
    };
    match serve(watchdog) {
        Ok(never) => match never {},
        Err(error) => error.context("this node could not supervise its services"),
    }
}

/// Keeps the services running until the machine is told to go down, then takes it down.
fn serve(watchdog: Option<Watchdog>) -> anyhow::Result<Infallible> {
    let mut supervisor = Supervisor::start(watchdog)?;
    let action = supervisor.run()?;
    shutdown::run(supervisor, action)
}
