//! This node hands over to the other one: to shut down, because its pool failed, or to be erased.

use super::CoreState;
use super::parts::{LeaveWaiter, Lifecycle};
use crate::decommission;
use crate::event::Event;
use dyad_control::{Refusal, RefusalCode, Reply, TimelineKind};
use dyad_provision::erase::{self, EraseMode, ErasePrecondition};
use dyad_quorum as quorum;
use std::time::Duration;
use tokio::sync::oneshot;

/// Longest time a planned leave may take before it is called off.
const LEAVE_TIMEOUT: Duration = Duration::from_secs(10);

impl CoreState {
    /// Hands over to the other node, if it can be done in time.
    pub(super) fn begin_leave(&mut self, waiter: LeaveWaiter) {
        self.lifecycle.begin_leave(waiter);
        self.out.quorum_thread.tell(quorum::Event::Leave);
        let inbox = self.out.inbox.clone();
        self.out.runtime.spawn(async move {
            tokio::time::sleep(LEAVE_TIMEOUT).await;
            inbox.send(Event::LeaveTimedOut);
        });
    }

    /// Calls off a leave that a client asked for; a leave because of a failed pool goes on.
    pub(super) fn cancel_leave(&self) {
        if !self.lifecycle.pool_has_failed() {
            self.out.quorum_thread.tell(quorum::Event::CancelLeave);
        }
    }

    /// The other node did not take over within 10 s: this node stays a member, and the clients are refused.
    pub(super) fn leave_timed_out(&mut self) {
        if self.lifecycle.has_waiters() {
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
                // Sent as an event, so that updates of the quorum thread that are queued already are applied first: the erasure
                // reads the configuration.
                LeaveWaiter::Erase(answer) => self.out.inbox.send(Event::LeftForErase { result, answer }),
            }
        }
    }

    /// The pool refused a request, which stays unanswered here. The other node, which holds all the rest, takes over if it
    /// can.
    pub(super) fn pool_failed(&mut self, error: &str) {
        if self.lifecycle.pool_has_failed() {
            return;
        }
        let sentence = format!("The pool of this node refused a request: {error}.");
        self.report.error = Some(sentence.clone());
        self.out.timeline.note(TimelineKind::Faulty, sentence);
        self.out.quorum_thread.tell(quorum::Event::Faulty);
        self.lifecycle.pool_failed();
        self.out.quorum_thread.tell(quorum::Event::Leave);
        // Nothing can be copied to a pool that takes nothing, and trying costs the other node time.
        self.out.peer.stop();
    }

    /// Erases this node if the confirmation suffices: after a leave if the other node holds all data, else at once.
    pub(super) fn erase(&mut self, disk: Option<&str>, confirm: &str, answer: oneshot::Sender<Reply>) {
        if disk.is_some() {
            let _ = answer.send(erase::not_blank().into());
            return;
        }
        // A node that was never admitted holds nothing.
        let nothing_here = !self.membership.config.exists();
        let peer_in_sync = self.membership.config.members.has(self.me.peer()) && self.membership.snapshot.peer_alive;
        let precondition = ErasePrecondition {
            pair: &self.identity.pair,
            node: &self.identity.node,
            peer_has_all: nothing_here || peer_in_sync,
        };
        match erase::decide(precondition, confirm) {
            Err(refusal) => drop(answer.send(refusal.into())),
            Ok(EraseMode::Abandon) => self.begin_decommission(answer),
            Ok(EraseMode::Leave) => {
                self.out.timeline.note(TimelineKind::Erasing, "This node leaves the pair to be erased.");
                self.begin_leave(LeaveWaiter::Erase(answer));
            }
        }
    }

    /// The leave that precedes an erasure has ended: the other node has taken over, or not.
    pub(super) fn left_for_erase(&mut self, result: Result<(), Refusal>, answer: oneshot::Sender<Reply>) {
        // A leave is also complete when no other node was there to take over.
        let peer_has_all = !self.membership.config.exists() || !self.membership.config.members.has(self.me);
        if result.is_ok() && peer_has_all {
            return self.begin_decommission(answer);
        }
        self.cancel_leave();
        let text = "Nothing was erased: the other node did not take over; look at the status and ask again.";
        let _ = answer.send(Reply::refused(RefusalCode::NoPeer, text));
    }

    /// The step without return. This process ends when the control server has told so; the next one erases.
    fn begin_decommission(&mut self, answer: oneshot::Sender<Reply>) {
        self.access.servers.clear();
        match decommission::begin(&self.out.paths.state, self.out.paths.vms.clone()) {
            Ok(()) => {
                self.lifecycle = Lifecycle::Decommissioned;
                let _ = answer.send(Reply::Done);
            }
            Err(refusal) => drop(answer.send(refusal.into())),
        }
    }
}
