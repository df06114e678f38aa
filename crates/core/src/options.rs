//! The command line. Everything has the appliance's value as its default and another one on a laptop.

use clap::Parser;
use dyad_provision::paths::NodePaths;
use std::path::PathBuf;

/// Keeps the bytes of this node and decides whether its VMs may run.
#[derive(Debug, Clone, Parser)]
#[command(name = "dyad-core", version)]
pub struct Options {
    /// Where identity, keys and the register are kept.
    #[arg(long, default_value = "/state/core")]
    pub state: PathBuf,
    /// Where sockets and mounts are made.
    #[arg(long, default_value = "/run/dyad")]
    pub run: PathBuf,
    /// The local socket; below the run directory unless given.
    #[arg(long)]
    pub socket: Option<PathBuf>,
    /// Use these files or devices as candidates for pool disks instead of looking for disks.
    #[arg(long = "disk")]
    pub disks: Vec<PathBuf>,
    /// The VMs' cgroup; none if it is empty (then no VM can be stopped, and none must run).
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

    /// The local socket.
    pub fn socket(&self) -> PathBuf {
        self.socket.clone().unwrap_or_else(|| self.run.join("core.sock"))
    }

    /// The VMs' cgroup.
    pub fn vms(&self) -> Option<PathBuf> {
        (!self.vms.is_empty()).then(|| PathBuf::from(&self.vms))
    }
}
