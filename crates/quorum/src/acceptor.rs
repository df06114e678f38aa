//! The acceptor: one atomic step per ask, the same on nodes and on the witness.
//!
//! The caller makes the record durable *before* it sends the answer, whenever the record changed.
//!
//! Two acceptors are always enough. With the tie at W every quorum is a pair; with the tie at a node X
//! every quorum contains X, and X together with whoever asks is one. So a proposer and one acceptor can
//! run both phases in one message: the acceptor promises, picks the value of the highest ballot among
//! what the two of them accepted, and accepts it, all at once. Where the two are no quorum (B and W
//! while A holds the tie) the acceptor only promises, as in the classic protocol, and nothing follows.

use crate::message::{Answer, Learn, Refusal, TryDecide, Verdict, WitnessAsk};
use crate::types::{Acceptor, Config, Record};

/// Answers an ask to the witness; `record` is that witness's record of the pair.
pub fn answer(record: &mut Record, ask: &WitnessAsk) -> Answer {
    match ask {
        WitnessAsk::Learn(ask) => learn(record, Acceptor::W, ask),
        WitnessAsk::TryDecide(ask) => try_decide(record, Acceptor::W, ask),
    }
}

/// Takes over a newer chosen configuration and tells the newest one known.
pub fn learn(record: &mut Record, me: Acceptor, ask: &Learn) -> Answer {
    let verdict = match meet(record, me, &ask.base, ask.seen) {
        Err(refusal) => Verdict::Refused(refusal),
        Ok(()) => Verdict::Base(record.base.clone()),
    };
    reply(record, me, verdict)
}

/// Votes on the epoch after `ask.base`, or says why not. Repeating an ask repeats its answer.
pub fn try_decide(record: &mut Record, me: Acceptor, ask: &TryDecide) -> Answer {
    let verdict = vote(record, me, ask);
    reply(record, me, verdict)
}

fn vote(record: &mut Record, me: Acceptor, ask: &TryDecide) -> Verdict {
    if let Err(refusal) = meet(record, me, &ask.base, ask.seen) {
        return Verdict::Refused(refusal);
    }
    if record.base.rank() > ask.base.rank() {
        return Verdict::Newer(record.base.clone());
    }
    if !record.votes(me) {
        return Verdict::Refused(Refusal::NotAVoter);
    }
    let sender = Acceptor::from(ask.sender);
    if record.base.incarnations[sender.index()] != ask.incarnation || sender == me || ask.ballot.node != ask.sender {
        return Verdict::Refused(Refusal::UnknownSender);
    }
    if let Some(repeat) = repeated(record, ask) {
        return repeat;
    }
    if ask.ballot <= record.promised {
        return Verdict::Nack(ask.ballot, record.promised);
    }
    let value = best(ask.best.as_ref(), record.accepted.as_ref()).unwrap_or(&ask.want).clone();
    if !follows(&value, &record.base) {
        return Verdict::Refused(Refusal::BadValue);
    }
    let pair_is_quorum = record.base.quorum(&[sender, me]);
    record.promised = ask.ballot;
    let verdict = if pair_is_quorum {
        record.accepted = Some((ask.ballot, value.clone()));
        Verdict::Accepted(ask.ballot, value)
    } else {
        Verdict::Promise(ask.ballot, record.accepted.clone())
    };
    touched(record, me);
    verdict
}

/// Compares the bases: detects a roll-back, takes over a newer base, refuses a conflicting one.
fn meet(record: &mut Record, me: Acceptor, base: &Config, seen: u64) -> Result<(), Refusal> {
    if me == Acceptor::W {
        let same_store = base.witness == record.witness && base.incarnations[2] == record.incarnation;
        if !same_store && base.rank() >= record.base.rank() {
            return Err(Refusal::NotAVoter);
        }
        if same_store && seen > record.mark {
            return Err(Refusal::RolledBack);
        }
    }
    if base.rank() > record.base.rank() {
        if base.fault().is_some() {
            return Err(Refusal::BadValue);
        }
        record.adopt(base.clone());
        touched(record, me);
    } else if base.rank() == record.base.rank() && *base != record.base {
        return Err(Refusal::Conflict);
    }
    Ok(())
}

/// The answer to an ask whose ballot was answered before. A ballot has one target and one value, so it is the same ask.
fn repeated(record: &Record, ask: &TryDecide) -> Option<Verdict> {
    if record.promised != ask.ballot {
        return None;
    }
    Some(match &record.accepted {
        Some((ballot, value)) if *ballot == ask.ballot => Verdict::Accepted(ask.ballot, value.clone()),
        accepted => Verdict::Promise(ask.ballot, accepted.clone()),
    })
}

