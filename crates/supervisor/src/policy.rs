//! Decides what should happen to the VMs of this node: a pure function.
//!
//! | process | document and permit | step |
//! | --- | --- | --- |
//! | alive | VM of the other node, or deleted | kill |
//! | alive | should not run | shut down |
//! | none | should run, permitted | start, by priority |
//! | none, guest shut down | should run, unchanged since the start | record the shutdown in the document |
//! | none, crashed | should run, permitted | start again after the back-off |
//! | none, last run stored | anything else | forget |
//!
//! A missing permit alone kills no VM: `dyad-core`, which gives the permits, itself freezes VMs that have no right to run,
//! and decides whether they continue or are killed. A VM that must not run here according to the *document* is killed at
//! once, which is always safe.

use std::collections::{BTreeMap, BTreeSet};

use dyad_desired::{Document, Intent, Vm};
use dyad_types::{BootTime, NodeId};

use crate::Phase;

const SECOND: u64 = 1_000_000_000;
/// Longest delay before a crashed VM is started again, in seconds.
const MAX_RESTART_DELAY_S: u64 = 300;
/// Maximum number of VMs that start at the same time, so that those of high priority get the processors.
const MAX_STARTING: usize = 4;

/// The state of one VM on this node, as the runner observes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Observed {
    pub phase: Phase,
    /// The time at which the phase began.
    pub since: BootTime,
    /// The value of [`Vm::changed`] in the document from which the VM was started. A document in which it is smaller is
    /// older than the start.
    pub started_generation: u64,
    /// Number of crashes in a row, up to the last run that has ended.
    pub crashes: u32,
    /// `None` without a process.
    pub pid: Option<u32>,
    /// Cause of the end of the last run, or of the failure to start, as one sentence for people.
    pub note: Option<String>,
}

/// A step for the runner, or for the document.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Step {
    /// Kill the VM's process.
    Kill(String),
    /// Ask the guest to shut down; kill it after the grace period.
    ShutDown {
        vm: String,
        /// Grace period in seconds.
        grace_s: u32,
    },
    /// The guest shut down: set its intent to [`Intent::GuestShutDown`] in the document.
    RecordGuestShutDown(String),
    /// Drop the stored last run of the VM.
    Forget(String),
    /// Start the VM.
    Start(String),
}

/// Delay after the `crashes`th crash in a row before the VM is started again, in nanoseconds: 1 s after the first, doubled
/// for each further one, at most 300 s.
#[must_use]
pub fn back_off(crashes: u32) -> u64 {
    match crashes {
        0 => 0,
        n => 1u64.checked_shl(n - 1).unwrap_or(u64::MAX).min(MAX_RESTART_DELAY_S) * SECOND,
    }
}

/// The time at which the next back-off ends and [`plan`] must be called again. `None`: no VM is in back-off.
#[must_use]
pub fn next_wakeup(observed: &BTreeMap<String, Observed>) -> Option<BootTime> {
    let crashed = observed.values().filter(|seen| seen.phase == Phase::Crashed);
    crashed.map(|seen| seen.since + back_off(seen.crashes)).min()
}

/// The steps to take now, in this order. A step may be repeated: it is planned until its effect is observed.
///
/// `permits` names the VMs that `dyad-core` allows to run on this node at present.
#[must_use]
pub fn plan(
    now: BootTime,
    me: NodeId,
    document: &Document,
    permits: &BTreeSet<String>,
    observed: &BTreeMap<String, Observed>,
) -> Vec<Step> {
    let mut steps = Vec::new();
    let mut starts: Vec<(&str, u8)> = Vec::new();
    let names: BTreeSet<&String> = document.vms.keys().chain(observed.keys()).collect();
    for name in names {
        let ours = document.vms.get(name).filter(|vm| vm.config.node == me);
        let may_start = permits.contains(name);
        match step_for(now, name, ours, may_start, observed.get(name), document) {
            Some(Step::Start(_)) => starts.push((name, ours.map_or(0, |vm| vm.config.priority))),
            Some(step) => steps.push(step),
            None => {}
        }
    }
    // Sorted by the order of the enum: kill, shut down, record, forget.
    steps.sort();
    starts.sort_by_key(|(name, priority)| (std::cmp::Reverse(*priority), *name));
    let starting = observed.values().filter(|seen| seen.phase == Phase::Starting).count();
    let room = MAX_STARTING.saturating_sub(starting);
    steps.extend(starts.into_iter().take(room).map(|(name, _)| Step::Start(name.to_owned())));
    steps
}

/// The step for one VM. `ours` is its record in the document if that places it on this node.
fn step_for(
    now: BootTime,
    name: &str,
    ours: Option<&Vm>,
    may_start: bool,
    seen: Option<&Observed>,
    document: &Document,
) -> Option<Step> {
    let name = name.to_owned();
    let wanted = ours.is_some_and(Vm::shall_run);
    let start = (wanted && may_start).then(|| Step::Start(name.clone()));
    let Some(seen) = seen else { return start };
    match seen.phase {
        Phase::Absent => start,
        Phase::Killing | Phase::Ending => None,
        Phase::Starting | Phase::Running | Phase::Stopping => {
            let Some(vm) = ours else { return Some(Step::Kill(name)) };
            // A document older than the start does not apply to this run.
            let stale = vm.changed < seen.started_generation;
            let stop = !wanted && !stale && seen.phase != Phase::Stopping;
            let grace_s = document.policies.shutdown_grace_s;
            stop.then_some(Step::ShutDown { vm: name, grace_s })
        }
        Phase::ShutDown => {
            let unchanged = ours.is_some_and(|vm| vm.changed <= seen.started_generation);
            if wanted && unchanged {
                return Some(Step::RecordGuestShutDown(name));
            }
            start.or(Some(Step::Forget(name)))
        }
        Phase::Off => start.or(Some(Step::Forget(name))),
        Phase::Crashed => {
            if start.is_none() {
                return Some(Step::Forget(name));
            }
            let due = BootTime(seen.since.0.saturating_add(back_off(seen.crashes)));
            start.filter(|_| due <= now)
        }
    }
}

impl Step {
    /// Name of the VM that the step changes.
    #[must_use]
    pub fn vm(&self) -> &str {
        match self {
            Step::Kill(vm) | Step::RecordGuestShutDown(vm) | Step::Forget(vm) | Step::Start(vm) => vm,
            Step::ShutDown { vm, .. } => vm,
        }
    }

    /// The change of the document that the step requires; `None` for steps of the runner.
    #[must_use]
    pub fn change(&self) -> Option<dyad_desired::Change> {
        match self {
            Step::RecordGuestShutDown(vm) => {
                Some(dyad_desired::Change::SetIntent { name: vm.clone(), intent: Intent::GuestShutDown })
            }
            _ => None,
        }
    }
}
