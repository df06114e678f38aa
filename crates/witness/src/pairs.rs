//! The rules by which a node, known by its key, may read or change its pair's entry. Plain functions on a [`Batch`]; no
//! network, no clock.

use dyad_link::{Fingerprint, PairId};
use dyad_quorum::{AcceptorRecord, AcceptorReply, ReplyBody, VoteRefusal, WitnessRequest, acceptor};
use dyad_types::NodeId;

use crate::protocol::{Enrol, Enrolled, MAX_NAME, NodeKeys, WitnessRefusal};
use crate::store::{Batch, Entry, StoreError, StoredEntry, new_incarnation};

/// The result of a request: the inner error is a refusal, which is sent as the answer; the outer one ends the daemon.
type EntryResult<T> = Result<Result<T, WitnessRefusal>, StoreError>;

/// The entry of `pair`, if `key` is one of its keys.
fn entry_for(batch: &Batch<'_>, pair: PairId, key: Fingerprint) -> EntryResult<Box<Entry>> {
    Ok(match batch.get(pair)? {
        StoredEntry::Missing => Err(WitnessRefusal::UnknownPair),
        StoredEntry::Damaged => Err(WitnessRefusal::Damaged),
        StoredEntry::Valid(entry) if entry.knows(key) => Ok(entry),
        StoredEntry::Valid(_) => Err(WitnessRefusal::WrongKey),
    })
}

/// Enrols a pair for a node that has proven a one-time code and the ownership of `key`.
///
/// A pair that is already enrolled with this key keeps its record, so that a second enrolment loses no vote.
pub(crate) fn enrol(batch: &mut Batch<'_>, key: Fingerprint, request: Enrol) -> EntryResult<Enrolled> {
    if request.keys[request.node.index()] != Some(key) {
        return Ok(Err(WitnessRefusal::Mismatch));
    }
    let entry = match batch.get(request.pair)? {
        StoredEntry::Damaged => return Ok(Err(WitnessRefusal::Damaged)),
        StoredEntry::Valid(entry) if !entry.knows(key) => return Ok(Err(WitnessRefusal::PairTaken)),
        StoredEntry::Valid(entry) => {
            Entry { name: sanitized_name(request.name), keys: merge_keys(entry.keys, request.keys), ..*entry }
        }
        StoredEntry::Missing => Entry {
            name: sanitized_name(request.name),
            keys: request.keys,
            record: AcceptorRecord::witness(batch.witness(), new_incarnation()),
        },
    };
    batch.put(request.pair, &entry)?;
    Ok(Ok(Enrolled { witness: entry.record.witness, incarnation: entry.record.incarnation }))
}

/// The new keys; where a new key is missing, the old one.
fn merge_keys(old: NodeKeys, new: NodeKeys) -> NodeKeys {
    std::array::from_fn(|node| new[node].or(old[node]))
}

/// Removes control characters and cuts the name to [`MAX_NAME`] bytes: names are printed on a terminal, and entries are
/// bounded.
fn sanitized_name(name: String) -> String {
    let mut plain: String = name.chars().filter(|letter| !letter.is_control()).collect();
    let end = (0..=MAX_NAME.min(plain.len())).rev().find(|at| plain.is_char_boundary(*at)).unwrap_or(0);
    plain.truncate(end);
    plain
}

/// Answers a request by the acceptor's rules from the pair's record, and stores the record if it has changed.
pub(crate) fn answer_request(
    batch: &mut Batch<'_>,
    key: Fingerprint,
    pair: PairId,
    request: &WitnessRequest,
) -> EntryResult<AcceptorReply> {
    if request.pair() != pair.0 {
        return Ok(Err(WitnessRefusal::Mismatch));
    }
    let mut entry = match entry_for(batch, pair, key)? {
        Ok(entry) => entry,
        Err(refused) => return Ok(Err(refused)),
    };
    let before = entry.record.clone();
    let answer = acceptor::handle(&mut entry.record, request);
    if answer.body == ReplyBody::Refused(VoteRefusal::RolledBack) {
        // The asking node has seen a later state of this store, so the store was rolled back. The other node may have
        // seen an earlier state, so the old record must not vote for either.
        tracing::warn!(%pair, "the record of this pair was rolled back; it is void until the pair admits it again");
        entry.record = AcceptorRecord::witness(batch.witness(), new_incarnation());
    }
    if entry.record != before {
        batch.put(pair, &entry)?;
    }
    Ok(Ok(answer))
}

