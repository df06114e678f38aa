//! When a leave begins, ends, is called off, and when a node with a failed pool restarts its daemon.

use super::Placement;
use crate::event::Action;
use crate::lifecycle::{LeaveCause, LeaveEnd, Lifecycle, Timer};
use dyad_quorum as quorum;
use dyad_types::BootTime;

const SECOND: u64 = 1_000_000_000;

/// Longest time of a leave that a client requested, which is then cancelled, and of the hand-over after a failure of the
/// pool. In nanoseconds.
const LEAVE_TIMEOUT: u64 = 10 * SECOND;

/// Shortest run of this daemon that ends by itself to open a failed pool again, in nanoseconds. After a shorter run init
/// would delay the next start more and more, up to the watchdog's reset of the node; init counts 60 s as stable.
const STABLE_RUN_PERIOD: u64 = 61 * SECOND;

impl Placement {
    /// Begins or joins a leave that a client asks for. It ends with [`Action::LeaveEnded`].
    pub(crate) fn leave(&mut self, now: BootTime, actions: &mut Vec<Action>) {
        let begun = match self.lifecycle {
            Lifecycle::Running => now,
            Lifecycle::Leaving { begun, .. } => begun,
            Lifecycle::Decommissioned | Lifecycle::Stopping => return,
        };
        if self.lifecycle == Lifecycle::Running {
            self.lifecycle = Lifecycle::Leaving { cause: LeaveCause::Requested, begun };
        }
        actions.push(Action::Quorum(quorum::Event::Leave));
        actions.push(Action::After { delay: LEAVE_TIMEOUT, timer: Timer::Leave { begun } });
    }

    /// Cancels a leave that a client asked for. A leave because of a failed pool continues.
    pub(crate) fn cancel_leave(&self, actions: &mut Vec<Action>) {
        if !self.lifecycle.pool_has_failed() {
            actions.push(Action::Quorum(quorum::Event::CancelLeave));
        }
    }

    pub(crate) fn leave_done(&mut self, actions: &mut Vec<Action>) {
        self.end_leave(LeaveEnd::Complete, actions);
    }

    /// Ends the leave, and has its clients answered. A leave because of the failed pool continues.
    fn end_leave(&mut self, end: LeaveEnd, actions: &mut Vec<Action>) {
        if let Lifecycle::Leaving { cause, .. } = self.lifecycle {
            if cause == LeaveCause::Requested {
                self.lifecycle = Lifecycle::Running;
            }
            actions.push(Action::LeaveEnded(end));
        }
    }

    pub(crate) fn timed_out(&mut self, timer: Timer, actions: &mut Vec<Action>) {
        match (timer, self.lifecycle) {
            // The timer of a leave that has ended must not cancel the next one.
            (Timer::Leave { begun: of }, Lifecycle::Leaving { begun, .. }) if begun == of => {
                self.cancel_leave(actions);
                self.end_leave(LeaveEnd::TimedOut, actions);
            }
            // Init starts this process again, and it opens the pool again: one failed request may have been the only one,
            // and guests wait meanwhile without an error.
            (Timer::HandOver, lifecycle) if lifecycle.pool_has_failed() && self.is_member() => {
                actions.push(Action::LeaveEnded(LeaveEnd::ProcessEnds));
                actions.push(Action::EndProcess);
            }
            _ => {}
        }
    }

    /// Leaves the pair after the pool refused a request, so that the other node takes over if it is in sync. This leave is not
    /// cancelled.
    pub(crate) fn pool_failed(&mut self, now: BootTime, actions: &mut Vec<Action>) {
        let cause = LeaveCause::PoolFailed;
        self.lifecycle = match self.lifecycle {
            Lifecycle::Running => Lifecycle::Leaving { cause, begun: now },
            Lifecycle::Leaving { cause: LeaveCause::Requested, begun } => Lifecycle::Leaving { cause, begun },
            _ => return,
        };
        actions.push(Action::Quorum(quorum::Event::Faulty));
        actions.push(Action::Quorum(quorum::Event::Leave));
        let stable_in = STABLE_RUN_PERIOD.saturating_sub(now.since(self.started));
        actions.push(Action::After { delay: LEAVE_TIMEOUT.max(stable_in), timer: Timer::HandOver });
    }
}
