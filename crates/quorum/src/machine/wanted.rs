//! The change of the configuration that this node wants now, if any.

use super::*;
use crate::types::Nanos;

/// A change of the configuration that this node wants.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct WantedChange {
    pub want: Config,
    pub why: Reason,
    /// The acceptor to ask first.
    pub target: Acceptor,
    /// Whether the other acceptor may be asked if the first one does not answer.
    pub other_allowed: bool,
}

impl Quorum {
    /// The most urgent change wanted now. The same state gives the same change: a proposal for another one is given up.
    pub(super) fn wanted_change(&self) -> Option<WantedChange> {
        let votes = self.register.record().may_vote_as(Acceptor::from(self.setup.me));
        if self.register.has_failed() || self.register.newer().is_some() || self.register.conflict() || !votes {
            return None;
        }
        let base = self.register.base();
        if !base.members.has(self.setup.me) {
            return self.unfinished();
        }
        match base.members {
            Members::Both => self
                .leave()
                .or_else(|| self.remove())
                .or_else(|| self.unfinished())
                .or_else(|| self.enrolment())
                .or_else(|| self.new_exceptions())
                .or_else(|| self.delegate_tie())
                .or_else(|| self.return_tie())
                .or_else(|| self.void_abandoned()),
            _ => self
                .unfinished()
                .or_else(|| self.readmit())
                .or_else(|| self.enrolment())
                .or_else(|| self.new_exceptions()),
        }
    }

    fn change_to(&self, want: Config, why: Reason, target: Acceptor) -> Option<WantedChange> {
        Some(WantedChange { want, why, target, other_allowed: false })
    }

    fn next_config(&self) -> Config {
        let mut want = self.register.base().clone();
        want.epoch.advance();
        want
    }

    /// `{node}` with tie and lead at `node`. Volumes of which only the other node has all data stay excepted.
    fn solo_config(&self, node: NodeId) -> Config {
        let mut want = self.next_config();
        want.members = Members::only(node);
        want.tie = Acceptor::from(node);
        want.lead = node;
        want.exceptions.retain(|exception| exception.holder != node);
        want
    }

    /// Whether the peer is heard, with its admitted store.
    fn peer_may_vote(&self) -> bool {
        self.peer.alive_since.is_some() && self.is_peer_store(self.peer.incarnation())
    }

    fn peer_acceptor(&self) -> Acceptor {
        Acceptor::from(self.peer_id())
    }

    /// A planned leave: the peer goes on alone. Wanted only when no VM is left here.
    fn leave(&self) -> Option<WantedChange> {
        let peer_can_take_over = self.peer.health().is_some_and(|health| health.register_writable && !health.leaving)
            && self.peer.storage_stuck_since().is_none();
        if !self.own.leaving || !self.peer_may_vote() || !peer_can_take_over || self.vms.state != VmState::None {
            return None;
        }
        self.change_to(self.solo_config(self.peer_id()), Reason::Leaving, self.peer_acceptor())
    }

    /// Delay before this node asks for the removal of its peer, so that the two nodes do not ask at the same time.
    fn removal_delay(&self) -> Nanos {
        let timing = &self.setup.timing;
        if !self.own.healthy || !self.own.storage_answers {
            timing.faulty_delay
        } else if self.register.base().lead == self.setup.me || self.peer.is_dead() {
            0
        } else {
            timing.non_lead_delay
        }
    }