/// Stores `new` as the key of `node`. `node` must be the peer of the node that asks, which has the key `key`.
pub(crate) fn add_key(
    batch: &mut Batch<'_>,
    key: Fingerprint,
    pair: PairId,
    node: NodeId,
    new: Fingerprint,
) -> EntryResult<()> {
    let mut entry = match entry_for(batch, pair, key)? {
        Ok(entry) => entry,
        Err(refused) => return Ok(Err(refused)),
    };
    if entry.keys[node.index()] == Some(new) {
        return Ok(Ok(()));
    }
    if entry.keys[node.index()] == Some(key) {
        return Ok(Err(WitnessRefusal::OwnKey));
    }
    entry.keys[node.index()] = Some(new);
    batch.put(pair, &entry)?;
    Ok(Ok(()))
}

#[cfg(test)]
mod tests {
    use dyad_quorum::{Acceptor, Config, Learn, Members};
    use proptest::prelude::*;

    use super::*;
    use crate::store::Store;
    use crate::testing::{self, both_in_sync};

    const PAIR: PairId = PairId(7);
    const KEY_A: Fingerprint = Fingerprint([0xa; 32]);
    const KEY_B: Fingerprint = Fingerprint([0xb; 32]);
    const UNKNOWN_KEY: Fingerprint = Fingerprint([0xc; 32]);

    struct Fixture {
        store: Store,
        _directory: tempfile::TempDir,
    }

    impl Fixture {
        fn new() -> Self {
            let directory = tempfile::tempdir().unwrap();
            Self { store: Store::open(directory.path()).unwrap(), _directory: directory }
        }

        fn run<T>(&self, work: impl FnOnce(&mut Batch<'_>) -> EntryResult<T>) -> Result<T, WitnessRefusal> {
            let mut batch = self.store.begin().unwrap();
            let outcome = work(&mut batch).unwrap();
            batch.finish().unwrap();
            outcome
        }

        fn enrol(&self, key: Fingerprint, node: NodeId, keys: NodeKeys) -> Result<Enrolled, WitnessRefusal> {
            let ask = Enrol { pair: PAIR, name: "office".into(), node, keys };
            self.run(|batch| enrol(batch, key, ask))
        }

        fn ask(&self, key: Fingerprint, question: &WitnessRequest) -> Result<AcceptorReply, WitnessRefusal> {
            self.run(|batch| answer_request(batch, key, PAIR, question))
        }
    }

    fn learn(base: &Config, seen: u64) -> WitnessRequest {
        testing::learn_request(PAIR, base, seen)
    }

    fn solo(node: NodeId, base: &Config, seen: u64) -> WitnessRequest {
        testing::solo_request(PAIR, node, base, seen)
    }

    #[test]
    fn the_witness_votes_once_a_configuration_admits_it() {
        let fixture = Fixture::new();
        let enrolled = fixture.enrol(KEY_A, NodeId::A, [Some(KEY_A), Some(KEY_B)]).unwrap();
        let base = both_in_sync(enrolled);
        assert!(matches!(fixture.ask(KEY_B, &learn(&base, 0)).unwrap().body, ReplyBody::Base(found) if found == base));
        let answer = fixture.ask(KEY_A, &solo(NodeId::A, &base, 0)).unwrap();
        assert!(matches!(&answer.body, ReplyBody::Accepted(_, value) if value.members == Members::OnlyA));
        assert_eq!(
            (answer.from, answer.witness, answer.incarnation),
            (Acceptor::W, enrolled.witness, enrolled.incarnation)
        );
        // A repeated request gets the same answer, from the stored record.
        assert_eq!(fixture.ask(KEY_A, &solo(NodeId::A, &base, 0)).unwrap(), answer);
    }

