//! The proposer: how a node gets the next epoch decided with the help of at most one other acceptor.
//!
//! ```text
//! begin_decision ─┬─ DecideAlone(record) ── durable ─────────────────────────────► chosen
//!                 └─ AskTarget(proposal, record) ── durable ── send ── Accepted ──► conclude ── durable ─► chosen
//! ```
//!
//! A ballot has exactly one target and one content. A request to the same target is repeated with the same
//! bytes; a request to another target needs another ballot.

use crate::acceptor::may_follow;
use crate::message::TryDecide;
use crate::types::{Acceptor, AcceptorRecord, Ballot, Config};
use dyad_types::NodeId;

/// An attempt to decide the next epoch, with its ballot. It is kept in memory only: to give it up is safe, because a
/// restart of the daemon does the same.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Proposal {
    /// The only acceptor that is asked for a vote in this ballot.
    pub target: Acceptor,
    /// The request for the vote, the same in each repetition.
    pub request: TryDecide,
}

impl Proposal {
    /// The value that is chosen unless the target has accepted another one at a higher ballot.
    pub fn value(&self) -> &Config {
        self.request.accepted.as_ref().map_or(&self.request.want, |(_, value)| value)
    }
}

/// The first step of a decision. The record in it must be durable before anything else happens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FirstStep {
    /// This node alone is a quorum: as soon as the record is durable, its base is chosen.
    DecideAlone(AcceptorRecord),
    /// The vote of the target is needed: as soon as the record is durable, the proposal may be sent.
    AskTarget(Box<Proposal>, AcceptorRecord),
}

/// The inputs of [`begin_decision`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DecisionInput<'a> {
    pub me: NodeId,
    pub pair: u128,
    /// The wanted configuration; `begin_decision` sets its epoch and lineage.
    pub want: Config,
    /// The acceptor whose vote is requested if one is needed.
    pub target: Acceptor,
    /// The round of the new ballot is above the round of this one, for example the promised ballot of a `Nack`.
    pub ballot_floor: Ballot,
    /// The highest [`AcceptorRecord::witness_changes`] of the witness known to this node.
    pub witness_changes: u64,
    /// The durable record.
    pub record: &'a AcceptorRecord,
}

/// Begins a decision. `None` if this store may not propose, if the wanted configuration cannot follow the base, or if
/// this node and the target together are no quorum.
pub fn begin_decision(input: DecisionInput<'_>) -> Option<FirstStep> {
    let DecisionInput { me, pair, mut want, target, ballot_floor, witness_changes, record } = input;
    let base = &record.base;
    want.epoch = base.epoch.next();
    want.lineage = base.lineage;
    if !record.may_vote_as(Acceptor::from(me)) || !may_follow(&want, base) {
        return None;
    }
    let mut next = record.clone();
    next.witness_changes = next.witness_changes.max(witness_changes);
    if base.is_quorum(&[Acceptor::from(me)]) {
        // A value that this node has accepted is chosen already, because this node alone is a quorum.
        let value = record.accepted.as_ref().map_or(want, |(_, value)| value.clone());
        next.adopt(value);
        return Some(FirstStep::DecideAlone(next));
    }
    if target == Acceptor::from(me) || !base.is_quorum(&[Acceptor::from(me), target]) {
        return None;
    }
    let ballot = Ballot { round: record.promised.round.max(ballot_floor.round) + 1, node: me };
    next.promised = ballot;
    let request = TryDecide {
        pair,
        sender: me,
        incarnation: record.incarnation,
        base: base.clone(),
        ballot,
        accepted: record.accepted.clone(),
        want,
        witness_changes: next.witness_changes,
    };
    Some(FirstStep::AskTarget(Box::new(Proposal { target, request }), next))
}

