//! Leaving: this node hands over to the other one before it shuts down, because its pool failed, or before it is erased.

use super::CoreState;
use super::parts::{LeaveWaiter, Lifecycle};
use crate::cgroup_fence::CgroupCommand;
use crate::decommission;
use crate::event::Event;
use dyad_control::{Refusal, RefusalCode, Reply, TimelineKind};
use dyad_provision::erase::{self, EraseMode, ErasePrecondition};
use dyad_quorum as quorum;
use std::time::{Duration, Instant};
use tokio::sync::oneshot;

/// Longest time of a leave that a client requested, which is then cancelled, and of the hand-over after a failure of the pool.
const LEAVE_TIMEOUT: Duration = Duration::from_secs(10);

/// Shortest run of this daemon that ends by itself to open a failed pool again. After a shorter run init would delay the next
/// start more and more, up to the watchdog's reset of the node; `dyad-init` counts 60 s as stable.
const STABLE_RUN_PERIOD: Duration = Duration::from_secs(61);

impl CoreState {
    /// Begins to hand over to the other node. `waiter` is answered when that is done, or after 10 s with a refusal.
    pub(super) fn begin_leave(&mut self, waiter: LeaveWaiter) {
        let Some(begun) = self.lifecycle.begin_leave(waiter) else { return };
        self.handles.quorum_thread.tell(quorum::Event::Leave);
        self.send_after(LEAVE_TIMEOUT, Event::LeaveTimedOut { begun });
    }

    fn send_after(&self, delay: Duration, event: Event) {
        let event_sender = self.handles.event_sender.clone();
        self.handles.runtime.spawn(async move {
            tokio::time::sleep(delay).await;
            event_sender.send(event);
        });
    }

    /// Cancels a leave that a client asked for. A leave because of a failed pool continues.
    pub(super) fn cancel_leave(&self) {
        if !self.lifecycle.pool_has_failed() {
            self.handles.quorum_thread.tell(quorum::Event::CancelLeave);
        }
    }

    /// Handles the end of the 10 s: if clients still wait for this leave, it is cancelled, this node stays a member, and they
    /// are refused.
    pub(super) fn leave_timed_out(&mut self, begun: Instant) {
        if self.lifecycle.has_waiters(begun) {
            self.cancel_leave();
            let text = "The other node does not take over: it is away. Ask again when it is back.";
            self.tell_leave_waiters(&Err(Refusal::new(RefusalCode::NoPeer, text)));
        }
    }

    /// Answers all clients that wait for the leave, which has ended.
    pub(super) fn tell_leave_waiters(&mut self, result: &Result<(), Refusal>) {
        for waiter in self.lifecycle.end_leave() {
            let result = result.clone();
            match waiter {
                LeaveWaiter::ReplyTo(answer) => drop(answer.send(result.into())),
                // Sent as an event, because the erasure reads the configuration: updates of the quorum thread that are
                // already queued must be applied before.
                LeaveWaiter::Erase(answer) => self.handles.event_sender.send(Event::LeftForErase { result, answer }),
            }
        }
    }

    /// Reports that the pool refused a request, and leaves the pair, so that the other node takes over if it is in sync.
    /// This leave is not cancelled.
    pub(super) fn pool_failed(&mut self, error: &str) {
        if self.lifecycle.pool_has_failed() {
            return;
        }
        let sentence = format!("The pool of this node refused a request: {error}.");
        self.report.error = Some(sentence.clone());
        self.handles.timeline.note(TimelineKind::Faulty, sentence);
        self.handles.quorum_thread.tell(quorum::Event::Faulty);
        self.lifecycle.pool_failed();
        self.handles.quorum_thread.tell(quorum::Event::Leave);
        // The failed pool cannot store a resync: without a session the other node does not try one.
        self.handles.peer.stop();
        let run = self.started.elapsed();
        self.send_after(LEAVE_TIMEOUT.max(STABLE_RUN_PERIOD.saturating_sub(run)), Event::HandOverTimedOut);
    }

    /// Ends this process if no other node has taken over after the failure of the pool. Init starts it again, and it opens the
    /// pool again: one failed request may have been the only one, and guests wait meanwhile without an error.
    pub(super) fn hand_over_timed_out(&mut self) {
        if self.lifecycle.pool_has_failed() && self.membership.is_member() {
            let text = "No other node takes over: the storage service restarts and opens the pool again.";
            self.handles.timeline.note(TimelineKind::Faulty, text);
            tracing::error!("{text}");
            self.tell_leave_waiters(&Err(Refusal::stopping()));
            self.lifecycle = Lifecycle::Stopping;
        }
    }

    /// Decommissions this node if the confirmation suffices: after a leave if the other node holds all data, else at once.
    pub(super) fn erase(&mut self, disk: Option<&str>, confirm: &str, answer: oneshot::Sender<Reply>) {
        if disk.is_some() {
            let _ = answer.send(erase::not_blank().into());
            return;
        }
        // A node that was never admitted holds no data that the other one lacks.
        let never_admitted = !self.membership.config.exists();
        let peer_in_sync = self.membership.config.members.has(self.me.peer()) && self.membership.snapshot.peer_alive;
        let precondition = ErasePrecondition {
            pair: &self.identity.pair,
            node: &self.identity.node,
            peer_has_all: never_admitted || peer_in_sync,
        };
        match erase::decide(precondition, confirm) {
            Err(refusal) => drop(answer.send(refusal.into())),
            Ok(EraseMode::Abandon) => self.begin_decommission(answer),
            Ok(EraseMode::Leave) => {
                self.handles.timeline.note(TimelineKind::Erasing, "This node leaves the pair to be erased.");
                self.begin_leave(LeaveWaiter::Erase(answer));
            }
        }
    }

    /// Continues an erasure after its leave has ended: decommissions this node if the other node has taken over, else
    /// refuses.
    pub(super) fn left_for_erase(&mut self, result: Result<(), Refusal>, answer: oneshot::Sender<Reply>) {
        // A leave is also complete if there was no other node to take over.
        let peer_has_all = !self.membership.config.exists() || !self.membership.config.members.has(self.me);
        if result.is_ok() && peer_has_all {
            return self.begin_decommission(answer);
        }
        self.cancel_leave();
        let text = "Nothing was erased: the other node did not take over; look at the status and ask again.";
        let _ = answer.send(Reply::refused(RefusalCode::NoPeer, text));
    }

    /// Kills the VMs and renames the identity, which cannot be undone. The control server ends this process after its
    /// reply; the next process erases the disks.
    fn begin_decommission(&mut self, answer: oneshot::Sender<Reply>) {
        self.access.servers.clear();
        self.access.permits.clear();
        self.show();
        let vms = self.handles.paths.vms_cgroup.clone();
        let fence = self.handles.cgroup_fence.clone();
        // The fence counts this kill as well: if nothing is erased, VMs start again only with a permit that knows of it.
        self.access.kills += 1;
        self.access.vms_reported = None;
        let kill = || {
            let _ = fence.send(CgroupCommand::Kill);
        };
        match decommission::begin(&self.handles.paths.state, vms.as_deref(), kill) {
            Ok(()) => {
                self.lifecycle = Lifecycle::Decommissioned;
                let _ = answer.send(Reply::Done);
            }
            Err(refusal) => drop(answer.send(refusal.into())),
        }
    }
}
