//! Whether this member runs, leaves its pair, was decommissioned, or stops.
//!
//! ```text
//!            Leave, Erase                pool failed
//! Running ───────────────▶ Leaving: Requested ────▶ Leaving: PoolFailed
//!    ▲                        │ │
//!    └── complete, timed out ─┘ └─ identity renamed ─▶ Decommissioned
//! ```
//!
//! Not drawn: a failed pool leads from Running to Leaving as well, an erasure without a leave from Running to
//! Decommissioned, and the event `Stop` from each state to Stopping.
//!
//! **Invariants.** A leave because of the failed pool is never cancelled, and its node makes no change of the document.
//! A decommissioned node handles no event but [`crate::event::Event::Stop`] and settles nothing.

use dyad_control::Reply;
use tokio::sync::oneshot;

/// A client that waits for the end of a leave.
#[derive(Debug)]
pub(in crate::state) enum LeaveWaiter {
    /// It asked for the leave itself.
    ReplyTo(oneshot::Sender<Reply>),
    /// It asked for an erasure, which begins with the leave.
    Erase(oneshot::Sender<Reply>),
}

/// The event for which this node hands over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::state) enum LeaveCause {
    /// A client's request for a leave or an erasure.
    Requested,
    /// The pool of this node refused a request.
    PoolFailed,
}

/// The state of this daemon as a member.
#[derive(Debug)]
pub(in crate::state) enum Lifecycle {
    /// No leave is under way.
    Running,
    /// This node hands over to the other node.
    Leaving {
        cause: LeaveCause,
        /// The clients that are answered at the end.
        waiters: Vec<LeaveWaiter>,
    },
    /// The identity was renamed. No event but `Stop` is handled; the next process erases the disks.
    Decommissioned,
    /// The event `Stop` was handled.
    Stopping,
}

impl Lifecycle {
    /// Whether events are handled and the state is settled.
    pub(in crate::state) fn is_active(&self) -> bool {
        matches!(self, Self::Running | Self::Leaving { .. })
    }

    /// Whether the event `Stop` was handled.
    pub(in crate::state) fn is_stopping(&self) -> bool {
        matches!(self, Self::Stopping)
    }

    /// Whether this node leaves because its pool failed.
    pub(in crate::state) fn pool_has_failed(&self) -> bool {
        matches!(self, Self::Leaving { cause: LeaveCause::PoolFailed, .. })
    }

    /// Begins a leave because the pool failed, or gives a leave under way this cause.
    pub(in crate::state) fn pool_failed(&mut self) {
        match self {
            Self::Running => *self = Self::Leaving { cause: LeaveCause::PoolFailed, waiters: Vec::new() },
            Self::Leaving { cause, .. } => *cause = LeaveCause::PoolFailed,
            Self::Decommissioned | Self::Stopping => {}
        }
    }

    /// Begins or joins a leave. `waiter` is kept for its end; it is dropped if this node is decommissioned or stopping.
    pub(in crate::state) fn begin_leave(&mut self, waiter: LeaveWaiter) {
        match self {
            Self::Running => *self = Self::Leaving { cause: LeaveCause::Requested, waiters: vec![waiter] },
            Self::Leaving { waiters, .. } => waiters.push(waiter),
            Self::Decommissioned | Self::Stopping => {}
        }
    }

    /// Whether a client waits for the end of the leave.
    pub(in crate::state) fn has_waiters(&self) -> bool {
        matches!(self, Self::Leaving { waiters, .. } if !waiters.is_empty())
    }

    /// Ends the leave and returns the clients to answer. A leave because of the failed pool continues.
    pub(in crate::state) fn end_leave(&mut self) -> Vec<LeaveWaiter> {
        let Self::Leaving { cause, waiters } = self else { return Vec::new() };
        let waiters = std::mem::take(waiters);
        if *cause == LeaveCause::Requested {
            *self = Self::Running;
        }
        waiters
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn waiter() -> LeaveWaiter {
        LeaveWaiter::ReplyTo(oneshot::channel().0)
    }

    #[test]
    fn the_end_of_a_leave_does_not_end_the_leave_of_a_failed_pool() {
        let mut lifecycle = Lifecycle::Running;
        lifecycle.begin_leave(waiter());
        lifecycle.pool_failed();
        lifecycle.begin_leave(waiter());
        assert!(lifecycle.pool_has_failed() && lifecycle.has_waiters());
        assert_eq!(lifecycle.end_leave().len(), 2);
        assert!(lifecycle.pool_has_failed() && !lifecycle.has_waiters());
        lifecycle.begin_leave(waiter());
        lifecycle.end_leave();
        assert!(lifecycle.pool_has_failed());
    }

    #[test]
    fn a_requested_leave_ends_in_running() {
        let mut lifecycle = Lifecycle::Running;
        assert!(lifecycle.end_leave().is_empty());
        lifecycle.begin_leave(waiter());
        assert_eq!(lifecycle.end_leave().len(), 1);
        assert!(matches!(lifecycle, Lifecycle::Running));
    }
}
