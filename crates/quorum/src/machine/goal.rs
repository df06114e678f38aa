//! Which change of configuration is wanted now, if any.

use super::*;
use crate::types::Nanos;
use dyad_types::NodeId;

/// A wanted change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Goal {
    pub want: Config,
    pub why: Reason,
    /// The acceptor to ask first.
    pub target: Acceptor,
    /// Whether the other acceptor will do as well.
    pub swap: bool,
}

impl Quorum {
    /// The most urgent change wanted now. Deterministic, and stable while nothing changes: a proposal whose goal is
    /// no longer this one is given up.
    pub(super) fn goal(&self) -> Option<Goal> {
        if self.failed.is_some() || self.heard.is_some() || !self.record.votes(Acceptor::from(self.setup.me)) {
            return None;
        }
        let base = &self.record.base;
        if !base.members.has(self.setup.me) {
            return self.unfinished();
        }
        match base.members {
            Members::Both => self
                .leave()
                .or_else(|| self.remove())
                .or_else(|| self.unfinished())
                .or_else(|| self.enrolment())
                .or_else(|| self.excepted())
                .or_else(|| self.delegate())
                .or_else(|| self.give_back())
                .or_else(|| self.clear_up()),
            _ => self.unfinished().or_else(|| self.readmit()).or_else(|| self.enrolment()).or_else(|| self.excepted()),
        }
    }

    fn goal_of(&self, want: Config, why: Reason, target: Acceptor) -> Option<Goal> {
        Some(Goal { want, why, target, swap: false })
    }

    fn next_config(&self) -> Config {
        let mut want = self.record.base.clone();
        want.epoch += 1;
        want
    }

    /// `{node}` with the tie and the lead at it. Volumes that only the other one held stay excepted.
    fn solo_config(&self, node: NodeId) -> Config {
        let mut want = self.next_config();
        want.members = Members::only(node);
        want.tie = Acceptor::from(node);
        want.lead = node;
        want.exceptions.retain(|exception| exception.holder != node);
        want
    }

    fn peer_in_sync(&self) -> bool {
        self.peer.alive_since.is_some() && self.is_peer_store(self.peer.incarnation())
    }

    fn peer_acceptor(&self) -> Acceptor {
        Acceptor::from(self.peer_id())
    }

    /// A planned leave: the peer goes on alone. Only once nothing runs here.
    fn leave(&self) -> Option<Goal> {
        let register = self.peer.health().is_some_and(|health| health.register && !health.leaving);
        if !self.leaving || !self.peer_in_sync() || !register || self.vms != Vms::None {
            return None;
        }
        self.goal_of(self.solo_config(self.peer_id()), Reason::Leaving, self.peer_acceptor())
    }

    /// How long this node holds back before it asks for the removal of its peer.
    fn preference_delay(&self) -> Nanos {
        let timing = &self.setup.timing;
        if !self.healthy {
            timing.delay_faulty
        } else if self.record.base.lead == self.setup.me || self.peer_is_dead() {
            0
        } else {
            timing.delay_other
        }
    }

    /// Somebody said that the peer is dead and it was not heard since.
    pub(super) fn peer_is_dead(&self) -> bool {
        self.peer.alive_since.is_none() && self.peer_proof.is_some_and(|(_, at)| at >= self.peer.heard_at())
    }

    /// The peer is to be removed since this time, why, and who should be asked first.
    pub(super) fn remove_from(&self) -> Option<(Time, Reason, Acceptor)> {
        if self.record.base.members != Members::Both || self.leaving {
            return None;
        }
        let peer = self.peer_acceptor();
        let delay = self.preference_delay();
        let silent = self.silent_from() + delay;
        if self.peer.alive_since.is_none() {
            return Some((silent, Reason::PeerSilent, Acceptor::W));
        }
        let since = self.peer.alive_since.unwrap_or(self.now);
        if !self.is_peer_store(self.peer.incarnation()) {
            return Some((since + delay, Reason::PeerUnadmitted, Acceptor::W));
        }
        if self.peer.health().is_some_and(|health| !health.register) {
            return Some((since + delay, Reason::PeerRegister, Acceptor::W));
        }
        self.stuck.map(|(first, _)| (first + delay, Reason::PeerStuck, peer))
    }

    fn remove(&self) -> Option<Goal> {
        let (from, why, target) = self.remove_from()?;
        if self.now < from {
            return None;
        }
        let want = self.solo_config(self.setup.me);
        let swap = why == Reason::PeerStuck;
        Some(Goal { want, why, target, swap })
    }

    /// A value was accepted here: decide again, to learn whether it was chosen.
    fn unfinished(&self) -> Option<Goal> {
        let (_, value) = self.record.accepted.as_ref()?;
        let own_quorum = self.record.base.quorum(&[Acceptor::from(self.setup.me)]);
        if !own_quorum && self.now < self.accepted_at + self.setup.timing.unfinished_after {
            return None;
        }
        let target = if self.peer_in_sync() { self.peer_acceptor() } else { Acceptor::W };
        Some(Goal { want: value.clone(), why: Reason::Unfinished, target, swap: true })
    }

