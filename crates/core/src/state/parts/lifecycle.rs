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
use std::time::Instant;
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
        /// Its beginning, which tells it from other leaves.
        begun: Instant,
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

    /// Whether no leave is under way. Only then this node serves volumes and permits VMs.
    pub(in crate::state) fn is_running(&self) -> bool {
        matches!(self, Self::Running)
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
            Self::Running => {
                *self = Self::Leaving { cause: LeaveCause::PoolFailed, begun: Instant::now(), waiters: Vec::new() };
            }
            Self::Leaving { cause, .. } => *cause = LeaveCause::PoolFailed,
            Self::Decommissioned | Self::Stopping => {}
        }
    }

    /// Begins or joins a leave, and returns its beginning. `waiter` is kept for its end. `None` = this node is decommissioned
    /// or stopping; `waiter` is dropped.
    pub(in crate::state) fn begin_leave(&mut self, waiter: LeaveWaiter) -> Option<Instant> {
        match self {
            Self::Running => {
                let begun = Instant::now();
                *self = Self::Leaving { cause: LeaveCause::Requested, begun, waiters: vec![waiter] };
                Some(begun)
            }
            Self::Leaving { begun, waiters, .. } => {
                waiters.push(waiter);
                Some(*begun)
            }
            Self::Decommissioned | Self::Stopping => None,
        }
    }

    /// Whether a client waits for the end of the leave that began at this time.
    pub(in crate::state) fn has_waiters(&self, of: Instant) -> bool {
        matches!(self, Self::Leaving { begun, waiters, .. } if *begun == of && !waiters.is_empty())
    }

    /// Ends the leave and returns the clients to answer. A leave because of the failed pool continues.
    pub(in crate::state) fn end_leave(&mut self) -> Vec<LeaveWaiter> {
        let Self::Leaving { cause, waiters, .. } = self else { return Vec::new() };
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
        let begun = lifecycle.begin_leave(waiter()).unwrap();
        lifecycle.pool_failed();
        assert_eq!(lifecycle.begin_leave(waiter()), Some(begun));
        assert!(lifecycle.pool_has_failed() && lifecycle.has_waiters(begun));
        assert_eq!(lifecycle.end_leave().len(), 2);
        assert!(lifecycle.pool_has_failed() && !lifecycle.has_waiters(begun));
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
        assert!(lifecycle.is_running());
    }

    /// The timer of a leave that has ended must not cancel the next one.
    #[test]
    fn a_later_leave_is_another_one() {
        let mut lifecycle = Lifecycle::Running;
        let first = lifecycle.begin_leave(waiter()).unwrap();
        lifecycle.end_leave();
        let second = lifecycle.begin_leave(waiter()).unwrap();
        assert!(!lifecycle.has_waiters(first) && lifecycle.has_waiters(second));
    }
}
