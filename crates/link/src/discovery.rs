//! Pairing offers: a node with an open pairing code announces on every link that its pair takes a second node.
//!
//! ```text
//! offset size
//!      0    4  magic "DYDC"
//!      4    1  version, 1
//!      5    n  Offer, a postcard message; the whole datagram has at most 512 bytes
//!    5+n    4  CRC32C of all before, little endian
//! ```
//!
//! **Invariant**: an offer proves nothing. It is only shown in a list from which a person chooses; the code that the
//! person types is the proof ([`crate::pairing`]).

use std::collections::BTreeMap;
use std::io;
use std::net::{SocketAddr, SocketAddrV6, UdpSocket};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use socket2::{Domain, Protocol, Socket, Type};

use crate::net::Interface;
use crate::{Fingerprint, MULTICAST_GROUP, PairId, UDP_PORT};

/// Interval between two announcements of an offer.
pub const ANNOUNCE_INTERVAL: Duration = Duration::from_secs(1);
/// An offer that is not received again within this period is dropped.
pub const OFFER_VALIDITY_PERIOD: Duration = Duration::from_secs(5);

pub(crate) const MAGIC: [u8; 4] = *b"DYDC";
const VERSION: u8 = 1;
const MAX_DATAGRAM: usize = 512;
/// Maximum length of a name in an offer, in characters.
const MAX_NAME: usize = 64;
/// Maximum number of stored offers, and of datagrams read from one socket in one call, so that a flood of datagrams
/// neither fills the memory nor delays the caller.
const MAX_OFFERS: usize = 64;

/// The announcement of a node with an open pairing code.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Offer {
    /// The pair to join.
    pub pair: PairId,
    pub pair_name: String,
    /// Name of the announcing node.
    pub node_name: String,
    /// TCP port on which the node waits for pairing.
    pub port: u16,
    /// Fingerprint of the announcing node's key.
    pub fingerprint: Fingerprint,
}

impl Offer {
    fn encode(&self) -> Option<Vec<u8>> {
        let mut bytes = [&MAGIC[..], &[VERSION]].concat();
        bytes.extend(postcard::to_stdvec(self).ok()?);
        bytes.extend(crc32c::crc32c(&bytes).to_le_bytes());
        (bytes.len() <= MAX_DATAGRAM).then_some(bytes)
    }

    fn decode(bytes: &[u8]) -> Option<Self> {
        let (content, sum) = bytes.split_last_chunk::<4>()?;
        let body = content.strip_prefix(&MAGIC)?.strip_prefix(&[VERSION])?;
        if crc32c::crc32c(content) != u32::from_le_bytes(*sum) {
            return None;
        }
        let mut offer: Self = crate::frame::from_payload(body).ok()?;
        // The names are printed on terminals and web pages, so control characters are removed.
        for name in [&mut offer.pair_name, &mut offer.node_name] {
            *name = name.chars().filter(|letter| !letter.is_control()).take(MAX_NAME).collect();
        }
        Some(offer)
    }
}

/// A destination of announcements, or a source of offers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Endpoint {
    /// The multicast group on this interface.
    Interface(Interface),
    /// One address, to which the announcer sends and which the listener binds. For tests and networks without
    /// multicast.
    Address(SocketAddr),
}

/// Sends offers to all endpoints.
#[derive(Debug)]
pub struct Announcer {
    sockets: Vec<(UdpSocket, SocketAddr)>,
}

impl Announcer {
    /// Opens a socket for each endpoint; endpoints that fail are left out.
    #[must_use]
    pub fn open(endpoints: &[Endpoint]) -> Self {
        Self { sockets: endpoints.iter().filter_map(|endpoint| announcing_socket(endpoint).ok()).collect() }
    }

    /// Sends `offer` once to every endpoint; returns the number of endpoints for which the kernel accepted the
    /// datagram. Never blocks.
    pub fn announce(&self, offer: &Offer) -> usize {
        let Some(bytes) = offer.encode() else { return 0 };
        self.sockets.iter().filter(|(socket, target)| socket.send_to(&bytes, target).is_ok()).count()
    }
}

/// An offer that was received within [`OFFER_VALIDITY_PERIOD`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DiscoveredOffer {
    pub offer: Offer,
    /// The address for pairing: the sender's address (with its scope) and the offer's port.
    pub address: SocketAddr,
    /// Name of the interface on which the offer was received; empty for [`Endpoint::Address`].
    pub interface: String,
}

/// Receives the offers of first nodes on all endpoints.
#[derive(Debug)]
pub struct Listener {
    sockets: Vec<(UdpSocket, String)>,
    /// The last offer of each node on each interface, with the time of its reception.
    heard: BTreeMap<(Fingerprint, String), (DiscoveredOffer, Instant)>,
}

impl Listener {
    /// Opens a socket for each endpoint; endpoints that fail are left out.
    #[must_use]
    pub fn open(endpoints: &[Endpoint]) -> Self {
        let socket = |endpoint: &Endpoint| match endpoint {
            Endpoint::Interface(interface) => listening_socket(interface).ok().map(|it| (it, interface.name.clone())),
            Endpoint::Address(address) => nonblocking(UdpSocket::bind(address)).ok().map(|it| (it, String::new())),
        };
        Self { sockets: endpoints.iter().filter_map(socket).collect(), heard: BTreeMap::new() }
    }

