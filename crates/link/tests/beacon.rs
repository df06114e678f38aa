//! Beacons over loopback UDP, and over real link-local multicast between two network namespaces.

mod netns;

use std::net::{SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

use dyad_link::beacon::{Beacon, BeaconConfig, MAX_BODY, PathConfig, Wake};
use dyad_link::discovery::{Announcer, Endpoint, Listener, Offer};
use dyad_link::net::Interface;
use dyad_link::{Fingerprint, PairId, PairKey};
use dyad_types::NodeId;
use netns::{Namespaces, inside};

const TEST_DEADLINE: Duration = Duration::from_secs(30);
const POLL_INTERVAL: Duration = Duration::from_millis(20);

fn config(node: NodeId) -> BeaconConfig {
    BeaconConfig { pair: PairId(77), node, key: PairKey([1; 32]), port: dyad_link::UDP_PORT }
}

fn unicast(peer: Option<SocketAddr>) -> PathConfig {
    PathConfig::Unicast { name: "cable".into(), local: "127.0.0.1:0".parse().unwrap(), peer }
}

/// Two beacons with `paths` unicast paths: A knows B's addresses, B knows no address.
fn beacon_pair(paths: usize) -> (Beacon, Beacon) {
    let b = Beacon::open(&config(NodeId::B), (0..paths).map(|_| unicast(None)).collect()).unwrap();
    let peers = (0..paths).map(|path| unicast(b.local_address(u8::try_from(path).unwrap())));
    (Beacon::open(&config(NodeId::A), peers.collect()).unwrap(), b)
}

/// Path and body of the datagram that `beacon` receives within [`POLL_INTERVAL`], if any.
fn receive_body(beacon: &mut Beacon) -> Option<(u8, Vec<u8>)> {
    match beacon.receive(POLL_INTERVAL).unwrap() {
        Wake::Datagram(received) => Some((received.path, received.body.to_vec())),
        Wake::Woken | Wake::TimedOut => None,
    }
}

/// Exchanges datagrams until each side has heard the other on `paths` paths.
fn exchange_proofs(a: &mut Beacon, b: &mut Beacon, paths: u8) {
    let start = Instant::now();
    let (mut at_a, mut at_b) = (0u8, 0u8);
    while at_a.count_ones() < paths.into() || at_b.count_ones() < paths.into() {
        assert!(start.elapsed() < TEST_DEADLINE, "no datagrams on all paths: {:?} {:?}", a.status(), b.status());
        a.send(None, b"from a");
        b.send(None, b"from b");
        while let Some((path, body)) = receive_body(a) {
            assert_eq!(body, b"from b");
            at_a |= 1 << path;
        }
        while let Some((path, body)) = receive_body(b) {
            assert_eq!(body, b"from a");
            at_b |= 1 << path;
        }
    }
}

#[test]
fn two_paths_carry_datagrams_both_ways_and_addresses_are_learned() {
    let (mut a, mut b) = beacon_pair(2);
    exchange_proofs(&mut a, &mut b, 2);
    assert_eq!(b.peer_address(0), a.local_address(0));
    assert_eq!(b.peer_address(1), a.local_address(1));
    assert_eq!(a.send(Some(1), b"second only"), 0b10);
    assert_eq!(receive_body(&mut b), Some((1, b"second only".to_vec())));
    let longest = vec![5; MAX_BODY];
    assert_eq!(b.send(Some(0), &longest), 0b01);
    assert_eq!(receive_body(&mut a), Some((0, longest)));
}

#[test]
fn replayed_and_forged_datagrams_are_not_delivered() {
    // The tap stands between the nodes, forwards their datagrams and records those of A.
    let tap = UdpSocket::bind("127.0.0.1:0").unwrap();
    tap.set_read_timeout(Some(TEST_DEADLINE)).unwrap();
    let mut b = Beacon::open(&config(NodeId::B), vec![unicast(None)]).unwrap();
    let at_b = b.local_address(0).unwrap();
    let mut a = Beacon::open(&config(NodeId::A), vec![unicast(tap.local_addr().ok())]).unwrap();
    let at_a = a.local_address(0).unwrap();
    let mut recorded = Vec::new();
    let mut pass = |a: &mut Beacon, b: &mut Beacon| {
        a.send(None, b"beat");
        let mut datagram = [0; 2000];
        let length = tap.recv(&mut datagram).unwrap();
        tap.send_to(&datagram[..length], at_b).unwrap();
        recorded.push(datagram[..length].to_vec());
        let heard = receive_body(b);
        // B's answer to an unproven datagram is forwarded to A.
        if heard.is_none() {
            let length = tap.recv(&mut datagram).unwrap();
            tap.send_to(&datagram[..length], at_a).unwrap();
            assert_eq!(receive_body(a), None, "an answer has no body");
        }
        heard
    };
    assert_eq!(pass(&mut a, &mut b), None);
    assert_eq!(pass(&mut a, &mut b), Some((0, b"beat".to_vec())));
    let before = b.counts();
    for datagram in &recorded {
        tap.send_to(datagram, at_b).unwrap();
        assert_eq!(receive_body(&mut b), None);
        let mut forged = datagram.clone();
        forged[60] ^= 1;
        tap.send_to(&forged, at_b).unwrap();
        assert_eq!(receive_body(&mut b), None);
    }
    assert_eq!(b.counts().replayed, before.replayed + 2);
    assert_eq!(b.counts().forged, before.forged + 2);
    assert_eq!(b.counts().accepted, before.accepted);
    // Nor does a replay move the address of A: what B sends still comes to the tap.
    let thief = UdpSocket::bind("127.0.0.1:0").unwrap();
    thief.send_to(&recorded[1], at_b).unwrap();
    assert_eq!(receive_body(&mut b), None);
    b.send(None, b"for A only");
    let mut datagram = [0; 2000];
    tap.recv(&mut datagram).unwrap();
}

#[test]
fn a_restarted_node_is_heard_again_and_unknown_keys_are_not() {
    let (mut a, mut b) = beacon_pair(1);
    exchange_proofs(&mut a, &mut b, 1);
    let at_b = b.local_address(0);
    let mut restarted = Beacon::open(&config(NodeId::A), vec![unicast(at_b)]).unwrap();
    exchange_proofs(&mut restarted, &mut b, 1);
    let foreign = BeaconConfig { key: PairKey([2; 32]), ..config(NodeId::A) };
    let mut unknown = Beacon::open(&foreign, vec![unicast(at_b)]).unwrap();
    let other = BeaconConfig { pair: PairId(78), ..config(NodeId::A) };
    let mut neighbour = Beacon::open(&other, vec![unicast(at_b)]).unwrap();
    unknown.send(None, b"me");
    neighbour.send(None, b"me");
    while let Some((_, body)) = receive_body(&mut b) {
        assert_ne!(body, b"me");
    }
    assert_eq!((b.counts().forged, b.counts().other_pair), (1, 1));
}

#[test]
fn a_waker_ends_receive_from_another_thread() {
    let mut beacon = Beacon::open(&config(NodeId::A), vec![unicast(None)]).unwrap();
    let waker = beacon.waker();
    let thread = std::thread::spawn(move || waker.wake());
    assert_eq!(beacon.receive(TEST_DEADLINE).unwrap(), Wake::Woken);
    thread.join().unwrap();
    assert_eq!(beacon.receive(Duration::ZERO).unwrap(), Wake::TimedOut);
}

#[test]
fn receive_returns_in_time_during_a_flood_of_foreign_datagrams() {
    let mut beacon = Beacon::open(&config(NodeId::A), vec![unicast(None)]).unwrap();
    let target = beacon.local_address(0).unwrap();
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    let stop = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                let _ = socket.send_to(b"noise", target);
            }
        });
        let start = Instant::now();
        for _ in 0..10 {
            assert_eq!(beacon.receive(POLL_INTERVAL).unwrap(), Wake::TimedOut);
        }
        stop.store(true, std::sync::atomic::Ordering::Relaxed);
        assert!(start.elapsed() < Duration::from_secs(10));
    });
    assert!(beacon.counts().foreign > 0);
}

