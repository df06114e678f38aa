//! `cargo xtask bench`: a pair of real daemons in two network namespaces, beside what the machine itself allows.

use anyhow::Result;

use crate::deps;
use crate::host::{self, Host};

/// Prints a line for each job and writes `target/bench/report.json`.
pub fn run(host: &Host) -> Result<()> {
    deps::install(host)?;
    host.build_programs()?;
    let mut bench = host.cargo();
    bench.args(["run", "--release", "--quiet", "--package", "dyad-process-tests", "--bin", "dyad-bench"]);
    host::run(&mut host::as_root(bench))
}