    /// Reads up to 64 datagrams from each socket and returns the offers that were received within the last
    /// [`OFFER_VALIDITY_PERIOD`]. Never blocks.
    pub fn offers(&mut self, now: Instant) -> Vec<DiscoveredOffer> {
        let mut buffer = [0; MAX_DATAGRAM];
        for (socket, interface) in &self.sockets {
            for _ in 0..MAX_OFFERS {
                let Ok((length, from)) = socket.recv_from(&mut buffer) else { break };
                let Some(offer) = Offer::decode(&buffer[..length]) else { continue };
                let key = (offer.fingerprint, interface.clone());
                if self.heard.len() < MAX_OFFERS || self.heard.contains_key(&key) {
                    let mut address = from;
                    address.set_port(offer.port);
                    self.heard.insert(key, (DiscoveredOffer { offer, address, interface: interface.clone() }, now));
                }
            }
        }
        self.heard.retain(|_, (_, at)| now.saturating_duration_since(*at) < OFFER_VALIDITY_PERIOD);
        self.heard.values().map(|(found, _)| found.clone()).collect()
    }

    /// The addresses to which the listener is bound.
    #[must_use]
    pub fn local_addresses(&self) -> Vec<SocketAddr> {
        self.sockets.iter().filter_map(|(socket, _)| socket.local_addr().ok()).collect()
    }
}

fn nonblocking(socket: io::Result<UdpSocket>) -> io::Result<UdpSocket> {
    let socket = socket?;
    socket.set_nonblocking(true)?;
    Ok(socket)
}

fn announcing_socket(endpoint: &Endpoint) -> io::Result<(UdpSocket, SocketAddr)> {
    let target = match endpoint {
        Endpoint::Address(address) => *address,
        Endpoint::Interface(interface) => SocketAddrV6::new(MULTICAST_GROUP, UDP_PORT, 0, interface.index).into(),
    };
    let socket = Socket::new(Domain::for_address(target), Type::DGRAM, Some(Protocol::UDP))?;
    if let Endpoint::Interface(interface) = endpoint {
        socket.set_multicast_if_v6(interface.index)?;
        socket.set_multicast_loop_v6(false)?;
    }
    Ok((nonblocking(Ok(socket.into()))?, target))
}

/// Binds to the multicast group's address, so that it never receives the unicast heartbeats of a `dyad-core` on the
/// same machine.
fn listening_socket(interface: &Interface) -> io::Result<UdpSocket> {
    let socket = Socket::new(Domain::IPV6, Type::DGRAM, Some(Protocol::UDP))?;
    socket.set_only_v6(true)?;
    socket.set_reuse_address(true)?;
    socket.bind(&SocketAddr::from(SocketAddrV6::new(MULTICAST_GROUP, UDP_PORT, 0, interface.index)).into())?;
    socket.join_multicast_v6(&MULTICAST_GROUP, interface.index)?;
    nonblocking(Ok(socket.into()))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn offer(name: &str) -> Offer {
        Offer {
            pair: PairId(1),
            pair_name: name.into(),
            node_name: "one".into(),
            port: 4711,
            fingerprint: Fingerprint([3; 32]),
        }
    }

    #[test]
    fn an_offer_is_received_and_dropped_after_its_validity_period() {
        let mut listener = Listener::open(&[Endpoint::Address("127.0.0.1:0".parse().unwrap())]);
        let announcer = Announcer::open(&[Endpoint::Address(listener.local_addresses()[0])]);
        assert_eq!(announcer.announce(&offer("office")), 1);
        let start = Instant::now();
        let found = loop {
            if let [found] = &listener.offers(Instant::now())[..] {
                break found.clone();
            }
            assert!(start.elapsed() < Duration::from_secs(10), "the offer was not heard");
            std::thread::yield_now();
        };
        assert_eq!(found.offer, offer("office"));
        assert_eq!(found.address, "127.0.0.1:4711".parse().unwrap());
        assert!(listener.offers(Instant::now() + OFFER_VALIDITY_PERIOD).is_empty());
    }

    #[test]
    fn control_characters_are_removed_from_names() {
        let bytes = offer("\u{1b}[2Joffice\n").encode().unwrap();
        assert_eq!(Offer::decode(&bytes).unwrap().pair_name, "[2Joffice");
    }

    #[test]
    fn an_offer_too_long_for_a_datagram_is_not_sent() {
        assert_eq!(offer(&"x".repeat(600)).encode(), None);
    }

    proptest! {
        #[test]
        fn random_bytes_are_no_offer_and_no_panic(noise in proptest::collection::vec(any::<u8>(), 0..300)) {
            prop_assert_eq!(Offer::decode(&noise), None);
            let mut behind = b"DYDC\x01".to_vec();
            behind.extend(noise);
            behind.extend(crc32c::crc32c(&behind).to_le_bytes());
            let _ = Offer::decode(&behind);
        }
    }
}
