//! The phases of one VM on one node, as a table.
//!
//! ```text
//!              Start          Ready
//!   absent ───────────► starting ───────► running ──GuestOff──► ending ──Gone──► shut-down
//!                          │ Gone            │ │ └──Stop──► stopping ──Gone──► off
//!                          ▼                 │ └────Kill──► killing  ──Gone──► off
//!                       crashed ◄────Gone────┘
//! ```
//!
//! `shut-down`, `off` and `crashed` store how the last run ended, until the VM is started again or forgotten.

use std::fmt;

use serde::{Deserialize, Serialize};

/// The phase of a VM on this node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Phase {
    /// No process and no stored last run.
    Absent,
    /// The process exists and has not answered yet.
    Starting,
    /// The process runs the guest.
    Running,
    /// The guest was asked to shut down.
    Stopping,
    /// The guest shut itself down; the process is about to end.
    Ending,
    /// The process was sent SIGKILL.
    Killing,
    /// The process ended because it was told to.
    Off,
    /// The process ended because the guest shut down.
    ShutDown,
    /// The process ended unexpectedly, or could not be started.
    Crashed,
}

/// An event in the life of a VM.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum VmEvent {
    /// The runner starts a process.
    Start,
    /// The runner found the process of an earlier runner.
    Adopt,
    /// QEMU answered on its control socket.
    Ready,
    /// The runner asks the guest to shut down.
    Stop,
    /// The runner kills the process.
    Kill,
    /// The guest shut down.
    GuestOff,
    /// The guest's operating system panicked.
    Panic,
    /// The process has ended, or could not be started.
    Gone,
    /// The stored last run is dropped.
    Forget,
}

/// An event that is not possible in a phase: a defect of the caller.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{event:?} cannot happen to a VM that is {phase}")]
pub struct InvalidTransition {
    /// The phase of the VM.
    pub phase: Phase,
    /// The event that was reported.
    pub event: VmEvent,
}

impl Phase {
    /// All phases, in the order in which a VM passes them.
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

    /// Whether there is a process.
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
            // A process that is found again keeps its phase.
            (phase, H::Adopt) if phase.is_alive() => phase,
            (P::Starting, H::Ready) => P::Running,
            // The connection to QMP is made again after a restart of `dyad-node`; that changes no phase.
            (P::Running | P::Stopping | P::Ending | P::Killing, H::Ready) => self,
            (P::Starting | P::Running, H::Stop) => P::Stopping,
            (P::Stopping | P::Ending | P::Killing, H::Stop) => self,
            (P::Starting | P::Running | P::Stopping | P::Killing, H::Kill) => P::Killing,
            // The guest has shut down already: the kill does not change how the run ended.
            (P::Ending, H::Kill) => P::Ending,
            (P::Starting | P::Running, H::GuestOff) => P::Ending,
            (P::Stopping | P::Ending | P::Killing, H::GuestOff) => self,
            // A panic is a crash of the VM: the phase stays `Running` until the runner has killed QEMU.
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
    /// All events, for tests of every pair of state and event.
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
