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
pub struct PeerLinkTiming {
    /// Interval between two `Alive` messages of one side.
    pub keepalive_interval: Duration,
    /// A session on which no byte was received for this long ends.
    pub silence_timeout: Duration,
    /// Time limit of establishing a TCP connection.
    pub connect_timeout: Duration,
    /// Node A starts to connect on each path this much later than on the path before.
    pub path_stagger_delay: Duration,
    /// Time limit of the TLS handshake and the greeting together.
    pub handshake_timeout: Duration,
    /// Delay of node A between two rounds over all paths when none works, and the minimum time between the starts of
    /// two sessions.
    pub retry_delay: Duration,
}

impl Default for PeerLinkTiming {
    fn default() -> Self {
        Self {
            keepalive_interval: Duration::from_millis(200),
            silence_timeout: Duration::from_secs(1),
            connect_timeout: Duration::from_secs(1),
            path_stagger_delay: Duration::from_millis(100),
            handshake_timeout: Duration::from_secs(2),
            retry_delay: Duration::from_millis(250),
        }
    }
}

/// The configuration of a [`PeerLink`].
#[derive(Debug, Clone)]
pub struct PeerLinkConfig {
    /// Id of the pair; a peer of another pair is refused.
    pub pair: PairId,
    pub node: NodeId,
    /// Random number of this boot of the machine.
    pub boot: u128,
    /// Random number of this start of the program.
    pub instance: u128,
    /// Versions of the messages in `Data` frames that this program knows; the highest common one is used.
    pub versions: RangeInclusive<u16>,
    /// Bytes for the peer's caller, sent with the greeting; bytes beyond [`MAX_GREETING`] are cut off.
    pub greeting: Bytes,
    /// This node's key and certificate.
    pub identity: TlsIdentity,
    /// The pinned fingerprint of the peer's certificate.
    pub peer: Fingerprint,
    pub timing: PeerLinkTiming,
    /// Maximum number of messages in an [`Outbox`].
    pub queue_messages: usize,
    /// Maximum number of payload bytes in an [`Outbox`]; less than 2 MiB counts as 2 MiB, so that any message fits.
    pub queue_bytes: usize,
}

impl PeerLinkConfig {
    /// A configuration with default timing and queues (4096 messages, 64 MiB), version 1, an empty greeting, and random
    /// numbers for `boot` and `instance`.
    #[must_use]
    pub fn new(pair: PairId, node: NodeId, identity: TlsIdentity, peer: Fingerprint) -> Self {
        Self {
            pair,
            node,
            boot: u128::from_be_bytes(crate::random_bytes()),
            instance: u128::from_be_bytes(crate::random_bytes()),
            versions: 1..=1,
            greeting: Bytes::new(),
            identity,
            peer,
            timing: PeerLinkTiming::default(),
            queue_messages: 4096,
            queue_bytes: 64 << 20,
        }
    }
}
