//! The flags. The defaults are those of a real node; with others the daemon runs in a plain directory on a laptop.

use std::{net::SocketAddr, path::PathBuf};

/// The daemon of a Dyad node that people talk to.
#[derive(Debug, Clone, clap::Parser)]
#[command(name = "dyad-node", version)]
pub struct Options {
    /// Directory of what must survive a restart.
    #[arg(long, default_value = "/state")]
    pub state: PathBuf,
    /// Directory of sockets and of running VMs.
    #[arg(long, default_value = "/run/dyad")]
    pub run: PathBuf,
    /// Address and TCP port of the web pages and the API (HTTPS).
    #[arg(long, default_value = "[::]:443")]
    pub listen: SocketAddr,
    /// Socket of dyad-core.
    #[arg(long, default_value = dyad_control::DEFAULT_SOCKET)]
    pub control_socket: PathBuf,
    /// Leave the network alone, and look for no seed volume.
    #[arg(long)]
    pub no_network: bool,
    /// Start no VM.
    #[arg(long)]
    pub no_vms: bool,
    /// The cgroup below which each VM gets its own; without it VMs run where this program runs.
    #[arg(long, default_value = "/sys/fs/cgroup/vms")]
    pub cgroup: PathBuf,
    /// The QEMU program.
    #[arg(long, default_value = "/usr/bin/qemu-system-x86_64")]
    pub qemu: PathBuf,
    /// UEFI firmware for VMs, read-only.
    #[arg(long, default_value = "/usr/share/OVMF/OVMF_CODE_4M.fd")]
    pub ovmf_code: PathBuf,
    /// Template of a VM's UEFI variables.
    #[arg(long, default_value = "/usr/share/OVMF/OVMF_VARS_4M.fd")]
    pub ovmf_vars: PathBuf,
}

impl Options {
    /// The socket on which the same API is served without TLS to programs of this node that run as root.
    #[must_use]
    pub fn local_socket(&self) -> PathBuf {
        self.run.join("node.sock")
    }
}
