//! The deterministic whole-pair simulator.
//!
//! Both nodes, the witness and the guests run in one thread, in virtual time, from one seed. The crates `quorum`,
//! `mirror`, `placement`, `pool`, `replica`, the document and the supervisor's policy are the shipped ones. Around them are
//! simulated: disks that keep written and synced bytes apart, a network that loses, delays and duplicates messages and can
//! be cut, a kernel that freezes and kills VMs, processes, a watchdog, clocks that drift, operators that move VMs. The threads
//! of `dyad-core` and the queues between them are modelled (`core_model`, `quorum_thread`, `documents`, `store`).
//!
//! A run has two parts: first random faults; then every fault ends and the pair must become whole without an operator.
//! The checks: no VM executes twice. An epoch has one configuration. A flushed write is never lost; a write that was
//! only acknowledged is not lost while one member keeps its memory. A read never returns older data than an earlier
//! read. A decided change of the document is never lost. A deleted VM executes nowhere. While a member and the witness are
//! well, each VM that shall run is served. No guest gets an error. Each resync ends. At rest both replicas are equal. In a
//! run with partial faults ([`Options::partial_faults`]) each request is answered within a bound, also during the fault.
//!
//! It must never know real time, real threads or real randomness: a seed replays exactly.
//!
//! ```
//! let result = dyad_sim::run(1, &dyad_sim::Options { fault_seconds: 5, ..Default::default() }).unwrap();
//! assert_eq!(result.violation, None);
//! ```

mod checks;
mod core_model;
mod disk_faults;
mod documents;
mod faults;
mod full_pools;
mod guests;
mod machine;
mod net;
mod operator;
mod options;
mod partial_faults;
mod quorum_thread;
mod service;
mod store;
mod supervisor;
mod witness_faults;
mod world;

pub use options::{Options, PlantedBug, RunResult};

use dyad_quorum::SEC;
use std::path::Path;

/// Runs the simulation from one seed. A broken invariant is in [`RunResult::violation`].
///
/// # Errors
/// The scratch directory or the pools cannot be made, because of the machine on which the simulator runs.
pub fn run(seed: u64, options: &Options) -> anyhow::Result<RunResult> {
    // In memory if possible, because the index of each pool is a real LMDB file.
    let shm = Path::new("/dev/shm");
    let scratch = if shm.is_dir() { tempfile::tempdir_in(shm)? } else { tempfile::tempdir()? };
    let mut world = world::World::new(seed, options.clone(), scratch.path())?;
    world.set_up();
    if world.result.violation.is_none() {
        world.guests_idle = false;
        world.faults_enabled = true;
        world.schedule(SEC, world::FutureEvent::Fault);
        world.run(options.fault_seconds * SEC);
    }
    if world.result.violation.is_none() {
        world.end_all_faults();
        world.run(5 * SEC);
        world.guests_idle = true;
        world.until("the pair is whole again", options.recovery_seconds, world::World::is_whole);
        world.run(3 * SEC);
    }
    if world.result.violation.is_none() {
        world.compare_replicas();
    }
    world.result.virtual_time = world.now;
    Ok(world.result)
}
