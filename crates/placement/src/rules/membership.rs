//! What the updates of the quorum thread and the reports of the mirror mean: the mirror's view, the fail-over of a lost peer,
//! and its readmission.

use super::Placement;
use crate::event::{Action, RightToRun};
use crate::mutants::Mutant;
use crate::parts::{FailOver, view};
use dyad_quorum::{self as quorum, Config, Members};
use dyad_types::BootTime;

/// Shortest time between two requests for the change of a fail-over, in nanoseconds: the document may not be read yet.
const FAIL_OVER_RETRY_DELAY: u64 = 50_000_000;

impl Placement {
    /// The actions at the start of the daemon: the mirror gets its first view and holds guests' requests.
    pub fn begin(&mut self, actions: &mut Vec<Action>) {
        self.announce_view(actions);
        actions.push(Action::Mirror(dyad_mirror::Event::Hold));
    }

    /// Takes over a configuration: ends access to guests' disks if this node is no member of it, tells the mirror, and has
    /// the document read.
    pub(crate) fn set_config(&mut self, now: BootTime, config: Config, actions: &mut Vec<Action>) {
        if config.members != Members::only(self.me) {
            self.membership.peer_vms_allowed = false;
        }
        if !config.members.has(self.me) {
            // The servers end before the mirror refuses the open requests: a guest that still runs must not get an I/O
            // error.
            self.end_all_servers(actions);
            // The pair may change the document while this node is away.
            if self.membership.config.members.has(self.me) && !self.mutants.has(Mutant::KeepDocument) {
                self.document.end_term();
                self.peer_knowledge.awaited.clear();
            }
        }
        self.membership.config = config;
        self.membership.fail_over_decided_at = None;
        self.announce_view(actions);
        self.read_document(now, actions);
    }

    /// Tells the mirror configuration and acknowledging set, as its view.
    fn announce_view(&self, actions: &mut Vec<Action>) {
        let view = view(&self.membership.config, self.membership.ack_set, self.me);
        actions.push(Action::Mirror(dyad_mirror::Event::View(view)));
    }

    pub(crate) fn set_ack_set(&mut self, members: Members, reports: u64, actions: &mut Vec<Action>) {
        self.membership.ack_set = members;
        self.announce_view(actions);
        if self.membership.readmission.on_ack_set(members, reports) {
            actions.push(Action::Quorum(quorum::Event::PeerInAckSet));
        }
    }

    /// Takes the right to run VMs, which the quorum thread has judged after its last kill.
    pub(crate) fn set_right_to_run(&mut self, right: RightToRun, actions: &mut Vec<Action>) {
        self.access.killed = false;
        self.hold(!right.may_run, actions);
        self.membership.right = right;
        self.settle_serving();
    }

    /// Has the mirror hold or resume guests' requests: they wait while this node has no right to run VMs.
    pub(crate) fn hold(&mut self, hold: bool, actions: &mut Vec<Action>) {
        if self.membership.held != hold && !(hold && self.mutants.has(Mutant::NoHold)) {
            self.membership.held = hold;
            let event = if hold { dyad_mirror::Event::Hold } else { dyad_mirror::Event::Resume };
            actions.push(Action::Mirror(event));
        }
    }

    /// Fails the peer's VMs and volumes over to this node, once its fence is over.
    pub(crate) fn fail_over(&mut self, now: BootTime, actions: &mut Vec<Action>) {
        // A peer that was reported clean may become a member at any moment and start the VMs that the document places on
        // it.
        if self.membership.fail_over != FailOver::Idle || self.membership.readmission.clean() {
            return;
        }
        // The change could not be stored.
        if self.lifecycle.pool_has_failed() {
            return;
        }
        if self.membership.fail_over_decided_at.is_some_and(|at| now.since(at) < FAIL_OVER_RETRY_DELAY) {
            return;
        }
        if self.membership.peer_vms_allowed && self.places_something_on_the_peer() && self.leads() {
            self.membership.fail_over = FailOver::InFlight;
            // A refused change is asked for again after a while.
            actions.push(Action::FailOver { survivor: self.me });
        }
    }

    /// Whether the document, which this node has read in this term, names the peer for a VM or a volume.
    fn places_something_on_the_peer(&self) -> bool {
        self.authoritative_document().is_some_and(|document| {
            document.vms.values().any(|vm| vm.config.node != self.me)
                || document.volumes.values().any(|volume| volume.primary != self.me)
        })
    }

    /// Whether this node will ask for a fail-over at the end of the peer's fence, which has an end. After a first change was
    /// decided no more is due: if it was refused, the peer's return must not wait for the next one.
    fn fail_over_is_due(&self) -> bool {
        let fence_ends = self.membership.peer_vms_allowed || self.membership.right.peer_fence_until.is_some();
        fence_ends
            && self.membership.config.members == Members::only(self.me)
            && self.leads()
            && self.membership.fail_over_decided_at.is_none()
            && !self.lifecycle.pool_has_failed()
            && self.places_something_on_the_peer()
    }

    /// Ends the fail-over, whose change is decided, and reports a "clean" of the peer that was deferred.
    pub(crate) fn fail_over_decided(&mut self, now: BootTime, actions: &mut Vec<Action>) {
        self.membership.fail_over_decided_at = Some(now);
        self.membership.fail_over = FailOver::Idle;
        self.report_deferred_clean(actions);
    }

    /// Reports to the quorum machine that the peer's replica is complete, or defers that until a fail-over is decided: a
    /// peer that is reported clean may become a member at any moment and start the VMs that the document places on it,
    /// which are just being failed over to this node. A fail-over that is only due comes first as well: the peer becomes a
    /// member 5 s later at the earliest, after 60 s if it was lost often, and until then its VMs would run on neither node.
    pub(crate) fn peer_is_clean(&mut self, actions: &mut Vec<Action>) {
        self.membership.clean_deferred = true;
        self.report_deferred_clean(actions);
    }

    /// Reports a "clean" of the peer that was deferred, once nothing defers it.
    pub(crate) fn report_deferred_clean(&mut self, actions: &mut Vec<Action>) {
        let in_flight = self.membership.fail_over == FailOver::InFlight;
        let defers = (in_flight || self.fail_over_is_due()) && !self.mutants.has(Mutant::CleanDuringFailOver);
        if self.membership.clean_deferred && !defers {
            self.membership.clean_deferred = false;
            self.membership.readmission.report(true);
            actions.push(Action::Quorum(quorum::Event::PeerClean));
        }
    }

    /// Reports to the quorum machine that the peer's replica is no longer complete. A deferred "clean" is dropped instead,
    /// as the quorum machine has not got it.
    pub(crate) fn peer_is_dirty(&mut self, actions: &mut Vec<Action>) {
        if std::mem::take(&mut self.membership.clean_deferred) {
            return;
        }
        self.membership.readmission.report(false);
        actions.push(Action::Quorum(quorum::Event::PeerDirty));
    }
}
