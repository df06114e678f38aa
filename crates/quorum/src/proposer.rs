//! The proposer: how a node gets the next epoch decided with the help of at most one other acceptor.
//!
//! ```text
//! plan ─┬─ Local(record) ── durable ──────────────────────────────► chosen
//!       └─ Ask(proposal, record) ── durable ── send ── Accepted ──► conclude(record) ── durable ─► chosen
//! ```
//!
//! A ballot has exactly one target and one content. The same target is asked again with the same bytes;
//! another target needs another ballot.

use crate::acceptor::follows;
use crate::message::TryDecide;
use crate::types::{Acceptor, Ballot, Config, Record};
use dyad_types::NodeId;

/// A ballot under way. It lives in memory only: giving it up is safe, since a restart does the same.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Proposal {
    /// The only acceptor asked in this ballot.
    pub target: Acceptor,
    /// The same in each repetition.
    pub request: TryDecide,
}

impl Proposal {
    /// What would be chosen if the target had accepted nothing.
    pub fn value(&self) -> &Config {
        self.request.best.as_ref().map_or(&self.request.want, |(_, value)| value)
    }
}

/// How a decision begins. The record must be durable before anything else happens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Plan {
    /// This node alone is a quorum: with this record durable, its base is chosen.
    Local(Record),
    /// With this record durable, the proposal may be sent.
    Ask(Box<Proposal>, Record),
}

/// Record, wish and ballots from which [`plan`] makes a proposal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PlanInput<'a> {
    /// The node that proposes.
    pub me: NodeId,
    pub pair: u128,
    /// The wanted configuration; `plan` sets its epoch and lineage.
    pub want: Config,
    /// The acceptor whose vote is requested if one is needed.
    pub target: Acceptor,
    /// The new ballot is above this one, for example above the promised ballot of a `Nack`.
    pub ballot_floor: Ballot,
    /// The highest [`Record::mark`] of the witness known.
    pub seen: u64,
    /// The durable record.
    pub record: &'a Record,
}

/// Begins a decision. `None` if this store may not propose, or if it and the target together are no quorum.
pub fn plan(input: PlanInput<'_>) -> Option<Plan> {
    let PlanInput { me, pair, mut want, target, ballot_floor, seen, record } = input;
    let base = &record.base;
    want.epoch = base.epoch.next();
    want.lineage = base.lineage;
    if !record.votes(Acceptor::from(me)) || !follows(&want, base) {
        return None;
    }
    let mut next = record.clone();
    next.mark = next.mark.max(seen);
    if base.quorum(&[Acceptor::from(me)]) {
        // What this node accepted while it alone is a quorum is chosen already.
        let value = record.accepted.as_ref().map_or(want, |(_, value)| value.clone());
        next.adopt(value);
        return Some(Plan::Local(next));
    }
    if target == Acceptor::from(me) || !base.quorum(&[Acceptor::from(me), target]) {
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
        best: record.accepted.clone(),
        want,
        seen: next.mark,
    };
    Some(Plan::Ask(Box::new(Proposal { target, request }), next))
}

/// The target voted for `value` at the proposal's ballot: the record that, once durable, makes it chosen.
///
/// `None` if this node has promised a higher ballot meanwhile: the proposal is void. The caller has applied D1 and D2 to
/// `value`.
pub fn conclude(record: &Record, proposal: &Proposal, ballot: Ballot, value: &Config) -> Option<Record> {
    let same_register = record.base == proposal.request.base && proposal.request.ballot == ballot;
    if !same_register || record.promised != ballot || !follows(value, &record.base) {
        return None;
    }
    // The own acceptance and the knowledge that it completes the quorum are one write of the record.
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

    fn input(record: &Record, target: Acceptor) -> PlanInput<'_> {
        let want = Config { members: Members::OnlyA, tie: Acceptor::A, ..record.base.clone() };
        PlanInput { me: NodeId::A, pair: 1, want, target, ballot_floor: Ballot::ZERO, seen: 0, record }
    }

    fn asked(record: &Record, target: Acceptor) -> (Proposal, Record) {
        match plan(input(record, target)) {
            Some(Plan::Ask(proposal, next)) => (*proposal, next),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn the_tie_holder_decides_alone_and_takes_what_it_accepted_before() {
        let mut record = record(Acceptor::A);
        let Some(Plan::Local(next)) = plan(input(&record, Acceptor::W)) else { panic!() };
        assert_eq!((next.base.epoch, next.base.members), (Epoch(2), Members::OnlyA));
        let accepted = Config { epoch: Epoch(2), tie: Acceptor::B, ..record.base.clone() };
        record.accepted = Some((Ballot { round: 1, node: NodeId::B }, accepted.clone()));
        let Some(Plan::Local(next)) = plan(input(&record, Acceptor::W)) else { panic!() };
        assert_eq!(next.base, accepted);
    }

    #[test]
    fn each_plan_has_a_fresh_ballot_promised_to_itself() {
        let record = record(Acceptor::W);
        let (first, next) = asked(&record, Acceptor::W);
        assert_eq!(next.promised, first.request.ballot);
        let (second, after) = asked(&next, Acceptor::B);
        assert!(second.request.ballot > first.request.ballot);
        assert_eq!(after.promised, second.request.ballot);
        let ballot_floor = Ballot { round: 40, node: NodeId::B };
        let Some(Plan::Ask(third, _)) = plan(PlanInput { ballot_floor, ..input(&after, Acceptor::W) }) else {
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
    fn useless_targets_and_unadmitted_stores_propose_nothing() {
        let mut record = record(Acceptor::B);
        assert_eq!(plan(input(&record, Acceptor::W)), None, "without B nothing can be chosen");
        record.incarnation = 7;
        assert_eq!(plan(input(&record, Acceptor::B)), None);
    }
}
