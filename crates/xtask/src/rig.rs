//! `cargo xtask rig`: a pair that stays until Ctrl-C. `cargo xtask rig demo`: the main job and its report.

use std::fs;
use std::os::unix::fs::{MetadataExt as _, symlink};
use std::path::{Path, PathBuf};
use std::time::Instant;
use std::{process, thread};

use anyhow::{Context as _, Result, bail};
use dyad_rig::node::NodeName;
use dyad_rig::pair::Pair;
use dyad_rig::report::Report;
use dyad_rig::scenarios::{MAIN_JOB, Scenario};
use dyad_rig::seed::PASSWORD;
use nix::errno::Errno;
use nix::sys::signal::{SigSet, Signal};
use nix::sys::wait::waitpid;
use nix::unistd::Pid;

use crate::host::{self, Host};
use crate::image::{self, Options};
use crate::{deps, guest};

/// Number of scenarios at the start of the main job that boot the nodes and form the pair; `cargo xtask rig` runs only
/// these.
const PAIR_SETUP_SCENARIOS: usize = 2;

/// Installs and builds everything that a pair needs.
pub fn prepare(host: &Host) -> Result<()> {
    deps::install(host)?;
    let image = image::build(host, &Options::default())?;
    println!("    image     {}: {} MiB", image.disk.display(), megabytes(&image.disk)?);
    println!("    system    {}: {} MiB", image.slot.display(), megabytes(&image.slot)?);
    println!("    manifest  {}", image.manifest.display());
    guest::build(host)
}

/// MiB that a file occupies on disk, its holes left out.
fn megabytes(file: &Path) -> Result<u64> {
    let data = fs::metadata(file).with_context(|| format!("Cannot look at {}.", file.display()))?;
    Ok((data.blocks() * 512) >> 20)
}

/// Symbolic link to the folder with the sockets of the running rig; `attach` follows it.
pub fn sockets_link(host: &Host) -> PathBuf {
    host.artifacts().records().join("sockets")
}

/// Boots a pair, sets it up, prints how to reach it, and waits for Ctrl-C, which ends everything at any time.
pub fn run_until_ctrl_c(host: &Host) -> Result<()> {
    prepare(host)?;
    // Before any thread exists, so that every thread inherits the blocked signals and only the thread below takes them.
    let stop = SigSet::from_iter([Signal::SIGINT, Signal::SIGTERM]);
    stop.thread_block().context("Signals cannot be held back.")?;
    let mut pair = Pair::new(host.artifacts().clone(), "stay")?;
    let link = sockets_link(host);
    // A link of an earlier rig may still exist.
    let _ = fs::remove_file(&link);
    symlink(pair.sockets(), &link).with_context(|| format!("Cannot create {}.", link.display()))?;
    let sockets = pair.sockets().to_owned();
    thread::spawn(move || tear_down(&stop, &link, &sockets));
    for scenario in &MAIN_JOB[..PAIR_SETUP_SCENARIOS] {
        run_scenario(scenario, &mut pair)?;
    }
    let cli = host.artifacts().programs().join("dyad");
    println!();
    for name in [NodeName::A, NodeName::B] {
        let address = pair.node(name).address();
        println!("Node {name}");
        println!("  web     {address}   (password: {PASSWORD})");
        println!("  serial  cargo xtask attach {}", name.letter());
        println!("  CLI     {} --node {address} status", cli.display());
    }
    println!("Witness   {} as the nodes see it", pair.witness.address());
    if pair.a.is_emulated() {
        println!(
            "\nGive VMs BIOS firmware here: QEMU's emulation of AMD-V aborts under UEFI, which takes their node down."
        );
    }
    println!("\nCtrl-C tears all down.");
    loop {
        // This thread must not end: the kernel kills the nodes when it does (`dyad_rig::child::Program`).
        match waitpid(None, None) {
            Ok(ended) => report_ended_node(&mut pair, ended.pid()),
            Err(Errno::EINTR) => {}
            // No child is left, so there is nothing more to report; Ctrl-C still ends the process.
            Err(_) => thread::park(),
        }
    }
}

/// Prints which node lost power, if the process `ended` was a node's QEMU.
fn report_ended_node(pair: &mut Pair, ended: Option<Pid>) {
    for name in [NodeName::A, NodeName::B] {
        let node = pair.node(name);
        if node.qemu_pid().map(|id| Pid::from_raw(id.cast_signed())) == ended {
            let log = node.qemu_log();
            let said = fs::read_to_string(&log).unwrap_or_default();
            let last = said.lines().next_back().unwrap_or("nothing");
            println!(
                "Node {name} has lost power: its QEMU ended and said {last:?}; see {}. Start the rig again to have both.",
                log.display()
            );
        }
    }
}

/// Waits for Ctrl-C or SIGTERM, removes the link and the sockets, and ends this process; nodes and witness end with it.
fn tear_down(stop: &SigSet, link: &Path, sockets: &Path) {
    if let Err(error) = stop.wait() {
        println!("The wait for Ctrl-C failed: {error}.");
    }
    println!("Tearing down.");
    // A folder that cannot be removed does no harm.
    let _ = fs::remove_file(link);
    let _ = fs::remove_dir_all(sockets);
    process::exit(0);
}

/// Runs the main job up to the first step that fails, and writes the report in any case.
pub fn demo(host: &Host) -> Result<()> {
    prepare(host)?;
    let start = Instant::now();
    let mut pair = Pair::new(host.artifacts().clone(), "demo")?;
    let outcome = MAIN_JOB.iter().try_for_each(|scenario| run_scenario(scenario, &mut pair));
    let file = host.artifacts().records().join("report.json");
    pair.report.write(&file)?;
    summary(&pair.report);
    println!("{} after {:.0} s", file.display(), start.elapsed().as_secs_f64());
    outcome?;
    let missing = pair.report.missing();
    if !missing.is_empty() {
        bail!("The report lacks {}.", missing.join(", "));
    }
    Ok(())
}

fn run_scenario(scenario: &Scenario, pair: &mut Pair) -> Result<()> {
    host::step(scenario.title);
    scenario.run(pair).with_context(|| format!("{} failed; records are in {}", scenario.name, pair.records().display()))
}

fn summary(report: &Report) {
    println!("\nReport");
    if let Some(fields) = report.to_json().as_object() {
        for field in dyad_rig::report::FIELDS {
            println!("  {field:22} {}", fields[field]);
        }
    }
}
