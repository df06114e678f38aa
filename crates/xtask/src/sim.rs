//! `cargo xtask sim`: runs the simulator of a whole pair, `dyad-sim`, built with the release profile.

use std::process::Command;

use anyhow::{Result, bail};

use crate::host::{self, Host};

/// Builds `dyad-sim` and runs it with these arguments, which begin with `--seed N` or `--minutes M`.
pub fn run(host: &Host, arguments: &[&str]) -> Result<()> {
    let known = matches!(arguments, ["--seed" | "--minutes", number, ..] if number.parse::<u64>().is_ok());
    if !known {
        bail!("Say `cargo xtask sim --seed N` or `cargo xtask sim --minutes M`.");
    }
    // The whole workspace is selected, as in the other builds: cargo unites the features of what it selects, and another
    // selection would compile the dependencies again.
    host::run(host.cargo().args(["build", "--release", "--workspace", "--bin", "dyad-sim"]))?;
    host::run(Command::new(host.artifacts().programs().join("dyad-sim")).args(arguments))
}
