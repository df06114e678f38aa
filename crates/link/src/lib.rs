//! The communication between two nodes, and between a node and its witness.
//!
//! * [`tls`]: self-signed identities, pinned by the SHA-256 of the certificate; there is no CA.
//! * [`frame`]: messages with magic, version, length and CRC32C on any byte stream.
//! * [`session`]: the TLS session between the two nodes, on the first path that works.
//! * [`beacon`]: authenticated UDP datagrams for the heartbeats of the quorum thread; no async, no TLS.
//! * [`discovery`]: unauthenticated pairing offers, announced on every link.
//! * [`pairing`]: the first contact, by a one-time code that a person types (SPAKE2).
//!
//! All formats are described in `docs/wire.md`.
//!
//! This crate must never know the meaning of the bytes it carries: no epoch, lease, volume or VM.
//!
//! **Invariants**
//! * No message of a peer reaches the caller before the peer has proven the pinned key ([`session`]), the pair key and
//!   its freshness ([`beacon`]) or the code ([`pairing`]). There are two exceptions: offers of [`discovery`] are only
//!   shown to a person, and with [`tls::Trust::AnyKey`] the caller authenticates the key itself.
//! * At most one session is up at a time, and a message that was given to one session is never sent on another.
//! * Every queue, frame, datagram, handshake and idle connection has a limit with a unit.
//! * No input makes a decoder panic.

pub mod beacon;
pub mod discovery;
pub mod frame;
mod ids;
pub mod net;
pub mod pairing;
pub mod session;
pub mod tls;

pub use ids::{Fingerprint, PairId, PairKey, ParseIdError, random_bytes};

/// UDP port of heartbeats and discovery.
pub const UDP_PORT: u16 = 7401;
/// TCP port on which node B accepts the peer link, and node A a second node that joins.
pub const PEER_PORT: u16 = 7402;
/// The link-local IPv6 multicast group of heartbeats and discovery.
pub const MULTICAST_GROUP: std::net::Ipv6Addr = std::net::Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 0xd1ad);
