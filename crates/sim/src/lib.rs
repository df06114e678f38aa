//! The deterministic whole-pair simulator.
//!
//! Both nodes, the witness and the guests in one thread, in virtual time, from one seed. It drives the shipped `quorum`,
//! `mirror`, `pool` and `replica` crates; only what is below them is simulated: disks that keep live and durable bytes apart,
//! a network that loses, delays, doubles and cuts, a kernel that freezes and kills, a watchdog, clocks that drift.
//!
//! A run has two phases: chaos, then every fault ends and the pair must become whole by itself. What must hold:
//! no VM executes twice, one configuration per epoch, no acknowledged write is lost (flushed: never; else while one
//! in-sync memory survives), no read is stale or un-happens, no guest sees an error, each resync ends, and at rest both
//! replicas are equal.
//!
//! It must never know real time, real threads or real randomness: a seed replays exactly.
//!
//! ```
//! let result = dyad_sim::run(1, &dyad_sim::Options { chaos: 5, ..Default::default() }).unwrap();
//! assert_eq!(result.violation, None);
//! ```

mod checks;
mod core_model;
mod document;
mod faults;
mod guests;
mod machine;
mod net;
mod options;
mod quorum_thread;
mod store;
mod world;

pub use options::{Options, PlantedBug, RunResult};

use dyad_quorum::SEC;
use std::path::Path;

/// One run.
///
/// # Errors
/// When the scratch directory or the pools cannot be made: not a finding, but a broken machine.
pub fn run(seed: u64, options: &Options) -> anyhow::Result<RunResult> {
    // Memory if there is some: the index of each pool is a real LMDB file.
    let shm = Path::new("/dev/shm");
    let scratch = if shm.is_dir() { tempfile::tempdir_in(shm)? } else { tempfile::tempdir()? };
    let mut world = world::World::new(seed, options.clone(), scratch.path())?;
    world.set_up();
    if world.result.violation.is_none() {
        world.quiet = false;
        world.chaos = true;
        world.put(SEC, world::Due::Fault);
        world.run(options.chaos * SEC);
    }
    if world.result.violation.is_none() {
        world.end_all_faults();
        world.run(5 * SEC);
        world.quiet = true;
        world.until("the pair is whole again", options.recovery_timeout, world::World::whole);
        world.run(3 * SEC);
    }
    if world.result.violation.is_none() {
        world.compare();
    }
    world.result.virtual_time = world.now;
    Ok(world.result)
}