    /// Time from which on this node wants to remove its peer, the reason, and the acceptor to ask first.
    pub(super) fn removal_due(&self) -> Option<(BootTime, Reason, Acceptor)> {
        if self.register.base().members != Members::Both || self.own.leaving {
            return None;
        }
        let peer = self.peer_acceptor();
        let delay = self.removal_delay();
        let silent = self.silent_from() + delay;
        if self.peer.alive_since.is_none() {
            return Some((silent, Reason::PeerSilent, Acceptor::W));
        }
        let since = self.peer.alive_since.unwrap_or(self.now);
        if !self.is_peer_store(self.peer.incarnation()) {
            return Some((since + delay, Reason::PeerUnadmitted, Acceptor::W));
        }
        // A node whose own pool does not answer could serve nothing alone, and may see the peer as stuck only because its
        // own pool is: it leaves both judgements to the peer.
        let storage_stuck = self.peer.storage_stuck_since().filter(|_| self.own.storage_answers);
        if let Some(first) = storage_stuck {
            // Both pools may have hung for one reason: the peer gets the time to say that its pool answers again as well.
            let first = first.max(self.own.storage_answers_since + self.setup.timing.stuck_delay);
            return Some((first + delay, Reason::PeerStorage, Acceptor::W));
        }
        if self.peer.health().is_some_and(|health| !health.register_writable) {
            return Some((since + delay, Reason::PeerRegister, Acceptor::W));
        }
        let stuck = self.replica.stuck.filter(|_| self.own.storage_answers);
        stuck.map(|(first, _)| (first + delay + self.setup.timing.stuck_delay, Reason::PeerStuck, peer))
    }

    /// The peer is silent, stuck, has a pool that does not answer, or cannot vote: this node goes on alone.
    fn remove(&self) -> Option<WantedChange> {
        let (from, why, target) = self.removal_due()?;
        if self.now < from {
            return None;
        }
        let want = self.solo_config(self.setup.me);
        // A peer whose register is on the disk that does not answer could not vote: then only the witness is asked.
        let peer_votes = self.peer.health().is_some_and(|health| health.register_writable);
        let other_allowed = why == Reason::PeerStuck || why == Reason::PeerStorage && peer_votes;
        Some(WantedChange { want, why, target, other_allowed })
    }

    /// A value was accepted here: this node decides again, to learn whether it was chosen. It first waits
    /// [`crate::Timing::unfinished_value_delay`] for the proposer to finish, unless this node alone is a quorum.
    fn unfinished(&self) -> Option<WantedChange> {
        let (_, value) = self.register.record().accepted.as_ref()?;
        let own_quorum = self.register.base().is_quorum(&[Acceptor::from(self.setup.me)]);
        if !own_quorum && self.now < self.register.accepted_at() + self.setup.timing.unfinished_value_delay {
            return None;
        }
        let target = if self.peer_may_vote() { self.peer_acceptor() } else { Acceptor::W };
        Some(WantedChange { want: value.clone(), why: Reason::Unfinished, target, other_allowed: true })
    }

    /// The peer's replica is complete and the peer was heard for long enough, or the peer joins with a new store.
    fn readmit(&self) -> Option<WantedChange> {
        let base = self.register.base();
        let incarnation = self.peer.incarnation();
        let joins = self.requests.admit == Some(incarnation) && !self.is_peer_store(incarnation);
        let alive_since = self.peer.alive_since?;
        let stable = joins || self.replica.removals.may_readmit(alive_since..self.now, &self.setup.timing);
        let health = self.peer.health()?;
        let ready = self.replica.progress == ReplicaProgress::InAckSet
            && health.register_writable
            && self.peer.storage_stuck_since().is_none()
            && !health.leaving
            && !self.own.leaving
            && incarnation != 0;
        let has_this_base = self.peer.base() == Some(base);
        if !(stable && ready && has_this_base && (joins || self.is_peer_store(incarnation))) {
            return None;
        }
        let mut want = self.next_config();
        want.members = Members::Both;
        want.incarnations[self.peer_id().index()] = incarnation;
        // D2: without a lease this node keeps the tie, and gives it back in a later change, when the peer has granted a
        // lease.
        let leased = self.leases.leased(self.now + self.setup.timing.detection_delay());
        if self.witness_is_enrolled() && self.witness.holds(base) && leased {
            want.tie = Acceptor::W;
        }
        self.change_to(want, Reason::PeerClean, self.peer_acceptor())
    }

