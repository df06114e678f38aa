//! Two nodes on loopback: sessions come up, carry messages, break, move to another path, or are refused.

mod common;

use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use common::{Cable, within};
use dyad_link::frame::MAX_PAYLOAD;
use dyad_link::session::{
    DownReason, Event, HandshakeError, Outbox, Path, PeerHello, PeerLink, PeerLinkConfig, PeerLinkTiming, SendError,
};
use dyad_link::tls::{TlsError, TlsIdentity};
use dyad_link::{PairId, net};
use dyad_types::{NodeId, Session};

/// Longer than the default, because a busy test machine must not be taken for a dead path.
const SILENCE_TIMEOUT: Duration = Duration::from_secs(3);

struct Pair {
    a: PeerLinkConfig,
    b: PeerLinkConfig,
}

fn pair() -> Pair {
    let (a, b) = (TlsIdentity::generate("a").unwrap(), TlsIdentity::generate("b").unwrap());
    let (print_a, print_b) = (a.fingerprint(), b.fingerprint());
    let id = PairId::generate();
    let mut pair =
        Pair { a: PeerLinkConfig::new(id, NodeId::A, a, print_b), b: PeerLinkConfig::new(id, NodeId::B, b, print_a) };
    for config in [&mut pair.a, &mut pair.b] {
        config.timing = PeerLinkTiming {
            keepalive_interval: Duration::from_millis(50),
            silence_timeout: SILENCE_TIMEOUT,
            ..PeerLinkTiming::default()
        };
    }
    pair
}

fn listen(config: PeerLinkConfig) -> (PeerLink, SocketAddr) {
    let listener = net::listen("[::1]:0".parse().unwrap()).unwrap();
    let address = listener.local_addr().unwrap();
    (PeerLink::listen(config, vec![listener]).unwrap(), address)
}

fn path(name: &str, peer: SocketAddr) -> Path {
    Path { name: name.into(), peer, local: None }
}

async fn up(link: &mut PeerLink) -> (Session, PeerHello, String, Outbox) {
    within("the session comes up", async {
        loop {
            match link.next().await.unwrap() {
                Event::Up { session, hello, path, outbox } => return (session, hello, path, outbox),
                Event::HandshakeFailed { .. } => {}
                other => panic!("expected Up, got {other:?}"),
            }
        }
    })
    .await
}

async fn message(link: &mut PeerLink) -> Bytes {
    match within("a message comes", link.next()).await {
        Some(Event::Message { payload, .. }) => payload,
        other => panic!("expected a message, got {other:?}"),
    }
}

async fn down(link: &mut PeerLink) -> DownReason {
    within("the session ends", async {
        loop {
            match link.next().await.unwrap() {
                Event::Down { reason, .. } => return reason,
                Event::Message { .. } => {}
                other => panic!("expected Down, got {other:?}"),
            }
        }
    })
    .await
}

async fn refused(link: &mut PeerLink) -> HandshakeError {
    match within("a refusal is told", link.next()).await {
        Some(Event::HandshakeFailed { reason, .. }) => reason,
        other => panic!("expected a refusal, got {other:?}"),
    }
}

