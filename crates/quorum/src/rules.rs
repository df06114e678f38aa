//! The rules that protect the running VMs, as functions of what one node knows.
//!
//! They are separate from [`crate::Quorum`] so that the model checker steps exactly the code that ships. The rules R1,
//! D1 and D2 are explained in `docs/internals/quorum-rules.md`.

use crate::mutants::{Mutant, Mutants};
use crate::types::{Acceptor, AcceptorRecord, Config, Members};
use dyad_types::NodeId;

/// The rights of one node at one time, derived from its record, its lease and the configurations under way.
#[derive(Clone, Copy, Debug)]
pub struct NodeRights<'a> {
    pub me: NodeId,
    /// The durable record.
    pub record: &'a AcceptorRecord,
    /// Configurations that are not in force here but may become so: the active proposal, the target's vote, records
    /// being written or whose write failed, a deferred vote, a newer chosen configuration. They take rights away and
    /// give none.
    pub pending: &'a [Option<&'a Config>],
    /// Whether the lease that the peer granted to this node runs.
    pub leased: bool,
    /// Two different configurations of one epoch were seen in force. Which of them is the right one is not known, so this
    /// node neither runs VMs nor grants until a person has decided.
    pub conflict: bool,
    /// Planted bugs; none outside tests.
    pub mutants: Mutants,
}

/// The stop of this node's VMs that the kernel must have confirmed before a configuration may be accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RequiredStop {
    /// D1: kill them, because the configuration removes this node or its store.
    Kill,
    /// D2: freeze them, because the tie is elsewhere and this node has no lease.
    Freeze,
}

