//! Settings of a peer link.

use std::ops::RangeInclusive;
use std::time::Duration;

use bytes::Bytes;

use crate::tls::TlsIdentity;
use crate::{Fingerprint, PairId};
use dyad_types::NodeId;

#[cfg(doc)]
use super::{MAX_GREETING, Outbox, PeerLink};

/// The intervals and time limits of a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timing {
    /// Interval between two `Alive` messages.
    pub alive: Duration,
    /// A path without a received byte for this long is dead.
    pub silence: Duration,
    /// Time limit of a TCP connection.
    pub connect: Duration,
    /// Delay between the starts of two paths.
    pub stagger: Duration,
    /// Time limit of TLS and the greeting together.
    pub handshake: Duration,
    /// Delay between two rounds over all paths when none works.
    pub retry: Duration,
}

impl Default for Timing {
    fn default() -> Self {
        Self {
            alive: Duration::from_millis(200),
            silence: Duration::from_secs(1),
            connect: Duration::from_secs(1),
            stagger: Duration::from_millis(100),
            handshake: Duration::from_secs(2),
            retry: Duration::from_millis(250),
        }
    }
}

/// The configuration of a [`PeerLink`].
#[derive(Debug, Clone)]
pub struct Config {
    /// The pair of both nodes.
    pub pair: PairId,
    pub node: NodeId,
    /// Random number of this boot of the machine.
    pub boot: u128,
    /// Random number of this start of the program.
    pub instance: u128,
    /// Versions of the messages above that this program speaks; the highest common one is used.
    pub versions: RangeInclusive<u16>,
    /// Bytes for the peer, sent with the greeting; at most [`MAX_GREETING`].
    pub greeting: Bytes,
    /// This node's key.
    pub identity: TlsIdentity,
    /// The fingerprint of the peer's key.
    pub peer: Fingerprint,
    pub timing: Timing,
    /// Maximum number of messages in an [`Outbox`].
    pub queue_messages: usize,
    /// Maximum number of bytes in an [`Outbox`]; at least one message of 2 MiB fits.
    pub queue_bytes: usize,
}

impl Config {
    /// A configuration with default timing and queues (4096 messages, 64 MiB), version 1, an empty greeting, and random
    /// numbers for `boot` and `instance`.
    #[must_use]
    pub fn new(pair: PairId, node: NodeId, identity: TlsIdentity, peer: Fingerprint) -> Self {
        Self {
            pair,
            node,
            boot: u128::from_be_bytes(crate::random()),
            instance: u128::from_be_bytes(crate::random()),
            versions: 1..=1,
            greeting: Bytes::new(),
            identity,
            peer,
            timing: Timing::default(),
            queue_messages: 4096,
            queue_bytes: 64 << 20,
        }
    }
}
