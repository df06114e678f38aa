//! The server in the test's process: which requests it answers, and a fail-over of 100 pairs at once.

mod common;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use common::{Pair, TEST_TIMEOUT};
use dyad_link::Fingerprint;
use dyad_link::pairing::PairingError;
use dyad_link::tls::{TlsError, TlsIdentity};
use dyad_quorum::{Members, ReplyBody};
use dyad_types::NodeId;
use dyad_witness::client::{self, AskError, EnrolError, OneTimeCode};
use dyad_witness::protocol::{Enrol, WitnessRefusal};
use dyad_witness::server::{Server, WitnessConfig};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

struct Witness {
    address: String,
    fingerprint: Fingerprint,
    codes: Vec<String>,
    _directory: tempfile::TempDir,
    _task: tokio::task::JoinHandle<()>,
}

/// A running witness with `codes` open codes.
fn witness(codes: usize) -> Witness {
    let directory = tempfile::tempdir().unwrap();
    let config = WitnessConfig { directory: directory.path().into(), listen: "[::1]:0".parse().unwrap() };
    let server = Server::open(&config).unwrap();
    Witness {
        address: server.address().unwrap().to_string(),
        fingerprint: server.fingerprint(),
        codes: (0..codes).map(|_| server.open_code().code).collect(),
        _directory: directory,
        _task: tokio::spawn(async move { panic!("the store failed: {}", server.run().await) }),
    }
}

#[tokio::test]
async fn a_pair_enrols_with_its_code_and_gets_votes() {
    let (witness, pair) = (witness(1), Pair::new());
    let enrolment = pair.enrol(&witness.address, &witness.codes[0].to_lowercase()).await.unwrap();
    assert_eq!(enrolment.fingerprint, witness.fingerprint);
    let base = pair.both(&enrolment);
    let mut b = pair.client(&pair.b, &witness.address, witness.fingerprint);
    let learned = b.ask(&pair.learn(&base), TEST_TIMEOUT).await.unwrap();
    assert_eq!(learned.body, ReplyBody::Base(base.clone()));
    let first = b.ask(&pair.solo(NodeId::B, &base), TEST_TIMEOUT).await.unwrap();
    assert!(matches!(&first.body, ReplyBody::Accepted(_, value) if value.members == Members::OnlyB));
    assert!(first.witness_changes > learned.witness_changes);
    assert!(b.round_trip().is_some_and(|took| took < TEST_TIMEOUT));
    // After a lost reply the repeated request gets the same answer.
    assert_eq!(b.ask(&pair.solo(NodeId::B, &base), TEST_TIMEOUT).await.unwrap(), first);
    // A asks with a lower ballot than the witness has promised to B, and is told B's.
    let mut a = pair.client(&pair.a, &witness.address, witness.fingerprint);
    let late = a.ask(&pair.solo(NodeId::A, &base), TEST_TIMEOUT).await.unwrap();
    assert!(matches!(late.body, ReplyBody::Nack(..)), "{late:?}");
}

#[tokio::test]
async fn a_code_works_once_and_a_wrong_code_is_refused() {
    let (witness, pair, other) = (witness(1), Pair::new(), Pair::new());
    let wrong = format!("{}-0000-0000", &witness.codes[0][..2]);
    let error = pair.enrol(&witness.address, &wrong).await.unwrap_err();
    assert!(matches!(error, EnrolError::Pairing(PairingError::WrongCode)), "{error:?}");
    pair.enrol(&witness.address, &witness.codes[0]).await.unwrap();
    let error = other.enrol(&witness.address, &witness.codes[0]).await.unwrap_err();
    assert!(matches!(error, EnrolError::Pairing(PairingError::NoCodeOpen)), "{error:?}");
}

#[tokio::test]
async fn a_cloned_node_is_refused_until_its_peer_adds_its_key() {
    let (witness, pair) = (witness(3), Pair::new());
    let enrolment = pair.enrol(&witness.address, &witness.codes[0]).await.unwrap();
    let base = pair.both(&enrolment);
    // The same pair id with other keys.
    let clone = Pair { id: pair.id, ..Pair::new() };
    let error = clone.enrol(&witness.address, &witness.codes[1]).await.unwrap_err();
    assert!(matches!(error, EnrolError::Refused(WitnessRefusal::PairTaken)), "{error:?}");
    // Nor with the name of an enrolled key, which is public: the key of the connection counts.
    let named = Enrol { keys: [Some(pair.a.fingerprint()), Some(clone.b.fingerprint())], ..pair.enrolment() };
    let error = client::enrol(&witness.address, OneTimeCode(&witness.codes[2]), &clone.a, &named, TEST_TIMEOUT).await;
    assert!(matches!(error, Err(EnrolError::Refused(WitnessRefusal::Mismatch))), "{error:?}");
    let mut asking = pair.client(&clone.b, &witness.address, witness.fingerprint);
    let error = asking.ask(&pair.learn(&base), TEST_TIMEOUT).await.unwrap_err();
    assert!(matches!(error, AskError::Refused(WitnessRefusal::WrongKey)), "{error:?}");
    assert!(!error.is_unreachable() && error.to_string().contains("a copy or was set up again"));

    let mut a = pair.client(&pair.a, &witness.address, witness.fingerprint);
    a.add_key(NodeId::B, clone.b.fingerprint(), TEST_TIMEOUT).await.unwrap();
    asking.ask(&pair.learn(&base), TEST_TIMEOUT).await.unwrap();
    let mut replaced = pair.client(&pair.b, &witness.address, witness.fingerprint);
    let error = replaced.ask(&pair.learn(&base), TEST_TIMEOUT).await.unwrap_err();
    assert!(matches!(error, AskError::Refused(WitnessRefusal::WrongKey)), "{error:?}");
    let error = a.add_key(NodeId::A, clone.a.fingerprint(), TEST_TIMEOUT).await.unwrap_err();
    assert!(matches!(error, AskError::Refused(WitnessRefusal::OwnKey)), "{error:?}");
}