impl NodeRights<'_> {
    /// Whether `node` is a member of the base with an admitted store; this node only with its present store.
    pub fn member(&self, node: NodeId) -> bool {
        let base = &self.record.base;
        base.exists()
            && base.members.has(node)
            && base.incarnations[node.index()] != 0
            && (node != self.me || base.incarnations[node.index()] == self.record.incarnation)
    }

    /// Every configuration that, as far as this node knows, is or may become the successor of the base.
    fn next(&self) -> impl Iterator<Item = &Config> {
        self.record.accepted.iter().map(|(_, value)| value).chain(self.pending.iter().copied().flatten())
    }

    /// Whether a configuration that was accepted, proposed or heard of here removes `node`.
    pub fn removes(&self, node: NodeId) -> bool {
        self.next().any(|value| !value.members.has(node))
    }

    /// R1: whether the base gives this node the tie, and no configuration accepted, proposed or heard of here moves it
    /// away. Then this node needs no lease.
    pub fn tie_firm(&self) -> bool {
        let me = Acceptor::from(self.me);
        let tie_stays = self.mutants.has(Mutant::NoR1) || self.next().all(|value| value.tie == me);
        self.record.base.tie == me && tie_stays
    }

    /// Whether VMs of this node may execute now.
    pub fn may_run(&self) -> bool {
        let early = self.mutants.has(Mutant::ActBeforeChosen)
            && self.next().any(|value| value.members == Members::only(self.me));
        let voted = self.tie_firm() || self.leased || early;
        self.member(self.me) && !self.removes(self.me) && !self.conflict && voted
    }

    /// Whether this node may grant its peer a lease; `theirs` is the base in the peer's heartbeat.
    pub fn may_grant(&self, theirs: &Config) -> bool {
        let peer = self.me.peer();
        let mine = &self.record.base;
        !self.conflict
            && mine == theirs
            && self.record.may_vote_as(Acceptor::from(self.me))
            && self.member(peer)
            && !self.removes(peer)
    }

    /// The nodes that must hold a write before it is acknowledged. `readding`: the peer's replica is clean, and the
    /// peer is about to become a member.
    pub fn ack_set(&self, readding: bool) -> Members {
        let mut set = self.record.base.members;
        if self.mutants.has(Mutant::SoloAckEarly) && self.next().any(|value| value.members == Members::only(self.me)) {
            return Members::only(self.me);
        }
        for value in self.next() {
            set = set.union(value.members);
        }
        if readding { set.with(self.me.peer()) } else { set }
    }

    /// D1, D2: the stop that VMs of this node need before `value` is accepted or adopted here; `None` = they may go on.
    pub fn must_stop(&self, value: &Config) -> Option<RequiredStop> {
        if !value.members.has(self.me) || value.incarnations[self.me.index()] != self.record.incarnation {
            return Some(RequiredStop::Kill);
        }
        let unleased = value.tie != Acceptor::from(self.me) && !self.leased;
        (unleased && !self.mutants.has(Mutant::NoD2)).then_some(RequiredStop::Freeze)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::record;
    use crate::types::{Acceptor, Ballot};
    use dyad_types::Epoch;

    fn rights<'a>(record: &'a AcceptorRecord, pending: &'a [Option<&'a Config>], leased: bool) -> NodeRights<'a> {
        NodeRights { me: NodeId::A, record, pending, leased, conflict: false, mutants: Mutants::NONE }
    }

    fn solo(record: &AcceptorRecord, node: NodeId) -> Config {
        let epoch = record.base.epoch.next();
        Config { epoch, members: Members::only(node), tie: Acceptor::from(node), lead: node, ..record.base.clone() }
    }

    #[test]
    fn a_node_runs_by_lease_or_by_the_tie() {
        assert!(!rights(&record(Acceptor::W), &[], false).may_run());
        assert!(rights(&record(Acceptor::W), &[], true).may_run());
        assert!(rights(&record(Acceptor::A), &[], false).may_run());
        assert!(!rights(&record(Acceptor::B), &[], false).may_run());
    }

    /// Neither the tie nor a lease says which of two configurations of one epoch is the right one.
    #[test]
    fn a_conflict_ends_the_right_to_run_and_the_grants() {
        let record = record(Acceptor::A);
        for leased in [false, true] {
            let rights = NodeRights { conflict: true, ..rights(&record, &[], leased) };
            assert!(!rights.may_run() && !rights.may_grant(&record.base));
        }
    }

    #[test]
    fn r1_an_accepted_value_that_moves_the_tie_ends_the_right_of_the_tie_holder() {
        let mut record = record(Acceptor::A);
        let moved = Config { epoch: Epoch(2), tie: Acceptor::W, ..record.base.clone() };
        record.accepted = Some((Ballot { round: 1, node: NodeId::B }, moved));
        assert!(!rights(&record, &[], false).tie_firm());
        assert!(!rights(&record, &[], false).may_run());
        assert!(rights(&record, &[], true).may_run());
        // An accepted value that gives the tie gives no right: the base decides.
        let mut record = self::record(Acceptor::W);
        let gained = Config { epoch: Epoch(2), tie: Acceptor::A, ..record.base.clone() };
        record.accepted = Some((Ballot { round: 1, node: NodeId::B }, gained));
        assert!(!rights(&record, &[], false).may_run());
    }

    #[test]
    fn a_pending_removal_ends_the_right_to_run_and_the_grants() {
        let record = record(Acceptor::A);
        let removal = solo(&record, NodeId::B);
        assert!(!rights(&record, &[Some(&removal)], true).may_run());
        let base = record.base.clone();
        assert!(rights(&record, &[], false).may_grant(&base));
        let own = solo(&record, NodeId::A);
        assert!(!rights(&record, &[Some(&own)], false).may_grant(&base));
        assert!(!rights(&record, &[], false).may_grant(&own), "the bases differ");
        let mut other_store = record.clone();
        other_store.incarnation = 5;
        assert!(!rights(&other_store, &[], true).may_run());
        assert!(!rights(&other_store, &[], true).may_grant(&base));
    }

    #[test]
    fn d1_demands_a_kill_and_d2_a_freeze() {
        let record = record(Acceptor::A);
        let removal = solo(&record, NodeId::B);
        assert_eq!(rights(&record, &[], true).must_stop(&removal), Some(RequiredStop::Kill));
        let moved = Config { epoch: Epoch(2), tie: Acceptor::W, ..record.base.clone() };
        assert_eq!(rights(&record, &[], false).must_stop(&moved), Some(RequiredStop::Freeze));
        assert_eq!(rights(&record, &[], true).must_stop(&moved), None);
        assert_eq!(rights(&record, &[], false).must_stop(&solo(&record, NodeId::A)), None);
    }

    #[test]
    fn the_acknowledgement_set_shrinks_only_with_the_base() {
        let record = record(Acceptor::W);
        let own = solo(&record, NodeId::A);
        assert_eq!(rights(&record, &[Some(&own)], true).ack_set(false), Members::Both);
        let mut alone = record.clone();
        alone.adopt(own);
        assert_eq!(rights(&alone, &[], false).ack_set(false), Members::OnlyA);
        assert_eq!(rights(&alone, &[], false).ack_set(true), Members::Both);
        let back = Config { epoch: Epoch(3), members: Members::Both, ..alone.base.clone() };
        assert_eq!(rights(&alone, &[Some(&back)], false).ack_set(false), Members::Both);
    }
}
