//! What should happen to the VMs of this node: a pure function.
//!
//! | the process | the document says | step |
//! | --- | --- | --- |
//! | alive | not ours, or deleted | kill |
//! | alive | shall not run | shut down |
//! | none | shall run, permitted | start, by priority |
//! | none, guest switched off | shall run, unchanged since | record the guest's will |
//! | none, crashed | shall run, permitted | start again after the back-off |
//! | none, remembered | anything else | forget |
//!
//! A missing permit alone kills nothing: `dyad-core`, who gives the permits, has frozen the VMs by then and
//! decides whether they go on or die. What must not run here under the *document* is killed at once, which is
//! always safe.

use std::collections::{BTreeMap, BTreeSet};

use dyad_desired::{Document, Intent, Vm};
use dyad_types::NodeId;

use crate::{Phase, Time};

const SECOND: Time = 1_000_000_000;
/// Longest pause before a crashed VM is started again, in seconds.
const MAX_RESTART_DELAY_S: u64 = 300;
/// VMs that may be starting at once, so that those of high priority have the processors for themselves.
const STARTING_MAX: usize = 4;

/// What is known of one VM's process on this node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Observed {
    /// Where it is in its life.
    pub phase: Phase,
    /// Since when.
    pub since: Time,
    /// The VM's `changed` generation at its start: a document in which it is smaller is older than the start.
    pub started_for: u64,
    /// Crashes in a row.
    pub crashes: u32,
    /// Process id, while there is a process.
    pub pid: Option<u32>,
    /// How it ended or why it does not answer, one sentence for people.
    pub note: Option<String>,
}

/// One thing to do.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Step {
    /// Kill the VM's process.
    Kill(String),
    /// Ask the guest to shut down; kill it when the grace is over.
    ShutDown {
        /// The VM.
        vm: String,
        /// Seconds it gets.
        grace_s: u32,
    },
    /// The guest switched itself off: set its intent to [`Intent::GuestShutDown`] in the document.
    RecordGuestShutDown(String),
    /// Drop what is remembered of the VM's last run.
    Forget(String),
    /// Start the VM.
    Start(String),
}

/// How long after its `crashes`th crash in a row a VM stays off, in nanoseconds.
#[must_use]
pub fn back_off(crashes: u32) -> Time {
    match crashes {
        0 => 0,
        n => 1u64.checked_shl(n - 1).unwrap_or(u64::MAX).min(MAX_RESTART_DELAY_S) * SECOND,
    }
}

/// When the next back-off ends, if a VM waits for one: [`plan`] has something new to say then.
#[must_use]
pub fn next_wakeup(observed: &BTreeMap<String, Observed>) -> Option<Time> {
    let crashed = observed.values().filter(|seen| seen.phase == Phase::Crashed);
    crashed.map(|seen| seen.since + back_off(seen.crashes)).min()
}

/// What to do now, in this order. Steps are safe to repeat: a step is planned until its effect is observed.
///
/// `permits` names the VMs that `dyad-core` lets run on this node in this moment.
#[must_use]
pub fn plan(
    now: Time,
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
        match judge(now, name, ours, may_start, observed.get(name), document) {
            Some(Step::Start(_)) => starts.push((name, ours.map_or(0, |vm| vm.config.priority))),
            Some(step) => steps.push(step),
            None => {}
        }
    }
    // Kill before shutting down before forgetting; the order of the enum.
    steps.sort();
    starts.sort_by_key(|(name, priority)| (std::cmp::Reverse(*priority), *name));
    let starting = observed.values().filter(|seen| seen.phase == Phase::Starting).count();
    let room = STARTING_MAX.saturating_sub(starting);
    steps.extend(starts.into_iter().take(room).map(|(name, _)| Step::Start(name.to_owned())));
    steps
}

fn judge(
    now: Time,
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
            // A document older than the start says nothing about it.
            let stale = vm.changed < seen.started_for;
            let stop = !wanted && !stale && seen.phase != Phase::Stopping;
            let grace_s = document.policies.shutdown_grace_s;
            stop.then_some(Step::ShutDown { vm: name, grace_s })
        }
        Phase::ShutDown => {
            let unchanged = ours.is_some_and(|vm| vm.changed <= seen.started_for);
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
            let due = seen.since.saturating_add(back_off(seen.crashes));
            start.filter(|_| due <= now)
        }
    }
}

impl Step {
    /// The VM the step is about.
    #[must_use]
    pub fn vm(&self) -> &str {
        match self {
            Step::Kill(vm) | Step::RecordGuestShutDown(vm) | Step::Forget(vm) | Step::Start(vm) => vm,
            Step::ShutDown { vm, .. } => vm,
        }
    }

    /// The change of the document that the step asks for.
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
