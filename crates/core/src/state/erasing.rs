//! A person wants this node to start over.

use super::{CoreState, LeaveWaiter};
use crate::erase::{self, EraseMode, ErasePrecondition};
use dyad_control::{Refusal, RefusalCode, Reply};
use tokio::sync::oneshot;

impl CoreState {
    pub(super) fn erase(&mut self, disk: Option<&str>, confirm: &str, answer: oneshot::Sender<Reply>) {
        if disk.is_some() {
            let _ = answer.send(erase::not_blank().into());
            return;
        }
        // A node that was never admitted holds nothing.
        let nothing_here = !self.config.exists();
        let peer_in_sync = self.config.members.has(self.me.peer()) && self.snapshot.peer_alive;
        let facts = ErasePrecondition {
            pair: &self.deps.identity.pair,
            node: &self.deps.identity.node,
            peer_has_all: nothing_here || peer_in_sync,
        };
        match erase::decide(facts, confirm) {
            Err(refusal) => drop(answer.send(refusal.into())),
            Ok(EraseMode::Abandon) => self.begin_decommission(answer),
            Ok(EraseMode::Leave) => {
                self.deps.timeline.note("erasing", "This node leaves the pair to be erased.");
                self.begin_leave(LeaveWaiter::Erase(answer));
            }
        }
    }

    /// The other node has taken over, or not.
    pub(super) fn left_for_erase(&mut self, result: Result<(), Refusal>, answer: oneshot::Sender<Reply>) {
        // A leave is also complete when no other node was there to take over.
        let peer_has_all = !self.config.exists() || !self.config.members.has(self.me);
        if result.is_ok() && peer_has_all {
            return self.begin_decommission(answer);
        }
        self.cancel_leave();
        let text = "Nothing was erased: the other node did not take over; look at the status and ask again.";
        let _ = answer.send(Reply::refused(RefusalCode::NoPeer, text));
    }

    /// The step without return. This process ends when the control server has told so; the next one erases.
    fn begin_decommission(&mut self, answer: oneshot::Sender<Reply>) {
        self.servers.clear();
        match erase::begin_decommission(&self.deps.state, self.deps.vms.clone()) {
            Ok(()) => {
                self.decommissioned = true;
                let _ = answer.send(Reply::Done);
            }
            Err(refusal) => drop(answer.send(refusal.into())),
        }
    }
}
