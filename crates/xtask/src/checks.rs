//! `cargo xtask test`: every check that CI makes, one after the other, all failures at the end; and the tests that
//! boot whole
//! machines, alone or by name.

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader};
use std::process::{Command, Stdio};
use std::time::Instant;

use anyhow::{Context as _, Result, bail};

use crate::host::{self, Host};
use crate::image::{self, Options};
use crate::{deps, guest};

/// Minutes of the simulator in each run of the tests.
const SIM_MINUTES: &str = "1";

/// Features of the tests that need programs or images beside them.
const TEST_FEATURES: &str = "dyad-rig/machines,dyad-process-tests/daemons,dyad-process-tests/images";
/// A version newer than every real one.
const BROKEN_VERSION: &str = "9999";

/// Results counted so far.
#[derive(Debug, Default)]
pub struct Tally {
    passed: u64,
    failed: u64,
    failures: Vec<String>,
}

/// Files of `qemu-tests/tests`, from the quickest to the longest.
const MACHINE_TESTS: &[&str] = &["guest", "machine", "faults", "browser", "serial", "pair"];
/// Machine tests that boot the images of [`build_test_images`].
const TESTS_WITH_OWN_IMAGES: &[&str] = &["machine", "faults", "pair"];

/// Runs all tests that CI runs; an error if anything failed.
pub fn run(host: &Host) -> Result<()> {
    let start = Instant::now();
    deps::install(host)?;
    deps::components(host)?;
    let mut tally = Tally::default();
    checks(host, &mut tally);
    if machines(host, &mut tally, MACHINE_TESTS) {
        let mut firmware = host.cargo();
        firmware.args([
            "test",
            "--release",
            "--package",
            "dyad-process-tests",
            "--features",
            "images",
            "--test",
            "firmware",
        ]);
        tally.tests("firmware", host::as_root(&mut firmware));
    }
    tally.report(start)
}

/// Runs the whole-machine tests of these names, or all of them; an error if anything failed.
pub fn run_machines(host: &Host, names: &[&str]) -> Result<()> {
    let start = Instant::now();
    if let Some(unknown) = names.iter().find(|name| !MACHINE_TESTS.contains(name)) {
        bail!("There is no machine test {unknown}; these exist: {}.", MACHINE_TESTS.join(", "));
    }
    deps::install(host)?;
    let mut tally = Tally::default();
    tally.check("build", || host.build_programs());
    machines(host, &mut tally, if names.is_empty() { MACHINE_TESTS } else { names });
    tally.report(start)
}

/// Checks that boot no machine.
fn checks(host: &Host, tally: &mut Tally) {
    tally.check("cargo fmt --check", || host::run(host.cargo().args(["fmt", "--all", "--check"])));
    tally.check("cargo deny", || {
        let deny = deps::cargo_deny(host)?;
        // The database of advisories is not fetched: tests need the network only to install packages.
        host::run(host.cargo().arg("deny").env("PATH", path_with(&deny)?).args([
            "check",
            "--hide-inclusion-graph",
            "bans",
            "licenses",
            "sources",
        ]))
    });
    tally.check("cargo clippy", || {
        let mut clippy = host.cargo();
        clippy.args(["clippy", "--release", "--workspace", "--all-targets", "--features", TEST_FEATURES]);
        host::run(clippy.args(["--", "-D", "warnings"]))
    });
    tally.check("build", || host.build_programs());
    // As root: without it the tests that need namespaces and cgroups are skipped.
    let mut workspace = host.cargo();
    workspace.args(["test", "--release", "--workspace", "--no-fail-fast"]);
    tally.tests("cargo test", host::as_root(&mut workspace));
    tally.check("simulator", || crate::sim::run(host, &["--minutes", SIM_MINUTES]));
    let mut processes = host.cargo();
    processes.args([
        "test",
        "--release",
        "--package",
        "dyad-process-tests",
        "--features",
        "daemons",
        "--test",
        "processes",
    ]);
    tally.tests("process tests", host::as_root(&mut processes));
}

/// The images, and the tests that boot them; whether there are images.
fn machines(host: &Host, tally: &mut Tally, chosen: &[&str]) -> bool {
    let mut built = false;
    tally.check("image", || {
        image::build(host, &Options::default())?;
        if chosen.iter().any(|test| TESTS_WITH_OWN_IMAGES.contains(test)) {
            build_test_images(host)?;
        }
        guest::build(host)?;
        built = true;
        Ok(())
    });
    if built {
        let mut machines = host.cargo();
        machines.args(["test", "--release", "--package", "dyad-rig", "--features", "machines", "--no-fail-fast"]);
        tally.tests("qemu-tests", machines.args(chosen.iter().flat_map(|test| ["--test", test])));
    } else {
        tally.fail("qemu-tests", "there is no image to test");
    }
    built
}

