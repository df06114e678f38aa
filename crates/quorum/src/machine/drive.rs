//! Decisions: begins, repeats, concludes and gives up proposals, and adopts newer configurations.

use super::wanted::WantedChange;
use super::*;
use crate::event::Action;
use crate::message::{WitnessRequest, WitnessRequestId};
use crate::proposer::{self, DecisionInput, FirstStep};

impl Quorum {
    /// Takes each step of a decision that is possible without another event; sends heartbeats and reads that are due.
    pub(super) fn drive(&mut self, out: &mut Vec<Action>) {
        self.send_due(out);
        if self.register.has_failed() || self.register.is_writing() {
            return;
        }
        self.adopt_newer(out);
        self.retry_deferred(out);
        self.conclude(out);
        let idle = !self.register.is_writing() && self.register.newer().is_none() && self.register.deferred().is_none();
        if idle {
            self.propose(out);
        }
        let count_is_newer = self.witness.witness_changes > self.register.record().witness_changes
            && self.witness.lost_for(self.now).is_none();
        if count_is_newer && !self.register.is_writing() {
            // The number of witness changes is made durable, so that a witness rolled back while this node is off is
            // detected.
            self.persist(self.register.record().clone(), AfterPersist::Nothing, out);
        }
    }

    /// Begins the write that makes a newer chosen configuration the base, once the VMs are stopped as D1 and D2 demand;
    /// without one, the write of a forced configuration.
    fn adopt_newer(&mut self, out: &mut Vec<Action>) {
        self.register.forget_reached();
        if let Some(newer) = self.register.newer() {
            // After a conflict a configuration that was heard before it may be that of the wrong copy as well.
            if self.stopped_for(newer) && !self.register.conflict() {
                let mut next = self.register.record().clone();
                next.adopt(newer.clone());
                self.persist(next, AfterPersist::Chosen { learned: true }, out);
            }
            return;
        }
        if std::mem::take(&mut self.requests.force) {
            let me = self.setup.me;
            let base = self.register.base();
            let mut forced = Config::first(me, self.register.record().incarnation);
            forced.epoch = base.epoch.next();
            forced.lineage = base.lineage + 1;
            forced.witness = base.witness;
            forced.incarnations[2] = base.incarnations[2];
            let mut next = self.register.record().clone();
            next.adopt(forced);
            self.persist(next, AfterPersist::Chosen { learned: false }, out);
        }
    }

    /// Gives the deferred vote once the VMs have stopped; drops it after 4 × [`crate::Timing::vote_timeout`].
    fn retry_deferred(&mut self, out: &mut Vec<Action>) {
        let Some(vote) = self.register.deferred() else { return };
        if self.now >= vote.arrived_at + 4 * self.setup.timing.vote_timeout {
            self.register.take_deferred();
        } else if !self.register.is_writing()
            && self.stopped_for(&vote.value)
            && let Some(DeferredVote { path, request, .. }) = self.register.take_deferred()
        {
            self.on_vote_request(path, &request, out);
        }
    }

    /// After the vote of the target: waits for D1 and D2, then writes this node's own vote, which completes the quorum.
    fn conclude(&mut self, out: &mut Vec<Action>) {
        let Some(active) = &self.proposals.active else { return };
        let Some((ballot, value)) = &active.voted else { return };
        if self.register.is_writing() || self.register.conflict() {
            return;
        }
        match proposer::conclude(self.register.record(), &active.proposal, *ballot, value) {
            None => self.proposals.give_up(),
            Some(next) => {
                if self.stopped_for(value) {
                    self.persist(next, AfterPersist::Chosen { learned: false }, out);
                }
            }
        }
    }

    /// Repeats the active proposal while its change is wanted; else gives it up and begins a proposal of the wanted
    /// change.
    fn propose(&mut self, out: &mut Vec<Action>) {
        let change = self.wanted_change();
        if let Some(active) = &self.proposals.active {
            if active.voted.is_some() {
                return;
            }
            let wanted = change
                .as_ref()
                .is_some_and(|change| change.why == active.why && change.want == active.proposal.request.want);
            let in_time = !change.as_ref().is_some_and(|change| change.other_allowed)
                || self.now < active.begun + self.setup.timing.vote_timeout;
            if wanted && in_time {
                self.repeat(out);
                return;
            }
            // If the change is still wanted, the target did not answer in time: the next ballot goes to the other
            // acceptor.
            self.proposals.try_other = wanted && !self.proposals.try_other;
            self.proposals.give_up();
        }
        match change {
            Some(change) if self.now >= self.proposals.not_before => self.begin(change, out),
            _ => {}
        }
    }

