//! `cargo xtask sim`: the whole-pair simulator, built with the profile that ships.

use anyhow::{Result, bail};

use crate::host::{self, Host};

/// Hands its arguments to `dyad-sim`: `--seed N` or `--minutes M`.
pub fn run(host: &Host, arguments: &[&str]) -> Result<()> {
    let known = matches!(arguments, ["--seed" | "--minutes", number, ..] if number.parse::<u64>().is_ok());
    if !known {
        bail!("Say `cargo xtask sim --seed N` or `cargo xtask sim --minutes M`.");
    }
    let mut command = host.cargo();
    command.args(["run", "--release", "--package", "dyad-sim", "--bin", "dyad-sim", "--"]);
    host::run(command.args(arguments))
}