    /// The peer is clean and was stable for long enough, or joins.
    fn readmit(&self) -> Option<Goal> {
        let base = &self.record.base;
        let incarnation = self.peer.incarnation();
        let joins = self.admitted == Some(incarnation) && !self.is_peer_store(incarnation);
        let alive_since = self.peer.alive_since?;
        let stable = joins || self.losses.may_readmit(alive_since, self.now, &self.setup.timing);
        let health = self.peer.health()?;
        let ready =
            self.clean == Clean::Acked && health.register && !health.leaving && !self.leaving && incarnation != 0;
        let follows = self.peer.base() == Some(base);
        if !(stable && ready && follows && (joins || self.is_peer_store(incarnation))) {
            return None;
        }
        let mut want = self.next_config();
        want.members = Members::Both;
        want.incarnations[self.peer_id().index()] = incarnation;
        // D2: a peer that could not grant a lease so far leaves the tie here for a moment.
        let leased = self.leases.leased(self.now + self.setup.timing.detection());
        if self.witness_is_enrolled() && self.witness.holds(base) && leased {
            want.tie = Acceptor::W;
        }
        self.goal_of(want, Reason::PeerClean, self.peer_acceptor())
    }

    /// The witness to be enrolled becomes the one of the configuration; the tie goes to it once it has learned that.
    fn enrolment(&self) -> Option<Goal> {
        let (witness, incarnation) = self.enrol?;
        let base = &self.record.base;
        if (base.witness, base.incarnations[2]) == (witness, incarnation) {
            return None;
        }
        let mut want = self.next_config();
        want.witness = witness;
        want.incarnations[2] = incarnation;
        if want.tie == Acceptor::W {
            want.tie = Acceptor::from(base.lead);
        }
        let reachable = base.members != Members::Both || self.peer_in_sync();
        reachable.then(|| self.goal_of(want, Reason::Enrol, self.peer_acceptor())).flatten()
    }

    fn excepted(&self) -> Option<Goal> {
        let list = self.exceptions.as_ref().filter(|list| **list != self.record.base.exceptions)?;
        let mut want = self.next_config();
        want.exceptions.clone_from(list);
        let reachable = want.members != Members::Both || self.peer_in_sync();
        reachable.then(|| self.goal_of(want, Reason::Exceptions, self.peer_acceptor())).flatten()
    }

    /// Nobody reaches the witness: both agree on who survives the other. The lead proposes.
    fn delegate(&self) -> Option<Goal> {
        let base = &self.record.base;
        let after = self.setup.timing.delegate_after;
        let health = self.peer.health()?;
        let lost_here = self.witness.lost_for(self.now).is_some_and(|lost| lost >= after);
        let lost_there = u64::from(health.witness_lost_ms) >= after / crate::timing::MS;
        let both_well = self.healthy && health.well && health.register && !health.leaving && !self.leaving;
        let wanted = base.tie == Acceptor::W && base.lead == self.setup.me;
        if !(wanted && lost_here && lost_there && both_well && self.peer_in_sync()) {
            return None;
        }
        let mut want = self.next_config();
        want.tie = Acceptor::from(base.lead);
        self.goal_of(want, Reason::WitnessLost, self.peer_acceptor())
    }

    /// The witness is back for good and knows this configuration: it gets the tie again. The holder proposes.
    fn give_back(&self) -> Option<Goal> {
        let base = &self.record.base;
        let timing = &self.setup.timing;
        let stable = self.fresh_witness
            || self.witness.up_for(self.now).is_some_and(|up| up >= timing.return_after)
                && self.last_return.is_none_or(|last| self.now >= last + timing.return_gap);
        let wanted = base.tie == Acceptor::from(self.setup.me) && self.witness_is_enrolled();
        // D2: without a lease the VMs here would have to stop.
        let leased = self.leases.leased(self.now + timing.detection());
        let agrees = self.peer_in_sync() && self.peer.base() == Some(base);
        if !(wanted && stable && self.witness.holds(base) && leased && agrees && !self.leaving) {
            return None;
        }
        let mut want = self.next_config();
        want.tie = Acceptor::W;
        self.goal_of(want, Reason::WitnessBack, Acceptor::from(self.setup.me))
    }

    /// A proposal given up may lie at an acceptor and surprise a later decision. The next epoch makes it void.
    fn clear_up(&self) -> Option<Goal> {
        let alive_for = self.now - self.peer.alive_since?;
        if !self.abandoned || !self.peer_in_sync() || alive_for < self.setup.timing.unfinished_after {
            return None;
        }
        self.goal_of(self.next_config(), Reason::Abandoned, self.peer_acceptor())
    }
}
