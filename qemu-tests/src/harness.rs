//! A test harness for tests that share booted machines. They run one after the other and print what cargo's own harness
//! prints.
//!
//! Booting a pair for each test would take most of an hour. A failed test does not stop the others: each begins by
//! waiting for the state of the pair that it needs, and fails with that state in its error.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::ExitCode;
use std::time::Instant;
use std::{env, io};

use anyhow::{Result, anyhow};

use crate::stall_detector::StallDetector;

/// A test: its name and its function.
pub type Test<C> = (&'static str, fn(&mut C) -> Result<()>);

/// The machines that all tests of one test program share, such as a [`Pair`](crate::pair::Pair).
pub trait MachineFixture {
    /// Saves logs and state of the machines after `test`; if it failed, prints the state too.
    fn record_outcome(&mut self, test: &str, failed: bool);
}

/// Runs `tests` in order on the machines that `begin` starts; honours `--list` and name filters as cargo's own harness
/// does. The machines are started only if a test is chosen.
pub fn run_tests<C: MachineFixture, F: Fn(&mut C) -> Result<()>>(
    tests: &[(&'static str, F)],
    begin: impl FnOnce() -> Result<C>,
) -> ExitCode {
    let arguments: Vec<_> = env::args().skip(1).collect();
    if arguments.iter().any(|argument| argument == "--list") {
        for (name, _) in tests {
            println!("{name}: test");
        }
        return ExitCode::SUCCESS;
    }
    let filters: Vec<_> = arguments.iter().filter(|a| !a.starts_with('-')).collect();
    let wanted = |name: &str| filters.is_empty() || filters.iter().any(|f| name.contains(*f));
    let start = Instant::now();
    let chosen: Vec<_> = tests.iter().filter(|(name, _)| wanted(name)).collect();
    println!("\nrunning {} tests", chosen.len());
    let stall_detector = StallDetector::start();
    let mut failures = Vec::new();
    if !chosen.is_empty() {
        match begin() {
            Ok(mut context) => run(&chosen, &mut context, &mut failures),
            Err(error) => {
                for (name, _) in &chosen {
                    println!("test {name} ... FAILED (could not begin)");
                    failures.push((*name, format!("{error:#}")));
                }
            }
        }
    }
    println!("\n{}", stall_detector.summary());
    summary(Count { all: tests.len(), chosen: chosen.len() }, &failures, start)
}

fn run<C: MachineFixture, F: Fn(&mut C) -> Result<()>>(
    chosen: &[&(&'static str, F)],
    context: &mut C,
    failures: &mut Vec<(&'static str, String)>,
) {
    for (name, test) in chosen {
        let start = Instant::now();
        let outcome =
            catch_unwind(AssertUnwindSafe(|| test(context))).unwrap_or_else(|_| Err(anyhow!("it panicked; see above")));
        let seconds = start.elapsed().as_secs_f64();
        let failed = outcome.is_err();
        match outcome {
            Ok(()) => println!("test {name} ... ok ({seconds:.1} s)"),
            Err(error) => {
                println!("test {name} ... FAILED ({seconds:.1} s)\n    {error:#}");
                failures.push((*name, format!("{error:#}")));
            }
        }
        context.record_outcome(name, failed);
        // A failed flush does not fail a test.
        let _ = io::Write::flush(&mut io::stdout());
    }
}

/// Numbers of tests: all of the program, and those that the filters chose.
struct Count {
    all: usize,
    chosen: usize,
}

fn summary(Count { all, chosen }: Count, failures: &[(&'static str, String)], start: Instant) -> ExitCode {
    if !failures.is_empty() {
        println!("\nfailures:");
        for (name, error) in failures {
            println!("    {name}: {error}");
        }
    }
    println!(
        "\ntest result: {}. {} passed; {} failed; 0 ignored; 0 measured; {} filtered out; finished in {:.2}s\n",
        if failures.is_empty() { "ok" } else { "FAILED" },
        chosen - failures.len(),
        failures.len(),
        all - chosen,
        start.elapsed().as_secs_f64()
    );
    if failures.is_empty() { ExitCode::SUCCESS } else { ExitCode::from(101) }
}
