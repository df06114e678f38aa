//! The arguments of the command line, from which clap generates the help.

use std::path::PathBuf;

use clap::{Parser, Subcommand, ValueEnum};

use crate::size;

/// Administers a Dyad pair over the API of one of its nodes.
#[derive(Debug, Parser)]
#[command(name = "dyad", version)]
pub(crate) struct Arguments {
    /// URL of the node, such as https://192.0.2.10.
    #[arg(long, env = "DYAD_NODE", global = true, default_value = "https://localhost")]
    pub(crate) node: String,
    /// Print JSON as the API sends it, for programs, instead of text for people.
    #[arg(long, global = true)]
    pub(crate) json: bool,
    /// Directory for session tokens and for the certificates of known nodes.
    #[arg(long, env = "DYAD_CONFIG", global = true)]
    pub(crate) config: Option<PathBuf>,
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Show whether the pair is protected, and what is missing.
    Status,
    /// Log in; the password comes from DYAD_PASSWORD, from the terminal, or from standard input.
    Login,
    /// Log out: end the session at the node and delete the stored token.
    Logout,
    /// Print the events of this node, oldest first.
    Timeline {
        /// Number of the first event to print; 0 prints all that the node still keeps.
        #[arg(long, default_value_t = 0)]
        since: u64,
    },
    /// Open a one-time code with which the second node joins.
    PairingCode,
    /// Enrol the pair at a witness: the machine outside of both nodes that holds the third vote.
    #[command(subcommand)]
    Witness(Witness),
    /// Test whether the watchdog resets the node when the node hangs.
    #[command(subcommand)]
    Watchdog(Watchdog),
    /// Set a node up from a seed file.
    Setup {
        /// The seed file (TOML).
        seed: PathBuf,
    },
    /// List, create, fill and delete volumes, the virtual disks of the pair.
    #[command(subcommand)]
    Volume(Volume),
    /// List, create, start, stop and delete virtual machines.
    #[command(subcommand)]
    Vm(Vm),
    /// Erase the node: it leaves its pair and becomes blank. Without CONFIRM, print the text that must be given.
    Erase {
        /// Name of the node, or "pair/node" if no other node is known to hold the data; with --disk the disk's name.
        confirm: Option<String>,
        /// Erase only this disk with data of a pair; the node must not be set up yet.
        #[arg(long)]
        disk: Option<String>,
    },
    /// Delete the stored certificate and token of the node, after the node was erased and set up again.
    Forget,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Witness {
    /// Enrol the pair at a witness.
    Add {
        /// Host name or address, with :port if it is not 7403.
        address: String,
        /// The one-time code that the witness printed.
        code: String,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum Watchdog {
    /// Stop feeding the watchdog, so that it resets the node now. Refused while VMs run there.
    Prove,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Volume {
    /// List all volumes of the pair.
    List,
    /// Create a volume; it reads as zeros.
    Create {
        /// Name of the new volume: 1 to 32 lower-case letters, digits and hyphens, beginning with a letter.
        name: String,
        /// Size of the volume, such as 10GiB, 512MiB, or a number of bytes; a whole number of MiB.
        #[arg(value_parser = size::parse_bytes)]
        size: u64,
    },
    /// Replace the content of a volume by a raw image. A refused image changes nothing.
    Import {
        /// Name of the volume whose content is replaced.
        name: String,
        /// File with the raw image of a disk; other formats must be converted first.
        file: PathBuf,
        /// Create the volume first, with the size of the image rounded up to MiB.
        #[arg(long)]
        create: bool,
    },
    /// Delete a volume with its content.
    Delete {
        /// Name of the volume to delete.
        name: String,
    },
}

#[derive(Debug, Clone, Copy, ValueEnum)]
pub(crate) enum Firmware {
    Bios,
    Uefi,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Vm {
    /// List all VMs.
    List,
    /// Create a VM and start it.
    Create {
        /// Name of the new VM: 1 to 32 lower-case letters, digits and hyphens, beginning with a letter.
        name: String,
        /// Number of virtual CPUs, 1 to 128.
        #[arg(long, default_value_t = 1)]
        cpus: u32,
        /// Memory in whole MiB, such as 2GiB or 512MiB.
        #[arg(long, value_parser = size::parse_mebibytes)]
        memory: u32,
        /// Name of a volume that becomes a disk; repeat it for further disks. The VM boots from the first one.
        #[arg(long = "disk")]
        disks: Vec<String>,
        /// Firmware with which the VM boots: uefi (OVMF) or bios (SeaBIOS).
        #[arg(long, value_enum, default_value = "uefi")]
        firmware: Firmware,
        /// The node that shall run the VM, A or B; by default the node of --node.
        #[arg(long)]
        on: Option<String>,
        /// Starting order after a fail-over, 0 (last) to 100 (first).
        #[arg(long, default_value_t = 50)]
        priority: u8,
        /// Do not start the VM now.
        #[arg(long)]
        stopped: bool,
        /// Do not start the VM on the survivor when its node is lost.
        #[arg(long)]
        no_ha: bool,
    },
    /// Start a VM on its node.
    Start {
        /// Name of the VM to start.
        name: String,
    },
    /// Ask the guest to shut down; after the grace time, one minute by default, its process is killed.
    Stop {
        /// Name of the VM to shut down.
        name: String,
    },
    /// Kill a VM at once, like a power cut.
    Kill {
        /// Name of the VM to kill.
        name: String,
    },
    /// Delete a stopped VM; its volumes stay.
    Delete {
        /// Name of the VM to delete.
        name: String,
    },
    /// Print the last output of a VM on its serial line.
    Log {
        /// Name of the VM whose output is printed.
        name: String,
        /// Continue with new output until interrupted.
        #[arg(long, short)]
        follow: bool,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clap_accepts_the_definition_of_the_arguments() {
        use clap::CommandFactory;
        Arguments::command().debug_assert();
    }
}
