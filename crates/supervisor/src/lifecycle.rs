//! The life of one VM on one node, as a table.
//!
//! ```text
//!              Start          Ready
//!   absent ───────────► starting ───────► running ──GuestOff──► ending ──Gone──► shut-down
//!                          │ Gone            │ │ └──Stop──► stopping ──Gone──► off
//!                          ▼                 │ └────Kill──► killing  ──Gone──► off
//!                       crashed ◄────Gone────┘
//! ```
//!
//! `shut-down`, `off` and `crashed` keep the memory of how it ended until the VM is started again or forgotten.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Where a VM is in its life on this node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Phase {
    /// No process, nothing remembered.
    Absent,
    /// The process exists and has not answered yet.
    Starting,
    /// The process runs the guest.
    Running,
    /// The guest was asked to shut down.
    Stopping,
    /// The guest switched itself off; the process is about to end.
    Ending,
    /// The process was told to die.
    Killing,
    /// It ended because we wanted it to.
    Off,
    /// It ended because its guest wanted it to.
    ShutDown,
    /// It ended by itself, or did not start.
    Crashed,
}

/// What happens to a VM.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum VmEvent {
    /// We start a process.
    Start,
    /// We found a process of before.
    Adopt,
    /// QEMU answered.
    Ready,
    /// We ask the guest to shut down.
    Stop,
    /// We kill the process.
    Kill,
    /// The guest switched off.
    GuestOff,
    /// The guest's system died.
    Panic,
    /// The process is gone, or could not be started.
    Gone,
    /// The memory of it is dropped.
    Forget,
}

/// An event that is not possible in a phase: a defect of the caller.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{event:?} cannot happen to a VM that is {phase}")]
pub struct InvalidTransition {
    /// Where the VM was.
    pub phase: Phase,
    /// The event that was reported.
    pub event: VmEvent,
}

impl Phase {
    /// All phases, in the order of a life.
    pub const ALL: [Phase; 9] = [
        Phase::Absent,
        Phase::Starting,
        Phase::Running,
        Phase::Stopping,
        Phase::Ending,
        Phase::Killing,
        Phase::Off,
        Phase::ShutDown,
        Phase::Crashed,
    ];

    /// True while there is a process.
    #[must_use]
    pub fn is_alive(self) -> bool {
        use Phase::{Ending, Killing, Running, Starting, Stopping};
        matches!(self, Starting | Running | Stopping | Ending | Killing)
    }

    /// The phase after `event`.
    ///
    /// # Errors
    ///
    /// [`InvalidTransition`] for what the table has no row for.
    pub fn after(self, event: VmEvent) -> Result<Phase, InvalidTransition> {
        use Phase as P;
        use VmEvent as H;
        Ok(match (self, event) {
            (P::Absent | P::Off | P::ShutDown | P::Crashed, H::Start) => P::Starting,
            // A process of before goes on where it was.
            (phase, H::Adopt) if phase.is_alive() => phase,
            (P::Starting, H::Ready) => P::Running,
            // QMP comes and goes with our own restarts; that changes nothing.
            (P::Running | P::Stopping | P::Ending | P::Killing, H::Ready) => self,
            (P::Starting | P::Running, H::Stop) => P::Stopping,
            (P::Stopping | P::Ending | P::Killing, H::Stop) => self,
            (P::Starting | P::Running | P::Stopping | P::Killing, H::Kill) => P::Killing,
            // The guest's will is not overwritten by ours: it is off either way.
            (P::Ending, H::Kill) => P::Ending,
            (P::Starting | P::Running, H::GuestOff) => P::Ending,
            (P::Stopping | P::Ending | P::Killing, H::GuestOff) => self,
            // A dead system is a crash of the VM: the process is left as it is and ends by our hand.
            (P::Starting | P::Running, H::Panic) => P::Running,
            (P::Stopping | P::Ending | P::Killing, H::Panic) => self,
            (P::Starting | P::Running, H::Gone) => P::Crashed,
            (P::Stopping | P::Killing, H::Gone) => P::Off,
            (P::Ending, H::Gone) => P::ShutDown,
            (P::Off | P::ShutDown | P::Crashed | P::Absent, H::Forget) => P::Absent,
            (phase, event) => return Err(InvalidTransition { phase, event }),
        })
    }
}

impl fmt::Display for Phase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Phase::Absent => "absent",
            Phase::Starting => "starting",
            Phase::Running => "running",
            Phase::Stopping => "stopping",
            Phase::Ending => "ending",
            Phase::Killing => "killing",
            Phase::Off => "off",
            Phase::ShutDown => "shut down",
            Phase::Crashed => "crashed",
        })
    }
}

impl VmEvent {
    /// All happenings.
    pub const ALL: [VmEvent; 9] = [
        VmEvent::Start,
        VmEvent::Adopt,
        VmEvent::Ready,
        VmEvent::Stop,
        VmEvent::Kill,
        VmEvent::GuestOff,
        VmEvent::Panic,
        VmEvent::Gone,
        VmEvent::Forget,
    ];
}