#[test]
fn a_missing_interface_is_no_error_and_a_ninth_path_is_one() {
    let path = PathConfig::Interface { name: "no-such-if0".into() };
    let mut beacon = Beacon::open(&config(NodeId::A), vec![path]).unwrap();
    assert_eq!(beacon.send(None, b"x"), 0);
    assert!(!beacon.status()[0].open);
    assert_eq!(beacon.receive(Duration::ZERO).unwrap(), Wake::TimedOut);
    assert!(Beacon::open(&config(NodeId::A), vec![unicast(None); 9]).is_err());
}

fn on_interface(node: NodeId, name: &str) -> Beacon {
    Beacon::open(&config(node), vec![PathConfig::Interface { name: name.into() }]).unwrap()
}

/// Sends `word` until `count` datagrams were received, and for 2 s more; returns the peer's address.
fn send_and_receive(beacon: &mut Beacon, word: &[u8], count: usize) -> Result<SocketAddr, String> {
    let start = Instant::now();
    let mut heard = 0;
    let mut enough_at = None;
    loop {
        beacon.refresh();
        beacon.send(None, word);
        while receive_body(beacon).is_some() {
            heard += 1;
        }
        if heard >= count {
            // The other side may still need datagrams of this one.
            let since = *enough_at.get_or_insert_with(Instant::now);
            if since.elapsed() > Duration::from_secs(2) {
                return beacon.peer_address(0).ok_or_else(|| "datagrams arrived, but the peer has no address".into());
            }
        }
        if start.elapsed() > TEST_DEADLINE {
            return Err(format!("heard {heard}: {:?} {:?}", beacon.status(), beacon.counts()));
        }
    }
}

