//! Whether this member runs, leaves its pair, was decommissioned, or stops.
//!
//! ```text
//!            Leave                       pool failed
//! Running ───────────────▶ Leaving: Requested ────▶ Leaving: PoolFailed
//!    ▲                        │ │
//!    └── complete, timed out ─┘ └─ decommissioned ─▶ Decommissioned
//! ```
//!
//! Not drawn: a failed pool leads from Running to Leaving as well, an erasure without a leave from Running to
//! Decommissioned, and the event `Stop` from each state to Stopping.
//!
//! **Invariants.** A leave because of the failed pool is never cancelled, and its node makes no change of the document.
//! A decommissioned node handles no event but [`crate::Event::Stop`] and settles nothing.

use dyad_types::BootTime;

/// The event for which this node hands over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LeaveCause {
    /// A client's request for a leave or an erasure.
    Requested,
    /// The pool of this node refused a request.
    PoolFailed,
}

/// The state of this daemon as a member.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lifecycle {
    /// No leave is under way. Only then this node serves volumes and permits VMs.
    Running,
    /// This node hands over to the other node.
    Leaving {
        cause: LeaveCause,
        /// Its beginning, which tells it from other leaves.
        begun: BootTime,
    },
    /// This node no longer belongs to its pair. No event but `Stop` is handled; the next process erases the disks.
    Decommissioned,
    /// The daemon ends.
    Stopping,
}

impl Lifecycle {
    /// Whether events are handled and the state is settled.
    #[must_use]
    pub fn is_active(self) -> bool {
        matches!(self, Self::Running | Self::Leaving { .. })
    }

    /// Whether this node leaves because its pool failed.
    #[must_use]
    pub fn pool_has_failed(self) -> bool {
        matches!(self, Self::Leaving { cause: LeaveCause::PoolFailed, .. })
    }
}

/// A time that [`Action::After`] begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Timer {
    /// The leave that began at this time takes too long.
    Leave { begun: BootTime },
    /// No other node has taken over since the pool failed.
    HandOver,
}

/// The reason for which a leave ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LeaveEnd {
    /// The quorum machine says that it is complete.
    Complete,
    /// The other node has not taken over in time.
    TimedOut,
    /// This process ends before.
    ProcessEnds,
}
