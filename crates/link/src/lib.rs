//! How two nodes, and a node and its witness, talk.
//!
//! * [`tls`]: self-signed identities, pinned by the SHA-256 of the certificate; there is no CA.
//! * [`frame`]: messages with magic, version, length and CRC32C on any byte stream.
//! * [`session`]: the one TLS session between the two nodes, on the first path that works.
//! * [`beacon`]: authenticated UDP datagrams for the heartbeat thread; no async, no TLS.
//! * [`discovery`]: "a pair here takes a second node", unauthenticated, on every link.
//! * [`pairing`]: first contact by a one-time code that a person carries (SPAKE2).
//!
//! Every byte is described in `docs/wire.md`.
//!
//! This crate must never know what the bytes it carries mean: no epoch, lease, volume or VM.
//!
//! **Invariants**
//! * No byte of a peer reaches the caller before the peer has proven the pinned key
//!   ([`session`]), the pair key and its freshness ([`beacon`]) or the code ([`pairing`]).
//!   [`discovery`] is the one exception, and its offers are only ever shown to a person.
//! * At most one session is up at a time, and a message handed to one session never travels on
//!   another.
//! * Every queue, frame, datagram, handshake and silence has a bound with a unit.
//! * Noise never panics a decoder.

pub mod beacon;
pub mod discovery;
pub mod frame;
mod ids;
pub mod net;
pub mod pairing;
pub mod session;
pub mod tls;

pub use ids::{Fingerprint, PairId, PairKey, ParseIdError, random};

/// UDP port of heartbeats and discovery.
pub const UDP_PORT: u16 = 7401;
/// TCP port of the peer link.
pub const PEER_PORT: u16 = 7402;
/// The link-local multicast group of heartbeats and discovery.
pub const GROUP: std::net::Ipv6Addr = std::net::Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 0xd1ad);
