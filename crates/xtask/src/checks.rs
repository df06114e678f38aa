//! `cargo xtask test`: every check that CI makes, some beside each other, all failures at the end; and the tests that boot
//! whole machines, alone or by name.
//!
//! What ships is built with the release profile, tests with the dev profile: they compile in half the time, and overflow
//! is checked. All commands select the whole workspace, because cargo unites the features of what it selects: another
//! selection would compile the same crates again.

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader};
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::Instant;

use anyhow::{Context as _, Result, anyhow, bail};
use dyad_rig::artifacts::TRIPLE;

use crate::host::{self, Host};
use crate::image::{self, Options};
use crate::{deps, guest};

/// Minutes of the simulator in each run of the tests, with all faults and with partial faults: together a minute longer than the
/// images take beside it.
const SIM_MINUTES: [(&str, &[&str]); 2] = [("2", &[]), ("2", &["--partial"])];

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

/// Files of `qemu-tests/tests`. Those of one row run beside each other: at most two nodes boot at once, and no test in it
/// measures a time.
const MACHINE_TESTS: &[&[&str]] = &[&["browser", "machine"], &["serial", "guest"], &["faults"], &["pair"]];
/// Machine tests that boot the images of [`build_test_images`].
const TESTS_WITH_OWN_IMAGES: &[&str] = &["machine", "faults", "pair"];

/// Runs all tests that CI runs; an error if anything failed.
pub fn run(host: &Host) -> Result<()> {
    let start = Instant::now();
    deps::install(host)?;
    deps::components(host)?;
    let mut tally = Tally::default();
    checks(host, &mut tally);
    // Beside each other: no time is measured in the simulator, and the images wait for downloads and disks. The simulator
    // gets through fewer seeds in its minutes when the images are compressed.
    host::step("simulator, beside the image");
    let built = thread::scope(|scope| {
        let simulator = scope.spawn(|| (Instant::now(), simulate(host)));
        let built = images(host, &mut tally, &[]);
        let (start, result) = simulator.join().expect("the simulator's thread does not panic");
        tally.ended("simulator", start, result);
        built
    });
    if built {
        machines(host, &mut tally, &[]);
        tally.tests("firmware", host::as_root(some_tests(host, &["firmware"])));
    }
    tally.report(start)
}

/// Runs the simulator from a first seed that differs from one state of the files to the next, so that each change meets new
/// seeds, and a failed run of the tests meets the same ones again.
fn simulate(host: &Host) -> Result<()> {
    let mut git = Command::new("git");
    let tree = host::output(git.args(["rev-parse", "HEAD^{tree}"]).current_dir(host.repository()));
    let seed = tree.ok().and_then(|tree| u32::from_str_radix(tree.get(..8)?, 16).ok()).map(|seed| seed.to_string());
    let from: Vec<&str> = seed.iter().flat_map(|seed| ["--from", seed.as_str()]).collect();
    SIM_MINUTES
        .iter()
        .try_for_each(|(minutes, faults)| crate::sim::run(host, &[&["--minutes", minutes], &from[..], faults].concat()))
}

/// Runs the whole-machine tests of these names, or all of them; an error if anything failed.
pub fn run_machines(host: &Host, names: &[&str]) -> Result<()> {
    let start = Instant::now();
    let known = MACHINE_TESTS.concat();
    if let Some(unknown) = names.iter().find(|name| !known.contains(name)) {
        bail!("There is no machine test {unknown}; these exist: {}.", known.join(", "));
    }
    deps::install(host)?;
    // The tests are compiled by clippy's compiler.
    deps::components(host)?;
    let mut tally = Tally::default();
    tally.check("build", || host.build_programs());
    if images(host, &mut tally, names) {
        machines(host, &mut tally, names);
    }
    tally.report(start)
}

/// Checks that boot no machine.
fn checks(host: &Host, tally: &mut Tally) {
    tally.check("cargo fmt --check", || host::run(host.cargo().args(["fmt", "--all", "--check"])));
    // Before anything runs as root, which would leave files of root in the cargo folder of the user.
    tally.check("cargo fetch", || host::run(host.cargo().args(["fetch", "--locked", "--target", TRIPLE])));
    tally.check("lints", || {
        let mut build = linting_cargo(host);
        host::run(build.args(["build", "--workspace", "--all-targets", "--features", TEST_FEATURES]))
    });
    tally.check("build", || host.build_programs());
    // As root: without it the tests that need namespaces and cgroups are skipped.
    let mut workspace = linting_cargo(host);
    workspace.args(["test", "--workspace", "--no-fail-fast"]);
    tally.tests("cargo test", host::as_root(workspace));
    tally.tests("process tests", host::as_root(some_tests(host, &["processes"])));
}

/// A cargo command whose compiler of our crates is clippy's, with its lints and all warnings as errors.
///
/// It lints and generates code in one pass. `cargo clippy` generates no code: it would compile every crate once more, also
/// the dependencies. Tests use this compiler only; what ships is built by [`Host::build_programs`].
fn linting_cargo(host: &Host) -> Command {
    let mut cargo = host.cargo();
    cargo.env("RUSTC_WORKSPACE_WRAPPER", deps::clippy_driver(host));
    // How cargo-clippy passes arguments to its compiler.
    cargo.env("CLIPPY_ARGS", "-D__CLIPPY_HACKERY__warnings__CLIPPY_HACKERY__");
    cargo
}