    #[test]
    fn a_cloned_node_and_unknown_keys_are_refused() {
        let fixture = Fixture::new();
        let base = both_in_sync(fixture.enrol(KEY_A, NodeId::A, [Some(KEY_A), Some(KEY_B)]).unwrap());
        assert_eq!(fixture.enrol(UNKNOWN_KEY, NodeId::B, [None, Some(UNKNOWN_KEY)]), Err(WitnessRefusal::PairTaken));
        assert_eq!(fixture.ask(UNKNOWN_KEY, &learn(&base, 0)), Err(WitnessRefusal::WrongKey));
        let other = PairId(8);
        assert_eq!(
            fixture.run(|batch| answer_request(batch, KEY_A, other, &learn(&base, 0))),
            Err(WitnessRefusal::Mismatch)
        );
        let question = WitnessRequest::Learn(Learn { pair: 8, sender: NodeId::A, base, witness_changes: 0 });
        assert_eq!(
            fixture.run(|batch| answer_request(batch, KEY_A, other, &question)),
            Err(WitnessRefusal::UnknownPair)
        );
        assert_eq!(fixture.enrol(UNKNOWN_KEY, NodeId::A, [Some(KEY_A), None]), Err(WitnessRefusal::Mismatch));
    }

    #[test]
    fn a_node_adds_the_key_of_its_peer_only() {
        let fixture = Fixture::new();
        let base = both_in_sync(fixture.enrol(KEY_A, NodeId::A, [Some(KEY_A), None]).unwrap());
        assert_eq!(fixture.ask(KEY_B, &learn(&base, 0)), Err(WitnessRefusal::WrongKey));
        let add = |who, node, new| fixture.run(|batch| add_key(batch, who, PAIR, node, new));
        assert_eq!(add(KEY_B, NodeId::B, KEY_B), Err(WitnessRefusal::WrongKey));
        assert_eq!(add(KEY_A, NodeId::A, UNKNOWN_KEY), Err(WitnessRefusal::OwnKey));
        assert_eq!(add(KEY_A, NodeId::B, KEY_B), Ok(()));
        assert!(fixture.ask(KEY_B, &learn(&base, 0)).is_ok());
        // B was set up again with a new key: its old key is refused.
        assert_eq!(add(KEY_A, NodeId::B, UNKNOWN_KEY), Ok(()));
        assert_eq!(fixture.ask(KEY_B, &learn(&base, 0)), Err(WitnessRefusal::WrongKey));
    }

    #[test]
    fn enrolling_twice_loses_no_vote() {
        let fixture = Fixture::new();
        let first = fixture.enrol(KEY_A, NodeId::A, [Some(KEY_A), Some(KEY_B)]).unwrap();
        let base = both_in_sync(first);
        let voted = fixture.ask(KEY_A, &solo(NodeId::A, &base, 0)).unwrap();
        assert_eq!(fixture.enrol(KEY_B, NodeId::B, [None, Some(KEY_B)]), Ok(first));
        assert_eq!(fixture.ask(KEY_A, &solo(NodeId::A, &base, 0)).unwrap(), voted);
    }

    #[test]
    fn a_rolled_back_record_votes_for_neither_node() {
        let fixture = Fixture::new();
        let base = both_in_sync(fixture.enrol(KEY_A, NodeId::A, [Some(KEY_A), Some(KEY_B)]).unwrap());
        fixture.ask(KEY_A, &learn(&base, 0)).unwrap();
        // A has seen 40 changes of this store, which has one.
        let answer = fixture.ask(KEY_A, &solo(NodeId::A, &base, 40)).unwrap();
        assert_eq!(answer.body, ReplyBody::Refused(VoteRefusal::RolledBack));
        // B has seen none of them and must get no vote from the old record.
        let answer = fixture.ask(KEY_B, &solo(NodeId::B, &base, 0)).unwrap();
        assert_eq!(answer.body, ReplyBody::Refused(VoteRefusal::NotAVoter));
        assert_ne!(answer.incarnation, base.incarnations[2]);
    }

    proptest! {
        #[test]
        fn a_sanitized_name_is_short_and_has_no_control_characters(name in ".{0,100}") {
            let name = sanitized_name(name);
            prop_assert!(name.len() <= MAX_NAME && !name.contains(char::is_control));
        }
    }
}
