//! The options and the result of a run.

use dyad_quorum::mutants::Mutant;
use std::collections::BTreeMap;

/// A planted bug. A checker that never failed proves nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PlantedBug {
    /// One of the rules of `quorum` is dropped, on both nodes.
    Quorum(Mutant),
    /// A sync is answered but not carried out.
    SkippedSync,
    /// A replica answers 3 % of writes without carrying them out.
    UnmirroredWrite,
    /// A store reports no unconfirmed extents.
    NoUnconfirmed,
    /// Resync treats every eighth extent as absent.
    SkippedExtent,
    /// Requests of guests are run although the lease has lapsed, and the VMs are not frozen.
    NoFreeze,
    /// The watchdog is fed although `Quorum` forbids it.
    BlindWatchdog,
    /// The document is not forgotten when its node leaves the in-sync set.
    StaleDocument,
}

#[derive(Debug, Clone)]
pub struct Options {
    /// Virtual seconds of chaos.
    pub chaos: u64,
    /// Virtual seconds within which the pair must be whole again after the end of all faults.
    pub recovery_timeout: u64,
    /// The bug that the run must find.
    pub planted_bug: Option<PlantedBug>,
    /// Keep the event log.
    pub log: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self { chaos: 90, recovery_timeout: 240, planted_bug: None, log: false }
    }
}

/// What one seed has shown.
#[derive(Debug, Clone, Default)]
pub struct RunResult {
    pub seed: u64,
    /// The first invariant that was broken.
    pub violation: Option<String>,
    /// Faults by kind.
    pub faults: BTreeMap<&'static str, u64>,
    /// Other events by kind. They show that the run did something.
    pub events: BTreeMap<&'static str, u64>,
    /// Length of the run, in virtual nanoseconds.
    pub virtual_time: u64,
    /// The event log, if asked for.
    pub log: Vec<String>,
}
