//! Votes on the peer's requests, writes of the record, and the messages and actions that follow a completed write.

use super::*;
use crate::acceptor;
use crate::event::{Action, WriteToken};
use crate::message::{ReplyBody, TryDecide};
use crate::types::MAX_EXCEPTIONS;

impl Quorum {
    /// Votes on a request of the peer, or defers the vote until the VMs have stopped.
    pub(super) fn on_vote_request(&mut self, path: u8, request: &TryDecide, out: &mut Vec<Action>) {
        if request.pair != self.setup.pair
            || request.sender != self.peer_id()
            || request.want.exceptions.len() > MAX_EXCEPTIONS
        {
            return;
        }
        self.register.learn(&request.base);
        if self.register.has_failed() || self.register.is_writing() || self.register.newer().is_some() {
            // Dropped: the peer repeats it, and the write under way may be complete by then.
            return;
        }
        if self.register.conflict() {
            return;
        }
        let mut next = self.register.record().clone();
        let reply = acceptor::try_decide(&mut next, Acceptor::from(self.setup.me), request);
        if next == *self.register.record() {
            out.push(Action::Send { path: Some(path), datagram: self.datagram(DatagramBody::Reply(reply)) });
            return;
        }
        if let ReplyBody::Accepted(_, value) = &reply.body {
            if !self.stopped_for(value) {
                // D1, D2: the VMs stop first. Until then the deferred value restricts this node as an accepted one
                // does.
                let (request, value) = (request.clone(), value.clone());
                self.register.defer(DeferredVote { path, request, value, arrived_at: self.now });
                return;
            }
            self.register.note_acceptance(self.now);
        }
        self.register.take_deferred();
        // The promise to the peer is higher than the ballot of this node's own proposal, which it makes void.
        self.proposals.give_up();
        self.persist(next, AfterPersist::Reply(path, reply), out);
    }

    /// D1 and D2: whether the VMs here are stopped as far as `value` demands before it may be accepted or adopted.
    pub(super) fn stopped_for(&self, value: &Config) -> bool {
        match self.with_rights(self.now, |rights| rights.must_stop(value)) {
            None => true,
            Some(crate::rules::RequiredStop::Kill) => self.vms.state == VmState::None,
            Some(crate::rules::RequiredStop::Freeze) => matches!(self.vms.state, VmState::None | VmState::Frozen),
        }
    }

    pub(super) fn on_nack(&mut self, ballot: Ballot, promised: Ballot) {
        // The lead waits only a fifth, so that two proposers do not overtake each other's ballots again and again.
        let lead = self.register.base().lead == self.setup.me;
        let wait = self.setup.timing.retry_interval / if lead { 5 } else { 1 };
        self.proposals.on_nack(ballot, promised, self.now + wait);
    }

    /// Begins the write of `next`. Precondition: no write is under way and none has failed.
    pub(super) fn persist(&mut self, mut next: AcceptorRecord, then: AfterPersist, out: &mut Vec<Action>) {
        let base = self.register.base();
        let same_witness = next.base.witness == base.witness && next.base.incarnations[2] == base.incarnations[2];
        if same_witness {
            next.witness_changes = next.witness_changes.max(self.witness.witness_changes);
        }
        let token = WriteToken(self.next_id());
        out.push(self.register.begin_write(token, self.now, next, then));
    }

    pub(super) fn on_persisted(&mut self, token: WriteToken, out: &mut Vec<Action>) {
        let Some((old_base, then)) = self.register.complete_write(token) else { return };
        match then {
            AfterPersist::Nothing => {}
            AfterPersist::Reply(path, reply) => {
                out.push(Action::Send { path: Some(path), datagram: self.datagram(DatagramBody::Reply(reply)) });
            }
            AfterPersist::Propose => self.send_proposal(out),
            AfterPersist::Chosen { learned } => self.on_chosen(&old_base, learned, out),
        }
    }

    /// Updates the state after the base has changed from `old`. `learned`: the new base was not decided here.
    fn on_chosen(&mut self, old: &Config, learned: bool, out: &mut Vec<Action>) {
        let base = self.register.base().clone();
        let peer = self.peer_id();
        let peer_voted_for_removal = !learned
            && old.members.has(peer)
            && self.proposals.active.as_ref().is_some_and(|active| {
                active.proposal.target == Acceptor::from(peer)
                    && active.voted.as_ref().is_some_and(|(_, value)| *value == base)
            });
        let peer_has_base = self.peer.base() == Some(&base) && self.is_peer_store(self.peer.incarnation());
        if !base.members.has(peer) && (peer_voted_for_removal || peer_has_base) {
            // D1: the peer stopped its VMs before it voted for its removal or adopted it.
            self.leases.record_proof(Proof::Removed);
        }
        self.register.forget_reached();
        self.register.take_deferred();
        self.proposals.on_chosen(self.now);
        if old.members.has(peer) && !base.members.has(peer) {
            self.replica.removals.add(self.now);
        }
        if base.members != old.members {
            self.replica.progress = ReplicaProgress::Incomplete;
            self.replica.stuck = None;
        }
        if base.witness != old.witness || base.incarnations[2] != old.incarnations[2] {
            self.witness.replaced(self.now, old.exists());
        }
        if base.tie == Acceptor::W {
            if old.tie != Acceptor::W && !self.witness.new {
                self.witness.last_return = Some(self.now);
            }
            self.witness.new = false;
        }
        self.requests.drop_done(&base, self.peer_store());
        if base.members.solo() != Some(self.setup.me) {
            self.announced.fence = FenceAnnounced::Nothing;
        }
        // The new base is sent at once: to the witness with a read, to the peer with a heartbeat.
        self.witness.next_read = self.now;
        self.witness.read = None;
        self.peer.set_next_heartbeat(self.now);
        out.push(Action::Note(Note::Chosen { epoch: base.epoch, members: base.members, tie: base.tie, learned }));
        out.push(Action::Config(base));
    }
}
