//! Actions that follow from the state after every event: stops of VMs, the end of the peer's fence, a completed leave,
//! the acknowledgement set, alarms.

use super::*;
use crate::event::Action;
use crate::mutants::Mutant;

impl Quorum {
    pub(super) fn settle(&mut self, out: &mut Vec<Action>) {
        self.settle_vms(out);
        if !self.announced.initial_config {
            self.announced.initial_config = true;
            if self.register.base().exists() {
                out.push(Action::Config(self.register.base().clone()));
            }
        }
        self.settle_fence(out);
        self.settle_leave(out);
        let acks = self.ack_set();
        if self.register.base().exists() && self.announced.ack_set != Some(acks) {
            self.announced.ack_set = Some(acks);
            out.push(Action::AckSet(acks));
        }
        self.settle_alarms(out);
    }

    /// Freezes, thaws or kills, so that no VM executes without the right to run.
    pub(super) fn settle_vms(&mut self, out: &mut Vec<Action>) {
        if self.vms.state == VmState::None {
            return;
        }
        if let Some(reason) = self.must_kill() {
            if self.vms.state != VmState::Killing {
                self.vms.state = VmState::Killing;
                out.push(Action::Kill { reason });
            }
            return;
        }
        let may_run = self.may_run(self.now);
        match self.vms.state {
            VmState::Running if !may_run => {
                self.vms.state = VmState::Freezing;
                out.push(Action::Note(Note::LeaseLapsed));
                out.push(Action::Freeze);
            }
            // An earlier daemon may have frozen them, and then nothing else thaws them.
            VmState::Running if std::mem::take(&mut self.vms.maybe_frozen) => out.push(Action::Thaw),
            VmState::Frozen if may_run => {
                self.vms.state = VmState::Running;
                out.push(Action::Note(Note::Resumed));
                out.push(Action::Thaw);
            }
            _ => {}
        }
    }

    /// The reason for which the VMs must be killed: a configuration that is in force, accepted or pending removes this
    /// node, or this node hands over to its peer. `None` = they need not be killed.
    fn must_kill(&self) -> Option<KillReason> {
        let me = self.setup.me;
        let removed = self.with_rights(self.now, |rights| !rights.member(me) || rights.removes(me));
        let handing_over = self.own.leaving
            && self.register.base().members == Members::Both
            && self.peer.alive_since.is_some()
            && self.is_peer_store(self.peer.incarnation());
        if removed { Some(KillReason::Removed) } else { handing_over.then_some(KillReason::Leaving) }
    }

    /// Whether the peer's fence is over, while this node is solo. `None` = no, the peer may run VMs.
    /// `Some(Some(proof))` = a proof ended it. `Some(None)` = its time is over, or no store of the peer is admitted.
    pub(super) fn fence_over(&self) -> Option<Option<Proof>> {
        let reported = self.peer.proof.filter(|_| self.peer.is_dead()).map(|(proof, _)| proof);
        if let Some(proof) = self.leases.proof().or(reported) {
            return Some(Some(proof));
        }
        let no_peer = self.peer_store() == 0;
        let elapsed = self.peer.watchdog_proven && self.now >= self.leases.granted_until();
        (no_peer || elapsed || self.mutants.has(Mutant::NoFenceWait)).then_some(None)
    }

    fn settle_fence(&mut self, out: &mut Vec<Action>) {
        let early = self.mutants.has(Mutant::ActBeforeChosen)
            && self.proposals.active.as_ref().is_some_and(|active| active.why == Reason::PeerSilent);
        if self.register.base().members.solo() != Some(self.setup.me) && !early
            || self.announced.fence == FenceAnnounced::Over
        {
            return;
        }
        match self.fence_over() {
            Some(proof) => {
                self.announced.fence = FenceAnnounced::Over;
                out.push(Action::Note(Note::FenceOver { proof }));
                out.push(Action::PeerVmsAllowed);
            }
            None if self.announced.fence == FenceAnnounced::Nothing => {
                self.announced.fence = FenceAnnounced::Wait;
                let until = self.peer.watchdog_proven.then(|| self.leases.granted_until());
                out.push(Action::Note(Note::FenceWait { until }));
            }
            None => {}
        }
    }