/// The value accepted at the highest ballot.
fn best<'a>(
    left: Option<&'a (crate::Ballot, Config)>,
    right: Option<&'a (crate::Ballot, Config)>,
) -> Option<&'a Config> {
    left.into_iter().chain(right).max_by_key(|(ballot, _)| *ballot).map(|(_, value)| value)
}

/// Whether `value` can be the epoch after `base` at all.
pub(crate) fn follows(value: &Config, base: &Config) -> bool {
    value.epoch == base.epoch + 1 && value.lineage == base.lineage && value.fault().is_none()
}

fn touched(record: &mut Record, me: Acceptor) {
    if me == Acceptor::W {
        record.mark += 1;
    }
}

fn reply(record: &Record, me: Acceptor, verdict: Verdict) -> Answer {
    let mark = if me == Acceptor::W { record.mark } else { 0 };
    Answer { from: me, incarnation: record.incarnation, witness: record.witness, mark, verdict }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::{Ballot, Members, WitnessId};
    use dyad_types::NodeId;

    const ID: WitnessId = WitnessId(9);

    fn base(tie: Acceptor) -> Config {
        Config {
            epoch: 4,
            members: Members::Both,
            tie,
            lead: NodeId::A,
            incarnations: [1, 2, 3],
            witness: ID,
            exceptions: Vec::new(),
            lineage: 0,
        }
    }

    fn witness(tie: Acceptor) -> Record {
        let mut record = Record::witness(ID, 3);
        record.adopt(base(tie));
        record
    }

    fn solo(node: NodeId) -> Config {
        Config { epoch: 5, members: Members::only(node), tie: Acceptor::from(node), lead: node, ..base(Acceptor::W) }
    }

    fn ask(node: NodeId, round: u64, tie: Acceptor) -> TryDecide {
        TryDecide {
            pair: 1,
            sender: node,
            incarnation: 1 + node.index() as u64,
            base: base(tie),
            ballot: Ballot { round, node },
            best: None,
            want: solo(node),
            seen: 0,
        }
    }

    #[test]
    fn a_pair_that_is_a_quorum_accepts_at_once() {
        let mut record = witness(Acceptor::W);
        let answer = try_decide(&mut record, Acceptor::W, &ask(NodeId::A, 1, Acceptor::W));
        let ballot = Ballot { round: 1, node: NodeId::A };
        assert_eq!(answer.verdict, Verdict::Accepted(ballot, solo(NodeId::A)));
        assert_eq!(record.accepted, Some((ballot, solo(NodeId::A))));
        assert_eq!((answer.mark, record.mark), (1, 1));
    }

    #[test]
    fn an_exact_retry_repeats_the_answer_and_changes_nothing() {
        let mut record = witness(Acceptor::W);
        let first = try_decide(&mut record, Acceptor::W, &ask(NodeId::A, 1, Acceptor::W));
        let kept = record.clone();
        assert_eq!(try_decide(&mut record, Acceptor::W, &ask(NodeId::A, 1, Acceptor::W)), first);
        assert_eq!(record, kept);
    }

    #[test]
    fn a_lower_or_equal_ballot_is_refused() {
        let mut record = witness(Acceptor::W);
        try_decide(&mut record, Acceptor::W, &ask(NodeId::B, 2, Acceptor::W));
        let kept = record.clone();
        let late = try_decide(&mut record, Acceptor::W, &ask(NodeId::A, 2, Acceptor::W));
        let promised = Ballot { round: 2, node: NodeId::B };
        assert_eq!(late.verdict, Verdict::Nack(Ballot { round: 2, node: NodeId::A }, promised));
        assert_eq!(record, kept);
    }

    #[test]
    fn the_value_of_the_highest_accepted_ballot_wins_over_the_wish() {
        let mut record = witness(Acceptor::W);
        try_decide(&mut record, Acceptor::W, &ask(NodeId::A, 3, Acceptor::W));
        let low = Some((Ballot { round: 2, node: NodeId::B }, solo(NodeId::B)));
        let second = TryDecide { best: low, ..ask(NodeId::B, 4, Acceptor::W) };
        let answer = try_decide(&mut record, Acceptor::W, &second);
        assert_eq!(answer.verdict, Verdict::Accepted(second.ballot, solo(NodeId::A)));
        let high = Some((Ballot { round: 5, node: NodeId::B }, solo(NodeId::B)));
        let third = TryDecide { best: high, ..ask(NodeId::B, 6, Acceptor::W) };
        let answer = try_decide(&mut record, Acceptor::W, &third);
        assert_eq!(answer.verdict, Verdict::Accepted(third.ballot, solo(NodeId::B)));
    }

    #[test]
    fn two_that_are_no_quorum_only_get_a_promise() {
        // A holds the tie: B and the witness cannot decide anything.
        let mut record = witness(Acceptor::A);
        let ask = ask(NodeId::B, 1, Acceptor::A);
        let answer = try_decide(&mut record, Acceptor::W, &ask);
        assert_eq!(answer.verdict, Verdict::Promise(ask.ballot, None));
        assert_eq!((record.promised, record.accepted.clone()), (ask.ballot, None));
        assert_eq!(try_decide(&mut record, Acceptor::W, &ask).verdict, Verdict::Promise(ask.ballot, None));
    }

    #[test]
    fn every_quorum_is_held_by_a_proposer_and_one_acceptor() {
        let seats = [Acceptor::A, Acceptor::B, Acceptor::W];
        for tie in seats {
            for mask in 0..8_usize {
                let voters: Vec<Acceptor> = seats.into_iter().filter(|seat| mask >> seat.index() & 1 == 1).collect();
                let small = |size: usize| {
                    seats.into_iter().any(|a| {
                        seats.into_iter().any(|b| {
                            let pair = if size == 1 { vec![a] } else { vec![a, b] };
                            pair.iter().all(|seat| voters.contains(seat)) && base(tie).quorum(&pair)
                        })
                    })
                };
                assert_eq!(base(tie).quorum(&voters), small(1) || small(2), "{tie:?} {voters:?}");
                // Any two quorums meet.
                let others: Vec<Acceptor> = seats.into_iter().filter(|seat| !voters.contains(seat)).collect();
                assert!(!(base(tie).quorum(&voters) && base(tie).quorum(&others)));
            }
        }
    }

    #[test]
    fn a_newer_base_is_told_and_an_older_one_gives_way() {
        let mut record = witness(Acceptor::W);
        try_decide(&mut record, Acceptor::W, &ask(NodeId::A, 1, Acceptor::W));
        let mut newer = ask(NodeId::A, 1, Acceptor::W);
        newer.base = solo(NodeId::A);
        newer.want = Config { epoch: 6, members: Members::Both, tie: Acceptor::W, ..base(Acceptor::W) };
        // Solo with the tie at A: A and W are a quorum all the same.
        assert!(matches!(try_decide(&mut record, Acceptor::W, &newer).verdict, Verdict::Accepted(..)));
        assert_eq!(record.base, solo(NodeId::A));
        let old = try_decide(&mut record, Acceptor::W, &ask(NodeId::B, 9, Acceptor::W));
        assert_eq!(old.verdict, Verdict::Newer(solo(NodeId::A)));
    }

    #[test]
    fn unknown_nodes_get_no_vote() {
        let refused = |record: &mut Record, ask: &TryDecide, refusal| {
            let kept = record.clone();
            assert_eq!(try_decide(record, Acceptor::W, ask).verdict, Verdict::Refused(refusal));
            assert_eq!(*record, kept);
        };
        let good = ask(NodeId::A, 1, Acceptor::W);
        refused(&mut witness(Acceptor::W), &TryDecide { incarnation: 8, ..good.clone() }, Refusal::UnknownSender);
        let mut restored = witness(Acceptor::W);
        restored.incarnation = 4;
        refused(&mut restored, &good, Refusal::NotAVoter);
        let mut other = witness(Acceptor::W);
        other.witness = WitnessId(8);
        refused(&mut other, &good, Refusal::NotAVoter);
        refused(&mut witness(Acceptor::W), &TryDecide { seen: 7, ..good.clone() }, Refusal::RolledBack);
        let skips = Config { epoch: 6, ..solo(NodeId::A) };
        refused(&mut witness(Acceptor::W), &TryDecide { want: skips, ..good.clone() }, Refusal::BadValue);
        let headless = Config { tie: Acceptor::W, ..solo(NodeId::A) };
        refused(&mut witness(Acceptor::W), &TryDecide { want: headless, ..good.clone() }, Refusal::BadValue);
        let twin = Config { lead: NodeId::B, ..base(Acceptor::W) };
        refused(&mut witness(Acceptor::W), &TryDecide { base: twin, ..good }, Refusal::Conflict);
    }

    #[test]
    fn an_enrolled_witness_learns_its_first_base_from_a_read() {
        let mut record = Record::witness(ID, 3);
        let ask = Learn { pair: 1, sender: NodeId::A, base: base(Acceptor::A), seen: 0 };
        assert_eq!(learn(&mut record, Acceptor::W, &ask).verdict, Verdict::Base(base(Acceptor::A)));
        assert_eq!((record.base.clone(), record.mark), (base(Acceptor::A), 1));
        learn(&mut record, Acceptor::W, &ask);
        assert_eq!(record.mark, 1, "a read that tells nothing new writes nothing");
    }
}
