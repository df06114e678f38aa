//! Control groups: one for the services, and one with a child group for each VM.

use anyhow::Context;
use std::fs;
use std::path::Path;

const ROOT: &str = "/sys/fs/cgroup";
/// Parent of the control groups of all VMs.
pub const VMS: &str = "/sys/fs/cgroup/vms";
/// The control group of the services that init starts.
pub const SERVICES: &str = "/sys/fs/cgroup/dyad";

/// `cpu.weight` of [`SERVICES`]; [`VMS`] has the kernel's default of 100. Each VM waits for the storage daemon, and the peer
/// waits for a restarted one for little more than a second, so busy VMs leave the services up to ten elevenths of the
/// processors. The services need far less.
const SERVICES_CPU_WEIGHT: &str = "1000";

/// The controllers that may limit and count the resources of each VM.
const CONTROLLERS: [&str; 5] = ["cpu", "cpuset", "io", "memory", "pids"];

/// Phase: creates both groups and enables the controllers for the children of [`VMS`].
pub fn prepare() -> anyhow::Result<()> {
    delegate(Path::new(ROOT))?;
    for group in [VMS, SERVICES] {
        fs::create_dir_all(group).with_context(|| format!("the control group {group} cannot be made"))?;
    }
    if let Err(error) = fs::write(format!("{SERVICES}/cpu.weight"), SERVICES_CPU_WEIGHT) {
        // The node works, with slower services beside busy VMs.
        crate::log::warn(&format!("the services' share of the processors cannot be set: {error}"));
    }
    delegate(Path::new(VMS))
}

fn delegate(group: &Path) -> anyhow::Result<()> {
    let file = group.join("cgroup.subtree_control");
    for controller in CONTROLLERS {
        fs::write(&file, format!("+{controller}"))
            .with_context(|| format!("the kernel does not offer the {controller} controller"))?;
    }
    Ok(())
}

/// Tells the kernel to kill every process below [`VMS`] and does not wait: [`vms_running`] says when all have ended.
pub fn kill_vms() {
    if let Err(error) = fs::write(format!("{VMS}/cgroup.kill"), "1") {
        crate::log::warn(&format!("the VMs cannot be killed: {error}"));
    }
}

/// Whether a process of a VM may be alive. If the kernel's answer cannot be read, the result is `true`.
pub fn vms_running() -> bool {
    let events = fs::read_to_string(format!("{VMS}/cgroup.events"));
    !events.is_ok_and(|text| text.lines().any(|line| line == "populated 0"))
}
