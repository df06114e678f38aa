//! The command line. The defaults are the values on the appliance; development hosts and tests give others.

use clap::Parser;
use dyad_provision::paths::NodePaths;
use std::path::PathBuf;

/// Keeps the bytes of this node and decides whether its VMs may run.
#[derive(Debug, Clone, Parser)]
#[command(name = "dyad-core", version)]
pub struct Options {
    /// Directory of identity, keys and register.
    #[arg(long, default_value = "/state/core")]
    pub state: PathBuf,
    /// Directory of sockets and mount points.
    #[arg(long, default_value = "/run/dyad")]
    pub run: PathBuf,
    /// The local socket; below the run directory unless given.
    #[arg(long)]
    pub socket: Option<PathBuf>,
    /// Use these files or devices as candidates for pool disks instead of looking for disks.
    #[arg(long = "disk")]
    pub disks: Vec<PathBuf>,
    /// The cgroup below which all VMs run. Empty: no cgroup; VMs cannot be stopped then, so none must run.
    #[arg(long, default_value = "/sys/fs/cgroup/vms")]
    pub vms: String,
    /// The watchdog device; init hands over an open descriptor in DYAD_WATCHDOG_FD instead.
    #[arg(long)]
    pub watchdog: Option<PathBuf>,
}

impl Options {
    /// The folders and disks for provisioning.
    pub fn paths(&self) -> NodePaths {
        NodePaths { state: self.state.clone(), run: self.run.clone(), disks: self.disks.clone() }
    }

    /// Path of the control socket: as given, else `core.sock` in the run directory.
    pub fn socket(&self) -> PathBuf {
        self.socket.clone().unwrap_or_else(|| self.run.join("core.sock"))
    }

    /// The cgroup below which all VMs run; `None` if the option is empty.
    pub fn vms_cgroup(&self) -> Option<PathBuf> {
        (!self.vms.is_empty()).then(|| PathBuf::from(&self.vms))
    }
}
