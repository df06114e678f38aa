//! PID 1 of a node: boots the machine, keeps the services running, and shuts the machine down.
//!
//! It is one loop over `poll`, without async code and without a configuration file. The list in [`boot`], the table in
//! [`service`] and the list in [`shutdown`] say what is done and in which sequence. Called by another name, the same program
//! does another task: as `modprobe` it loads modules for the kernel, as `dhcp-hook` it saves the name servers that DHCP
//! names.
//!
//! init must never know the pair, the pool or the VMs: it knows only services and a control group in which VMs run.
//!
//! **Invariants.** init never feeds the watchdog while a VM may be running. It ends only if the kernel refuses a reboot. A
//! phase that fails stops the boot; the consoles show the error, and the node reboots. Such a boot is not blessed, so after
//! three of them the boot loader leaves a slot that was never blessed and boots the next older one. The state partition is
//! formatted only while its name says that its file system was never complete.

mod backoff;
mod boot;
mod button;
mod cgroup;
mod cmdline;
mod control;
mod disk;
mod events;
mod log;
mod modules;
mod mounts;
mod partition;
mod pattern;
mod rescue;
mod resolver;
mod service;
mod service_log;
mod service_manager;
mod shutdown;
mod sys;
mod system;
mod watchdog;

use service_manager::ServiceManager;
use std::convert::Infallible;
use std::path::Path;
use watchdog::Watchdog;

fn main() {
    let mut arguments = std::env::args();
    let program = arguments.next().unwrap_or_default();
    match Path::new(&program).file_name().and_then(|name| name.to_str()) {
        Some("modprobe") => std::process::exit(modules::modprobe(arguments)),
        Some("dhcp-hook") => std::process::exit(resolver::dhcp_hook()),
        _ => {}
    }
    if std::process::id() != 1 {
        eprintln!("dyad-init is the first process of a node and does nothing elsewhere.");
        std::process::exit(1);
    }
    // The end of PID 1 is a panic of the kernel, which then reboots. A panic of this program is caught to show its error
    // first; if that fails too, the kernel's panic is the right result.
    let outcome = std::panic::catch_unwind(run);
    let problem = match outcome {
        Ok(problem) => problem,
        Err(_) => anyhow::anyhow!("init has a programming error: the message above names it").context("internal error"),
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

/// Keeps the services running until a shutdown is requested, then shuts the machine down.
fn serve(watchdog: Option<Watchdog>) -> anyhow::Result<Infallible> {
    let mut manager = ServiceManager::start(watchdog)?;
    let action = manager.run()?;
    shutdown::run(manager, action)
}