/// Two images that only tests boot: `broken.img` has a newer slot that never comes up, `fault-agent.img` takes orders.
fn build_test_images(host: &Host) -> Result<()> {
    let programs = host.artifacts().programs();
    let fault_agent = programs.join("dyad-fault-agent");
    let common = Options { fast: true, programs: Some(programs), ..Options::default() };
    let broken = Options {
        broken: Some(BROKEN_VERSION.into()),
        output: Some(host.artifacts().broken_image()),
        ..common.clone()
    };
    let sabotaged = Options {
        replaced: BTreeMap::from([("dyad-console".into(), fault_agent)]),
        output: Some(host.artifacts().fault_agent_image()),
        ..common
    };
    image::build(host, &broken)?;
    image::build(host, &sabotaged)?;
    Ok(())
}

impl Tally {
    /// A check that passes or fails as a whole.
    pub fn check(&mut self, name: &str, check: impl FnOnce() -> Result<()>) {
        host::step(name);
        let start = Instant::now();
        match check() {
            Ok(()) => {
                self.passed += 1;
                println!("    {name}: ok ({} s)", start.elapsed().as_secs());
            }
            Err(error) => self.fail(name, &format!("{error:#}")),
        }
    }

    /// A command that prints the usual summaries of Rust tests; they are counted one by one.
    fn tests(&mut self, name: &str, command: &mut Command) {
        host::step(name);
        let start = Instant::now();
        let before = self.failed;
        match self.follow(command) {
            Ok(true) => println!("    {name}: ok ({} s)", start.elapsed().as_secs()),
            // Its failures were counted and named as they were printed.
            Ok(false) if self.failed > before => {}
            Ok(false) => self.fail(name, "it did not build, or ended without a summary"),
            Err(error) => self.fail(name, &format!("{error:#}")),
        }
    }

    fn follow(&mut self, command: &mut Command) -> Result<bool> {
        let mut child = command.stdout(Stdio::piped()).spawn().context("cargo cannot be started.")?;
        let lines = BufReader::new(child.stdout.take().context("cargo has no output.")?).lines();
        for line in lines {
            let line = line?;
            println!("{line}");
            self.count(&line);
        }
        Ok(child.wait()?.success())
    }

    /// Reads one line of a Rust test's output.
    fn count(&mut self, line: &str) {
        if let Some(summary) = line.strip_prefix("test result: ") {
            let number = |word: &str| {
                let end = summary.find(word)?;
                summary[..end].trim_end().rsplit(' ').next()?.parse::<u64>().ok()
            };
            self.passed += number("passed").unwrap_or(0);
            self.failed += number("failed").unwrap_or(0);
        } else if let Some(test) = line.strip_prefix("test ")
            && let Some((name, _)) = test.split_once(" ... FAILED")
        {
            self.failures.push(name.to_owned());
        }
    }

    fn fail(&mut self, name: &str, why: &str) {
        println!("    {name}: FAILED: {why}");
        self.failed += 1;
        self.failures.push(format!("{name}: {why}"));
    }

    /// Prints all failures and the summary line; an error if anything failed.
    pub fn report(&self, start: Instant) -> Result<()> {
        println!();
        for failure in &self.failures {
            println!("FAILED {failure}");
        }
        println!("all checks took {} s", start.elapsed().as_secs());
        println!("{} passed, {} failed", self.passed, self.failed);
        if self.failed > 0 {
            bail!("{} of {} failed.", self.failed, self.passed + self.failed);
        }
        Ok(())
    }
}

/// PATH with the folder of `program` in front, so that cargo finds its subcommand.
fn path_with(program: &std::path::Path) -> Result<std::ffi::OsString> {
    let folder = program.parent().context("A program lies in no folder.")?;
    let old = std::env::var_os("PATH").unwrap_or_default();
    let folders = std::iter::once(folder.to_owned()).chain(std::env::split_paths(&old));
    Ok(std::env::join_paths(folders)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn summaries_of_tests_are_counted() {
        let mut tally = Tally::default();
        for line in [
            "running 3 tests",
            "test a::b ... ok",
            "test a::c ... FAILED",
            "test power_cut_fails_over ... FAILED (12.0 s)",
            "test result: FAILED. 12 passed; 2 failed; 1 ignored; 0 measured; 4 filtered out; finished in 0.1s",
            "test result: ok. 5 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.1s",
        ] {
            tally.count(line);
        }
        assert_eq!((tally.passed, tally.failed), (17, 2));
        assert_eq!(tally.failures, ["a::c", "power_cut_fails_over"]);
        assert!(tally.report(Instant::now()).is_err());
    }

    #[test]
    fn a_failed_check_does_not_stop_the_others() {
        let mut tally = Tally::default();
        tally.check("bad", || bail!("broken"));
        tally.check("good", || Ok(()));
        assert_eq!((tally.passed, tally.failed), (1, 1));
    }

    #[test]
    fn a_program_that_ends_without_a_summary_is_a_failure() {
        let mut tally = Tally::default();
        tally.tests("build", &mut Command::new("false"));
        assert_eq!(tally.failed, 1);
    }
}
