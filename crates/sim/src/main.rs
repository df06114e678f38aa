//! `dyad-sim`: runs the simulator with many seeds, or with one, and prints the violations.

use clap::Parser;
use dyad_sim::{Options, PlantedBug, RunResult, run};
use std::collections::BTreeMap;
use std::hash::{BuildHasher as _, RandomState};
use std::process::ExitCode;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Simulates whole pairs under faults.
#[derive(Parser)]
struct Arguments {
    /// Replay exactly this seed and print its event log.
    #[arg(long)]
    seed: Option<u64>,
    /// The first seed of a series; drawn at random if it is not given.
    #[arg(long)]
    from: Option<u64>,
    /// Number of seeds that run at the same time; as many as there are processors if it is not given.
    #[arg(long)]
    jobs: Option<usize>,
    /// Length of the series in minutes of real time.
    #[arg(long, default_value_t = 1.0)]
    minutes: f64,
    /// Length of the series in seeds; replaces the minutes.
    #[arg(long)]
    seeds: Option<u64>,
    /// Virtual seconds with faults, per seed.
    #[arg(long, default_value_t = 90)]
    chaos: u64,
    /// The bug that the runs must find, by its name in the code, for instance `Quorum(NoGrace)`.
    #[arg(long, value_parser = planted_bug)]
    plant: Option<PlantedBug>,
    /// Partial faults only: the data session or a store fails or is slow while heartbeats pass.
    #[arg(long)]
    partial: bool,
}

fn planted_bug(name: &str) -> Result<PlantedBug, String> {
    let bug = PlantedBug::ALL.into_iter().find(|bug| format!("{bug:?}") == name);
    bug.ok_or_else(|| format!("the planted bugs are {:?}", PlantedBug::ALL))
}

fn main() -> anyhow::Result<ExitCode> {
    let arguments = Arguments::parse();
    let options = Options {
        fault_seconds: arguments.chaos,
        partial_faults: arguments.partial,
        planted_bug: arguments.plant,
        ..Options::default()
    };
    if let Some(seed) = arguments.seed {
        let result = run(seed, &Options { log: true, ..options })?;
        result.log.iter().for_each(|line| println!("{line}"));
        println!("faults {:?}\nevents {:?}", result.faults, result.events);
        return Ok(report(result.violation.map(|what| vec![(seed, what)]).unwrap_or_default(), arguments.partial));
    }
    let first = arguments.from.unwrap_or_else(drawn_seed);
    let jobs = arguments.jobs.unwrap_or_else(|| std::thread::available_parallelism().map_or(1, usize::from));
    println!("first seed {first}, {jobs} at the same time");
    let begin = Instant::now();
    let budget = Duration::from_secs_f64(arguments.minutes * 60.0);
    let due = |index: u64| arguments.seeds.map_or(begin.elapsed() < budget, |count| index < count);
    let (next, total) = (AtomicU64::new(0), Mutex::new(Total::default()));
    let work = || -> anyhow::Result<()> {
        loop {
            let index = next.fetch_add(1, Ordering::Relaxed);
            if !due(index) {
                return Ok(());
            }
            let result = run(first.wrapping_add(index), &options)?;
            total.lock().unwrap_or_else(PoisonError::into_inner).add(result);
        }
    };
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..jobs).map(|_| scope.spawn(work)).collect();
        let mut results = threads.into_iter().map(|thread| thread.join());
        results.try_for_each(|result| result.map_err(|_| anyhow::anyhow!("a run panicked"))?)
    })?;
    let total = total.into_inner().unwrap_or_else(PoisonError::into_inner);
    println!(
        "{} seeds, {:.2} virtual hours in {:.1} s",
        total.seeds,
        total.virtual_time as f64 / 3.6e12,
        begin.elapsed().as_secs_f64()
    );
    println!("faults: {:?}\nevents: {:?}", total.faults, total.events);
    Ok(report(total.violations, arguments.partial))
}

/// A seed that differs from run to run, with few digits, so that it is easily typed. The hasher of the standard library is
/// seeded by the system.
fn drawn_seed() -> u64 {
    RandomState::new().hash_one(std::process::id()) % 1_000_000_000
}

/// The sum of all runs.
#[derive(Default)]
struct Total {
    seeds: u64,
    virtual_time: u64,
    faults: BTreeMap<&'static str, u64>,
    events: BTreeMap<&'static str, u64>,
    violations: Vec<(u64, String)>,
}

impl Total {
    fn add(&mut self, result: RunResult) {
        self.seeds += 1;
        self.virtual_time += result.virtual_time;
        result.faults.into_iter().for_each(|(kind, count)| *self.faults.entry(kind).or_default() += count);
        result.events.into_iter().for_each(|(kind, count)| *self.events.entry(kind).or_default() += count);
        if let Some(what) = result.violation {
            println!("seed {}: {what}", result.seed);
            self.violations.push((result.seed, what));
        }
    }
}

fn report(violations: Vec<(u64, String)>, partial: bool) -> ExitCode {
    match violations.first() {
        None => {
            println!("no invariant was broken");
            ExitCode::SUCCESS
        }
        Some((seed, what)) => {
            let partial = if partial { " --partial" } else { "" };
            println!("{} violations; replay the first with --seed {seed}{partial}: {what}", violations.len());
            ExitCode::FAILURE
        }
    }
}
