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
use crate::types::{Config, Record, Seat};

/// Answers an ask to the witness; `record` is that witness's record of the pair.
pub fn answer(record: &mut Record, ask: &WitnessAsk) -> Answer {
    match ask {
        WitnessAsk::Learn(ask) => learn(record, Seat::W, ask),
        WitnessAsk::TryDecide(ask) => try_decide(record, Seat::W, ask),
    }
}

/// Takes over a newer chosen configuration and tells the newest one known.
pub fn learn(record: &mut Record, me: Seat, ask: &Learn) -> Answer {
    let verdict = match meet(record, me, &ask.base, ask.seen) {
        Err(refusal) => Verdict::Refused(refusal),
        Ok(()) => Verdict::Base(record.base.clone()),
    };
    reply(record, me, verdict)
}

/// Votes on the epoch after `ask.base`, or says why not. Repeating an ask repeats its answer.
pub fn try_decide(record: &mut Record, me: Seat, ask: &TryDecide) -> Answer {
    let verdict = vote(record, me, ask);
    reply(record, me, verdict)
}

fn vote(record: &mut Record, me: Seat, ask: &TryDecide) -> Verdict {
    if let Err(refusal) = meet(record, me, &ask.base, ask.seen) {
        return Verdict::Refused(refusal);
    }
    if record.base.rank() > ask.base.rank() {
        return Verdict::Newer(record.base.clone());
    }
    if !record.votes(me) {
        return Verdict::Refused(Refusal::NotAVoter);
    }
    let sender = ask.sender.seat();
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
fn meet(record: &mut Record, me: Seat, base: &Config, seen: u64) -> Result<(), Refusal> {
    if me == Seat::W {
        let same_store = base.witness == record.witness && base.incarnations[2] == record.incarnation;
        if !same_store && base.rank() >= record.base.rank() {
            return Err(Refusal::NotAVoter);
        }
        if same_store && seen > record.mark {
            return Err(Refusal::RolledBack);
        }
    }
    if base.rank() > record.base.rank() {
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

fn touched(record: &mut Record, me: Seat) {
    if me == Seat::W {
        record.mark += 1;
    }
}

fn reply(record: &Record, me: Seat, verdict: Verdict) -> Answer {
    let mark = if me == Seat::W { record.mark } else { 0 };
    Answer { from: me, incarnation: record.incarnation, witness: record.witness, mark, verdict }
}
