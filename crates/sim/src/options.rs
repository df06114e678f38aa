//! The options and the result of a run.

use dyad_placement::Mutant as PlacementMutant;
use dyad_quorum::mutants::Mutant;
use std::collections::BTreeMap;

/// A planted bug, which the checks must find: checks that have never failed prove nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PlantedBug {
    /// A rule of `quorum` is left out, on both nodes.
    Quorum(Mutant),
    /// A store answers each sync and carries none out.
    SkippedSync,
    /// A store answers 3 % of the guests' writes without carrying them out.
    UnmirroredWrite,
    /// A store reports no unconfirmed extents.
    NoUnconfirmed,
    /// A store reads one extent of eight as absent.
    SkippedExtent,
    /// A rule of `placement` is left out, on both nodes.
    Placement(dyad_placement::Mutant),
    /// After the end of the lease the VMs are not frozen.
    NoFreeze,
    /// The watchdog is fed although `Quorum` forbids it.
    BlindWatchdog,
    /// `Quorum` is told that the peer is stuck only if a session with it has lived for 3 s.
    StuckNeedsSession,
    /// `Quorum` is not told that the store does not answer.
    NoStorageReport,
    /// The mirror is not told that a checkpoint, for which commands wait, makes progress.
    NoStoreProgress,
    /// Each node tells its peer the same number of checkpoint steps.
    NoPeerProgress,
    /// The mirror is not told of damage that a checkpoint finds.
    NoDamageReport,
}

impl PlantedBug {
    /// Each planted bug that some seeds show. Rules of `placement` that other rules cover as well, so that no run shows their
    /// lack, are left out: their unit tests are in that crate.
    pub const ALL: [PlantedBug; 18] = [
        PlantedBug::Quorum(Mutant::NoFenceWait),
        PlantedBug::Quorum(Mutant::NoGrace),
        PlantedBug::Quorum(Mutant::ActBeforeChosen),
        PlantedBug::Placement(PlacementMutant::KeepDocument),
        PlantedBug::Placement(PlacementMutant::NoHandover),
        PlantedBug::Placement(PlacementMutant::DecideUnflushed),
        PlantedBug::Placement(PlacementMutant::DeleteForeignVm),
        PlantedBug::SkippedSync,
        PlantedBug::UnmirroredWrite,
        PlantedBug::NoUnconfirmed,
        PlantedBug::SkippedExtent,
        PlantedBug::NoFreeze,
        PlantedBug::BlindWatchdog,
        PlantedBug::StuckNeedsSession,
        PlantedBug::NoStorageReport,
        PlantedBug::NoStoreProgress,
        PlantedBug::NoPeerProgress,
        PlantedBug::NoDamageReport,
    ];
}

/// The options of a run.
#[derive(Debug, Clone)]
pub struct Options {
    /// Length of the part with faults, in virtual seconds.
    pub fault_seconds: u64,
    /// Time in which the pair must become whole after the end of all faults, in virtual seconds.
    pub recovery_seconds: u64,
    /// Partial faults only, one at a time, in place of the other ones: the data session or a store fails while heartbeats
    /// pass and the witness answers, or a store is slow. Each request must then be answered within a bound.
    pub partial_faults: bool,
    /// The bug that the run must find.
    pub planted_bug: Option<PlantedBug>,
    /// Whether [`RunResult::log`] is filled.
    pub log: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self { fault_seconds: 90, recovery_seconds: 240, partial_faults: false, planted_bug: None, log: false }
    }
}

/// The violation, the counts and the log of one run.
#[derive(Debug, Clone, Default)]
pub struct RunResult {
    pub seed: u64,
    /// The first invariant that was broken.
    pub violation: Option<String>,
    /// Number of faults, by kind.
    pub faults: BTreeMap<&'static str, u64>,
    /// Number of other events, by kind: they show how much a run has covered.
    pub events: BTreeMap<&'static str, u64>,
    /// Virtual time at the end of the run, in nanoseconds.
    pub virtual_time: u64,
    /// The event log, if [`Options::log`] is set.
    pub log: Vec<String>,
}
