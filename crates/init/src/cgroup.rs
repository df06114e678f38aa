//! Control groups: one for the services, one with a child per VM.

use anyhow::Context;
use std::fs;
use std::path::Path;

const ROOT: &str = "/sys/fs/cgroup";
/// Parent of the control groups of all VMs.
pub const VMS: &str = "/sys/fs/cgroup/vms";
/// The control group of our own services.
pub const SERVICES: &str = "/sys/fs/cgroup/dyad";

/// What may be bounded and counted per VM.
const CONTROLLERS: [&str; 5] = ["cpu", "cpuset", "io", "memory", "pids"];

/// Phase: makes the groups and lets their children use the controllers.
pub fn prepare() -> anyhow::Result<()> {
    delegate(Path::new(ROOT))?;
    for group in [VMS, SERVICES] {
        fs::create_dir_all(group).with_context(|| format!("the control group {group} cannot be made"))?;
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

/// Kills every process below [`VMS`]. The kernel does it in the background: ask [`vms_running`].
pub fn kill_vms() {
    if let Err(error) = fs::write(format!("{VMS}/cgroup.kill"), "1") {
        crate::log::warn(&format!("the VMs cannot be killed: {error}"));
    }
}

/// Whether any VM process may be alive. What cannot be read counts as running.
pub fn vms_running() -> bool {
    let events = fs::read_to_string(format!("{VMS}/cgroup.events"));
    !events.is_ok_and(|text| text.lines().any(|line| line == "populated 0"))
}
