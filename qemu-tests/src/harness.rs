//! Named tests that share one pair, one after the other, with the summary every Rust test prints.
//!
//! Booting a pair for each test would take most of an hour. A failed test does not stop the others: each begins by
//! waiting for the state it needs, and says so when the pair is not in it.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::ExitCode;
use std::time::{Duration, Instant};
use std::{env, io};

use anyhow::{Result, anyhow};

use crate::pulse::Pulse;

/// A test: its name and what it plays.
pub type Test<C> = (&'static str, fn(&mut C) -> Result<()>);

/// A machine that stands still for so long resets its emulated nodes or calls them silent: what fails on it shows nothing.
const VOID: Duration = Duration::from_secs(1);

/// Plays `tests` in order on one context made by `begin`; honours `--list` and name filters as cargo's own
/// harness does. The context is made only when a test will run. If the machine below stood still for a second or more before each
/// failure, all is played once more on a new context, and that counts.
pub fn play<C, F: Fn(&mut C) -> Result<()>>(tests: &[(&'static str, F)], begin: impl Fn() -> Result<C>) -> ExitCode {
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
    let pulse = Pulse::start();
    let failures = judge(&chosen, &begin, &|| pulse.longest());
    println!("\nthis machine stood still {}", pulse.pauses());
    summary(tests.len(), chosen.len(), &failures, start)
}

/// A test that failed.
struct Failure {
    name: &'static str,
    why: String,
    /// The machine had stood still before.
    void: bool,
}

/// What failed, for good. `pause` is the longest time for which the machine has stood still so far.
fn judge<C, F: Fn(&mut C) -> Result<()>>(
    chosen: &[&(&'static str, F)],
    begin: &dyn Fn() -> Result<C>,
    pause: &dyn Fn() -> Duration,
) -> Vec<Failure> {
    let failures = attempt(chosen, begin, &|| pause() >= VOID);
    if failures.is_empty() || failures.iter().any(|failure| !failure.void) {
        return failures;
    }
    println!(
        "\nThis machine stood still for {:.1} s. All is played once more, and that counts.",
        pause().as_secs_f64()
    );
    attempt(chosen, begin, &|| false)
}

fn attempt<C, F: Fn(&mut C) -> Result<()>>(
    chosen: &[&(&'static str, F)],
    begin: &dyn Fn() -> Result<C>,
    void: &dyn Fn() -> bool,
) -> Vec<Failure> {
    if chosen.is_empty() {
        return Vec::new();
    }
    let mut failures = Vec::new();
    let mut failed = |name, why: String, took: String| {
        let void = void();
        println!("test {name} ... {} ({took})\n    {why}", if void { "void" } else { "FAILED" });
        failures.push(Failure { name, why, void });
    };
    match begin() {
        Ok(mut context) => {
            for (name, test) in chosen {
                let start = Instant::now();
                let outcome = catch_unwind(AssertUnwindSafe(|| test(&mut context)));
                let outcome = outcome.unwrap_or_else(|_| Err(anyhow!("it panicked; see above")));
                let took = format!("{:.1} s", start.elapsed().as_secs_f64());
                match outcome {
                    Ok(()) => println!("test {name} ... ok ({took})"),
                    Err(error) => failed(*name, format!("{error:#}"), took),
                }
                // Progress is for people who wait; a closed pipe is nobody waiting.
                let _ = io::Write::flush(&mut io::stdout());
            }
        }
        Err(error) => chosen.iter().for_each(|(name, _)| failed(*name, format!("{error:#}"), "could not begin".into())),
    }
    failures
}

fn summary(all: usize, chosen: usize, failures: &[Failure], start: Instant) -> ExitCode {
    if !failures.is_empty() {
        println!("\nfailures:");
        for failure in failures {
            println!("    {}: {}", failure.name, failure.why);
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

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::Cell;

    /// How often one test is played that fails `bad` times, on a machine that stood still for so long; whether it failed.
    fn played(bad: u32, pause: Duration) -> (u32, bool) {
        let times = Cell::new(0);
        let test = ("test", |times: &mut &Cell<u32>| {
            times.set(times.get() + 1);
            anyhow::ensure!(times.get() > bad);
            Ok(())
        });
        let failures = judge(&[&test], &|| Ok(&times), &|| pause);
        (times.get(), !failures.is_empty())
    }

    #[test]
    fn only_what_failed_on_a_machine_that_stood_still_is_played_again_and_once() {
        assert_eq!(played(1, VOID / 2), (1, true));
        assert_eq!(played(0, VOID), (1, false));
        assert_eq!(played(1, VOID), (2, false));
        assert_eq!(played(2, VOID), (2, true));
    }
}
