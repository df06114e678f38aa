//! The acceptor: one atomic step per request, the same on nodes and on the witness.
//!
//! If a step changed the record, the caller makes it durable *before* it sends the reply.
//!
//! Two acceptors are always enough. With the tie vote at W any two acceptors are a quorum; with the tie vote at
//! a node X every quorum contains X, and X alone is one. So a proposer and one acceptor can run both phases of
//! Paxos in one message: the acceptor promises, takes the value of the highest ballot that it or the proposer
//! has accepted, and accepts that value, in one step. If the two are no quorum (B and W while A holds the tie)
//! the acceptor only promises, as in phase 1 of Paxos, and the proposer cannot continue.

use crate::message::{AcceptorReply, Learn, ReplyBody, TryDecide, VoteRefusal, WitnessRequest};
use crate::types::{Acceptor, AcceptorRecord, Config};

/// Handles a request to the witness. `record` is the witness's record of the pair.
pub fn handle(record: &mut AcceptorRecord, request: &WitnessRequest) -> AcceptorReply {
    match request {
        WitnessRequest::Learn(request) => learn(record, Acceptor::W, request),
        WitnessRequest::TryDecide(request) => try_decide(record, Acceptor::W, request),
    }
}

/// Handles a read: adopts the configuration of the request if it is newer, and replies with the newest one known.
pub fn learn(record: &mut AcceptorRecord, me: Acceptor, request: &Learn) -> AcceptorReply {
    let body = match compare_bases(record, me, &request.base, request.witness_changes) {
        Err(refusal) => ReplyBody::Refused(refusal),
        Ok(()) => ReplyBody::Base(record.base.clone()),
    };
    reply(record, me, body)
}

/// Votes on the epoch after `request.base`, or replies with the reason for not voting. A repeated request gets the same
/// reply again.
pub fn try_decide(record: &mut AcceptorRecord, me: Acceptor, request: &TryDecide) -> AcceptorReply {
    let body = vote(record, me, request);
    reply(record, me, body)
}

fn vote(record: &mut AcceptorRecord, me: Acceptor, request: &TryDecide) -> ReplyBody {
    if let Err(refusal) = compare_bases(record, me, &request.base, request.witness_changes) {
        return ReplyBody::Refused(refusal);
    }
    if record.base.rank() > request.base.rank() {
        return ReplyBody::Newer(record.base.clone());
    }
    if !record.may_vote_as(me) {
        return ReplyBody::Refused(VoteRefusal::NotAVoter);
    }
    let sender = Acceptor::from(request.sender);
    if record.base.incarnations[sender.index()] != request.incarnation
        || sender == me
        || request.ballot.node != request.sender
    {
        return ReplyBody::Refused(VoteRefusal::UnknownSender);
    }
    if let Some(repeat) = reply_to_repetition(record, request) {
        return repeat;
    }
    if request.ballot <= record.promised {
        return ReplyBody::Nack(request.ballot, record.promised);
    }
    let value =
        accepted_at_higher_ballot(request.accepted.as_ref(), record.accepted.as_ref()).unwrap_or(&request.want).clone();
    if !may_follow(&value, &record.base) {
        return ReplyBody::Refused(VoteRefusal::BadValue);
    }
    let pair_is_quorum = record.base.is_quorum(&[sender, me]);
    record.promised = request.ballot;
    let body = if pair_is_quorum {
        record.accepted = Some((request.ballot, value.clone()));
        ReplyBody::Accepted(request.ballot, value)
    } else {
        ReplyBody::Promise(request.ballot, record.accepted.clone())
    };
    count_change(record, me);
    body
}

/// Compares the base of a request with the base of the record: adopts a newer one and refuses a conflicting one. The
/// witness also refuses a base that does not admit its store, and a request that shows that its record was rolled back.
fn compare_bases(
    record: &mut AcceptorRecord,
    me: Acceptor,
    base: &Config,
    witness_changes: u64,
) -> Result<(), VoteRefusal> {
    if me == Acceptor::W {
        let same_store = base.witness == record.witness && base.incarnations[2] == record.incarnation;
        if !same_store && base.rank() >= record.base.rank() {
            return Err(VoteRefusal::NotAVoter);
        }
        if same_store && witness_changes > record.witness_changes {
            return Err(VoteRefusal::RolledBack);
        }
    }
    if base.rank() > record.base.rank() {
        if base.fault().is_some() {
            return Err(VoteRefusal::BadValue);
        }
        record.adopt(base.clone());
        count_change(record, me);
    } else if base.rank() == record.base.rank() && *base != record.base {
        return Err(VoteRefusal::Conflict);
    }
    Ok(())
}

/// The reply to a request whose ballot is promised already; `None` for any other request. A ballot has one target and
/// one content, so an equal ballot means that the request is a repetition.
fn reply_to_repetition(record: &AcceptorRecord, request: &TryDecide) -> Option<ReplyBody> {
    if record.promised != request.ballot {
        return None;
    }
    Some(match &record.accepted {
        Some((ballot, value)) if *ballot == request.ballot => ReplyBody::Accepted(request.ballot, value.clone()),
        accepted => ReplyBody::Promise(request.ballot, accepted.clone()),
    })
}

