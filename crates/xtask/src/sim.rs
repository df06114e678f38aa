//! `cargo xtask sim`: the whole-pair simulator, built with the profile that ships.

use std::process::Command;

use anyhow::{Result, bail};

use crate::host::{self, Host};

/// Hands its arguments to `dyad-sim`: `--seed N` or `--minutes M`.
pub fn run(host: &Host, arguments: &[&str]) -> Result<()> {
    let known = matches!(arguments, ["--seed" | "--minutes", number, ..] if number.parse::<u64>().is_ok());
    if !known {
        bail!("Say `cargo xtask sim --seed N` or `cargo xtask sim --minutes M`.");
    }
    // With the features of the whole workspace, as all programs: the simulator alone would be compiled once more.
    host::run(host.cargo().args(["build", "--release", "--workspace", "--bin", "dyad-sim"]))?;
    host::run(Command::new(host.artifacts().programs().join("dyad-sim")).args(arguments))
}
