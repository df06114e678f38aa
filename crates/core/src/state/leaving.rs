//! Leaving: this node hands over to the other one before it shuts down, because its pool failed, or before it is erased.
//! When a leave begins and ends is decided by placement; here its clients are answered.

use super::CoreState;
use super::parts::LeaveWaiter;
use crate::decommission;
use crate::event::Event;
use dyad_control::{Refusal, RefusalCode, Reply, TimelineKind};
use dyad_placement::CgroupCommand;
use dyad_provision::erase::{self, EraseMode, ErasePrecondition};
use tokio::sync::oneshot;

impl CoreState {
    /// Begins to hand over to the other node. `waiter` is answered when that is done, or after 10 s with a refusal.
    pub(super) fn leave(&mut self, waiter: LeaveWaiter) {
        self.leave_waiters.push(waiter);
        self.place(dyad_placement::Event::Leave);
    }

    /// Answers all clients that wait for the leave, which has ended.
    pub(super) fn tell_leave_waiters(&mut self, result: &Result<(), Refusal>) {
        for waiter in std::mem::take(&mut self.leave_waiters) {
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
    pub(super) fn pool_failed(&mut self, error: &str) {
        if self.placement.lifecycle().pool_has_failed() {
            return;
        }
        let sentence = format!("The pool of this node refused a request: {error}.");
        self.report.error = Some(sentence.clone());
        self.handles.timeline.note(TimelineKind::Faulty, sentence);
        // The failed pool cannot store a resync: without a session the other node does not try one.
        self.handles.peer.stop();
        self.place(dyad_placement::Event::PoolFailed);
    }

    /// Decommissions this node if the confirmation suffices: after a leave if the other node holds all data, else at once.
    pub(super) fn erase(&mut self, disk: Option<&str>, confirm: &str, answer: oneshot::Sender<Reply>) {
        if disk.is_some() {
            let _ = answer.send(erase::not_blank().into());
            return;
        }
        // A node that was never admitted holds no data that the other one lacks.
        let config = self.placement.config();
        let peer_in_sync = config.members.has(self.me.peer()) && self.quorum.peer_alive;
        let precondition = ErasePrecondition {
            pair: &self.identity.pair,
            node: &self.identity.node,
            peer_has_all: !config.exists() || peer_in_sync,
        };
        match erase::decide(precondition, confirm) {
            Err(refusal) => drop(answer.send(refusal.into())),
            Ok(EraseMode::Abandon) => self.begin_decommission(answer),
            Ok(EraseMode::Leave) => {
                self.handles.timeline.note(TimelineKind::Erasing, "This node leaves the pair to be erased.");
                self.leave(LeaveWaiter::Erase(answer));
            }
        }
    }

    /// Continues an erasure after its leave has ended: decommissions this node if the other node has taken over, else
    /// refuses.
    pub(super) fn left_for_erase(&mut self, result: Result<(), Refusal>, answer: oneshot::Sender<Reply>) {
        // A leave is also complete if there was no other node to take over.
        let peer_has_all = !self.placement.is_member();
        if result.is_ok() && peer_has_all {
            return self.begin_decommission(answer);
        }
        self.place(dyad_placement::Event::CancelLeave);
        let text = "Nothing was erased: the other node did not take over; look at the status and ask again.";
        let _ = answer.send(Reply::refused(RefusalCode::NoPeer, text));
    }

    /// Kills the VMs and renames the identity, which cannot be undone. The control server ends this process after its
    /// reply; the next process erases the disks.
    fn begin_decommission(&mut self, answer: oneshot::Sender<Reply>) {
        self.place(dyad_placement::Event::Decommission);
        self.show();
        let vms = self.handles.paths.vms_cgroup.clone();
        let fence = self.handles.cgroup_fence.clone();
        let kill = || {
            let _ = fence.send(CgroupCommand::Kill);
        };
        match decommission::begin(&self.handles.paths.state, vms.as_deref(), kill) {
            Ok(()) => {
                self.place(dyad_placement::Event::Decommissioned);
                let _ = answer.send(Reply::Done);
            }
            Err(refusal) => drop(answer.send(refusal.into())),
        }
    }
}
