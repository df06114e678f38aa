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
    /// Print JSON.
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
    /// Log out.
    Logout,
    /// Say what happened.
    Timeline {
        /// First event number wanted.
        #[arg(long, default_value_t = 0)]
        since: u64,
    },
    /// Open the code with which the second node joins.
    PairingCode,
    /// The witness.
    #[command(subcommand)]
    Witness(Witness),
    /// The watchdog of the node.
    #[command(subcommand)]
    Watchdog(Watchdog),
    /// Set a node up from a seed file.
    Setup {
        /// The seed file (TOML).
        seed: PathBuf,
    },
    /// Volumes.
    #[command(subcommand)]
    Volume(Volume),
    /// Virtual machines.
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
    /// List all volumes.
    List,
    /// Make a volume.
    Create {
        /// Its name.
        name: String,
        /// Its size, such as 10GiB, 512MiB, or a number of bytes.
        #[arg(value_parser = size::bytes)]
        size: u64,
    },
    /// Replace everything a volume holds by a raw image. If it is refused, nothing is changed.
    Import {
        /// The volume.
        name: String,
        /// The image.
        file: PathBuf,
        /// Make the volume first, just large enough.
        #[arg(long)]
        create: bool,
    },
    /// Delete a volume with all it holds.
    Delete {
        /// The volume.
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
        /// Its name.
        name: String,
        /// Virtual CPUs.
        #[arg(long, default_value_t = 1)]
        cpus: u32,
        /// Memory in whole MiB, such as 2GiB or 512MiB.
        #[arg(long, value_parser = size::mebibytes)]
        memory: u32,
        /// A volume; give it again for each further disk. The first one boots.
        #[arg(long = "disk")]
        disks: Vec<String>,
        /// How it boots.
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
    /// Start a VM.
    Start {
        /// The VM.
        name: String,
    },
    /// Ask the guest to shut down.
    Stop {
        /// The VM.
        name: String,
    },
    /// Stop a VM at once, like pulling its plug.
    Kill {
        /// The VM.
        name: String,
    },
    /// Delete a stopped VM; its volumes stay.
    Delete {
        /// The VM.
        name: String,
    },
    /// Print what a VM wrote to its serial line.
    Log {
        /// The VM.
        name: String,
        /// Go on as it writes.
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
