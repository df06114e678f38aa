//! `dyad-sim`: runs the simulator with many seeds, or with one, and prints the violations.

use clap::Parser;
use dyad_sim::{Options, run};
use std::collections::BTreeMap;
use std::process::ExitCode;
use std::time::{Duration, Instant};

/// Simulates whole pairs under faults.
#[derive(Parser)]
struct Arguments {
    /// Replay exactly this seed and print its event log.
    #[arg(long)]
    seed: Option<u64>,
    /// The first seed of a series.
    #[arg(long, default_value_t = 1)]
    from: u64,
    /// Length of the series in minutes of real time.
    #[arg(long, default_value_t = 1.0)]
    minutes: f64,
    /// Length of the series in seeds; replaces the minutes.
    #[arg(long)]
    seeds: Option<u64>,
    /// Virtual seconds with faults, per seed.
    #[arg(long, default_value_t = 90)]
    chaos: u64,
    /// Partial faults only: the data session or a store fails while heartbeats pass.
    #[arg(long)]
    partial: bool,
}

fn main() -> anyhow::Result<ExitCode> {
    let arguments = Arguments::parse();
    let options = Options { fault_seconds: arguments.chaos, partial_faults: arguments.partial, ..Options::default() };
    if let Some(seed) = arguments.seed {
        let result = run(seed, &Options { log: true, ..options })?;
        result.log.iter().for_each(|line| println!("{line}"));
        println!("faults {:?}\nevents {:?}", result.faults, result.events);
        return Ok(report(result.violation.map(|what| vec![(seed, what)]).unwrap_or_default()));
    }
    let begin = Instant::now();
    let budget = Duration::from_secs_f64(arguments.minutes * 60.0);
    let (mut faults, mut events) = (BTreeMap::<&str, u64>::new(), BTreeMap::<&str, u64>::new());
    let (mut seeds, mut virtual_time, mut violations) = (0, 0, Vec::new());
    while arguments.seeds.map_or(begin.elapsed() < budget, |count| seeds < count) {
        let seed = arguments.from + seeds;
        let result = run(seed, &options)?;
        seeds += 1;
        virtual_time += result.virtual_time;
        result.faults.into_iter().for_each(|(kind, count)| *faults.entry(kind).or_default() += count);
        result.events.into_iter().for_each(|(kind, count)| *events.entry(kind).or_default() += count);
        if let Some(what) = result.violation {
            println!("seed {seed}: {what}");
            violations.push((seed, what));
        }
    }
    println!(
        "{seeds} seeds, {:.2} virtual hours in {:.1} s",
        virtual_time as f64 / 3.6e12,
        begin.elapsed().as_secs_f64()
    );
    println!("faults: {faults:?}\nevents: {events:?}");
    Ok(report(violations))
}

fn report(violations: Vec<(u64, String)>) -> ExitCode {
    match violations.first() {
        None => {
            println!("no invariant was broken");
            ExitCode::SUCCESS
        }
        Some((seed, what)) => {
            println!("{} violations; replay the first with --seed {seed}: {what}", violations.len());
            ExitCode::FAILURE
        }
    }
}
