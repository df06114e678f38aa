//! Votes: given to the peer, received from an acceptor, and what follows once a record is durable.

use super::*;
use crate::acceptor;
use crate::event::Action;
use crate::message::Verdict;
use crate::types::MAX_EXCEPTIONS;

impl Quorum {
    /// The peer asks for a vote.
    pub(super) fn on_ask(&mut self, path: u8, ask: &TryDecide, out: &mut Vec<Action>) {
        if ask.pair != self.setup.pair || ask.sender != self.peer_id() || ask.want.exceptions.len() > MAX_EXCEPTIONS {
            return;
        }
        self.consider(&ask.base);
        if self.failed.is_some() || self.write.is_some() || self.heard.is_some() {
            // Repeated by the peer; until then the newer base or the other record is durable.
            return;
        }
        let mut next = self.record.clone();
        let answer = acceptor::try_decide(&mut next, Acceptor::from(self.setup.me), ask);
        if next == self.record {
            out.push(Action::Send { path: Some(path), datagram: self.datagram(Body::Answer(answer)) });
            return;
        }
        if let Verdict::Accepted(_, value) = &answer.verdict {
            if !self.stopped_for(value) {
                // D1, D2: first stop. While it is remembered here it forbids like an accepted value.
                self.asked = Some(Asked { path, ask: ask.clone(), value: value.clone(), at: self.now });
                return;
            }
            self.accepted_at = self.now;
        }
        self.asked = None;
        // Whatever is voted for, an own ballot below it is void.
        self.drop_active();
        self.persist(next, AfterPersist::Answer(path, answer), out);
    }

    /// D1 and D2: whether the VMs here are as `value` demands before it may be accepted or taken over.
    pub(super) fn stopped_for(&self, value: &Config) -> bool {
        match self.with_view(self.now, |view| view.must_stop(value)) {
            None => true,
            Some(crate::rules::Stop::Kill) => self.vms == Vms::None,
            Some(crate::rules::Stop::Freeze) => matches!(self.vms, Vms::None | Vms::Frozen),
        }
    }

    pub(super) fn on_accepted(&mut self, from: Acceptor, ballot: Ballot, value: &Config) {
        if let Some(active) = &mut self.active
            && active.proposal.target == from
            && active.proposal.ask.ballot == ballot
            && active.sent_at.is_some()
        {
            active.voted = Some((ballot, value.clone()));
        }
    }

    pub(super) fn on_nack(&mut self, ballot: Ballot, promised: Ballot) {
        if self.active.as_ref().is_some_and(|active| active.proposal.ask.ballot == ballot && active.voted.is_none()) {
            self.active = None;
            self.above = self.above.max(promised);
            // Two that outbid each other must not do so in step.
            let timing = &self.setup.timing;
            let preferred = self.record.base.lead == self.setup.me;
            self.not_before = self.now + timing.retry / if preferred { 5 } else { 1 };
        }
    }

    /// Forgets the own proposal, as a restart would.
    pub(super) fn drop_active(&mut self) {
        if let Some(active) = self.active.take() {
            self.abandoned |= active.sent_at.is_some();
        }
    }

    pub(super) fn persist(&mut self, mut next: Record, then: AfterPersist, out: &mut Vec<Action>) {
        debug_assert!(self.write.is_none() && self.failed.is_none());
        let same_witness = next.base.witness == self.record.base.witness
            && next.base.incarnations[2] == self.record.base.incarnations[2];
        if same_witness {
            next.mark = next.mark.max(self.witness.seen);
        }
        let token = self.number();
        out.push(Action::Persist { token, record: next.clone() });
        self.write = Some(Write { token, begun: self.now, next, then });
    }

    pub(super) fn on_persisted(&mut self, token: u64, out: &mut Vec<Action>) {
        let Some(write) = self.write.take_if(|write| write.token == token) else { return };
        let old = std::mem::replace(&mut self.record, write.next);
        match write.then {
            AfterPersist::Nothing => {}
            AfterPersist::Answer(path, answer) => {
                out.push(Action::Send { path: Some(path), datagram: self.datagram(Body::Answer(answer)) });
            }
            AfterPersist::Propose => self.send_ask(out),
            AfterPersist::Chosen { learned } => self.on_chosen(&old.base, learned, out),
        }
    }

    fn on_chosen(&mut self, old: &Config, learned: bool, out: &mut Vec<Action>) {
        let base = self.record.base.clone();
        let peer = self.peer_id();
        let voted_itself_out = !learned
            && old.members.has(peer)
            && self.active.as_ref().is_some_and(|active| {
                active.proposal.target == Acceptor::from(peer)
                    && active.voted.as_ref().is_some_and(|(_, value)| *value == base)
            });
        let knows = self.peer.base() == Some(&base) && self.is_peer_store(self.peer.incarnation());
        if !base.members.has(peer) && (voted_itself_out || knows) {
            // Before it voted for its removal or took it over, it stopped its VMs.
            self.leases.prove(Proof::Removed);
        }
        if self.heard.as_ref().is_some_and(|heard| heard.rank() <= base.rank()) {
            self.heard = None;
        }
        self.active = None;
        self.asked = None;
        self.abandoned = false;
        self.above = Ballot::ZERO;
        self.swap_target = false;
        self.not_before = self.now;
        if old.members.has(peer) && !base.members.has(peer) {
            self.losses.note(self.now);
        }
        if base.members != old.members {
            self.clean = Clean::No;
            self.stuck = None;
        }
        if base.members == Members::Both && self.is_peer_store(self.admitted.unwrap_or(0)) {
            self.admitted = None;
        }
        if base.witness != old.witness || base.incarnations[2] != old.incarnations[2] {
            self.witness.replaced(self.now);
            self.fresh_witness = old.exists();
        }
        if base.tie == Acceptor::W {
            if old.tie != Acceptor::W && !self.fresh_witness {
                self.last_return = Some(self.now);
            }
            self.fresh_witness = false;
        }
        if self.enrol == Some((base.witness, base.incarnations[2])) {
            self.enrol = None;
        }
        if self.exceptions.as_ref() == Some(&base.exceptions) {
            self.exceptions = None;
        }
        if base.members.solo() != Some(self.setup.me) {
            self.fence_told = false;
            self.fence_noted = false;
        }
        // Gossip at once: to the witness by a read, to the peer by a heartbeat.
        self.witness.next_read = self.now;
        self.witness.read = None;
        self.next_heartbeat = self.now;
        out.push(Action::Note(Note::Chosen { epoch: base.epoch, members: base.members, tie: base.tie, learned }));
        out.push(Action::Config(base));
    }
}