    /// A witness is to be enrolled. The tie goes to it in a later change, once it has learned this configuration.
    fn enrolment(&self) -> Option<WantedChange> {
        let (witness, incarnation) = self.requests.enrol?;
        let base = self.register.base();
        if (base.witness, base.incarnations[2]) == (witness, incarnation) {
            return None;
        }
        let mut want = self.next_config();
        want.witness = witness;
        want.incarnations[2] = incarnation;
        if want.tie == Acceptor::W {
            want.tie = Acceptor::from(base.lead);
        }
        let reachable = base.members != Members::Both || self.peer_may_vote();
        reachable.then(|| self.change_to(want, Reason::Enrol, self.peer_acceptor())).flatten()
    }

    /// The daemon gave a new list of exceptions.
    fn new_exceptions(&self) -> Option<WantedChange> {
        let list = self.requests.exceptions.as_ref().filter(|list| **list != self.register.base().exceptions)?;
        let mut want = self.next_config();
        want.exceptions.clone_from(list);
        let reachable = want.members != Members::Both || self.peer_may_vote();
        reachable.then(|| self.change_to(want, Reason::Exceptions, self.peer_acceptor())).flatten()
    }

    /// Neither node has reached the witness for [`crate::Timing::tie_delegation_delay`]: the lead proposes that it
    /// takes the tie.
    fn delegate_tie(&self) -> Option<WantedChange> {
        let base = self.register.base();
        let after = self.setup.timing.tie_delegation_delay;
        let health = self.peer.health()?;
        let lost_here = self.witness.lost_for(self.now).is_some_and(|lost| lost >= after);
        let lost_there = u64::from(health.witness_lost_ms) >= after / crate::timing::MS;
        let storage_answers = self.own.storage_answers && self.peer.storage_stuck_since().is_none();
        let both_healthy = self.own.healthy
            && health.healthy
            && health.register_writable
            && storage_answers
            && !health.leaving
            && !self.own.leaving;
        let wanted = base.tie == Acceptor::W && base.lead == self.setup.me;
        if !(wanted && lost_here && lost_there && both_healthy && self.peer_may_vote()) {
            return None;
        }
        let mut want = self.next_config();
        want.tie = Acceptor::from(base.lead);
        self.change_to(want, Reason::WitnessLost, self.peer_acceptor())
    }

    /// The witness has answered for [`crate::Timing::tie_return_delay`], or is new, and has learned this configuration:
    /// the node that holds the tie proposes that the witness takes it.
    fn return_tie(&self) -> Option<WantedChange> {
        let base = self.register.base();
        let timing = &self.setup.timing;
        let stable = self.witness.new
            || self.witness.up_for(self.now).is_some_and(|up| up >= timing.tie_return_delay)
                && self.witness.last_return.is_none_or(|last| self.now >= last + timing.tie_return_interval);
        let wanted = base.tie == Acceptor::from(self.setup.me) && self.witness_is_enrolled();
        // D2: without a lease the VMs here would have to stop.
        let leased = self.leases.leased(self.now + timing.detection_delay());
        let agrees = self.peer_may_vote() && self.peer.base() == Some(base);
        if !(wanted && stable && self.witness.holds(base) && leased && agrees && !self.own.leaving) {
            return None;
        }
        let mut want = self.next_config();
        want.tie = Acceptor::W;
        self.change_to(want, Reason::WitnessBack, Acceptor::from(self.setup.me))
    }

    /// An acceptor may have accepted the value of an abandoned proposal, and a later decision would have to take it.
    /// The choice of the next epoch, with the configuration unchanged, makes it void.
    fn void_abandoned(&self) -> Option<WantedChange> {
        let alive_for = self.now - self.peer.alive_since?;
        if !self.proposals.abandoned || !self.peer_may_vote() || alive_for < self.setup.timing.unfinished_value_delay {
            return None;
        }
        self.change_to(self.next_config(), Reason::Abandoned, self.peer_acceptor())
    }
}
