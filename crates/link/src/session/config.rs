//! Settings of a peer link.

use std::ops::RangeInclusive;
use std::time::Duration;

use bytes::Bytes;

use crate::tls::Identity;
use crate::{Fingerprint, PairId};
use dyad_types::NodeId;

#[cfg(doc)]
use super::{MAX_GREETING, Outbox, PeerLink};

/// How long things may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timing {
    /// Between two signs of life.
    pub alive: Duration,
    /// Without a byte for this long the path is dead.
    pub silence: Duration,
    /// For a TCP connection to be made.
    pub connect: Duration,
    /// Head start of each path over the next one.
    pub stagger: Duration,
    /// For TLS and the greeting together.
    pub handshake: Duration,
    /// Between two rounds over all paths when none works.
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

/// What a [`PeerLink`] needs to know.
#[derive(Debug, Clone)]
pub struct Config {
    /// The installation both nodes belong to.
    pub pair: PairId,
    /// Which node this is.
    pub node: NodeId,
    /// Drawn at random once per boot of this machine.
    pub boot: u128,
    /// Drawn at random once per start of this program.
    pub instance: u128,
    /// Versions of the messages on top that this program speaks; the highest common one is used.
    pub versions: RangeInclusive<u16>,
    /// Anything the peer should know with the greeting; at most [`MAX_GREETING`] bytes.
    pub greeting: Bytes,
    /// This node's key.
    pub identity: Identity,
    /// The peer's key.
    pub peer: Fingerprint,
    /// Bounds in time.
    pub timing: Timing,
    /// Messages an [`Outbox`] holds at most.
    pub queue_messages: usize,
    /// Bytes an [`Outbox`] holds at most; never less than one message of 2 MiB.
    pub queue_bytes: usize,
}

impl Config {
    /// A configuration with default timing and queues (4096 messages, 64 MiB), version 1 and an
    /// empty greeting; `boot` and `instance` are drawn at random.
    #[must_use]
    pub fn new(pair: PairId, node: NodeId, identity: Identity, peer: Fingerprint) -> Self {
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
