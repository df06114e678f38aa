//! The phases of one VM on one node, and the transitions between them.
//!
//! ```text
//!              Start          Ready
//!   absent ───────────► starting ───────► running ──GuestOff──► ending ──Gone──► shut-down
//!                          │ Gone            │ │ └──Stop──► stopping ──Gone──► off
//!                          ▼                 │ └────Kill──► killing  ──Gone──► off
//!                       crashed ◄────Gone────┘
//! ```
//!
//! Not drawn: Stop, Kill and GuestOff lead from `starting` to the same phases as from `running`. `tests/lifecycle.txt`
//! lists every pair of phase and event. `shut-down`, `off` and `crashed` store how the last run ended, until the VM is
//! started again or forgotten.

use std::fmt;

use serde::{Deserialize, Serialize};

/// The phase of a VM on this node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Phase {
    /// No process exists and no last run is stored.
    Absent,
    /// The process exists, and QEMU has not answered on its control socket yet.
    Starting,
    /// The process runs the guest.
    Running,
    /// The guest was asked to shut down.
    Stopping,
    /// The guest shut itself down, without a request; the process is about to end.
    Ending,
    /// The process was sent SIGKILL.
    Killing,
    /// The process ended after a request to shut down, or was killed by the runner.
    Off,
    /// The process ended because the guest shut down.
    ShutDown,
    /// The process ended unexpectedly, or could not be started.
    Crashed,
}

/// An event that may change the phase of a VM.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum VmEvent {
    /// The runner starts a process.
    Start,
    /// The runner found the process that an earlier runner started.
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
    /// All phases, in the order of the enum.
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
    /// [`InvalidTransition`] if the event is not possible in this phase.
    pub fn after(self, event: VmEvent) -> Result<Phase, InvalidTransition> {
        use Phase as P;
        use VmEvent as E;
        Ok(match (self, event) {
            (P::Absent | P::Off | P::ShutDown | P::Crashed, E::Start) => P::Starting,
            // A process that is found again keeps its phase.
            (phase, E::Adopt) if phase.is_alive() => phase,
            (P::Starting, E::Ready) => P::Running,
            // The connection to QMP is made again after a restart of `dyad-node`; that changes no phase.
            (P::Running | P::Stopping | P::Ending | P::Killing, E::Ready) => self,
            (P::Starting | P::Running, E::Stop) => P::Stopping,
            (P::Stopping | P::Ending | P::Killing, E::Stop) => self,
            (P::Starting | P::Running | P::Stopping | P::Killing, E::Kill) => P::Killing,
            // The guest has shut down already: the kill does not change how the run ended.
            (P::Ending, E::Kill) => P::Ending,
            (P::Starting | P::Running, E::GuestOff) => P::Ending,
            (P::Stopping | P::Ending | P::Killing, E::GuestOff) => self,
            // The phase is `Running` until the runner has killed QEMU, so that a panic ends in `Crashed`.
            (P::Starting | P::Running, E::Panic) => P::Running,
            (P::Stopping | P::Ending | P::Killing, E::Panic) => self,
            (P::Starting | P::Running, E::Gone) => P::Crashed,
            (P::Stopping | P::Killing, E::Gone) => P::Off,
            (P::Ending, E::Gone) => P::ShutDown,
            (P::Off | P::ShutDown | P::Crashed | P::Absent, E::Forget) => P::Absent,
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
    /// All events, for tests of every pair of phase and event.
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