    fn settle_leave(&mut self, out: &mut Vec<Action>) {
        if !self.own.leaving
            || self.announced.leave_done
            || self.vms.state != VmState::None
            || self.register.is_writing()
        {
            return;
        }
        let base = self.register.base();
        let done = match base.members.solo() {
            _ if !base.exists() => true,
            Some(node) if node == self.setup.me => true,
            // A peer that is heard must know the configuration, and with it that no VM runs here, before this node
            // stops.
            Some(_) => {
                self.peer.alive_since.is_none() || self.peer.base().is_some_and(|theirs| theirs.rank() >= base.rank())
            }
            None => false,
        };
        if done {
            self.announced.leave_done = true;
            out.push(Action::LeaveDone);
        }
    }

    fn settle_alarms(&mut self, out: &mut Vec<Action>) {
        let wanted = self.wanted_alarms();
        if wanted == self.announced.alarms {
            return;
        }
        for gone in self.announced.alarms.difference(&wanted) {
            out.push(Action::Clear(*gone));
            if *gone == Alarm::PeerSilent {
                out.push(Action::Note(Note::PeerHeard));
            }
        }
        for new in wanted.difference(&self.announced.alarms) {
            if *new == Alarm::PeerSilent {
                out.push(Action::Note(Note::PeerSilent { last_alive: self.peer.heard_at() }));
            }
            out.push(Action::Alarm(*new));
        }
        self.announced.alarms = wanted;
    }

    fn wanted_alarms(&self) -> BTreeSet<Alarm> {
        let mut alarms = BTreeSet::new();
        let base = self.register.base();
        if !base.exists() {
            return alarms;
        }
        let timing = &self.setup.timing;
        let has_peer = self.peer_store() != 0;
        let listened_for_d = self.now > self.started + timing.detection_delay();
        let silent = self.peer.alive_since.is_none();
        let mut raise = |alarm, condition: bool| {
            if condition {
                alarms.insert(alarm);
            }
        };
        raise(Alarm::PeerSilent, has_peer && silent && (self.peer.lost_at.is_some() || listened_for_d));
        for path in 0..self.peer.path_count() {
            let down = !self.peer.path_up(path, self.now, timing);
            raise(Alarm::PathDown(path as u8), has_peer && listened_for_d && down);
        }
        let unadmitted = !silent && !self.is_peer_store(self.peer.incarnation());
        raise(Alarm::PeerUnadmitted, has_peer && unadmitted);
        raise(Alarm::WitnessLost, self.witness_lost());
        raise(Alarm::WitnessRolledBack, self.witness.rolled_back);
        let tie = base.tie.node().filter(|_| base.members == Members::Both && self.witness_is_enrolled());
        if let Some(node) = tie {
            raise(Alarm::TieAt(node), true);
        }
        raise(Alarm::ClockDrift, self.peer.drifts());
        raise(Alarm::RegisterFailed, self.register_failed());
        raise(Alarm::StorageStuck, !self.own.storage_answers);
        raise(Alarm::PeerUnfenced, has_peer && !self.peer.watchdog_proven);
        raise(Alarm::Conflict, self.register.conflict());
        alarms
    }

    /// Time on this node's clock at which [`Event::Tick`] is due at the latest.
    pub fn next_wakeup(&self) -> BootTime {
        let timing = &self.setup.timing;
        let mut next = self.peer.next_heartbeat();
        let mut at = |time: BootTime| {
            if time > self.now {
                next = next.min(time);
            }
        };
        at(self.leases.until());
        at(self.leases.granted_until());
        at(self.peer.alive_until(timing) + 1);
        at(self.proposals.not_before);
        if self.witness_is_enrolled() {
            at(self.witness.next_read);
        }
        if let Some((from, _, _)) = self.removal_due() {
            at(from);
        }
        if let Some(active) = &self.proposals.active {
            at(active.begun + timing.vote_timeout);
            at(active.sent_at.unwrap_or(self.now) + timing.retry_interval);
        }
        next.max(self.now)
    }
}
