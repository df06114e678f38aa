//! How far this daemon is from its end.
//!
//! ```text
//!            Leave, Erase            pool failed
//! Running ───────────────▶ Leaving ─────────────▶ Leaving for good
//!    ▲                        │ │
//!    └── complete, timed out ─┘ └─ erased ─▶ Decommissioned ─ Stop ─▶ Stopping
//! ```
//!
//! **Invariants.** A leave because of the failed pool is never called off, and its node makes no change of the document.
//! A decommissioned node handles no event but [`crate::event::Event::Stop`] and settles nothing.

use dyad_control::Reply;
use tokio::sync::oneshot;

/// Who is told when this node has left, or that it has not.
#[derive(Debug)]
pub(in crate::state) enum LeaveWaiter {
    /// A client that asked for the leave.
    ReplyTo(oneshot::Sender<Reply>),
    /// An erasure that begins with the leave.
    Erase(oneshot::Sender<Reply>),
}

/// Why this node leaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::state) enum LeaveCause {
    /// A client asked for it.
    Requested,
    /// The pool of this node refused a request.
    PoolFailed,
}

/// How far this daemon is from its end.
#[derive(Debug)]
pub(in crate::state) enum Lifecycle {
    /// Serves its guests; no end was asked for.
    Running,
    /// The other node is to take over.
    Leaving {
        cause: LeaveCause,
        /// Who is told of the end.
        waiters: Vec<LeaveWaiter>,
    },
    /// This node was erased. Nothing happens here until the client knows and the process ends.
    Decommissioned,
    /// The process ends.
    Stopping,
}

impl Lifecycle {
    /// Whether events are handled and the state is settled.
    pub(in crate::state) fn is_active(&self) -> bool {
        matches!(self, Self::Running | Self::Leaving { .. })
    }

    /// Whether the process ends.
    pub(in crate::state) fn is_stopping(&self) -> bool {
        matches!(self, Self::Stopping)
    }

    /// Whether the pool of this node failed.
    pub(in crate::state) fn pool_has_failed(&self) -> bool {
        matches!(self, Self::Leaving { cause: LeaveCause::PoolFailed, .. })
    }

    /// The pool of this node failed.
    pub(in crate::state) fn pool_failed(&mut self) {
        match self {
            Self::Running => *self = Self::Leaving { cause: LeaveCause::PoolFailed, waiters: Vec::new() },
            Self::Leaving { cause, .. } => *cause = LeaveCause::PoolFailed,
            Self::Decommissioned | Self::Stopping => {}
        }
    }

    /// A client asked for a leave: `waiter` is told of its end, unless this node is already decommissioned or stopping.
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

    /// The leave has ended: who is told.
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
    fn a_failed_pool_stays_failed_through_every_leave() {
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
    fn a_leave_that_was_asked_for_ends() {
        let mut lifecycle = Lifecycle::Running;
        assert!(lifecycle.end_leave().is_empty());
        lifecycle.begin_leave(waiter());
        assert_eq!(lifecycle.end_leave().len(), 1);
        assert!(matches!(lifecycle, Lifecycle::Running));
    }
}
