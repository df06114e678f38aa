//! `cargo xtask bench`: latencies of a pair of real daemons in two network namespaces, beside those of the bare network
//! and disk of this machine.

use anyhow::Result;

use crate::deps;
use crate::host::{self, Host};

/// Builds and runs `dyad-bench` as root, which prints a line for each job and writes `target/bench/report.json`.
pub fn run(host: &Host) -> Result<()> {
    deps::install(host)?;
    host.build_programs()?;
    let mut bench = host.cargo();
    bench.args(["run", "--release", "--quiet", "--package", "dyad-process-tests", "--bin", "dyad-bench"]);
    host::run(&mut host::as_root(bench))
}
