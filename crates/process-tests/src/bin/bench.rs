//! `dyad-bench`: the cost of mirroring beside the limits of the machine.
//!
//! It prints one line for each job and writes `report.json`: medians in microseconds over interleaved runs.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use dyad_process_tests::cores::Cores;
use dyad_process_tests::device::Device;
use dyad_process_tests::limits::{self, BLOCK, Target};
use dyad_rig::artifacts::Artifacts;
use dyad_testkit::Prng;
use serde_json::{Value, json};

/// Interleaved runs of each job.
const RUNS: usize = 5;
/// Requests in one run.
const REQUESTS: usize = 400;
/// Bytes that the jobs spread over.
const SPAN: u64 = 128 << 20;

struct Job {
    name: &'static str,
    writes: bool,
    /// Each request is followed by a flush.
    flush: bool,
}

const JOBS: [Job; 3] = [
    Job { name: "4 KiB random write QD1", writes: true, flush: false },
    Job { name: "4 KiB random write QD1 + flush", writes: true, flush: true },
    Job { name: "4 KiB random read QD1", writes: false, flush: false },
];

fn main() -> Result<()> {
    let artifacts = Artifacts::beside_this_program()?;
    let folder = artifacts.target().join("bench");
    std::fs::create_dir_all(&folder).with_context(|| format!("Cannot create {}.", folder.display()))?;
    let program = artifacts.programs().join("dyad-core");
    if !program.exists() {
        bail!("{} is missing; run `cargo build --release --workspace` first.", program.display());
    }
    let cores = Cores::pair(&program, &folder.join("pair")).context("The pair does not form")?;
    let mut device = Device::connect(&cores.volume("bench", SPAN >> 20)?)?;
    fill(&mut device)?;
    let (a, b) = (cores.spaces.name(0), cores.spaces.name(1));
    let network = median(limits::ping_pong(a, Target { space: b, address: "10.77.0.2" }, RUNS * REQUESTS)?);
    println!("4 KiB there, one byte back, bare TCP: {} µs", network.as_micros());
    println!("\n{:34} {:>10} {:>10} {:>8}", "job", "limit µs", "ours µs", "ratio");
    let mut jobs = Vec::new();
    for job in JOBS {
        jobs.push(run(job, network, &mut device, &folder)?);
    }
    let report = json!({ "ping_pong_us": micros(network), "jobs": jobs });
    let file = folder.join("report.json");
    std::fs::write(&file, format!("{report:#}\n")).with_context(|| format!("Cannot write {}.", file.display()))?;
    println!("\n{}", file.display());
    Ok(())
}

/// Writes every block once before the timed runs.
fn fill(device: &mut Device) -> Result<()> {
    let chunk = vec![5; 1 << 20];
    for offset in (0..SPAN).step_by(chunk.len()) {
        device.write(offset, &chunk)?;
    }
    device.flush()
}

/// Runs one job beside its limit, in turns, and prints the medians.
fn run(Job { name, writes, flush }: Job, network: Duration, device: &mut Device, folder: &Path) -> Result<Value> {
    let bare: PathBuf = folder.join("bare.disk");
    let (mut ours, mut limit) = (Vec::new(), Vec::new());
    for run in 0..RUNS {
        let offsets = offsets(run as u64);
        limit.extend(match (writes, flush) {
            // A mirrored write without a flush needs the cable, and both memories: nothing has to reach a disk.
            (true, false) => vec![network],
            (true, true) => limits::direct_writes(&bare, SPAN, &offsets, true)?,
            (false, _) => limits::direct_reads(&bare, SPAN, &offsets)?,
        });
        let mut block = [3; BLOCK];
        for offset in offsets {
            let start = Instant::now();
            if writes {
                device.write(offset, &block)?;
            } else {
                device.read(offset, &mut block)?;
            }
            if flush {
                device.flush()?;
            }
            ours.push(start.elapsed());
        }
    }
    // A durable mirrored write cannot be faster than the cable and one disk after each other.
    let limit = median(limit) + if flush { network } else { Duration::ZERO };
    let ours = median(ours);
    let ratio = ours.as_secs_f64() / limit.as_secs_f64();
    println!("{name:34} {:>10} {:>10} {ratio:>8.2}", limit.as_micros(), ours.as_micros());
    Ok(json!({ "job": name, "limit_us": micros(limit), "ours_us": micros(ours), "ratio": ratio }))
}

/// The same offsets in each run of the same number, uniform over all blocks.
fn offsets(seed: u64) -> Vec<u64> {
    let blocks = SPAN / BLOCK as u64;
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
