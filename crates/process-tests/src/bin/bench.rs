//! `dyad-bench`: latencies of requests to a mirrored volume beside those of the bare network and disk.
//!
//! It prints one line for each job and writes `target/bench/report.json`: medians in microseconds over all runs.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use dyad_process_tests::core_daemons::CoreDaemons;
use dyad_process_tests::disk_driver::DiskDriver;
use dyad_process_tests::limits::{self, BLOCK, Receiver};
use dyad_rig::artifacts::Artifacts;
use dyad_testkit::Prng;
use serde_json::{Value, json};

/// Number of runs of each job; measurements of limit and volume alternate.
const RUNS: usize = 5;
/// Requests in one run.
const REQUESTS: usize = 400;
/// Bytes of the volume and of the bare file; requests go to all of them.
const VOLUME_BYTES: u64 = 128 << 20;

/// One kind of request, with one request at a time (queue depth 1).
struct BenchJob {
    name: &'static str,
    writes: bool,
    /// Whether each request is followed by a flush, which counts as part of it.
    flush: bool,
}

const JOBS: [BenchJob; 3] = [
    BenchJob { name: "4 KiB random write QD1", writes: true, flush: false },
    BenchJob { name: "4 KiB random write QD1 + flush", writes: true, flush: true },
    BenchJob { name: "4 KiB random read QD1", writes: false, flush: false },
];

fn main() -> Result<()> {
    let artifacts = Artifacts::beside_this_program()?;
    let folder = artifacts.target().join("bench");
    std::fs::create_dir_all(&folder).with_context(|| format!("Cannot create {}.", folder.display()))?;
    let program = artifacts.programs().join("dyad-core");
    if !program.exists() {
        bail!("{} is missing; run `cargo build --release --workspace` first.", program.display());
    }
    let daemons = CoreDaemons::pair(&program, &folder.join("pair")).context("The pair does not form")?;
    let mut driver = DiskDriver::connect(&daemons.create_volume_with_vm("bench", VOLUME_BYTES >> 20)?)?;
    fill(&mut driver)?;
    let (a, b) = (daemons.namespaces.name(0), daemons.namespaces.name(1));
    let network = median(limits::ping_pong(a, Receiver { namespace: b, address: "10.77.0.2" }, RUNS * REQUESTS)?);
    println!("4 KiB there, one byte back, bare TCP: {} µs", network.as_micros());
    println!("\n{:34} {:>10} {:>10} {:>8}", "job", "limit µs", "ours µs", "ratio");
    let mut jobs = Vec::new();
    for job in JOBS {
        jobs.push(run(job, network, &mut driver, &folder)?);
    }
    let report = json!({ "ping_pong_us": micros(network), "jobs": jobs });
    let file = folder.join("report.json");
    std::fs::write(&file, format!("{report:#}\n")).with_context(|| format!("Cannot write {}.", file.display()))?;
    println!("\n{}", file.display());
    Ok(())
}

/// Writes every block once, so that no timed write has to allocate.
fn fill(driver: &mut DiskDriver) -> Result<()> {
    let chunk = vec![5; 1 << 20];
    for offset in (0..VOLUME_BYTES).step_by(chunk.len()) {
        driver.write(offset, &chunk)?;
    }
    driver.flush()
}

/// Measures one job and its limit in turns; prints and returns the medians.
fn run(
    BenchJob { name, writes, flush }: BenchJob,
    network: Duration,
    driver: &mut DiskDriver,
    folder: &Path,
) -> Result<Value> {
    let bare: PathBuf = folder.join("bare.disk");
    let (mut ours, mut limit) = (Vec::new(), Vec::new());
    for run in 0..RUNS {
        let offsets = offsets(run as u64);
        limit.extend(match (writes, flush) {
            // A mirrored write without a flush has to reach the memory of both nodes, not a disk.
            (true, false) => vec![network],
            (true, true) => limits::direct_writes(&bare, VOLUME_BYTES, &offsets, true)?,
            (false, _) => limits::direct_reads(&bare, VOLUME_BYTES, &offsets)?,
        });
        let mut block = [3; BLOCK];
        for offset in offsets {
            let start = Instant::now();
            if writes {
                driver.write(offset, &block)?;
            } else {
                driver.read(offset, &mut block)?;
            }
            if flush {
                driver.flush()?;
            }
            ours.push(start.elapsed());
        }
    }
    // A durable mirrored write takes at least the time of the network plus that of one disk.
    let limit = median(limit) + if flush { network } else { Duration::ZERO };
    let ours = median(ours);
    let ratio = ours.as_secs_f64() / limit.as_secs_f64();
    println!("{name:34} {:>10} {:>10} {ratio:>8.2}", limit.as_micros(), ours.as_micros());
    Ok(json!({ "job": name, "limit_us": micros(limit), "ours_us": micros(ours), "ratio": ratio }))
}

/// Offsets of the requests of one run, uniform over all blocks; equal seeds give equal offsets.
fn offsets(seed: u64) -> Vec<u64> {
    let blocks = VOLUME_BYTES / BLOCK as u64;
    let mut prng = Prng::new(seed);
    (0..REQUESTS).map(|_| prng.below(blocks) * BLOCK as u64).collect()
}

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort_unstable();
    times.get(times.len() / 2).copied().unwrap_or_default()
}

fn micros(time: Duration) -> f64 {
    time.as_nanos() as f64 / 1000.0
}