/// The one of the two values that was accepted at the higher ballot.
fn accepted_at_higher_ballot<'a>(
    left: Option<&'a (crate::Ballot, Config)>,
    right: Option<&'a (crate::Ballot, Config)>,
) -> Option<&'a Config> {
    left.into_iter().chain(right).max_by_key(|(ballot, _)| *ballot).map(|(_, value)| value)
}

/// Whether `value` may be chosen as the configuration after `base`.
pub(crate) fn may_follow(value: &Config, base: &Config) -> bool {
    value.epoch == base.epoch.next() && value.lineage == base.lineage && value.fault().is_none()
}

/// Counts a change of the record in `witness_changes`, on the witness only.
fn count_change(record: &mut AcceptorRecord, me: Acceptor) {
    if me == Acceptor::W {
        record.witness_changes += 1;
    }
}

fn reply(record: &AcceptorRecord, me: Acceptor, body: ReplyBody) -> AcceptorReply {
    let witness_changes = if me == Acceptor::W { record.witness_changes } else { 0 };
    AcceptorReply { from: me, incarnation: record.incarnation, witness: record.witness, witness_changes, body }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::{Ballot, Members, WitnessId};
    use dyad_types::{Epoch, NodeId};

    const ID: WitnessId = WitnessId(9);

    fn base(tie: Acceptor) -> Config {
        Config {
            epoch: Epoch(4),
            members: Members::Both,
            tie,
            lead: NodeId::A,
            incarnations: [1, 2, 3],
            witness: ID,
            exceptions: Vec::new(),
            lineage: 0,
        }
    }

    fn witness(tie: Acceptor) -> AcceptorRecord {
        let mut record = AcceptorRecord::witness(ID, 3);
        record.adopt(base(tie));
        record
    }

    fn solo(node: NodeId) -> Config {
        Config {
            epoch: Epoch(5),
            members: Members::only(node),
            tie: Acceptor::from(node),
            lead: node,
            ..base(Acceptor::W)
        }
    }

    fn request(node: NodeId, round: u64, tie: Acceptor) -> TryDecide {
        TryDecide {
            pair: 1,
            sender: node,
            incarnation: 1 + node.index() as u64,
            base: base(tie),
            ballot: Ballot { round, node },
            accepted: None,
            want: solo(node),
            witness_changes: 0,
        }
    }

    #[test]
    fn a_pair_that_is_a_quorum_accepts_at_once() {
        let mut record = witness(Acceptor::W);
        let reply = try_decide(&mut record, Acceptor::W, &request(NodeId::A, 1, Acceptor::W));
        let ballot = Ballot { round: 1, node: NodeId::A };
        assert_eq!(reply.body, ReplyBody::Accepted(ballot, solo(NodeId::A)));
        assert_eq!(record.accepted, Some((ballot, solo(NodeId::A))));
        assert_eq!((reply.witness_changes, record.witness_changes), (1, 1));
    }

    #[test]
    fn an_exact_retry_repeats_the_answer_and_changes_nothing() {
        let mut record = witness(Acceptor::W);
        let first = try_decide(&mut record, Acceptor::W, &request(NodeId::A, 1, Acceptor::W));
        let kept = record.clone();
        assert_eq!(try_decide(&mut record, Acceptor::W, &request(NodeId::A, 1, Acceptor::W)), first);
        assert_eq!(record, kept);
    }

    #[test]
    fn a_lower_or_equal_ballot_is_refused() {
        let mut record = witness(Acceptor::W);
        try_decide(&mut record, Acceptor::W, &request(NodeId::B, 2, Acceptor::W));
        let kept = record.clone();
        let late = try_decide(&mut record, Acceptor::W, &request(NodeId::A, 2, Acceptor::W));
        let promised = Ballot { round: 2, node: NodeId::B };
        assert_eq!(late.body, ReplyBody::Nack(Ballot { round: 2, node: NodeId::A }, promised));
        assert_eq!(record, kept);
    }

    #[test]
    fn the_value_of_the_highest_accepted_ballot_wins_over_the_wanted_one() {
        let mut record = witness(Acceptor::W);
        try_decide(&mut record, Acceptor::W, &request(NodeId::A, 3, Acceptor::W));
        let low = Some((Ballot { round: 2, node: NodeId::B }, solo(NodeId::B)));
        let second = TryDecide { accepted: low, ..request(NodeId::B, 4, Acceptor::W) };
        let reply = try_decide(&mut record, Acceptor::W, &second);
        assert_eq!(reply.body, ReplyBody::Accepted(second.ballot, solo(NodeId::A)));
        let high = Some((Ballot { round: 5, node: NodeId::B }, solo(NodeId::B)));
        let third = TryDecide { accepted: high, ..request(NodeId::B, 6, Acceptor::W) };
        let reply = try_decide(&mut record, Acceptor::W, &third);
        assert_eq!(reply.body, ReplyBody::Accepted(third.ballot, solo(NodeId::B)));
    }

    #[test]
    fn an_acceptor_that_is_no_quorum_with_the_sender_only_promises() {
        // A holds the tie: B and the witness cannot decide anything.
        let mut record = witness(Acceptor::A);
        let request = request(NodeId::B, 1, Acceptor::A);
        let reply = try_decide(&mut record, Acceptor::W, &request);
        assert_eq!(reply.body, ReplyBody::Promise(request.ballot, None));
        assert_eq!((record.promised, record.accepted.clone()), (request.ballot, None));
        assert_eq!(try_decide(&mut record, Acceptor::W, &request).body, ReplyBody::Promise(request.ballot, None));
    }

    #[test]
    fn every_quorum_is_held_by_a_proposer_and_one_acceptor() {
        let acceptors = [Acceptor::A, Acceptor::B, Acceptor::W];
        for tie in acceptors {
            for mask in 0..8_usize {
                let voters: Vec<Acceptor> =
                    acceptors.into_iter().filter(|acceptor| mask >> acceptor.index() & 1 == 1).collect();
                let small = |size: usize| {
                    acceptors.into_iter().any(|a| {
                        acceptors.into_iter().any(|b| {
                            let pair = if size == 1 { vec![a] } else { vec![a, b] };
                            pair.iter().all(|acceptor| voters.contains(acceptor)) && base(tie).is_quorum(&pair)
                        })
                    })
                };
                assert_eq!(base(tie).is_quorum(&voters), small(1) || small(2), "{tie:?} {voters:?}");
                // Any two quorums have a common acceptor.
                let others: Vec<Acceptor> =
                    acceptors.into_iter().filter(|acceptor| !voters.contains(acceptor)).collect();
                assert!(!(base(tie).is_quorum(&voters) && base(tie).is_quorum(&others)));
            }
        }
    }

    #[test]
    fn a_newer_base_is_returned_and_an_older_one_is_replaced() {
        let mut record = witness(Acceptor::W);
        try_decide(&mut record, Acceptor::W, &request(NodeId::A, 1, Acceptor::W));
        let mut newer = request(NodeId::A, 1, Acceptor::W);
        newer.base = solo(NodeId::A);
        newer.want = Config { epoch: Epoch(6), members: Members::Both, tie: Acceptor::W, ..base(Acceptor::W) };
        // Solo with the tie at A: A and W are a quorum, too.
        assert!(matches!(try_decide(&mut record, Acceptor::W, &newer).body, ReplyBody::Accepted(..)));
        assert_eq!(record.base, solo(NodeId::A));
        let old = try_decide(&mut record, Acceptor::W, &request(NodeId::B, 9, Acceptor::W));
        assert_eq!(old.body, ReplyBody::Newer(solo(NodeId::A)));
    }

    #[test]
    fn unknown_stores_and_invalid_requests_get_no_vote() {
        let refused = |record: &mut AcceptorRecord, request: &TryDecide, refusal| {
            let kept = record.clone();
            assert_eq!(try_decide(record, Acceptor::W, request).body, ReplyBody::Refused(refusal));
            assert_eq!(*record, kept);
        };
        let good = request(NodeId::A, 1, Acceptor::W);
        refused(&mut witness(Acceptor::W), &TryDecide { incarnation: 8, ..good.clone() }, VoteRefusal::UnknownSender);
        let mut restored = witness(Acceptor::W);
        restored.incarnation = 4;
        refused(&mut restored, &good, VoteRefusal::NotAVoter);
        let mut other = witness(Acceptor::W);
        other.witness = WitnessId(8);
        refused(&mut other, &good, VoteRefusal::NotAVoter);
        refused(&mut witness(Acceptor::W), &TryDecide { witness_changes: 7, ..good.clone() }, VoteRefusal::RolledBack);
        let skips = Config { epoch: Epoch(6), ..solo(NodeId::A) };
        refused(&mut witness(Acceptor::W), &TryDecide { want: skips, ..good.clone() }, VoteRefusal::BadValue);
        let tie_elsewhere = Config { tie: Acceptor::W, ..solo(NodeId::A) };
        refused(&mut witness(Acceptor::W), &TryDecide { want: tie_elsewhere, ..good.clone() }, VoteRefusal::BadValue);
        let twin = Config { lead: NodeId::B, ..base(Acceptor::W) };
        refused(&mut witness(Acceptor::W), &TryDecide { base: twin, ..good }, VoteRefusal::Conflict);
    }

    #[test]
    fn an_enrolled_witness_learns_its_first_base_from_a_read() {
        let mut record = AcceptorRecord::witness(ID, 3);
        let request = Learn { pair: 1, sender: NodeId::A, base: base(Acceptor::A), witness_changes: 0 };
        assert_eq!(learn(&mut record, Acceptor::W, &request).body, ReplyBody::Base(base(Acceptor::A)));
        assert_eq!((record.base.clone(), record.witness_changes), (base(Acceptor::A), 1));
        learn(&mut record, Acceptor::W, &request);
        assert_eq!(record.witness_changes, 1, "a read without a newer base writes nothing");
    }
}