/// The integration tests of these names, which exist with [`TEST_FEATURES`] only.
fn some_tests(host: &Host, names: &[&str]) -> Command {
    let mut command = linting_cargo(host);
    command.args(["test", "--workspace", "--no-fail-fast", "--features", TEST_FEATURES]);
    command.args(names.iter().flat_map(|name| ["--test", name]));
    command
}

/// Builds the images that the machine tests of these names boot, or all; whether there are images.
fn images(host: &Host, tally: &mut Tally, names: &[&str]) -> bool {
    let mut built = false;
    tally.check("image", || {
        image::build(host, &Options::default())?;
        if TESTS_WITH_OWN_IMAGES.iter().any(|name| is_chosen(name, names)) {
            build_test_images(host)?;
        }
        guest::build(host)?;
        built = true;
        Ok(())
    });
    if !built {
        tally.fail("qemu-tests", "there is no image to test".to_owned());
    }
    built
}

/// Runs the machine tests of these names, or all.
fn machines(host: &Host, tally: &mut Tally, names: &[&str]) {
    for row in MACHINE_TESTS {
        let row: Vec<_> = row.iter().copied().filter(|name| is_chosen(name, names)).collect();
        let commands = row.iter().map(|name| some_tests(host, &[name])).collect();
        tally.tests_beside(&row, commands);
    }
}

/// Whether this machine test is to be run; no names choose all.
fn is_chosen(name: &str, names: &[&str]) -> bool {
    names.is_empty() || names.contains(&name)
}

/// Two images that only tests boot: `broken.img` has a newer slot that never comes up, `fault-agent.img` takes
/// commands from the tests.
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
        let result = check();
        self.ended(name, start, result);
    }

    /// The outcome of a check that began at `start`.
    fn ended(&mut self, name: &str, start: Instant, result: Result<()>) {
        match result {
            Ok(()) => {
                self.passed += 1;
                println!("    {name}: ok ({} s)", start.elapsed().as_secs());
            }
            Err(error) => self.fail(name, format!("{error:#}")),
        }
    }

    /// A command that prints the usual summaries of Rust tests; they are counted one by one.
    fn tests(&mut self, name: &str, command: Command) {
        self.tests_beside(&[name], vec![command]);
    }

    /// The same for several commands that run beside each other; `names` are theirs.
    fn tests_beside(&mut self, names: &[&str], commands: Vec<Command>) {
        if names.is_empty() {
            return;
        }
        host::step(&names.join(" and "));
        let start = Instant::now();
        let (lines, printed) = mpsc::channel();
        let follow = |(number, command)| {
            let lines = lines.clone();
            thread::spawn(move || follow(command, |line| drop(lines.send((number, line)))))
        };
        let followers: Vec<_> = commands.into_iter().enumerate().map(follow).collect();
        // The loop below ends with the last follower.
        drop(lines);
        let mut failed = vec![0; names.len()];
        for (number, line) in printed {
            println!("{line}");
            let before = self.failed;
            self.count(&line);
            failed[number] += self.failed - before;
        }
        for ((name, follower), failed) in names.iter().zip(followers).zip(failed) {
            match follower.join().unwrap_or_else(|_| Err(anyhow!("its output was not followed to the end"))) {
                Ok(true) => println!("    {name}: ok ({} s)", start.elapsed().as_secs()),
                // Its failures were counted and named as they were printed.
                Ok(false) if failed > 0 => {}
                Ok(false) => self.fail(name, "it did not build, or ended without a summary".to_owned()),
                Err(error) => self.fail(name, format!("{error:#}")),
            }
        }
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

    fn fail(&mut self, name: &str, why: String) {
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

/// Runs a command to its end and hands over its lines; whether it succeeded.
fn follow(mut command: Command, take: impl Fn(String)) -> Result<bool> {
    let mut child = command.stdout(Stdio::piped()).spawn().context("cargo cannot be started.")?;
    for line in BufReader::new(child.stdout.take().context("cargo has no output.")?).lines() {
        take(line?);
    }
    Ok(child.wait()?.success())
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
    fn each_of_two_programs_is_judged_by_its_own_failures() {
        let mut tally = Tally::default();
        let mut failing = Command::new("sh");
        failing.args(["-c", "echo 'test result: FAILED. 1 passed; 1 failed; 0 ignored'; exit 1"]);
        tally.tests_beside(&["counted", "silent"], vec![failing, Command::new("false")]);
        assert_eq!((tally.passed, tally.failed), (1, 2));
        assert!(tally.failures[0].starts_with("silent:"), "{:?}", tally.failures);
    }

    #[test]
    fn a_program_that_ends_without_a_summary_is_a_failure() {
        let mut tally = Tally::default();
        tally.tests("build", Command::new("false"));
        assert_eq!(tally.failed, 1);
    }
}
