//! The command line.

use std::path::PathBuf;

use clap::{Parser, Subcommand, ValueEnum};

use crate::size;

/// Administers a Dyad pair over the API of one of its nodes.
#[derive(Debug, Parser)]
#[command(name = "dyad", version)]
pub(crate) struct Arguments {
    /// The node, such as https://192.0.2.10.
    #[arg(long, env = "DYAD_NODE", global = true, default_value = "https://localhost")]
    pub(crate) node: String,
    /// Print JSON as the API sends it, for programs, instead of text for people.
    #[arg(long, global = true)]
    pub(crate) json: bool,
    /// Directory of tokens and of the certificates of known nodes.
    #[arg(long, env = "DYAD_CONFIG", global = true)]
    pub(crate) config: Option<PathBuf>,
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Say whether the pair is protected.
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
    /// Open the code with which the second node joins.
    PairingCode,
    /// Enrol the pair at a witness, the tiebreaker outside of both nodes.
    #[command(subcommand)]
    Witness(Witness),
    /// Prove that the watchdog resets the node when the node hangs.
    #[command(subcommand)]
    Watchdog(Watchdog),
    /// Set a node up from a seed file.
    Setup {
        /// The seed file (TOML).
        seed: PathBuf,
    },
    /// List, make, fill and delete volumes, the virtual disks of the pair.
    #[command(subcommand)]
    Volume(Volume),
    /// Make, start, stop and delete virtual machines.
    #[command(subcommand)]
    Vm(Vm),
    /// Start over: the node leaves its pair and becomes blank. Without the confirmation it says what to type.
    Erase {
        /// What the node wants typed: its name, or "pair/node" if no other node is known to hold the data.
        confirm: Option<String>,
        /// Erase this disk, which carries data of a pair, of a node that is not set up; confirmed by its name.
        #[arg(long)]
        disk: Option<String>,
    },
    /// Forget the certificate of the node, after it was erased and set up again.
    Forget,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Witness {
    /// Enrol at a witness.
    Add {
        /// Host name or address, with :port if it is not 7403.
        address: String,
        /// The one-time code that the witness printed.
        code: String,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum Watchdog {
    /// Prove that it resets the node, which restarts now; no VM may run there.
    Prove,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Volume {
    /// List all volumes of the pair.
    List,
    /// Make a volume.
    Create {
        /// Name of the new volume: 1 to 32 lower-case letters, digits and hyphens, beginning with a letter.
        name: String,
        /// Its size, such as 10GiB, 512MiB, or a number of bytes.
        #[arg(value_parser = size::bytes)]
        size: u64,
    },
    /// Replace everything a volume holds by a raw image. If it is refused, nothing is changed.
    Import {
        /// Name of the volume whose content is replaced.
        name: String,
        /// File with the raw image of a disk; other formats must be converted first.
        file: PathBuf,
        /// Make the volume first, just large enough.
        #[arg(long)]
        create: bool,
    },
    /// Delete a volume with all it holds.
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
    /// Make a VM.
    Create {
        /// Name of the new VM: 1 to 32 lower-case letters, digits and hyphens, beginning with a letter.
        name: String,
        /// Number of virtual CPUs, 1 to 128.
        #[arg(long, default_value_t = 1)]
        cpus: u32,
        /// Memory in whole MiB, such as 2GiB or 512MiB.
        #[arg(long, value_parser = size::mebibytes)]
        memory: u32,
        /// A volume; give it again for each further disk. The first one boots.
        #[arg(long = "disk")]
        disks: Vec<String>,
        /// How the VM boots: uefi (OVMF) or bios (SeaBIOS).
        #[arg(long, value_enum, default_value = "uefi")]
        firmware: Firmware,
        /// The node that runs it, A or B; by default the node that is asked.
        #[arg(long)]
        on: Option<String>,
        /// Starting order after a fail-over, 0 (last) to 100 (first).
        #[arg(long, default_value_t = 50)]
        priority: u8,
        /// Do not start it now.
        #[arg(long)]
        stopped: bool,
        /// Do not start it on the survivor when its node is lost.
        #[arg(long)]
        no_ha: bool,
    },
    /// Start a VM on its node.
    Start {
        /// Name of the VM to start.
        name: String,
    },
    /// Ask the guest to shut down.
    Stop {
        /// Name of the VM to shut down.
        name: String,
    },
    /// Stop a VM at once, like pulling its plug.
    Kill {
        /// Name of the VM to stop.
        name: String,
    },
    /// Delete a stopped VM; its volumes stay.
    Delete {
        /// Name of the VM to delete.
        name: String,
    },
    /// Print what a VM wrote to its serial line.
    Log {
        /// Name of the VM whose output is printed.
        name: String,
        /// Go on printing as the VM writes, until interrupted.
        #[arg(long, short)]
        follow: bool,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        use clap::CommandFactory;
        Arguments::command().debug_assert();
    }
}
