//! What a run is told and what it yields.

use dyad_quorum::mutants::Mutant;
use std::collections::BTreeMap;

/// A planted bug. A checker that never failed proves nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sabotage {
    /// One of the rules of `quorum` is dropped, on both nodes.
    Quorum(Mutant),
    /// A sync is answered without being made.
    SkippedSync,
    /// A replica answers a write without making it, now and then.
    UnmirroredWrite,
    /// A store knows of no extents touched since the last common flush.
    NoTail,
    /// Resync takes every eighth extent for absent.
    SkippedExtent,
    /// Requests of guests are run although the lease has lapsed, and the VMs are not frozen.
    NoFreeze,
    /// The watchdog is fed whatever the quorum says.
    BlindWatchdog,
    /// The document is not forgotten when its node leaves the in-sync set.
    StaleDocument,
}

/// How a run is made.
#[derive(Debug, Clone)]
pub struct Options {
    /// Virtual seconds of chaos.
    pub chaos: u64,
    /// Virtual seconds within which the pair must be whole again after the last fault.
    pub patience: u64,
    /// A planted bug.
    pub sabotage: Option<Sabotage>,
    /// Keep the event log.
    pub log: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self { chaos: 90, patience: 240, sabotage: None, log: false }
    }
}

/// What came of a run.
#[derive(Debug, Clone, Default)]
pub struct Outcome {
    /// The seed.
    pub seed: u64,
    /// The first promise that was broken.
    pub violation: Option<String>,
    /// Faults by kind.
    pub faults: BTreeMap<&'static str, u64>,
    /// What happened besides, by kind: proof that the run did something.
    pub events: BTreeMap<&'static str, u64>,
    /// Virtual nanoseconds.
    pub virtual_time: u64,
    /// The event log, if asked for.
    pub log: Vec<String>,
}
