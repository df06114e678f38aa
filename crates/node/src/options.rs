//! The command-line options. The defaults are those of a real node; with other values the daemon runs without root on a
//! developer's machine.

use std::{net::SocketAddr, path::PathBuf};

/// Management service of a Dyad node: web pages, API, and supervision of VMs.
#[derive(Debug, Clone, clap::Parser)]
#[command(name = "dyad-node", version)]
pub struct Options {
    /// Directory for files that must survive a reboot.
    #[arg(long, default_value = "/state")]
    pub state: PathBuf,
    /// Directory for sockets and for the files of running VMs.
    #[arg(long, default_value = "/run/dyad")]
    pub run: PathBuf,
    /// Address and TCP port of the web pages and the API (HTTPS).
    #[arg(long, default_value = "[::]:443")]
    pub listen: SocketAddr,
    /// Socket of dyad-core.
    #[arg(long, default_value = dyad_control::DEFAULT_SOCKET)]
    pub control_socket: PathBuf,
    /// Do not change the network, and do not search for a volume with a seed file.
    #[arg(long)]
    pub no_network: bool,
    /// Run no VMs.
    #[arg(long)]
    pub no_vms: bool,
    /// Cgroup below which each VM gets its own cgroup. If it does not exist, VMs run in the cgroup of this program.
    #[arg(long, default_value = "/sys/fs/cgroup/vms")]
    pub cgroup: PathBuf,
    /// Path of the QEMU program.
    #[arg(long, default_value = "/usr/bin/qemu-system-x86_64")]
    pub qemu: PathBuf,
    /// UEFI firmware for VMs (OVMF); it is opened read-only.
    #[arg(long, default_value = "/usr/share/OVMF/OVMF_CODE_4M.fd")]
    pub ovmf_code: PathBuf,
    /// File with UEFI variables, copied for each new VM.
    #[arg(long, default_value = "/usr/share/OVMF/OVMF_VARS_4M.fd")]
    pub ovmf_vars: PathBuf,
}

impl Options {
    /// Path of the Unix socket that serves the same API without TLS to programs of this node that run as root.
    #[must_use]
    pub fn local_socket(&self) -> PathBuf {
        self.run.join("node.sock")
    }
}