#[test]
fn nodes_find_each_other_by_multicast_also_after_the_interface_was_replaced() {
    let Some(mut spaces) = Namespaces::create() else { return };
    for round in 0..2 {
        let (a, b) = (spaces.a.clone(), spaces.b.clone());
        let sides = [(a, NodeId::A), (b, NodeId::B)].map(|(space, node)| {
            std::thread::spawn(move || {
                inside(&space, || {
                    let mut beacon = on_interface(node, "cable");
                    send_and_receive(&mut beacon, b"beat", 5)
                })
            })
        });
        for side in sides {
            let peer = side.join().unwrap().unwrap();
            assert!(matches!(peer, SocketAddr::V6(peer) if peer.scope_id() > 0 && peer.ip().is_unicast_link_local()));
        }
        if round == 0 {
            spaces.replug();
        }
    }
}

#[test]
fn a_running_beacon_opens_its_socket_again_when_the_interface_is_replaced() {
    let Some(mut spaces) = Namespaces::create() else { return };
    let mut beacon = inside(&spaces.a, || on_interface(NodeId::A, "cable"));
    spaces.replug();
    let b = spaces.b.clone();
    let far =
        std::thread::spawn(move || inside(&b, || send_and_receive(&mut on_interface(NodeId::B, "cable"), b"beat", 5)));
    inside(&spaces.a, || send_and_receive(&mut beacon, b"beat", 5)).unwrap();
    far.join().unwrap().unwrap();
}

#[test]
fn an_offer_is_found_by_multicast_while_a_beacon_runs() {
    let Some(spaces) = Namespaces::create() else { return };
    let offer = Offer {
        pair: PairId(1),
        pair_name: "office".into(),
        node_name: "one".into(),
        port: 4711,
        fingerprint: Fingerprint([3; 32]),
    };
    let endpoints = || [Endpoint::Interface(Interface::named("cable").unwrap())];
    let announcer = inside(&spaces.a, || Announcer::open(&endpoints()));
    let (mut listener, _beacon) =
        inside(&spaces.b, || (Listener::open(&endpoints()), on_interface(NodeId::B, "cable")));
    let start = Instant::now();
    let found = loop {
        announcer.announce(&offer);
        if let Some(found) = listener.offers(Instant::now()).pop() {
            break found;
        }
        assert!(start.elapsed() < TEST_DEADLINE, "no offer was heard");
        std::thread::sleep(POLL_INTERVAL);
    };
    assert_eq!((found.offer, found.interface.as_str()), (offer, "cable"));
    assert_eq!(found.address.port(), 4711);
}
