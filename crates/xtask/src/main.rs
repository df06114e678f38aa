//! `cargo xtask`: builds the image, runs the rig, runs every test. Without an argument it prints the list.
//!
//! It is the only program of the workspace that installs Debian packages and parts of Rust; it names them before it does.

mod apt;
mod attach;
mod bench;
mod checks;
mod debian13;
mod deps;
mod guest;
mod host;
mod image;
mod modules;
mod rig;
mod sim;
#[cfg(test)]
mod tidy;

use std::process::ExitCode;

use anyhow::{Result, bail};

use crate::host::Host;

const USAGE: &str = "\
cargo xtask image                build the appliance image: target/image/dyad.img
cargo xtask rig                  boot a pair and its witness, set them up, leave them running until Ctrl-C
cargo xtask rig demo             run the main job and write  target/rig/report.json
cargo xtask attach a|b           the serial line of a node of a running rig; Ctrl-] leaves
cargo xtask test                 the tests, as CI runs them; lists all failures at the end
cargo xtask test machines        the whole-machine tests alone, or some of them: guest machine serial browser pair faults
cargo xtask sim --seed N         one simulator run, the same for the same seed
cargo xtask sim --minutes M      as many simulator runs as fit into M minutes
cargo xtask bench                latencies of a mirrored volume beside those of the bare network and disk
cargo xtask deps                 install the Debian packages that the commands need (all but attach and sim do it themselves)
cargo xtask guest                build the disks of the counting guests in target/rig
cargo xtask debian13             try the host part of the above in a Debian 13 tree (root; 10 to 20 minutes)";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match run(&arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("xtask: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &[String]) -> Result<()> {
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let host = Host::find()?;
    match words.as_slice() {
        ["image", rest @ ..] => {
            deps::install(&host)?;
            image::run(&host, rest)
        }
        ["rig"] => rig::run_until_ctrl_c(&host),
        ["rig", "demo"] => rig::demo(&host),
        ["attach", node] => attach::attach(&host, node),
        ["test"] => checks::run(&host),
        ["test", "machines", names @ ..] => checks::run_machines(&host, names),
        ["sim", rest @ ..] => sim::run(&host, rest),
        ["bench"] => bench::run(&host),
        ["deps"] => deps::install(&host),
        ["debian13"] => debian13::run(&host),
        ["guest"] => {
            deps::install(&host)?;
            guest::build(&host)
        }
        [] | ["help" | "--help" | "-h"] => {
            println!("{USAGE}");
            Ok(())
        }
        other => bail!("There is no `{}`. These exist:\n{USAGE}", other.join(" ")),
    }
}