#[tokio::test]
async fn an_unknown_pair_and_a_wrong_key_are_not_reported_as_unreachable() {
    let (witness, pair) = (witness(1), Pair::new());
    let enrolment = pair.enrol(&witness.address, &witness.codes[0]).await.unwrap();
    let other_pair = Pair::new();
    let mut unknown = other_pair.client(&other_pair.a, &witness.address, witness.fingerprint);
    let error = unknown.ask(&other_pair.learn(&other_pair.both(&enrolment)), TEST_TIMEOUT).await.unwrap_err();
    assert!(matches!(error, AskError::Refused(WitnessRefusal::UnknownPair)), "{error:?}");

    let impostor = TlsIdentity::generate("impostor").unwrap().fingerprint();
    let mut misled = pair.client(&pair.a, &witness.address, impostor);
    let error = misled.ask(&pair.learn(&pair.both(&enrolment)), TEST_TIMEOUT).await.unwrap_err();
    assert!(matches!(error, AskError::Tls(TlsError::WrongKey { found }) if found == witness.fingerprint));
    assert!(!error.is_unreachable());

    let mut nowhere = pair.client(&pair.a, "[::1]:1", witness.fingerprint);
    let error = nowhere.ask(&pair.learn(&pair.both(&enrolment)), TEST_TIMEOUT).await.unwrap_err();
    assert!(error.is_unreachable() && matches!(error, AskError::Unreachable { .. }), "{error:?}");
}

#[tokio::test]
async fn a_request_without_an_answer_times_out() {
    // The kernel accepts connections to this listener; nothing is ever sent on them.
    let silent = tokio::net::TcpListener::bind("[::1]:0").await.unwrap();
    let pair = Pair::new();
    let address = silent.local_addr().unwrap().to_string();
    let mut client = pair.client(&pair.a, &address, pair.b.fingerprint());
    let limit = Duration::from_millis(300);
    let start = Instant::now();
    let base = dyad_quorum::Config::none();
    let error = client.ask(&pair.learn(&base), limit).await.unwrap_err();
    assert!(error.is_unreachable(), "{error:?}");
    assert!(start.elapsed() >= limit && start.elapsed() < TEST_TIMEOUT);
}

/// Passes connections on to `target`. The first `silenced` of them lose what the node sends, without a reset, as behind a
/// firewall that has forgotten them.
async fn silencing_proxy(target: String, silenced: Arc<AtomicUsize>) -> String {
    let listener = TcpListener::bind("[::1]:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    tokio::spawn(async move {
        for number in 0.. {
            let (node, _) = listener.accept().await.unwrap();
            let witness = TcpStream::connect(&target).await.unwrap();
            let silenced = Arc::clone(&silenced);
            tokio::spawn(async move {
                let ((mut from_node, mut to_node), (mut from_witness, mut to_witness)) =
                    (node.into_split(), witness.into_split());
                tokio::spawn(async move { tokio::io::copy(&mut from_witness, &mut to_node).await });
                let mut buffer = [0; 4096];
                while let Ok(length @ 1..) = from_node.read(&mut buffer).await {
                    if number >= silenced.load(Ordering::SeqCst) {
                        to_witness.write_all(&buffer[..length]).await.unwrap();
                    }
                }
            });
        }
    });
    address
}

#[tokio::test]
async fn an_open_connection_that_went_silent_is_replaced_before_a_decision_times_out() {
    let (witness, pair) = (witness(1), Pair::new());
    let enrolment = pair.enrol(&witness.address, &witness.codes[0]).await.unwrap();
    let base = pair.both(&enrolment);
    let silenced = Arc::new(AtomicUsize::new(0));
    let address = silencing_proxy(witness.address.clone(), Arc::clone(&silenced)).await;
    let mut client = pair.client(&pair.a, &address, witness.fingerprint);
    client.ask(&pair.learn(&base), TEST_TIMEOUT).await.unwrap();
    silenced.store(1, Ordering::SeqCst);
    let answer = client.ask(&pair.solo(NodeId::A, &base), TEST_TIMEOUT / 2).await.unwrap();
    assert!(matches!(answer.body, ReplyBody::Accepted(..)), "{answer:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_a_hundred_pairs_that_fail_over_at_once_99_are_answered_within_a_second() {
    const PAIRS: usize = 100;
    let witness = witness(PAIRS);
    let mut ready = Vec::new();
    for code in &witness.codes {
        let pair = Pair::new();
        let enrolment = pair.enrol(&witness.address, code).await.unwrap();
        let base = pair.both(&enrolment);
        let mut client = pair.client(&pair.a, &witness.address, witness.fingerprint);
        client.ask(&pair.learn(&base), TEST_TIMEOUT).await.unwrap();
        ready.push((pair, base, client));
    }
    let mut deciding = tokio::task::JoinSet::new();
    for (pair, base, mut client) in ready {
        deciding.spawn(async move {
            let start = Instant::now();
            let answer = client.ask(&pair.solo(NodeId::A, &base), TEST_TIMEOUT).await.unwrap();
            assert!(matches!(answer.body, ReplyBody::Accepted(..)), "{answer:?}");
            start.elapsed()
        });
    }
    let mut took = deciding.join_all().await;
    took.sort();
    assert_eq!(took.len(), PAIRS);
    assert!(took[PAIRS * 99 / 100 - 1] < Duration::from_secs(1), "p99 is {:?}", took[PAIRS * 99 / 100 - 1]);
}
