//! The rules that protect the running VMs, as functions of what one node knows.
//!
//! They are apart from the machine so that the model checker steps exactly what ships.

use crate::mutants::{Mutant, Mutants};
use crate::types::{Config, Members, NodeId, Record};

/// All that decides on the rights of one node at one moment.
#[derive(Clone, Copy, Debug)]
pub struct View<'a> {
    /// Whose view this is.
    pub me: NodeId,
    /// The durable record.
    pub record: &'a Record,
    /// Configurations under way here: the own proposal, a value being made durable, a chosen one just heard of.
    /// They can only take rights away, never give any.
    pub pending: &'a [Option<&'a Config>],
    /// Whether a lease of the peer runs.
    pub leased: bool,
    /// Planted bugs; none outside tests.
    pub mutants: Mutants,
}

/// What must happen to the VMs here before a configuration may be accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stop {
    /// D1: it removes this node. Kill them.
    Kill,
    /// D2: the tie would leave a node that runs without a lease. Freeze them.
    Freeze,
}

impl View<'_> {
    /// Whether the base has `node`, with a store that was admitted.
    pub fn member(&self, node: NodeId) -> bool {
        let base = &self.record.base;
        base.exists()
            && base.members.has(node)
            && base.incarnations[node.index()] != 0
            && (node != self.me || base.incarnations[node.index()] == self.record.incarnation)
    }

    /// Everything that may become or already is the next configuration, as far as this node knows.
    fn next(&self) -> impl Iterator<Item = &Config> {
        self.record.accepted.iter().map(|(_, value)| value).chain(self.pending.iter().copied().flatten())
    }

    /// Whether something accepted, proposed or heard here removes `node`.
    pub fn removes(&self, node: NodeId) -> bool {
        self.next().any(|value| !value.members.has(node))
    }

    /// R1: the tie is here, and nothing accepted here moves it away.
    pub fn tie_firm(&self) -> bool {
        let seat = self.me.seat();
        let obeyed = self.mutants.has(Mutant::NoR1) || self.next().all(|value| value.tie == seat);
        self.record.base.tie == seat && obeyed
    }

    /// Whether VMs of this node may execute now.
    pub fn may_run(&self) -> bool {
        let early = self.mutants.has(Mutant::ActBeforeChosen)
            && self.next().any(|value| value.members == Members::only(self.me));
        self.member(self.me) && !self.removes(self.me) && (self.tie_firm() || self.leased || early)
    }

    /// Whether the peer may be granted a lease; `theirs` is the base its heartbeat carries.
    pub fn may_grant(&self, theirs: &Config) -> bool {
        let peer = self.me.peer();
        let mine = &self.record.base;
        mine == theirs && self.record.votes(self.me.seat()) && self.member(peer) && !self.removes(peer)
    }

    /// Who must hold a write before it is acknowledged; `readding`: the peer is clean and about to become a member.
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

    /// What must be done to executing VMs before `value` is accepted or taken over here.
    pub fn must_stop(&self, value: &Config) -> Option<Stop> {
        if !value.members.has(self.me) || value.incarnations[self.me.index()] != self.record.incarnation {
            return Some(Stop::Kill);
        }
        let unleased = value.tie != self.me.seat() && !self.leased;
        (unleased && !self.mutants.has(Mutant::NoD2)).then_some(Stop::Freeze)
    }
}