#[tokio::test]
async fn messages_are_delivered_both_ways_in_sending_order() {
    let Pair { mut a, mut b } = pair();
    a.greeting = Bytes::from_static(b"from a");
    (a.versions, b.versions) = (1..=3, 2..=7);
    let (boot, instance) = (a.boot, a.instance);
    let (mut b, address) = listen(b);
    let mut a = PeerLink::dial(a, vec![path("cable", address)]).unwrap();
    let (_, hello_b, name, to_b) = up(&mut a).await;
    let (_, hello_a, _, to_a) = up(&mut b).await;
    assert_eq!((hello_a.node, hello_b.node, name.as_str()), (NodeId::A, NodeId::B, "cable"));
    assert_eq!((hello_a.version, hello_b.version), (3, 3));
    assert_eq!((hello_a.boot, hello_a.instance, &hello_a.greeting[..]), (boot, instance, &b"from a"[..]));

    let large = Bytes::from(vec![7; MAX_PAYLOAD]);
    to_b.send(large.clone()).await.unwrap();
    for number in 0..1000u16 {
        to_b.send(Bytes::copy_from_slice(&number.to_le_bytes())).await.unwrap();
    }
    assert_eq!(message(&mut b).await, large);
    for number in 0..1000u16 {
        assert_eq!(&message(&mut b).await[..], number.to_le_bytes());
    }
    to_a.try_send(Bytes::from_static(b"back")).unwrap();
    assert_eq!(&message(&mut a).await[..], b"back");
    within("the round trip is measured", async {
        while to_b.round_trip().is_none() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
    assert!(to_b.round_trip().unwrap() < Duration::from_secs(1));
}

#[tokio::test]
async fn a_cut_cable_ends_the_session_and_the_next_one_uses_the_other_cable() {
    let Pair { a, b } = pair();
    let (mut b, address) = listen(b);
    let (one, two) = (Cable::to(address).await, Cable::to(address).await);
    let mut a = PeerLink::dial(a, vec![path("one", one.address), path("two", two.address)]).unwrap();
    let (first, _, name, outbox) = up(&mut a).await;
    let (_, _, _, _outbox_b) = up(&mut b).await;
    assert_eq!(name, "one");

    one.cut();
    assert!(matches!(down(&mut a).await, DownReason::Silent(_)));
    assert!(matches!(down(&mut b).await, DownReason::Silent(_) | DownReason::Superseded));
    let (second, _, name, _to_b) = up(&mut a).await;
    let (_, _, _, to_a) = up(&mut b).await;
    assert_eq!((first, second, name.as_str()), (Session(1), Session(2), "two"));
    // The old outbox never sends on the new session.
    assert_eq!(outbox.send(Bytes::from_static(b"late")).await, Err(SendError::Down));
    to_a.send(Bytes::from_static(b"fresh")).await.unwrap();
    assert_eq!(&message(&mut a).await[..], b"fresh");

    // The bytes that the first cable held back belong to an ended session and have no effect.
    one.restore();
    to_a.send(Bytes::from_static(b"still")).await.unwrap();
    assert_eq!(&message(&mut a).await[..], b"still");
}

#[tokio::test]
async fn removing_a_path_ends_its_session() {
    let Pair { a, b } = pair();
    let (mut b, address) = listen(b);
    let spare = Cable::to(address).await;
    let mut a = PeerLink::dial(a, vec![path("one", address)]).unwrap();
    let (_, _, _, _outbox) = up(&mut a).await;
    let (_, _, _, _outbox_b) = up(&mut b).await;
    a.set_paths(vec![path("two", spare.address)]);
    assert!(matches!(down(&mut a).await, DownReason::PathRemoved));
    assert_eq!(up(&mut a).await.2, "two");
}

#[tokio::test]
async fn a_restarted_node_a_replaces_its_old_session_at_once() {
    let Pair { a, b } = pair();
    let (mut b, address) = listen(b);
    let mut restarted = a.clone();
    restarted.instance += 1;
    let cable = Cable::to(address).await;
    let mut old = PeerLink::dial(a, vec![path("one", cable.address)]).unwrap();
    let (_, _, _, _outbox) = up(&mut old).await;
    let (_, first, _, _outbox_b) = up(&mut b).await;
    cable.cut();
    drop(old);
    let mut new = PeerLink::dial(restarted, vec![path("one", address)]).unwrap();
    up(&mut new).await;
    assert!(matches!(down(&mut b).await, DownReason::Superseded | DownReason::Silent(_)));
    let (_, second, _, _) = up(&mut b).await;
    assert_eq!(second.boot, first.boot);
    assert_ne!(second.instance, first.instance);
}

#[tokio::test]
async fn a_closed_link_frees_its_port_at_once() {
    let Pair { a, b } = pair();
    let (mut old, address) = listen(b.clone());
    let mut a = PeerLink::dial(a, vec![path("one", address)]).unwrap();
    let (_, _, _, _to_b) = up(&mut a).await;
    let (_, _, _, _to_a) = up(&mut old).await;
    within("the link closes", old.close()).await;
    let mut new = PeerLink::listen(b, vec![net::listen(address).unwrap()]).unwrap();
    down(&mut a).await;
    let (_, _, _, _to_b) = up(&mut a).await;
    up(&mut new).await;
}

#[tokio::test]
async fn dropping_the_outbox_sends_the_queued_messages_and_ends_the_session() {
    let Pair { a, b } = pair();
    let (mut b, address) = listen(b);
    let mut a = PeerLink::dial(a, vec![path("one", address)]).unwrap();
    let (_, _, _, to_b) = up(&mut a).await;
    let (_, _, _, _to_a) = up(&mut b).await;
    to_b.send(Bytes::from_static(b"last")).await.unwrap();
    drop(to_b);
    assert_eq!(&message(&mut b).await[..], b"last");
    assert!(matches!(down(&mut b).await, DownReason::Closed));
    assert!(matches!(down(&mut a).await, DownReason::Dropped));
    up(&mut a).await;
}

#[tokio::test]
async fn a_receiver_that_reads_late_does_not_end_the_session() {
    let Pair { a, b } = pair();
    let (mut b, address) = listen(b);
    let mut a = PeerLink::dial(a, vec![path("one", address)]).unwrap();
    let (_, _, _, to_b) = up(&mut a).await;
    let (_, _, _, _to_a) = up(&mut b).await;
    // More messages than B's event queue holds; B reads none of them for twice the silence limit.
    let sender = tokio::spawn(async move {
        for _ in 0..100 {
            to_b.send(Bytes::from(vec![1; 1 << 20])).await.unwrap();
        }
        to_b
    });
    tokio::time::sleep(SILENCE_TIMEOUT * 2 + SILENCE_TIMEOUT / 3).await;
    for _ in 0..100 {
        assert_eq!(message(&mut b).await.len(), 1 << 20);
    }
    drop(sender.await.unwrap());
}

#[tokio::test]
async fn an_unknown_key_is_refused_by_listener_and_by_dialer() {
    let Pair { a, b } = pair();
    let unknown = pair().a;
    let (mut b, address) = listen(b);
    // B does not accept this key.
    let mut dialler = PeerLink::dial(PeerLinkConfig { peer: a.peer, ..unknown }, vec![path("one", address)]).unwrap();
    let reason = refused(&mut dialler).await;
    assert!(matches!(reason, HandshakeError::Tls(TlsError::KeyRefused)), "{reason:?}");
    assert!(matches!(refused(&mut b).await, HandshakeError::Tls(TlsError::WrongKey { .. })));
    assert!(reason.to_string().contains("refuses this node's key"));

    // A expects another key than B's.
    let mut a = PeerLink::dial(PeerLinkConfig { peer: unknown.peer, ..a }, vec![path("one", address)]).unwrap();
    assert!(matches!(refused(&mut a).await, HandshakeError::Tls(TlsError::WrongKey { .. })));
}

#[tokio::test]
async fn a_node_of_another_pair_is_refused_and_both_ids_are_named() {
    let Pair { a, b } = pair();
    let ours = PairId::generate();
    let theirs = b.pair;
    let (mut b, address) = listen(b);
    let mut a = PeerLink::dial(PeerLinkConfig { pair: ours, ..a }, vec![path("one", address)]).unwrap();
    let reason = refused(&mut a).await;
    assert!(matches!(reason, HandshakeError::Pair { .. }), "{reason:?}");
    assert!(reason.to_string().contains(&theirs.to_string()) && reason.to_string().contains(&ours.to_string()));
    assert!(matches!(refused(&mut b).await, HandshakeError::Pair { .. }));
}

#[tokio::test]
async fn nodes_of_the_same_letter_or_without_a_common_version_are_refused() {
    let Pair { a, b } = pair();
    let (_b, address) = listen(PeerLinkConfig { node: NodeId::A, versions: 4..=5, ..b });
    let mut same = PeerLink::dial(a.clone(), vec![path("one", address)]).unwrap();
    assert!(matches!(refused(&mut same).await, HandshakeError::SameNode { node: NodeId::A }));
    let mut old = PeerLink::dial(PeerLinkConfig { node: NodeId::B, ..a }, vec![path("one", address)]).unwrap();
    match refused(&mut old).await {
        HandshakeError::Version { ours, theirs } => assert_eq!((ours, theirs), (1..=1, 4..=5)),
        other => panic!("expected versions, got {other:?}"),
    }
}

#[tokio::test]
async fn a_client_of_another_protocol_does_not_disturb_the_session() {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let Pair { a, b } = pair();
    let (mut b, address) = listen(b);
    let mut a = PeerLink::dial(a, vec![path("one", address)]).unwrap();
    let (_, _, _, _to_b) = up(&mut a).await;
    let (_, _, _, to_a) = up(&mut b).await;
    let mut client = tokio::net::TcpStream::connect(address).await.unwrap();
    client.write_all(b"GET / HTTP/1.1\r\n\r\n").await.unwrap();
    let mut answer = Vec::new();
    within("the client is sent away", client.read_to_end(&mut answer)).await.ok();
    to_a.send(Bytes::from_static(b"calm")).await.unwrap();
    assert_eq!(&message(&mut a).await[..], b"calm");
    assert!(matches!(refused(&mut b).await, HandshakeError::Tls(TlsError::Protocol)));
}