    fn begin(&mut self, change: WantedChange, out: &mut Vec<Action>) {
        let WantedChange { want, why, target, other_allowed } = change;
        let me = Acceptor::from(self.setup.me);
        // Not every change allows the other acceptor: a silent peer must not accept its own removal when it returns.
        let other = if target == Acceptor::W { Acceptor::from(self.peer_id()) } else { Acceptor::W };
        let completes_quorum = |target: Acceptor| self.register.base().is_quorum(&[me, target]);
        let swap = other_allowed && completes_quorum(other) && (self.proposals.try_other || !completes_quorum(target));
        let target = if swap { other } else { target };
        let input = DecisionInput {
            me: self.setup.me,
            pair: self.setup.pair,
            want,
            target,
            ballot_floor: self.proposals.ballot_floor,
            witness_changes: self.witness.witness_changes,
            record: self.register.record(),
        };
        let epoch = self.register.base().epoch.next();
        match proposer::begin_decision(input) {
            // D1, D2: a decision that this node makes alone is delayed until its VMs are stopped as the new base
            // demands.
            Some(FirstStep::DecideAlone(next)) if self.stopped_for(&next.base) => {
                out.push(Action::Note(Note::Deciding { epoch, why, target: me }));
                self.persist(next, AfterPersist::Chosen { learned: false }, out);
            }
            None | Some(FirstStep::DecideAlone(_)) => {}
            Some(FirstStep::AskTarget(proposal, next)) => {
                out.push(Action::Note(Note::Deciding { epoch, why, target }));
                let request_id = WitnessRequestId(self.next_id());
                self.proposals.active = Some(ActiveProposal {
                    proposal: *proposal,
                    why,
                    begun: self.now,
                    sent_at: None,
                    request_id,
                    waiting: false,
                    relayed: false,
                    voted: None,
                });
                self.persist(next, AfterPersist::Propose, out);
            }
        }
    }

    /// Sends the active proposal. Precondition: its promise is durable here.
    pub(super) fn send_proposal(&mut self, out: &mut Vec<Action>) {
        let now = self.now;
        let Some(active) = &mut self.proposals.active else { return };
        active.sent_at = Some(now);
        active.waiting = active.proposal.target == Acceptor::W;
        let request = active.proposal.request.clone();
        if active.proposal.target == Acceptor::W {
            out.push(Action::AskWitness { id: active.request_id, request: WitnessRequest::TryDecide(request) });
        } else {
            out.push(Action::Send { path: None, datagram: self.datagram(DatagramBody::TryDecide(request)) });
        }
    }

    fn repeat(&mut self, out: &mut Vec<Action>) {
        let timing = &self.setup.timing;
        // The daemon reports the result of a request to the witness; the loss of a datagram is not reported.
        let due = |active: &ActiveProposal| {
            let pause = if active.waiting { 3 * timing.vote_timeout } else { timing.retry_interval };
            active.sent_at.is_some_and(|sent| self.now >= sent + pause)
        };
        if self.proposals.active.as_ref().is_some_and(due) {
            self.send_proposal(out);
            if self.proposals.active.as_ref().is_some_and(|active| active.relayed) {
                self.relay(out);
            }
        }
    }

    /// Asks the peer to pass the proposal on to the witness, if the peer reaches it.
    pub(super) fn relay(&mut self, out: &mut Vec<Action>) {
        let reaches = self.peer.health().is_some_and(|health| health.witness_lost_ms == 0);
        if !reaches || self.peer.alive_since.is_none() {
            return;
        }
        let Some(active) = &mut self.proposals.active else { return };
        active.relayed = true;
        let request = WitnessRequest::TryDecide(active.proposal.request.clone());
        let body = DatagramBody::Relay(active.request_id, request);
        out.push(Action::Send { path: None, datagram: self.datagram(body) });
    }
}