/// Completes a decision after the target has voted for `value` at `ballot`: returns the record that makes `value`
/// chosen as soon as it is durable. The caller must apply D1 and D2 to `value` before it writes the record.
///
/// `None` if the proposal is void, because the base of this node has changed or it has promised a higher ballot
/// meanwhile.
pub fn conclude(
    record: &AcceptorRecord,
    proposal: &Proposal,
    ballot: Ballot,
    value: &Config,
) -> Option<AcceptorRecord> {
    let same_register = record.base == proposal.request.base && proposal.request.ballot == ballot;
    if !same_register || record.promised != ballot || !may_follow(value, &record.base) {
        return None;
    }
    // One write of the record is both: the vote of this node, and the knowledge that with this vote the value is
    // chosen.
    let mut next = record.clone();
    next.adopt(value.clone());
    Some(next)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::record;
    use crate::types::Members;
    use dyad_types::Epoch;

    fn input(record: &AcceptorRecord, target: Acceptor) -> DecisionInput<'_> {
        let want = Config { members: Members::OnlyA, tie: Acceptor::A, ..record.base.clone() };
        DecisionInput { me: NodeId::A, pair: 1, want, target, ballot_floor: Ballot::ZERO, witness_changes: 0, record }
    }

    fn asked(record: &AcceptorRecord, target: Acceptor) -> (Proposal, AcceptorRecord) {
        match begin_decision(input(record, target)) {
            Some(FirstStep::AskTarget(proposal, next)) => (*proposal, next),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn the_tie_holder_decides_alone_and_takes_the_value_it_accepted_before() {
        let mut record = record(Acceptor::A);
        let Some(FirstStep::DecideAlone(next)) = begin_decision(input(&record, Acceptor::W)) else { panic!() };
        assert_eq!((next.base.epoch, next.base.members), (Epoch(2), Members::OnlyA));
        let accepted = Config { epoch: Epoch(2), tie: Acceptor::B, ..record.base.clone() };
        record.accepted = Some((Ballot { round: 1, node: NodeId::B }, accepted.clone()));
        let Some(FirstStep::DecideAlone(next)) = begin_decision(input(&record, Acceptor::W)) else { panic!() };
        assert_eq!(next.base, accepted);
    }

    #[test]
    fn each_decision_has_a_new_ballot_that_the_proposer_promises_itself() {
        let record = record(Acceptor::W);
        let (first, next) = asked(&record, Acceptor::W);
        assert_eq!(next.promised, first.request.ballot);
        let (second, after) = asked(&next, Acceptor::B);
        assert!(second.request.ballot > first.request.ballot);
        assert_eq!(after.promised, second.request.ballot);
        let ballot_floor = Ballot { round: 40, node: NodeId::B };
        let Some(FirstStep::AskTarget(third, _)) =
            begin_decision(DecisionInput { ballot_floor, ..input(&after, Acceptor::W) })
        else {
            panic!()
        };
        assert!(third.request.ballot > ballot_floor);
    }

    #[test]
    fn a_vote_counts_only_for_the_ballot_still_promised() {
        let record = record(Acceptor::W);
        let (proposal, next) = asked(&record, Acceptor::W);
        let (ballot, value) = (proposal.request.ballot, proposal.request.want.clone());
        let done = conclude(&next, &proposal, ballot, &value).expect("chosen");
        assert_eq!((done.base, done.promised, done.accepted), (value.clone(), Ballot::ZERO, None));
        let mut outbid = next.clone();
        outbid.promised.round += 1;
        assert_eq!(conclude(&outbid, &proposal, ballot, &value), None);
        let mut moved = next;
        moved.base.epoch.advance();
        assert_eq!(conclude(&moved, &proposal, ballot, &value), None);
    }

    #[test]
    fn a_target_that_completes_no_quorum_or_an_unadmitted_store_begins_no_decision() {
        let mut record = record(Acceptor::B);
        assert_eq!(begin_decision(input(&record, Acceptor::W)), None, "without B nothing can be chosen");
        record.incarnation = 7;
        assert_eq!(begin_decision(input(&record, Acceptor::B)), None);
    }
}
